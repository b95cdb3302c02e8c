//! Rules about what the names of files and folders tell: other operating systems, other architectures.

use super::{Found, Subject, base_name, folder_of};
use crate::analysis::lint::details::{LintDetails, LintedArch, LintedPlatform};

const PLATFORMS: [(&str, &[&str]); 2] = [
    ("macos", &["darwin", "macos", "mac_os", "mac-os", "osx", "os_x", "os-x"]),
    ("windows", &["windows", "win32", "win64"]),
];

const SUPPORTED: [&str; 5] = ["aarch64", "arm64", "amd64", "x86_64", "x86-64"];

const UNSUPPORTED: [&str; 18] = [
    "i386", "i686", "x86_32", "x86-32", "ppc64", "ppc64le", "powerpc", "s390x", "s390", "mips", "mipsel",
    "mips64", "riscv", "riscv64", "sparc", "sparc64", "ia64", "m68k",
];

pub(super) fn non_linux(subject: &Subject<'_>) -> Option<Found> {
    let platform_of = |path: &str| {
        let (folder, name) = (folder_of(path).to_lowercase(), base_name(path).to_lowercase());
        let told = |variant: &&str| folder.contains(*variant) || name.contains(*variant);
        PLATFORMS.iter().find(|(_, variants)| variants.iter().any(&told)).map(|(name, _)| *name)
    };
    let files = subject.files().filter_map(|file| {
        let platform = platform_of(&file.path)?.to_owned();
        Some(LintedPlatform { path: file.path.clone(), platform })
    });
    let references: Vec<LintedPlatform> = files.collect();
    if references.is_empty() {
        return None;
    }
    let message = format!("{} contains {} non-Linux reference(s)", subject.package, references.len());
    Found::with(message, LintDetails::Platforms { references })
}

/// The architecture that a path tells: of a folder that begins with its name, below another folder, or of a part of the
/// file's name, unless the path also tells one that packages are built for.
fn unsupported(path: &str) -> Option<&'static str> {
    let path = path.to_lowercase();
    let (folder, name) = (folder_of(&path), base_name(&path));
    let is_supported = || SUPPORTED.iter().any(|arch| path.contains(arch));
    let in_folder = |arch: &str| folder.match_indices(arch).any(|(at, _)| folder[..at].ends_with('/'));
    let in_name = |arch: &str| {
        name.match_indices(arch).any(|(at, _)| {
            let separator = name[..at].chars().next_back().filter(|c| matches!(c, '-' | '_' | '.'));
            let next = name[at + arch.len()..].chars().next();
            separator.is_some_and(|own| next.is_none_or(|next| next == own || next == '.'))
        })
    };
    UNSUPPORTED.into_iter().find(|arch| in_folder(arch) || in_name(arch) && !is_supported())
}

pub(super) fn unsupported_arch(subject: &Subject<'_>) -> Option<Found> {
    let files = subject.files().filter_map(|file| {
        let arch = unsupported(&file.path)?.to_owned();
        Some(LintedArch { path: file.path.clone(), arch })
    });
    let files: Vec<LintedArch> = files.collect();
    if files.is_empty() {
        return None;
    }
    let message =
        format!("{} contains {} unsupported architecture reference(s)", subject.package, files.len());
    Found::with(message, LintDetails::Archs { files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_seen_from_folders_and_names() {
        for (path, arch) in [
            ("usr/lib/i386/a", Some("i386")),
            ("usr/lib/MIPS64-linux/a", Some("mips")),
            ("usr/lib/x86_64/i386/a", Some("i386")),
            ("mips/a", None),
            ("usr/lib/amips/a", None),
            ("usr/lib/a-ppc64le-b", Some("ppc64le")),
            ("usr/lib/a_ppc64.txt", Some("ppc64")),
            ("usr/lib/a-ppc64_b", None),
            ("usr/lib/a-ppc64", Some("ppc64")),
            ("usr/lib/ppc64", None),
            ("usr/lib/x86_64/a-ppc64", None),
            ("a.riscv", Some("riscv")),
            ("usr/lib/mips", None),
        ] {
            assert_eq!(unsupported(path), arch, "{path}");
        }
    }
}
