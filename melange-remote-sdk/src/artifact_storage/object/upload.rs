//! A large artifact on its way into an object store, in parts. What was sent of an upload that does not come to its end
//! is removed, also when the upload is dropped: stores keep such parts, unseen and paid for, until somebody does.

use bytes::Bytes;
use object_store::{MultipartUpload, PutPayloadMut, PutResult};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::failure;
use crate::artifact_storage::ArtifactKey;
use crate::limits;

/// An upload; dropping it before it has finished removes it.
pub(super) struct Upload {
    key: ArtifactKey,
    open: Option<Open>,
}

/// What is under way.
struct Open {
    upload: Box<dyn MultipartUpload>,
    parts: JoinSet<object_store::Result<()>>,
    /// Bytes that do not make a part yet.
    rest: PutPayloadMut,
}

impl Upload {
    /// An upload that the store has begun.
    pub(super) fn new(key: ArtifactKey, upload: Box<dyn MultipartUpload>) -> Self {
        let open = Open { upload, parts: JoinSet::new(), rest: PutPayloadMut::new() };
        Self { key, open: Some(open) }
    }

    /// Takes the next bytes; waits while enough parts are under way.
    pub(super) async fn write(&mut self, mut bytes: Bytes) -> object_store::Result<()> {
        let Some(open) = &mut self.open else { return Err(ended()) };
        while !bytes.is_empty() {
            let room = limits::UPLOAD_PART_BYTES.saturating_sub(open.rest.content_length());
            open.rest.push(bytes.split_to(room.min(bytes.len())));
            if open.rest.content_length() >= limits::UPLOAD_PART_BYTES {
                open.send_rest().await?;
            }
        }
        Ok(())
    }

    /// Sends what is left and makes the artifact visible.
    pub(super) async fn finish(&mut self) -> object_store::Result<PutResult> {
        let Some(open) = &mut self.open else { return Err(ended()) };
        if open.rest.content_length() > 0 {
            open.send_rest().await?;
        }
        open.wait_for_fewer_than(1).await?;
        let put = open.upload.complete().await?;
        self.open = None;
        Ok(put)
    }

    /// Removes what was sent. The removal goes on when nobody waits for it any more.
    pub(super) async fn abort(&mut self) {
        if let Some(open) = self.open.take() {
            let removal = tokio::spawn(open.remove(self.key.clone()));
            let _ = tokio::time::timeout(limits::UPLOAD_ABORT_WAIT, removal).await;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Without a runtime nobody could remove anything.
        if let Some(open) = self.open.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(open.remove(self.key.clone()));
        }
    }
}

impl Open {
    async fn send_rest(&mut self) -> object_store::Result<()> {
        self.wait_for_fewer_than(limits::ARTIFACT_PARTS_AT_ONCE_MAX).await?;
        let part = std::mem::take(&mut self.rest);
        self.parts.spawn(self.upload.put_part(part.into()));
        Ok(())
    }

    async fn wait_for_fewer_than(&mut self, most: usize) -> object_store::Result<()> {
        while self.parts.len() >= most {
            match self.parts.join_next().await {
                Some(sent) => sent??,
                None => break,
            }
        }
        Ok(())
    }

    async fn remove(mut self, key: ArtifactKey) {
        // A part that comes after the removal would stay.
        self.parts.shutdown().await;
        if let Err(error) = self.upload.abort().await {
            let error = failure::line(&error);
            tracing::warn!(%key, error, "an unfinished upload could not be removed");
        }
    }
}

