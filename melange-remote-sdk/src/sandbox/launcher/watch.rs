//! The bound on what a guest writes to its tree. No file system limit fits a folder, so it is measured while steps
//! run, as often as measuring costs little.

use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::children::{Children, alone};
use super::program;

/// The first look at a step's tree comes after this time.
const FIRST: Duration = Duration::from_millis(500);
/// The pause between two looks is at least this long.
const PAUSE: Duration = Duration::from_secs(5);
/// Of the time that a step takes, at most this part goes into looking.
const SHARE: u32 = 50;

#[derive(Default)]
struct State {
    over: bool,
    exceeded: bool,
}

/// Watches a step's tree and ends the step that writes too much; dropping it ends the watch.
pub(super) struct Watch {
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Watch {
    /// Watches `folder`, from the guest's folder, until dropped.
    pub(super) fn start(folder: &'static str, bytes_max: u64, children: &Arc<Children>) -> Self {
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let (shared, children) = (Arc::clone(&state), Arc::clone(children));
        std::thread::spawn(move || watch(folder, bytes_max, &children, &shared));
        Self { state }
    }

    /// Whether the step was ended.
    pub(super) fn exceeded(&self) -> bool {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner).exceeded
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // From here on the thread ends nothing; nobody waits for it.
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.state.1.notify_all();
    }
}

fn watch(folder: &str, bytes_max: u64, children: &Children, shared: &(Mutex<State>, Condvar)) {
    let (state, changed) = shared;
    let mut pause = FIRST;
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
        if size_of(folder).is_some_and(|bytes| bytes > bytes_max) {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            // The child of a later step is not this watch's.
            if !state.over {
                state.exceeded = true;
                children.kill();
            }
            return;
        }
        pause = PAUSE.max(begin.elapsed().saturating_mul(SHARE));
    }
}

/// Bytes on disk below a folder. Files that come and go meanwhile are counted or not.
fn size_of(folder: &str) -> Option<u64> {
    let mut du = program("du");
    du.args(["-skx", "--", folder]).stdout(Stdio::piped()).stderr(Stdio::null());
    let started = {
        let _alone = alone();
        du.spawn()
    };
    let output = started.ok()?.wait_with_output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.split_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(1 << 10))
}
