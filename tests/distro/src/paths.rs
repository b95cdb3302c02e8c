//! Where a Debian path goes in the test distribution, and the patterns of the manifest.
//!
//! Debian installs libraries into a multiarch directory and (in bookworm) still into `/bin` and `/lib`. The test
//! distribution is laid out as Wolfi is: everything below `/usr`, one `bin`, one `lib`. The base layout ships
//! `usr/lib/x86_64-linux-gnu -> .`, so a path compiled into a program still leads somewhere.

/// Debian's name of the architecture in paths.
pub const MULTIARCH: &str = "x86_64-linux-gnu";

/// Directories that move, with their new places.
const MOVES: &[(&str, &str)] = &[
    ("bin", "usr/bin"),
    ("sbin", "usr/bin"),
    ("lib64", "usr/lib"),
    ("lib", "usr/lib"),
    ("usr/sbin", "usr/bin"),
    ("usr/lib64", "usr/lib"),
];

/// What no test needs: documentation, translations, desktop and service files.
const DROPPED: &[&str] = &[
    "etc/X11/",
    "etc/apparmor.d/",
    "etc/bash_completion.d/",
    "etc/cron",
    "etc/default/",
    "etc/init.d/",
    "etc/logrotate.d/",
    "lib/systemd/",
    "usr/lib/systemd/",
    "usr/lib/tmpfiles.d/",
    "usr/share/apport/",
    "usr/share/applications/",
    "usr/share/bash-completion/",
    "usr/share/bug/",
    "usr/share/debhelper/",
    "usr/share/doc-base/",
    "usr/share/doc/",
    "usr/share/emacs/",
    "usr/share/fish/",
    "usr/share/gdb/",
    "usr/share/i18n/charmaps/",
    "usr/share/i18n/locales/",
    "usr/share/icons/",
    "usr/share/info/",
    "usr/share/lintian/",
    "usr/share/locale/",
    "usr/share/man/",
    "usr/share/menu/",
    "usr/share/pixmaps/",
    "usr/share/vim/",
    "usr/share/zsh/",
    "var/lib/dpkg/",
];

/// Whether a path of a Debian package (without leading slash) is left out.
pub fn is_dropped(path: &str) -> bool {
    let directory = format!("{path}/");
    DROPPED.iter().any(|prefix| directory.starts_with(prefix))
}

/// The rest of `path` below `directory` (empty for the directory itself), or nothing.
fn below<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(directory)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// The place of a Debian path, both without leading slash. `python` is the version of the one Python there is.
pub fn map_path(path: &str, python: &str) -> String {
    let mut path = path.to_owned();
    if let Some((rest, new)) = MOVES.iter().find_map(|(old, new)| Some((below(&path, old)?, new))) {
        path = format!("{new}{rest}");
    }
    if let Some(rest) = below(&path, &format!("usr/lib/{MULTIARCH}")) {
        path = format!("usr/lib{rest}");
    }
    if let Some(rest) = below(&path, "usr/lib/python3/dist-packages") {
        path = format!("usr/lib/python{python}/site-packages{rest}");
    }
    path
}

/// The target of a symbolic link that stood at `old_path`, as it has to read at the link's new place.
pub fn map_link(old_path: &str, target: &str, python: &str) -> String {
    if let Some(absolute) = target.strip_prefix('/') {
        return format!("/{}", map_path(&normalize(absolute), python));
    }
    let old_target = normalize(&format!("{}/{target}", parent(old_path)));
    relative(&map_path(&old_target, python), parent(&map_path(old_path, python)))
}

/// The directory a path is in; empty at the top.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// The last component of a path.
pub fn base_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Resolves `.` and `..` in words only; a `..` at the top stays at the top.
pub fn normalize(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    parts.join("/")
}

