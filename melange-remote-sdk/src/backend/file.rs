//! Reads `backends.yaml`: strictly, with the place of every mistake.

use std::sync::Arc;

use super::{Backend, BackendAddress, check_max_jobs};
use crate::arch::Arch;
use crate::job::BackendCapacity;
use crate::labels::Labels;
use crate::limits;
use crate::text::diagnostics::{Diagnostics, Position, Source};
use crate::text::strict::{StrictReader, find};
use crate::text::yaml::{self, Node, Value};

/// Reads the backends of a file.
///
/// ```
/// use melange_remote_sdk::backend::file;
/// use melange_remote_sdk::text::diagnostics::Source;
/// let text = "backends:\n  - addr: tcp://a:1234\n    arch: x86_64\n    labels:\n      tier: standard\n    maxJobs: 8\n    cpus: 16\n    memory: 64Gi\n";
/// let backends = file::read(&Source::new("backends.yaml", text)).unwrap();
/// assert_eq!(backends[0].max_jobs(), 8);
/// assert_eq!(backends[0].capacity().memory_bytes, Some(64 << 30));
/// ```
///
/// # Errors
/// Every mistake with its line and column: syntax, unknown or missing fields, bad values, an address given twice,
/// no backend at all.
pub fn read(source: &Arc<Source>) -> Result<Vec<Backend>, Diagnostics> {
    let root = yaml::read(source)?;
    let mut reader = Reader(StrictReader::new(source));
    let backends = match &root {
        Some(root) => reader.root(root),
        None => {
            reader.0.mistake(Position { line: 1, column: 1 }, "the file holds nothing");
            Vec::new()
        }
    };
    reader.0.finish(backends)
}

struct Reader<'a>(StrictReader<'a>);

