//! Station 8: from the environment of a plan to a root filesystem, as apko would assemble it.
//!
//! ```text
//! repositories ─ index, signature ─▶ solver ─▶ lock ─▶ packages ─ download, verify ─▶ rootfs tar
//! ```
//!
//! The tar is deterministic and cached by what goes into it, so a warm build assembles nothing.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use crate::apk::checksum;
use crate::apk::dependency::{Dependency, Operator, Rules};
use crate::apk::index::{Index, IndexPackage};
use crate::apk::signature::Keyring;
use crate::apk::writer::AccountNames;
use crate::arch::Arch;
use crate::builder::{BuildRepositories, EnvironmentLock, LockedPackage, LockedRepository};
use crate::cache::{Held, StateCache};
use crate::error::{Error, Result};
use crate::guest::{Blob, Layers, RootForm};
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
mod layers;
mod ldcache;
pub mod line;
pub mod repository;
pub mod workspace;

use assembly::{InputPackage, PackageFrom, Written};
use fetch::Fetcher;
use layers::{Layer, LayerStore};
use repository::{LoadedRepository, LocalAccess, Location, RepositoryCache};

/// Changes when the assembly changes, so that older cached root filesystems are not used.
const FORMAT: &str = "rootfs 5";

/// What assembles environments.
#[derive(Debug)]
pub struct Assembler {
    cache: Arc<StateCache>,
    layers: LayerStore,
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
    /// What was asked for when the packages were chosen last: the lock where builds resolve that again, otherwise the
    /// requested packages, sorted.
    pub world: Vec<String>,
}

impl Resolution {
    /// The records of the chosen packages in installation order.
    pub fn packages(&self) -> impl Iterator<Item = &IndexPackage> {
        self.choices.iter().map(|choice| &self.repositories[choice.repository].index.packages[choice.package])
    }

    /// The environment, exactly.
    pub fn environment_lock(
        &self,
        arch: Arch,
        build: Option<&Arc<dyn BuildRepositories>>,
    ) -> EnvironmentLock {
        let mut lock = EnvironmentLock::new(arch.apk_name());
        for (choice, package) in self.choices.iter().zip(self.packages()) {
            let sum = package.control_sha1.map(|sum| checksum::q1(&sum)).unwrap_or_default();
            let mut locked = LockedPackage::new(&package.name, &package.version, sum);
            let repository = &self.repositories[choice.repository];
            if repository.is_of_build() {
                locked.job = build.and_then(|build| build.maker(&package.name));
            } else if !repository.line.is_empty() {
                locked.repository = Some(repository.line.clone());
            }
            lock.packages.push(locked);
        }
        let named = self.repositories.iter().filter(|loaded| !loaded.line.is_empty());
        lock.repositories = named.map(|loaded| LockedRepository::new(&loaded.line, &loaded.sha256)).collect();
        lock.keyring = self.keyring.iter().map(|(name, _)| name.to_owned()).collect();
        lock
    }

    /// The lines of the repositories that have one.
    fn lines(&self) -> impl Iterator<Item = &str> {
        self.repositories.iter().map(|loaded| loaded.line.as_str()).filter(|line| !line.is_empty())
    }
}

/// An assembled root filesystem.
#[derive(Debug, Clone)]
pub struct Rootfs {
    /// The tar: all of it, or what its layers do not have.
    pub blob: Blob,
    /// What lies below the tar.
    pub layers: Layers,
    /// Names of its accounts.
    pub names: AccountNames,
    /// Whether it was there already.
    pub cached: bool,
    /// Keeps the file from being swept while somebody uses it.
    _held: Option<Arc<Held>>,
}

impl Rootfs {
    fn new(blob: Blob, names: AccountNames, layers: Vec<Arc<Layer>>, cached: bool) -> Self {
        let folders = layers.iter().map(|layer| layer.tree()).collect();
        Self { blob, layers: Layers::new(folders, Arc::new(layers)), names, cached, _held: None }
    }
}

impl Assembler {
    /// An assembler that keeps downloads and root filesystems in `cache` and uses signed repositories alone.
    pub fn new(cache: Arc<StateCache>, fetcher: Arc<dyn Fetcher>, local: LocalAccess) -> Self {
        Self {
            layers: LayerStore::new(&cache),
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
        self.resolve_as(environment, arch, Policy::Apko, true).await
    }

    /// As [`Self::resolve`], of what a job of a build of many packages sees: what the jobs made that it waited for comes
    /// before all repositories, and what that is called is not looked for elsewhere. A request for a version that they did
    /// not make is served by the repositories.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn resolve_in(
        &self,
        build: Option<&Arc<dyn BuildRepositories>>,
        environment: &PlanEnvironment,
        arch: Arch,
    ) -> Result<Resolution> {
        let seen = Seen { own: None, build };
        let (repositories, keyring) = self.load(&seen, environment, arch).await?;
        let requests = environment.packages.clone();
        let (subject, policy) = (String::new(), Policy::Apko);
        let world = World { requests, first: seen.count(), subject, policy, locked: true };
        solve(repositories, keyring, world).await
    }

