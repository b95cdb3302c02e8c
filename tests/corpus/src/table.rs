//! The report: one line for each definition, in Markdown.

use std::fmt::Write;
use std::time::Duration;

use crate::build::{Outcome, Tested, Verdict};

/// Room for a reason.
const REASON_CHARS: usize = 200;

/// How many built.
pub(crate) fn built(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Built).count()
}

/// The whole report.
pub(crate) fn markdown(outcomes: &[Outcome], minimum: usize, all: Duration) -> String {
    let mut text = String::from(
        "| definition | version | packages | seconds | build | test | reason |\n|---|---|---|---:|---|---|---|\n",
    );
    for outcome in outcomes {
        let cells = [
            outcome.name.clone(),
            outcome.version.clone(),
            outcome.packages.join(", "),
            outcome.took.map_or_else(String::new, |took| format!("{:.1}", took.as_secs_f64())),
            verdict(&outcome.verdict).to_owned(),
            tests(outcome.tested),
            shortened(&outcome.reason),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    let packages: usize = outcomes.iter().map(|outcome| outcome.packages.len()).sum();
    let _ = writeln!(
        text,
        "\n{} of {} definitions built ({packages} packages), {minimum} must. {:.0} s in all.",
        built(outcomes),
        outcomes.len(),
        all.as_secs_f64()
    );
    let all = outcomes.iter().map(|outcome| outcome.tested).fold(Tested::default(), |sum, one| Tested {
        passed: sum.passed + one.passed,
        lacking: sum.lacking + one.lacking,
        failed: sum.failed + one.failed,
    });
    let _ = writeln!(text, "Tests of packages: {}.", tests(all));
    text
}

/// The end of a build in words.
pub(crate) fn verdict(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Built => "built",
        Verdict::Failed => "failed",
        Verdict::NoTarball => "no tarball",
    }
}

/// The ends of tests in words.
pub(crate) fn tests(tested: Tested) -> String {
    let parts = [(tested.passed, "passed"), (tested.failed, "failed"), (tested.lacking, "lack a package")];
    let told: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if told.is_empty() { "–".to_owned() } else { told.join(", ") }
}

/// One line of bounded length.
fn shortened(reason: &str) -> String {
    let line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(REASON_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_has_its_line() {
        let failed = Outcome {
            name: "a".to_owned(),
            version: "1".to_owned(),
            packages: Vec::new(),
            took: None,
            verdict: Verdict::NoTarball,
            tested: Tested::default(),
            reason: format!("x |\n{}", "y".repeat(REASON_CHARS)),
        };
        let good = Outcome {
            packages: vec!["a".to_owned(), "a-dev".to_owned()],
            took: Some(Duration::from_millis(1_250)),
            verdict: Verdict::Built,
            reason: String::new(),
            ..failed.clone()
        };
        let text = markdown(&[failed.clone(), good.clone()], 1, Duration::from_secs(3));
        assert!(text.contains("| a | 1 |  |  | no tarball | – | x \\| yyy"), "{text}");
        assert!(text.contains("| a | 1 | a, a-dev | 1.2 | built | – |  |"), "{text}");
        assert!(text.contains("1 of 2 definitions built (2 packages), 1 must. 3 s in all."), "{text}");
        assert!(text.contains("Tests of packages: –."), "{text}");
        let tested = Outcome { tested: Tested { passed: 2, lacking: 1, failed: 0 }, ..good };
        let text = markdown(&[failed, tested], 1, Duration::ZERO);
        assert!(text.contains("Tests of packages: 2 passed, 1 lack a package."), "{text}");
    }
}
