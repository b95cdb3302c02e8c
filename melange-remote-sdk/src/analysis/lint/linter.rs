//! The linters by name, what each asks for, and the sets of those that count.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::text::diagnostics::nearest;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LintSeverity {
    /// The package is not made.
    Required,
    /// It is told, and nothing else.
    Warning,
}

impl LintSeverity {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Warning => "warning",
        }
    }
}

/// Declares the linters: variant, name, what counts by default, and what is to be done.
macro_rules! linters {
    ($($variant:ident, $name:literal, $default:expr, $explain:literal;)*) => {
        /// A linter of packages.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Linter {
            $(#[doc = concat!("`", $name, "`: ", $explain)] $variant,)*
        }

        impl Linter {
            /// All of them, by name.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in definitions and options.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What its findings ask for, one sentence.
            pub fn explain(self) -> &'static str {
                match self { $(Self::$variant => $explain,)* }
            }

            /// What its findings weigh unless somebody says otherwise; `None` for a linter that does not run then.
            pub fn default_severity(self) -> Option<LintSeverity> {
                match self { $(Self::$variant => $default,)* }
            }
        }
    };
}

const REQUIRED: Option<LintSeverity> = Some(LintSeverity::Required);
const WARNING: Option<LintSeverity> = Some(LintSeverity::Warning);
const OFF: Option<LintSeverity> = None;

// The sets are those of melange 2043d30b.
linters! {
    BinaryArch, "binaryarch", WARNING, "Leave out programs and libraries that neither x86_64 nor aarch64 machines run";
    CudaRuntimeLib, "cudaruntimelib", WARNING,
        "Leave out libraries of the CUDA driver: the host brings its own, and a stub package serves for linking and tests";
    Dev, "dev", REQUIRED, "Leave out what lies in /dev; device nodes are made by udev";
    Dll, "dll", WARNING, "Leave out libraries for Windows";
    Documentation, "documentation", OFF, "Move documentation to a -doc package, or leave it out";
    Duplicate, "duplicate", WARNING, "Keep one of the equal files, and link the others to it";
    Dylib, "dylib", WARNING, "Leave out libraries for macOS";
    Empty, "empty", OFF, "See why the steps installed nothing; switch the linter off for a package that is meant to be empty";
    InfoDir, "infodir", REQUIRED, "Leave out /usr/share/info/dir, as `split/infodir` does";
    LddCheck, "lddcheck", WARNING, "Add `test/ldd-check` to the test of the package";
    LaFiles, "libtool/la-files", REQUIRED, "Remove libtool archives in a step; switch the linter off where they are needed";
    ManInfo, "maninfo", WARNING, "Move manual and info pages to a -doc package, as `split/manpages` does";
    NonLinux, "nonlinux", WARNING, "Leave out files for other operating systems";
    Object, "object", WARNING, "Remove object files, which are left over from compiling";
    Opt, "opt", WARNING, "Install below /usr, or call the package -compat";
    PkgConf, "pkgconf", WARNING, "Add `test/pkgconf` to the test of the package";
    PythonDocs, "python/docs", WARNING, "Remove the documentation from site-packages";
    PythonMultiple, "python/multiple", WARNING,
        "Make a package of each Python module, and see whether pip brought the others along";
    PythonTest, "python/test", WARNING, "Remove the tests from site-packages";
    Sbom, "sbom", WARNING, "Leave /var/lib/db/sbom to the documents that the build writes";
    SetUidGid, "setuidgid", REQUIRED, "Remove the setuid, setgid and sticky bits; switch the linter off where they are needed";
    Srv, "srv", WARNING, "Install below /usr, or call the package -compat";
    StaticArchive, "staticarchive", WARNING, "Move static archives to a -dev or -static package, or remove them";
    Strip, "strip", WARNING, "Strip programs and libraries in a step, as `strip` does";
    TempDir, "tempdir", REQUIRED,
        "Leave out what lies in temporary folders; what /run needs at run time is made by a file in /usr/lib/tmpfiles.d";
    UnsupportedArch, "unsupportedarch", WARNING, "Leave out files for architectures other than x86_64 and aarch64";
    UsrLocal, "usrlocal", WARNING, "Install below /usr, or call the package -compat";
    UsrMerge, "usrmerge", REQUIRED, "Install to /usr/bin and /usr/lib; /bin, /sbin, /usr/sbin, /lib and /lib64 are links to them";
    VarEmpty, "varempty", REQUIRED, "Leave out what lies in /var/empty";
    WorldWrite, "worldwrite", REQUIRED, "Take the right to write from others, or switch the linter off";
}

impl fmt::Display for Linter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Linter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.iter().copied().find(|linter| linter.name() == text);
        known.ok_or_else(|| Error::invalid(unknown(text)).hint(known_hint(text)))
    }
}

/// What is said of a name that no linter has.
pub(super) fn unknown(name: &str) -> String {
    let shown: String = name.chars().take(NAME_SHOWN_MAX).collect();
    format!("unknown linter: {shown:?}")
}

/// Characters of an unknown name that are shown.
const NAME_SHOWN_MAX: usize = 64;

