//! The melange command.
fn main() {}
