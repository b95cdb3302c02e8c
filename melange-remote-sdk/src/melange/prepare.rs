//! The parse-time stage: exact tokens replaced, ranges expanded, defaults added, the result validated.
//!
//! Order as melange has it: tokens, ranges, accounts, variables, strict pass over dependencies, inheritance of
//! nested steps, validation.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use regex::Regex;

use super::document::{
    BuildOption, Dependencies, Document, Environment, Package, Scriptlets, Step, Subpackage, Test, Text,
    TextMap, Update, parse_variables,
};
use super::strict::substitute_or_report;
use super::substitute::{Variables, replace_tokens};
use super::transforms::{compile_patterns, refuse_circles, transform};
use super::{CompileOptions, defaults, dotenv, validate};
use crate::limits;
use crate::text::diagnostics::{Diagnostic, Diagnostics, Source, nearest};

/// A definition after the parse-time stage, with the variables that the compile stage begins with.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) document: Document,
    pub(super) transformed: Variables,
    /// The expressions of the transforms, in order; `None` for one that cannot be used.
    patterns: Vec<Option<Regex>>,
}

/// Runs the parse-time stage; mistakes go to `errors`. `None` when the definition is beyond a bound, so that going on
/// would cost more than it tells.
pub(super) fn prepare(
    mut document: Document,
    options: &CompileOptions,
    errors: &mut Vec<Diagnostic>,
) -> Option<Prepared> {
    let source = Arc::clone(&document.source);
    read_variables(&mut document, options, errors);
    refuse_circles(&document, errors);
    let patterns = compile_patterns(&document, options, errors)?;
    let raw = tokens_of(&document.package, &document.vars);
    let transformed = transform(&document, options, &patterns, raw.clone(), errors);
    if !are_bounded(&raw, &transformed, &document, errors) {
        return None;
    }
    let budget = Rc::new(Cell::new(Some(limits::EXPANDED_BYTES_MAX)));
    let tokens = Tokens { map: merge(&raw, &transformed), budget: Rc::clone(&budget) };
    replace_package(&mut document.package, &tokens);
    document.pipeline.iter_mut().for_each(|step| replace_step(step, &tokens));
    // The package's fields are replaced by now, and all that follows is made from them, as melange does. What is wrong
    // with the transforms is told already.
    let raw = tokens_of(&document.package, &document.vars);
    let transformed = transform(&document, options, &patterns, raw.clone(), &mut Vec::new());
    let strict = merge(&raw, &transformed);
    let own = Tokens { map: strict.clone(), budget: Rc::clone(&budget) };
    document.subpackages = expand(&mut document, own, errors);
    replace_environment(&mut document.environment, &tokens);
    if let Some(test) = &mut document.test {
        replace_test(test, &tokens);
    }
    if let Some(update) = &mut document.update {
        replace_update(update, &tokens);
    }
    document.data.clear();
    if budget.get().is_none() {
        errors.push(too_large(&document));
        return None;
    }
    read_environment_files(&mut document, options, errors);
    defaults::complete_environment(&mut document.environment, true);
    for test in
        document.test.iter_mut().chain(document.subpackages.iter_mut().filter_map(|sub| sub.test.as_mut()))
    {
        defaults::complete_environment(&mut test.environment, false);
    }
    substitute_dependencies(&mut document, &strict, &source, errors);
    let nothing = (Text::default(), TextMap::new());
    let steps =
        document.pipeline.iter_mut().chain(document.subpackages.iter_mut().flat_map(|sub| &mut sub.pipeline));
    for step in steps {
        inherit(step, &nothing.0, &nothing.1, &budget);
    }
    if budget.get().is_none() {
        errors.push(too_large(&document));
        return None;
    }
    validate::validate(&document, options.any_version, errors);
    Some(Prepared { document, transformed, patterns })
}

fn too_large(document: &Document) -> Diagnostic {
    let message = format!("the definition expands to more than {} bytes", limits::EXPANDED_BYTES_MAX);
    Diagnostic::new(&document.source, document.package.at, message)
        .hint("use smaller ranges, fewer variables, or less environment on steps around others")
}

/// Switches build options on: their variables and packages, after everything else of this stage. Exact tokens are
/// replaced by then, so the new values show where references are resolved later, as in melange.
pub(super) fn switch_on(prepared: &mut Prepared, options: &CompileOptions, errors: &mut Vec<Diagnostic>) {
    let document = &mut prepared.document;
    let chosen: Vec<BuildOption> =
        options.build_options.iter().filter_map(|name| document.options.get(name)).cloned().collect();
    if chosen.is_empty() {
        return;
    }
    for option in chosen {
        document.vars.extend(option.vars);
        let packages = &mut document.environment.contents.packages;
        packages.extend(option.add);
        packages.retain(|package| !option.remove.iter().any(|remove| **remove == **package));
    }
    let raw = tokens_of(&document.package, &document.vars);
    refuse_circles(document, errors);
    prepared.transformed = transform(document, options, &prepared.patterns, raw, errors);
}

