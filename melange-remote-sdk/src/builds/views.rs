//! The wire forms of what is told about builds.

use super::{BuildChanges, FailureGroup, PackageStanding};
use crate::api::v2::{
    BuildBlockersResponse, BuildChangesResponse, BuildFailuresResponse, FailureGroupView, StandingView,
};
use crate::job::{Build, BuildId, Job};
use crate::limits::PAGE_ITEMS_MAX;

/// The first of some packages.
fn first(packages: &[PackageStanding]) -> Vec<StandingView> {
    packages.iter().take(PAGE_ITEMS_MAX).map(StandingView::from).collect()
}

impl From<&PackageStanding> for StandingView {
    fn from(package: &PackageStanding) -> Self {
        let job = package.job.as_deref();
        let reason = |job: &Job| {
            let waiting = || job.waiting.as_ref().map(|waiting| waiting.reason.clone());
            job.error.as_ref().map(|error| error.message.clone()).or_else(waiting)
        };
        Self {
            name: package.name.clone(),
            arch: package.arch.apk_name().to_owned(),
            job_id: job.map(|job| job.id.to_string()),
            status: job.map(|job| job.state.to_string()),
            holds_back: package.holds_back,
            reason: job.and_then(reason),
        }
    }
}

impl From<&FailureGroup> for FailureGroupView {
    fn from(group: &FailureGroup) -> Self {
        let failure = group.failure.as_ref();
        let text = failure.and_then(|failure| failure.text.clone());
        Self {
            signature: group.signature.clone(),
            error_class: group.class.name().to_owned(),
            kind: failure.map(|failure| failure.kind.name().to_owned()),
            text: text.unwrap_or_else(|| group.message.clone()),
            packages: first(&group.packages),
            total: group.packages.len(),
            holds_back: group.holds_back(),
        }
    }
}

impl From<&[FailureGroup]> for BuildFailuresResponse {
    fn from(groups: &[FailureGroup]) -> Self {
        let told = groups.iter().take(PAGE_ITEMS_MAX).map(FailureGroupView::from);
        Self { groups: told.collect(), total: groups.len() }
    }
}

impl From<&[PackageStanding]> for BuildBlockersResponse {
    fn from(blockers: &[PackageStanding]) -> Self {
        Self { blockers: first(blockers), total: blockers.len() }
    }
}

impl BuildChangesResponse {
    /// What differs between a build and the one before it, should there be one.
    pub fn new(build: &Build, since: Option<BuildId>, changes: &BuildChanges) -> Self {
        let lists = [
            &changes.newly_failing,
            &changes.newly_well,
            &changes.still_failing,
            &changes.new,
            &changes.gone,
        ];
        let [newly_failing, newly_well, still_failing, new, gone] = lists.map(|list| first(list));
        Self {
            build_id: build.id.to_string(),
            since: since.map(|id| id.to_string()),
            newly_failing,
            newly_well,
            still_failing,
            new,
            gone,
            counts: lists.iter().map(|list| list.len()).collect(),
            undecided: changes.undecided,
        }
    }
}
