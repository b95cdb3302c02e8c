//! Any bytes as a definition, a pipeline, a file of variables, and the diagnostics that come of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use melange_remote_sdk::text::diagnostics::Source;
use melange_remote_sdk::melange::document::{Document, Step, parse_variables};
use melange_remote_sdk::melange::expression::evaluate;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let source = Source::new("fuzz.yaml", text);
    for mistakes in [
        Document::parse(&source).err(),
        Step::parse_definition(&source).err(),
        parse_variables(&source).err(),
    ] {
        if let Some(mistakes) = mistakes {
            assert!(!mistakes.to_string().is_empty());
        }
    }
    let _ = evaluate(text);
});
