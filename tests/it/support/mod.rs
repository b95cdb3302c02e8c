//! What the tests share.

use std::path::{Path, PathBuf};

pub(crate) mod corpus;
pub(crate) mod events;
pub(crate) mod farm;
pub(crate) mod git_server;
pub(crate) mod guest;
pub(crate) mod package;
pub(crate) mod proxy;
pub(crate) mod sshd;
pub(crate) mod tree;

/// The folder of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Says aloud that a test needs something that is missing; in CI that is a failure.
pub(crate) fn missing(what: &str) {
    eprintln!("skipped: {what}");
    assert!(std::env::var_os("CI").is_none(), "CI must have it: {what}");
}

/// A file of the expected results that stand beside the checkout; `None`, said aloud, where there are none.
pub(crate) fn oracle(name: &str) -> Option<PathBuf> {
    let path = root().join("../shared/oracles").join(name);
    if path.exists() {
        return Some(path);
    }
    missing(&format!("the expected results of real tools ({name}) are not beside this checkout"));
    None
}
