//! From a backend's address to what runs guests there: one runner an address, made at first use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::RunnerProvider;
use crate::backend::{BackendAddress, BackendProbe};
use crate::buildkit::{BuildkitOptions, BuildkitRunner};
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::guest::GuestRunner;
use crate::limits;
use crate::sandbox::{SandboxOptions, SandboxRunner};

/// Runners by address: `sandbox://local` is the embedded sandbox, everything else a BuildKit daemon.
#[derive(Debug)]
pub struct AddressedRunners {
    sandbox: SandboxOptions,
    buildkit: BuildkitOptions,
    made: Mutex<HashMap<BackendAddress, Made>>,
}

/// A runner as it was made.
#[derive(Debug, Clone)]
enum Made {
    Sandbox(Arc<SandboxRunner>),
    Buildkit(Arc<BuildkitRunner>),
}

impl AddressedRunners {
    /// Runners with a sandbox as `sandbox` says, whose daemons are reached with `buildkit`; TLS applies to
    /// `tcp://` addresses only.
    pub fn new(sandbox: SandboxOptions, buildkit: BuildkitOptions) -> Self {
        Self { sandbox, buildkit, made: Mutex::new(HashMap::new()) }
    }

    fn make(&self, address: &BackendAddress) -> Result<Made> {
        if *address == BackendAddress::Sandbox {
            return Ok(Made::Sandbox(Arc::new(SandboxRunner::new(&self.sandbox)?)));
        }
        let mut options = self.buildkit.clone();
        if !matches!(address, BackendAddress::Tcp { .. }) {
            options.tls = None;
        }
        Ok(Made::Buildkit(Arc::new(BuildkitRunner::new(address.clone(), options))))
    }

    fn made(&self, address: &BackendAddress) -> Result<Made> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runner) = made.get(address) {
            return Ok(runner.clone());
        }
        if made.len() >= limits::BACKENDS_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "too many backends were used by this server"));
        }
        let runner = self.make(address).map_err(|error| error.blame_if_unknown(Blame::Backend))?;
        made.insert(address.clone(), runner.clone());
        Ok(runner)
    }
}

impl RunnerProvider for AddressedRunners {
    fn runner(&self, addr: &str) -> Result<Arc<dyn GuestRunner>> {
        Ok(match self.made(&addr.parse()?)? {
            Made::Sandbox(runner) => runner,
            Made::Buildkit(runner) => runner,
        })
    }
}

#[async_trait]
impl BackendProbe for AddressedRunners {
    async fn probe(&self, address: &BackendAddress) -> Result<()> {
        match self.made(address)? {
            // It is there when it could be made.
            Made::Sandbox(_) => Ok(()),
            Made::Buildkit(runner) => runner.ping().await.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_runner_and_nonsense_has_none() {
        let runners = AddressedRunners::new(SandboxOptions::new("/nonexistent"), BuildkitOptions::default());
        let first = runners.runner("tcp://example:1234").unwrap();
        assert!(Arc::ptr_eq(&first, &runners.runner("tcp://example:1234").unwrap()));
        assert_eq!(runners.runner("ftp://x").unwrap_err().kind(), ErrorKind::InvalidRequest);
    }
}