    /// Chooses the packages of a test's environment: once, without a lock in between, and with packages that come before
    /// all repositories; what those are called is not looked for elsewhere, and no other package stands for `subject`.
    /// Behind them comes what the job sees of its build.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn resolve_test(
        &self,
        own: Option<Arc<LoadedRepository>>,
        build: Option<&Arc<dyn BuildRepositories>>,
        subject: &str,
        environment: &PlanEnvironment,
        arch: Arch,
    ) -> Result<Resolution> {
        let seen = Seen { own: own.as_ref(), build };
        let (repositories, keyring) = self.load(&seen, environment, arch).await?;
        let (requests, subject) = (environment.packages.clone(), subject.to_owned());
        let world = World { requests, first: seen.count(), subject, policy: Policy::Apko, locked: false };
        solve(repositories, keyring, world).await
    }

    /// What one of the tools answers: resolved once, by its rules. Builds resolve what was chosen again
    /// ([`Self::resolve`]), which decides the order of installation.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn resolve_with(
        &self,
        environment: &PlanEnvironment,
        arch: Arch,
        policy: Policy,
    ) -> Result<Resolution> {
        self.resolve_as(environment, arch, policy, false).await
    }

    async fn resolve_as(
        &self,
        environment: &PlanEnvironment,
        arch: Arch,
        policy: Policy,
        locked: bool,
    ) -> Result<Resolution> {
        let (repositories, keyring) = self.load(&Seen::default(), environment, arch).await?;
        let requests = environment.packages.clone();
        let world = World { requests, first: 0, subject: String::new(), policy, locked };
        solve(repositories, keyring, world).await
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
        Ok(self.load(&Seen::default(), environment, arch).await?.0)
    }

    /// The indexes of the repositories that an environment names, with their files.
    ///
    /// # Errors
    /// As [`Self::indexes`], with what cannot be had.
    pub async fn kept_indexes(
        &self,
        environment: &PlanEnvironment,
        arch: Arch,
    ) -> Result<Vec<KeptRepository>, UnreadPlace> {
        let mut keyring = Keyring::default();
        for place in &environment.keyring {
            let added = self.add_key(&mut keyring, place).await;
            added.map_err(|error| UnreadPlace { place: place.clone(), is_key: true, error })?;
        }
        let trusted = self.verify.then_some(&keyring);
        let nothing = |error| UnreadPlace { place: String::new(), is_key: false, error };
        let mut kept = Vec::new();
        for line in locations(environment).map_err(nothing)? {
            match self.kept_index(&line, arch, trusted).await {
                Ok(found) => kept.extend(found.map(|(loaded, bytes)| KeptRepository { line, loaded, bytes })),
                Err(error) => return Err(UnreadPlace { place: line, is_key: false, error }),
            }
        }
        Ok(kept)
    }

    /// The index of a repository; `None` where it has none.
    async fn kept_index(
        &self,
        line: &str,
        arch: Arch,
        trusted: Option<&Keyring>,
    ) -> Result<Option<(Arc<LoadedRepository>, Bytes)>> {
        let location = Location::parse(line, &self.local)?;
        let read = self.indexes.read(&location, arch, &*self.fetcher, &self.cache).await?;
        let Some(bytes) = read else { return Ok(None) };
        let loaded = self.indexes.kept(&location, bytes.clone(), trusted, &self.cache).await?;
        Ok(Some((loaded, bytes)))
    }

    /// The repositories of an environment behind those that come first, and its keys.
    async fn load(
        &self,
        seen: &Seen<'_>,
        environment: &PlanEnvironment,
        arch: Arch,
    ) -> Result<(Vec<Arc<LoadedRepository>>, Keyring)> {
        let keyring = self.keyring(&environment.keyring).await?;
        let locations = locations(environment)?;
        let mut repositories: Vec<Arc<LoadedRepository>> = seen.own.cloned().into_iter().collect();
        if let Some(build) = seen.build {
            let made = made_for(&environment.packages, build.made());
            repositories.push(Arc::new(LoadedRepository::of_build(made, Arc::clone(build))));
        }
        for line in &locations {
            let location = Location::parse(line, &self.local)?;
            let trusted = self.verify.then_some(&keyring);
            let kept = match seen.build {
                Some(build) => build.index(line).await?,
                None => None,
            };
            if let Some((bytes, _)) = kept {
                repositories.push(self.indexes.kept(&location, bytes, trusted, &self.cache).await?);
                continue;
            }
            let loaded = self.indexes.load(&location, arch, trusted, &*self.fetcher, &self.cache).await?;
            repositories.extend(loaded);
        }
        Ok((repositories, keyring))
    }

    async fn keyring(&self, entries: &[String]) -> Result<Keyring> {
        let mut keyring = Keyring::default();
        for entry in entries {
            self.add_key(&mut keyring, entry).await?;
        }
        Ok(keyring)
    }

    async fn add_key(&self, keyring: &mut Keyring, entry: &str) -> Result<()> {
        let name = entry.rsplit('/').next().unwrap_or(entry);
        let pem = repository::read_key(entry, &self.local, &*self.fetcher, &self.cache).await?;
        keyring.add(name, &pem)
    }

    /// Gets the chosen packages and assembles the root filesystem as one archive.
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
        self.assemble_as(RootForm::Archive, resolution, environment, arch).await
    }

    /// As [`Self::assemble`], in the form that a runner takes. Over layers a package is unpacked once for all root
    /// filesystems that have it.
    ///
    /// # Errors
    /// As [`Self::assemble`].
    pub async fn assemble_as(
        &self,
        form: RootForm,
        resolution: &Resolution,
        environment: &PlanEnvironment,
        arch: Arch,
    ) -> Result<Rootfs> {
        let key = match form {
            RootForm::Archive => cache_key(resolution, environment, arch),
            RootForm::Layered => format!("{}-top", cache_key(resolution, environment, arch)),
        };
        let folder = self.cache.folder().join("rootfs");
        tokio::fs::create_dir_all(&folder).await.map_err(|e| Error::io("create", &folder, e))?;
        let path = folder.join(format!("{key}.tar"));
        let held = self.cache.hold(&path);
        // Jobs with the same environment wait for the one that assembles it.
        let making = self.making.of(&key);
        let _alone = making.lock().await;
        if let Some(found) = self.cached(&path).await? {
            return Ok(Rootfs { _held: Some(Arc::new(held)), ..found });
        }
        let made = self.assemble_at(&path, form, resolution, environment, arch).await?;
        // What was there before had another lock, or none.
        Ok(Rootfs { _held: Some(Arc::new(self.cache.hold(&path))), ..made })
    }

    /// As [`Self::assemble_as`], always anew, and as the file `path`.
    ///
    /// # Errors
    /// As [`Self::assemble`].
    pub async fn assemble_at(
        &self,
        path: &Path,
        form: RootForm,
        resolution: &Resolution,
        environment: &PlanEnvironment,
        arch: Arch,
    ) -> Result<Rootfs> {
        let (packages, held) = self.packages(form, resolution, arch).await?;
        let input = assembly::Input {
            arch,
            packages,
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
        let made = made.await.map_err(|e| Error::unexpected("the assembly died").source(e))?;
        let Written { blob, names, layers } = made?;
        let made = Rootfs::new(blob, names, layers, false);
        let cache = Arc::clone(&self.cache);
        match tokio::task::spawn_blocking(move || cache.sweep()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(error = %error.chain(), "the cache cannot be swept"),
            Err(error) => tracing::warn!(%error, "the sweep of the cache died"),
        }
        Ok(made)
    }

    /// Gets the chosen packages, in the order of installation, and what keeps their files.
    async fn packages(
        &self,
        form: RootForm,
        resolution: &Resolution,
        arch: Arch,
    ) -> Result<(Vec<InputPackage>, Vec<Option<Held>>)> {
        let mut choices: Vec<(usize, &Choice)> = resolution.choices.iter().enumerate().collect();
        let bytes = |choice: &Choice| {
            resolution.repositories[choice.repository].index.packages[choice.package].size_bytes
        };
        // The largest first: they take longest, and others fit beside them.
        choices.sort_by_key(|(_, choice)| std::cmp::Reverse(bytes(choice)));
        let got = choices.into_iter().map(|(position, choice)| async move {
            let repository = &resolution.repositories[choice.repository];
            let record = &repository.index.packages[choice.package];
            let fetch = || repository.package_file(record, arch, &*self.fetcher, &self.cache);
            // What a job has just made is not asked for again.
            if form == RootForm::Layered && !repository.is_made() {
                let layer = self.layers.layer(record, fetch()).await?;
                if layer.is_whole() {
                    let from = PackageFrom::Layer(layer);
                    return Ok((position, InputPackage { record: record.clone(), from }, None));
                }
            }
            let (path, held) = fetch().await?;
            let from = PackageFrom::File(path);
            Ok::<_, Error>((position, InputPackage { record: record.clone(), from }, held))
        });
        let got: Vec<BoxFuture<'_, _>> = got.map(FutureExt::boxed).collect();
        let mut got: Vec<_> = stream::iter(got).buffer_unordered(limits::DOWNLOADS_MAX).try_collect().await?;
        // In the order of installation, however the downloads come in.
        got.sort_by_key(|(position, ..)| *position);
        Ok(got.into_iter().map(|(_, package, held)| (package, held)).unzip())
    }

    /// A root filesystem that an earlier build left, when it is whole.
    async fn cached(&self, path: &Path) -> Result<Option<Rootfs>> {
        let Some(meta) = meta(path).await else { return Ok(None) };
        let mut layers = Vec::with_capacity(meta.layers.len());
        for name in &meta.layers {
            match self.layers.held(name)? {
                Some(layer) => layers.push(layer),
                None => return Ok(None),
            }
        }
        let blob = Blob { path: path.to_owned(), sha256: meta.sha256, size_bytes: meta.size_bytes };
        let names = AccountNames::parse(&meta.passwd, &meta.group);
        Ok(Some(Rootfs::new(blob, names, layers, true)))
    }
}

