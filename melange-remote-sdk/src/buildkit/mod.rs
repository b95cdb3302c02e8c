//! Driving a BuildKit daemon: `buildkitd` by TCP, TLS or a unix socket, or the one inside dockerd.
//!
//! ```text
//! runner ──▶ connect ──▶ Control.ListWorkers, Session, Solve, Status     one HTTP/2 connection per runner
//!              │
//!              └ session: inside one stream, a second HTTP/2 connection in which the daemon is the client:
//!                         it checks our health, pulls files (upload), pushes the result (export)
//! ```
//!
//! [`BuildkitRunner`] is the door: a [`crate::guest::GuestRunner`]. What a daemon is asked to do comes from
//! [`crate::llb`]; nothing here knows of definitions or packages.

mod connect;
mod export;
mod failure;
mod probe;
mod progress;
mod runner;
mod session;
mod solve;
mod status;
mod tls;
mod tunnel;
mod upload;

pub use probe::DaemonInfo;
pub use runner::{BuildkitOptions, BuildkitRunner, TransferCounts};
pub use tls::{TlsIdentity, TlsOptions};
