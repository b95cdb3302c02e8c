//! Station 7: a prepared definition and an architecture become a [`Plan`].
//!
//! Pure: pipelines come from a [`PipelineSet`], nothing is read from disk. All independent mistakes of one run
//! are collected. Steps borrow the definitions that they use; only what ends up in the plan is copied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::document::{Document, Input, Step, Test, Text, TextMap};
use super::expression::evaluate;
use super::pipelines::{Definition, PipelineSet};
use super::plan::{Plan, PlanStep, PlanTest};
use super::prepare::Prepared;
use super::strict::{substitute_or_report, variable_error};
use super::substitute::{Lookup, Scope, Variables, substitute, substitute_quoted};
use super::validate::{checksum_mistake, dependency_mistake};
use super::{CompileOptions, Compiled, convert, scripts};
use crate::arch::Arch;
use crate::limits;
use crate::text::diagnostics::{Diagnostic, Diagnostics, Note, Source, nearest};

/// How many undeclared inputs of a step are compared with those that are missing.
const MISSPELT_MAX: usize = 8;

/// Why there is nothing to compile for `arch`, if so.
pub(super) fn skipped(document: &Document, arch: Arch) -> Option<Compiled> {
    let targets = &document.package.target_architecture;
    let all = targets.is_empty() || matches!(&targets[..], [only] if &**only == "all");
    if all || targets.iter().any(|target| &**target == arch.apk_name()) {
        return None;
    }
    let names: Vec<&str> = targets.iter().map(|target| &**target).collect();
    let reason = format!("the definition is for {} only, not {arch}", names.join(", "));
    Some(Compiled::Skipped { package: document.package.name.to_string(), reason })
}

/// Compiles `prepared` for one architecture; mistakes go to `errors`, and the plan is of use without any.
pub(super) fn compile(
    prepared: Prepared,
    arch: Arch,
    pipelines: &PipelineSet,
    options: &CompileOptions,
    errors: &mut Vec<Diagnostic>,
) -> Plan {
    let document = &prepared.document;
    let mut compiler = Compiler::new(pipelines, options);
    let globals = Scope::new(compiler.globals(&prepared, arch, options));
    let main = &document.package.name.value;
    let scope = context(&globals, main, None);
    let mut package = convert::main_package(document, options);
    package.pipeline = compiler.pipeline(&document.pipeline, &scope, &document.source);
    let mut environment = convert::environment(&document.environment);
    package.pipeline.iter().for_each(|step| collect_needs(step, &mut environment.packages));
    let mut tests = Vec::new();
    if let Some(test) = &document.test {
        tests.extend(compiler.test(test, document, main, &scope));
    }
    let mut subpackages = Vec::new();
    for subpackage in &document.subpackages {
        let name = &subpackage.name.value;
        let scope = context(&globals, name, Some(name));
        let origin = Chain { outer: None, uses: None, source: &document.source };
        let (exists, _) = compiler.condition(&subpackage.condition, &scope, &origin, true);
        let mut package = convert::subpackage(subpackage, &package);
        package.pipeline = compiler.pipeline(&subpackage.pipeline, &scope, &document.source);
        package.pipeline.iter().for_each(|step| collect_needs(step, &mut environment.packages));
        let test = subpackage.test.as_ref().and_then(|test| compiler.test(test, document, name, &scope));
        if exists {
            subpackages.push(package);
            tests.extend(test);
        }
    }
    errors.append(&mut compiler.errors);
    if !options.any_script {
        scripts::scriptlets(document, errors);
    }
    let copies =
        environment.variables.iter().map(|(name, value)| 64 + name.len() + value.len()).sum::<usize>();
    if copies.saturating_mul(compiler.steps) > limits::EXPANDED_BYTES_MAX {
        let message = format!(
            "the variables of the environment, given to each of {} steps, have more than {} bytes",
            compiler.steps,
            limits::EXPANDED_BYTES_MAX
        );
        errors.push(Diagnostic::new(&document.source, document.package.at, message));
    }
    let texts = |list: &[Text]| list.iter().map(|text| text.value.clone()).collect();
    Plan {
        arch,
        package,
        subpackages,
        environment,
        tests,
        capabilities_add: texts(&document.capabilities.add),
        capabilities_drop: texts(&document.capabilities.drop),
        timeout: document.package.timeout,
        inline_pipelines: compiler.inline,
        document: Arc::new(prepared.document),
    }
}

