//! What a finding is about, in the form that melange writes.

use serde::{Deserialize, Serialize};

use crate::limits;

/// A file with its permissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LintedMode {
    /// The path.
    pub path: String,
    /// The mode in octal, such as `4755`.
    pub mode: String,
    /// What is wrong with it, such as `setuid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<String>,
}

/// A file that is for an architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LintedArch {
    /// The path.
    pub path: String,
    /// The architecture.
    pub arch: String,
}

/// A file that is for another operating system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LintedPlatform {
    /// The path.
    pub path: String,
    /// `macos` or `windows`.
    pub platform: String,
}

/// Equal files of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LintedCopies {
    /// Their name.
    pub basename: String,
    /// How many there are.
    pub count: u64,
    /// The size of one.
    pub size_bytes: u64,
    /// The same for people.
    pub size: String,
    /// What all but one take.
    pub wasted_bytes: u64,
    /// The same for people.
    pub wasted_size: String,
    /// Where they lie.
    pub paths: Vec<String>,
}

/// What a finding is about. Its JSON is that of melange's lint results, where the linter tells which form it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum LintDetails {
    /// Equal files.
    Copies {
        /// How many sets of them there are.
        total_duplicate_sets: u64,
        /// What could be saved.
        total_wasted_bytes: u64,
        /// The same for people.
        total_wasted_size: String,
        /// The sets, those that waste most first.
        duplicates: Vec<LintedCopies>,
    },
    /// Names of Python modules.
    Modules {
        /// How many.
        count: u64,
        /// Their names in quotes.
        packages: Vec<String>,
    },
    /// Files with permissions.
    Modes {
        /// Which.
        files: Vec<LintedMode>,
    },
    /// Files whose names tell an architecture.
    Archs {
        /// Which.
        files: Vec<LintedArch>,
    },
    /// Programs and libraries for an architecture.
    Binaries {
        /// Which.
        binaries: Vec<LintedArch>,
    },
    /// Programs and libraries.
    Unstripped {
        /// Their paths.
        binaries: Vec<String>,
    },
    /// Files for other operating systems.
    Platforms {
        /// Which.
        references: Vec<LintedPlatform>,
    },
    /// Paths.
    Paths {
        /// Which.
        paths: Vec<String>,
    },
}

impl LintDetails {
    /// One line for each item.
    pub fn lines(&self) -> Vec<String> {
        let with_arch = |item: &LintedArch| format!("{} ({})", item.path, item.arch);
        match self {
            Self::Copies { duplicates, .. } => duplicates
                .iter()
                .map(|item| {
                    let LintedCopies { basename, count, wasted_size, paths, .. } = item;
                    format!("{basename} ({count} copies, {wasted_size} wasted): {}", paths.join(", "))
                })
                .collect(),
            Self::Modules { packages, .. } => packages.clone(),
            Self::Modes { files } => files
                .iter()
                .map(|item| format!("{} (mode: {}, {})", item.path, item.mode, item.permissions.join("+")))
                .collect(),
            Self::Archs { files } => files.iter().map(with_arch).collect(),
            Self::Binaries { binaries } => binaries.iter().map(with_arch).collect(),
            Self::Unstripped { binaries } => binaries.clone(),
            Self::Platforms { references } => {
                references.iter().map(|item| format!("{} ({})", item.path, item.platform)).collect()
            }
            Self::Paths { paths } => paths.clone(),
        }
    }

    /// The path of each item, in order; none of items that are no files.
    pub fn paths(&self) -> Vec<&str> {
        match self {
            Self::Copies { duplicates, .. } => {
                duplicates.iter().flat_map(|item| item.paths.iter().map(String::as_str)).collect()
            }
            Self::Modules { .. } => Vec::new(),
            Self::Modes { files } => files.iter().map(|item| item.path.as_str()).collect(),
            Self::Archs { files } => files.iter().map(|item| item.path.as_str()).collect(),
            Self::Binaries { binaries } => binaries.iter().map(|item| item.path.as_str()).collect(),
            Self::Unstripped { binaries } => binaries.iter().map(String::as_str).collect(),
            Self::Platforms { references } => references.iter().map(|item| item.path.as_str()).collect(),
            Self::Paths { paths } => paths.iter().map(String::as_str).collect(),
        }
    }

