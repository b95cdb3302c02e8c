//! Where `uses:` finds its pipelines: those handed in with the job, then the built-in ones.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock};

use crate::error::{Error, Result};
use crate::limits;
use crate::melange::document::{Input, Step};
use crate::text::diagnostics::{Diagnostics, Source};

pub mod reference;

/// A built-in pipeline: its name, its text, and whether its own scripts may use the network.
struct Builtin {
    name: &'static str,
    text: &'static str,
    network: bool,
}

macro_rules! builtins {
    ($($name:literal $network:literal),* $(,)?) => {
        &[$(Builtin {
            name: $name,
            text: include_str!(concat!("builtin/", $name, ".yaml")),
            network: $network,
        }),*]
    };
}

// What runs an upstream's own build or tests may use the network, as such builds do; what only works on files that
// are there already may not.
static BUILTINS: &[Builtin] = builtins![
    "R/build" true,
    "autoconf/configure" true,
    "autoconf/make" true,
    "autoconf/make-install" true,
    "cargo/build" true,
    "cmake/build" true,
    "cmake/configure" true,
    "cmake/install" true,
    "fetch" true,
    "git-am" false,
    "git-checkout" true,
    "go/build" true,
    "go/build/v2" true,
    "go/bump" true,
    "go/covdata" false,
    "go/install" true,
    "llvm/covreport" false,
    "maven/configure-mirror" true,
    "maven/pombump" true,
    "meson/compile" true,
    "meson/configure" true,
    "meson/install" true,
    "npm/install" true,
    "patch" false,
    "pecl/install" true,
    "pecl/phpize" true,
    "perl/cleanup" false,
    "perl/make" true,
    "python/build" true,
    "python/build-wheel" true,
    "python/import" true,
    "python/install" true,
    "python/test" true,
    "ruby/build" true,
    "ruby/clean" false,
    "ruby/install" true,
    "split/alldocs" false,
    "split/bin" false,
    "split/debug" false,
    "split/dev" false,
    "split/infodir" false,
    "split/lib" false,
    "split/locales" false,
    "split/manpages" false,
    "split/static" false,
    "strip" false,
    "xcover/ensure" true,
    "xcover/profile" true,
    "xcover/status" true,
    "xcover/stop" true,
    "xcover/wait" true,
];

/// The names of the built-in pipelines, sorted.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    BUILTINS.iter().map(|builtin| builtin.name)
}

/// The text of a built-in pipeline.
pub fn builtin_text(name: &str) -> Option<&'static str> {
    BUILTINS.iter().find(|builtin| builtin.name == name).map(|builtin| builtin.text)
}

/// What a built-in pipeline says about itself.
#[derive(Debug, Clone)]
pub struct BuiltinPipeline {
    /// What a step writes in `uses` to get it.
    pub name: &'static str,
    /// Its file.
    pub text: &'static str,
    /// What it does, in one line.
    pub title: String,
    /// The packages it adds to the environment, as written: they may refer to inputs.
    pub needs: Vec<String>,
    /// What a step may or must say in `with`, by name.
    pub inputs: BTreeMap<String, Input>,
    /// Whether its own scripts may use the network.
    pub network: bool,
}

/// The built-in pipelines with what they say about themselves, sorted by name.
///
/// ```
/// use melange_remote_sdk::melange::pipelines::builtins;
/// let patch = builtins().find(|builtin| builtin.name == "patch").unwrap();
/// assert_eq!(patch.needs, ["patch"]);
/// assert_eq!(&*patch.inputs["strip-components"].default, "1");
/// ```
pub fn builtins() -> impl Iterator<Item = BuiltinPipeline> {
    BUILTINS.iter().map(Builtin::describe)
}

impl Builtin {
    fn source(&self) -> Arc<Source> {
        Source::new(format!("built-in {}.yaml", self.name), self.text)
    }

    fn describe(&self) -> BuiltinPipeline {
        let step = Step::parse_definition(&self.source()).expect("built-in pipelines parse");
        let needs = step.needs.unwrap_or_default();
        BuiltinPipeline {
            name: self.name,
            text: self.text,
            title: step.name.value,
            needs: needs.into_iter().map(|package| package.value).collect(),
            inputs: step.inputs,
            network: self.network,
        }
    }
}

