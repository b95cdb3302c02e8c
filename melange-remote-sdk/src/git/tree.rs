//! The names of a commit, and which of them are wanted. Nothing here touches a disk.

use std::collections::{BTreeMap, VecDeque};

use globset::{GlobBuilder, GlobMatcher};

use crate::error::{Blame, Error, ErrorKind, Result};
use crate::limits;

/// What definitions are called unless somebody says otherwise.
const DEFAULT_GLOB: &str = "*.yaml";
/// The folder of a repository's own pipelines.
pub(super) const PIPELINES: &str = "pipelines";

/// What a name of a commit stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    File { id: String, is_executable: bool },
    Link { id: String },
    Folder,
}

/// All names of a commit but those that are no UTF-8, which nobody asks for.
#[derive(Debug, Default)]
pub(super) struct Names {
    nodes: BTreeMap<String, Node>,
    /// Where links lead, by their paths.
    targets: BTreeMap<String, String>,
}

/// The pattern of a source.
pub(super) fn pattern(text: &str) -> Result<GlobMatcher> {
    let text = if text.is_empty() { DEFAULT_GLOB } else { text };
    let wrong = |message: String| {
        Error::invalid(message).blame(Blame::Definition).hint("such as `*.yaml` or `packages/*/*.yaml`")
    };
    if text.len() > limits::GIT_GLOB_BYTES_MAX {
        return Err(wrong(format!("the pattern has more than {} bytes", limits::GIT_GLOB_BYTES_MAX)));
    }
    let glob = GlobBuilder::new(text).literal_separator(true).build();
    let glob = glob.map_err(|error| wrong(format!("the pattern {text:?} cannot be read")).source(error))?;
    Ok(glob.compile_matcher())
}

impl Names {
    /// Reads what `git ls-tree -r -t -z` tells.
    pub(super) fn read(listing: &[u8]) -> Result<Self> {
        let odd = || Error::unexpected("git lists a commit in an unknown form").blame(Blame::Farm);
        let mut nodes = BTreeMap::new();
        for (count, entry) in listing.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()).enumerate() {
            if count >= limits::GIT_ENTRIES_MAX {
                let message =
                    format!("the repository has more than {} files and folders", limits::GIT_ENTRIES_MAX);
                return Err(Error::new(ErrorKind::LimitExceeded, message).blame(Blame::Definition));
            }
            let tab = entry.iter().position(|byte| *byte == b'\t').ok_or_else(odd)?;
            let (head, path) = entry.split_at(tab);
            let head = std::str::from_utf8(head).map_err(|_| odd())?;
            let mut words = head.split(' ');
            let (Some(mode), Some(_kind), Some(id), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return Err(odd());
            };
            let Some(path) = path.get(1..).and_then(|path| std::str::from_utf8(path).ok()) else { continue };
            if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
                let error = Error::invalid(format!("the repository has a file with the name {path:?}"));
                return Err(error.blame(Blame::Definition));
            }
            let id = id.to_owned();
            let node = match mode {
                "040000" => Node::Folder,
                "120000" => Node::Link { id },
                "100755" => Node::File { id, is_executable: true },
                // What a submodule holds is not part of this repository.
                "160000" => continue,
                mode if mode.starts_with("100") => Node::File { id, is_executable: false },
                _ => return Err(odd()),
            };
            nodes.insert(path.to_owned(), node);
        }
        Ok(Self { nodes, targets: BTreeMap::new() })
    }

    pub(super) fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The links, with the ids of their targets' texts.
    pub(super) fn links(&self) -> impl Iterator<Item = (&str, &str)> {
        self.nodes.iter().filter_map(|(path, node)| match node {
            Node::Link { id } => Some((path.as_str(), id.as_str())),
            _ => None,
        })
    }

    pub(super) fn set_target(&mut self, link: String, target: String) {
        self.targets.insert(link, target);
    }

    /// The paths that may be definitions: those that fit, but for pipelines and what is hidden.
    pub(super) fn candidates<'a>(&'a self, glob: &'a GlobMatcher) -> impl Iterator<Item = &'a str> {
        self.nodes.iter().filter(|(_, node)| **node != Node::Folder).map(|(path, _)| path.as_str()).filter(
            |path| {
                let is_hidden = path.split('/').any(|part| part.starts_with('.'));
                let is_pipeline = path.split('/').next() == Some(PIPELINES);
                !is_hidden && !is_pipeline && glob.is_match(path)
            },
        )
    }

    /// The files of a folder with their paths below it. Links in it are left out, as those of every folder of source files.
    pub(super) fn files_of(&self, folder: &str) -> Vec<(&str, &str, bool)> {
        let prefix = format!("{folder}/");
        let below = self.nodes.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        let mut files = Vec::new();
        for (path, node) in below {
            if let (Node::File { id, is_executable }, Some(name)) = (node, path.strip_prefix(&prefix)) {
                files.push((name, id.as_str(), *is_executable));
            }
        }
        files
    }

    /// The path that a path stands for once all links are followed; nothing where there is none.
    ///
    /// # Errors
    /// `InvalidRequest` for a link that leads out of the repository, and for links that lead in a circle.
    pub(super) fn follow(&self, path: &str) -> Result<Option<String>> {
        let wrong = |link: &str, what: &str| {
            Error::invalid(format!("{link} is a link that {what}"))
                .blame(Blame::Definition)
                .hint("let it lead to a file or folder of the same repository, or put that in its place")
        };
        let mut left: VecDeque<String> = path.split('/').map(str::to_owned).collect();
        let (mut here, mut links, mut last_link) = (Vec::<String>::new(), 0, path.to_owned());
        while let Some(part) = left.pop_front() {
            match part.as_str() {
                "" | "." => continue,
                ".." if here.pop().is_none() => return Err(wrong(&last_link, "leads out of the repository")),
                ".." => continue,
                _ => here.push(part),
            }
            let at = here.join("/");
            match self.nodes.get(&at) {
                None => return Ok(None),
                Some(Node::File { .. } | Node::Folder) => {}
                Some(Node::Link { .. }) => {
                    let target = self.targets.get(&at).map(String::as_str).unwrap_or_default();
                    links += 1;
                    if target.starts_with('/') {
                        return Err(wrong(&at, "leads out of the repository"));
                    }
                    if links > limits::GIT_LINKS_FOLLOWED_MAX {
                        return Err(wrong(&at, "leads back to itself"));
                    }
                    here.pop();
                    for part in target.split('/').rev() {
                        left.push_front(part.to_owned());
                    }
                    last_link = at;
                }
            }
        }
        Ok(Some(here.join("/")).filter(|path| !path.is_empty()))
    }
}
