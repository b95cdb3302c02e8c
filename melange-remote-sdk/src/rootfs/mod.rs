//! Station 8: from the environment of a plan to a root filesystem, as apko would assemble it.
//!
//! ```text
//! repositories ─ index, signature ─▶ solver ─▶ lock ─▶ packages ─ download, verify ─▶ rootfs tar
//! ```
//!
//! The tar is deterministic and cached by what goes into it, so a warm build assembles nothing.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use crate::apk::checksum;
use crate::apk::index::IndexPackage;
use crate::apk::signature::Keyring;
use crate::apk::writer::AccountNames;
use crate::arch::Arch;
use crate::cache::{Held, StateCache};
use crate::error::{Error, Result};
use crate::guest::Blob;
use crate::limits;
use crate::locks::NamedLocks;
use crate::melange::plan::PlanEnvironment;
use crate::solver::{Choice, Policy, Preference, RepositoryPackages, Solver};

pub mod addresses;
mod assembly;
pub mod credentials;
mod database;
pub mod fetch;
mod finish;
mod ldcache;
pub mod line;
pub mod repository;
pub mod workspace;

use fetch::Fetcher;
use repository::{LoadedRepository, LocalAccess, Location, RepositoryCache};

/// Changes when the assembly changes, so that older cached root filesystems are not used.
const FORMAT: &str = "rootfs 4";

/// What assembles environments.
#[derive(Debug)]
pub struct Assembler {
    cache: Arc<StateCache>,
    making: NamedLocks,
    fetcher: Arc<dyn Fetcher>,
    local: LocalAccess,
    verify: bool,
    indexes: RepositoryCache,
}

/// A resolved environment: exact packages in installation order.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// The repositories, as used.
    pub repositories: Vec<Arc<LoadedRepository>>,
    /// The keys, by file name.
    pub keyring: Keyring,
    /// The chosen packages in installation order.
    pub choices: Vec<Choice>,
    /// `name=version` of every package, sorted: the lock.
    pub lock: Vec<String>,
    /// The requested packages, sorted.
    pub world: Vec<String>,
}

impl Resolution {
    /// The records of the chosen packages in installation order.
    pub fn packages(&self) -> impl Iterator<Item = &IndexPackage> {
        self.choices.iter().map(|choice| &self.repositories[choice.repository].index.packages[choice.package])
    }

    /// The lines of the repositories that have one.
    fn lines(&self) -> impl Iterator<Item = &str> {
        self.repositories.iter().map(|loaded| loaded.line.as_str()).filter(|line| !line.is_empty())
    }
}

/// An assembled root filesystem.
#[derive(Debug, Clone)]
pub struct Rootfs {
    /// The tar.
    pub blob: Blob,
    /// Names of its accounts.
    pub names: AccountNames,
    /// Whether it was there already.
    pub cached: bool,
    /// Keeps the file from being swept while somebody uses it.
    _held: Option<Arc<Held>>,
}

impl Assembler {
    /// An assembler that keeps downloads and root filesystems in `cache` and uses signed repositories alone.
    pub fn new(cache: Arc<StateCache>, fetcher: Arc<dyn Fetcher>, local: LocalAccess) -> Self {
        Self {
            cache,
            making: NamedLocks::default(),
            fetcher,
            local,
            verify: true,
            indexes: RepositoryCache::default(),
        }
    }

    /// The same assembler, which uses unsigned repositories too.
    #[must_use]
    pub fn with_unsigned_repositories(mut self) -> Self {
        self.verify = false;
        self
    }

    /// Chooses the packages of an environment.
    ///
    /// # Errors
    /// `InvalidRequest` without repositories, `Untrusted` for signatures that do not hold, `Unavailable` for
    /// repositories that cannot be reached, and the solver's.
    pub async fn resolve(&self, environment: &PlanEnvironment, arch: Arch) -> Result<Resolution> {
        self.resolve_with(environment, arch, Policy::Apko).await
    }