/// A repository or a key of an environment that cannot be had.
#[derive(Debug)]
#[non_exhaustive]
pub struct UnreadPlace {
    /// As the environment names it; empty when it names no repository.
    pub place: String,
    /// Whether it is a key.
    pub is_key: bool,
    /// Why.
    pub error: Error,
}

/// A repository with the file of its index.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KeptRepository {
    /// Its line as the environment names it; it may hold a password.
    pub line: String,
    /// The repository.
    pub loaded: Arc<LoadedRepository>,
    /// The file of its index.
    pub bytes: Bytes,
}

/// The repositories of an environment, each once, in the order in which it asks them.
fn locations(environment: &PlanEnvironment) -> Result<Vec<String>> {
    let mut locations = environment.repositories.clone();
    locations.sort();
    locations.dedup();
    if locations.is_empty() {
        return Err(Error::invalid("the environment names no repository")
            .hint("add `environment.contents.repositories`, or give the server `--repository`"));
    }
    Ok(locations)
}

/// What an environment sees before its repositories.
#[derive(Default)]
struct Seen<'s> {
    /// What the job itself has made.
    own: Option<&'s Arc<LoadedRepository>>,
    /// What the job sees of its build.
    build: Option<&'s Arc<dyn BuildRepositories>>,
}

impl Seen<'_> {
    fn count(&self) -> usize {
        usize::from(self.own.is_some()) + usize::from(self.build.is_some())
    }
}

