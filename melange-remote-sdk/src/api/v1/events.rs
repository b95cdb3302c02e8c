//! Events on the wire: they are the events of the store.

use serde::{Deserialize, Serialize};

use crate::job::Event;

/// A page of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventsResponse {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// The number of the oldest event that is kept.
    pub oldest: u64,
    /// All events up to this number were looked at: the next page is asked for with it as `after`.
    pub last: u64,
}
