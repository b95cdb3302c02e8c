//! The BuildKit runner itself against a real daemon.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::backend::BackendAddress;
use melange_remote_sdk::builder::{BuildEvent, LogStream, Phase};
use melange_remote_sdk::buildkit::{BuildkitOptions, BuildkitRunner};
use melange_remote_sdk::error::ErrorKind;
use melange_remote_sdk::guest::{GuestOutcome, GuestUser};
use melange_remote_sdk::limits;
use melange_remote_sdk::llb::CacheMounts;
use rustix::process::{Signal, kill_process};
use tokio_util::sync::CancellationToken;

use crate::support::events::{Collected, PATIENCE, processes_with, wait_until};
use crate::support::guest::{Guest, daemon, run, runner, runner_with};
use crate::support::proxy::Proxy;
use crate::support::tree::{Entry, read_tar, write_tar};

#[tokio::test]
async fn steps_run_in_order_in_one_tree_and_the_output_comes_back() {
    let Some(socket) = daemon() else { return };
    let runner = runner(&socket);
    let mut guest = Guest::new("in-order").await;
    guest.plan.steps = vec![
        guest.step("first", "echo one > state; pwd; id -u; echo oops >&2"),
        guest.step("second", "cat state; mkdir -p melange-out/p/usr; mv state melange-out/p/usr/state"),
    ];
    for round in 0..2 {
        let done = run(&runner, &guest).await;
        assert_eq!(done.outcome.unwrap(), GuestOutcome::Succeeded);
        let started = |index, name: &str| BuildEvent::StepStarted { index, total: 2, name: name.to_owned() };
        let log =
            |stream, step, line: &str| BuildEvent::Log { stream, step: Some(step), line: line.to_owned() };
        let seen = done.events.sorted_lines();
        let want = [
            started(0, "first"),
            log(LogStream::Stdout, 0, "/home/build"),
            log(LogStream::Stdout, 0, "0"),
            log(LogStream::Stderr, 0, "oops"),
            BuildEvent::StepFinished { index: 0, took: Duration::ZERO, cached: false },
            started(1, "second"),
            log(LogStream::Stdout, 1, "one"),
            BuildEvent::StepFinished { index: 1, took: Duration::ZERO, cached: false },
        ];
        assert_eq!(seen, want, "round {round}: a repeated build runs its steps again");
        assert_eq!(done.entries["p/usr/state"].content, b"one\n");
        assert_eq!(done.entries["p/"].kind, "Directory");
        assert_eq!(done.entries.len(), 3);
    }
}

#[tokio::test]
async fn a_step_sees_its_environment_and_nothing_else() {
    let Some(socket) = daemon() else { return };
    let mut guest = Guest::new("environment").await;
    guest.plan.steps = vec![guest.step("env", "env | grep -v -E '^(PWD|SHLVL|OLDPWD)='; ls /run/melange")];
    let variables = [("PATH", "/bin"), ("HOME", "/home/build"), ("EMPTY", ""), ("TEXT", "a b=c \"$x\" é")];
    guest.plan.steps[0].environment = variables.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let done = run(&runner(&socket), &guest).await;
    assert_eq!(done.outcome.unwrap(), GuestOutcome::Succeeded);
    let lines: BTreeSet<String> = done.events.lines(0).into_iter().collect();
    let mut want: BTreeSet<String> = variables.iter().map(|(k, v)| format!("{k}={v}")).collect();
    want.insert("step-00000.sh".to_owned());
    assert_eq!(lines, want);
}

#[tokio::test]
async fn a_failed_step_gives_code_and_tail_and_ends_the_chain() {
    let Some(socket) = daemon() else { return };
    let mut guest = Guest::new("failing").await;
    guest.plan.steps = vec![
        guest.step("good", "echo fine"),
        guest.step("bad", "for i in $(seq 1 100); do echo line $i; done; printf 'no newline'; exit 37"),
        guest.step("never", "echo never"),
    ];
    let done = run(&runner(&socket), &guest).await;
    let GuestOutcome::StepFailed { index, failure } = done.outcome.unwrap() else { panic!("it failed") };
    assert_eq!((index, failure.step.as_str(), failure.exit_code), (1, "bad", 37));
    assert_eq!(failure.tail.len(), limits::LOG_TAIL_LINES);
    assert_eq!(failure.tail.last().unwrap(), "no newline");
    assert_eq!(done.events.lines(1).len(), 101);
    assert!(done.events.lines(2).is_empty());
    assert!(!done.events.all().iter().any(|e| matches!(e, BuildEvent::StepStarted { index: 2, .. })));
}