/// Needs in document order; a step that does not run needs nothing, nor do its children.
fn collect_needs(step: &PlanStep, packages: &mut Vec<String>) {
    if step.enabled {
        packages.extend(step.needs.iter().cloned());
        step.pipeline.iter().for_each(|child| collect_needs(child, packages));
    }
}

/// The variables of one package's pipelines.
fn context<'a>(globals: &'a Scope<'a>, name: &str, sub: Option<&str>) -> Scope<'a> {
    let folder = format!("/home/build/melange-out/{name}");
    let mut own = Variables::from([
        ("targets.contextdir".to_owned(), folder.clone()),
        ("context.name".to_owned(), name.to_owned()),
    ]);
    if let Some(sub) = sub {
        own.insert("subpkg.name".to_owned(), sub.to_owned());
        own.insert("targets.subpkgdir".to_owned(), folder);
    }
    globals.inner(own)
}

/// Where a text stands, and the chain of `uses` that led there.
#[derive(Clone, Copy)]
struct Chain<'a> {
    /// The place that used this pipeline; `None` for the definition of the package itself.
    outer: Option<&'a Chain<'a>>,
    uses: Option<&'a Text>,
    source: &'a Arc<Source>,
}

impl Chain<'_> {
    fn depth(&self) -> usize {
        std::iter::successors(self.outer, |chain| chain.outer).count()
    }

    /// How the reader got here, innermost first.
    fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        let mut chain = self;
        while let (Some(outer), Some(uses)) = (chain.outer, chain.uses) {
            let message = format!("used as `{}`", &**uses);
            notes.push(Note { message, source: Arc::clone(outer.source), at: uses.at });
            chain = outer;
        }
        notes
    }
}

/// What a step inherits from the step around it.
struct Outer<'a> {
    /// Whether the steps around it run.
    enabled: bool,
    scope: &'a Scope<'a>,
    directory: &'a str,
    environment: &'a BTreeMap<String, String>,
    chain: &'a Chain<'a>,
    /// Whether the pipeline around it may need the network.
    network: bool,
}

/// A step with the definition it uses laid over it: what the definition sets counts.
#[derive(Clone, Copy)]
struct Body<'a> {
    step: &'a Step,
    /// The definition and where it stands.
    definition: Option<(&'a Step, &'a Chain<'a>)>,
    own: &'a Chain<'a>,
}

impl<'a> Body<'a> {
    /// A text of the definition, or else of the step, with the place it comes from.
    fn text(&self, field: impl Fn(&'a Step) -> &'a Text) -> (&'a Text, &'a Chain<'a>) {
        match self.definition.map(|(step, chain)| (field(step), chain)) {
            Some((text, chain)) if !text.is_empty() => (text, chain),
            _ => (field(self.step), self.own),
        }
    }

    /// A part that the definition replaces as a whole when it has it.
    fn part<T: ?Sized>(&self, field: impl Fn(&'a Step) -> Option<&'a T>) -> Option<(&'a T, &'a Chain<'a>)> {
        let defined = self.definition.and_then(|(step, chain)| field(step).map(|part| (part, chain)));
        defined.or_else(|| field(self.step).map(|part| (part, self.own)))
    }

    fn name(&self) -> &'a str {
        match self.definition {
            Some((definition, _)) if self.step.name.is_empty() => &definition.name,
            _ => &self.step.name,
        }
    }

    fn environment(&self) -> impl Iterator<Item = (&'a String, &'a Text)> {
        self.step
            .environment
            .iter()
            .chain(self.definition.into_iter().flat_map(|(step, _)| &step.environment))
    }

    /// The inputs that are declared, and the value given for one: the definition's own `with` comes first.
    fn inputs(&self) -> &'a BTreeMap<String, Input> {
        self.definition.map_or(&self.step.inputs, |(step, _)| &step.inputs)
    }

    fn given(&self, input: &str) -> Option<(&'a Text, &'a Chain<'a>)> {
        let find = |with: &'a TextMap| with.get(input).filter(|value| !value.is_empty());
        let defined = self.definition.and_then(|(step, chain)| find(&step.with).map(|text| (text, chain)));
        defined.or_else(|| find(&self.step.with).map(|text| (text, self.own)))
    }
}

struct Compiler<'p> {
    pipelines: &'p PipelineSet,
    options: &'p CompileOptions,
    errors: Vec<Diagnostic>,
    /// Scripts and pipelines whose mistakes are told.
    told: scripts::Told,
    /// Pipelines that came with the definition and were found by a `uses`.
    inline: BTreeSet<String>,
    steps: usize,
    /// Bytes of all texts made so far.
    bytes: usize,
}

