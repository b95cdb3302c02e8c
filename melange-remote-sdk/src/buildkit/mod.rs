//! Driving a BuildKit daemon.
