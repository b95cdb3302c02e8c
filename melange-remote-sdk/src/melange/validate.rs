//! The checks of a prepared definition, each with its place.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use super::document::{Document, Package, Step, Text};
use crate::apk::dependency::Dependency;
use crate::apk::version::Version;
use crate::limits;
use crate::text::diagnostics::{Diagnostic, Position};

const SETCAP_ALLOWED: [&str; 5] =
    ["cap_net_bind_service", "cap_net_admin", "cap_net_raw", "cap_ipc_lock", "cap_sys_admin"];

/// Adds every mistake of `document` to `errors`; with `any_version` a version that apk cannot compare is none.
pub(super) fn validate(document: &Document, any_version: bool, errors: &mut Vec<Diagnostic>) {
    let mut checker = Checker { document, any_version, errors };
    checker.package();
    checker.subpackages();
    checker.setcaps();
    checker.cpe();
    checker.dependencies();
    for step in document.pipeline.iter().chain(document.subpackages.iter().flat_map(|sub| &sub.pipeline)) {
        checker.step(step);
    }
}

/// What is wrong with a dependency, and what to do; nothing while it holds variables.
pub(super) fn dependency_mistake(text: &str) -> Option<(String, String)> {
    if text.contains("${{") {
        return None;
    }
    let name = match Dependency::checked(text) {
        Ok(dependency) => dependency.name,
        Err(error) => {
            return Some((error.message().to_owned(), error.hint_text().unwrap_or_default().to_owned()));
        }
    };
    let character = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"+,-./:[]_".contains(*c))?;
    let message =
        format!("the dependency {text:?} has {character:?} in its name, which installers cannot read");
    Some((message, "names have letters, digits and `+,-./:[]_`".to_owned()))
}

/// What is wrong with a checksum, and what to do.
pub(super) fn checksum_mistake(name: &str, value: &str) -> Option<(String, String)> {
    let length = match name {
        "expected-sha256" => 64,
        "expected-sha512" => 128,
        "expected-commit" => 40,
        _ => return None,
    };
    if value.is_empty() || value.len() == length && value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    if value.contains("${{") {
        let message = format!("`{name}` is checked before its variables are replaced");
        let hint = "write it out, or use a variable that is replaced early: `${{vars.…}}`, without spaces";
        return Some((message, hint.to_owned()));
    }
    let count = value.chars().count();
    let message = format!("`{name}` must have {length} hex digits, this has {count} characters");
    let what = if name == "expected-commit" { "commit" } else { "checksum" };
    Some((message, format!("write the {length} digits of the {what}, 0-9 and a-f")))
}

/// Whether apk can compare the version of a package.
fn is_version(package: &Package) -> bool {
    Version::parse(&format!("{}-r{}", &*package.version, package.epoch)).is_some()
}

struct Checker<'a> {
    document: &'a Document,
    any_version: bool,
    errors: &'a mut Vec<Diagnostic>,
}

