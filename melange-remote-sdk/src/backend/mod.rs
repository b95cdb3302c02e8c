//! Backends: what runs builds. An address, an architecture, labels and a number of jobs at once.
//!
//! [`pool::BackendPool`] keeps them and leases their capacity; [`file`] reads them from `backends.yaml`;
//! [`crate::backend_selector`] chooses among them.

use std::sync::Arc;

use crate::arch::Arch;
use crate::error::{Error, Result};
use crate::labels::Labels;
use crate::limits;

pub mod file;
pub mod pool;

/// A backend, as it was configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    addr: String,
    arch: Arch,
    labels: Labels,
    max_jobs: u32,
}

/// The schemes that an address may have.
pub const SCHEMES: [&str; 4] = ["tcp", "unix", "docker", "sandbox"];

impl Backend {
    /// A backend that runs [`limits::JOBS_PER_BACKEND_DEFAULT`] jobs at once.
    ///
    /// # Errors
    /// As [`check_addr`].
    pub fn new(addr: impl Into<String>, arch: Arch, labels: Labels) -> Result<Self> {
        let addr = addr.into();
        check_addr(&addr)?;
        Ok(Self { addr, arch, labels, max_jobs: limits::JOBS_PER_BACKEND_DEFAULT })
    }

    /// The same backend with another number of jobs at once.
    ///
    /// # Errors
    /// `InvalidRequest` for 0 and for more than [`limits::JOBS_PER_BACKEND_MAX`].
    pub fn with_max_jobs(mut self, max_jobs: u32) -> Result<Self> {
        self.max_jobs = check_max_jobs(max_jobs)?;
        Ok(self)
    }

    /// Its address, such as `tcp://buildkit:1234`; the name of the backend in a pool.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// The architecture that it builds for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Its labels.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// How many jobs it runs at once.
    pub fn max_jobs(&self) -> u32 {
        self.max_jobs
    }
}

/// A backend as the selector sees it at one moment.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The backend.
    pub backend: Arc<Backend>,
    /// The jobs that run on it.
    pub running: u32,
    /// The number of the last choice that fell on it; 0 when none did. Later choices have higher numbers.
    pub last_chosen: u64,
}

impl Candidate {
    /// Whether it could take one more job.
    pub fn has_free_slot(&self) -> bool {
        self.running < self.backend.max_jobs()
    }
}

/// Checks a number of jobs at once.
///
/// # Errors
/// `InvalidRequest` for 0 and for more than [`limits::JOBS_PER_BACKEND_MAX`].
pub fn check_max_jobs(max_jobs: u32) -> Result<u32> {
    if (1..=limits::JOBS_PER_BACKEND_MAX).contains(&max_jobs) {
        return Ok(max_jobs);
    }
    let message = format!("maxJobs is {max_jobs}, it goes from 1 to {}", limits::JOBS_PER_BACKEND_MAX);
    Err(Error::invalid(message))
}

/// Checks the form of an address: a known scheme and something behind it.
///
/// ```
/// use melange_remote_sdk::backend::check_addr;
/// assert!(check_addr("tcp://buildkit:1234").is_ok());
/// assert!(check_addr("buildkit:1234").is_err());
/// assert!(check_addr("tcp://").is_err());
/// ```
///
/// # Errors
/// `InvalidRequest` that says what is missing.
pub fn check_addr(addr: &str) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::invalid(format!("the backend address {addr:?} {why}")).hint(
            "an address looks like tcp://host:1234, unix:///run/buildkit/buildkitd.sock or sandbox://local",
        ))
    };
    if addr.is_empty() {
        return refuse("is empty");
    }
    if addr.len() > limits::BACKEND_ADDR_BYTES_MAX {
        return refuse("is too long");
    }
    if addr.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return refuse("holds white space or a control character");
    }
    let Some((scheme, rest)) = addr.split_once("://") else {
        return refuse("has no scheme");
    };
    if !SCHEMES.contains(&scheme) {
        return refuse("has a scheme that no builder knows");
    }
    if rest.is_empty() {
        return refuse("names no place behind its scheme");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_job_numbers_are_checked() {
        for good in ["tcp://a:1", "unix:///run/x.sock", "docker://buildkit", "sandbox://local"] {
            check_addr(good).unwrap();
        }
        for bad in ["", "a", "http://a", "tcp://", "tcp://a b", "tcp://a\n"] {
            assert!(check_addr(bad).is_err(), "{bad:?}");
        }
        let backend = Backend::new("tcp://a:1", Arch::X86_64, Labels::default()).unwrap();
        assert_eq!(backend.max_jobs(), 4);
        assert!(backend.clone().with_max_jobs(0).is_err());
        assert!(backend.with_max_jobs(u32::MAX).is_err());
    }
}
