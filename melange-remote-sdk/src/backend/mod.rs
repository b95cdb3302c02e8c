//! Backends: what runs builds. An address, an architecture, labels and a number of jobs at once.
//!
//! [`registry`] keeps the fleet for all servers of a job store; [`pool::BackendPool`] is what one of them sees of it, and
//! leases slots; [`mod@file`] reads backends from `backends.yaml`; [`crate::backend_selector`] chooses among them.

use std::sync::Arc;

use async_trait::async_trait;

use crate::arch::Arch;
use crate::error::{Error, Result};
use crate::job::{BackendCapacity, BackendPlace, JobResources};
use crate::labels::Labels;
use crate::limits;
use crate::pointers::hand_on;

mod address;
pub mod file;
pub mod health;
pub mod pool;
pub mod registry;

pub use address::BackendAddress;

/// A backend, as it was configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    address: BackendAddress,
    addr: String,
    arch: Arch,
    labels: Labels,
    max_jobs: u32,
    capacity: BackendCapacity,
    machine: Option<Arc<str>>,
}

impl Backend {
    /// A backend that runs [`limits::JOBS_PER_BACKEND_DEFAULT`] jobs at once.
    ///
    /// # Errors
    /// `InvalidRequest` for what is no [`BackendAddress`].
    pub fn new(addr: impl AsRef<str>, arch: Arch, labels: Labels) -> Result<Self> {
        let address: BackendAddress = addr.as_ref().parse()?;
        // One form of an address is one backend, however it was written.
        Ok(Self {
            addr: address.to_string(),
            address,
            arch,
            labels,
            max_jobs: limits::JOBS_PER_BACKEND_DEFAULT,
            capacity: BackendCapacity::default(),
            machine: None,
        })
    }

    /// The same backend with another number of jobs at once.
    ///
    /// # Errors
    /// `InvalidRequest` for 0 and for more than [`limits::JOBS_PER_BACKEND_MAX`].
    pub fn with_max_jobs(mut self, max_jobs: u32) -> Result<Self> {
        self.max_jobs = check_max_jobs(max_jobs)?;
        Ok(self)
    }

    /// The same backend with processor time and memory that its jobs share.
    #[must_use]
    pub fn with_capacity(mut self, capacity: BackendCapacity) -> Self {
        self.capacity = capacity;
        self
    }

    /// The same backend as one of a machine; an address that means the same one everywhere stays as it is.
    #[must_use]
    pub fn on_machine(mut self, machine: &str) -> Self {
        if self.address.is_local() {
            self.machine = Some(machine.into());
        }
        self
    }

    /// The machine that it is one of, when its address means another backend on each and it was told.
    pub fn machine(&self) -> Option<&str> {
        self.machine.as_deref()
    }

    /// Where it is.
    pub fn place(&self) -> BackendPlace {
        BackendPlace { addr: self.addr.clone(), machine: self.machine().map(str::to_owned) }
    }

    /// Its address, such as `tcp://buildkit:1234`; the name of the backend in a pool.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Its address, as it was read.
    pub fn address(&self) -> &BackendAddress {
        &self.address
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

    /// What its jobs share.
    pub fn capacity(&self) -> BackendCapacity {
        self.capacity
    }
}

/// A backend as the selector sees it at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Candidate {
    /// The backend.
    pub backend: Arc<Backend>,
    /// The jobs that run on it.
    pub running: u32,
    /// What these ask for together.
    pub used: JobResources,
    /// The number of the last choice that fell on it; 0 when none did. Later choices have higher numbers.
    pub last_chosen: u64,
    /// Why it gets no jobs although it may have free slots: it fails, or it is drained.
    pub closed: Option<Closed>,
}

/// Why a backend gets no jobs for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// It does not answer, or its attempts broke off.
    Failing {
        /// The last failure, in one line.
        message: String,
    },
    /// One job shows whether it works again.
    Trial,
    /// Its operator drains it.
    Draining,
}

impl Candidate {
    /// A backend that runs nothing and never did.
    pub fn new(backend: Arc<Backend>) -> Self {
        Self { backend, running: 0, used: JobResources::default(), last_chosen: 0, closed: None }
    }

    /// The same backend, as if it worked and ran nothing.
    #[must_use]
    pub fn idle(self) -> Self {
        Self::new(self.backend)
    }

    /// Whether it could take one more job.
    pub fn has_free_slot(&self) -> bool {
        self.closed.is_none() && self.running < self.backend.max_jobs()
    }
}

/// Asks a backend whether it is there.
#[async_trait]
pub trait BackendProbe: Send + Sync + std::fmt::Debug {
    /// Ends well when the backend at `address` could run a job now.
    ///
    /// # Errors
    /// Why it could not, with [`crate::error::Blame::Backend`].
    async fn probe(&self, address: &BackendAddress) -> Result<()>;
}

hand_on!(BackendProbe; {
    async fn probe(&self, address: &BackendAddress) -> Result<()>;
});

/// Takes every backend for reachable: for builders that have none, and for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct AlwaysReachable;

#[async_trait]
impl BackendProbe for AlwaysReachable {
    async fn probe(&self, _address: &BackendAddress) -> Result<()> {
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_named_by_one_form_of_its_address_and_its_jobs_are_bounded() {
        let backend = Backend::new("tcp://a:1", Arch::X86_64, Labels::default()).unwrap();
        assert_eq!(backend.max_jobs(), 4);
        assert!(backend.clone().with_max_jobs(0).is_err());
        assert!(backend.with_max_jobs(u32::MAX).is_err());
        let docker = Backend::new("docker://", Arch::X86_64, Labels::default()).unwrap();
        assert_eq!(docker.addr(), "docker:///var/run/docker.sock");
        assert!(Backend::new("tcp://a", Arch::X86_64, Labels::default()).is_err());
    }
}