    /// Chooses the packages of a test's environment: once, without a lock in between, and with packages that come before
    /// all repositories; what those are called is not looked for elsewhere, and no other package stands for `subject`.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn resolve_test(
        &self,
        own: Option<Arc<LoadedRepository>>,
        subject: &str,
        environment: &PlanEnvironment,
        arch: Arch,
    ) -> Result<Resolution> {
        let (repositories, keyring) = self.load(own.as_ref(), environment, arch).await?;
        let (world, first) = (environment.packages.clone(), own.map(|_| 0));
        solve(
            repositories,
            keyring,
            World {
                requests: world,
                first,
                subject: subject.to_owned(),
                policy: Policy::Apko,
                locked: false,
            },
        )
        .await
    }

    /// As [`Self::resolve`], with a choice of whose rules decide.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn resolve_with(
        &self,
        environment: &PlanEnvironment,
        arch: Arch,
        policy: Policy,
    ) -> Result<Resolution> {
        let (repositories, keyring) = self.load(None, environment, arch).await?;
        let requests = environment.packages.clone();
        solve(
            repositories,
            keyring,
            World { requests, first: None, subject: String::new(), policy, locked: true },
        )
        .await
    }

    /// The indexes of the repositories that an environment names, in the order in which it asks them.
    ///
    /// # Errors
    /// `InvalidRequest` when it names none; `Untrusted` for an index without the signature of a known key; `Unavailable`
    /// for one that cannot be had.
    pub async fn indexes(
        &self,
        environment: &PlanEnvironment,
        arch: Arch,
    ) -> Result<Vec<Arc<LoadedRepository>>> {
        Ok(self.load(None, environment, arch).await?.0)
    }

    /// The repositories of an environment behind `own`, and its keys.
    async fn load(
        &self,
        own: Option<&Arc<LoadedRepository>>,
        environment: &PlanEnvironment,
        arch: Arch,
    ) -> Result<(Vec<Arc<LoadedRepository>>, Keyring)> {
        let keyring = self.keyring(&environment.keyring).await?;
        let mut locations = environment.repositories.clone();
        locations.sort();
        locations.dedup();
        if locations.is_empty() {
            return Err(Error::invalid("the environment names no repository")
                .hint("add `environment.contents.repositories`, or give the server `--repository`"));
        }
        let mut repositories: Vec<Arc<LoadedRepository>> = own.cloned().into_iter().collect();
        for location in &locations {
            let location = Location::parse(location, &self.local)?;
            let trusted = self.verify.then_some(&keyring);
            let loaded = self.indexes.load(&location, arch, trusted, &*self.fetcher, &self.cache).await?;
            repositories.extend(loaded);
        }
        Ok((repositories, keyring))
    }

    async fn keyring(&self, entries: &[String]) -> Result<Keyring> {
        let mut keyring = Keyring::default();
        for entry in entries {
            let name = entry.rsplit('/').next().unwrap_or(entry);
            let pem = repository::read_key(entry, &self.local, &*self.fetcher, &self.cache).await?;
            keyring.add(name, &pem)?;
        }
        Ok(keyring)
    }

    /// Gets the chosen packages and assembles the root filesystem.
    ///
    /// # Errors
    /// `Untrusted` for packages that are not what the index says, `Conflict` for two owners of a file,
    /// `Unavailable` for downloads that fail.
    pub async fn assemble(
        &self,
        resolution: &Resolution,
        environment: &PlanEnvironment,
        arch: Arch,
    ) -> Result<Rootfs> {
        let key = cache_key(resolution, environment, arch);
        let folder = self.cache.folder().join("rootfs");
        tokio::fs::create_dir_all(&folder).await.map_err(|e| Error::io("create", &folder, e))?;
        let path = folder.join(format!("{key}.tar"));
        let held = self.cache.hold(&path);
        // Jobs with the same environment wait for the one that assembles it.
        let making = self.making.of(&key);
        let _alone = making.lock().await;
        if let Some(found) = cached(&path).await {
            return Ok(Rootfs { _held: Some(Arc::new(held)), ..found });
        }
        let made = self.assemble_at(&path, resolution, environment, arch).await?;
        // What was there before had another lock, or none.
        Ok(Rootfs { _held: Some(Arc::new(self.cache.hold(&path))), ..made })
    }

    /// As [`Self::assemble`], always anew, and as the file `path`.
    ///
    /// # Errors
    /// As [`Self::assemble`].
    pub async fn assemble_at(
        &self,
        path: &Path,
        resolution: &Resolution,
        environment: &PlanEnvironment,
        arch: Arch,
    ) -> Result<Rootfs> {
        let files = resolution.choices.iter().map(|choice| async {
            let repository = &resolution.repositories[choice.repository];
            let package = &repository.index.packages[choice.package];
            let (path, held) = repository.package_file(package, arch, &*self.fetcher, &self.cache).await?;
            Ok::<_, Error>(((path, package.clone()), held))
        });
        let files: Vec<BoxFuture<'_, _>> = files.map(FutureExt::boxed).collect();
        // In the order of installation, however the downloads come in.
        let files: Vec<_> = stream::iter(files).buffered(limits::DOWNLOADS_MAX).try_collect().await?;
        let (files, held): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        let input = assembly::Input {
            arch,
            packages: files,
            repositories: resolution.lines().map(str::to_owned).collect(),
            world: resolution.world.clone(),
            keyring: resolution.keyring.clone(),
            environment: environment.clone(),
        };
        let path = path.to_owned();
        let made = tokio::task::spawn_blocking(move || {
            let made = assembly::write(&input, &path);
            drop(held);
            made
        });
        let made = made.await.map_err(|e| Error::unexpected("the assembly died").source(e))??;
        let cache = Arc::clone(&self.cache);
        match tokio::task::spawn_blocking(move || cache.sweep()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(error = %error.chain(), "the cache cannot be swept"),
            Err(error) => tracing::warn!(%error, "the sweep of the cache died"),
        }
        Ok(made)
    }
}

