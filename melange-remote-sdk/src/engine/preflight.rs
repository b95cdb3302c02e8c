//! What the embedded sandbox needs of the machine, told before the first job instead of by its first failure.

use std::process::Command;

use crate::error::{Error, ErrorKind, Result};

/// Ids that a guest's accounts are mapped to; environments have accounts up to 65534.
const IDS_MIN: u64 = 65_536;

/// Whether this process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Checks that this user may run guests: root may, another user needs `newuidmap`, and ranges of user and group ids
/// of its own.
///
/// # Errors
/// `Unsupported`, with what to do as the hint.
pub fn check_sandbox_user() -> Result<()> {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Ok(());
    }
    for program in ["newuidmap", "newgidmap"] {
        if !is_installed(program) {
            let message = format!("the sandbox of a user who is not root needs the program `{program}`");
            return Err(Error::new(ErrorKind::Unsupported, message)
                .hint("install the package `uidmap`, or build on a BuildKit daemon"));
        }
    }
    // A directory service hands out ranges that no file names.
    let switched = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    if switched.lines().any(|line| line.trim_start().starts_with("subid:")) {
        return Ok(());
    }
    let number = uid.as_raw().to_string();
    let name = Command::new("id").arg("-un").output().ok().filter(|output| output.status.success());
    let name = name.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| number.clone());
    for path in ["/etc/subuid", "/etc/subgid"] {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if !has_range(&text, &[&name, &number]) {
            let message = format!("{path} gives the user {name} no range of {IDS_MIN} ids for the sandbox");
            return Err(Error::new(ErrorKind::Unsupported, message).hint(format!(
                "let root run `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}`, with ids \
                 that no other line names, or build on a BuildKit daemon"
            )));
        }
    }
    Ok(())
}

fn is_installed(program: &str) -> bool {
    let probe = Command::new("sh").args(["-c", "command -v \"$1\" >/dev/null", "sh", program]).status();
    probe.is_ok_and(|status| status.success())
}

/// Whether a file of ranges, `user:first:count` a line, gives one of `users` a range that is large enough.
fn has_range(text: &str, users: &[&str]) -> bool {
    text.lines().any(|line| {
        let mut parts = line.trim().split(':');
        let user = parts.next().unwrap_or_default();
        let first = parts.next().and_then(|first| first.parse::<u64>().ok());
        let count = parts.next().and_then(|count| count.parse::<u64>().ok());
        users.contains(&user) && first.is_some() && count.is_some_and(|count| count >= IDS_MIN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_or_number_and_must_be_large_enough() {
        for (text, expected) in [
            ("ann:100000:65536\n", true),
            ("# none\nbob:100000:65536\n1000:165536:65536", true),
            ("ann:100000:1000\n", false),
            ("ann:100000\nann\nann:x:65536\n", false),
            ("anne:100000:65536\n", false),
            ("", false),
        ] {
            assert_eq!(has_range(text, &["ann", "1000"]), expected, "{text:?}");
        }
    }
}
