//! Station 7: a prepared definition and an architecture become a [`Plan`].
//!
//! Pure: pipelines come from a [`PipelineSet`], nothing is read from disk. All independent mistakes of one run
//! are collected.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diagnostics::{Diagnostic, Diagnostics, Source, nearest};
use super::document::{Document, Input, Step, Text, TextMap};
use super::expression::evaluate;
use super::pipelines::PipelineSet;
use super::plan::{Plan, PlanPackage, PlanStep};
use super::prepare::{Prepared, substitute_or_report, variable_error};
use super::substitute::{Variables, substitute, substitute_quoted};
use super::{CompileOptions, Compiled, convert};
use crate::arch::Arch;
use crate::limits;

/// Compiles `prepared` for one architecture.
pub(super) fn compile(
    prepared: &Prepared,
    arch: Arch,
    pipelines: &PipelineSet,
    options: &CompileOptions,
) -> Result<Compiled, Diagnostics> {
    let document = &prepared.document;
    let targets = &document.package.target_architecture;
    let all = targets.is_empty() || targets.iter().any(|target| &**target == "all");
    if !all && !targets.iter().any(|target| target.parse::<Arch>().is_ok_and(|target| target == arch)) {
        let names: Vec<&str> = targets.iter().map(|target| &**target).collect();
        return Ok(Compiled::Skipped(format!("the definition is for {} only, not {arch}", names.join(", "))));
    }
    let mut compiler = Compiler { pipelines, errors: Vec::new(), steps: 0, bytes: 0 };
    let globals = compiler.globals(prepared, arch, options);
    let main = &document.package.name.value;
    let scope = context(&globals, main, None);
    let mut package = convert::main_package(document, options);
    package.pipeline = compiler.pipeline(&document.pipeline, &scope, &document.source);
    let subpackages = compiler.subpackages(document, &globals, &package);
    if !compiler.errors.is_empty() {
        compiler.errors.sort_by(|a, b| (&a.source.name, a.at).cmp(&(&b.source.name, b.at)));
        compiler.errors.dedup();
        return Err(Diagnostics(compiler.errors));
    }
    let mut environment = convert::environment(&document.environment);
    let pipelines =
        std::iter::once(&package.pipeline).chain(subpackages.iter().map(|(sub, _)| &sub.pipeline));
    for step in pipelines.flatten() {
        collect_needs(step, &mut environment.packages);
    }
    let texts = |list: &[Text]| list.iter().map(|text| text.value.clone()).collect();
    Ok(Compiled::Plan(Box::new(Plan {
        arch,
        package,
        subpackages: subpackages.into_iter().filter(|(_, exists)| *exists).map(|(sub, _)| sub).collect(),
        environment,
        capabilities_add: texts(&document.capabilities.add),
        capabilities_drop: texts(&document.capabilities.drop),
        timeout: document.package.timeout,
    })))
}

/// Needs in document order; a step that does not run needs nothing, nor do its children.
fn collect_needs(step: &PlanStep, packages: &mut Vec<String>) {
    if step.enabled {
        packages.extend(step.needs.iter().cloned());
        step.pipeline.iter().for_each(|child| collect_needs(child, packages));
    }
}

/// The variables of one package's pipelines.
fn context(globals: &Variables, name: &str, sub: Option<&str>) -> Variables {
    let mut scope = globals.clone();
    let folder = format!("/home/build/melange-out/{name}");
    scope.insert("targets.contextdir".to_owned(), folder.clone());
    scope.insert("context.name".to_owned(), name.to_owned());
    if let Some(sub) = sub {
        scope.insert("subpkg.name".to_owned(), sub.to_owned());
        scope.insert("targets.subpkgdir".to_owned(), folder);
    }
    scope
}

/// What a step inherits from the step around it.
struct Outer<'a> {
    scope: &'a Variables,
    directory: &'a str,
    environment: &'a BTreeMap<String, String>,
    /// Where text of this step stands.
    source: &'a Arc<Source>,
    /// The chain of `uses` that led here, outermost first.
    chain: &'a [String],
    /// Whether the pipeline around it may need the network.
    network: bool,
}

struct Compiler<'a> {
    pipelines: &'a PipelineSet,
    errors: Vec<Diagnostic>,
    steps: usize,
    /// Bytes of all texts made so far.
    bytes: usize,
}

