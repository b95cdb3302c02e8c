//! Builds of many packages.

use super::lines::add_parameter;
use super::{Client, decode, encode};
use crate::api::v2::{
    self, BuildBlockersResponse, BuildChangesResponse, BuildFailuresResponse, BuildPackageView,
    BuildPackagesResponse, BuildView, BuildsResponse, CreateBuildRequest, CreateBuildResponse,
    PackageHistoryResponse, PlanView,
};
use crate::error::Result;
use crate::job::BuildId;
use crate::limits;

/// What to do about a build that is too large for one request.
const FEWER: &str = "hand in fewer definitions at once";

/// Which packages of a build are asked for, and from where on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackagesQuery {
    /// Only those with this status.
    pub status: Option<String>,
    /// Only those for this architecture.
    pub arch: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

impl PackagesQuery {
    /// Those with a status.
    pub fn with_status(status: impl Into<String>) -> Self {
        Self { status: Some(status.into()), ..Self::default() }
    }

    fn path(&self, build: BuildId) -> String {
        let mut path = format!("{}?limit={}", v2::build_packages(build), limits::PAGE_ITEMS_MAX);
        add_parameter(&mut path, "status", self.status.as_ref());
        add_parameter(&mut path, "arch", self.arch.as_ref());
        add_parameter(&mut path, "cursor", self.cursor.as_ref());
        path
    }
}

impl Client {
    /// Where people and programs find a build.
    pub fn build_url(&self, id: BuildId) -> String {
        format!("{}{}", self.base, v2::build(id))
    }

    /// Hands in a build; it is planned before the answer comes.
    ///
    /// # Errors
    /// The server's; `Unavailable` when it does not answer after several tries.
    pub async fn create_build(&self, request: &CreateBuildRequest) -> Result<CreateBuildResponse> {
        self.hand_in(v2::BUILDS, request, FEWER).await
    }

    /// Plans a build, and builds nothing.
    ///
    /// # Errors
    /// As [`Self::create_build`].
    pub async fn plan_build(&self, request: &CreateBuildRequest) -> Result<PlanView> {
        self.hand_in(v2::PLANS, request, FEWER).await
    }

    /// One build.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::create_build`].
    pub async fn build(&self, id: BuildId) -> Result<BuildView> {
        self.json(|| self.get(&v2::build(id))).await
    }

    /// One page of builds, newest first. `status` filters.
    ///
    /// # Errors
    /// As [`Self::create_build`].
    pub async fn builds(
        &self,
        limit: usize,
        cursor: Option<&str>,
        status: Option<&str>,
    ) -> Result<BuildsResponse> {
        let mut path = format!("{}?limit={}", v2::BUILDS, limit.clamp(1, limits::PAGE_ITEMS_MAX));
        add_parameter(&mut path, "cursor", cursor);
        add_parameter(&mut path, "status", status);
        self.json(|| self.get(&path)).await
    }

    /// One page of packages of a build, in the order of its plan.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::create_build`].
    pub async fn build_packages(&self, id: BuildId, query: &PackagesQuery) -> Result<BuildPackagesResponse> {
        let path = query.path(id);
        self.json(|| self.get(&path)).await
    }

    /// A package of a build by its name or that of a subpackage; `arch` is needed when the build has several.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::create_build`].
    pub async fn build_package(
        &self,
        id: BuildId,
        name: &str,
        arch: Option<&str>,
    ) -> Result<BuildPackageView> {
        let arch = arch.map(|arch| format!("?arch={}", encode(arch))).unwrap_or_default();
        let path = format!("{}{arch}", v2::build_package(id, &encode(name)));
        self.json(|| self.get(&path)).await
    }

    /// The plan of a build.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::create_build`].
    pub async fn build_plan(&self, id: BuildId) -> Result<PlanView> {
        self.json(|| self.get(&v2::build_plan(id))).await
    }

    /// The failures of a build, grouped by what they failed of.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::create_build`].
    pub async fn build_failures(&self, id: BuildId) -> Result<BuildFailuresResponse> {
        self.json(|| self.get(&v2::build_failures(id))).await
    }

    /// What differs between a build and another one, by default the one before.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::create_build`].
    pub async fn build_changes(&self, id: BuildId, since: Option<BuildId>) -> Result<BuildChangesResponse> {
        let since = since.map(|since| format!("?since={since}")).unwrap_or_default();
        let path = format!("{}{since}", v2::build_changes(id));
        self.json(|| self.get(&path)).await
    }

    /// What holds other jobs of a build back.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::create_build`].
    pub async fn build_blockers(&self, id: BuildId) -> Result<BuildBlockersResponse> {
        self.json(|| self.get(&v2::build_blockers(id))).await
    }

    /// The last jobs of a package, newest first, at most 100.
    ///
    /// # Errors
    /// As [`Self::create_build`].
    pub async fn package_history(
        &self,
        name: &str,
        arch: Option<&str>,
        limit: usize,
    ) -> Result<PackageHistoryResponse> {
        let mut path = format!("{}?limit={}", v2::package_history(&encode(name)), limit.clamp(1, 100));
        add_parameter(&mut path, "arch", arch);
        self.json(|| self.get(&path)).await
    }

    /// Asks for all jobs of a build to stop.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::create_build`].
    pub async fn cancel_build(&self, id: BuildId) -> Result<BuildView> {
        decode(self.answer(|| self.http.post(format!("{}{}", self.base, v2::build_cancel(id)))).await?).await
    }

    /// Tries again what came to a bad end of a build.
    ///
    /// # Errors
    /// `NotFound`, or as [`Self::create_build`].
    pub async fn retry_build(&self, id: BuildId) -> Result<BuildView> {
        decode(self.answer(|| self.http.post(format!("{}{}", self.base, v2::build_retry(id)))).await?).await
    }
}