/// Files of variables, the later over the earlier, all over those of the definition.
fn read_variables(document: &mut Document, options: &CompileOptions, errors: &mut Vec<Diagnostic>) {
    for file in &options.vars_files {
        match parse_variables(file) {
            Ok(variables) => document
                .vars
                .extend(variables.into_iter().map(|(name, value)| (name, Text::made(value.value)))),
            Err(Diagnostics(mistakes)) => errors.extend(mistakes),
        }
    }
}

/// Files of environment variables: the definition comes before all of them, an earlier file before a later one.
fn read_environment_files(document: &mut Document, options: &CompileOptions, errors: &mut Vec<Diagnostic>) {
    for file in &options.env_files {
        match dotenv::parse(file) {
            Ok(variables) => {
                for (name, value) in variables {
                    document.environment.environment.entry(name).or_insert_with(|| Text::made(value));
                }
            }
            Err(Diagnostics(mistakes)) => errors.extend(mistakes),
        }
    }
}

/// Variables may double each other's length; every scope holds all of them.
fn are_bounded(
    raw: &Variables,
    transformed: &Variables,
    document: &Document,
    errors: &mut Vec<Diagnostic>,
) -> bool {
    let count = raw.len() + document.var_transforms.len();
    let bytes: usize = raw.values().chain(transformed.values()).map(String::len).sum();
    let message = if count > limits::VARIABLES_MAX {
        format!("the definition has {count} variables, more than {}", limits::VARIABLES_MAX)
    } else if bytes > limits::VARIABLES_BYTES_MAX {
        format!("the variables have {bytes} bytes, more than {}", limits::VARIABLES_BYTES_MAX)
    } else {
        return true;
    };
    errors.push(Diagnostic::new(&document.source, document.package.at, message));
    false
}

fn merge(base: &Variables, over: &Variables) -> Variables {
    let mut merged = base.clone();
    merged.extend(over.iter().map(|(name, value)| (name.clone(), value.clone())));
    merged
}

fn tokens_of(package: &Package, vars: &TextMap) -> Variables {
    let mut tokens: Variables =
        vars.iter().map(|(name, value)| (format!("vars.{name}"), value.value.clone())).collect();
    tokens.extend([
        ("package.name".to_owned(), package.name.value.clone()),
        ("package.version".to_owned(), package.version.value.clone()),
        ("package.description".to_owned(), package.description.value.clone()),
        ("package.epoch".to_owned(), package.epoch.to_string()),
        ("package.full-version".to_owned(), format!("{}-r{}", &*package.version, package.epoch)),
    ]);
    tokens
}

/// The variables of the parse-time pass, and how many bytes it may still make.
struct Tokens {
    map: Variables,
    budget: Rc<Cell<Option<usize>>>,
}

impl Tokens {
    /// Takes from the budget; an overdrawn one stays so, and is reported once at the end.
    fn spend(&self, bytes: usize) {
        self.budget.set(self.budget.get().and_then(|left| left.checked_sub(bytes)));
    }
}

fn swap(text: &mut Text, tokens: &Tokens) {
    if text.contains("${{") && tokens.budget.get().is_some() {
        match replace_tokens(&text.value, &tokens.map) {
            Some(replaced) => {
                tokens.spend(replaced.len());
                text.value = replaced;
            }
            None => tokens.budget.set(None),
        }
    }
}

fn swap_all<'a>(texts: impl IntoIterator<Item = &'a mut Text>, tokens: &Tokens) {
    texts.into_iter().for_each(|text| swap(text, tokens));
}

fn replace_dependencies(dependencies: &mut Dependencies, tokens: &Tokens) {
    swap_all(&mut dependencies.runtime, tokens);
    swap_all(&mut dependencies.provides, tokens);
    swap_all(&mut dependencies.replaces, tokens);
    swap(&mut dependencies.provider_priority, tokens);
    swap(&mut dependencies.replaces_priority, tokens);
}

fn replace_scriptlets(scriptlets: &mut Scriptlets, tokens: &Tokens) {
    swap_all(&mut scriptlets.trigger_paths, tokens);
    scriptlets.scripts_mut().into_iter().for_each(|text| swap(text, tokens));
}

