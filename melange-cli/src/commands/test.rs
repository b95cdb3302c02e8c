//! `melange test`: the tests of one definition, on this machine.

use std::sync::Arc;

use melange_remote_sdk::builder::TestStatus;
use melange_remote_sdk::engine::package_tests::TestInput;
use melange_remote_sdk::error::Result;

use super::local::{self, Extras, Printer};
use crate::args::{Output, TestArgs};
use crate::exit::Exit;
use crate::out;

pub(super) async fn run(args: TestArgs, output: Output) -> Result<Exit> {
    let builder = local::builder(&args.run, Extras::default())?;
    let mut input = TestInput::new(local::input(&args.file, args.arch, &args.run)?);
    input.package = args.package.clone().unwrap_or_default();
    input.extra_packages.clone_from(&args.run.test_package_append);
    input.only.clone_from(&args.only);
    let printer = Printer::new(output);
    let outcome = builder.test(&input, Arc::clone(&printer) as _, local::cancelled_by_signals()).await?;
    drop(printer);
    if output == Output::Json {
        let exit = local::exit_of(&outcome, output)?;
        out::json_line(&local::as_json(&args.file, args.arch, &outcome, &[]))?;
        return Ok(exit);
    }
    for report in &outcome.tests {
        let how = match &report.status {
            TestStatus::Passed => "passed".to_owned(),
            TestStatus::Failed { reason, .. } => format!("failed: {reason}"),
        };
        out::line(&format!("{} {how} ({:.2} s)", report.subject, report.took.as_secs_f64()))?;
    }
    let exit = local::exit_of(&outcome, output)?;
    if !outcome.tests.is_empty() {
        local::print_times(&outcome);
    }
    Ok(exit)
}
