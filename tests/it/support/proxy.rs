//! A socket whose connections can be cut, or go silent.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

/// Hands connections on to a socket until they are cut.
pub(crate) struct Proxy {
    path: PathBuf,
    connections: Arc<Mutex<Vec<tokio::task::AbortHandle>>>,
    silent: tokio::sync::watch::Sender<u32>,
    _folder: TempDir,
}

impl Proxy {
    pub(crate) fn start(target: &Path) -> Self {
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
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = silence.changed() => std::future::pending().await,
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