#[tokio::test]
async fn a_killed_step_has_128_and_the_signal() {
    let Some(socket) = daemon() else { return };
    let runner = Arc::new(runner(&socket));
    let mut guest = Guest::new("killed").await;
    let marker = guest.marker();
    guest.plan.steps = vec![guest.step("killed", &format!("exec sleep {marker}"))];
    let task = guest.spawn(&runner, &Arc::default(), &CancellationToken::new());
    wait_until(PATIENCE, || processes_with(&marker).len() == 1).await;
    // From outside: a guest's first process cannot kill itself.
    for process in processes_with(&marker) {
        kill_process(process, Signal::KILL).unwrap();
    }
    let GuestOutcome::StepFailed { failure, .. } = task.await.unwrap().unwrap() else { panic!("it failed") };
    assert_eq!(failure.exit_code, 137);
}

#[tokio::test]
async fn output_in_every_form_becomes_lines() {
    let Some(socket) = daemon() else { return };
    let mut guest = Guest::new("lines").await;
    let script = r"
        printf '10%%\r50%%\r100%%\n'; printf 'dos\r\n'; printf 'bad \377 byte\n'
        head -c 20000 /dev/zero | tr '\0' x; echo
        printf 'par'; sleep 0.5; printf 'tial\n'; printf 'last'
    ";
    guest.plan.steps = vec![guest.step("lines", script)];
    let done = run(&runner(&socket), &guest).await;
    assert_eq!(done.outcome.unwrap(), GuestOutcome::Succeeded);
    let cut = format!("{} [line cut, 3616 bytes dropped]", "x".repeat(limits::LOG_LINE_BYTES_MAX));
    assert_eq!(done.events.lines(0), ["100%", "dos", "bad \u{fffd} byte", &cut, "partial", "last"]);
}

