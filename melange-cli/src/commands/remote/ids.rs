//! Which job or build a caller means: a whole id, its beginning, or `@last`.

use std::path::PathBuf;

use melange_remote_sdk::client::Client;
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::job::{BuildId, JobId};
use serde::{Deserialize, Serialize};

use crate::commands::index::write_whole;
use crate::commands::local::user_folder;
use crate::{input, note};

/// The job or build handed in last from this machine.
pub(super) const LAST: &str = "@last";
/// Characters of an id that tell anything: those before are the same for hours.
const PREFIX_MIN: usize = 6;
/// Servers whose last job or build is remembered; those not used for longest are forgotten.
const SERVERS_MAX: usize = 32;
/// Bytes of the file that remembers; each server needs less than 2 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandedIn {
    /// A job, or the last one of several.
    Job(JobId),
    /// A build.
    Build(BuildId),
}

/// What was handed in last to a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    server: String,
    /// The id of a job or of a build.
    id: String,
}

impl Last {
    fn of(server: &str, last: HandedIn) -> Self {
        let id = match last {
            HandedIn::Job(id) => id.to_string(),
            HandedIn::Build(id) => id.to_string(),
        };
        Self { server: server.to_owned(), id }
    }

    /// What it names; `None` for what this program never wrote.
    fn handed_in(&self) -> Option<HandedIn> {
        let build = || self.id.parse().map(HandedIn::Build);
        self.id.parse().map(HandedIn::Job).or_else(|_| build()).ok()
    }
}

/// The job that `text` means.
///
/// # Errors
/// `InvalidRequest` for what is no id or fits several, `NotFound` for what fits none, or as [`Client::jobs`].
pub(super) async fn find(client: &Client, text: &str) -> Result<JobId> {
    if text == LAST {
        return match last(client.server())? {
            HandedIn::Job(id) => Ok(id),
            HandedIn::Build(id) => {
                Err(Error::invalid(format!("{LAST} is the build {id}, and this takes a job"))
                    .hint(format!("name one of its jobs: {LAST}/PACKAGE")))
            }
        };
    }
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    if let Some((build, package)) = text.split_once('/') {
        return package_of(client, build, package).await;
    }
    let prefix = text.to_ascii_lowercase();
    let highest = highest(&prefix).ok_or_else(|| {
        Error::invalid(format!("{text:?} is not the id of a job")).hint(format!(
            "an id looks like 0197a3c2-…; its beginning suffices, of at least {PREFIX_MIN} characters, and {LAST} \
             is what was handed in last from here"
        ))
    })?;
    // Ids are ordered by time: the page that begins right below the highest possible one shows all that fit.
    let (page, _) = client.jobs(2, Some(&highest.to_string()), None).await?;
    let mut fitting = page.iter().filter(|job| job.id.starts_with(&prefix));
    match (fitting.next(), fitting.next()) {
        (Some(job), None) => job.id.parse(),
        (Some(first), Some(second)) => Err(Error::invalid(format!("several jobs begin with {text:?}"))
            .hint(format!("give more of the id, such as {} or {}", first.id, second.id))),
        _ => Err(Error::new(ErrorKind::NotFound, format!("no job begins with {text:?}"))
            .hint("`melange remote list` names them")),
    }
}

/// What the ids of builds begin with.
const BUILD: &str = "build-";
/// Builds of which one is looked for by the beginning of its id.
const BUILDS_SEARCHED: usize = 1_000;

/// The build that `text` means; `None` when it means a job.
///
/// # Errors
/// `InvalidRequest` for what fits several, `NotFound` for what fits none, or as [`Client::builds`].
pub(super) async fn find_build(client: &Client, text: &str) -> Result<Option<BuildId>> {
    if text == LAST {
        return Ok(match last(client.server())? {
            HandedIn::Job(_) => None,
            HandedIn::Build(id) => Some(id),
        });
    }
    if !text.starts_with(BUILD) || text.contains('/') {
        return Ok(None);
    }
    if let Ok(id) = text.parse() {
        return Ok(Some(id));
    }
    let prefix = text.to_ascii_lowercase();
    let page = client.builds(BUILDS_SEARCHED, None, None).await?;
    let mut fitting = page.builds.iter().filter(|build| build.build_id.starts_with(&prefix));
    match (fitting.next(), fitting.next()) {
        (Some(build), None) => build.build_id.parse().map(Some),
        (Some(first), Some(second)) => Err(Error::invalid(format!("several builds begin with {text:?}"))
            .hint(format!("give more of the id, such as {} or {}", first.build_id, second.build_id))),
        _ => Err(Error::new(ErrorKind::NotFound, format!("no build begins with {text:?}"))
            .hint("`melange remote builds` names them")),
    }
}