fn ended() -> object_store::Error {
    object_store::Error::Generic { store: "upload", source: "the upload has ended".into() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use futures_util::stream::BoxStream;
    use futures_util::{FutureExt, StreamExt, stream};
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, ObjectMeta, ObjectStore, PutMultipartOptions,
        PutOptions, PutPayload, UploadPart,
    };
    use tokio::sync::Notify;

    use super::super::ObjectArtifactStorage;
    use super::*;
    use crate::artifact_storage::ArtifactStorage;
    use crate::error::ErrorKind;

    /// Where an upload breaks.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Fault {
        None,
        Part(usize),
        PartPanics(usize),
        Complete,
        CompleteHangs,
    }

    /// A store whose uploads break, and which counts those that it has.
    #[derive(Debug)]
    struct Faulty {
        inner: InMemory,
        fault: Fault,
        uploads: Arc<Uploads>,
    }

    #[derive(Debug, Default)]
    struct Uploads {
        open: AtomicUsize,
        under_way: AtomicUsize,
        abort_fails: AtomicBool,
        aborted: Notify,
        calls: Mutex<Vec<&'static str>>,
    }

    #[derive(Debug)]
    struct FaultyUpload {
        inner: Box<dyn MultipartUpload>,
        fault: Fault,
        uploads: Arc<Uploads>,
        parts: usize,
    }

    impl Uploads {
        fn call(&self, name: &'static str) {
            self.calls.lock().unwrap().push(name);
        }
    }

    fn refused() -> object_store::Error {
        object_store::Error::Generic { store: "test", source: "400 Bad Request".into() }
    }

    #[async_trait]
    impl MultipartUpload for FaultyUpload {
        fn put_part(&mut self, data: PutPayload) -> UploadPart {
            self.parts += 1;
            assert_ne!(self.fault, Fault::PartPanics(self.parts), "a part panics");
            let (part, fails) = (self.inner.put_part(data), self.fault == Fault::Part(self.parts));
            let uploads = Arc::clone(&self.uploads);
            async move {
                let under_way = uploads.under_way.fetch_add(1, Ordering::SeqCst) + 1;
                assert!(under_way <= limits::ARTIFACT_PARTS_AT_ONCE_MAX);
                tokio::task::yield_now().await;
                uploads.under_way.fetch_sub(1, Ordering::SeqCst);
                if fails { Err(refused()) } else { part.await }
            }
            .boxed()
        }

        async fn complete(&mut self) -> object_store::Result<PutResult> {
            self.uploads.call("complete");
            match self.fault {
                Fault::Complete => Err(refused()),
                Fault::CompleteHangs => std::future::pending().await,
                _ => {
                    self.uploads.open.fetch_sub(1, Ordering::SeqCst);
                    self.inner.complete().await
                }
            }
        }

        async fn abort(&mut self) -> object_store::Result<()> {
            self.uploads.call("abort");
            self.uploads.aborted.notify_one();
            if self.uploads.abort_fails.load(Ordering::SeqCst) {
                return Err(refused());
            }
            self.uploads.open.fetch_sub(1, Ordering::SeqCst);
            self.inner.abort().await
        }
    }

    impl std::fmt::Display for Faulty {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("faulty")
        }
    }

    #[async_trait]
    impl ObjectStore for Faulty {
        async fn put_opts(
            &self,
            at: &Path,
            payload: PutPayload,
            options: PutOptions,
        ) -> object_store::Result<PutResult> {
            self.inner.put_opts(at, payload, options).await
        }

        async fn put_multipart_opts(
            &self,
            at: &Path,
            options: PutMultipartOptions,
        ) -> object_store::Result<Box<dyn MultipartUpload>> {
            let inner = self.inner.put_multipart_opts(at, options).await?;
            self.uploads.open.fetch_add(1, Ordering::SeqCst);
            let (fault, uploads) = (self.fault, Arc::clone(&self.uploads));
            Ok(Box::new(FaultyUpload { inner, fault, uploads, parts: 0 }))
        }

        async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
            self.inner.get_opts(at, options).await
        }

        fn delete_stream(
            &self,
            paths: BoxStream<'static, object_store::Result<Path>>,
        ) -> BoxStream<'static, object_store::Result<Path>> {
            self.inner.delete_stream(paths)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
            self.inner.copy_opts(from, to, options).await
        }
    }

    fn faulty(fault: Fault) -> (ObjectArtifactStorage, Arc<Uploads>) {
        let uploads = Arc::new(Uploads::default());
        let store = Faulty { inner: InMemory::new(), fault, uploads: Arc::clone(&uploads) };
        (ObjectArtifactStorage::new(Arc::new(store), "faulty:/"), uploads)
    }

    fn chunks(count: usize) -> crate::artifact_storage::ByteStream {
        let chunk = Bytes::from(vec![7; 1_000_003]);
        stream::iter(vec![chunk; count]).map(Ok).boxed()
    }

    fn key() -> ArtifactKey {
        "job/x86_64/a.apk".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_fails_is_removed_wherever_it_fails() {
        let faults = [
            Fault::Part(1),
            // It shows while later parts are handed over.
            Fault::Part(4),
            // The last one shows when there is nothing more to hand over.
            Fault::Part(8),
            Fault::PartPanics(2),
            Fault::Complete,
        ];
        for fault in faults {
            let (storage, uploads) = faulty(fault);
            let put = tokio::spawn(async move { storage.put(&key(), chunks(40)).await }).await;
            match put {
                Ok(put) => {
                    let error = put.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{fault:?}");
                    assert!(error.chain().ends_with("400 Bad Request"), "{}", error.chain());
                }
                Err(panicked) => {
                    assert!(panicked.is_panic() && matches!(fault, Fault::PartPanics(_)));
                    uploads.aborted.notified().await;
                }
            }
            assert_eq!(uploads.open.load(Ordering::SeqCst), 0, "{fault:?}");
            assert_eq!(uploads.calls.lock().unwrap().last(), Some(&"abort"), "{fault:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_comes_to_its_end_is_not_removed() {
        let (storage, uploads) = faulty(Fault::None);
        let put = storage.put(&key(), chunks(40)).await.unwrap();
        assert_eq!(put.size_bytes, 40 * 1_000_003);
        assert_eq!(*uploads.calls.lock().unwrap(), ["complete"]);
        assert_eq!(storage.head(&key()).await.unwrap(), put);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_is_dropped_is_removed_too() {
        for (fault, bytes) in
            [(Fault::None, chunks(20).chain(stream::pending()).boxed()), (Fault::CompleteHangs, chunks(20))]
        {
            let (storage, uploads) = faulty(fault);
            let key = key();
            let put = tokio::time::timeout(limits::LEASE, storage.put(&key, bytes)).await;
            assert!(put.is_err(), "it hangs");
            uploads.aborted.notified().await;
            tokio::task::yield_now().await;
            assert_eq!(uploads.open.load(Ordering::SeqCst), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_that_fails_does_not_hide_why_it_was_asked_for() {
        let (storage, uploads) = faulty(Fault::None);
        uploads.abort_fails.store(true, Ordering::SeqCst);
        let gone = crate::error::Error::new(ErrorKind::Cancelled, "the source is gone");
        let bytes = chunks(20).chain(stream::iter([Err(gone)])).boxed();
        let error = storage.put(&key(), bytes).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Cancelled, "the source is gone"));
        assert_eq!(*uploads.calls.lock().unwrap(), ["abort"]);
    }
}
