//! Sessions: what a shell makes of the joined script, filed under the right steps however the streams arrive.

use std::process::Command;

use super::*;

#[derive(Default)]
struct Kept(Mutex<Vec<BuildEvent>>);

#[async_trait::async_trait]
impl BuildSink for Kept {
    fn emit(&self, event: BuildEvent) {
        self.0.lock().unwrap().push(event);
    }

    async fn ready(&self) {}
}

/// What came of a session.
struct Seen {
    events: Vec<BuildEvent>,
    exit_code: i32,
    failure: StepFailure,
}

impl Seen {
    /// The lines of the step with a number in one stream.
    fn lines(&self, wanted: LogStream, index: usize) -> Vec<&str> {
        let line = |event| match event {
            &BuildEvent::Log { stream, step, ref line } => {
                (stream == wanted && step == Some(index)).then_some(line.as_str())
            }
            _ => None,
        };
        self.events.iter().filter_map(line).collect()
    }

    /// Beginnings and ends: `+0`, `-0`.
    fn steps(&self) -> Vec<String> {
        let step = |event: &BuildEvent| match event {
            BuildEvent::StepStarted { index, .. } => Some(format!("+{index}")),
            BuildEvent::StepFinished { index, .. } => Some(format!("-{index}")),
            _ => None,
        };
        self.events.iter().filter_map(step).collect()
    }
}

/// In which order the lines of the two streams arrive.
#[derive(Debug, Clone, Copy)]
enum Order {
    OutFirst,
    ErrFirst,
    InTurn,
}

const ORDERS: [Order; 3] = [Order::OutFirst, Order::ErrFirst, Order::InTurn];

/// Has a shell run a session of `scripts` and hands its lines to a sink, cut as the runners cut them.
fn session(scripts: &[&str], order: Order) -> Seen {
    let folder = tempfile::tempdir().unwrap();
    let step = |(index, script): (usize, &&str)| GuestStep {
        name: format!("step {index}"),
        script: (*script).to_owned(),
        environment: Vec::new(),
        network: true,
    };
    let joined = join("test", scripts.iter().enumerate().map(step).collect());
    let place = |path: &str| folder.path().join(path.trim_start_matches('/')).display().to_string();
    for (index, script) in joined.scripts.iter().enumerate() {
        let path = place(&guest::script_path(index));
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(path, script).unwrap();
    }
    let driver = joined.step.script.replace(guest::SCRIPTS, &place(guest::SCRIPTS));
    let driver = driver.replace(guest::OUTPUT, &place(guest::OUTPUT));
    let output = Command::new("sh").arg("-c").arg(driver).output().unwrap();
    let exit_code = output.status.code().unwrap();

    let kept = Arc::new(Kept::default());
    let names = (0..scripts.len()).map(|index| format!("step {index}")).collect();
    let sink = SessionSink::new(Arc::clone(&kept) as _, joined.mark, names, 0, scripts.len());
    let lines = |bytes: &[u8], stream: LogStream| -> VecDeque<BuildEvent> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let cut = |line: &str| line[..line.len().min(limits::LOG_LINE_BYTES_MAX)].to_owned();
        text.lines().map(|line| BuildEvent::Log { stream, step: Some(0), line: cut(line) }).collect()
    };
    let mut out = lines(&output.stdout, LogStream::Stdout);
    let mut err = lines(&output.stderr, LogStream::Stderr);
    match order {
        Order::OutFirst => out.into_iter().chain(err).for_each(|event| sink.emit(event)),
        Order::ErrFirst => err.into_iter().chain(out).for_each(|event| sink.emit(event)),
        Order::InTurn => {
            while !(out.is_empty() && err.is_empty()) {
                out.pop_front().into_iter().chain(err.pop_front()).for_each(|event| sink.emit(event));
            }
        }
    }
    let failure = sink.finish(exit_code);
    let events = std::mem::take(&mut *kept.0.lock().unwrap());
    Seen { events, exit_code, failure }
}

#[test]
fn lines_are_filed_under_their_steps_without_the_newlines_of_marks() {
    for order in ORDERS {
        let seen =
            session(&["echo a; echo b >&2", "", "echo; echo c; echo", "printf d; printf e >&2"], order);
        assert_eq!(seen.exit_code, 0);
        assert_eq!(seen.steps(), ["+0", "-0", "+1", "-1", "+2", "-2", "+3", "-3"], "{order:?}");
        let out: Vec<_> = (0..4).map(|index| seen.lines(LogStream::Stdout, index)).collect();
        assert_eq!(out, [vec!["a"], vec![], vec!["", "c", ""], vec!["d"]], "{order:?}");
        let err: Vec<_> = (0..4).map(|index| seen.lines(LogStream::Stderr, index)).collect();
        assert_eq!(err, [vec!["b"], vec![], vec![], vec!["e"]], "{order:?}");
    }
}

