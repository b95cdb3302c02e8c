//! What benches share.

/// `full` when figures are asked for, by `cargo bench`; as a test a bench only shows that it works.
pub(crate) fn rounds(full: usize, as_test: usize) -> usize {
    // Criterion's own sign.
    if std::env::args().any(|argument| argument == "--bench") { full } else { as_test }
}