/// What to do about it.
pub(super) fn known_hint(name: &str) -> String {
    let names = || Linter::ALL.iter().map(|linter| linter.name());
    match nearest(name, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the linters are {}", names().collect::<Vec<_>>().join(", ")),
    }
}

/// Which linters run, and what their findings weigh.
///
/// ```
/// use melange_remote_sdk::analysis::lint::{LintSeverity, Linter, LinterSets};
/// let sets = LinterSets::default();
/// assert_eq!(sets.severity(Linter::Dev), Some(LintSeverity::Required));
/// let sets = sets.for_package(&["dev".to_owned()]).unwrap();
/// assert_eq!(sets.severity(Linter::Dev), Some(LintSeverity::Warning));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinterSets {
    /// A finding of these fails the build.
    pub required: Vec<Linter>,
    /// A finding of these is told.
    pub warned: Vec<Linter>,
}

impl Default for LinterSets {
    fn default() -> Self {
        let of = |severity| {
            let all = Linter::ALL.iter().copied();
            all.filter(|linter| linter.default_severity() == Some(severity)).collect()
        };
        Self { required: of(LintSeverity::Required), warned: of(LintSeverity::Warning) }
    }
}

impl LinterSets {
    /// The sets for a package whose definition switches linters off: those are told instead of being required, also
    /// those that do not run otherwise.
    ///
    /// # Errors
    /// `InvalidRequest` for a name that no linter has.
    pub fn for_package(&self, disabled: &[String]) -> Result<Self> {
        let mut sets = self.clone();
        for name in disabled {
            let linter = name.parse()?;
            sets.required.retain(|required| *required != linter);
            if !sets.warned.contains(&linter) {
                sets.warned.push(linter);
            }
        }
        Ok(sets)
    }

    /// What a finding of a linter weighs; `None` when it does not run.
    pub fn severity(&self, linter: Linter) -> Option<LintSeverity> {
        if self.required.contains(&linter) {
            return Some(LintSeverity::Required);
        }
        self.warned.contains(&linter).then_some(LintSeverity::Warning)
    }

    /// The linters that run, each once: those that warn first, as their findings are told in that order.
    pub fn in_order(&self) -> Vec<(Linter, LintSeverity)> {
        let mut order = Vec::new();
        for linter in self.warned.iter().chain(&self.required).copied() {
            let Some(severity) = self.severity(linter) else { continue };
            if !order.contains(&(linter, severity)) {
                order.push((linter, severity));
            }
        }
        order.sort_by_key(|(_, severity)| *severity == LintSeverity::Required);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_are_those_of_melange() {
        let names =
            |linters: &[Linter]| linters.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let sets = LinterSets::default();
        assert_eq!(
            names(&sets.required),
            "dev infodir libtool/la-files setuidgid tempdir usrmerge varempty worldwrite"
        );
        assert_eq!(
            names(&sets.warned),
            "binaryarch cudaruntimelib dll duplicate dylib lddcheck maninfo nonlinux object opt pkgconf \
             python/docs python/multiple python/test sbom srv staticarchive strip unsupportedarch usrlocal"
        );
        let mut sorted = Linter::ALL.to_vec();
        sorted.sort_by_key(|linter| linter.name());
        assert_eq!(sorted, Linter::ALL, "by name");
        for linter in Linter::ALL {
            assert_eq!(linter.name().parse::<Linter>().unwrap(), *linter);
        }
    }

    #[test]
    fn disabled_linters_warn_and_run_once() {
        let disabled = ["dev", "documentation", "strip", "dev"].map(str::to_owned);
        let sets = LinterSets::default().for_package(&disabled).unwrap();
        assert_eq!(sets.severity(Linter::Dev), Some(LintSeverity::Warning));
        assert_eq!(sets.severity(Linter::Documentation), Some(LintSeverity::Warning));
        assert_eq!(sets.severity(Linter::Empty), None);
        let order = sets.in_order();
        assert_eq!(order.iter().filter(|(linter, _)| *linter == Linter::Strip).count(), 1);
        assert_eq!(order.iter().filter(|(linter, _)| *linter == Linter::Dev).count(), 1);
        let first_required = order.iter().position(|(_, weight)| *weight == LintSeverity::Required).unwrap();
        assert!(order[first_required..].iter().all(|(_, weight)| *weight == LintSeverity::Required));
        let both = LinterSets { required: vec![Linter::Opt], warned: vec![Linter::Opt, Linter::Dev] };
        assert_eq!(
            both.in_order(),
            [(Linter::Dev, LintSeverity::Warning), (Linter::Opt, LintSeverity::Required)]
        );
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest() {
        let error = "setuid-gid".parse::<Linter>().unwrap_err();
        assert_eq!(error.to_string(), "unknown linter: \"setuid-gid\"");
        assert_eq!(error.hint_text(), Some("did you mean `setuidgid`?"));
        let error = LinterSets::default().for_package(&["nonsense".to_owned()]).unwrap_err();
        assert!(error.hint_text().unwrap().starts_with("the linters are binaryarch, "), "{error:?}");
        assert!("x".repeat(9_999).parse::<Linter>().unwrap_err().to_string().len() < 100);
    }
}
