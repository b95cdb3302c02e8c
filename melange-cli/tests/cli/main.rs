//! The command as people and scripts meet it: what it prints where, and its exit codes.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod bump;
mod codes;
mod dropin;
mod events;
mod files;
mod json;
mod lint;
mod outputs;
mod plan;
mod remote;
mod sources;
mod support;
mod verbs;
