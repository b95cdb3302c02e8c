//! The JSON types of version 2: builds of many packages.

mod builds;
mod plan;
mod report;

pub use builds::{
    BUILDS, BuildCountsView, BuildGitView, BuildOptionsView, BuildPackageView, BuildPackagesResponse,
    BuildPlanSummary, BuildView, BuildsResponse, CreateBuildRequest, CreateBuildResponse, GitSourceRequest,
    PLANS, REPOSITORIES, SourceRequest, build, build_cancel, build_events, build_package, build_packages,
    build_plan, build_repository, build_retry, read_build, repository_key,
};
pub use plan::{
    NoBackendView, PlanCutView, PlanCycleStepView, PlanEdgeView, PlanJobView, PlanMissingView,
    PlanRefusalView, PlanSkipView, PlanSummaryView, PlanTradeView, PlanView,
};
pub use report::{
    BuildBlockersResponse, BuildChangesResponse, BuildFailuresResponse, FailureGroupView, HistoryEntryView,
    PackageHistoryResponse, StandingView, build_blockers, build_changes, build_failures, package_history,
};
