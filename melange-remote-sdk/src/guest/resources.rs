//! What a definition asks of the machine, in the units of Kubernetes: `8Gi`, `500M`, `2`, `1500m`.

use crate::error::{Error, Result};
use crate::melange::document::Resources;
use crate::text::quantity::quantity;

/// What a definition asks of the machine; `None` where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestResources {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Disk in bytes.
    pub disk_bytes: Option<u64>,
}

impl GuestResources {
    /// What the `resources` or `test-resources` of a package say.
    ///
    /// # Errors
    /// A quantity that is none, with the field that it stands in.
    pub fn of(resources: &Resources) -> Result<Self> {
        Self::read(&resources.cpu, &resources.memory, &resources.disk)
    }

    /// The quantities in three texts; an empty one says nothing.
    ///
    /// # Errors
    /// A quantity that is none, with the field that it stands in.
    pub fn read(cpu: &str, memory: &str, disk: &str) -> Result<Self> {
        let read = |field: &'static str, text: &str| match quantity(text) {
            Some(value) => Ok(value),
            None => Err(Error::invalid(format!("`resources.{field}` is no quantity: {text:?}"))
                .hint("write a number, with a unit where one is meant: 8Gi, 500M, 2, 1500m")),
        };
        Ok(Self {
            memory_bytes: read("memory", memory)?.map(|thousandths| thousandths / 1_000),
            cpu_millis: read("cpu", cpu)?,
            disk_bytes: read("disk", disk)?.map(|thousandths| thousandths / 1_000),
        })
    }

    /// The same, with what `others` say where it says nothing.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.or(others.memory_bytes),
            cpu_millis: self.cpu_millis.or(others.cpu_millis),
            disk_bytes: self.disk_bytes.or(others.disk_bytes),
        }
    }

    /// The same with so much memory at least, where it asks for any.
    #[must_use]
    pub fn with_memory(mut self, bytes: Option<u64>) -> Self {
        self.memory_bytes = self.memory_bytes.map(|asked| asked.max(bytes.unwrap_or(0)));
        self
    }
}