fn replace_package(package: &mut Package, tokens: &Tokens) {
    for text in [&mut package.name, &mut package.version, &mut package.description, &mut package.url] {
        swap(text, tokens);
    }
    swap_all(package.annotations.values_mut(), tokens);
    swap_all(&mut package.target_architecture, tokens);
    for copyright in &mut package.copyright {
        swap_all(&mut copyright.paths, tokens);
        swap(&mut copyright.license, tokens);
        swap(&mut copyright.license_path, tokens);
    }
    replace_dependencies(&mut package.dependencies, tokens);
    replace_scriptlets(&mut package.scriptlets, tokens);
}

fn replace_step(step: &mut Step, tokens: &Tokens) {
    for text in [&mut step.name, &mut step.runs, &mut step.condition, &mut step.working_directory] {
        swap(text, tokens);
    }
    swap_all(step.with.values_mut(), tokens);
    swap_all(step.environment.values_mut(), tokens);
    swap_all(step.needs.iter_mut().flatten(), tokens);
    step.pipeline.iter_mut().flatten().for_each(|child| replace_step(child, tokens));
}

fn replace_environment(environment: &mut Environment, tokens: &Tokens) {
    let contents = &mut environment.contents;
    for list in [
        &mut contents.repositories,
        &mut contents.build_repositories,
        &mut contents.keyring,
        &mut contents.packages,
    ] {
        swap_all(list, tokens);
    }
    swap_all(environment.environment.values_mut(), tokens);
    let image = &mut environment.image;
    let entrypoint = &mut image.entrypoint;
    for text in [
        &mut entrypoint.kind,
        &mut entrypoint.command,
        &mut entrypoint.shell_fragment,
        &mut image.cmd,
        &mut image.stop_signal,
        &mut image.work_dir,
        &mut image.vcs_url,
    ] {
        swap(text, tokens);
    }
    swap_all(entrypoint.services.values_mut(), tokens);
    swap_all(image.annotations.values_mut(), tokens);
    swap_all(&mut image.volumes, tokens);
}

fn replace_test(test: &mut Test, tokens: &Tokens) {
    replace_environment(&mut test.environment, tokens);
    test.pipeline.iter_mut().for_each(|step| replace_step(step, tokens));
}

fn replace_subpackage(subpackage: &mut Subpackage, tokens: &Tokens) {
    for text in
        [&mut subpackage.condition, &mut subpackage.name, &mut subpackage.description, &mut subpackage.url]
    {
        swap(text, tokens);
    }
    swap_all(subpackage.annotations.values_mut(), tokens);
    subpackage.pipeline.iter_mut().for_each(|step| replace_step(step, tokens));
    replace_dependencies(&mut subpackage.dependencies, tokens);
    replace_scriptlets(&mut subpackage.scriptlets, tokens);
    if let Some(test) = &mut subpackage.test {
        replace_test(test, tokens);
    }
}

fn replace_update(update: &mut Update, tokens: &Tokens) {
    if let Some(monitor) = &mut update.release_monitor {
        swap(&mut monitor.version_filter_contains, tokens);
        swap(&mut monitor.version_filter_prefix, tokens);
    }
    if let Some(github) = &mut update.github {
        for text in [
            &mut github.identifier,
            &mut github.tag_filter,
            &mut github.tag_filter_prefix,
            &mut github.tag_filter_contains,
        ] {
            swap(text, tokens);
        }
    }
    if let Some(git) = &mut update.git {
        swap(&mut git.tag_filter_prefix, tokens);
        swap(&mut git.tag_filter_contains, tokens);
    }
}

/// Ranged subpackages become one copy per key of their data, keys in byte order.
fn expand(document: &mut Document, mut own: Tokens, errors: &mut Vec<Diagnostic>) -> Vec<Subpackage> {
    let written = std::mem::take(&mut document.subpackages);
    let data: BTreeMap<&str, &TextMap> =
        document.data.iter().map(|entry| (&*entry.name, &entry.items)).collect();
    let mut expanded = Vec::new();
    for (index, mut subpackage) in written.into_iter().enumerate() {
        if subpackage.range.is_empty() {
            replace_subpackage(&mut subpackage, &own);
            expanded.push(subpackage);
            continue;
        }
        let Some(items) = data.get(&*subpackage.range) else {
            let message =
                format!("subpackage {index} uses the range `{}`, which `data` lacks", &*subpackage.range);
            let diagnostic = Diagnostic::new(&document.source, subpackage.range.at, message);
            errors.push(match nearest(&subpackage.range, data.keys().copied()) {
                Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
                None => diagnostic.hint("add an entry with that `name` to `data`"),
            });
            continue;
        };
        let weight = subpackage_weight(&subpackage);
        for (key, value) in *items {
            own.spend(weight);
            if expanded.len() >= limits::SUBPACKAGES_MAX {
                let message =
                    format!("the ranges expand to more than {} subpackages", limits::SUBPACKAGES_MAX);
                errors.push(Diagnostic::new(&document.source, subpackage.at, message));
                return expanded;
            }
            if own.budget.get().is_none() {
                return expanded;
            }
            let mut copy = subpackage.clone();
            copy.range = Text::default();
            own.map.insert("range.key".to_owned(), key.clone());
            own.map.insert("range.value".to_owned(), value.value.clone());
            replace_subpackage(&mut copy, &own);
            expanded.push(copy);
        }
        own.map.remove("range.key");
        own.map.remove("range.value");
    }
    expanded
}

