//! What a source becomes: texts, and folders of files, read out of the objects of one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::GlobMatcher;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::ChildStdout;

use super::command::Git;
use super::tree::{Names, Node, PIPELINES};
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::limits;
use crate::scratch::ScratchFolder;

/// The definitions of a source, all of one commit. The folders of their files go with the last owner.
#[derive(Debug)]
#[non_exhaustive]
pub struct GitCheckout {
    /// The repository.
    pub url: String,
    /// The commit.
    pub commit: String,
    /// The definitions, sorted by path.
    pub definitions: Vec<GitDefinition>,
    /// The repository's own pipelines by their paths below `pipelines/`.
    pub pipelines: BTreeMap<String, String>,
    _folder: tempfile::TempDir,
    /// What the folder lies in.
    _place: Arc<ScratchFolder>,
}

impl GitCheckout {
    pub(super) fn new(
        url: String,
        commit: String,
        read: Read,
        folder: tempfile::TempDir,
        place: Arc<ScratchFolder>,
    ) -> Self {
        let Read { definitions, pipelines } = read;
        Self { url, commit, definitions, pipelines, _folder: folder, _place: place }
    }
}

/// A definition of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GitDefinition {
    /// Its path in the repository.
    pub path: String,
    /// Its text.
    pub text: String,
    /// The folder of the files beside it, when there are any, as [`crate::sources`] takes it.
    pub source_dir: Option<PathBuf>,
}

/// What is read of a commit.
pub(super) struct Read {
    definitions: Vec<GitDefinition>,
    pipelines: BTreeMap<String, String>,
}

/// Reads what a source asks for, and fetches only that.
pub(super) async fn read(git: &Git, commit: &str, glob: &GlobMatcher, folder: &Path) -> Result<Read> {
    let listing = ["ls-tree", "-r", "-t", "-z", "--full-tree", "--end-of-options", commit];
    let mut names = Names::read(&git.local(&listing, limits::GIT_LISTING_BYTES_MAX).await?)?;
    let mut reader = Reader { git, folder, rounds: 0 };
    reader.read_links(&mut names).await?;
    let texts = reader.read_texts(&names, glob).await?;
    let sources = reader.write_sources(&names, texts.definitions.keys()).await?;
    let definition = |(path, text): (String, String)| {
        let source_dir = sources.get(&path).cloned();
        GitDefinition { path, text, source_dir }
    };
    let definitions: Vec<_> = texts.definitions.into_iter().map(definition).collect();
    if definitions.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, "no definition of the repository fits the pattern")
            .with("pattern", glob.glob())
            .blame(Blame::Definition)
            .hint("a definition has `package:`; `*` does not cross a `/`, `**` does"));
    }
    Ok(Read { definitions, pipelines: texts.pipelines })
}

/// Definitions by path, and pipelines by their path below their folder.
#[derive(Default)]
struct Texts {
    definitions: BTreeMap<String, String>,
    pipelines: BTreeMap<String, String>,
}

/// One object that is wanted, by the path that people know it by.
struct Wanted<'a> {
    id: &'a str,
    path: &'a str,
    bytes_max: u64,
}

struct Reader<'a> {
    git: &'a Git,
    folder: &'a Path,
    rounds: u32,
}

