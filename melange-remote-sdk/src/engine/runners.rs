//! From a backend's address to what runs guests there: one runner an address, made at first use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::RunnerProvider;
use crate::buildkit::{BackendAddress, BuildkitOptions, BuildkitRunner};
use crate::error::{Error, ErrorKind, Result};
use crate::guest::GuestRunner;
use crate::limits;
use crate::sandbox::{self, SandboxOptions, SandboxRunner};

/// Runners by address: `sandbox://local` is the embedded sandbox, everything else a BuildKit daemon.
#[derive(Debug)]
pub struct AddressedRunners {
    sandbox: SandboxOptions,
    buildkit: BuildkitOptions,
    made: Mutex<HashMap<String, Arc<dyn GuestRunner>>>,
}

impl AddressedRunners {
    /// Runners with a sandbox as `sandbox` says, whose daemons are reached with `buildkit`; TLS applies to
    /// `tcp://` addresses only.
    pub fn new(sandbox: SandboxOptions, buildkit: BuildkitOptions) -> Self {
        Self { sandbox, buildkit, made: Mutex::new(HashMap::new()) }
    }

    fn make(&self, addr: &str) -> Result<Arc<dyn GuestRunner>> {
        if addr == sandbox::ADDRESS {
            return Ok(Arc::new(SandboxRunner::new(&self.sandbox)?));
        }
        let address: BackendAddress = addr.parse()?;
        let mut options = self.buildkit.clone();
        if !matches!(address, BackendAddress::Tcp { .. }) {
            options.tls = None;
        }
        Ok(Arc::new(BuildkitRunner::new(address, options)))
    }
}

impl RunnerProvider for AddressedRunners {
    fn runner(&self, addr: &str) -> Result<Arc<dyn GuestRunner>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runner) = made.get(addr) {
            return Ok(Arc::clone(runner));
        }
        if made.len() >= limits::BACKENDS_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "too many backends were used by this server"));
        }
        let runner = self.make(addr)?;
        made.insert(addr.to_owned(), Arc::clone(&runner));
        Ok(runner)
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
