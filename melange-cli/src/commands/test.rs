//! `melange test`: the tests of one definition, on this machine.

use std::sync::Arc;

use melange_remote_sdk::builder::TestStatus;
use melange_remote_sdk::engine::package_tests::TestInput;
use melange_remote_sdk::error::Result;

use super::local::{self, Extras, Printer};
use super::print_line;
use crate::args::TestArgs;
use crate::exit::Exit;

pub(super) async fn run(args: TestArgs) -> Result<Exit> {
    let builder = local::builder(&args.run, Extras::default())?;
    let input = TestInput {
        build: local::input(&args.file, &args.run)?,
        package: args.package.clone().unwrap_or_default(),
        extra_packages: args.test_package_append.clone(),
        only: args.only.clone(),
    };
    let outcome = builder.test(&input, Arc::new(Printer), local::cancelled_by_signals()).await?;
    for report in &outcome.tests {
        let how = match &report.status {
            TestStatus::Passed => "passed".to_owned(),
            TestStatus::Failed { reason, .. } => format!("failed: {reason}"),
        };
        print_line(&format!("{} {how} ({:.2} s)", report.subject, report.took.as_secs_f64()));
    }
    let exit = local::exit_of(&outcome)?;
    if !outcome.tests.is_empty() {
        local::print_times(&outcome);
    }
    Ok(exit)
}
