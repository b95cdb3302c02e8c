//! Artifacts in an object store: memory, a local directory, Google Cloud Storage, Amazon S3, Azure Blob Storage.
//!
//! Not every one of them keeps attributes, so a checksum lies beside its artifact, under `.sha256/<key>`,
//! together with the entity tag of the object that it was taken of. When the tags differ the artifact is read
//! again: a checksum is late at worst, never wrong.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload,
};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};

use self::failure::Missing;
use self::upload::Upload;
use super::{ArtifactBody, ArtifactKey, ArtifactStorage, ByteStream, StoredArtifact};
use crate::error::{Blame, Error, ErrorKind, Result};
use crate::limits;

mod failure;
#[cfg(any(feature = "gcs", feature = "s3", feature = "azure"))]
mod options;
mod upload;

/// Where checksums lie; no [`ArtifactKey`] begins with a dot.
const CHECKSUMS: &str = ".sha256";

/// Tries of one reading: each new one means that somebody has put the key again since the last look at it.
const GET_TRIES_MAX: usize = 8;

/// An [`ArtifactStorage`] over any [`ObjectStore`].
#[derive(Debug, Clone)]
pub struct ObjectArtifactStorage {
    objects: Arc<dyn ObjectStore>,
    /// The same objects, written without waiting for the disk where there is one: a checksum that a crash lost or cut
    /// off is taken again.
    checksums: Arc<dyn ObjectStore>,
    /// Who may write now, where it is a disk.
    writes: Option<Arc<Semaphore>>,
    root: String,
}

impl ObjectArtifactStorage {
    /// A storage over `objects`; `root` is what [`ArtifactStorage::url`] puts before the keys.
    pub fn new(objects: Arc<dyn ObjectStore>, root: impl Into<String>) -> Self {
        Self { checksums: Arc::clone(&objects), objects, writes: None, root: root.into() }
    }

    /// A storage in memory, for tests and examples.
    pub fn memory() -> Self {
        Self::new(Arc::new(object_store::memory::InMemory::new()), "memory:/")
    }

    /// A storage in a local directory, which is made when it is missing. Files are written beside their place,
    /// made durable and renamed.
    ///
    /// # Errors
    /// When the directory cannot be made or opened.
    #[cfg(feature = "local")]
    pub fn local(directory: &std::path::Path) -> Result<Self> {
        use object_store::local::LocalFileSystem;

        std::fs::create_dir_all(directory).map_err(|source| Error::io("make", directory, source))?;
        let root = directory.display().to_string();
        let checksums = LocalFileSystem::new_with_prefix(directory)
            .map_err(|error| failure::failure("open the storage", &root, Missing::Bucket, error))?
            // The folder of a job goes with its last artifact.
            .with_automatic_cleanup(true);
        let objects = checksums.clone().with_fsync(true);
        let storage = Self::new(Arc::new(objects), root.trim_end_matches('/'));
        let writes = Some(Arc::new(Semaphore::new(limits::LOCAL_WRITES_MAX)));
        Ok(Self { checksums: Arc::new(checksums), writes, ..storage })
    }

    /// A storage in a bucket of Google Cloud Storage. `options` are keys of the object store's own, such as
    /// `google_service_account`; without credentials the machine's own identity is used. The bucket must exist.
    ///
    /// # Errors
    /// `InvalidRequest` for an unknown option or a bad value.
    #[cfg(feature = "gcs")]
    pub fn gcs(bucket: &str, options: &[(String, String)]) -> Result<Self> {
        let root = format!("gs://{bucket}");
        Ok(Self::new(options::gcs(&root, bucket, options)?, root))
    }

    /// A storage in a bucket of Amazon S3, or of what speaks its language. `options` are keys of the object
    /// store's own, such as `aws_region` or `aws_endpoint`. The bucket must exist.
    ///
    /// # Errors
    /// `InvalidRequest` for an unknown option or a bad value.
    #[cfg(feature = "s3")]
    pub fn s3(bucket: &str, options: &[(String, String)]) -> Result<Self> {
        let root = format!("s3://{bucket}");
        Ok(Self::new(options::s3(&root, bucket, options)?, root))
    }

