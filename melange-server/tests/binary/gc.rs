//! `melange-server gc`: what it says, and when it refuses.

use super::*;

/// Runs the command on a state folder; its exit code, standard output and standard error.
fn gc(folder: &std::path::Path, more: &[&str]) -> (Option<i32>, String, String) {
    let (output, state) = (folder.join("out"), folder.join("state"));
    let mut arguments = vec!["gc", "--output-dir", output.to_str().unwrap()];
    arguments.extend(["--state-dir", state.to_str().unwrap()]);
    arguments.extend(more);
    let done = server(&arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

#[test]
fn it_works_while_no_server_runs_and_refuses_while_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let (code, told, errors) = gc(folder.path(), &[]);
    assert_eq!((code, told.as_str()), (Some(1), ""), "{errors}");
    assert!(errors.contains("there is no database"), "{errors}");
    assert!(!folder.path().join("state").exists(), "it makes none");
    let (mut child, addr) = started(folder.path(), &[], Stdio::null());
    submit(&addr);
    let (code, told, errors) = gc(folder.path(), &["--dry-run"]);
    assert_eq!((code, told.as_str()), (Some(1), ""), "{errors}");
    assert!(errors.contains("another server uses this job database"), "{errors}");
    assert!(errors.contains("the passes of that one remove what is not kept"), "{errors}");
    signal(&child, Signal::TERM);
    assert_eq!(end(&mut child), Some(0));
    for arguments in [&["--dry-run"][..], &["--keep-jobs", "0", "--keep-latest", "no"]] {
        let (code, told, errors) = gc(folder.path(), arguments);
        assert_eq!(code, Some(0), "{errors}");
        assert!(told.starts_with("nothing "), "what ended a moment ago stays: {told}");
    }
    let (code, told, errors) = gc(folder.path(), &["--dry-run", "--output", "json"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(told.contains("\"dry_run\": true") && told.contains("\"removals\": []"), "{told}");
}

#[test]
fn it_says_what_it_cannot_do() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, errors) = gc(folder.path(), &["--database", "memory:"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("jobs in memory are those of a running server"), "{errors}");
    let (code, _, errors) = gc(folder.path(), &["--keep-logs", "much"]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("--keep-logs: \"much\" is no bound"), "{errors}");
    let (code, help, _) = gc(folder.path(), &["--help"]);
    assert_eq!(code, Some(0));
    assert!(help.contains("--dry-run") && help.contains("--keep-artifacts"), "{help}");
}
