//! How values stand in the database.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::dialect::StoredRow;
use crate::arch::Arch;
use crate::backend_selector::Requirements;
use crate::job::{Build, ClaimToken, Job, JobId, JobResources, JobState, Project};
use crate::job_store::Group;
use crate::labels::{LabelSelector, Labels};

/// Something in the database that this program did not write.
fn broken(what: &str) -> sqlx::Error {
    sqlx::Error::Protocol(format!("the database holds what is no {what}"))
}

pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn size(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

pub(super) fn state(state: JobState) -> i64 {
    size(state.index())
}

pub(super) fn job_id(bytes: &[u8]) -> sqlx::Result<JobId> {
    JobId::from_bytes(bytes).map_err(|_| broken("job's id"))
}

/// The jobs of rows that have an `id`.
pub(super) fn ids_of(rows: &[StoredRow]) -> sqlx::Result<Vec<JobId>> {
    rows.iter().map(|row| job_id(row.try_get("id")?)).collect()
}

/// How many others the job of a row waits for, when it is blocked.
pub(super) fn blocked_by(row: &StoredRow) -> sqlx::Result<Option<u32>> {
    let stored: Option<i64> = row.try_get("blocked_by")?;
    Ok(stored.map(|stored| u32::try_from(stored).unwrap_or(u32::MAX)))
}

/// The job of a row. What its document says of the jobs that it waits for is as old as the document.
pub(super) fn job(row: &StoredRow) -> sqlx::Result<Job> {
    let job: Job = from_doc(row.try_get("doc")?)?;
    Ok(Job { blocked_by: blocked_by(row)?.unwrap_or(job.blocked_by), ..job })
}

/// The build of a row.
pub(super) fn build(row: &StoredRow) -> sqlx::Result<Build> {
    let build: Build = from_doc(row.try_get("doc")?)?;
    Ok(Build { facts: Arc::new(from_doc(row.try_get("facts")?)?), ..build })
}

pub(super) fn token(bytes: &[u8]) -> sqlx::Result<ClaimToken> {
    bytes.try_into().map(ClaimToken::from_bytes).map_err(|_| broken("token"))
}

pub(super) fn to_doc<T: Serialize>(value: &T) -> sqlx::Result<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

pub(super) fn from_doc<T: DeserializeOwned>(text: &str) -> sqlx::Result<T> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// The stored form of a [`Group`].
#[derive(Serialize, Deserialize)]
struct StoredGroup {
    project: String,
    arch: String,
    labels: BTreeMap<String, String>,
    avoid: Vec<String>,
    #[serde(default, skip_serializing_if = "JobResources::is_none")]
    resources: JobResources,
}

pub(super) fn group_key(group: &Group) -> sqlx::Result<String> {
    to_doc(&StoredGroup {
        project: group.project.to_string(),
        arch: group.needs.arch.to_string(),
        labels: group.needs.labels.labels().as_map().clone(),
        avoid: group.avoid.clone(),
        resources: group.needs.resources,
    })
}

pub(super) fn group_of(key: &str) -> sqlx::Result<Group> {
    let stored: StoredGroup = from_doc(key)?;
    let project: Project = stored.project.parse().map_err(|_| broken("project"))?;
    let arch: Arch = stored.arch.parse().map_err(|_| broken("architecture"))?;
    let labels = Labels::new(stored.labels).map_err(|_| broken("selector"))?;
    let needs = Requirements::new(arch, LabelSelector::new(labels)).with_resources(stored.resources);
    Ok(Group { project, needs, avoid: stored.avoid })
}
