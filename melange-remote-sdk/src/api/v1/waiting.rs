//! Why a job waits, on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Why a job waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct WaitingView {
    /// `blocked`, `retry_pause`, `capacity`, `no_backend`, `unhealthy`, `draining` or `ready`.
    pub reason: String,
    /// The same in a sentence.
    pub sentence: String,
    /// Since when, RFC 3339.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
    /// What would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Its place among those that wait for the same backends, from 1, as they are likely to get slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Jobs that it waits for and that have not succeeded, the first 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<BlockingJobView>,
    /// The backends that could run it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<MatchingBackendView>,
    /// When it is likely to begin, from how long jobs took of late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub starts_at: Option<Timestamp>,
}

impl WaitingView {
    /// A reason in a word and a sentence.
    pub fn new(reason: impl Into<String>, sentence: impl Into<String>, since: Timestamp) -> Self {
        Self {
            reason: reason.into(),
            sentence: sentence.into(),
            since,
            hint: None,
            position: None,
            blocked_by: Vec::new(),
            backends: Vec::new(),
            starts_at: None,
        }
    }
}

/// A job that another one waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BlockingJobView {
    /// Its name.
    pub id: String,
    /// Its status.
    pub status: String,
    /// The package that it builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
}

/// A backend that could run a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MatchingBackendView {
    /// Its address.
    pub addr: String,
    /// How many jobs it runs.
    pub running: u32,
    /// How many it runs at once.
    pub max_jobs: u32,
    /// `ready`, `busy`, `draining` or `unhealthy`.
    pub state: String,
}