/// What a copy of a subpackage costs, in bytes.
fn subpackage_weight(sub: &Subpackage) -> usize {
    let list = |texts: &[Text]| texts.iter().map(|text| 64 + text.value.len()).sum::<usize>();
    let map =
        |texts: &TextMap| texts.iter().map(|(key, text)| 96 + key.len() + text.value.len()).sum::<usize>();
    let environment = |environment: &Environment| {
        let contents = &environment.contents;
        list(&contents.packages)
            + list(&contents.repositories)
            + list(&contents.build_repositories)
            + list(&contents.keyring)
            + map(&environment.environment)
            + map(&environment.image.annotations)
            + map(&environment.image.entrypoint.services)
            + list(&environment.image.volumes)
            + 256
                * (environment.accounts.users.len()
                    + environment.accounts.groups.len()
                    + environment.paths.len())
    };
    let test = sub
        .test
        .as_ref()
        .map_or(0, |test| environment(&test.environment) + test.pipeline.iter().map(weight).sum::<usize>());
    let scripts = &sub.scriptlets;
    let singles =
        [&sub.name, &sub.description, &sub.url, &sub.condition].into_iter().chain(scripts.scripts());
    let dependencies = &sub.dependencies;
    1_024
        + singles.map(|text| text.value.len()).sum::<usize>()
        + list(&dependencies.runtime)
        + list(&dependencies.provides)
        + list(&dependencies.replaces)
        + list(&scripts.trigger_paths)
        + list(&sub.checks.disabled)
        + map(&sub.annotations)
        + sub.setcap.iter().map(|setcap| 256 + map(&setcap.add)).sum::<usize>()
        + sub.pipeline.iter().map(weight).sum::<usize>()
        + test
}

/// What a copy of a step costs, in bytes.
fn weight(step: &Step) -> usize {
    let texts =
        step.with.iter().chain(&step.environment).map(|(key, text)| 96 + key.len() + text.value.len());
    let needs = step.needs.iter().flatten().map(|need| 64 + need.value.len());
    let below = step.pipeline.iter().flatten().map(weight);
    512 + step.runs.value.len() + texts.chain(needs).chain(below).sum::<usize>()
}

/// The strict pass over dependencies and environment packages.
fn substitute_dependencies(
    document: &mut Document,
    strict: &Variables,
    source: &Arc<Source>,
    errors: &mut Vec<Diagnostic>,
) {
    let mut pass = |text: &mut Text| {
        if text.contains("${{") {
            text.value = substitute_or_report(text, strict, source, errors);
        }
    };
    let lists = std::iter::once(&mut document.package.dependencies)
        .chain(document.subpackages.iter_mut().map(|sub| &mut sub.dependencies));
    for dependencies in lists {
        dependencies.provides.iter_mut().for_each(&mut pass);
        dependencies.runtime.iter_mut().for_each(&mut pass);
        dependencies.replaces.iter_mut().for_each(&mut pass);
        pass(&mut dependencies.provider_priority);
        pass(&mut dependencies.replaces_priority);
    }
    let tests =
        document.test.iter_mut().chain(document.subpackages.iter_mut().filter_map(|sub| sub.test.as_mut()));
    let environments =
        std::iter::once(&mut document.environment).chain(tests.map(|test| &mut test.environment));
    for environment in environments {
        environment.contents.packages.iter_mut().for_each(&mut pass);
    }
}

/// Nested steps inherit directory and environment from the step around them.
fn inherit(step: &mut Step, directory: &Text, environment: &TextMap, budget: &Cell<Option<usize>>) {
    if step.working_directory.is_empty() {
        step.working_directory = directory.clone();
    }
    let bytes = environment.iter().map(|(name, value)| 96 + name.len() + value.value.len()).sum();
    budget.set(budget.get().and_then(|left| left.checked_sub(bytes)));
    if budget.get().is_none() {
        return;
    }
    for (name, value) in environment {
        step.environment.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let (directory, environment) = (step.working_directory.clone(), step.environment.clone());
    step.pipeline.iter_mut().flatten().for_each(|child| inherit(child, &directory, &environment, budget));
}
