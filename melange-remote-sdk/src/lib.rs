#![doc = include_str!("../README.md")]
#![cfg_attr(
    all(feature = "sqlite", feature = "postgres"),
    expect(
        clippy::duplicate_mod,
        reason = "the files of `job_store/sql` are compiled once for each kind of database"
    )
)]

// Vocabulary.
pub mod arch;
pub mod backoff;
pub mod error;
pub mod failure;
pub mod labels;
pub mod limits;
mod pointers;
pub mod redact;
pub mod text;

// The pure engine.
pub mod analysis;
pub mod apk;
pub mod melange;
#[cfg(feature = "apk")]
pub mod planner;
#[cfg(feature = "apk")]
pub mod solver;

// Jobs and backends.
pub mod backend;
pub mod backend_selector;
pub mod job;

// Contracts.
pub mod api;
pub mod artifact_storage;
pub mod builder;
pub mod guest;
pub mod job_store;

// Machinery.
#[cfg(feature = "buildkit")]
pub mod buildkit;
#[cfg(feature = "apk")]
pub mod cache;
pub mod clock;
pub mod event_feed;
#[cfg(feature = "http")]
pub mod fetched;
#[cfg(feature = "git")]
pub mod git;
pub mod job_log;
#[cfg(feature = "llb")]
pub mod llb;
mod locks;
pub mod retention;
#[cfg(feature = "apk")]
pub mod rootfs;
#[cfg(feature = "sandbox")]
pub mod sandbox;
mod scratch;
pub mod sources;

// On top.
#[cfg(feature = "apk")]
pub mod builds;
#[cfg(feature = "client")]
pub mod client;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(feature = "apk")]
pub mod engine;
#[cfg(feature = "apk")]
pub mod publishing;
pub mod scheduler;

/// The crates whose types are in contracts and constructors, in the versions that this library was made with: whoever
/// needs one need not find it out.
pub mod dependencies {
    pub use {async_trait, bytes, futures_util, jiff, object_store, serde_json, tempfile, tokio, tokio_util};
}
