//! Which linters of packages run, and which of them fail a build.

use melange_remote_sdk::analysis::lint::{Linter, LinterSets};

use super::Reader;

impl Reader<'_> {
    pub(super) fn linters(&mut self, required: Option<String>, warned: Option<String>) -> LinterSets {
        let LinterSets { required: own_required, warned: own_warned } = LinterSets::default();
        LinterSets {
            required: self.linters_of("--lint-require", required).unwrap_or(own_required),
            warned: self.linters_of("--lint-warn", warned).unwrap_or(own_warned),
        }
    }

    /// Names between commas; `none` for an empty list.
    fn linters_of(&mut self, flag: &str, given: Option<String>) -> Option<Vec<Linter>> {
        let text = self.value(flag, given)?;
        let names = text.split(',').map(str::trim).filter(|name| !matches!(*name, "" | "none"));
        let mut linters = Vec::new();
        for name in names {
            match name.parse() {
                Ok(linter) => linters.push(linter),
                Err(error) => self.error(flag, &error),
            }
        }
        Some(linters)
    }
}
