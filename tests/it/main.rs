//! The integration tests, one binary. A new test goes into the file of the station it is about.
//!
//! Nothing is faked: definitions are built by the engine in the sandbox and on a BuildKit daemon, from the test
//! distribution (`tests/distro`). `MELANGE_TEST_DISTRO` names its folder, `MELANGE_TEST_TOOLCHAINS` that of its
//! toolchains, `MELANGE_TEST_DOCKER_SOCK` the socket of a dockerd; what is missing is said aloud, and where `CI`
//! is set it is a failure.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::print_stdout, reason = "figures are part of a test's report")]

mod archives;
mod buildkit;
mod builds;
mod cancel;
mod conformance;
mod corpus;
mod failures;
mod fetched;
mod git;
mod hostile;
mod isolation;
mod licenses;
mod linters;
mod odd;
mod oracles;
mod packages;
mod pipelines;
mod plans;
mod published;
mod recorded;
mod sandbox;
mod schema;
mod service;
mod support;
mod testing;
mod tidy;
mod together;
mod unprivileged;
mod zoo;
