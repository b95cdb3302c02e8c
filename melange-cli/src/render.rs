//! What people read.

use melange_remote_sdk::error::Error;
use melange_remote_sdk::melange::diagnostics::Diagnostics;

/// An error with its causes and hint; a definition's mistakes in full.
pub(crate) fn error(error: &Error) -> String {
    if let Some(diagnostics) =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<Diagnostics>())
    {
        return diagnostics.to_string();
    }
    let mut text = format!("error: {}\n", error.chain());
    if let Some(hint) = error.hint_text() {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}
