//! What a definition probably does not mean, though it can be built: warnings beside the compiler's errors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::document::{Dependencies, Document, Step, Text};
use super::pipelines::PipelineSet;
use super::{CompileOptions, compile};
use crate::apk::dependency::Dependency;
use crate::arch::Arch;
use crate::text::diagnostics::{Diagnostic, Diagnostics, Position, Source};

/// The compiler's errors and the warnings of one definition, in order of place.
///
/// Warnings are looked for in every definition that can be read, whether or not it compiles.
pub fn lint(
    source: &Arc<Source>,
    arch: Arch,
    pipelines: &PipelineSet,
    options: &CompileOptions,
) -> Vec<Diagnostic> {
    let mut found = match compile(source, arch, pipelines, options) {
        Ok(_) => Vec::new(),
        Err(Diagnostics(errors)) => errors,
    };
    if let Ok(document) = Document::parse(source) {
        let mut linter = Linter { document: &document, found: Vec::new() };
        linter.package();
        linter.subpackages();
        linter.names();
        linter.transforms();
        linter.steps();
        found.append(&mut linter.found);
    }
    found.sort_by_key(|diagnostic| (diagnostic.source.name != source.name, diagnostic.at));
    found.truncate(crate::limits::DIAGNOSTICS_MAX);
    found
}

struct Linter<'a> {
    document: &'a Document,
    found: Vec<Diagnostic>,
}