impl Reader<'_> {
    fn root(&mut self, root: &Node) -> Vec<Backend> {
        let entries = self.0.fields(root, &["backends", "defaultMaxJobs"]);
        let default = find(entries, "defaultMaxJobs").and_then(|node| self.max_jobs(node));
        let default = default.unwrap_or(limits::JOBS_PER_BACKEND_DEFAULT);
        let list = match find(entries, "backends") {
            Some(Node { value: Value::List(list), .. }) => list.as_slice(),
            Some(node) => {
                self.0.mistake(node.at, format!("`backends` is {}, not a list", node.kind()));
                return Vec::new();
            }
            None => &[],
        };
        if list.is_empty() && self.0.mistakes() == 0 {
            self.0.mistake(root.at, "the file names no backend").hint =
                Some("add at least one entry with `addr` and `arch` to `backends`".to_owned());
        }
        if list.len() > limits::BACKENDS_MAX {
            let message = format!("{} backends, more than {}", list.len(), limits::BACKENDS_MAX);
            self.0.mistake(root.at, message);
            return Vec::new();
        }
        let mut backends = Vec::new();
        let mut seen = std::collections::BTreeMap::new();
        for node in list {
            let Some((at, backend)) = self.backend(node, default) else { continue };
            if let Some(first) = seen.insert(backend.addr().to_owned(), at) {
                let message = format!("the address {} is given twice", backend.addr());
                self.0.mistake(at, message).hint = Some(format!("its first place is line {}", first.line));
            }
            backends.push(backend);
        }
        backends
    }

    fn backend(&mut self, node: &Node, default_max_jobs: u32) -> Option<(Position, Backend)> {
        let before = self.0.mistakes();
        let entries = self.0.fields(node, &["addr", "arch", "labels", "maxJobs", "cpus", "memory"]);
        for name in ["addr", "arch"] {
            if self.0.mistakes() == before && find(entries, name).is_none() {
                self.0.mistake(node.at, format!("this backend has no `{name}`"));
            }
        }
        let addr = find(entries, "addr");
        let addr_text = addr.and_then(|node| self.0.text(node));
        if let (Some(node), Some(Err(error))) = (addr, addr_text.map(str::parse::<BackendAddress>)) {
            self.0.error(node.at, &error);
        }
        let arch = find(entries, "arch").and_then(|node| {
            let arch = self.0.text(node)?.parse::<Arch>();
            arch.map_err(|error| self.0.error(node.at, &error)).ok()
        });
        let labels = find(entries, "labels").map(|node| self.labels(node)).unwrap_or_default();
        let max_jobs = find(entries, "maxJobs").and_then(|node| self.max_jobs(node));
        let cpus = find(entries, "cpus").and_then(|node| self.0.text(node));
        let memory = find(entries, "memory").and_then(|node| self.0.text(node));
        let capacity = BackendCapacity::read(cpus, memory).unwrap_or_else(|wrong| {
            for (field, error) in wrong {
                self.0.error(find(entries, field).map_or(node.at, |node| node.at), &error);
            }
            BackendCapacity::default()
        });
        if self.0.mistakes() > before {
            return None;
        }
        let backend = Backend::new(addr_text?, arch?, labels)
            .and_then(|backend| backend.with_max_jobs(max_jobs.unwrap_or(default_max_jobs)));
        let backend = backend.map_err(|error| self.0.error(node.at, &error)).ok()?.with_capacity(capacity);
        Some((addr.map_or(node.at, |node| node.at), backend))
    }

    fn labels(&mut self, node: &Node) -> Labels {
        let Value::Map(entries) = &node.value else {
            self.0.mistake(node.at, format!("`labels` is {}, not a map", node.kind()));
            return Labels::default();
        };
        let mut pairs = Vec::new();
        for (key, value) in entries {
            let Some(text) = self.0.text(value) else { continue };
            // One by one first, so that the mistake points at its own line.
            match Labels::from_pairs([(key.text.as_str(), text)]) {
                Ok(_) => pairs.push((key.text.as_str(), text)),
                Err(error) => self.0.error(key.at, &error),
            }
        }
        Labels::from_pairs(pairs).map_err(|error| self.0.error(node.at, &error)).unwrap_or_default()
    }

    fn max_jobs(&mut self, node: &Node) -> Option<u32> {
        let text = self.0.text(node)?;
        let Ok(number) = text.parse::<u32>() else {
            self.0.mistake(node.at, format!("{text:?} is not a whole number"));
            return None;
        };
        check_max_jobs(number).map_err(|error| self.0.error(node.at, &error)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::diagnostics::Diagnostic;

    fn mistakes(text: &str) -> Vec<String> {
        let error = read(&Source::new("b.yaml", text)).unwrap_err();
        error.0.iter().map(Diagnostic::summary).collect()
    }

    #[test]
    fn the_example_of_the_product_document_reads() {
        let text = "backends:\n  # x86_64 backends\n  - addr: tcp://amd64-standard:1234\n    arch: x86_64\n    labels:\n      tier: standard\n  - addr: tcp://arm64-standard:1234\n    arch: aarch64\n    maxJobs: 2\ndefaultMaxJobs: 7\n";
        let backends = read(&Source::new("b.yaml", text)).unwrap();
        assert_eq!(backends[0].max_jobs(), 7);
        assert_eq!(backends[0].labels().get("tier"), Some("standard"));
        assert_eq!((backends[1].arch(), backends[1].max_jobs()), (Arch::Aarch64, 2));
    }

    #[test]
    fn every_mistake_has_its_place() {
        let text = "backends:\n  - addr: nowhere\n    arch: z80\n  - adr: tcp://a:1\n  - addr: tcp://a:1\n    arch: x86_64\n    maxJobs: many\n    cpus: all\n  - {addr: tcp://b:1, arch: x86_64}\n  - {addr: tcp://b:1, arch: x86_64}\n";
        insta::assert_snapshot!(mistakes(text).join("\n"), @r#"
        b.yaml:2:11: not the address of a backend: "nowhere", it has no scheme
        b.yaml:3:11: unknown architecture "z80"
        b.yaml:4:5: unknown field `adr`
        b.yaml:7:14: "many" is not a whole number
        b.yaml:8:11: "all" is no quantity
        b.yaml:10:12: the address tcp://b:1 is given twice
        "#);
    }

    #[test]
    fn a_file_without_backends_is_refused() {
        assert_eq!(mistakes(""), ["b.yaml:1:1: the file holds nothing"]);
        assert_eq!(mistakes("backends: []\n"), ["b.yaml:1:1: the file names no backend"]);
        assert_eq!(mistakes("backends: {}\n"), ["b.yaml:1:11: `backends` is a map, not a list"]);
        assert_eq!(mistakes("- a\n"), ["b.yaml:1:1: expected a map, found a list"]);
        assert_eq!(
            mistakes("backends:\n  - addr: tcp://a:1\n    arch: x86_64\n    labels: {a b: c}\n"),
            ["b.yaml:4:14: the label key \"a b\" holds a character that keys must not have"]
        );
    }
}
