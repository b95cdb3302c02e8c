//! Who gets which free slot: the flags and what they mean.

use clap::ValueEnum;

use super::Reader;
use crate::args::{Args, BackendSelection};

/// Who gets which free slot.
#[derive(Debug, Clone, Default)]
pub struct SchedulingConfig {
    /// How a backend is chosen for a job.
    pub backend_selection: BackendSelection,
}

impl Reader<'_> {
    pub(super) fn scheduling(&mut self, args: &Args) -> SchedulingConfig {
        SchedulingConfig { backend_selection: self.choice("--backend-selection", args.backend_selection) }
    }

    /// One of the values that a flag knows; clap has read the flag, and its variable is read here.
    pub(super) fn choice<T: ValueEnum + Default>(&mut self, flag: &str, given: Option<T>) -> T {
        if let Some(choice) = given {
            return choice;
        }
        let Some(text) = self.value(flag, None) else { return T::default() };
        T::from_str(&text, true).unwrap_or_else(|_| {
            let known = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let known: Vec<String> = known.map(|value| value.get_name().to_owned()).collect();
            self.wrong(format!("{flag}: it is {}", known.join(" or ")));
            T::default()
        })
    }
}
