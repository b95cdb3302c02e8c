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

/// The processor time of this process, or of its children that have ended: its ticks are hundredths of a second.
#[allow(dead_code, reason = "benches share this file, and not each needs all of it")]
pub(crate) fn cpu(children: bool) -> std::time::Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let first = if children { 13 } else { 11 };
    let ticks: u64 =
        fields[first..first + 2].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    std::time::Duration::from_millis(ticks * 10)
}

/// The greatest memory of this process, in MB, so far or since it was last forgotten.
#[allow(dead_code, reason = "benches share this file, and not each needs all of it")]
pub(crate) fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it tells");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1_024
}
