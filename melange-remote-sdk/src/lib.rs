#![doc = include_str!("../README.md")]

// Vocabulary.
pub mod api;
pub mod arch;
pub mod error;
pub mod job;
pub mod labels;
pub mod limits;

// The pure engine.
pub mod apk;
#[cfg(feature = "llb")]
pub mod llb;
pub mod melange;

// Contracts.
pub mod artifact_storage;
pub mod backend_selector;
pub mod builder;
pub mod guest;
pub mod job_store;

// Machinery.
pub mod backend;
#[cfg(feature = "buildkit")]
pub mod buildkit;
#[cfg(feature = "client")]
pub mod client;
pub mod clock;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(feature = "apk")]
pub mod environment;
#[cfg(feature = "sandbox")]
pub mod sandbox;
