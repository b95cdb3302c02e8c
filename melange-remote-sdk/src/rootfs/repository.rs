//! Repositories: where they are, their indexes, their package files, their keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::apk::checksum::{self, sha256_hex};
use crate::apk::index::{Index, IndexPackage};
use crate::apk::index_form;
use crate::apk::reader::ApkFile;
use crate::apk::signature::{Keyring, is_key_name};
use crate::arch::Arch;
use crate::builder::BuildRepositories;
use crate::cache::{Held, StateCache, mark_used};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::redact::redact;
use crate::solver::RepositoryPackages;

use super::fetch::{Fetcher, Present};
use super::line::RepositoryLine;

/// Which folders of the engine's own disk a definition may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAccess {
    /// Any: the definition is the caller's own.
    Any,
    /// Only these and what is below them: the definition came from somebody else.
    Below(Vec<PathBuf>),
}

impl LocalAccess {
    /// The canonical path when it may be read. What does not exist yet keeps its name below the folder that does.
    ///
    /// # Errors
    /// `Untrusted` when it lies elsewhere.
    pub fn check(&self, path: &Path) -> Result<PathBuf> {
        if let Self::Below(folders) = self
            && !folders.iter().any(|folder| path.starts_with(folder))
        {
            return Err(refused(path));
        }
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => not_there_yet(path)?,
            Err(e) => return Err(Error::io("open", path, e)),
        };
        match self {
            Self::Any => Ok(real),
            Self::Below(folders) => {
                let inside = folders.iter().filter_map(|folder| folder.canonicalize().ok());
                if inside.into_iter().any(|folder| real.starts_with(folder)) {
                    Ok(real)
                } else {
                    Err(refused(path))
                }
            }
        }
    }
}

/// Where a path will be once somebody makes it: its nearest folder that is there, canonical, and the rest.
fn not_there_yet(path: &Path) -> Result<PathBuf> {
    let dangling = path.symlink_metadata().is_ok();
    let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if dangling || !plain || !path.is_absolute() {
        return Err(Error::new(ErrorKind::NotFound, format!("{} does not exist", path.display())));
    }
    let there = path.ancestors().skip(1).find_map(|folder| Some((folder, folder.canonicalize().ok()?)));
    let Some((folder, real)) = there else { return Ok(path.to_owned()) };
    Ok(real.join(path.strip_prefix(folder).unwrap_or(path)))
}

fn refused(path: &Path) -> Error {
    Error::new(ErrorKind::Untrusted, format!("the local path {} is not allowed", path.display()))
        .hint("use an http(s) repository, or ask the operator to allow the folder")
}

/// A repository line whose place may be used.
#[derive(Debug, Clone)]
pub struct Location {
    /// The line as people may see it: without a password.
    pub line: String,
    /// The tag that pins its packages; empty without one.
    pub tag: String,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Folder(PathBuf),
    Url(SecretUrl),
    Build(Arc<dyn BuildRepositories>),
}

/// A URL that may hold a password; shown without.
#[derive(Clone, PartialEq, Eq)]
struct SecretUrl(String);

impl std::fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&redact(&self.0))
    }
}

impl Location {
    /// Reads a repository line.
    ///
    /// # Errors
    /// `InvalidRequest` for other schemes and relative paths, [`LocalAccess::check`]'s for folders.
    pub fn parse(line: &str, local: &LocalAccess) -> Result<Self> {
        let read = RepositoryLine::parse(line)?;
        let place = if read.is_http() {
            Place::Url(SecretUrl(read.place.trim_end_matches('/').to_owned()))
        } else {
            let Some(path) = read.path() else {
                return Err(Error::invalid(format!("the repository {line:?} has an unknown scheme"))
                    .hint("use https://, http:// or an absolute path"));
            };
            Place::Folder(local.check(Path::new(path))?)
        };
        Ok(Self { line: redact(line.trim()).into_owned(), tag: read.tag.to_owned(), place })
    }
}

/// A repository with its index.
#[derive(Debug)]
pub struct LoadedRepository {
    /// The line without a password; empty for packages that this engine made.
    pub line: String,
    /// The tag that pins its packages.
    pub tag: String,
    /// The index.
    pub index: Arc<Index>,
    /// The SHA-256 of its file in lower-case hex; empty when it has none.
    pub sha256: String,
    place: Place,
}