/// What jobs of a build made, without what requests exclude: a plan leaves a request to the repositories when it wants
/// another version than the build makes.
fn made_for(requests: &[String], made: Arc<Index>) -> Arc<Index> {
    let is_excluded = |package: &IndexPackage| {
        let mut wanted = requests.iter().map(|request| Dependency::parse(request));
        wanted.any(|wanted| {
            !wanted.conflict
                && wanted.name == package.name
                && wanted.operator != Operator::Any
                && !wanted.accepts(&package.version, Rules::Apko)
        })
    };
    if !made.packages.iter().any(is_excluded) {
        return made;
    }
    let mut index = Index::clone(&made);
    index.packages.retain(|package| !is_excluded(package));
    Arc::new(index)
}

/// What is asked of the solver.
struct World {
    requests: Vec<String>,
    /// So many repositories come before all others.
    first: usize,
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
    let (choices, world) = if locked { (solver.solve(&lock)?, lock.clone()) } else { (chosen, requests) };
    drop(solver);
    Ok(Resolution { repositories, keyring, choices, lock, world })
}

/// Names what goes into a root filesystem.
pub(crate) fn cache_key(resolution: &Resolution, environment: &PlanEnvironment, arch: Arch) -> String {
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
    put(&format!("{:?} {:?}", environment.keyring, environment.run_as));
    hex::encode(hasher.finalize())
}

/// What stands beside the archive of a root filesystem, when that is whole.
async fn meta(path: &Path) -> Option<assembly::Meta> {
    let meta = tokio::fs::read_to_string(path.with_extension("json")).await.ok()?;
    let meta: assembly::Meta = serde_json::from_str(&meta).ok()?;
    let size_bytes = tokio::fs::metadata(path).await.ok()?.len();
    (size_bytes == meta.size_bytes).then_some(meta)
}

#[cfg(test)]
mod layered_tests;
#[cfg(test)]
mod tests;