impl Compiler<'_> {
    fn globals(&mut self, prepared: &Prepared, arch: Arch, options: &CompileOptions) -> Variables {
        let document = &prepared.document;
        let package = &document.package;
        let main = &package.name.value;
        let mut map: Variables = [
            ("package.name", main.clone()),
            ("package.version", package.version.value.clone()),
            ("package.epoch", package.epoch.to_string()),
            ("package.full-version", format!("{}-r{}", &*package.version, package.epoch)),
            ("package.srcdir", "/home/build".to_owned()),
            ("targets.outdir", "/home/build/melange-out".to_owned()),
            ("targets.destdir", format!("/home/build/melange-out/{main}")),
            ("host.triplet.gnu", arch.gnu_triplet(&options.libc_flavor)),
            ("host.triplet.rust", arch.rust_triplet(&options.libc_flavor)),
            ("cross.triplet.gnu.glibc", arch.gnu_triplet("gnu")),
            ("cross.triplet.gnu.musl", arch.gnu_triplet("musl")),
            ("cross.triplet.rust.glibc", arch.rust_triplet("gnu")),
            ("cross.triplet.rust.musl", arch.rust_triplet("musl")),
            ("build.arch", arch.apk_name().to_owned()),
            ("build.goarch", arch.oci_name().to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        for name in std::iter::once(main).chain(document.subpackages.iter().map(|sub| &sub.name.value)) {
            map.insert(format!("targets.package.{name}"), format!("/home/build/melange-out/{name}"));
        }
        for option in document.options.keys() {
            map.insert(
                format!("options.{option}.enabled"),
                options.build_options.contains(option).to_string(),
            );
        }
        // Values that refer to others are resolved once against everything known.
        let raw = document.vars.iter().map(|(name, text)| (format!("vars.{name}"), text.value.clone()));
        let known: Variables = raw.chain(map.clone()).collect();
        for (name, value) in &document.vars {
            let resolved = if value.contains("${{") {
                substitute_or_report(value, &known, &document.source, &mut self.errors)
            } else {
                value.value.clone()
            };
            if resolved.len() > limits::VARIABLE_BYTES_MAX {
                let message =
                    format!("the variable `{name}` has more than {} bytes", limits::VARIABLE_BYTES_MAX);
                self.errors.push(Diagnostic::new(&document.source, value.at, message));
                continue;
            }
            map.insert(format!("vars.{name}"), resolved);
        }
        map.extend(prepared.transformed.clone());
        map
    }

    fn subpackages(
        &mut self,
        document: &Document,
        globals: &Variables,
        main: &PlanPackage,
    ) -> Vec<(PlanPackage, bool)> {
        let mut result = Vec::new();
        for subpackage in &document.subpackages {
            let name = &subpackage.name.value;
            let scope = context(globals, name, Some(name));
            let exists = self.condition(&subpackage.condition, &scope, &document.source, &[]);
            let mut package = convert::subpackage(subpackage, main);
            package.pipeline = self.pipeline(&subpackage.pipeline, &scope, &document.source);
            result.push((package, exists));
        }
        result
    }

    fn pipeline(&mut self, steps: &[Step], scope: &Variables, source: &Arc<Source>) -> Vec<PlanStep> {
        let environment = BTreeMap::new();
        let outer =
            Outer { scope, directory: "", environment: &environment, source, chain: &[], network: true };
        steps.iter().map(|step| self.step(step, &outer)).collect()
    }

    fn report(&mut self, mut diagnostic: Diagnostic, chain: &[String]) {
        if self.errors.len() >= limits::DIAGNOSTICS_MAX {
            return;
        }
        diagnostic.notes.extend(chain.iter().rev().cloned());
        self.errors.push(diagnostic);
    }

    fn text(&mut self, text: &Text, scope: &Variables, source: &Arc<Source>, chain: &[String]) -> String {
        if self.errors.len() >= limits::DIAGNOSTICS_MAX || self.bytes > limits::EXPANDED_BYTES_MAX {
            return String::new();
        }
        let value = match substitute(text, scope) {
            Ok(value) => value,
            Err(mistakes) => {
                for mistake in mistakes.iter().take(limits::DIAGNOSTICS_MAX) {
                    self.report(variable_error(text, mistake, scope, source), chain);
                }
                text.value.clone()
            }
        };
        self.bytes += value.len();
        if self.bytes > limits::EXPANDED_BYTES_MAX {
            let message = format!("the definition expands to more than {} bytes", limits::EXPANDED_BYTES_MAX);
            self.report(Diagnostic::new(source, text.at, message), chain);
        }
        value
    }

    fn condition(&mut self, text: &Text, scope: &Variables, source: &Arc<Source>, chain: &[String]) -> bool {
        if text.is_empty() {
            return true;
        }
        let quoted = match substitute_quoted(text, scope) {
            Ok(quoted) => quoted,
            Err(mistakes) => {
                for mistake in mistakes {
                    self.report(variable_error(text, &mistake, scope, source), chain);
                }
                return false;
            }
        };
        evaluate(&quoted).unwrap_or_else(|error| {
            let message = format!("the condition `{}` cannot be read: {}", &**text, error.message);
            let hint = "compare texts: `${{build.arch}} == \"x86_64\"`; quote variables that are replaced early, \
                        such as `\"${{range.key}}\" == \"3.12\"`";
            self.report(Diagnostic::new(source, text.at, message).hint(hint), chain);
            false
        })
    }

    fn step(&mut self, step: &Step, outer: &Outer<'_>) -> PlanStep {
        self.steps += 1;
        if self.steps > limits::STEPS_MAX || outer.chain.len() > limits::PIPELINE_DEPTH_MAX {
            let (what, most) = if outer.chain.len() > limits::PIPELINE_DEPTH_MAX {
                ("pipelines use each other more than", limits::PIPELINE_DEPTH_MAX)
            } else {
                ("the definition has more steps than", limits::STEPS_MAX)
            };
            if self.steps <= limits::STEPS_MAX + 1 {
                let diagnostic = Diagnostic::new(outer.source, step.at, format!("{what} {most}"));
                self.report(
                    diagnostic.hint("look for a pipeline that uses itself"),
                    &outer.chain[..1.min(outer.chain.len())],
                );
            }
            self.steps = self.steps.max(limits::STEPS_MAX);
            return PlanStep::default();
        }
        let Some(loaded) = self.load(step, outer) else { return PlanStep::default() };
        let scope = self.inputs(step, &loaded, outer);
        let (source, chain) = (&loaded.source, &loaded.chain[..]);
        let body = &loaded.step;
        let mut environment = outer.environment.clone();
        environment.extend(body.environment.iter().map(|(name, value)| (name.clone(), value.value.clone())));
        let directory = self.text(&body.working_directory, &scope, source, chain);
        let working_directory = if directory.is_empty() { outer.directory.to_owned() } else { directory };
        let inner = Outer {
            scope: &scope,
            directory: &working_directory,
            environment: &environment,
            source,
            chain,
            network: loaded.network,
        };
        let children = body.pipeline.iter().flatten().map(|child| self.step(child, &inner)).collect();
        PlanStep {
            at: step.at,
            name: body.name.value.clone(),
            uses: step.uses.value.clone(),
            with: given(&scope, body),
            runs: self.text(&body.runs, &scope, source, chain),
            enabled: self.condition(&body.condition, &scope, source, chain),
            pipeline: children,
            needs: body.needs.iter().flatten().map(|need| self.text(need, &scope, source, chain)).collect(),
            label: body.label.value.clone(),
            required_steps: body.required_steps,
            working_directory,
            environment,
            network: loaded.network,
        }
    }

    /// Lays the definition that `uses` names over the step.
    fn load(&mut self, step: &Step, outer: &Outer<'_>) -> Option<Loaded> {
        let own = Loaded {
            step: step.clone(),
            source: Arc::clone(outer.source),
            chain: outer.chain.to_vec(),
            network: outer.network,
        };
        if step.uses.is_empty() || step.pipeline.as_ref().is_some_and(|steps| !steps.is_empty()) {
            return Some(own);
        }
        let uses = &step.uses;
        if uses.starts_with('/') || uses.split('/').any(|part| part == "..") {
            let message = format!("the pipeline name `{}` must not be absolute or hold `..`", &**uses);
            let diagnostic = Diagnostic::new(outer.source, uses.at, message);
            self.report(diagnostic.hint("name it relative to its folder, such as `test/docs`"), outer.chain);
            return None;
        }
        let Some(found) = self.pipelines.find(uses) else {
            let diagnostic =
                Diagnostic::new(outer.source, uses.at, format!("there is no pipeline `{}`", &**uses));
            let hint = match nearest(uses, self.pipelines.names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "hand it in with `--pipeline-dir`, or use a built-in one".to_owned(),
            };
            self.report(diagnostic.hint(hint), outer.chain);
            return None;
        };
        let definition = match Step::parse_definition(&found.source) {
            Ok(definition) => definition,
            Err(Diagnostics(mistakes)) => {
                let note = format!("used at {}:{}:{}", outer.source.name, uses.at.line, uses.at.column);
                for mut mistake in mistakes {
                    mistake.notes.push(note.clone());
                    self.report(mistake, outer.chain);
                }
                return None;
            }
        };
        let mut chain = outer.chain.to_vec();
        chain.push(format!(
            "used as `{}` at {}:{}:{}",
            &**uses, outer.source.name, uses.at.line, uses.at.column
        ));
        self.refuse_undeclared(step, &definition, outer);
        Some(Loaded { step: lay_over(step, definition), source: found.source, chain, network: found.network })
    }

    fn refuse_undeclared(&mut self, step: &Step, definition: &Step, outer: &Outer<'_>) {
        for (name, value) in &step.with {
            if !definition.inputs.contains_key(name) {
                let message = format!("the pipeline `{}` has no input `{name}`", &*step.uses);
                let at = if value.at.line > 0 { value.at } else { step.uses.at };
                let diagnostic = Diagnostic::new(outer.source, at, message);
                let known = definition.inputs.keys().map(String::as_str);
                let hint = match nearest(name, known.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("its inputs: {}", known.collect::<Vec<_>>().join(", ")),
                };
                self.report(diagnostic.hint(hint), outer.chain);
            }
        }
    }

    /// The scope of a step: everything inherited, with the step's own inputs over it.
    fn inputs(&mut self, caller: &Step, loaded: &Loaded, outer: &Outer<'_>) -> Variables {
        let step = &loaded.step;
        let mut scope = outer.scope.clone();
        let mut own: Vec<(String, Text, bool)> = Vec::new();
        for (name, input) in &step.inputs {
            let given = step.with.get(name).filter(|value| !value.is_empty());
            let value = given.cloned().unwrap_or_else(|| input.default.clone());
            if value.is_empty() && input.required {
                let message = format!("the pipeline `{}` needs the input `{name}`", &*caller.uses);
                let at = if caller.uses.at.line > 0 { caller.uses.at } else { caller.at };
                let hint = required_hint(name, input);
                self.report(Diagnostic::new(outer.source, at, message).hint(hint), outer.chain);
            }
            if let Some(message) = checksum_mistake(name, &value) {
                let hint = "write the hex digits of the checksum";
                self.report(Diagnostic::new(outer.source, value.at, message).hint(hint), outer.chain);
            }
            own.push((format!("inputs.{name}"), value, given.is_some()));
        }
        // First against the outer scope, which is how `foo: ${{inputs.foo}}` hands the outer value on.
        for (name, value, _) in &mut own {
            if let Ok(resolved) = substitute(value, outer.scope) {
                value.value = resolved;
            }
            scope.insert(name.clone(), value.value.clone());
        }
        // Then among siblings; two rounds are enough for every real definition.
        for round in 0..2 {
            for (name, value, is_given) in &own {
                let current = scope.get(name).cloned().unwrap_or_default();
                if !current.contains("${{") {
                    continue;
                }
                let (source, chain) =
                    if *is_given { (outer.source, outer.chain) } else { (&loaded.source, &loaded.chain[..]) };
                let text = Text { value: current, at: value.at };
                let resolved = if round == 0 {
                    substitute(&text, &scope).unwrap_or(text.value)
                } else {
                    self.text(&text, &scope, source, chain)
                };
                scope.insert(name.clone(), resolved);
            }
        }
        scope
    }
}

/// A step with its definition laid over it, and where that stands.
struct Loaded {
    step: Step,
    source: Arc<Source>,
    chain: Vec<String>,
    network: bool,
}

fn lay_over(step: &Step, definition: Step) -> Step {
    let mut with: TextMap = step.with.clone();
    with.extend(definition.with);
    let mut environment = step.environment.clone();
    environment.extend(definition.environment);
    let prefer = |new: Text, old: &Text| if new.is_empty() { old.clone() } else { new };
    Step {
        at: step.at,
        condition: prefer(definition.condition, &step.condition),
        name: if step.name.is_empty() { definition.name } else { step.name.clone() },
        uses: step.uses.clone(),
        with,
        runs: prefer(definition.runs, &step.runs),
        pipeline: definition.pipeline,
        inputs: definition.inputs,
        needs: definition.needs.or_else(|| step.needs.clone()),
        label: prefer(definition.label, &step.label),
        required_steps: definition.required_steps.or(step.required_steps),
        working_directory: prefer(definition.working_directory, &step.working_directory),
        environment,
    }
}

/// The entries of `with` whose final value differs from the declared default.
fn given(scope: &Variables, step: &Step) -> BTreeMap<String, String> {
    let mut with = BTreeMap::new();
    for (name, input) in &step.inputs {
        if let Some(value) = scope.get(&format!("inputs.{name}")).filter(|value| **value != *input.default) {
            with.insert(name.clone(), value.clone());
        }
    }
    with
}

fn required_hint(name: &str, input: &Input) -> String {
    if input.description.is_empty() {
        format!("add `{name}:` to its `with`")
    } else {
        format!("add `{name}:` to its `with` ({})", &*input.description)
    }
}

fn checksum_mistake(name: &str, value: &str) -> Option<String> {
    let length = match name {
        "expected-sha256" => 64,
        "expected-sha512" => 128,
        "expected-commit" => 40,
        _ => return None,
    };
    let fits = value.len() == length && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    (!value.is_empty() && !fits).then(|| {
        format!("`{name}` must have {length} hex digits, this has {} characters", value.chars().count())
    })
}
