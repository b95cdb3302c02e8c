//! `melange remote why`.

use jiff::{SignedDuration, Timestamp};
use melange_remote_sdk::api::v1::{JobView, QueueView, WaitingView};

use crate::render::table;
use crate::shown;

/// Why a job waits, for people.
pub(super) fn text(job: &JobView, now: Timestamp) -> String {
    let Some(waiting) = &job.waiting else {
        return format!("it does not wait: it is {}\n", job.status);
    };
    let mut text = format!("{}: {}\n", waiting.reason, shown::word(&waiting.sentence));
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<10} {value}\n"));
    line("since", format!("{:.0} ({} ago)", waiting.since, span(now.duration_since(waiting.since))));
    if let Some(position) = waiting.position {
        line("position", position.to_string());
    }
    if let Some(at) = waiting.starts_at {
        line("begins", format!("about {at:.0} (in {})", span(at.duration_since(now))));
    } else if waiting.position.is_some() {
        line("begins", "unknown: no job has ended yet from which it could be told".to_owned());
    }
    for blocking in &waiting.blocked_by {
        let name =
            blocking.package.as_deref().map(|name| format!(" {}", shown::word(name))).unwrap_or_default();
        line("waits for", format!("{}{name} ({})", blocking.id, blocking.status));
    }
    for backend in &waiting.backends {
        let addr = shown::word(&backend.addr);
        line("backend", format!("{addr} {}/{} {}", backend.running, backend.max_jobs, backend.state));
    }
    if let Some(hint) = &waiting.hint {
        text.push_str(&format!("hint: {}\n", shown::word(hint)));
    }
    text.push_str(unknown_start(waiting).unwrap_or_default());
    text
}

/// What waits, and why, for people.
pub(super) fn queue(queue: &QueueView) -> String {
    let waiting = queue.blocked.saturating_add(queue.pending);
    let oldest = queue.oldest_at.map(|at| format!(", the oldest for {}", span(queue.at.duration_since(at))));
    let mut text = format!("{waiting} wait{}; {} run\n", oldest.unwrap_or_default(), queue.running);
    if !queue.reasons.is_empty() {
        let mut rows = vec![["REASON", "JOBS", "OLDEST", "WHY"].map(str::to_owned)];
        rows.extend(queue.reasons.iter().map(|reason| {
            let oldest = span(queue.at.duration_since(reason.since));
            [reason.reason.clone(), reason.jobs.to_string(), oldest, reason.sentence.clone()]
        }));
        text.push_str(&format!("\n{}", table(&rows)));
    }
    // One project alone says no more than the first line does.
    if queue.projects.len() > 1 {
        let mut rows = vec![["PROJECT", "RUNNING", "PENDING", "BLOCKED"].map(str::to_owned)];
        rows.extend(queue.projects.iter().map(|project| {
            let count = |count: u64| count.to_string();
            let name = project.project.clone();
            [name, count(project.running), count(project.pending), count(project.blocked)]
        }));
        text.push_str(&format!("\n{}", table(&rows)));
    }
    for reason in &queue.reasons {
        if let Some(hint) = reason.hint.as_ref().filter(|_| reason.reason != "capacity") {
            text.push_str(&format!("hint: {}: {}\n", reason.reason, shown::word(hint)));
        }
    }
    text
}

/// Of jobs that other jobs hold up the start follows from those.
fn unknown_start(waiting: &WaitingView) -> Option<&'static str> {
    (waiting.reason == "blocked")
        .then_some("hint: `melange remote why` of the first of them tells when that begins\n")
}

/// A time from seconds to days in two units.
fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let parts = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds;
    let mut words = Vec::new();
    for (size, unit) in parts {
        let count = left / size;
        left %= size;
        if count > 0 && words.len() < 2 {
            words.push(format!("{count}{unit}"));
        }
    }
    if words.is_empty() { "0s".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_told_with_its_reasons_and_projects() {
        let queue = |more: serde_json::Value| {
            let mut view = serde_json::json!({ "at": "2026-11-26T10:10:00Z", "blocked": 0, "pending": 0, "running": 2,
                "reasons": [], "projects": [{ "project": "a", "blocked": 0, "pending": 0, "running": 2 }] });
            view.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            super::queue(&serde_json::from_value(view).unwrap())
        };
        assert_eq!(queue(serde_json::json!({})), "0 wait; 2 run\n");
        let told = queue(serde_json::json!({
            "blocked": 3, "pending": 9, "oldest_at": "2026-11-26T10:00:00Z",
            "reasons": [
                { "reason": "capacity", "sentence": "all 2 matching backends are busy", "jobs": 8,
                  "since": "2026-11-26T10:05:00Z", "hint": "time helps" },
                { "reason": "blocked", "sentence": "they wait for other jobs", "jobs": 3, "since": "2026-11-26T10:00:00Z" },
                { "reason": "no_backend", "sentence": "no aarch64 backend (there are x86_64)", "jobs": 1,
                  "since": "2026-11-26T10:09:58Z", "hint": "melange remote backends add ADDRESS --arch aarch64" },
            ],
            "projects": [
                { "project": "a", "blocked": 3, "pending": 8, "running": 2 },
                { "project": "b", "blocked": 0, "pending": 1, "running": 0 },
            ],
        }));
        let expected = "\
12 wait, the oldest for 10m; 2 run

REASON      JOBS  OLDEST  WHY
capacity    8     5m      all 2 matching backends are busy
blocked     3     10m     they wait for other jobs
no_backend  1     2s      no aarch64 backend (there are x86_64)

PROJECT  RUNNING  PENDING  BLOCKED
a        2        8        3
b        0        1        0
hint: no_backend: melange remote backends add ADDRESS --arch aarch64
";
        assert_eq!(told, expected);
    }

    fn why(waiting: &str) -> String {
        let job = format!(
            "{{\"id\":\"x\",\"status\":\"pending\",\"spec\":{{\"arch\":\"x86_64\"}},\
             \"created_at\":\"2026-11-26T10:00:00Z\"{waiting}}}"
        );
        let job: JobView = serde_json::from_str(&job).unwrap();
        text(&job, "2026-11-26T11:01:05Z".parse().unwrap())
    }

    #[test]
    fn everything_that_is_known_is_told() {
        let told = why(r#","waiting":{"reason":"capacity","sentence":"all 2 matching backends are busy",
            "since":"2026-11-26T10:00:00Z","hint":"time helps","position":3,"starts_at":"2026-11-26T11:03:00Z",
            "backends":[{"addr":"tcp://a:1","running":1,"max_jobs":2,"state":"busy"}]}"#);
        let expected = "capacity: all 2 matching backends are busy\n\
            \x20 since      2026-11-26T10:00:00Z (1h 1m ago)\n\
            \x20 position   3\n\
            \x20 begins     about 2026-11-26T11:03:00Z (in 1m 55s)\n\
            \x20 backend    tcp://a:1 1/2 busy\n\
            hint: time helps\n";
        assert_eq!(told, expected);
        let told = why(r#","waiting":{"reason":"blocked","sentence":"it waits for zlib, which is running",
            "since":"2026-11-26T11:01:05Z","blocked_by":[{"id":"y","status":"running","package":"zlib\u001b[2J"}]}"#);
        let expected = "blocked: it waits for zlib, which is running\n\
            \x20 since      2026-11-26T11:01:05Z (0s ago)\n\
            \x20 waits for  y zlib\\u{1b}[2J (running)\n\
            hint: `melange remote why` of the first of them tells when that begins\n";
        assert_eq!(told, expected);
        assert_eq!(why(""), "it does not wait: it is pending\n");
    }
}
