//! Processor time and memory: what a job asks of a backend, and what a backend has.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::melange::document::Resources;
use crate::text::quantity::{gibibytes, quantity};

/// The most that a job may ask of either; what asks for more fits nowhere.
const CPU_MILLIS_MAX: u64 = 1_000_000_000;
const MEMORY_BYTES_MAX: u64 = 1 << 50;

/// What a job asks of a backend, and what several jobs ask together. Zero asks for nothing: the job takes a slot alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct JobResources {
    /// Thousandths of a core.
    #[serde(skip_serializing_if = "is_zero")]
    pub cpu_millis: u64,
    /// Memory in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl JobResources {
    /// Nothing: the job takes a slot alone.
    pub const NONE: Self = Self { cpu_millis: 0, memory_bytes: 0 };

    /// So many thousandths of a core and bytes of memory.
    pub fn new(cpu_millis: u64, memory_bytes: u64) -> Self {
        Self { cpu_millis: cpu_millis.min(CPU_MILLIS_MAX), memory_bytes: memory_bytes.min(MEMORY_BYTES_MAX) }
    }

    /// What the `resources` of a definition say; quantities that are none ask for nothing, and whoever runs the job refuses
    /// them.
    pub fn of(resources: &Resources) -> Self {
        let read = |text: &str| quantity(text).flatten().unwrap_or(0);
        Self::new(read(&resources.cpu), read(&resources.memory) / 1_000)
    }

    /// Whether nothing is asked for.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// What is left without the other.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }

    /// The larger of both, each of the two by itself.
    #[must_use]
    pub fn at_least(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
        }
    }
}

/// Such as `4 cores and 8.0 GiB of memory`.
impl fmt::Display for JobResources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes: u64| match bytes {
            small if small < 1 << 30 => format!("{} MiB", small >> 20),
            bytes => gibibytes(bytes),
        };
        let cores = match self.cpu_millis {
            1_000 => "1 core".to_owned(),
            millis if millis.is_multiple_of(1_000) => format!("{} cores", millis / 1_000),
            millis => format!("{}.{} cores", millis / 1_000, millis % 1_000 / 100),
        };
        match (self.cpu_millis, self.memory_bytes) {
            (0, bytes) => write!(f, "{} of memory", size(bytes)),
            (_, 0) => f.write_str(&cores),
            (_, bytes) => write!(f, "{cores} and {} of memory", size(bytes)),
        }
    }
}

/// What a backend has for its jobs; `None` where nobody said so, and nothing is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BackendCapacity {
    /// Thousandths of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

impl BackendCapacity {
    /// So many thousandths of a core and bytes of memory.
    pub fn new(cpu_millis: Option<u64>, memory_bytes: Option<u64>) -> Self {
        Self { cpu_millis, memory_bytes }
    }

    /// Reads what operators write: cores such as `16` or `0.5`, memory such as `64Gi`; `None` where nothing is said.
    ///
    /// # Errors
    /// `InvalidRequest` for what is no quantity, with the name of the field: `cpus` or `memory`.
    pub fn read(cpus: Option<&str>, memory: Option<&str>) -> Result<Self, Vec<(&'static str, Error)>> {
        let mut wrong = Vec::new();
        let mut read = |field, text: Option<&str>, example| match text.map(quantity) {
            None => None,
            Some(Some(Some(thousandths))) => Some(thousandths),
            Some(_) => {
                let message = format!("{:?} is no quantity", text.unwrap_or_default());
                wrong.push((field, Error::invalid(message).hint(format!("write it such as {example}"))));
                None
            }
        };
        let cpu_millis = read("cpus", cpus, "16 or 0.5");
        let memory_bytes = read("memory", memory, "64Gi or 8000M").map(|thousandths| thousandths / 1_000);
        if wrong.is_empty() { Ok(Self::new(cpu_millis, memory_bytes)) } else { Err(wrong) }
    }

    /// Whether nothing is counted.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// How many jobs that ask for so much fit beside what is used; `u32::MAX` where nothing bounds them.
    pub fn room(&self, used: JobResources, asked: JobResources) -> u32 {
        let of = |has: Option<u64>, used: u64, asked: u64| match has {
            Some(has) if asked > 0 => u32::try_from(has.saturating_sub(used) / asked).unwrap_or(u32::MAX),
            _ => u32::MAX,
        };
        let cpu = of(self.cpu_millis, used.cpu_millis, asked.cpu_millis);
        cpu.min(of(self.memory_bytes, used.memory_bytes, asked.memory_bytes))
    }

    /// Whether a job that asks for so much would fit if nothing else ran.
    pub fn holds(&self, asked: JobResources) -> bool {
        self.room(JobResources::default(), asked) > 0
    }

    /// The share of it that is used, in millionths: the larger one of processor time and memory.
    pub fn share_used(&self, used: JobResources) -> u64 {
        let of = |has: Option<u64>, used: u64| {
            let has = has.filter(|has| *has > 0)?;
            u64::try_from(u128::from(used) * 1_000_000 / u128::from(has)).ok()
        };
        of(self.cpu_millis, used.cpu_millis).max(of(self.memory_bytes, used.memory_bytes)).unwrap_or(0)
    }
}

/// What runs on a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendLoad {
    /// How many jobs.
    pub jobs: u32,
    /// What they ask for together.
    pub used: JobResources,
}

impl BackendLoad {
    /// So many jobs, which ask for so much together.
    pub fn new(jobs: u32, used: JobResources) -> Self {
        Self { jobs, used }
    }

    /// One job more.
    pub fn add(&mut self, asked: JobResources) {
        *self = Self { jobs: self.jobs.saturating_add(1), used: self.used.plus(asked) };
    }

    /// One job less.
    pub fn take(&mut self, asked: JobResources) {
        *self = Self { jobs: self.jobs.saturating_sub(1), used: self.used.minus(asked) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_is_asked_is_told_as_people_say_it() {
        let told = |cpu, memory| JobResources::new(cpu, memory).to_string();
        assert_eq!(told(1_000, 0), "1 core");
        assert_eq!(told(2_500, 8 * GIB), "2.5 cores and 8.0 GiB of memory");
        assert_eq!(told(0, GIB / 2), "512 MiB of memory");
    }

    #[test]
    fn only_what_is_known_and_asked_for_is_counted() {
        let used = JobResources::new(3_000, 10 * GIB);
        let room = |cpu, memory, asked| BackendCapacity::new(cpu, memory).room(used, asked);
        let asked = JobResources::new(1_000, 2 * GIB);
        assert_eq!(room(None, None, asked), u32::MAX);
        assert_eq!(room(Some(8_000), None, asked), 5);
        assert_eq!(room(Some(8_000), Some(16 * GIB), asked), 3);
        assert_eq!(room(Some(2_000), Some(16 * GIB), asked), 0, "more is used than there is");
        assert_eq!(room(Some(2_000), Some(GIB), JobResources::default()), u32::MAX, "nothing is asked for");
        assert!(!BackendCapacity::new(Some(500), None).holds(asked));
        assert_eq!(BackendCapacity::new(Some(6_000), Some(100 * GIB)).share_used(used), 500_000);
    }

    #[test]
    fn sums_have_bounds() {
        let most = JobResources::new(u64::MAX, u64::MAX);
        assert_eq!(most, JobResources::new(CPU_MILLIS_MAX, MEMORY_BYTES_MAX));
        let mut load = BackendLoad::default();
        load.add(most);
        load.take(most.plus(most));
        assert_eq!(load, BackendLoad::default());
    }
}