/// The path of an inline pipeline: relative, no `..`, ends in `.yaml`.
///
/// ```
/// use melange_remote_sdk::melange::pipelines::PipelinePath;
/// assert_eq!(PipelinePath::parse("test/docs.yaml").unwrap().uses(), "test/docs");
/// assert!(PipelinePath::parse("../etc/passwd.yaml").is_err());
/// assert!(PipelinePath::parse("/etc/x.yaml").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipelinePath(String);

impl PipelinePath {
    /// Reads a path.
    ///
    /// # Errors
    /// `InvalidRequest` for anything that is absolute, leaves its folder, is too long or is no `.yaml` file.
    pub fn parse(path: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Err(Error::invalid(format!("the pipeline path {path:?} {why}"))
                .hint("a pipeline path is relative, such as `test/docs.yaml`"))
        };
        if path.len() > limits::PIPELINE_PATH_BYTES_MAX {
            return refuse("is too long");
        }
        if path.starts_with('/') {
            return refuse("is absolute");
        }
        if path.contains(|c: char| c.is_control() || c == '\\') {
            return refuse("holds a character that paths must not have");
        }
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse("holds an empty part, `.` or `..`");
        }
        if !path.ends_with(".yaml") || path.ends_with("/.yaml") || path == ".yaml" {
            return refuse("does not end in `.yaml`");
        }
        Ok(Self(path.to_owned()))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a step writes in `uses` to get it.
    pub fn uses(&self) -> &str {
        self.0.strip_suffix(".yaml").unwrap_or(&self.0)
    }
}

impl fmt::Display for PipelinePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The pipelines that compilations may use. Each is read when first used, once for all compilations.
#[derive(Debug, Default)]
pub struct PipelineSet {
    inline: BTreeMap<String, Definition>,
}

/// A pipeline definition.
#[derive(Debug)]
pub struct Definition {
    source: Arc<Source>,
    network: bool,
    step: OnceLock<Result<Step, Diagnostics>>,
}

impl Definition {
    fn new(source: Arc<Source>, network: bool) -> Self {
        Self { source, network, step: OnceLock::new() }
    }

    /// Its text.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Whether its own scripts may use the network.
    pub fn network(&self) -> bool {
        self.network
    }

    /// What it says; its mistakes when it cannot be read.
    pub fn step(&self) -> Result<&Step, &Diagnostics> {
        self.step.get_or_init(|| Step::parse_definition(&self.source)).as_ref()
    }
}

static BUILTIN_DEFINITIONS: LazyLock<BTreeMap<&'static str, Definition>> = LazyLock::new(|| {
    let definition = |builtin: &Builtin| Definition::new(builtin.source(), builtin.network);
    BUILTINS.iter().map(|builtin| (builtin.name, definition(builtin))).collect()
});

impl PipelineSet {
    /// The built-in pipelines with `inline` ones before them.
    ///
    /// # Errors
    /// As [`PipelinePath::parse`]; `LimitExceeded` for too many.
    pub fn new(inline: &BTreeMap<String, String>) -> Result<Self> {
        if inline.len() > limits::INLINE_PIPELINES_MAX {
            let message =
                format!("{} inline pipelines, more than {}", inline.len(), limits::INLINE_PIPELINES_MAX);
            return Err(Error::new(crate::error::ErrorKind::LimitExceeded, message));
        }
        let mut set = Self::default();
        for (path, text) in inline {
            let path = PipelinePath::parse(path)?;
            let source = Source::new(path.as_str(), text.as_str());
            set.inline.insert(path.uses().to_owned(), Definition::new(source, true));
        }
        Ok(set)
    }

    /// Finds the pipeline that `uses` names: inline before built-in.
    pub fn find(&self, uses: &str) -> Option<&Definition> {
        self.inline.get(uses).or_else(|| BUILTIN_DEFINITIONS.get(uses))
    }

    /// Whether a pipeline of this name came with the job.
    pub fn is_inline(&self, uses: &str) -> bool {
        self.inline.contains_key(uses)
    }

    /// Every name that `uses` may have.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let builtin = builtin_names().map(|name| {
            let shorter: &str = name;
            shorter
        });
        self.inline.keys().map(String::as_str).chain(builtin)
    }
}

#[cfg(test)]
mod tests;
