//! Any bytes as a definition with a pipeline, a file of variables and one of environment variables behind it,
//! divided by lines of `%%`.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::text::diagnostics::Source;
use melange_remote_sdk::melange::emit::{compiled_definition, yaml};
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::guest::script::{ScriptOptions, guest_steps, test_steps};
use melange_remote_sdk::melange::{CompileOptions, Compiled, compile};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.split("\n%%\n");
    let source = Source::new("fuzz.yaml", parts.next().unwrap_or_default());
    let mut inline = BTreeMap::new();
    if let Some(pipeline) = parts.next() {
        inline.insert("mine.yaml".to_owned(), pipeline.to_owned());
    }
    let file = |name: &str, text: Option<&str>| text.map(|text| Source::new(name, text)).into_iter().collect();
    let mut options = CompileOptions::default();
    options.vars_files = file("vars.yaml", parts.next());
    options.env_files = file("build.env", parts.next());
    options.build_options = ["o".to_owned()].into();
    let pipelines = PipelineSet::new(&inline).unwrap();
    match compile(&source, Arch::X86_64, &pipelines, &options) {
        Ok(Compiled::Plan(plan)) => {
            let _ = guest_steps(&plan, &ScriptOptions::default());
            for test in &plan.tests {
                let _ = test_steps(test, &ScriptOptions::default());
            }
            assert!(yaml(&compiled_definition(&plan)).is_ok());
        }
        Ok(Compiled::Skipped { reason, .. }) => assert!(!reason.is_empty()),
        Err(mistakes) => assert!(!mistakes.to_string().is_empty()),
    }
});