/// What is asked of the solver.
struct World {
    requests: Vec<String>,
    /// The repository before all others.
    first: Option<usize>,
    /// The package under test, which no other stands for; empty without one.
    subject: String,
    policy: Policy,
    /// Whether the choice is locked and resolved again, as builds do it; that decides the order of installation.
    locked: bool,
}

/// As [`choose`], where it does not hold up the async world.
async fn solve(
    repositories: Vec<Arc<LoadedRepository>>,
    keyring: Keyring,
    world: World,
) -> Result<Resolution> {
    tokio::task::spawn_blocking(move || choose(repositories, keyring, world))
        .await
        .map_err(|e| Error::unexpected("the solver died").source(e))?
}

/// Resolves, and where a lock is wanted, resolves that again for the installation order.
fn choose(repositories: Vec<Arc<LoadedRepository>>, keyring: Keyring, world: World) -> Result<Resolution> {
    let World { mut requests, first, subject, policy, locked } = world;
    requests.sort();
    requests.dedup();
    let tables: Vec<RepositoryPackages<'_>> = repositories.iter().map(|loaded| loaded.packages()).collect();
    let solver = Solver::with_preference(&tables, Preference { first, by_name_only: &subject }, policy);
    let chosen = solver.solve(&requests)?;
    let mut lock: Vec<String> = chosen
        .iter()
        .map(|choice| {
            let repository = &repositories[choice.repository];
            let package = &repository.index.packages[choice.package];
            // Without its tag, what a tagged repository has would not be found again.
            let pin = if repository.tag.is_empty() { String::new() } else { format!("@{}", repository.tag) };
            format!("{}={}{pin}", package.name, package.version)
        })
        .collect();
    lock.sort();
    let choices = if locked { solver.solve(&lock)? } else { chosen };
    drop(solver);
    Ok(Resolution { repositories, keyring, choices, lock, world: requests })
}

/// Names what goes into a root filesystem.
fn cache_key(resolution: &Resolution, environment: &PlanEnvironment, arch: Arch) -> String {
    let mut hasher = Sha256::new();
    let mut put = |text: &str| {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    put(FORMAT);
    put(arch.apk_name());
    for package in resolution.packages() {
        put(&package.name);
        put(&package.version);
        put(&package.control_sha1.map(|sum| checksum::q1(&sum)).unwrap_or_default());
    }
    resolution.lines().for_each(&mut put);
    for line in &resolution.world {
        put(line);
    }
    for (name, pem) in resolution.keyring.iter() {
        put(name);
        put(&String::from_utf8_lossy(pem));
    }
    put(&format!("{:?} {:?} {:?}", environment.users, environment.groups, environment.paths));
    hex::encode(hasher.finalize())
}

/// A root filesystem that an earlier build left, when it is whole.
async fn cached(path: &Path) -> Option<Rootfs> {
    let meta = tokio::fs::read_to_string(path.with_extension("json")).await.ok()?;
    let meta: assembly::Meta = serde_json::from_str(&meta).ok()?;
    let size_bytes = tokio::fs::metadata(path).await.ok()?.len();
    (size_bytes == meta.size_bytes).then(|| Rootfs {
        blob: Blob { path: path.to_owned(), sha256: meta.sha256, size_bytes },
        names: AccountNames::parse(&meta.passwd, &meta.group),
        cached: true,
        _held: None,
    })
}

#[cfg(test)]
mod tests;