/// The relative path that leads from a directory to a target; both are counted from the root.
fn relative(target: &str, directory: &str) -> String {
    let split =
        |path: &str| path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let (target, directory) = (split(target), split(directory));
    let common = target.iter().zip(&directory).take_while(|(a, b)| a == b).count();
    let mut parts = vec!["..".to_owned(); directory.len() - common];
    parts.extend_from_slice(&target[common..]);
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

/// Whether a path matches one of the manifest's patterns, or lies below a directory that does.
pub fn matches_any(path: &str, patterns: &[String]) -> bool {
    patterns.iter().any(|pattern| {
        matches(path.as_bytes(), pattern.as_bytes())
            || matches(path.as_bytes(), format!("{}/*", pattern.trim_end_matches('*')).as_bytes())
    })
}

/// `*` stands for any text, slashes too; everything else for itself.
fn matches(text: &[u8], pattern: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| matches(&text[skip..], rest)),
        Some((byte, rest)) => {
            text.split_first().is_some_and(|(first, text)| first == byte && matches(text, rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_move_below_usr_and_lose_the_multiarch_directory() {
        for (old, new) in [
            ("bin/sed", "usr/bin/sed"),
            ("usr/sbin/ldconfig", "usr/bin/ldconfig"),
            ("lib/x86_64-linux-gnu/libc.so.6", "usr/lib/libc.so.6"),
            ("lib64/ld-linux-x86-64.so.2", "usr/lib/ld-linux-x86-64.so.2"),
            ("usr/lib/x86_64-linux-gnu", "usr/lib"),
            ("usr/lib/gcc/x86_64-linux-gnu/12/cc1", "usr/lib/gcc/x86_64-linux-gnu/12/cc1"),
            ("usr/include/x86_64-linux-gnu/bits/types.h", "usr/include/x86_64-linux-gnu/bits/types.h"),
            ("usr/lib/python3/dist-packages/a.py", "usr/lib/python3.11/site-packages/a.py"),
            ("library/x", "library/x"),
        ] {
            assert_eq!(map_path(old, "3.11"), new);
        }
    }

    #[test]
    fn links_lead_to_the_moved_target() {
        for (path, target, expected) in [
            (
                "lib64/ld-linux-x86-64.so.2",
                "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
                "/usr/lib/ld-linux-x86-64.so.2",
            ),
            ("usr/lib/x86_64-linux-gnu/libz.so", "/lib/x86_64-linux-gnu/libz.so.1.2", "/usr/lib/libz.so.1.2"),
            ("usr/lib/x86_64-linux-gnu/libfoo.so", "libfoo.so.1", "libfoo.so.1"),
            (
                "usr/lib/gcc/x86_64-linux-gnu/12/libgomp.so",
                "../../../x86_64-linux-gnu/libgomp.so.1",
                "../../../libgomp.so.1",
            ),
            ("usr/sbin/a", "../bin/b", "b"),
            ("usr/share/x", "../../etc/x", "../../etc/x"),
        ] {
            assert_eq!(map_link(path, target, "3.11"), expected, "{path} -> {target}");
        }
    }

    #[test]
    fn patterns_cross_slashes_and_cover_directories() {
        let patterns = ["usr/lib/gcc/*/lib*san*".to_owned(), "etc/ssl/certs".to_owned()];
        assert!(matches_any("usr/lib/gcc/x86_64-linux-gnu/12/libasan.so", &patterns));
        assert!(matches_any("etc/ssl/certs/a.pem", &patterns));
        assert!(!matches_any("usr/lib/gcc/x86_64-linux-gnu/12/include/sanitizer/a.h", &patterns));
        assert!(!matches_any("etc/ssl/certsx", &patterns));
    }

    #[test]
    fn documentation_is_dropped_by_whole_components() {
        assert!(is_dropped("usr/share/doc"));
        assert!(is_dropped("usr/share/doc/gcc/copyright"));
        assert!(!is_dropped("usr/share/docker"));
        assert!(is_dropped("etc/cron.daily/man-db"));
    }
}