impl LoadedRepository {
    /// A folder of packages made by this engine, with their index; it has no line of its own.
    pub fn made(folder: &Path, index: Index) -> Self {
        let place = Place::Folder(folder.to_owned());
        Self { line: String::new(), tag: String::new(), index: Arc::new(index), sha256: String::new(), place }
    }

    /// What jobs of a build have made.
    pub(super) fn of_build(index: Arc<Index>, build: Arc<dyn BuildRepositories>) -> Self {
        let (line, tag, sha256) = (String::new(), String::new(), String::new());
        Self { line, tag, index, sha256, place: Place::Build(build) }
    }

    /// Whether it is what jobs of a build have made.
    pub(super) fn is_of_build(&self) -> bool {
        matches!(self.place, Place::Build(_))
    }

    /// Whether a job has just made its packages.
    pub(super) fn is_made(&self) -> bool {
        self.line.is_empty() && matches!(self.place, Place::Folder(_))
    }

    /// What it offers, for a solver.
    pub fn packages(&self) -> RepositoryPackages<'_> {
        RepositoryPackages { tag: &self.tag, packages: &self.index.packages }
    }

    /// The package's file on this machine, downloaded when need be, which is not swept meanwhile. A downloaded file is
    /// checked against the index before it gets its name in the cache.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`]; `Untrusted` for another package than the index lists.
    pub(super) async fn package_file(
        &self,
        package: &IndexPackage,
        arch: Arch,
        fetcher: &dyn Fetcher,
        cache: &StateCache,
    ) -> Result<(PathBuf, Option<Held>)> {
        match &self.place {
            Place::Folder(folder) => Ok((folder.join(arch.apk_name()).join(package.file_name()), None)),
            Place::Url(_) | Place::Build(_) => {
                let identity = package.control_sha1.map(hex::encode).unwrap_or_default();
                let folder = cache.folder().join("packages");
                let path = folder.join(format!("{identity}-{}", package.file_name()));
                let held = cache.hold(&path);
                if tokio::fs::try_exists(&path).await.unwrap_or(false) {
                    return Ok((path, Some(held)));
                }
                let unchecked = folder.join(format!("unchecked-{}", uuid::Uuid::now_v7().simple()));
                let result = self.download(&unchecked, &path, package, arch, fetcher).await;
                for left in [unchecked.with_extension("etag"), unchecked] {
                    // What was renamed or never made is not there.
                    let _ = tokio::fs::remove_file(left).await;
                }
                result?;
                // The file that is there now has no lock yet.
                let held = cache.hold(&path);
                Ok((path, Some(held)))
            }
        }
    }
}

impl LoadedRepository {
    /// Gets a package, compares it with the index, and only then gives it its name in the cache.
    async fn download(
        &self,
        unchecked: &Path,
        path: &Path,
        package: &IndexPackage,
        arch: Arch,
        fetcher: &dyn Fetcher,
    ) -> Result<()> {
        let from = match &self.place {
            Place::Folder(folder) => folder.display().to_string(),
            Place::Url(url) => {
                let url = format!("{}/{arch}/{}", url.0, package.file_name());
                fetcher.fetch(&url, unchecked, limits::APK_BYTES_MAX, Present::Taken).await?;
                url
            }
            Place::Build(build) => {
                if let Some(folder) = unchecked.parent() {
                    tokio::fs::create_dir_all(folder).await.map_err(|e| Error::io("create", folder, e))?;
                }
                build.fetch(package, unchecked).await?;
                "this build".to_owned()
            }
        };
        let (file, package) = (unchecked.to_owned(), package.clone());
        tokio::task::spawn_blocking(move || verified(ApkFile::open(&file)?, &package).map(drop))
            .await
            .map_err(|e| Error::unexpected("the check died").source(e))?
            .map_err(|e| e.with("from", redact(&from)))?;
        tokio::fs::rename(unchecked, path).await.map_err(|e| Error::io("rename", unchecked, e))
    }
}

