//! What a daemon says of itself. `Control.Info` is not asked: dockerd does not implement it or answers
//! "v0.0.0+unknown". Features beyond v0.8 are not used, so there is nothing else to probe.

use std::collections::BTreeSet;

use bollard_buildkit_proto::moby::buildkit::v1::ListWorkersRequest;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use tonic::transport::Channel;

use crate::arch::Arch;

/// The client of a daemon's control service.
pub(super) type Control = ControlClient<Channel>;

/// A daemon's answer to `ListWorkers`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DaemonInfo {
    /// What its workers run, as OCI spells it, such as `linux/arm64` or `linux/arm/v7`.
    pub platforms: BTreeSet<String>,
    /// Whether it may lose lines of a step that prints fast unless its log stream is read more than once: it is older
    /// than v0.10, since which daemons tell their version.
    pub loses_fast_lines: bool,
}

impl DaemonInfo {
    /// Whether a worker runs programs of `arch`, natively or emulated. A daemon that names no platform at all
    /// is taken to run anything.
    pub fn runs(&self, arch: Arch) -> bool {
        self.platforms.is_empty() || self.platforms.contains(arch.oci_platform())
    }
}

pub(super) async fn list_workers(mut control: Control) -> Result<DaemonInfo, tonic::Status> {
    let workers = control.list_workers(ListWorkersRequest::default()).await?.into_inner().record;
    let loses_fast_lines = workers.iter().any(|worker| worker.buildkit_version.is_none());
    let platforms = workers.into_iter().flat_map(|worker| worker.platforms).map(|platform| {
        let parts = [platform.os, platform.architecture, platform.variant];
        parts.join("/").trim_end_matches('/').to_owned()
    });
    Ok(DaemonInfo { platforms: platforms.collect(), loses_fast_lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_count_and_silence_means_yes() {
        let of = |platforms: BTreeSet<String>| DaemonInfo { platforms, loses_fast_lines: false };
        let info = of(["linux/amd64", "linux/arm/v7"].map(str::to_owned).into());
        assert!(info.runs(Arch::X86_64) && info.runs(Arch::Armv7));
        assert!(!info.runs(Arch::Armhf) && !info.runs(Arch::Aarch64));
        assert!(of(BTreeSet::new()).runs(Arch::S390x));
    }
}
