//! When the phases and steps of builds began and ended, in the form of `chrome://tracing` and Perfetto.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use melange_remote_sdk::builder::{BuildEvent, BuildSink};
use serde_json::{Value, json};

/// Notes what goes by on its way to another sink. Clones note into the same trace.
#[derive(Clone)]
pub(super) struct Trace {
    begun: Instant,
    noted: Arc<Mutex<Vec<Value>>>,
}

impl Trace {
    pub(super) fn start() -> Self {
        Self { begun: Instant::now(), noted: Arc::default() }
    }

    /// A sink that notes the events of a build, called `name`, and hands them on.
    pub(super) fn of(&self, name: String, inner: Arc<dyn BuildSink>) -> Arc<dyn BuildSink> {
        Arc::new(Traced { trace: self.clone(), name, inner, open: Mutex::default() })
    }

    /// Writes what was noted so far.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let text = json!({ "traceEvents": *noted, "displayTimeUnit": "ms" }).to_string();
        std::fs::write(path, text)
    }
}

struct Traced {
    trace: Trace,
    name: String,
    inner: Arc<dyn BuildSink>,
    /// What has begun and not ended: its name and when, in microseconds.
    open: Mutex<BTreeMap<String, (String, u64)>>,
}

impl Traced {
    fn now(&self) -> u64 {
        u64::try_from(self.trace.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn begin(&self, key: String, name: String) {
        let at = self.now();
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (name, at));
    }

    fn end(&self, key: &str, kind: &str) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        let Some((name, at)) = open else { return };
        let span = json!({
            "name": name, "cat": kind, "ph": "X", "ts": at, "dur": self.now().saturating_sub(at), "pid": self.name, "tid": kind,
        });
        self.trace.noted.lock().unwrap_or_else(PoisonError::into_inner).push(span);
    }
}

#[async_trait]
impl BuildSink for Traced {
    async fn ready(&self) {
        self.inner.ready().await;
    }

    fn emit(&self, event: BuildEvent) {
        match &event {
            BuildEvent::PhaseStarted { phase } => {
                self.begin(format!("phase {}", phase.name()), phase.name().to_owned());
            }
            BuildEvent::PhaseFinished { phase, .. } => self.end(&format!("phase {}", phase.name()), "phase"),
            BuildEvent::StepStarted { index, name, .. } => self.begin(format!("step {index}"), name.clone()),
            BuildEvent::StepFinished { index, .. } => self.end(&format!("step {index}"), "step"),
            _ => {}
        }
        self.inner.emit(event);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use melange_remote_sdk::builder::Phase;

    use super::*;

    struct Nobody;

    #[async_trait]
    impl BuildSink for Nobody {
        async fn ready(&self) {}

        fn emit(&self, _event: BuildEvent) {}
    }

    #[test]
    fn phases_and_steps_are_spans_of_their_build() {
        let trace = Trace::start();
        let sink = trace.of("hello.yaml (x86_64)".to_owned(), Arc::new(Nobody));
        sink.emit(BuildEvent::PhaseStarted { phase: Phase::Steps });
        sink.emit(BuildEvent::StepStarted { index: 0, total: 1, name: "make".to_owned() });
        sink.emit(BuildEvent::StepFinished { index: 0, took: Duration::ZERO, cached: false });
        sink.emit(BuildEvent::PhaseFinished { phase: Phase::Steps, took: Duration::ZERO });
        // What ended without a beginning is none.
        sink.emit(BuildEvent::StepFinished { index: 1, took: Duration::ZERO, cached: false });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        trace.write(&path).unwrap();
        let read: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let spans = read["traceEvents"].as_array().unwrap();
        let told: Vec<_> = spans.iter().map(|span| (&span["name"], &span["cat"], &span["pid"])).collect();
        let build = json!("hello.yaml (x86_64)");
        assert_eq!(
            told,
            [
                (&json!("make"), &json!("step"), &build),
                (&json!(Phase::Steps.name()), &json!("phase"), &build)
            ]
        );
    }
}