/// Indexes read before, by what they and their keys are; those not used for longest leave first. An index that several
/// builds ask for at once is read once.
#[derive(Debug)]
pub(super) struct RepositoryCache {
    parsed: moka::future::Cache<String, Arc<Index>>,
}

impl Default for RepositoryCache {
    fn default() -> Self {
        let weigh = |name: &String, index: &Arc<Index>| {
            u32::try_from(name.len() + index.kept_bytes()).unwrap_or(u32::MAX)
        };
        let parsed = moka::future::Cache::builder()
            .weigher(weigh)
            .max_capacity(limits::INDEXES_KEPT_BYTES_MAX)
            .build();
        Self { parsed }
    }
}

impl RepositoryCache {
    /// Loads the index of a repository; `None`, with a warning, for a folder without one.
    ///
    /// # Errors
    /// `Untrusted` for signatures and damage; as [`Fetcher::fetch`].
    pub(super) async fn load(
        &self,
        location: &Location,
        arch: Arch,
        trusted: Option<&Keyring>,
        fetcher: &dyn Fetcher,
        cache: &StateCache,
    ) -> Result<Option<Arc<LoadedRepository>>> {
        let Some(bytes) = self.read(location, arch, fetcher, cache).await? else { return Ok(None) };
        self.kept(location, bytes, trusted, cache).await.map(Some)
    }

    /// The file of a repository's index; `None`, with a warning, for a folder without one.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`]; `LimitExceeded`.
    pub(super) async fn read(
        &self,
        location: &Location,
        arch: Arch,
        fetcher: &dyn Fetcher,
        cache: &StateCache,
    ) -> Result<Option<Bytes>> {
        let (path, _held) = match &location.place {
            Place::Folder(folder) => {
                let path = folder.join(arch.apk_name()).join("APKINDEX.tar.gz");
                if !path.exists() {
                    tracing::warn!(repository = location.line, %arch, "the folder has no index and is passed over");
                    return Ok(None);
                }
                (path, None)
            }
            Place::Url(url) => {
                let url = format!("{}/{arch}/APKINDEX.tar.gz", url.0);
                let name = format!("{}.gz", sha256_hex(url.as_bytes()));
                let path = cache.folder().join(INDEXES).join(name);
                let held = cache.hold(&path);
                (
                    fetcher
                        .fetch(&url, &path, limits::INDEX_COMPRESSED_BYTES_MAX, Present::Renewed)
                        .await?
                        .path,
                    Some(held),
                )
            }
            Place::Build(_) => return Ok(None),
        };
        let bytes = tokio::fs::read(&path).await.map_err(|e| Error::io("read", &path, e))?;
        if bytes.len() as u64 > limits::INDEX_COMPRESSED_BYTES_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "the index is too large")
                .with("repository", &location.line));
        }
        Ok(Some(bytes.into()))
    }

    /// A repository whose index is this file.
    ///
    /// # Errors
    /// `Untrusted` for signatures and damage.
    pub(super) async fn kept(
        &self,
        location: &Location,
        bytes: Bytes,
        trusted: Option<&Keyring>,
        cache: &StateCache,
    ) -> Result<Arc<LoadedRepository>> {
        let folder = cache.folder().join(INDEXES);
        let (sha256, index) = self
            .parse(bytes, trusted.cloned(), folder)
            .await
            .map_err(|e| e.with("repository", &location.line))?;
        let (line, tag, place) = (location.line.clone(), location.tag.clone(), location.place.clone());
        Ok(Arc::new(LoadedRepository { line, tag, index, sha256, place }))
    }

    /// Parses an index, or finds it parsed, with its SHA-256; what it was verified with is part of its name.
    async fn parse(
        &self,
        bytes: Bytes,
        trusted: Option<Keyring>,
        folder: PathBuf,
    ) -> Result<(String, Arc<Index>)> {
        let parse = move || {
            let sha256 = sha256_hex(&bytes);
            let keys: Vec<String> = trusted
                .iter()
                .flat_map(Keyring::iter)
                .map(|(name, pem)| format!("{name} {}", sha256_hex(pem)))
                .collect();
            let name = format!("{sha256} {} {}", trusted.is_some(), keys.join(" "));
            (sha256, name, bytes, trusted)
        };
        let (sha256, name, bytes, trusted) = tokio::task::spawn_blocking(parse)
            .await
            .map_err(|e| Error::unexpected("the reader died").source(e))?;
        let read = async {
            let read = tokio::task::spawn_blocking(move || read_index(&bytes, trusted.as_ref(), &folder));
            read.await.map_err(|e| Error::unexpected("the reader died").source(e))?.map(Arc::new)
        };
        let index = self.parsed.try_get_with(name, read).await.map_err(Error::shared)?;
        Ok((sha256, index))
    }
}

