#![doc = include_str!("../README.md")]

pub mod api;
pub mod apk;
pub mod arch;
pub mod artifact_storage;
pub mod backend;
pub mod backend_selector;
pub mod builder;
pub mod clock;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod error;
pub mod guest;
pub mod job;
pub mod job_store;
pub mod labels;
pub mod limits;
pub mod melange;
pub mod scheduler;

#[cfg(feature = "buildkit")]
pub mod buildkit;
#[cfg(feature = "llb")]
pub mod llb;
