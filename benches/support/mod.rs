//! What benches share.

/// `full` when figures are asked for, by `cargo bench`; as a test a bench only shows that it works.
pub(crate) fn rounds(full: usize, as_test: usize) -> usize {
    // Criterion's own sign.
    if std::env::args().any(|argument| argument == "--bench") { full } else { as_test }
}

/// Two thirds of a real distribution, unpacked below `folder`; `None` when they are not beside this checkout.
#[allow(dead_code, reason = "benches share this file, and not each needs all of it")]
pub(crate) fn distribution(folder: &std::path::Path) -> Option<std::path::PathBuf> {
    let archive = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus/wolfi-os.tar.xz");
    if !archive.exists() {
        return None;
    }
    let unpacked = std::process::Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(folder).status();
    assert!(unpacked.is_ok_and(|status| status.success()), "tar and xz must be there");
    Some(folder.join("wolfi-os"))
}
