//! Tests of packages: each in an environment of its own that holds the package under test, main first, then each
//! subpackage. Packages that were just made come before all repositories.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::session::{Joined, SessionSink, join};
use super::watch::{Watch, Watched};
use super::{
    EngineBuilder, GuestParts, Run, aside, blame_backend, blame_environment, blame_plan, into_outcome,
    step_reason,
};
use crate::builder::{
    BuildEvent, BuildInput, BuildOutcome, BuildSink, BuildStatus, LogStream, Phase, StepFailure, TestReport,
    TestStatus,
};
use crate::error::{Blame, Error, Result};
use crate::guest::script::{self, ScriptOptions};
use crate::guest::{GuestOutcome, GuestResources, GuestRunner, GuestStep};
use crate::melange::Compiled;
use crate::melange::plan::{Plan, PlanTest};
use crate::rootfs::repository::LoadedRepository;

/// What a caller decides about a run of tests.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TestInput {
    /// The definition and all that goes with it, as for a build.
    pub build: BuildInput,
    /// The package that the main test is about, such as `hello=2.10-r0`; the definition's own when empty.
    pub package: String,
    /// Packages added to every test's environment.
    pub extra_packages: Vec<String>,
    /// Only the tests of these packages; all when empty.
    pub only: Vec<String>,
}

impl TestInput {
    /// All tests of a definition, on the package that it builds.
    pub fn new(build: BuildInput) -> Self {
        Self { build, package: String::new(), extra_packages: Vec::new(), only: Vec::new() }
    }
}

/// The tests of one definition.
pub(super) struct Tests<'a> {
    pub(super) input: &'a BuildInput,
    pub(super) plan: &'a Arc<Plan>,
    /// Packages that come before all repositories.
    pub(super) own: Option<Arc<LoadedRepository>>,
    /// The number of the first step.
    pub(super) first_step: usize,
}

/// What tests mean for a build.
pub(super) fn status_of(reports: &[TestReport]) -> BuildStatus {
    let mut failed = reports.iter().filter_map(|report| match &report.status {
        TestStatus::Passed => None,
        TestStatus::Failed { reason, failure } => Some((report, reason, failure)),
    });
    let Some((report, reason, failure)) = failed.next() else { return BuildStatus::Succeeded };
    let others = failed.count();
    let more = if others > 0 {
        format!(", and {others} more of {} tests failed", reports.len())
    } else {
        String::new()
    };
    let reason = format!("the test of {} failed: {reason}{more}", report.subject);
    BuildStatus::Failed { reason, failure: failure.clone() }
}

impl EngineBuilder {
    /// Runs the tests of a definition against packages of the environment's repositories, without building.
    ///
    /// # Errors
    /// As [`crate::builder::Builder::build`].
    pub async fn test(
        &self,
        input: &TestInput,
        sink: Arc<dyn BuildSink>,
        cancel: CancellationToken,
    ) -> Result<BuildOutcome> {
        let mut run = Run::new(sink);
        let compiled = run.phase(Phase::Compile, self.compile(&input.build)).await;
        let mut plan = match compiled {
            Ok(Compiled::Plan(plan)) => *plan,
            Ok(Compiled::Skipped { reason, .. }) => return Ok(run.outcome(BuildStatus::Skipped { reason })),
            Err(error) => return into_outcome(run, error.blame_if_unknown(Blame::Definition)),
        };
        // A call that names tests which there are not is at fault itself, not the definition.
        select(&mut plan, input)?;
        plan.add_repositories(&self.options.extra_repositories, &self.options.extra_keyring);
        if plan.tests.is_empty() {
            let reason = "the definition has no test".to_owned();
            return Ok(run.outcome(BuildStatus::Skipped { reason }));
        }
        let plan = Arc::new(plan);
        let tests = Tests { input: &input.build, plan: &plan, own: None, first_step: 0 };
        let result = match self.runners.runner(&input.build.backend_addr) {
            Ok(runner) => {
                let sink = Arc::clone(&run.sink);
                run.phase(Phase::Test, self.run_tests(tests, &*runner, sink, &cancel)).await
            }
            Err(error) => Err(blame_backend(error)),
        };
        match result {
            Ok(Some(reports)) => {
                Ok(BuildOutcome { tests: reports.clone(), ..run.outcome(status_of(&reports)) })
            }
            Ok(None) => Ok(run.outcome(BuildStatus::Cancelled)),
            Err(error) => into_outcome(run, error),
        }
    }

    /// Runs all tests, also behind one that failed; `None` when cancelled.
    pub(super) async fn run_tests(
        &self,
        tests: Tests<'_>,
        runner: &dyn GuestRunner,
        sink: Arc<dyn BuildSink>,
        cancel: &CancellationToken,
    ) -> Result<Option<Vec<TestReport>>> {
        let total = tests.plan.tests.len();
        let options = ScriptOptions::default().with_debug(tests.input.debug);
        let chains: Vec<_> = tests.plan.tests.iter().map(|test| script::test_steps(test, &options)).collect();
        let counts: Vec<usize> = chains.iter().map(|chain| chain.as_ref().map_or(0, Vec::len)).collect();
        let last_step = tests.first_step + counts.iter().sum::<usize>();
        let mut reports = Vec::with_capacity(total);
        let mut first_step = tests.first_step;
        for (index, (test, chain)) in tests.plan.tests.iter().zip(chains).enumerate() {
            sink.emit(BuildEvent::TestStarted { index, total, subject: test.subject.clone() });
            let begun = Instant::now();
            let single = Single { tests: &tests, test, first_step, last_step };
            let result = match chain {
                Ok(steps) => self.run_test(&single, steps, runner, &sink, cancel).await,
                Err(error) => Err(Error::invalid(error.to_string()).blame(Blame::Definition)),
            };
            first_step += counts[index];
            let status = match result {
                Ok(Some(status)) => status,
                Ok(None) => return Ok(None),
                Err(error) if error.blamed() == Some(Blame::Definition) => {
                    let line = format!("error: {}", error.chain());
                    sink.emit(BuildEvent::Log { stream: LogStream::Engine, step: None, line });
                    TestStatus::Failed { reason: error.chain(), failure: None }
                }
                Err(error) => return Err(error),
            };
            let report = TestReport { subject: test.subject.clone(), status, took: begun.elapsed() };
            sink.emit(BuildEvent::TestFinished { index, report: report.clone() });
            reports.push(report);
        }
        Ok(Some(reports))
    }

