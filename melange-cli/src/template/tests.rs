//! Templates over a definition, beside what Go made of each for melange.

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::{self, CompileOptions, Compiled};
use melange_remote_sdk::text::diagnostics::Source;

use super::*;

fn definition() -> Value {
    let source = Source::new("curl.yaml", include_str!("../../fixtures/query/curl.yaml"));
    let mut options = CompileOptions::default();
    options.defaults = None;
    match melange::inspect(&source, Arch::X86_64, &PipelineSet::default(), &options).unwrap() {
        Compiled::Plan(plan) => data::of(&plan),
        Compiled::Skipped { reason, .. } => panic!("{reason}"),
    }
}

/// Those that differ: numbers have one type here, `%e` and `js` are for nobody's definitions.
const DIFFERENT: [&str; 3] =
    ["{{printf \"%s\" .Package.Epoch}}", "{{printf \"%08.3f|%e\" 3.14159 1.0}}", "{{js \"a'b\"}}"];

#[test]
fn answers_are_those_of_melange() {
    let root = definition();
    let cases: serde_json::Value =
        serde_json::from_str(include_str!("../../fixtures/query/answers.json")).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 100);
    let mut wrong = Vec::new();
    for case in cases {
        let template = case["template"].as_str().unwrap();
        let ours = render(template, &root);
        let equal = match (&ours, case["answer"].as_str()) {
            (Ok(text), Some(answer)) => text == answer,
            (Err(_), None) => true,
            _ => false,
        };
        if equal == DIFFERENT.contains(&template) {
            wrong.push(format!("{template}\n  is {ours:?}\n  not {}", case["answer"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn mistakes_have_a_column() {
    let root = definition();
    for (template, expected) in [
        ("x {{.Package.Nam}}", "column 5: there is no field `Nam`; there are Name, Version, Epoch"),
        ("{{if .Package}}", "column 1: this block has no `{{end}}`"),
        ("{{end}}", "column 1: `end` has no beginning"),
        ("{{ .Package", "column 1: `{{` is not closed"),
        ("{{ foo }}", "column 4: `foo` is not understood; functions are and, or"),
        ("{{.Package.Name.First}}", "`First` is a field of a text, which has none"),
        ("{{.Update.GitMonitor.StripPrefix}}", "`StripPrefix` is a field of something that is not there"),
        ("{{index .Subpackages 9}}", "there is no index 9 in a list of 3"),
        ("{{$x}}", "there is no variable `$x`"),
        ("{{define \"x\"}}", "`define` is for templates in files"),
    ] {
        let error = render(template, &root).unwrap_err().to_string();
        assert!(error.contains(expected), "{template}: {error}");
    }
}

#[test]
fn names_of_definitions_are_those_of_fields_too() {
    let root = definition();
    for (template, expected) in [
        ("{{.package.full-version}}", "8.21.0-r2"),
        ("{{.package.target-architecture}}", "[x86_64 aarch64]"),
        ("{{.Package.CPE.Vendor}} {{.Package.Resources}}", "haxx {2  4Gi }"),
    ] {
        assert_eq!(render(template, &root).unwrap(), expected, "{template}");
    }
}

#[test]
fn hostile_templates_come_to_an_end() {
    let root = definition();
    for (template, expected) in [
        ("{{if .}}".repeat(70), "blocks deeper than 64"),
        (format!("{{{{{}1", "(".repeat(100_000)), "is not closed"),
        (format!("{{{{{}1{}}}}}", "(".repeat(1_000), ")".repeat(1_000)), "parentheses deeper than 64"),
        ("{{range 9999999}}{{range 9999999}}{{end}}{{end}}".to_owned(), "takes too long"),
        ("{{range 9999999}}{{$}}{{end}}".to_owned(), "result is too large"),
        ("{{printf \"%999999999d\" 1}}".to_owned(), "fills at most 1000 characters"),
        (
            format!(
                "{{{{$x := \"{}\"}}}}{{{{range 99}}}}{{{{$x = print $x $x}}}}{{{{end}}}}",
                "a".repeat(100)
            ),
            "too large",
        ),
        (format!("{{{{if 1}}}}{}{{{{end}}}}", "{{else if 1}}".repeat(10_000)), "blocks deeper than 64"),
    ] {
        let error = render(&template, &root).unwrap_err().to_string();
        assert!(error.contains(expected), "{template:.60}: {error}");
    }
}
