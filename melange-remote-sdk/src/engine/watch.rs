//! Watches a guest that runs: one that says nothing for too long is stopped.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::builder::{BuildEvent, BuildSink, Phase};
use crate::error::Result;
use crate::guest::{GuestOutcome, GuestPlan, GuestRunner};

/// A runner, and the time that its guests may be silent.
pub(super) struct Watch<'a> {
    pub(super) runner: &'a dyn GuestRunner,
    pub(super) silence: Option<Duration>,
}

/// How a watched guest ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// By itself, or because it was cancelled.
    Ended(GuestOutcome),
    /// It was stopped; why, in one line.
    Silent(String),
}

impl Watch<'_> {
    /// Runs `plan` as [`GuestRunner::run`] does; tells also how long the upload of its environment took.
    pub(super) async fn run(
        &self,
        plan: &GuestPlan,
        output: &Path,
        sink: Arc<dyn BuildSink>,
        cancel: &CancellationToken,
    ) -> (Result<Watched>, Duration) {
        let heard = Heard { last: Instant::now(), step: None, upload: Duration::ZERO };
        let listener = Arc::new(Listener { sink, heard: Mutex::new(heard) });
        let ended = self.watched(plan, output, &listener, cancel).await;
        let upload = listener.lock().upload;
        (ended, upload)
    }

    async fn watched(
        &self,
        plan: &GuestPlan,
        output: &Path,
        listener: &Arc<Listener>,
        cancel: &CancellationToken,
    ) -> Result<Watched> {
        let stop = cancel.child_token();
        let work = self.runner.run(plan, output, Arc::clone(listener) as _, stop.clone());
        let Some(silence) = self.silence else { return work.await.map(Watched::Ended) };
        tokio::pin!(work);
        let step = tokio::select! {
            ended = &mut work => return ended.map(Watched::Ended),
            step = listener.silent_for(silence) => step,
        };
        // The guest is seen to its end, so that nothing of it is left.
        stop.cancel();
        let ended = work.await?;
        if ended != GuestOutcome::Cancelled || cancel.is_cancelled() {
            return Ok(Watched::Ended(ended));
        }
        let step = step.map(|name| format!("the step `{name}`")).unwrap_or_else(|| "the build".to_owned());
        Ok(Watched::Silent(format!("{step} was stopped: it said nothing for {} s", silence.as_secs())))
    }
}

/// Passes events on and remembers what matters of them.
struct Listener {
    sink: Arc<dyn BuildSink>,
    heard: Mutex<Heard>,
}

struct Heard {
    /// When the last event came.
    last: Instant,
    /// The step that runs.
    step: Option<String>,
    /// How long the upload took, once it is over.
    upload: Duration,
}

impl Listener {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing came for `silence`; returns the name of the step that runs.
    async fn silent_for(&self, silence: Duration) -> Option<String> {
        loop {
            let due = self.lock().last + silence;
            if due <= Instant::now() {
                return self.lock().step.clone();
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

#[async_trait]
impl BuildSink for Listener {
    fn emit(&self, event: BuildEvent) {
        let mut heard = self.lock();
        heard.last = Instant::now();
        match &event {
            BuildEvent::StepStarted { name, .. } => heard.step = Some(name.clone()),
            BuildEvent::PhaseFinished { phase: Phase::Upload, took } => heard.upload = *took,
            _ => {}
        }
        drop(heard);
        self.sink.emit(event);
    }

    async fn ready(&self) {
        self.sink.ready().await;
        // A guest that was held up by a slow reader was not silent.
        self.lock().last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::builder::NullSink;
    use crate::guest::{Blob, GuestUser, Layers, RootForm};

    /// Speaks once a minute for some minutes, then is silent until it is cancelled.
    #[derive(Debug)]
    struct Mumbler(u32);

    #[async_trait]
    impl GuestRunner for Mumbler {
        async fn root_form(&self) -> RootForm {
            RootForm::Archive
        }

        async fn run(
            &self,
            _plan: &GuestPlan,
            _output: &Path,
            sink: Arc<dyn BuildSink>,
            cancel: CancellationToken,
        ) -> Result<GuestOutcome> {
            for index in 0..self.0 {
                sink.emit(BuildEvent::StepStarted { index: 0, total: 1, name: format!("s{index}") });
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            cancel.cancelled().await;
            Ok(GuestOutcome::Cancelled)
        }
    }

    fn plan() -> GuestPlan {
        let nothing = Blob { path: "/x".into(), sha256: String::new(), size_bytes: 0 };
        GuestPlan {
            name: "x".to_owned(),
            arch: Arch::X86_64,
            root: nothing.clone(),
            layers: Layers::default(),
            workspace: vec![nothing],
            sources: Vec::new(),
            steps: Vec::new(),
            scripts: Vec::new(),
            shared_root: true,
            user: GuestUser { uid: 0, gid: 0 },
            capabilities: Vec::new(),
            resources: crate::guest::GuestResources::default(),
            license_files: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_guest_is_stopped_and_a_talking_one_is_not() {
        let begun = Instant::now();
        let watch = Watch { runner: &Mumbler(10), silence: Some(Duration::from_secs(90)) };
        let cancel = CancellationToken::new();
        let watched = watch.run(&plan(), Path::new("/x"), Arc::new(NullSink), &cancel).await.0.unwrap();
        assert_eq!(
            watched,
            Watched::Silent("the step `s9` was stopped: it said nothing for 90 s".to_owned())
        );
        // It spoke last at the beginning of its tenth minute.
        assert_eq!(begun.elapsed().as_secs(), 540 + 90);
        assert!(!cancel.is_cancelled(), "the build's own token is not used");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_guest_is_told_as_cancelled() {
        let watch = Watch { runner: &Mumbler(0), silence: Some(Duration::from_secs(90)) };
        let cancel = CancellationToken::new();
        cancel.cancel();
        let watched = watch.run(&plan(), Path::new("/x"), Arc::new(NullSink), &cancel).await.0.unwrap();
        assert_eq!(watched, Watched::Ended(GuestOutcome::Cancelled));
    }
}
