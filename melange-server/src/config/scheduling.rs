//! How many jobs are taken, and who gets which free slot: the flags and what they mean.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use clap::ValueEnum;
use melange_remote_sdk::job::Project;
use melange_remote_sdk::limits;
use melange_remote_sdk::scheduler::ProjectWeights;

use super::Reader;
use crate::args::{Args, BackendSelection};

/// How many jobs are taken, and who gets which free slot.
#[derive(Debug, Clone, Default)]
pub struct SchedulingConfig {
    /// How a backend is chosen for a job.
    pub backend_selection: BackendSelection,
    /// How many of the slots each project gets while several wait.
    pub project_weights: ProjectWeights,
    /// How many submissions are taken each second; `None` without a bound.
    pub submit_rate: Option<NonZeroU32>,
    /// What this machine is called among those whose servers share a database; `None` for its host name.
    pub machine_name: Option<String>,
}

/// The longest name of a machine, as of a host.
const MACHINE_NAME_BYTES_MAX: usize = 253;

impl Reader<'_> {
    pub(super) fn scheduling(&mut self, args: &Args) -> SchedulingConfig {
        SchedulingConfig {
            backend_selection: self.choice("--backend-selection", args.backend_selection),
            project_weights: self.project_weights(&args.project_weight),
            submit_rate: self.submit_rate(args.submit_rate.clone()),
            machine_name: self.machine_name(args.machine_name.clone()),
        }
    }

    /// The name of a machine, which is part of the names of its backends.
    fn machine_name(&mut self, given: Option<String>) -> Option<String> {
        let name = self.value("--machine-name", given)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.len() > MACHINE_NAME_BYTES_MAX || !name.chars().all(plain) {
            self.wrong(format!("--machine-name: {name:?} is not a name such as that of a host"));
        }
        Some(name)
    }

    /// A number of submissions each second; 0 is no bound.
    fn submit_rate(&mut self, given: Option<String>) -> Option<NonZeroU32> {
        let default = NonZeroU32::new(limits::SUBMIT_RATE);
        let Some(text) = self.value("--submit-rate", given) else { return default };
        let most = limits::SUBMIT_RATE_MAX;
        match text.parse::<u32>().ok().filter(|rate| *rate <= most) {
            Some(rate) => NonZeroU32::new(rate),
            None => {
                self.wrong(format!("--submit-rate: {text:?} is not a whole number from 0 to {most}"));
                default
            }
        }
    }

    /// The weights of the flags, or all those of the variable.
    fn project_weights(&mut self, given: &[String]) -> ProjectWeights {
        const FLAG: &str = "--project-weight";
        let mut texts = given.to_vec();
        if texts.is_empty() {
            let variable = self.value(FLAG, None).unwrap_or_default();
            texts.extend(
                variable.split(',').map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()),
            );
        }
        let mut weights = BTreeMap::new();
        for text in &texts {
            let most = limits::PROJECT_WEIGHT_MAX;
            let Some((name, number)) = text.split_once('=') else {
                self.wrong(format!("{FLAG}: {text:?} is not of the form NAME=N"));
                continue;
            };
            let weight = number.parse::<NonZeroU32>().ok().filter(|weight| weight.get() <= most);
            match (name.parse::<Project>(), weight) {
                (Err(error), _) => self.error(FLAG, &error),
                (_, None) => {
                    self.wrong(format!(
                        "{FLAG}: the weight of {name} is a whole number from 1 to {most}, not {number:?}"
                    ));
                }
                (Ok(project), Some(weight)) => {
                    if weights.insert(project, weight).is_some() {
                        self.wrong(format!("{FLAG}: {name} has two weights"));
                    }
                }
            }
        }
        weights.into_iter().collect()
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