impl Checker<'_> {
    fn report(&mut self, text: &Text, message: String, hint: &str) {
        let at = if text.at.line > 0 { text.at } else { self.document.package.at };
        self.errors.push(Diagnostic::new(&self.document.source, at, message).hint(hint.to_owned()));
    }

    fn unresolved(&mut self, name: &Text) {
        let message = format!("the name `{}` refers to a variable that is not defined", name.value);
        self.report(
            name,
            message,
            "names know `vars`, `package` and `range`, written `${{vars.x}}` without spaces",
        );
    }

    fn package(&mut self) {
        let package = &self.document.package;
        if package.name.contains("${{") {
            self.unresolved(&package.name);
        } else if package.name.is_empty() {
            self.report(&package.name, "the package has no `name`".to_owned(), "add `name:`");
        } else if !is_package_name(&package.name) {
            let message = format!("{:?} is not a package name", package.name.value);
            self.report(
                &package.name,
                message,
                "use letters, digits and `+_.-`, beginning with a letter or digit",
            );
        }
        if package.version.is_empty() {
            self.report(&package.version, "the package has no `version`".to_owned(), "add `version:`");
        } else if !self.any_version && !is_version(package) {
            let message = format!("{:?} is not an apk version", package.version.value);
            self.report(
                &package.version,
                message,
                "a version looks like `1.2.3`, `1.2a`, `1.2_rc1` or `1.2_p20240101`",
            );
        }
        let priorities = std::iter::once(&package.dependencies)
            .chain(self.document.subpackages.iter().map(|sub| &sub.dependencies))
            .flat_map(|dependencies| [&dependencies.provider_priority, &dependencies.replaces_priority]);
        for priority in priorities {
            if !priority.is_empty() && priority.parse::<i64>().is_err() {
                let message = format!("the priority {:?} is not a whole number", priority.value);
                self.report(priority, message, "write digits");
            }
        }
    }

    fn subpackages(&mut self) {
        let mut seen: HashMap<&str, (usize, Position)> = HashMap::new();
        for (index, subpackage) in self.document.subpackages.iter().enumerate() {
            let name = if subpackage.name.at.line > 0 {
                subpackage.name.clone()
            } else {
                Text { value: subpackage.name.value.clone(), at: subpackage.at }
            };
            if name.contains("${{") {
                self.unresolved(&name);
            } else if name.is_empty() {
                self.report(&name, format!("subpackage {index} has no `name`"), "add `name:`");
            } else if !is_package_name(&name) {
                let message = format!("{:?} is not a package name (subpackage {index})", name.value);
                self.report(
                    &name,
                    message,
                    "use letters, digits and `+_.-`, beginning with a letter or digit",
                );
            } else if *name == *self.document.package.name {
                self.report(
                    &name,
                    format!("subpackage {index} has the name of the main package"),
                    "rename it",
                );
            } else if let Some((first, at)) = seen.insert(&subpackage.name, (index, subpackage.at)) {
                let message = format!("two subpackages are named `{}` (indexes {first} and {index})", &*name);
                let ranged = at == subpackage.at;
                let hint = if ranged { "put `${{range.key}}` into the name" } else { "rename one of them" };
                self.report(&name, message, hint);
            }
        }
    }

    /// What packages say of each other, and what environments ask for.
    fn dependencies(&mut self) {
        let document = self.document;
        let dependencies = std::iter::once(&document.package.dependencies)
            .chain(document.subpackages.iter().map(|sub| &sub.dependencies))
            .flat_map(|lists| lists.runtime.iter().chain(&lists.provides).chain(&lists.replaces));
        let tests =
            document.test.iter().chain(document.subpackages.iter().filter_map(|sub| sub.test.as_ref()));
        let packages = std::iter::once(&document.environment)
            .chain(tests.map(|test| &test.environment))
            .flat_map(|environment| &environment.contents.packages);
        for text in dependencies.chain(packages) {
            // What is not replaced is told already.
            if let Some((message, hint)) = dependency_mistake(text)
                && self.errors.len() < limits::DIAGNOSTICS_MAX
            {
                self.report(text, message, &hint);
            }
        }
    }

    fn setcaps(&mut self) {
        let all = self
            .document
            .package
            .setcap
            .iter()
            .chain(self.document.subpackages.iter().flat_map(|s| &s.setcap));
        for setcap in all.cloned().collect::<Vec<_>>() {
            let at = Text { value: String::new(), at: setcap.at };
            for capability in setcap.add.keys().flat_map(|list| list.split(',')) {
                if !SETCAP_ALLOWED.contains(&capability.trim()) {
                    let message =
                        format!("the capability `{capability}` is not allowed on `{}`", &*setcap.path);
                    self.report(&at, message, &format!("allowed: {}", SETCAP_ALLOWED.join(", ")));
                }
            }
            if setcap.reason.is_empty() {
                self.report(&at, format!("`setcap` of `{}` gives no reason", &*setcap.path), "add `reason:`");
            }
        }
    }

    fn cpe(&mut self) {
        let cpe = &self.document.package.cpe;
        if !cpe.part.is_empty() && !matches!(&*cpe.part, "a" | "o") {
            self.report(
                &cpe.part,
                format!("the CPE part {:?} is neither a nor o", cpe.part.value),
                "write `a` or `o`",
            );
        }
        if cpe.vendor.is_empty() != cpe.product.is_empty() {
            let given = if cpe.vendor.is_empty() { &cpe.product } else { &cpe.vendor };
            self.report(given, "a CPE needs both `vendor` and `product`".to_owned(), "give both or none");
        }
        let fields = [
            &cpe.vendor,
            &cpe.product,
            &cpe.edition,
            &cpe.language,
            &cpe.sw_edition,
            &cpe.target_sw,
            &cpe.target_hw,
            &cpe.other,
        ];
        for field in fields {
            let ok =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '_' | '.' | '-');
            let first = field.chars().next().is_none_or(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            if !(first && field.chars().all(ok)) {
                let message = format!("{:?} is not a CPE value", field.value);
                self.report(field, message, "use lower-case letters, digits and `+_.-`");
            }
        }
    }

    fn step(&mut self, step: &Step) {
        let place = Text { value: String::new(), at: step.at };
        if !step.uses.is_empty() && !step.runs.is_empty() {
            let message = format!("a step cannot have both `uses` ({}) and `runs`", &*step.uses);
            self.report(&step.runs, message, "make two steps of it");
        }
        if !step.with.is_empty() && step.uses.is_empty() {
            if step.runs.is_empty() {
                self.report(
                    &place,
                    "a step has `with` but no `uses`".to_owned(),
                    "name the pipeline in `uses`",
                );
            } else {
                self.report(
                    &place,
                    "a step cannot have both `with` and `runs`".to_owned(),
                    "`with` goes with `uses`",
                );
            }
        }
        for child in step.pipeline.iter().flatten() {
            self.step(child);
        }
    }
}

/// Names of packages.
static PACKAGE_NAME: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^[a-zA-Z0-9][a-zA-Z0-9+_.-]*$").ok());

/// Whether `name` may name a package.
fn is_package_name(name: &str) -> bool {
    name.len() <= 200 && PACKAGE_NAME.as_ref().is_some_and(|regex| regex.is_match(name))
}
