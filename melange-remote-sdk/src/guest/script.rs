//! From the steps of a plan to the scripts of a guest: what melange hands to `/bin/sh`, line by line.

use std::collections::BTreeMap;

use super::GuestStep;
use crate::melange::plan::{Plan, PlanStep, PlanTest};

/// The search path of every script; only a step's own environment can change it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/bin:/usr/sbin:/sbin:/bin";

/// An assertion of a pipeline that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline `{title}` did not run the required {required} steps, only {ran}")]
pub struct RequiredSteps {
    /// The step's title.
    pub title: String,
    /// How many children must run.
    pub required: u64,
    /// How many do.
    pub ran: u64,
}

/// How scripts are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScriptOptions {
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub epoch_seconds: i64,
    /// Whether each command is printed before it runs.
    pub debug: bool,
}

impl ScriptOptions {
    /// Scripts that begin at this `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub fn new(epoch_seconds: i64) -> Self {
        Self { epoch_seconds, debug: false }
    }

    /// The same, with each command printed before it runs when `debug` says so.
    #[must_use]
    pub fn with_debug(mut self, debug: bool) -> Self {
        self.debug = debug;
        self
    }
}

/// The chain of scripts of a plan, main first, then each subpackage.
///
/// A step without a script creates its directory only; that is folded into the next script of the chain.
///
/// # Errors
/// An assertion about the number of steps that does not hold.
pub fn guest_steps(plan: &Plan, options: &ScriptOptions) -> Result<Vec<GuestStep>, RequiredSteps> {
    let base = [("SOURCE_DATE_EPOCH".to_owned(), options.epoch_seconds.to_string())];
    let variables = base.into_iter().chain(plan.environment.variables.clone()).collect();
    let mut chain = Chain::new(variables, options.debug);
    for package in plan.packages() {
        chain.package = &package.name;
        let folder = format!("/home/build/melange-out/{}", package.name);
        chain.prologue.push(make_directory(&folder));
        for step in &package.pipeline {
            chain.walk(step)?;
        }
    }
    chain.package = &plan.package.name;
    Ok(chain.finish())
}

/// The chain of scripts of a test. Tests have no `SOURCE_DATE_EPOCH`: that of the options says nothing.
///
/// # Errors
/// As [`guest_steps`].
pub fn test_steps(test: &PlanTest, options: &ScriptOptions) -> Result<Vec<GuestStep>, RequiredSteps> {
    let mut chain = Chain::new(test.environment.variables.clone(), options.debug);
    chain.package = &test.subject;
    for step in &test.pipeline {
        chain.walk(step)?;
    }
    Ok(chain.finish())
}

struct Chain<'a> {
    /// What every script finds in its environment; only a step's own comes before it.
    base: BTreeMap<String, String>,
    debug: bool,
    /// Lines that run before the next script, each harmless to repeat.
    prologue: Vec<String>,
    steps: Vec<GuestStep>,
    package: &'a str,
}

/// `text` as one word of a shell.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn make_directory(path: &str) -> String {
    let path = quote(path);
    format!("[ -d {path} ] || mkdir -p {path}")
}

impl Chain<'_> {
    fn new(mut base: BTreeMap<String, String>, debug: bool) -> Self {
        base.insert("PATH".to_owned(), PATH.to_owned());
        let ldconfig = "[ ! -x /sbin/ldconfig ] || /sbin/ldconfig /lib || true".to_owned();
        Self { base, debug, prologue: vec![ldconfig], steps: Vec::new(), package: "" }
    }

    /// The steps; what is left to be done before a script gets one of its own.
    fn finish(mut self) -> Vec<GuestStep> {
        if !self.prologue.is_empty() {
            self.push("finish".to_owned(), "/home/build", "", BTreeMap::new(), false);
        }
        self.steps
    }

    fn walk(&mut self, step: &PlanStep) -> Result<(), RequiredSteps> {
        if !step.enabled {
            return Ok(());
        }
        let directory = step.directory();
        if step.runs.trim().is_empty() {
            if directory != "/home/build" {
                self.prologue.push(make_directory(&directory));
            }
        } else {
            let name = format!("{}: {}", self.package, step.title());
            self.push(name, &directory, &step.runs, step.environment.clone(), step.network);
        }
        for child in &step.pipeline {
            self.walk(&named_after(child, step))?;
        }
        if let Some(required) = step.required_steps {
            let ran = step.pipeline.iter().filter(|child| child.enabled).count() as u64;
            if ran != required {
                return Err(RequiredSteps { title: step.title().to_owned(), required, ran });
            }
        }
        Ok(())
    }

    fn push(
        &mut self,
        name: String,
        directory: &str,
        body: &str,
        own: BTreeMap<String, String>,
        network: bool,
    ) {
        let mut script = String::new();
        for line in self.prologue.drain(..) {
            script.push_str(&line);
            script.push('\n');
        }
        script.push_str(if self.debug { "set -exo pipefail\n" } else { "set -eo pipefail\n" });
        script.push_str(&make_directory(directory));
        script.push_str(&format!("\ncd {}\n{}", quote(directory), body));
        if !body.is_empty() && !body.ends_with('\n') {
            script.push('\n');
        }
        script.push_str("exit 0\n");
        let mut environment = self.base.clone();
        environment.extend(own);
        self.steps.push(GuestStep { name, script, environment: environment.into_iter().collect(), network });
    }
}

/// A nameless child is called after the pipeline around it.
fn named_after(child: &PlanStep, parent: &PlanStep) -> PlanStep {
    let mut child = child.clone();
    if child.name.is_empty() && child.uses.is_empty() {
        child.uses.clone_from(&parent.uses);
        child.name = if parent.uses.is_empty() { parent.title().to_owned() } else { String::new() };
    }
    child
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_a_quote() {
        assert_eq!(make_directory("a'b"), r"[ -d 'a'\''b' ] || mkdir -p 'a'\''b'");
    }
}
