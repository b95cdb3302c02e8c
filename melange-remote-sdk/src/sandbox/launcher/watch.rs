//! The bound on what a guest writes to its tree. No file system limit fits a folder, so it is measured while steps
//! run, as often as measuring costs little.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::children::{Children, alone};
use super::program;

/// The first look at a step's tree comes after this time.
const FIRST: Duration = Duration::from_millis(500);
/// The pause between two looks is at least this long.
const PAUSE: Duration = Duration::from_secs(5);
/// The same after a look that told nothing.
const PAUSE_OF_FAILURES: Duration = Duration::from_secs(1);
/// A step that cannot be looked at so often in a row is ended.
const FAILURES_MAX: u32 = 5;
/// Of the time that a step takes, at most this part goes into looking.
const SHARE: u32 = 50;

/// Measures folders on a thread of its own, which was started before the launcher joined the guest's groups: where
/// groups have single threads, a step that fills them up takes nothing from it.
pub(super) struct Measurer {
    asked: Sender<(PathBuf, Sender<Option<u64>>)>,
}

impl Measurer {
    pub(super) fn start() -> Self {
        let (asked, questions) = channel::<(PathBuf, Sender<Option<u64>>)>();
        std::thread::spawn(move || {
            for (folder, answer) in questions {
                // Whoever asked may not wait any more.
                let _ = answer.send(size_of(&folder));
            }
        });
        Self { asked }
    }

    fn measure(&self, folder: &Path) -> Option<u64> {
        let (answer, answered) = channel();
        self.asked.send((folder.to_owned(), answer)).ok()?;
        answered.recv().ok()?
    }
}

/// Why a step was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It wrote more than it may.
    TooMuch,
    /// What it wrote could not be measured.
    Unmeasured,
}

#[derive(Default)]
struct State {
    over: bool,
    ended: Option<Ended>,
}

/// Watches a step's tree and ends the step that writes too much; dropping it ends the watch.
pub(super) struct Watch {
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Watch {
    /// Watches `folder`, as it is named outside of the guest, until dropped.
    pub(super) fn start(
        measurer: &Arc<Measurer>,
        folder: PathBuf,
        bytes_max: u64,
        children: &Arc<Children>,
    ) -> Self {
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let (shared, children, measurer) = (Arc::clone(&state), Arc::clone(children), Arc::clone(measurer));
        std::thread::spawn(move || watch(&measurer, &folder, bytes_max, &children, &shared));
        Self { state }
    }

    /// Why the step was ended, if it was.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner).ended
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // From here on the thread ends nothing; nobody waits for it.
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.state.1.notify_all();
    }
}

fn watch(
    measurer: &Measurer,
    folder: &Path,
    bytes_max: u64,
    children: &Children,
    shared: &(Mutex<State>, Condvar),
) {
    let (state, changed) = shared;
    let (mut pause, mut failures) = (FIRST, 0);
    loop {
        let waited = changed.wait_timeout_while(
            state.lock().unwrap_or_else(PoisonError::into_inner),
            pause,
            |state| !state.over,
        );
        if waited.unwrap_or_else(PoisonError::into_inner).0.over {
            return;
        }
        let begin = Instant::now();
        let ended = match measurer.measure(folder) {
            Some(bytes) if bytes > bytes_max => Some(Ended::TooMuch),
            Some(_) => {
                (failures, pause) = (0, PAUSE.max(begin.elapsed().saturating_mul(SHARE)));
                None
            }
            None => {
                (failures, pause) = (failures + 1, PAUSE_OF_FAILURES);
                (failures >= FAILURES_MAX).then_some(Ended::Unmeasured)
            }
        };
        if ended.is_some() {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            // The child of a later step is not this watch's.
            if !state.over {
                state.ended = ended;
                children.kill();
            }
            return;
        }
    }
}

/// Bytes on disk below a folder. Files that come and go meanwhile are counted or not.
fn size_of(folder: &Path) -> Option<u64> {
    let mut du = program("du");
    du.args(["-skx", "--"]).arg(folder).stdout(Stdio::piped()).stderr(Stdio::null());
    let started = {
        let _alone = alone();
        du.spawn()
    };
    let output = started.ok()?.wait_with_output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.split_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(1 << 10))
}