    /// Keeps the first items, at most `items_max` and at most as many as take `bytes_max` bytes; how many were dropped.
    pub fn shorten(&mut self, items_max: usize, bytes_max: usize) -> u64 {
        fn cut<T>(list: &mut Vec<T>, items_max: usize, bytes_max: usize, size: impl Fn(&T) -> usize) -> u64 {
            let mut bytes = 0usize;
            let kept = list.iter().take(items_max).take_while(|item| {
                bytes = bytes.saturating_add(size(item)).saturating_add(limits::LINT_DETAIL_OVERHEAD_BYTES);
                bytes <= bytes_max
            });
            let kept = kept.count();
            let dropped = list.len().saturating_sub(kept);
            list.truncate(kept);
            u64::try_from(dropped).unwrap_or(u64::MAX)
        }
        match self {
            Self::Copies { duplicates, .. } => cut(duplicates, items_max, bytes_max, |item| {
                item.basename.len() + item.paths.iter().map(String::len).sum::<usize>()
            }),
            Self::Modules { packages, .. } => cut(packages, items_max, bytes_max, String::len),
            Self::Modes { files } => cut(files, items_max, bytes_max, |item| item.path.len()),
            Self::Archs { files } => cut(files, items_max, bytes_max, |item| item.path.len()),
            Self::Binaries { binaries } => cut(binaries, items_max, bytes_max, |item| item.path.len()),
            Self::Unstripped { binaries } => cut(binaries, items_max, bytes_max, String::len),
            Self::Platforms { references } => cut(references, items_max, bytes_max, |item| item.path.len()),
            Self::Paths { paths } => cut(paths, items_max, bytes_max, String::len),
        }
    }
}

/// A size as melange's messages have it: in powers of 1000, with a decimal below ten.
#[cfg(feature = "apk")]
pub(super) fn human_size(bytes: u64) -> String {
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let (mut unit, mut name) = (1u128, "B");
    for next in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        if u128::from(bytes) < unit * 1_000 {
            break;
        }
        (unit, name) = (unit * 1_000, next);
    }
    let tenths = (u128::from(bytes) * 20 + unit) / (unit * 2);
    if tenths < 100 {
        return format!("{}.{} {name}", tenths / 10, tenths % 10);
    }
    let (whole, rest) = (tenths / 10, tenths % 10);
    // Halves go to the even number, as C's `%.0f` has it.
    let up = rest > 5 || rest == 5 && whole % 2 == 1;
    format!("{} {name}", whole + u128::from(up))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "apk")]
    #[test]
    fn sizes_are_those_of_melange() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_024, "1.0 kB"),
            (9_950, "10 kB"),
            (12_500, "12 kB"),
            (13_500, "14 kB"),
            (82_854_982, "83 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    /// The linter is not told with the details: each form must be seen from its fields.
    #[test]
    fn every_form_is_read_as_it_was_written() {
        let path = || "a".to_owned();
        let arch = || LintedArch { path: path(), arch: "mips".to_owned() };
        let permissions = vec!["setuid".to_owned()];
        let copies = LintedCopies {
            basename: path(),
            count: 2,
            size_bytes: 1,
            size: "1 B".to_owned(),
            wasted_bytes: 1,
            wasted_size: "1 B".to_owned(),
            paths: vec![path(), path()],
        };
        for details in [
            LintDetails::Copies {
                total_duplicate_sets: 1,
                total_wasted_bytes: 1,
                total_wasted_size: "1 B".to_owned(),
                duplicates: vec![copies],
            },
            LintDetails::Modules { count: 1, packages: vec![path()] },
            LintDetails::Modes {
                files: vec![LintedMode { path: path(), mode: "4755".to_owned(), permissions }],
            },
            LintDetails::Archs { files: vec![arch()] },
            LintDetails::Binaries { binaries: vec![arch()] },
            LintDetails::Unstripped { binaries: vec![path()] },
            LintDetails::Platforms {
                references: vec![LintedPlatform { path: path(), platform: "macos".to_owned() }],
            },
            LintDetails::Paths { paths: vec![path()] },
        ] {
            let json = serde_json::to_string(&details).unwrap();
            assert_eq!(serde_json::from_str::<LintDetails>(&json).unwrap(), details, "{json}");
            assert_eq!(details.lines().len(), 1);
            let mut short = details.clone();
            assert_eq!(short.shorten(0, usize::MAX), 1);
            assert!(short.lines().is_empty());
            assert_eq!(details.clone().shorten(1, 9), 1, "{json}");
        }
    }
}