#[test]
fn a_line_without_an_end_beyond_the_limit_does_not_hide_the_mark_behind_it() {
    for order in ORDERS {
        let seen =
            session(&["printf '%020000d' 0", "printf '%020000d' 0 >&2; echo two", "echo why; exit 7"], order);
        assert_eq!(seen.steps(), ["+0", "-0", "+1", "-1", "+2"], "{order:?}");
        let long = "0".repeat(limits::LOG_LINE_BYTES_MAX);
        assert_eq!(seen.lines(LogStream::Stdout, 0), [&long]);
        assert_eq!(seen.lines(LogStream::Stderr, 1), [&long]);
        assert_eq!(seen.lines(LogStream::Stdout, 1), ["two"]);
        assert_eq!((seen.failure.step.as_str(), seen.failure.exit_code), ("step 2", 7));
        assert_eq!(seen.failure.tail, ["why"], "{order:?}");
    }
}

#[test]
fn floods_of_both_streams_stay_with_their_steps() {
    let flood = |word: &str| {
        let count = limits::EVENT_QUEUE_MAX + 904;
        format!(
            "i=0; while [ $i -lt {count} ]; do echo {word} $i; echo {word} $i >&2; i=$((i + 1)); done; echo; exit 0"
        )
    };
    let (one, two) = (flood("one"), flood("two"));
    for order in ORDERS {
        let seen = session(&[&one, &two, "echo three; echo three >&2; exit 3"], order);
        assert_eq!(seen.steps(), ["+0", "-0", "+1", "-1", "+2"], "{order:?}");
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            for (index, word) in [(0, "one"), (1, "two")] {
                let lines = seen.lines(stream, index);
                let of_others = lines.iter().filter(|line| !line.is_empty() && !line.starts_with(word));
                assert_eq!(of_others.count(), 0, "{order:?} {stream:?}");
                let blank = usize::from(stream == LogStream::Stdout);
                assert_eq!(lines.len(), limits::EVENT_QUEUE_MAX + 904 + blank, "{order:?} {stream:?}");
            }
            assert_eq!(seen.lines(stream, 2), ["three"], "{order:?} {stream:?}");
        }
        assert_eq!(seen.failure.step, "step 2");
        assert_eq!(seen.failure.tail, ["three", "three"], "{order:?}");
    }
}

#[test]
fn the_failing_step_is_named_whichever_it_is() {
    let all = ["echo 0", "printf 1", "echo 2 >&2", "true"];
    for order in ORDERS {
        for failing in 0..all.len() {
            let mut scripts = all;
            scripts[failing] = "printf why; exit 9";
            let seen = session(&scripts, order);
            assert_eq!(seen.failure.step, format!("step {failing}"), "{order:?}");
            assert_eq!((seen.exit_code, seen.failure.exit_code), (9, 9));
            assert_eq!(seen.failure.tail, ["why"], "{order:?}");
            // It began, and did not end well.
            assert_eq!(seen.steps().len(), 2 * failing + 1, "{order:?}");
        }
    }
}

/// The lines of one stream, in a sink that gets nothing else, and what the sink makes of the end.
fn told(lines: &[&str]) -> (Vec<String>, String) {
    let kept = Arc::new(Kept::default());
    let names = (0..4).map(|index| format!("step {index}")).collect();
    let sink = SessionSink::new(Arc::clone(&kept) as _, "@@ ".to_owned(), names, 0, 4);
    for line in lines {
        let line = (*line).to_owned();
        sink.emit(BuildEvent::Log { stream: LogStream::Stdout, step: Some(0), line });
    }
    let failure = sink.finish(1);
    let shown = |event: BuildEvent| match event {
        BuildEvent::StepStarted { index, .. } => format!("+{index}"),
        BuildEvent::StepFinished { index, .. } => format!("-{index}"),
        BuildEvent::Log { step, line, .. } => format!("{} {line}", step.unwrap()),
        other => panic!("{other:?}"),
    };
    let events = std::mem::take(&mut *kept.0.lock().unwrap());
    (events.into_iter().map(shown).collect(), failure.step)
}

#[test]
fn lost_marks_are_made_up_for_by_the_next_one() {
    let (events, failed) = told(&["@@ begin 0", "a", "@@ begin 2", "c", "@@ failed 2"]);
    assert_eq!(events, ["+0", "0 a", "-0", "+1", "-1", "+2", "2 c"]);
    assert_eq!(failed, "step 2");
    let (events, failed) = told(&["@@ begin 0", "a", "@@ end 2", "@@ begin 3", "@@ failed 3"]);
    assert_eq!(events, ["+0", "0 a", "-0", "+1", "-1", "+2", "-2", "+3"]);
    assert_eq!(failed, "step 3");
}

#[test]
fn what_only_looks_like_a_mark_is_a_line() {
    let (events, _) =
        told(&["@@ begin 0", "@@ begin 4", "@@ end", "@@ end -1", "@@ stop 1", "", "x@@ end 0"]);
    assert_eq!(events, ["+0", "0 @@ begin 4", "0 @@ end", "0 @@ end -1", "0 @@ stop 1", "0 ", "0 x", "-0"]);
}