#[tokio::test]
async fn logs_come_while_the_step_runs() {
    let Some(socket) = daemon() else { return };
    let runner = Arc::new(runner(&socket));
    let mut guest = Guest::new("live").await;
    let marker = guest.marker();
    guest.plan.steps = vec![guest.step("live", &format!("echo begun; exec sleep {marker}"))];
    let (events, cancel) = (Arc::new(Collected::default()), CancellationToken::new());
    let task = guest.spawn(&runner, &events, &cancel);
    wait_until(PATIENCE, || events.lines(0) == ["begun"]).await;
    wait_until(PATIENCE, || processes_with(&marker).len() == 1).await;
    let asked = Instant::now();
    cancel.cancel();
    assert_eq!(task.await.unwrap().unwrap(), GuestOutcome::Cancelled);
    assert_eq!(processes_with(&marker).len(), 0, "cancelled means that nothing runs any more");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn dropping_the_run_stops_the_guest() {
    let Some(socket) = daemon() else { return };
    let runner = Arc::new(runner(&socket));
    let mut guest = Guest::new("dropped").await;
    let marker = guest.marker();
    guest.plan.steps = vec![guest.step("sleep", &format!("exec sleep {marker}"))];
    let task = guest.spawn(&runner, &Arc::default(), &CancellationToken::new());
    wait_until(PATIENCE, || processes_with(&marker).len() == 1).await;
    task.abort();
    wait_until(PATIENCE, || processes_with(&marker).is_empty()).await;
}

#[tokio::test]
async fn a_token_used_before_the_run_starts_nothing() {
    let Some(socket) = daemon() else { return };
    let runner = Arc::new(runner(&socket));
    let mut guest = Guest::new("cancelled-early").await;
    guest.plan.steps = vec![guest.step("never", "echo never")];
    let (events, cancel) = (Arc::new(Collected::default()), CancellationToken::new());
    cancel.cancel();
    let task = guest.spawn(&runner, &events, &cancel);
    assert_eq!(task.await.unwrap().unwrap(), GuestOutcome::Cancelled);
    assert!(events.all().is_empty());
}

/// Everything that an output tree can hold, once from the workspace's tar and once made by a step.
#[tokio::test]
async fn the_output_keeps_owners_modes_links_and_xattrs() {
    let Some(socket) = daemon() else { return };
    let long = "x".repeat(255);
    let deep = format!("{}/{}/{}", "a".repeat(100), "b".repeat(100), "c".repeat(100));
    let capability: Vec<u8> = [1u32, 1 << 10, 0, 0, 0].iter().flat_map(|w| w.to_le_bytes()).collect();
    let capability = [&0x0200_0001u32.to_le_bytes(), &capability[4..]].concat();
    let mut guest = Guest::new("metadata").await;
    guest.workspace.extend([
        Entry::file("melange-out/p/suid", b"s").mode(0o4755).owner(0, 0),
        Entry::file("melange-out/p/owned", b"o").mode(0o2640).owner(1234, 5678),
        Entry::file("melange-out/p/cap", b"c")
            .mode(0o755)
            .xattr("security.capability", &capability)
            .xattr("user.comment", b"kept"),
        Entry::folder("melange-out/p/empty").mode(0o1777).owner(7, 8),
        Entry::symlink("melange-out/p/link", "../nowhere"),
        Entry::hard_link("melange-out/p/z-hard", "melange-out/p/suid").mode(0o4755),
        Entry::file(&format!("melange-out/p/{long}"), b"l"),
        Entry::file("melange-out/p/naïve ☃", b"u"),
    ]);
    guest.plan.steps = vec![guest.step(
        "make",
        &format!(
            "cd melange-out/p; mkdir -p {deep}; echo d > {deep}/f; echo n > new; chown 42:43 new; \
             chmod 6711 new; ln new new-hard; ln -s target new-link; mkdir own; chown 5:6 own; \
             chmod 700 own; touch -h -d @12345 new; touch .hidden; touch .wh.kept"
        ),
    )];
    let done = run(&runner(&socket), &guest).await;
    assert_eq!(done.outcome.unwrap(), GuestOutcome::Succeeded);
    let get = |name: &str| done.entries.get(name).unwrap_or_else(|| panic!("{name} is missing"));
    let facts = |name: &str| {
        let entry = get(name);
        (entry.kind.as_str(), entry.mode, entry.uid, entry.gid)
    };
    assert_eq!(facts("p/owned"), ("Regular", 0o2640, 1234, 5678));
    assert_eq!(facts("p/empty/"), ("Directory", 0o1777, 7, 8));
    assert_eq!(facts("p/own/"), ("Directory", 0o700, 5, 6));
    assert_eq!(get("p/link").kind, "Symlink");
    assert_eq!(get("p/link").link, "../nowhere");
    assert_eq!(facts("p/suid"), ("Regular", 0o4755, 0, 0));
    assert_eq!((get("p/z-hard").kind.as_str(), get("p/z-hard").link.as_str()), ("Link", "p/suid"));
    assert_eq!(facts("p/new"), ("Regular", 0o6711, 42, 43));
    assert_eq!(get("p/new").mtime, 12345);
    assert_eq!((get("p/new-hard").kind.as_str(), get("p/new-hard").link.as_str()), ("Link", "p/new"));
    assert_eq!(get("p/cap").xattrs["security.capability"], capability);
    assert_eq!(get("p/cap").xattrs["user.comment"], b"kept");
    for (name, content) in
        [(format!("p/{long}"), "l"), (format!("p/{deep}/f"), "d\n"), ("p/naïve ☃".into(), "u")]
    {
        assert_eq!(get(&name).content, content.as_bytes());
    }
    for name in ["p/.hidden", "p/.wh.kept"] {
        assert_eq!(get(name).kind, "Regular");
    }
    assert!(done.entries.keys().all(|name| !name.starts_with("./") && !name.starts_with('/')));
}

#[tokio::test]
async fn another_user_owns_what_it_makes_and_holds_no_capability() {
    let Some(socket) = daemon() else { return };
    let mut guest = Guest::new("user").await;
    guest.plan.user = GuestUser { uid: 1000, gid: 1001 };
    guest.workspace =
        vec![Entry::folder("").owner(1000, 1001), Entry::folder("melange-out").owner(1000, 1001)];
    guest.plan.steps = vec![guest.step(
        "user",
        "id -u; id -g; grep CapEff /proc/self/status; touch melange-out/mine /var/cache/melange/x",
    )];
    let done = run(&runner(&socket), &guest).await;
    assert_eq!(done.outcome.unwrap(), GuestOutcome::Succeeded);
    assert_eq!(done.events.lines(0), ["1000", "1001", "CapEff:\t0000000000000000"]);
    assert_eq!((done.entries["mine"].uid, done.entries["mine"].gid), (1000, 1001));
}

#[tokio::test]
async fn the_network_is_there_only_for_steps_that_may_use_it() {
    let Some(socket) = daemon() else { return };
    let mut guest = Guest::new("network").await;
    let script = "grep -c : /proc/net/dev; grep -q eth0 /proc/net/dev && echo wired || echo alone";
    guest.plan.steps = vec![guest.step("without", script), guest.step("with", script)];
    guest.plan.steps[1].network = true;
    let done = run(&runner(&socket), &guest).await;
    assert_eq!(done.outcome.unwrap(), GuestOutcome::Succeeded);
    assert_eq!(done.events.lines(0).last().unwrap(), "alone");
    assert_eq!(done.events.lines(1).last().unwrap(), "wired");
}

#[tokio::test]
async fn sources_are_read_only_files_and_leave_nothing_in_the_cache() {
    let Some(socket) = daemon() else { return };
    let namespace = format!("test-{}", uuid_like());
    let mut options = BuildkitOptions::default();
    options.cache = Some(CacheMounts::for_tools(&namespace));
    let runner = runner_with(&socket, options.clone());
    let mut guest = Guest::new("sources").await;
    guest.plan.user = GuestUser { uid: 1000, gid: 1000 };
    let name = guest.add_source(b"the source\n");
    let path = format!("/var/cache/melange/{name}");
    guest.plan.steps = vec![
        guest.step("read", &format!("cat {path}; (echo x > {path}) 2>/dev/null || echo refused")),
        guest.step("fill", "echo kept > /var/cache/melange/npm/file; ls /var/cache/melange"),
    ];
    let done = run(&runner, &guest).await;
    assert_eq!(done.outcome.unwrap(), GuestOutcome::Succeeded);
    assert_eq!(done.events.lines(0), ["the source", "refused"]);
    assert!(done.events.lines(1).contains(&name));

    let mut next = Guest::new("sources-next").await;
    next.plan.user = guest.plan.user;
    next.plan.steps =
        vec![next.step("look", "cat /var/cache/melange/npm/file; find /var/cache/melange -type f")];
    let done = run(&runner, &next).await;
    assert_eq!(done.events.lines(0), ["kept", "/var/cache/melange/npm/file"]);
}

#[tokio::test]
async fn a_large_environment_travels_once() {
    let Some(socket) = daemon() else { return };
    let mut guest = Guest::new("large").await;
    guest.add_to_root(Entry::file("big", &random_bytes(200 << 20)));
    guest.workspace.push(Entry::file("note", &random_bytes(10)));
    guest.plan.steps = vec![guest.step("look", "wc -c < /big")];
    let first = runner(&socket);
    let begun = Instant::now();
    let done = run(&first, &guest).await;
    let took_first = begun.elapsed();
    assert_eq!(done.outcome.unwrap(), GuestOutcome::Succeeded);
    assert_eq!(done.events.lines(0), [(200 << 20).to_string()]);
    let sent = first.transferred().sent_bytes;
    let plan = guest.ready();
    assert_eq!(sent, plan.root.size_bytes + plan.workspace[0].size_bytes);

    // Another runner, another connection, another session: only the daemon remembers.
    let second = runner(&socket);
    let begun = Instant::now();
    assert_eq!(run(&second, &guest).await.outcome.unwrap(), GuestOutcome::Succeeded);
    eprintln!("200 MB environment: first {took_first:?}, second {:?}", begun.elapsed());
    assert_eq!(second.transferred().sent_bytes, 0);
}

#[tokio::test]
async fn builds_of_one_plan_at_the_same_time_each_get_their_whole_log() {
    let Some(socket) = daemon() else { return };
    let runner = Arc::new(runner(&socket));
    let mut guest = Guest::new("together").await;
    guest.plan.steps = vec![guest.step("count", "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done")];
    let runs = (0..4).map(|_| async {
        let done = run(runner.as_ref(), &guest).await;
        assert_eq!(done.outcome.unwrap(), GuestOutcome::Succeeded);
        done.events.lines(0)
    });
    for lines in futures_util::future::join_all(runs).await {
        assert_eq!(lines, ["1", "2", "3", "4", "5"]);
    }
}

#[tokio::test]
async fn a_build_survives_the_end_of_the_one_that_carries_its_environment() {
    let Some(socket) = daemon() else { return };
    let runner = Arc::new(runner(&socket));
    let mut guest = Guest::new("shared-upload").await;
    guest.add_to_root(Entry::file("big", &random_bytes(300 << 20)));
    guest.plan.steps = vec![guest.step("look", "echo here")];
    let cancel = CancellationToken::new();
    let first = guest.spawn(&runner, &Arc::default(), &cancel);
    wait_until(PATIENCE, || runner.transferred().sent_bytes > 0).await;
    let guest = Arc::new(guest);
    let second = tokio::spawn({
        let (runner, guest) = (Arc::clone(&runner), Arc::clone(&guest));
        async move { run(runner.as_ref(), &guest).await }
    });
    let sent = runner.transferred().sent_bytes;
    wait_until(PATIENCE, || runner.transferred().sent_bytes > sent).await;
    cancel.cancel();
    assert_eq!(first.await.unwrap().unwrap(), GuestOutcome::Cancelled);
    let done = second.await.unwrap();
    assert_eq!(done.outcome.unwrap(), GuestOutcome::Succeeded);
    assert_eq!(done.events.lines(0), ["here"]);
}

#[tokio::test]
async fn a_lost_connection_is_unavailable_and_the_next_run_connects_anew() {
    let Some(socket) = daemon() else { return };
    let proxy = Proxy::start(&socket);
    let runner = Arc::new(runner(proxy.path()));
    let mut guest = Guest::new("lost").await;
    let marker = guest.marker();
    guest.plan.steps = vec![guest.step("sleep", &format!("echo begun; exec sleep {marker}"))];
    let events = Arc::new(Collected::default());
    let task = guest.spawn(&runner, &events, &CancellationToken::new());
    wait_until(PATIENCE, || events.lines(0) == ["begun"]).await;
    proxy.cut();
    let error = task.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    wait_until(PATIENCE, || processes_with(&marker).is_empty()).await;

    guest.plan.steps = vec![guest.step("again", "echo again")];
    let done = run(runner.as_ref(), &guest).await;
    assert_eq!(done.outcome.unwrap(), GuestOutcome::Succeeded);
}

#[tokio::test]
async fn a_slow_upload_is_a_phase_and_is_cancelled_at_once() {
    let Some(socket) = daemon() else { return };
    let proxy = Proxy::start_slow(&socket, 400_000);
    let runner = Arc::new(runner(proxy.path()));
    let mut guest = Guest::new("slow-upload").await;
    // Nobody has it yet, and at this rate it takes a minute.
    let noise = (0..3_000_000u64).flat_map(|n| (n ^ u64::from(std::process::id())).to_le_bytes());
    guest.add_to_root(Entry::file("noise", &noise.collect::<Vec<u8>>()));
    guest.plan.steps = vec![guest.step("never", "true")];
    let events = Arc::new(Collected::default());
    let cancel = CancellationToken::new();
    let task = guest.spawn(&runner, &events, &cancel);
    let began = |event: &BuildEvent| matches!(event, BuildEvent::PhaseStarted { phase: Phase::Upload });
    wait_until(PATIENCE, || events.all().iter().any(began)).await;
    let asked = Instant::now();
    cancel.cancel();
    assert_eq!(task.await.unwrap().unwrap(), GuestOutcome::Cancelled);
    let took = asked.elapsed();
    println!("a slow upload was cancelled in {took:?}");
    assert!(took < limits::BUILDKIT_CANCEL_GRACE, "it was not waited for");
}

#[tokio::test]
async fn a_silent_connection_is_noticed_by_the_sessions_health_checks() {
    let Some(socket) = daemon() else { return };
    let proxy = Proxy::start(&socket);
    let mut options = BuildkitOptions::default();
    options.stall = Duration::from_secs(8);
    let runner = Arc::new(runner_with(proxy.path(), options));
    let mut guest = Guest::new("stalled").await;
    let marker = guest.marker();
    // Longer than the stall, so that checks that arrive are seen not to end it.
    guest.plan.steps = vec![guest.step("sleep", &format!("sleep 10; echo begun; exec sleep {marker}"))];
    let events = Arc::new(Collected::default());
    let task = guest.spawn(&runner, &events, &CancellationToken::new());
    wait_until(PATIENCE, || events.lines(0) == ["begun"]).await;
    proxy.silence();
    let ended = tokio::time::timeout(PATIENCE, task).await.expect("the silence is noticed");
    let error = ended.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.chain().contains("the connection is silent"), "{}", error.chain());
    proxy.cut();
    wait_until(PATIENCE, || processes_with(&marker).is_empty()).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_plan_is_an_error_of_its_kind() {
    let Some(socket) = daemon() else { return };
    let runner = runner(&socket);
    let mut guest = Guest::new("no-shell").await;
    guest.root = vec![Entry::folder("bin")];
    guest.plan.steps = vec![guest.step("sh", "true")];
    let outcome = run(&runner, &guest).await.outcome.unwrap();
    let GuestOutcome::StepFailed { failure, .. } = outcome else { panic!("there is no shell") };
    assert!(failure.exit_code > 0 && failure.tail.concat().contains("/bin/sh"), "{failure:?}");

    let mut guest = Guest::new("no-output").await;
    guest.plan.steps = vec![guest.step("rm", "rm -r melange-out")];
    let error = run(&runner, &guest).await.outcome.unwrap_err();
    assert!(error.chain().contains("melange-out"), "{error:?}");

    let mut guest = Guest::new("other-arch").await;
    guest.plan.arch = Arch::S390x;
    let error = run(&runner, &guest).await.outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
}

#[tokio::test]
async fn a_missing_daemon_is_unavailable_with_a_hint() {
    for address in ["docker:///nonexistent/docker.sock", "unix:///nonexistent/b.sock", "tcp://127.0.0.1:1"] {
        let address: BackendAddress = address.parse().unwrap();
        let runner = BuildkitRunner::new(address.clone(), BuildkitOptions::default());
        let error = runner.ping().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&address.to_string()), "{error:?}");
        assert!(error.hint_text().is_some() && error.chain().len() > error.to_string().len(), "{error:?}");
    }
}

#[tokio::test]
async fn a_daemon_tells_its_platforms() {
    let Some(socket) = daemon() else { return };
    let info = runner(&socket).ping().await.unwrap();
    assert!(info.runs(Arch::host().unwrap()), "{info:?}");
}

#[tokio::test]
async fn a_tar_written_by_the_support_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tar");
    write_tar(&path, &[Entry::file(&"n".repeat(200), b"1").xattr("user.a", b"\x00\xff")]);
    let entries = read_tar(&path);
    assert_eq!(entries[&"n".repeat(200)].xattrs["user.a"], b"\x00\xff");
}

fn uuid_like() -> String {
    format!("{}-{}", std::process::id(), std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos())
}

/// Bytes that no daemon has seen before.
fn random_bytes(count: usize) -> Vec<u8> {
    let mut state = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap() | 1;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}