impl Linter<'_> {
    fn warn(&mut self, at: Position, message: impl Into<String>, hint: impl Into<String>) {
        let diagnostic = Diagnostic::new(&self.document.source, at, message);
        self.found.push(diagnostic.hint(hint).whole().warning());
    }

    fn package(&mut self) {
        let package = &self.document.package;
        let file = self.document.source.name.rsplit('/').next().unwrap_or_default();
        let expected = format!("{}.yaml", &*package.name);
        if !package.name.is_empty()
            && !package.name.contains("${{")
            && file != expected
            && file != "config.yaml"
        {
            let message = format!("the package `{}` stands in the file `{file}`", &*package.name);
            self.warn(package.name.at, message, format!("call the file `{expected}`"));
        }
        if package.copyright.iter().all(|entry| entry.license.is_empty()) {
            self.warn(package.at, "the package has no licence", "add `copyright:` with a `license:`");
        }
        for target in package.target_architecture.clone() {
            if &*target == "all" {
                self.warn(target.at, "`all` is an old way to say nothing", "leave `target-architecture` out");
            } else if !target.contains("${{") && !Arch::all().any(|arch| arch.apk_name() == &*target) {
                let known: Vec<&str> = Arch::all().map(Arch::apk_name).collect();
                let message = format!("nothing is built for the unknown architecture {:?}", &*target);
                self.warn(target.at, message, format!("known: {}", known.join(", ")));
            }
        }
        let period = self.document.update.as_ref().and_then(|update| update.schedule.as_ref());
        if let Some(period) = period.map(|schedule| schedule.period.clone())
            && !matches!(&*period, "" | "daily" | "weekly" | "monthly")
        {
            self.warn(
                period.at,
                format!("{:?} is no period", &*period),
                "write `daily`, `weekly` or `monthly`",
            );
        }
        self.description(&package.description.clone());
        self.dependencies(&package.dependencies.clone(), &package.name.clone());
    }

    fn subpackages(&mut self) {
        for sub in self.document.subpackages.clone() {
            self.description(&sub.description);
            self.dependencies(&sub.dependencies, &sub.name);
            if let Some(setcap) = sub.setcap.first() {
                let hint = "other builders take `setcap` of the main package only; move the file there if it matters";
                self.warn(setcap.at, "`setcap` of a subpackage", hint);
            }
        }
    }

    fn description(&mut self, text: &Text) {
        if text.trim_end() != &**text {
            let hint = "write it on one line behind `description:`";
            self.warn(text.at, "the description ends with a line break, which shows in the package", hint);
        }
        if text.trim_end().contains('\n') {
            self.warn(text.at, "the description has several lines", "an index has room for one");
        }
        for reference in text.split("${{").skip(1) {
            let name = reference.split("}}").next().unwrap_or_default();
            if name.contains(char::is_whitespace) || !reference.contains("}}") {
                let hint = "descriptions know `${{name}}` without spaces only";
                self.warn(text.at, "a reference that stays in the text as it is", hint);
            }
        }
    }

    fn dependencies(&mut self, dependencies: &Dependencies, own: &Text) {
        for text in &dependencies.runtime {
            if text.contains("==") || text.contains("~=") {
                let message = format!("apko takes `{}` for any version", &**text);
                self.warn(text.at, message, "write `=` for one version, `~` for those that begin with it");
            }
            if !text.contains("${{") && Dependency::parse(text).name == &**own {
                self.warn(text.at, "the package depends on itself", "leave it out");
            }
        }
        for text in dependencies.replaces.iter().filter(|text| text.contains(['<', '>', '='])) {
            let hint = "installers compare names only here";
            self.warn(text.at, format!("the version in `{}` has no effect", &**text), hint);
        }
    }

    /// Variables and ranges that nobody uses.
    fn names(&mut self) {
        let text = &self.document.source.text;
        let used = |name: &str| {
            let mut rest = text.as_str();
            while let Some(at) = rest.find(name) {
                rest = &rest[at + name.len()..];
                if !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
                    return true;
                }
            }
            false
        };
        let mut unused = Vec::new();
        for (name, value) in &self.document.vars {
            if !used(&format!("vars.{name}")) {
                let at = self.document.source.key_of(value.at, name).unwrap_or(value.at);
                unused.push((at, format!("nothing uses the variable `{name}`")));
            }
        }
        for entry in &self.document.var_transforms {
            if !entry.to.is_empty() && !used(&format!("vars.{}", &*entry.to)) {
                unused.push((entry.to.at, format!("nothing uses the variable `{}`", &*entry.to)));
            }
        }
        let ranges: BTreeSet<&str> = self.document.subpackages.iter().map(|sub| &*sub.range).collect();
        for entry in self.document.data.iter().filter(|entry| !ranges.contains(&*entry.name)) {
            unused.push((entry.name.at, format!("no subpackage has the range `{}`", &*entry.name)));
        }
        for (at, message) in unused {
            self.warn(at, message, "remove it, or use it");
        }
    }

    /// `$1x` names the group `1x`, which nobody means.
    fn transforms(&mut self) {
        for entry in self.document.var_transforms.clone() {
            let mut rest = &*entry.replace;
            while let Some(at) = rest.find('$') {
                rest = &rest[at + 1..];
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                let name = &rest[..end];
                let digits = name.len() - name.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                if digits > 0 && digits < name.len() {
                    let message = format!("`${name}` is the group called `{name}`, which is empty");
                    let hint = format!("write `${{{}}}{}`", &name[..digits], &name[digits..]);
                    self.warn(entry.replace.at, message, hint);
                }
            }
        }
    }

    fn steps(&mut self) {
        let document = self.document;
        let subpackages = &document.subpackages;
        let tests = document.test.iter().chain(subpackages.iter().filter_map(|sub| sub.test.as_ref()));
        let steps = document.pipeline.iter().chain(subpackages.iter().flat_map(|sub| &sub.pipeline));
        for step in steps.chain(tests.flat_map(|test| &test.pipeline)) {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        let given = |name: &str| step.with.get(name).is_some_and(|value| !value.is_empty());
        if !step.uses.is_empty() && step.pipeline.as_ref().is_some_and(|steps| !steps.is_empty()) {
            let hint = "leave one of them out";
            self.warn(step.at, "a step with both `uses` and `pipeline`: the pipeline alone counts", hint);
        }
        match &*step.uses {
            "git-checkout" if !given("expected-commit") => {
                let hint = "add `expected-commit:`, so that the same source is built every time";
                self.warn(step.uses.at, "the commit that is checked out is not pinned", hint);
            }
            "fetch" if given("expected-none") => {
                let hint = "add `expected-sha256:`, so that the same source is built every time";
                self.warn(step.uses.at, "the download is not checked", hint);
            }
            _ => {}
        }
        let mut seen = BTreeMap::new();
        for need in step.needs.iter().flatten() {
            if seen.insert(need.value.clone(), ()).is_some() {
                self.warn(need.at, format!("`{}` is named twice", &**need), "name it once");
            }
        }
        step.pipeline.iter().flatten().for_each(|child| self.step(child));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_read_well() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/doubtful");
        let text = std::fs::read_to_string(folder.join("doubtful.yaml")).unwrap();
        let source = Source::new("doubtful.yaml", text);
        let found = lint(&source, Arch::X86_64, &PipelineSet::default(), &CompileOptions::default());
        insta::assert_snapshot!(Diagnostics(found).to_string());
    }
}