    /// A storage in a container of Azure Blob Storage. `options` are keys of the object store's own, such as
    /// `azure_storage_account_name`. The container must exist.
    ///
    /// # Errors
    /// `InvalidRequest` for an unknown option or a bad value.
    #[cfg(feature = "azure")]
    pub fn azure(container: &str, options: &[(String, String)]) -> Result<Self> {
        let root = format!("az://{container}");
        Ok(Self::new(options::azure(&root, container, options)?, root))
    }

    /// The storage that a URL names: `file:///folder`, `gs://bucket`, `s3://bucket`, `az://container`, the last three
    /// also with a prefix such as `s3://bucket/farm`. `options` are keys of the object store's own, such as
    /// `aws_endpoint`.
    ///
    /// # Errors
    /// `InvalidRequest` for other URLs, unknown options and bad values; as [`Self::local`].
    #[cfg(all(feature = "local", feature = "gcs", feature = "s3", feature = "azure"))]
    pub fn open(url: &str, options: &[(String, String)]) -> Result<Self> {
        let refused = |why: &str| {
            Error::invalid(format!("the storage {url:?} {why}"))
                .hint("a storage is file:///folder, gs://bucket, s3://bucket or az://container, perhaps with /prefix")
        };
        let (scheme, place) = url.split_once("://").ok_or_else(|| refused("has no scheme"))?;
        if scheme == "file" {
            let folder = std::path::Path::new(place);
            if !folder.is_absolute() {
                return Err(refused("is not an absolute path"));
            }
            return Self::local(folder);
        }
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return Err(refused("names no bucket"));
        }
        let whole = match scheme {
            "gs" => Self::gcs(bucket, options)?,
            "s3" => Self::s3(bucket, options)?,
            "az" => Self::azure(bucket, options)?,
            _ => return Err(refused("has a scheme that is not known")),
        };
        let prefix = Path::parse(prefix.trim_end_matches('/'))
            .map_err(|error| refused("has no usable prefix").source(error))?;
        if prefix.as_ref().is_empty() {
            return Ok(whole);
        }
        let root = format!("{}/{prefix}", whole.root);
        Ok(Self::new(Arc::new(object_store::prefix::PrefixStore::new(whole.objects, prefix)), root))
    }

    /// Asks the storage for a first object, to learn whether it can be used. It is `Ok` for an empty one.
    ///
    /// # Errors
    /// `Unavailable` when the storage does not answer within [`limits::STORAGE_CHECK`] or may answer later; `Unexpected`
    /// when it refuses: wrong credentials, no such bucket or container, an endpoint that cannot be used.
    pub async fn check(&self) -> Result<()> {
        const DOING: &str = "use the storage";
        let mut listing = self.objects.list(None);
        match tokio::time::timeout(limits::STORAGE_CHECK, listing.next()).await {
            Ok(None | Some(Ok(_))) => Ok(()),
            Ok(Some(Err(error))) => Err(failure::refusal(DOING, &self.root, error)),
            Err(_) => {
                let (root, seconds) = (&self.root, limits::STORAGE_CHECK.as_secs());
                let message = format!("cannot {DOING}: there is no answer from {root} within {seconds} s");
                let error = Error::new(ErrorKind::Unavailable, message).blame(Blame::Farm);
                Err(error.hint(failure::NO_ANSWER_HINT))
            }
        }
    }

    /// The error of an operation on one artifact.
    fn failure(&self, operation: &str, key: &ArtifactKey, error: object_store::Error) -> Error {
        failure::failure(&format!("{operation} the artifact {key}"), &self.root, Missing::Artifact, error)
    }

    async fn meta(&self, key: &ArtifactKey) -> Result<ObjectMeta> {
        self.objects.head(&path(key)).await.map_err(|error| self.failure("look up", key, error))
    }

    /// Waits until one more may be written.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.writes.as_deref()?.acquire().await.ok()
    }

    /// Sends the bytes: small artifacts at once, others in parts. Returns the entity tag and the size.
    async fn send(
        &self,
        key: &ArtifactKey,
        mut bytes: ByteStream,
        hash: &mut Sha256,
    ) -> Result<(Option<String>, u64)> {
        let doing = format!("store the artifact {key}");
        let fail = |error| failure::failure(&doing, &self.root, Missing::Bucket, error);
        let mut head: Vec<Bytes> = Vec::new();
        let mut size = 0u64;
        while size < limits::ARTIFACT_PART_BYTES {
            let Some(chunk) = bytes.try_next().await? else {
                let payload: PutPayload = head.into_iter().collect();
                let _turn = self.turn().await;
                let put = self.objects.put(&path(key), payload).await.map_err(fail)?;
                return Ok((put.e_tag, size));
            };
            size += count(chunk.len());
            hash.update(&chunk);
            head.push(chunk);
        }
        let upload = self.objects.put_multipart(&path(key)).await.map_err(fail)?;
        let mut upload = Upload::new(key.clone(), upload);
        let sent = async {
            for chunk in head {
                upload.write(chunk).await.map_err(fail)?;
            }
            while let Some(chunk) = bytes.try_next().await? {
                size += count(chunk.len());
                hash.update(&chunk);
                upload.write(chunk).await.map_err(fail)?;
            }
            let put = upload.finish().await.map_err(fail)?;
            Ok((put.e_tag, size))
        };
        let sent = sent.await;
        if sent.is_err() {
            upload.abort().await;
        }
        sent
    }

    /// The copy for what the storage cannot do by itself: of two at once the later one counts.
    async fn copy_unless_seen(&self, from: &ArtifactKey, to: &ArtifactKey) -> Result<StoredArtifact> {
        match self.head(to).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let body = self.get(from, None).await?;
                self.put(to, body.bytes).await
            }
            known => known,
        }
    }

    /// One try to read; `None` when the key was put again between the look at it and the reading.
    async fn try_get(&self, key: &ArtifactKey, range: Option<Range<u64>>) -> Result<Option<ArtifactBody>> {
        let meta = self.meta(key).await?;
        if let Some(range) = &range
            && (range.start >= range.end || range.end > meta.size)
        {
            let message = format!("there are no bytes {}..{} in {key}", range.start, range.end);
            return Err(Error::invalid(message).hint(format!("it has {} bytes", meta.size)));
        }
        let artifact = self.describe(key.clone(), &meta).await?;
        // The tag keeps checksum and bytes together when somebody puts the key again right now.
        let options = GetOptions::default().with_if_match(meta.e_tag.clone());
        let options = options.with_range(range.map(GetRange::Bounded));
        let found = match self.objects.get_opts(&path(key), options).await {
            Err(object_store::Error::Precondition { .. }) => return Ok(None),
            found => found.map_err(|error| self.failure("read", key, error))?,
        };
        let range = found.range.clone();
        let (storage, name) = (self.clone(), key.clone());
        let bytes = found.into_stream().map_err(move |error| storage.failure("read", &name, error));
        Ok(Some(ArtifactBody { artifact, range, bytes: bytes.boxed() }))
    }

    /// The checksum of an object: the one beside it when that is of this very object, else a new one.
    async fn checksum(&self, key: &ArtifactKey, meta: &ObjectMeta) -> Result<String> {
        let expected = Checksum { size: meta.size, e_tag: meta.e_tag.clone().unwrap_or_default() };
        match self.checksums.get(&checksum_path(key)).await {
            Ok(found) => {
                let text = found.bytes().await.map_err(|error| self.failure("read", key, error))?;
                if let Some(sha256) = expected.read(&text) {
                    return Ok(sha256);
                }
            }
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(self.failure("read the checksum of", key, error)),
        }
        let found = self.objects.get(&path(key)).await;
        let found = found.map_err(|error| self.failure("read", key, error))?;
        let taken_of =
            Checksum { size: found.meta.size, e_tag: found.meta.e_tag.clone().unwrap_or_default() };
        let mut hash = Sha256::new();
        let mut bytes = found.into_stream();
        while let Some(chunk) = bytes.next().await {
            hash.update(chunk.map_err(|error| self.failure("read", key, error))?);
        }
        let sha256 = hex::encode(hash.finalize());
        self.write_checksum(key, &taken_of, &sha256).await;
        Ok(sha256)
    }

    /// A checksum that cannot be written is taken again by the next reader.
    async fn write_checksum(&self, key: &ArtifactKey, checksum: &Checksum, sha256: &str) {
        let text = checksum.write(sha256);
        let _turn = self.turn().await;
        if let Err(error) = self.checksums.put(&checksum_path(key), text.into()).await {
            tracing::warn!(%key, error = failure::line(&error), "a checksum could not be written");
        }
    }

    async fn describe(&self, key: ArtifactKey, meta: &ObjectMeta) -> Result<StoredArtifact> {
        let sha256 = self.checksum(&key, meta).await?;
        Ok(StoredArtifact { key, size_bytes: meta.size, sha256 })
    }
}

