//! The integration tests, one binary. A new test goes into the file of the station it is about.

mod oracles;
mod support;
mod tidy;
