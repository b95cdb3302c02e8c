//! What is kept of ended jobs.

use std::time::Duration;

use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::retention::{Keep, KeepLatest, KeepRules, Orphans};

use super::Reader;
use crate::args::{Args, Choice};

/// What is kept of ended jobs, and what becomes of objects of jobs that nobody knows.
#[derive(Debug, Clone, Copy)]
pub struct RetentionConfig {
    /// The rules.
    pub rules: KeepRules,
    /// What becomes of objects in the storage whose jobs the database does not know.
    pub orphans: Orphans,
}

/// What a bound that is no time is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Most {
    /// A number of jobs.
    Jobs,
    /// Bytes.
    Bytes,
}

impl Reader<'_> {
    pub(super) fn retention(&mut self, args: &Args) -> RetentionConfig {
        // Which packages are still needed somewhere only the operator knows: without a word of his, they stay.
        let mut rules = KeepRules::default();
        rules.jobs = self.keep("--keep-jobs", args.keep_jobs.clone(), Most::Jobs, Keep::ALL);
        rules.logs = self.keep("--keep-logs", args.keep_logs.clone(), Most::Bytes, rules.logs);
        rules.artifacts = self.keep("--keep-artifacts", args.keep_artifacts.clone(), Most::Bytes, Keep::ALL);
        rules.latest = match self.yes_or_no("--keep-latest", args.keep_latest).unwrap_or(Choice::Yes) {
            Choice::Yes => KeepLatest::Yes,
            Choice::No => KeepLatest::No,
        };
        let orphans = match self.yes_or_no("--keep-orphans", args.keep_orphans).unwrap_or(Choice::Yes) {
            Choice::Yes => Orphans::Keep,
            Choice::No => Orphans::Remove,
        };
        RetentionConfig { rules, orphans }
    }

    /// `all`, or bounds joined by commas: times, and sizes or a number of jobs.
    fn keep(&mut self, flag: &str, given: Option<String>, most: Most, default: Keep) -> Keep {
        let Some(text) = self.value(flag, given) else { return default };
        if text.trim() == "all" {
            return Keep::ALL;
        }
        let mut keep = Keep::ALL;
        for part in text.split(',').map(str::trim) {
            match bound(part, most) {
                Some(bound) => keep = keep.and(bound),
                None => {
                    let example = match most {
                        Most::Jobs => "365d, 10000, 365d,10000",
                        Most::Bytes => "30d, 200GiB, 30d,200GiB",
                    };
                    self.wrong(format!("{flag}: {part:?} is no bound; such as {example} or all"));
                }
            }
        }
        keep
    }

    /// clap has read the flag, and its variable is read here.
    pub(super) fn yes_or_no(&mut self, flag: &str, given: Option<Choice>) -> Option<Choice> {
        if given.is_some() {
            return given;
        }
        match self.value(flag, None)?.as_str() {
            "yes" => Some(Choice::Yes),
            "no" => Some(Choice::No),
            other => {
                self.wrong(format!("{flag}: it is yes or no, not {other:?}"));
                None
            }
        }
    }
}

fn bound(text: &str, most: Most) -> Option<Keep> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number = || digits.parse::<u64>().ok();
    // Small letters are times, others sizes, so that 200M and 200m are two things.
    let seconds = match &text[digits.len()..] {
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        "w" => Some(7 * 86_400),
        _ => None,
    };
    if let Some(seconds) = seconds {
        return Some(Keep::within(Duration::from_secs(number()?.checked_mul(seconds)?)));
    }
    let is_plain = digits.len() == text.len();
    match most {
        Most::Jobs => number().filter(|_| is_plain).map(Keep::at_most),
        // A number without a unit may be meant as anything.
        Most::Bytes => {
            StateCache::parse_size(text).filter(|bytes| !is_plain || *bytes == 0).map(Keep::at_most)
        }
    }
}