impl<'p> Compiler<'p> {
    fn new(pipelines: &'p PipelineSet, options: &'p CompileOptions) -> Self {
        let (errors, told, inline) = (Vec::new(), scripts::Told::default(), BTreeSet::new());
        Self { pipelines, options, errors, told, inline, steps: 0, bytes: 0 }
    }

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
        for option in document.options.keys().chain(&options.build_options) {
            map.insert(
                format!("options.{option}.enabled"),
                options.build_options.contains(option).to_string(),
            );
        }
        self.variables(document, &mut map);
        map.extend(prepared.transformed.iter().map(|(name, value)| (name.clone(), value.clone())));
        map
    }

    /// Adds `vars.*`; values that refer to others are resolved once against everything known.
    fn variables(&mut self, document: &Document, map: &mut Variables) {
        let mut known: Option<Variables> = None;
        let mut added = Vec::with_capacity(document.vars.len());
        for (name, value) in &document.vars {
            let resolved = if value.contains("${{") {
                let known = known.get_or_insert_with(|| {
                    let raw = document.vars.iter();
                    raw.map(|(name, text)| (format!("vars.{name}"), text.value.clone()))
                        .chain(map.clone())
                        .collect()
                });
                let before = self.errors.len();
                let text = substitute_or_report(value, known, &document.source, &mut self.errors);
                // Its readers are not at fault.
                if self.errors.len() > before { String::new() } else { text }
            } else {
                value.value.clone()
            };
            if resolved.len() > limits::VARIABLE_BYTES_MAX {
                let message =
                    format!("the variable `{name}` has more than {} bytes", limits::VARIABLE_BYTES_MAX);
                self.errors.push(Diagnostic::new(&document.source, value.at, message));
                continue;
            }
            added.push((format!("vars.{name}"), resolved));
        }
        map.extend(added);
    }

    /// The test of one package; `None` when it has no steps.
    fn test(
        &mut self,
        test: &Test,
        document: &Document,
        subject: &str,
        scope: &Scope<'_>,
    ) -> Option<PlanTest> {
        let pipeline = self.pipeline(&test.pipeline, scope, &document.source);
        if pipeline.is_empty() {
            return None;
        }
        let mut environment = convert::environment(&test.environment);
        if environment.repositories.is_empty() {
            let build = convert::repositories(&document.environment);
            environment.repositories = build.0;
            environment.keyring.extend(build.1);
        }
        for (name, value) in &document.environment.environment {
            environment.variables.entry(name.clone()).or_insert_with(|| value.value.clone());
        }
        environment.packages.push(subject.to_owned());
        pipeline.iter().for_each(|step| collect_needs(step, &mut environment.packages));
        environment.packages.sort_unstable();
        environment.packages.dedup();
        Some(PlanTest { subject: subject.to_owned(), environment, pipeline })
    }

    fn pipeline(&mut self, steps: &[Step], scope: &Scope<'_>, source: &Arc<Source>) -> Vec<PlanStep> {
        let environment = BTreeMap::new();
        let chain = Chain { outer: None, uses: None, source };
        let outer = Outer {
            enabled: true,
            scope,
            directory: "",
            environment: &environment,
            chain: &chain,
            network: true,
        };
        steps.iter().map(|step| self.step(step, &outer)).collect()
    }

    /// Whether a further mistake would be told; without, or when the caller went away, nothing is worth looking at.
    fn has_room(&self) -> bool {
        self.errors.len() < limits::DIAGNOSTICS_MAX && !self.options.is_cancelled()
    }

    fn report(&mut self, mut diagnostic: Diagnostic, chain: &Chain<'_>) {
        if self.errors.len() < limits::DIAGNOSTICS_MAX {
            diagnostic.notes.extend(chain.notes());
            self.errors.push(diagnostic);
        }
    }

    fn text(&mut self, (text, chain): (&Text, &Chain<'_>), scope: &Scope<'_>) -> String {
        if text.is_empty()
            || self.errors.len() >= limits::DIAGNOSTICS_MAX
            || self.bytes > limits::EXPANDED_BYTES_MAX
        {
            return String::new();
        }
        let value = match substitute(text, scope) {
            Ok(value) => value,
            Err(mistakes) => {
                for mistake in mistakes.iter().take(limits::DIAGNOSTICS_MAX) {
                    self.report(variable_error(text, mistake, scope, chain.source), chain);
                }
                text.value.clone()
            }
        };
        self.bytes += value.len();
        if self.bytes > limits::EXPANDED_BYTES_MAX {
            let message = format!("the definition expands to more than {} bytes", limits::EXPANDED_BYTES_MAX);
            self.report(Diagnostic::new(chain.source, text.at, message), chain);
        }
        value
    }

    /// The script of a step; what is not `reached` need not be readable.
    fn script(&mut self, (text, chain): (&Text, &Chain<'_>), scope: &Scope<'_>, reached: bool) -> String {
        let before = self.errors.len();
        let script = self.text((text, chain), scope);
        if reached && !self.options.any_script && self.has_room() && self.errors.len() == before {
            let mistake = scripts::mistake(&script, text, chain.source, scope);
            mistake
                .and_then(|mistake| self.told.once(mistake))
                .into_iter()
                .for_each(|it| self.report(it, chain));
        }
        script
    }

    /// Whether a condition holds, and its text with the variables replaced.
    ///
    /// A condition that is not `reached`, because a step around it does not run, need not be readable.
    fn condition(
        &mut self,
        text: &Text,
        scope: &Scope<'_>,
        chain: &Chain<'_>,
        reached: bool,
    ) -> (bool, String) {
        if text.is_empty() {
            return (true, String::new());
        }
        if !self.has_room() {
            return (false, String::new());
        }
        let quoted = match substitute_quoted(text, scope) {
            Ok(quoted) => quoted,
            Err(mistakes) => {
                for mistake in mistakes.iter().take(limits::DIAGNOSTICS_MAX) {
                    self.report(variable_error(text, mistake, scope, chain.source), chain);
                }
                return (false, String::new());
            }
        };
        let holds = evaluate(&quoted).unwrap_or_else(|error| {
            if !reached {
                return false;
            }
            let message = format!("the condition `{}` cannot be read: {}", &**text, error.message);
            let hint = "compare texts: `${{build.arch}} == \"x86_64\"`; quote variables that are replaced early, \
                        such as `\"${{range.key}}\" == \"3.12\"`";
            self.report(Diagnostic::new(chain.source, text.at, message).hint(hint).whole(), chain);
            false
        });
        (holds, quoted)
    }

    /// Whether the bounds on steps and nesting hold; a broken one is reported once.
    fn within_bounds(&mut self, step: &Step, chain: &Chain<'_>) -> bool {
        if !self.has_room() {
            return false;
        }
        self.steps += 1;
        let too_deep = chain.depth() > limits::PIPELINE_DEPTH_MAX;
        if self.steps <= limits::STEPS_MAX && !too_deep {
            return true;
        }
        if self.steps <= limits::STEPS_MAX + 1 {
            let message = if too_deep {
                format!("pipelines use each other more than {} deep", limits::PIPELINE_DEPTH_MAX)
            } else {
                format!("the definition has more than {} steps", limits::STEPS_MAX)
            };
            let mut diagnostic =
                Diagnostic::new(chain.source, step.at, message).hint("look for a pipeline that uses itself");
            // The place where the descent began says most; the rest of the chain repeats itself.
            diagnostic.notes.extend(chain.notes().pop());
            self.errors.push(diagnostic);
        }
        self.steps = self.steps.max(limits::STEPS_MAX + 1);
        false
    }

    fn step(&mut self, step: &Step, outer: &Outer<'_>) -> PlanStep {
        if !self.within_bounds(step, outer.chain) {
            return PlanStep::default();
        }
        let uses = !step.uses.is_empty() && step.pipeline.as_ref().is_none_or(Vec::is_empty);
        let definition = if uses { self.find(step, outer.chain) } else { None };
        let found = match definition.map(|definition| (definition, definition.step())) {
            None if uses => return PlanStep::default(),
            None => None,
            Some((definition, Ok(body))) => Some((definition, body)),
            Some((_, Err(Diagnostics(mistakes)))) => {
                let inner =
                    Chain { outer: Some(outer.chain), uses: Some(&step.uses), source: outer.chain.source };
                mistakes.iter().for_each(|mistake| self.report(mistake.clone(), &inner));
                return PlanStep::default();
            }
        };
        let inner = found.map(|(definition, _)| Chain {
            outer: Some(outer.chain),
            uses: Some(&step.uses),
            source: definition.source(),
        });
        let body =
            Body { step, definition: found.map(|(_, step)| step).zip(inner.as_ref()), own: outer.chain };
        if let Some((_, definition)) = found {
            self.refuse_undeclared(step, definition, outer.chain);
            let idle = inner.as_ref().filter(|_| !self.options.any_script && outer.enabled);
            let idle = idle.and_then(|own| Some((scripts::idle(&step.uses, definition, own.source)?, own)));
            if let Some((mistake, own)) = idle
                && let Some(mistake) = self.told.once(mistake)
            {
                self.report(mistake, own);
            }
        }
        let network = found.map_or(outer.network, |(definition, _)| definition.network());
        self.compile_body(&body, outer, network)
    }

    fn compile_body(&mut self, body: &Body<'_>, outer: &Outer<'_>, network: bool) -> PlanStep {
        let scope = self.inputs(body, outer);
        let mut environment = outer.environment.clone();
        environment.extend(body.environment().map(|(name, value)| (name.clone(), value.value.clone())));
        self.bytes += environment.iter().map(|(name, value)| 64 + name.len() + value.len()).sum::<usize>();
        let directory = self.text(body.text(|step| &step.working_directory), &scope);
        let working_directory = if directory.is_empty() { outer.directory.to_owned() } else { directory };
        let steps = body.part(|step| step.pipeline.as_deref());
        let (written, origin) = body.text(|step| &step.condition);
        let (enabled, condition) = self.condition(written, &scope, origin, outer.enabled);
        let inner = Outer {
            enabled: outer.enabled && enabled,
            scope: if scope.is_transparent() { outer.scope } else { &scope },
            directory: &working_directory,
            environment: &environment,
            chain: steps.map_or(body.own, |(_, chain)| chain),
            network,
        };
        let children = steps.iter().flat_map(|(steps, _)| *steps);
        let pipeline = children.map(|child| self.step(child, &inner)).collect();
        let needs = body.part(|step| step.needs.as_deref());
        PlanStep {
            at: body.step.at,
            condition,
            name: body.name().to_owned(),
            uses: body.step.uses.value.clone(),
            with: match body.definition {
                Some((definition, _)) => differing(&scope, &definition.inputs),
                // A compiled step is not laid over its definition again.
                None => {
                    body.step.with.iter().map(|(name, text)| (name.clone(), text.value.clone())).collect()
                }
            },
            runs: self.script(body.text(|step| &step.runs), &scope, outer.enabled && enabled),
            enabled,
            pipeline,
            needs: needs
                .iter()
                .flat_map(|(needs, chain)| needs.iter().map(|need| (need, *chain)))
                .map(|need| self.need(need, &scope))
                .collect(),
            label: body.text(|step| &step.label).0.value.clone(),
            required_steps: body.part(|step| step.required_steps.as_ref()).map(|(number, _)| *number),
            working_directory,
            environment,
            network,
        }
    }

    /// A package that a step needs.
    fn need(&mut self, (written, chain): (&Text, &Chain<'_>), scope: &Scope<'_>) -> String {
        let need = self.text((written, chain), scope);
        if !need.is_empty()
            && let Some((message, hint)) = dependency_mistake(&need)
        {
            self.report(Diagnostic::new(chain.source, written.at, message).hint(hint).whole(), chain);
        }
        need
    }

    /// The definition that `uses` names.
    fn find(&mut self, step: &Step, chain: &Chain<'_>) -> Option<&'p Definition> {
        let uses = &step.uses;
        if uses.starts_with('/') || uses.split('/').any(|part| part == "..") {
            let message = format!("the pipeline name `{}` must not be absolute or hold `..`", &**uses);
            let diagnostic = Diagnostic::new(chain.source, uses.at, message);
            self.report(diagnostic.hint("name it relative to its folder, such as `test/docs`"), chain);
            return None;
        }
        let pipelines = self.pipelines;
        let cleaned: Vec<&str> = uses.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let name = cleaned.join("/");
        let found = pipelines.find(&name);
        if pipelines.is_inline(&name) {
            self.inline.insert(name);
        }
        if found.is_none() {
            let diagnostic =
                Diagnostic::new(chain.source, uses.at, format!("there is no pipeline `{}`", &**uses));
            let hint = match nearest(uses, pipelines.names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "hand it in with `--pipeline-dir`, or use a built-in one".to_owned(),
            };
            self.report(diagnostic.hint(hint), chain);
        }
        found
    }

    fn refuse_undeclared(&mut self, step: &Step, definition: &Step, chain: &Chain<'_>) {
        for (name, value) in &step.with {
            if !self.has_room() {
                return;
            }
            if !definition.inputs.contains_key(name) {
                let message = format!("the pipeline `{}` has no input `{name}`", &*step.uses);
                let at = chain.source.key_of(value.at, name).unwrap_or(step.uses.at);
                let diagnostic = Diagnostic::new(chain.source, at, message);
                let known = definition.inputs.keys().map(String::as_str);
                let hint = match nearest(name, known.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if definition.inputs.is_empty() => "it takes no inputs".to_owned(),
                    None => format!("its inputs: {}", known.collect::<Vec<_>>().join(", ")),
                };
                self.report(diagnostic.hint(hint), chain);
            }
        }
    }

    /// The scope of a step: everything inherited, with the step's own inputs over it.
    fn inputs<'a>(&mut self, body: &Body<'_>, outer: &Outer<'a>) -> Scope<'a> {
        let mut scope = outer.scope.inner(Variables::new());
        let mut own = Vec::with_capacity(body.inputs().len());
        let defaults = body.definition.map_or(body.own, |(_, chain)| chain);
        for (name, input) in body.inputs() {
            let (value, chain) = body.given(name).unwrap_or((&input.default, defaults));
            if value.is_empty() && input.required && !is_misspelt(name, body) {
                let uses = &body.step.uses;
                let message = format!("the pipeline `{}` needs the input `{name}`", &**uses);
                let at = if uses.at.line > 0 { uses.at } else { body.step.at };
                let diagnostic = Diagnostic::new(body.own.source, at, message);
                self.report(diagnostic.hint(required_hint(name, input)), body.own);
            }
            if let Some((message, hint)) = checksum_mistake(name, value) {
                self.report(Diagnostic::new(chain.source, value.at, message).hint(hint).whole(), chain);
                scope.set(format!("inputs.{name}"), String::new());
                continue;
            }
            // First against the outer scope, which is how `foo: ${{inputs.foo}}` hands the outer value on.
            let first = if value.contains("${{") { substitute(value, outer.scope).ok() } else { None };
            let first = first.unwrap_or_else(|| value.value.clone());
            let open = first.contains("${{");
            let name = format!("inputs.{name}");
            scope.set(name.clone(), first);
            if open {
                own.push((name, value, chain));
            }
        }
        // Then among siblings, until nothing changes: a chain of them takes as many rounds as it is long.
        let rounds = own.len().min(limits::PIPELINE_DEPTH_MAX);
        for _ in 0..rounds {
            let mut changed = false;
            for (name, ..) in &own {
                let current = scope.value(name).unwrap_or_default();
                if current.contains("${{")
                    && let Ok(resolved) = substitute(current, &scope)
                    && resolved != current
                    && resolved.len() <= limits::VARIABLE_BYTES_MAX
                {
                    changed = true;
                    scope.set(name.clone(), resolved);
                }
            }
            if !changed {
                break;
            }
        }
        for (name, value, chain) in &own {
            let current = scope.value(name).unwrap_or_default().to_owned();
            if !current.contains("${{") {
                continue;
            }
            let before = self.errors.len();
            let text = Text { value: current, at: value.at };
            let resolved = self.text((&text, chain), &scope);
            if self.errors.len() == before && resolved.contains("${{inputs.") {
                let message = format!("the value of `{name}` leads back to itself");
                self.report(Diagnostic::new(chain.source, value.at, message).whole(), chain);
            }
            scope.set(name.clone(), resolved);
        }
        scope
    }
}

/// The inputs whose final value differs from the declared default.
fn differing(scope: &Scope<'_>, inputs: &BTreeMap<String, Input>) -> BTreeMap<String, String> {
    let value = |name: &str| scope.value(&format!("inputs.{name}")).map(str::to_owned);
    inputs
        .iter()
        .filter_map(|(name, input)| Some((name, value(name).filter(|value| **value != *input.default)?)))
        .map(|(name, value)| (name.clone(), value))
        .collect()
}

/// Whether an undeclared input is probably this one; it is reported already.
fn is_misspelt(input: &str, body: &Body<'_>) -> bool {
    let declared = body.inputs();
    let undeclared = body.step.with.keys().filter(|name| !declared.contains_key(*name)).take(MISSPELT_MAX);
    undeclared.into_iter().any(|name| nearest(name, declared.keys().map(String::as_str)) == Some(input))
}

fn required_hint(name: &str, input: &Input) -> String {
    if input.description.is_empty() {
        format!("add `{name}:` to its `with`")
    } else {
        format!("add `{name}:` to its `with` ({})", input.description.trim())
    }
}
