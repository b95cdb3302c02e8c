//! Starts the build service.
fn main() {}