impl Reader<'_> {
    async fn read_links(&mut self, names: &mut Names) -> Result<()> {
        let links: Vec<(String, String)> =
            names.links().map(|(path, id)| (path.to_owned(), id.to_owned())).collect();
        if links.len() > limits::GIT_LINKS_MAX {
            let message = format!("the repository has more than {} links", limits::GIT_LINKS_MAX);
            return Err(Error::new(ErrorKind::LimitExceeded, message).blame(Blame::Definition));
        }
        let bytes_max = limits::GIT_LINK_BYTES_MAX;
        let wanted: Vec<_> = links.iter().map(|(path, id)| Wanted { id, path, bytes_max }).collect();
        let Some(mut objects) = self.objects(&wanted).await? else { return Ok(()) };
        for (path, _) in &links {
            // What is no text leads nowhere.
            let target = String::from_utf8(objects.next().await?).unwrap_or_default();
            names.set_target(path.clone(), target);
        }
        objects.end().await
    }

    /// The texts of definitions and pipelines. What fits and has no `package:` is something else.
    async fn read_texts(&mut self, names: &Names, glob: &GlobMatcher) -> Result<Texts> {
        let mut places: Vec<(&str, String)> = Vec::new();
        for path in names.candidates(glob) {
            places.extend(names.follow(path)?.map(|real| (path, real)));
        }
        let definitions = places.len();
        let prefix = format!("{PIPELINES}/");
        for (name, _, _) in names.files_of(PIPELINES) {
            if name.ends_with(".yaml") && !name.split('/').any(|part| part.starts_with('.')) {
                places.push((name, format!("{prefix}{name}")));
            }
        }
        if definitions > limits::PLAN_DEFINITIONS_MAX
            || places.len() - definitions > limits::INLINE_PIPELINES_MAX
        {
            let (most, pipelines) = (limits::PLAN_DEFINITIONS_MAX, limits::INLINE_PIPELINES_MAX);
            let message = format!(
                "more than {most} paths fit the pattern, or there are more than {pipelines} pipelines"
            );
            return Err(Error::new(ErrorKind::LimitExceeded, message).blame(Blame::Definition));
        }
        let bytes_max = limits::DEFINITION_BYTES_MAX as u64;
        let files: Vec<(usize, Wanted<'_>)> = places
            .iter()
            .enumerate()
            .filter_map(|(at, (_, real))| match names.node(real) {
                Some(Node::File { id, .. }) => Some((at, Wanted { id, path: real, bytes_max })),
                _ => None,
            })
            .collect();
        let (numbers, wanted): (Vec<usize>, Vec<Wanted<'_>>) = files.into_iter().unzip();
        let (mut texts, mut size) = (Texts::default(), 0u64);
        let Some(mut objects) = self.objects(&wanted).await? else { return Ok(texts) };
        for at in numbers {
            let bytes = objects.next().await?;
            size = size.saturating_add(bytes.len() as u64);
            if size > limits::GIT_TEXTS_BYTES_MAX {
                return Err(too_large("the definitions and pipelines", limits::GIT_TEXTS_BYTES_MAX));
            }
            let Some((path, _)) = places.get(at) else { continue };
            let is_definition = at < definitions;
            match String::from_utf8(bytes) {
                Ok(text) if !is_definition => drop(texts.pipelines.insert((*path).to_owned(), text)),
                Ok(text) if has_package(&text) => drop(texts.definitions.insert((*path).to_owned(), text)),
                Ok(_) => {}
                Err(_) => {
                    let error = Error::invalid(format!("{path} is not UTF-8"));
                    return Err(error.blame(Blame::Definition));
                }
            }
        }
        objects.end().await?;
        Ok(texts)
    }

    /// Writes the files beside definitions into folders; those of each definition that has some.
    async fn write_sources(
        &mut self,
        names: &Names,
        definitions: impl Iterator<Item = &String>,
    ) -> Result<BTreeMap<String, PathBuf>> {
        let (mut folders, mut found) = (BTreeSet::new(), BTreeMap::new());
        for path in definitions {
            let Some((beside, _)) = path.rsplit_once('.') else { continue };
            let Some(real) = names.follow(beside)?.filter(|real| names.node(real) == Some(&Node::Folder))
            else {
                continue;
            };
            if !names.files_of(&real).is_empty() {
                folders.insert(real.clone());
                found.insert(path.clone(), real);
            }
        }
        // Each folder once, however many links lead to it.
        let mut places: BTreeMap<&str, PathBuf> = BTreeMap::new();
        let (mut wanted, mut files) = (Vec::new(), Vec::new());
        for (number, real) in folders.iter().enumerate() {
            let to = self.folder.join("sources").join(number.to_string());
            for (name, id, is_executable) in names.files_of(real) {
                wanted.push(Wanted { id, path: real, bytes_max: limits::SOURCE_ARCHIVE_BYTES_MAX });
                files.push((to.join(name), is_executable));
            }
            places.insert(real, to);
        }
        if files.len() > limits::GIT_SOURCE_FILES_MAX {
            let message =
                format!("there are more than {} files beside the definitions", limits::GIT_SOURCE_FILES_MAX);
            return Err(Error::new(ErrorKind::LimitExceeded, message).blame(Blame::Definition));
        }
        if let Some(mut objects) = self.objects(&wanted).await? {
            for (to, is_executable) in &files {
                objects.write(to, *is_executable).await?;
            }
            objects.end().await?;
        }
        Ok(found
            .into_iter()
            .filter_map(|(path, real)| Some((path, places.get(real.as_str())?.clone())))
            .collect())
    }

    /// Fetches objects and gives them one after the other, in this order; nothing when there are none.
    async fn objects<'w>(&mut self, wanted: &'w [Wanted<'w>]) -> Result<Option<Objects<'w>>>
    where
        Self: 'w,
    {
        if wanted.is_empty() {
            return Ok(None);
        }
        self.rounds += 1;
        let list = |name: &str, ids: &mut dyn Iterator<Item = &str>| -> Result<PathBuf> {
            let path = self.folder.join(format!("{name}-{}", self.rounds));
            let failed = |e| Error::io("write", &path, e);
            let mut file = std::io::BufWriter::new(std::fs::File::create_new(&path).map_err(failed)?);
            for id in ids {
                writeln!(file, "{id}").map_err(failed)?;
            }
            file.flush().map_err(failed)?;
            Ok(path)
        };
        let once: BTreeSet<&str> = wanted.iter().map(|wanted| wanted.id).collect();
        self.git.fetch_objects(&list("fetch", &mut once.into_iter())?).await?;
        let all = list("read", &mut wanted.iter().map(|wanted| wanted.id))?;
        let (running, stdout) = self.git.start_local(&["cat-file", "--batch"], &all)?;
        let git = self.git.clone();
        Ok(Some(Objects { git, running, stdout: BufReader::new(stdout), wanted: wanted.iter(), size: 0 }))
    }
}

/// Objects as `git cat-file --batch` gives them.
struct Objects<'w> {
    git: Git,
    running: super::command::Running,
    stdout: BufReader<ChildStdout>,
    wanted: std::slice::Iter<'w, Wanted<'w>>,
    size: u64,
}

impl Objects<'_> {
    /// The head of the next object: its size.
    async fn head(&mut self) -> Result<u64> {
        let odd = |line: &str| {
            Error::unexpected("git gives objects in an unknown form")
                .with("line", format!("{line:?}"))
                .blame(Blame::Farm)
        };
        let wanted = self.wanted.next().ok_or_else(|| odd(""))?;
        let mut line = Vec::new();
        (&mut self.stdout).take(256).read_until(b'\n', &mut line).await.map_err(broken)?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        let size = match words[..] {
            [id, "blob", size] if id == wanted.id => size.parse::<u64>().map_err(|_| odd(&line))?,
            [id, "missing"] if id == wanted.id => {
                let message = format!("the server did not send {}", wanted.path);
                return Err(Error::new(ErrorKind::Unavailable, message).blame(Blame::Farm));
            }
            _ => return Err(odd(&line)),
        };
        if size > wanted.bytes_max {
            return Err(too_large(wanted.path, wanted.bytes_max).with("bytes", size));
        }
        Ok(size)
    }

    async fn next(&mut self) -> Result<Vec<u8>> {
        let size = self.head().await?;
        let mut content = Vec::new();
        (&mut self.stdout).take(size).read_to_end(&mut content).await.map_err(broken)?;
        self.line_end().await?;
        Ok(content)
    }

    /// Writes the next object to a file that is not there yet, in folders that are made for it.
    async fn write(&mut self, to: &Path, is_executable: bool) -> Result<()> {
        let size = self.head().await?;
        self.size = self.size.saturating_add(size);
        if self.size > limits::GIT_SOURCES_BYTES_MAX {
            return Err(too_large("the files beside the definitions", limits::GIT_SOURCES_BYTES_MAX));
        }
        let failed = |e| Error::io("write", to, e);
        if let Some(parent) = to.parent() {
            tokio::fs::create_dir_all(parent).await.map_err(failed)?;
        }
        let mode = if is_executable { 0o755 } else { 0o644 };
        let mut file =
            File::options().write(true).create_new(true).mode(mode).open(to).await.map_err(failed)?;
        let copied = tokio::io::copy(&mut (&mut self.stdout).take(size), &mut file).await.map_err(failed)?;
        file.flush().await.map_err(failed)?;
        if copied != size {
            return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.line_end().await
    }

    async fn line_end(&mut self) -> Result<()> {
        match self.stdout.read_u8().await.map_err(broken)? {
            b'\n' => Ok(()),
            _ => Err(Error::unexpected("git gives objects in an unknown form").blame(Blame::Farm)),
        }
    }

    async fn end(self) -> Result<()> {
        drop(self.stdout);
        self.git.end(self.running).await
    }
}

fn broken(error: std::io::Error) -> Error {
    Error::unexpected("git broke off").source(error).blame(Blame::Farm)
}

fn too_large(what: &str, bytes_max: u64) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("{what} has more than {bytes_max} bytes"))
        .blame(Blame::Definition)
        .hint("let the definition fetch what is large")
}

/// Whether a text is a definition: it has a package. Mistakes in it are told where it is read.
fn has_package(text: &str) -> bool {
    let is_key = |line: &str| {
        let key = line.split(':').next().unwrap_or_default();
        line.contains(':') && matches!(key.trim_end(), "package" | "\"package\"" | "'package'")
    };
    text.lines().any(is_key)
}