/// The job of a package of a build, `PACKAGE` or `PACKAGE@ARCH`.
async fn package_of(client: &Client, build: &str, package: &str) -> Result<JobId> {
    let Some(build) = find_build(client, build).await? else {
        return Err(Error::invalid(format!("{build:?} is not the id of a build"))
            .hint("write BUILD/PACKAGE, or BUILD/PACKAGE@ARCH"));
    };
    let (name, arch) = package.split_once('@').map_or((package, None), |(name, arch)| (name, Some(arch)));
    let view = client.build_package(build, name, arch).await.map_err(|error| {
        // Of several architectures none was named.
        let is_several = error.kind() == ErrorKind::InvalidRequest && arch.is_none();
        if is_several { error.hint(format!("write {build}/{name}@ARCH")) } else { error }
    })?;
    let reason = view.reason.unwrap_or_default();
    view.job_id.map(|id| id.parse()).unwrap_or_else(|| {
        Err(Error::new(ErrorKind::NotFound, format!("{name} was left out of the build: {reason}")))
    })
}

/// The highest id that begins with `prefix`; `None` when no id does.
fn highest(prefix: &str) -> Option<JobId> {
    const HIGHEST: &str = "ffffffff-ffff-7fff-bfff-ffffffffffff";
    if prefix.len() < PREFIX_MIN {
        return None;
    }
    format!("{prefix}{}", HIGHEST.get(prefix.len()..)?).parse().ok()
}

fn file() -> Option<PathBuf> {
    Some(user_folder("XDG_STATE_HOME", ".local/state")?.join("last-jobs.json"))
}

fn remembered() -> Vec<Last> {
    let text = file().and_then(|path| input::read(&path, FILE_BYTES_MAX).ok()).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn last(server: &str) -> Result<HandedIn> {
    let found = remembered().into_iter().find(|last| last.server == server);
    found.and_then(|last| last.handed_in()).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("nothing was handed in to {server} from here"))
            .hint("`melange remote list` names the server's jobs, `melange remote builds` its builds")
    })
}

/// Remembers what was just handed in. That this fails is no reason to lose sight of it.
pub(super) fn remember(server: &str, what: HandedIn) {
    let Some(path) = file() else { return };
    let mut all = remembered();
    all.retain(|last| last.server != server);
    all.insert(0, Last::of(server, what));
    all.truncate(SERVERS_MAX);
    let text = serde_json::to_vec(&all).unwrap_or_default();
    let written = path
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .map_err(|e| Error::unexpected("cannot make its folder").source(e))
        .and_then(|()| write_whole(&path, &text));
    if let Err(error) = written {
        note::line(&format!("warning: {LAST} does not mean this: {}", error.chain()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_in_is_a_job_or_a_build() {
        let job: JobId = "0197a3c2-1111-7aaa-8000-000000000001".parse().unwrap();
        let build = BuildId::from_bytes(job.as_bytes()).unwrap();
        for what in [HandedIn::Job(job), HandedIn::Build(build)] {
            assert_eq!(Last::of("http://farm", what).handed_in(), Some(what));
        }
        // As it was written when builds were not remembered.
        let old = r#"{"server":"http://farm","id":"0197a3c2-1111-7aaa-8000-000000000001"}"#;
        assert_eq!(serde_json::from_str::<Last>(old).unwrap().handed_in(), Some(HandedIn::Job(job)));
        assert_eq!(Last { server: String::new(), id: "last".to_owned() }.handed_in(), None);
    }

    #[test]
    fn the_highest_id_of_a_beginning() {
        let shown = |prefix: &str| highest(prefix).map(|id| id.to_string());
        assert_eq!(shown("0197a3").as_deref(), Some("0197a3ff-ffff-7fff-bfff-ffffffffffff"));
        assert_eq!(shown("0197a3c2-1111-7a").as_deref(), Some("0197a3c2-1111-7aff-bfff-ffffffffffff"));
        let whole = "0197a3c2-1111-7aaa-8000-000000000001";
        assert_eq!(shown(whole).as_deref(), Some(whole));
        for wrong in ["", "0197a", "0197a3c21", "zzzzzz", "0197a3c2-1111-4", "0197ä3", &format!("{whole}0")]
        {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }
}
