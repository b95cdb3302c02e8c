//! Makes the test distribution.
fn main() {}