    /// One test: how it ended; `None` when cancelled.
    async fn run_test(
        &self,
        single: &Single<'_>,
        steps: Vec<GuestStep>,
        runner: &dyn GuestRunner,
        sink: &Arc<dyn BuildSink>,
        cancel: &CancellationToken,
    ) -> Result<Option<TestStatus>> {
        let Single { tests, test, first_step, last_step } = single;
        let (arch, own) = (tests.plan.arch, tests.own.clone());
        let scratch = self.scratch(&tests.input.attempt)?;
        let prepared = async {
            let transient = own.is_some();
            let (build, environment) = (tests.input.repositories.as_ref(), &test.environment);
            let resolution =
                self.assembler.resolve_test(own, build, &test.subject, environment, arch).await?;
            // Packages that were just made are not asked for again: their root filesystem is not kept.
            let form = runner.root_form().await;
            let rootfs = if transient {
                let path = scratch.path().join("root.tar");
                self.assembler.assemble_at(&path, form, &resolution, environment, arch).await?
            } else {
                self.assembler.assemble_as(form, &resolution, environment, arch).await?
            };
            Ok((rootfs, self.cached_sources(&test.pipeline, &**sink).await))
        };
        let Some(prepared) = cancel.run_until_cancelled(prepared).await else { return Ok(None) };
        let (rootfs, sources) = prepared.map_err(blame_environment)?;
        let names: Vec<String> = steps.iter().map(|step| format!("test {}", step.name)).collect();
        let environment = &test.environment;
        let parts = GuestParts { plan: tests.plan, environment, rootfs: &rootfs, sources: &sources, steps };
        let mut guest = self.guest_plan(tests.input, parts, scratch.path()).map_err(blame_plan)?;
        let asked = GuestResources::of(&tests.plan.document.package.test_resources).map_err(blame_plan)?;
        if asked != GuestResources::default() {
            guest.resources = asked.with_memory(tests.input.memory_bytes);
        }
        let Joined { step, scripts, mark } =
            join(&format!("test {}", test.subject), std::mem::take(&mut guest.steps));
        guest.steps = vec![step];
        guest.scripts = scripts;
        guest.shared_root = tests.own.is_none();
        let session = Arc::new(SessionSink::new(Arc::clone(sink), mark, names, *first_step, *last_step));
        let output = scratch.path().join("output.tar");
        let watch = Watch { runner, silence: self.options.silence };
        let (outcome, _) = watch.run(&guest, &output, Arc::clone(&session) as _, cancel).await;
        let outcome = outcome.map_err(blame_backend).inspect_err(|_| drop(session.finish(0)))?;
        let status = match outcome {
            Watched::Silent(reason) => {
                session.finish(1);
                TestStatus::Failed { reason, failure: None }
            }
            Watched::Ended(GuestOutcome::Succeeded) => {
                session.finish(0);
                TestStatus::Passed
            }
            Watched::Ended(GuestOutcome::Cancelled) => return Ok(None),
            Watched::Ended(GuestOutcome::StepFailed { failure, .. }) => {
                let out_of_memory = failure.out_of_memory;
                let failure = StepFailure { out_of_memory, ..session.finish(failure.exit_code) };
                let reason = step_reason(&failure, "test.environment.contents.packages");
                TestStatus::Failed { reason, failure: Some(failure) }
            }
        };
        remove(scratch).await;
        Ok(Some(status))
    }
}

/// One of the tests.
struct Single<'a> {
    tests: &'a Tests<'a>,
    test: &'a PlanTest,
    /// The number of its first step.
    first_step: usize,
    /// The number of the step behind those of all tests.
    last_step: usize,
}

/// Root filesystems are large, and removing them takes a while.
async fn remove(scratch: tempfile::TempDir) {
    let path = scratch.path().to_owned();
    let removed =
        aside("the clean-up", move || scratch.close().map_err(|e| Error::io("remove", &path, e))).await;
    if let Err(error) = removed {
        tracing::warn!(error = %error.chain(), "a test's folder is left over");
    }
}

/// Leaves the tests that were asked for, about the package that was asked for.
fn select(plan: &mut Plan, input: &TestInput) -> Result<()> {
    let main = plan.package.name.clone();
    let known: Vec<&str> = plan.tests.iter().map(|test| test.subject.as_str()).collect();
    if let Some(stranger) = input.only.iter().find(|name| !known.contains(&name.as_str())) {
        let hint = match &known[..] {
            [] => "the definition has no test".to_owned(),
            known => format!("there are tests of {}", known.join(", ")),
        };
        return Err(Error::invalid(format!("there is no test of `{stranger}`")).hint(hint));
    }
    plan.tests.retain(|test| input.only.is_empty() || input.only.contains(&test.subject));
    for test in &mut plan.tests {
        let packages = &mut test.environment.packages;
        if test.subject == main && !input.package.is_empty() {
            packages.retain(|package| *package != main);
            packages.push(input.package.clone());
        }
        test.add_packages(&input.extra_packages);
    }
    Ok(())
}