/// The folder of indexes in the cache, swept with it.
const INDEXES: &str = "indexes";

/// How the names of parsed indexes end.
const FORM: &str = "read";

/// Indexes smaller than this are read as quickly as their kept form.
const FORM_SOURCE_BYTES_MIN: usize = 32 << 10;

/// Reads an index, or finds the form that was kept when the same file was read before. The signature is checked on the
/// file either way. A form that cannot be read or written only costs time.
fn read_index(bytes: &[u8], trusted: Option<&Keyring>, folder: &Path) -> Result<Index> {
    let content = Index::verify(bytes, trusted)?;
    if bytes.len() < FORM_SOURCE_BYTES_MIN {
        return Index::read_content(content);
    }
    let source: [u8; 32] = Sha256::digest(bytes).into();
    let path = folder.join(format!("{}.{FORM}", hex::encode(source)));
    let is_small = |path: &Path| path.metadata().is_ok_and(|m| m.len() <= 2 * limits::INDEX_BYTES_MAX);
    if is_small(&path)
        && let Ok(form) = std::fs::read(&path)
        && let Some(index) = index_form::read(&form, &source)
    {
        mark_used(&path);
        return Ok(index);
    }
    let index = Index::read_content(content)?;
    if let Some(form) = index_form::write(&index, &source)
        && let Err(error) = keep(&form, &path, folder)
    {
        tracing::debug!(%error, path = %path.display(), "the parsed index is not kept");
    }
    Ok(index)
}

/// Writes a form, which is there whole or not at all, and removes those that were not used for longest. Who resolves and
/// builds nothing never sweeps the whole cache.
fn keep(form: &[u8], path: &Path, folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, form)?;
    file.persist(path)?;
    let mut forms = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == FORM) {
            // What another process removed meanwhile is gone already.
            forms.extend(path.metadata().and_then(|known| known.modified()).ok().map(|used| (used, path)));
        }
    }
    forms.sort();
    for (_, old) in forms.iter().rev().skip(limits::INDEX_FORMS_MAX) {
        std::fs::remove_file(old)?;
    }
    Ok(())
}

/// Reads a key of a keyring: a path or an http(s) URL.
///
/// # Errors
/// As [`Fetcher::fetch`] and [`LocalAccess::check`].
pub(super) async fn read_key(
    entry: &str,
    local: &LocalAccess,
    fetcher: &dyn Fetcher,
    cache: &StateCache,
) -> Result<Vec<u8>> {
    let name = entry.rsplit('/').next().unwrap_or(entry);
    if !is_key_name(name) {
        return Err(Error::invalid(format!("{entry:?} does not end in the name of a key")));
    }
    let line = RepositoryLine::parse(entry)?;
    let (path, _held) = if line.is_http() {
        let name = format!("{}.{name}", sha256_hex(entry.as_bytes()));
        let path = cache.folder().join("keys").join(name);
        let held = cache.hold(&path);
        (fetcher.fetch(entry, &path, limits::KEY_BYTES_MAX, Present::Renewed).await?.path, Some(held))
    } else {
        (local.check(Path::new(line.path().unwrap_or(entry)))?, None)
    };
    let size = tokio::fs::metadata(&path).await.map_err(|e| Error::io("read", &path, e))?.len();
    if size > limits::KEY_BYTES_MAX {
        return Err(Error::new(ErrorKind::LimitExceeded, format!("the key {entry} has {size} bytes")));
    }
    tokio::fs::read(&path).await.map_err(|e| Error::io("read", &path, e))
}