/// What a checksum was taken of.
struct Checksum {
    size: u64,
    e_tag: String,
}

impl Checksum {
    fn write(&self, sha256: &str) -> String {
        format!("{sha256} {} {}\n", self.size, self.e_tag)
    }

    fn read(&self, text: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(text).ok()?;
        let sha256 = text.get(..64)?;
        let ours = sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) && text == self.write(sha256);
        ours.then(|| sha256.to_owned())
    }
}

fn path(key: &ArtifactKey) -> Path {
    Path::from(key.as_str())
}

fn checksum_path(key: &ArtifactKey) -> Path {
    Path::from(format!("{CHECKSUMS}/{key}"))
}

/// The key of an object; `None` for what no key can name. `~` is the only character of keys that paths escape.
fn key_of(path: &Path) -> Option<ArtifactKey> {
    path.as_ref().replace("%7E", "~").parse().ok()
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[async_trait]
impl ArtifactStorage for ObjectArtifactStorage {
    async fn put(&self, key: &ArtifactKey, bytes: ByteStream) -> Result<StoredArtifact> {
        let mut hash = Sha256::new();
        let (e_tag, size) = self.send(key, bytes, &mut hash).await?;
        let sha256 = hex::encode(hash.finalize());
        let checksum = Checksum { size, e_tag: e_tag.unwrap_or_default() };
        self.write_checksum(key, &checksum, &sha256).await;
        Ok(StoredArtifact { key: key.clone(), size_bytes: size, sha256 })
    }

    async fn copy_if_absent(&self, from: &ArtifactKey, to: &ArtifactKey) -> Result<StoredArtifact> {
        let turn = self.turn().await;
        let options = CopyOptions::default().with_mode(CopyMode::Create);
        match self.objects.copy_opts(&path(from), &path(to), options).await {
            Ok(()) => {}
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
            Err(error @ object_store::Error::NotFound { .. }) => {
                return Err(self.failure("copy", from, error));
            }
            // Disks without hard links, files with too many of them, objects beyond what a bucket copies at once, and
            // buckets without conditions. A storage that is away says so again.
            Err(_) => {
                drop(turn);
                return self.copy_unless_seen(from, to).await;
            }
        }
        drop(turn);
        self.head(to).await
    }

    async fn get(&self, key: &ArtifactKey, range: Option<Range<u64>>) -> Result<ArtifactBody> {
        for _ in 0..GET_TRIES_MAX {
            if let Some(body) = self.try_get(key, range.clone()).await? {
                return Ok(body);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, format!("{key} is put again and again while it is read")))
    }

    async fn head(&self, key: &ArtifactKey) -> Result<StoredArtifact> {
        let meta = self.meta(key).await?;
        self.describe(key.clone(), &meta).await
    }

    async fn stored_at(&self, key: &ArtifactKey) -> Result<Timestamp> {
        let (time, bad) = (self.meta(key).await?.last_modified, "the storage tells a time that is none");
        let nanoseconds = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(0);
        Timestamp::new(time.timestamp(), nanoseconds)
            .map_err(|error| Error::unexpected(bad).with("artifact", key).source(error))
    }

    async fn list(&self, prefix: &ArtifactKey) -> Result<Vec<StoredArtifact>> {
        let doing = format!("list the artifacts of {prefix}");
        let fail = |error| failure::failure(&doing, &self.root, Missing::Bucket, error);
        let mut listing = self.objects.list(Some(&path(prefix)));
        let mut found = Vec::new();
        while let Some(meta) = listing.next().await {
            let meta = meta.map_err(fail)?;
            if let Some(key) = key_of(&meta.location) {
                found.push((key, meta));
            }
            if found.len() > limits::ARTIFACTS_LISTED_MAX {
                let message = format!("more than {} artifacts under {prefix}", limits::ARTIFACTS_LISTED_MAX);
                return Err(Error::new(ErrorKind::LimitExceeded, message));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        stream::iter(found)
            .map(|(key, meta)| async move { self.describe(key, &meta).await })
            .buffered(limits::CHECKSUM_READS_MAX)
            .try_collect()
            .await
    }

    async fn folders(&self, behind: &str, limit: usize) -> Result<Vec<ArtifactKey>> {
        let fail =
            |error| failure::failure("list the folders of artifacts", &self.root, Missing::Bucket, error);
        let listed = self.objects.list_with_delimiter(None).await.map_err(fail)?;
        let objects = listed.objects.iter().map(|object| &object.location);
        // Checksums lie below a name that no key has.
        let keys = listed.common_prefixes.iter().chain(objects).filter_map(key_of);
        let mut keys: Vec<ArtifactKey> = keys.filter(|key| key.as_str() > behind).collect();
        keys.sort();
        keys.dedup();
        keys.truncate(limit);
        Ok(keys)
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<()> {
        for path in [path(key), checksum_path(key)] {
            match self.objects.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failure("remove", key, error)),
            }
        }
        Ok(())
    }

    fn url(&self, key: &ArtifactKey) -> String {
        format!("{}/{key}", self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        conformance::artifact_storage::all(Arc::new(ObjectArtifactStorage::memory())).await;
    }

    #[cfg(feature = "local")]
    #[tokio::test]
    async fn a_directory_keeps_the_contract() {
        let directory = tempfile::tempdir().unwrap();
        let storage = ObjectArtifactStorage::local(&directory.path().join("new/output")).unwrap();
        conformance::artifact_storage::all(Arc::new(storage)).await;
    }

    #[cfg(feature = "local")]
    #[tokio::test]
    async fn a_checksum_that_a_crash_cut_off_is_taken_again() {
        let directory = tempfile::tempdir().unwrap();
        let key: ArtifactKey = "job/x86_64/a.apk".parse().unwrap();
        let bytes = stream::iter([Ok(Bytes::from_static(b"one"))]).boxed();
        let storage = ObjectArtifactStorage::local(directory.path()).unwrap();
        let put = storage.put(&key, bytes).await.unwrap();
        let beside = directory.path().join(CHECKSUMS).join(key.as_str());
        let whole = std::fs::read(&beside).unwrap();
        for left in [&[][..], &whole[..whole.len() / 2], &whole[..whole.len() - 1], &vec![0; whole.len()]] {
            std::fs::write(&beside, left).unwrap();
            assert_eq!(storage.head(&key).await.unwrap(), put);
            assert_eq!(std::fs::read(&beside).unwrap(), whole);
        }
    }

    #[cfg(feature = "local")]
    #[tokio::test]
    async fn checksums_survive_a_restart_and_follow_a_changed_file() {
        let directory = tempfile::tempdir().unwrap();
        let key: ArtifactKey = "job/x86_64/a.apk".parse().unwrap();
        let bytes = |text: &'static str| stream::iter([Ok(Bytes::from_static(text.as_bytes()))]).boxed();
        let first = ObjectArtifactStorage::local(directory.path()).unwrap();
        let put = first.put(&key, bytes("one")).await.unwrap();
        let again = ObjectArtifactStorage::local(directory.path()).unwrap();
        assert_eq!(again.head(&key).await.unwrap(), put);
        let file = directory.path().join(key.as_str());
        assert_eq!(again.url(&key), file.display().to_string());
        std::fs::write(file, "other").unwrap();
        let changed = again.head(&key).await.unwrap();
        assert_eq!(changed.sha256, hex::encode(Sha256::digest("other")));
        std::fs::remove_dir_all(directory.path().join(CHECKSUMS)).unwrap();
        assert_eq!(again.head(&key).await.unwrap(), changed);
    }
}
