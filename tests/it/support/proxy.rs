//! A socket whose connections can be cut, go silent, or are slow.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Hands connections on to a socket until they are cut.
pub(crate) struct Proxy {
    path: PathBuf,
    connections: Arc<Mutex<Vec<tokio::task::AbortHandle>>>,
    silent: tokio::sync::watch::Sender<u32>,
    _folder: TempDir,
}

impl Proxy {
    pub(crate) fn start(target: &Path) -> Self {
        Self::start_with(target, None)
    }

    /// Passes on so many bytes a second towards the target.
    pub(crate) fn start_slow(target: &Path, bytes_per_second: usize) -> Self {
        Self::start_with(target, Some(bytes_per_second))
    }

    fn start_with(target: &Path, bytes_per_second: Option<usize>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let connections: Arc<Mutex<Vec<tokio::task::AbortHandle>>> = Arc::default();
        let (target, kept) = (target.to_owned(), Arc::clone(&connections));
        let silent = tokio::sync::watch::Sender::new(0);
        let silence = silent.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = tokio::net::UnixStream::connect(&target).await.unwrap();
                let mut silence = silence.subscribe();
                let pump = tokio::spawn(async move {
                    match bytes_per_second {
                        Some(rate) => pass_on_slowly(near, far, rate).await,
                        // Both ends stay open while the connection is silent.
                        None => tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                            _ = silence.changed() => std::future::pending().await,
                        },
                    }
                });
                kept.lock().unwrap().push(pump.abort_handle());
            }
        });
        Self { path, connections, silent, _folder: folder }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Passes nothing on any more over the connections that there are, and closes none; new ones work.
    pub(crate) fn silence(&self) {
        self.silent.send_modify(|count| *count += 1);
    }

    /// Ends every connection; new ones work.
    pub(crate) fn cut(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }
}

async fn pass_on_slowly(near: tokio::net::UnixStream, far: tokio::net::UnixStream, rate: usize) {
    let ((mut from, mut back), (mut answers, mut to)) = (near.into_split(), far.into_split());
    let out = async {
        let mut buffer = vec![0; (rate / 20).max(1)];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            // The rate is the point of it.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = out => {}
        _ = tokio::io::copy(&mut answers, &mut back) => {}
    }
}