/// A package must be the one that the index speaks of.
pub(super) fn verified(apk: ApkFile, package: &IndexPackage) -> Result<ApkFile> {
    let path = apk.path.clone();
    if (&apk.info.pkgname, &apk.info.pkgver) != (&package.name, &package.version) {
        let found = format!("{}-{}", apk.info.pkgname, apk.info.pkgver);
        let message = format!("{} says that it is {found}, not what the index lists", path.display());
        return Err(Error::new(ErrorKind::Untrusted, message).with("listed", package.file_name()));
    }
    match package.control_sha1 {
        Some(expected) if expected == apk.control_sha1 => Ok(apk),
        Some(expected) => Err(Error::new(
            ErrorKind::Untrusted,
            format!("{} is not the package that the index lists", path.display()),
        )
        .with("listed", checksum::q1(&expected))
        .with("found", checksum::q1(&apk.control_sha1))
        .hint("the repository's index is older or newer than its packages")),
        None => Err(Error::new(
            ErrorKind::Untrusted,
            format!("the index has no checksum that can be checked for {}", package.file_name()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("repo");
        std::fs::create_dir(&inside).unwrap();
        let some = LocalAccess::Below(vec![folder.path().to_owned()]);
        let line = format!("@edge {}", inside.display());
        assert_eq!(Location::parse(&line, &some).unwrap().tag, "edge");
        assert!(Location::parse("https://example.com/os/", &some).is_ok());
        for refused in
            ["/etc", "ftp://x/y", "@tag", "relative", &format!("{}/../etc", folder.path().display())]
        {
            assert!(Location::parse(refused, &some).is_err(), "{refused}");
        }
        let later = format!("{}/later/on", folder.path().display());
        assert!(Location::parse(&later, &some).is_ok());
        std::os::unix::fs::symlink("/etc/no-such", folder.path().join("dangling")).unwrap();
        let dangling = folder.path().join("dangling").display().to_string();
        assert!(Location::parse(&dangling, &some).is_err());
        let through = folder.path().join("link/later").display().to_string();
        let secret = Location::parse("@t https://u:secret@h/x/", &some).unwrap();
        assert!(!format!("{secret:?}").contains("secret") && secret.line == "@t https://u:xxxxx@h/x/");
        std::os::unix::fs::symlink("/etc", folder.path().join("link")).unwrap();
        let escape = folder.path().join("link").display().to_string();
        assert_eq!(Location::parse(&escape, &some).unwrap_err().kind(), ErrorKind::Untrusted);
        assert_eq!(Location::parse(&through, &some).unwrap_err().kind(), ErrorKind::Untrusted);
    }

    #[test]
    fn a_parsed_index_is_kept_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        // Texts that do not compress, so that the index is large enough.
        let package = |number: u64| IndexPackage {
            name: format!("p{number}"),
            version: "1-r0".to_owned(),
            description: sha256_hex(&number.to_le_bytes()),
            ..IndexPackage::default()
        };
        let index = |count| Index { description: Vec::new(), packages: (0..count).map(package).collect() };
        let bytes = index(2_000).write(None).unwrap();
        assert!(bytes.len() > FORM_SOURCE_BYTES_MIN);
        let read = |bytes: &[u8]| format!("{:?}", read_index(bytes, None, folder.path()).unwrap());
        let first = read(&bytes);
        let forms = || -> Vec<PathBuf> {
            folder.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let [form] = &forms()[..] else { panic!("{:?}", forms()) };
        assert_eq!(read(&bytes), first);
        // A damaged form is read past, and replaced.
        let whole = std::fs::read(form).unwrap();
        std::fs::write(form, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(read(&bytes), first);
        assert_eq!(std::fs::read(form).unwrap(), whole);
        // The signature is asked for all the same.
        let error = read_index(&bytes, Some(&Keyring::default()), folder.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        for more in 1..=limits::INDEX_FORMS_MAX as u64 {
            read(&index(2_000 + more).write(None).unwrap());
        }
        assert_eq!(forms().len(), limits::INDEX_FORMS_MAX);
        // A folder that cannot be written to costs time and nothing else.
        let nowhere = folder.path().join(form.file_name().unwrap()).join("x");
        assert!(read_index(&bytes, None, &nowhere).is_ok());
    }
}
