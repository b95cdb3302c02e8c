//! Where a definition comes from: what the caller says, otherwise what its git checkout does.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use melange_remote_sdk::job::{DefinitionOrigin, repository_of};
use tokio::process::Command;

use crate::args::OriginArgs;
use crate::input;

/// What git is waited for: it reads two small files. On a file system that hangs, packages say less.
const PATIENCE: Duration = Duration::from_secs(10);
/// A commit in hexadecimal digits, of SHA-1 or SHA-256.
const COMMIT_DIGITS: [usize; 2] = [40, 64];

/// What SPDX writes where nothing is known.
const NOT_STATED: &str = "NOASSERTION";

/// The origin of the definition in `file`.
pub(super) async fn of(file: &Path, args: &OriginArgs) -> DefinitionOrigin {
    let folder = (!input::is_stdin(file)).then(|| input::folder(file));
    of_folder(folder, args).await
}

/// The origin of the definitions in a folder. What cannot be found out is not known, and no reason to fail.
pub(super) async fn of_folder(folder: Option<&Path>, args: &OriginArgs) -> DefinitionOrigin {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let mut origin = DefinitionOrigin::default();
    origin.license.clone_from(&args.license);
    origin.commit = match given(&args.git_commit) {
        Some(commit) => commit,
        None => ask(folder, &["rev-parse", "--verify", "--quiet", "HEAD"])
            .await
            .filter(|text| is_commit(text))
            .unwrap_or_default(),
    };
    origin.repository = match given(&args.git_repo_url) {
        // What is no address of a repository is told as it is, unless it may hold a password.
        Some(url) => repository_of(&url).or(Some(url).filter(|url| !url.contains('@'))).unwrap_or_default(),
        None => {
            let address = ask(folder, &["config", "--get", "remote.origin.url"]).await.unwrap_or_default();
            repository_of(&address).unwrap_or_default()
        }
    };
    origin
}

/// The commit, the address and the licence of an origin as a request states them.
pub(super) fn stated(origin: DefinitionOrigin) -> [Option<String>; 3] {
    [origin.commit, origin.repository, origin.license]
        .map(|text| Some(text).filter(|text| !text.is_empty() && text != NOT_STATED))
}

fn is_commit(text: &str) -> bool {
    COMMIT_DIGITS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What git says of the checkout around a folder, in one line.
async fn ask(folder: Option<&Path>, question: &[&str]) -> Option<String> {
    let folder = folder?;
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(question).env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C");
    git.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, git.output()).await.ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(folder: &Path, arguments: &[&str]) -> String {
        let mut git = std::process::Command::new("git");
        git.arg("-C").arg(folder).args(["-c", "user.name=n", "-c", "user.email=a@b"]).args(arguments);
        let output = git.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn args(commit: Option<&str>, url: Option<&str>) -> OriginArgs {
        let text = |text: Option<&str>| text.map(str::to_owned);
        OriginArgs { git_commit: text(commit), git_repo_url: text(url), license: "MIT".to_owned() }
    }

    #[tokio::test]
    async fn the_checkout_tells_what_the_caller_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let file = below.join("a.yaml");
        std::fs::write(&file, "").unwrap();
        let origin = of(&file, &args(None, None)).await;
        assert_eq!((origin.commit.as_str(), origin.repository.as_str(), &*origin.license), ("", "", "MIT"));
        git(folder.path(), &["init", "-q"]);
        git(folder.path(), &["add", "."]);
        let origin = of(&file, &args(None, None)).await;
        assert_eq!(origin.commit, "", "there is no commit yet");
        git(folder.path(), &["commit", "-q", "-m", "one"]);
        git(folder.path(), &["remote", "add", "origin", "https://u:topsecret@git.example/o/r.git"]);
        let head = git(folder.path(), &["rev-parse", "HEAD"]);
        let origin = of(&file, &args(None, None)).await;
        assert_eq!((origin.commit, &*origin.repository), (head, "https://git.example/o/r"));
        let origin = of(&file, &args(Some("c0ffee"), Some("git@github.com:o/r.git"))).await;
        assert_eq!((&*origin.commit, &*origin.repository), ("c0ffee", "https://github.com/o/r"));
        let odd = of(&file, &args(None, Some("ftp://u:topsecret@h/x"))).await;
        assert_eq!(odd.repository, "");
        assert_eq!(of(Path::new("-"), &args(None, None)).await.commit, "");
    }
}
