//! Fetching with `reqwest`: tries, versions, credentials by host, and addresses that are refused.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{Fetched, Fetcher, Present};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result, causes};
use crate::limits;
use crate::redact::redact;
use crate::rootfs::addresses::{AddressPolicy, RefusedAddress};
use crate::rootfs::credentials::Credentials;

/// Redirects of one download.
const REDIRECTS_MAX: usize = 5;

/// What a caller decides about downloads.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FetchOptions {
    /// Where they may go; public addresses only unless something else is allowed. A proxy that is configured for the
    /// process resolves names itself, so that only addresses written into URLs are looked at then.
    pub addresses: AddressPolicy,
    /// Logins by host; one in the URL comes before them.
    pub credentials: Credentials,
    /// Silence before a download counts as dead; `None` for [`limits::DOWNLOAD_IDLE`].
    pub idle: Option<Duration>,
}

/// Fetches with `reqwest`; at most [`limits::DOWNLOADS_MAX`] downloads at once.
#[derive(Debug)]
pub struct HttpFetcher {
    client: OnceLock<reqwest::Client>,
    options: Arc<FetchOptions>,
    permits: tokio::sync::Semaphore,
}

fn connect(options: &Arc<FetchOptions>) -> Result<reqwest::Client> {
    let policy = Arc::clone(options);
    let redirects = reqwest::redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTS_MAX {
            return attempt.error(format!("more than {REDIRECTS_MAX} redirects"));
        }
        match refused_literal(attempt.url(), &policy.addresses) {
            Some(refused) => attempt.error(refused),
            None => attempt.follow(),
        }
    });
    reqwest::Client::builder()
        .user_agent(concat!("melange-remote/", env!("CARGO_PKG_VERSION")))
        .read_timeout(options.idle.unwrap_or(limits::DOWNLOAD_IDLE))
        .connect_timeout(Duration::from_secs(20))
        .redirect(redirects)
        .dns_resolver(Arc::new(FilteredNames(Arc::clone(options))))
        .build()
        .map_err(|e| Error::unexpected("cannot set up the http client").source(e))
}

impl HttpFetcher {
    /// A fetcher with its own connections; they and the roots of trust are set up with the first request.
    ///
    /// # Errors
    /// None today; kept for what may fail while it is set up.
    pub fn new(options: FetchOptions) -> Result<Self> {
        let permits = tokio::sync::Semaphore::new(limits::DOWNLOADS_MAX);
        Ok(Self { client: OnceLock::new(), options: Arc::new(options), permits })
    }

    /// The client; reading the machine's certificates takes longer than resolving from a local index.
    fn client(&self) -> Result<&reqwest::Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = connect(&self.options)?;
        Ok(self.client.get_or_init(|| client))
    }

    fn request(&self, url: &str, etag: Option<&str>) -> Result<reqwest::RequestBuilder> {
        let broken = |e| Error::invalid(format!("{url:?} is no URL")).source(e);
        let parsed = reqwest::Url::parse(url).map_err(broken)?;
        if let Some(refused) = refused_literal(&parsed, &self.options.addresses) {
            return Err(not_allowed(url, &refused));
        }
        let login = match parsed.host_str() {
            Some(host) if parsed.username().is_empty() && parsed.password().is_none() => {
                self.options.credentials.find(host, parsed.port())
            }
            _ => None,
        };
        let mut request = self.client()?.get(parsed);
        if let Some(login) = login {
            request = request.basic_auth(&login.user, Some(&login.password));
        }
        if let Some(etag) = etag {
            request = request.header("If-None-Match", etag);
        }
        Ok(request)
    }

    /// Asks for `url` once; what is not there, or not for us, is an error, and `304` is not.
    async fn ask(&self, url: &str, etag: Option<&str>) -> Result<reqwest::Response> {
        let response = self.request(url, etag)?.send().await.map_err(|e| broken_off(url, e))?;
        let status = response.status();
        if status.is_success() || status.as_u16() == 304 {
            return Ok(response);
        }
        Err(answered(url, status.as_u16()))
    }

    /// Begins a download that is asked for once and goes wherever its caller wants.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`].
    pub(crate) async fn open(&self, url: &str) -> Result<Download> {
        Ok(Download { response: self.ask(url, None).await?, url: url.to_owned() })
    }

    async fn try_once(
        &self,
        url: &str,
        path: &Path,
        bytes_max: u64,
        etag: Option<&str>,
    ) -> Result<Option<String>> {
        let response = self.ask(url, etag).await?;
        if response.status().as_u16() == 304 {
            return Ok(None);
        }
        let version = response.headers().get("etag").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let folder = path.parent().unwrap_or(Path::new("."));
        let failed = |e: std::io::Error| Error::io("write", path, e);
        tokio::fs::create_dir_all(folder).await.map_err(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        let mut download = Download { response, url: url.to_owned() };
        let mut size = 0u64;
        while let Some(chunk) = download.chunk().await? {
            size += chunk.len() as u64;
            if size > bytes_max {
                let message = format!("{url} has more than {bytes_max} bytes");
                return Err(Error::new(ErrorKind::LimitExceeded, message));
            }
            file.write_all(&chunk).map_err(failed)?;
        }
        file.persist(path).map_err(|e| failed(e.error))?;
        Ok(Some(version.unwrap_or_default()))
    }
}

/// A download that has begun.
pub(crate) struct Download {
    url: String,
    response: reqwest::Response,
}

impl Download {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// `Unavailable` when it broke off.
    pub(crate) async fn chunk(&mut self) -> Result<Option<bytes::Bytes>> {
        self.response.chunk().await.map_err(|e| broken_off(&self.url, e))
    }
}

fn broken_off(url: &str, error: reqwest::Error) -> Error {
    match refused_in(&error) {
        Some(refused) => not_allowed(url, refused),
        None => Error::new(ErrorKind::Unavailable, format!("cannot fetch {url}")).source(error.without_url()),
    }
}

fn answered(url: &str, status: u16) -> Error {
    let kind = match status {
        404 | 410 => ErrorKind::NotFound,
        401 | 403 => ErrorKind::Untrusted,
        429 | 500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Unexpected,
    };
    let error = Error::new(kind, format!("{url} answered {status}"));
    match status {
        401 => error.hint(
            "it wants a login: set `HTTP_AUTH=basic:HOST:USER:PASSWORD`, or put the host into a netrc file",
        ),
        403 => error.hint("the login may not read it"),
        _ => error,
    }
}

fn not_allowed(url: &str, refused: &RefusedAddress) -> Error {
    Error::new(ErrorKind::Untrusted, format!("{url} is not fetched: {refused}"))
        .hint("the operator of a server allows it with `--allow-private-address HOST`")
}

/// The refusal among the causes of an error.
fn refused_in(error: &reqwest::Error) -> Option<&RefusedAddress> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Why a URL that names an address, not a host, may not be asked. Names are looked at where they are resolved.
fn refused_literal(url: &reqwest::Url, policy: &AddressPolicy) -> Option<RefusedAddress> {
    let host = url.host_str()?;
    let address: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    policy.check(host, address).err()
}

/// Resolves names as the system does; what leads to a refused address cannot be connected to.
#[derive(Debug)]
struct FilteredNames(Arc<FetchOptions>);

impl Resolve for FilteredNames {
    fn resolve(&self, name: Name) -> Resolving {
        let options = Arc::clone(&self.0);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let look = move || {
                (host.as_str(), 0).to_socket_addrs().map(|found| (found.collect::<Vec<_>>(), host.clone()))
            };
            let (found, host) = tokio::task::spawn_blocking(look).await??;
            let mut refused = None;
            let mut allowed: Vec<SocketAddr> = Vec::with_capacity(found.len());
            for socket in found {
                match options.addresses.check(&host, socket.ip()) {
                    Ok(()) => allowed.push(socket),
                    Err(why) => refused = Some(why),
                }
            }
            match refused {
                // A name that leads to both is not to be trusted either, but its public addresses are harmless.
                Some(why) if allowed.is_empty() => Err(why.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[async_trait]
impl Fetcher for HttpFetcher {
    async fn fetch(&self, url: &str, path: &Path, bytes_max: u64, present: Present) -> Result<Fetched> {
        let etag_path = path.with_extension("etag");
        let known = if tokio::fs::try_exists(path).await.unwrap_or(false) {
            Some(tokio::fs::read_to_string(&etag_path).await.unwrap_or_default())
        } else {
            None
        };
        if let (Some(version), Present::Taken) = (&known, present) {
            return Ok(Fetched { path: path.to_owned(), version: version.clone() });
        }
        let _permit =
            self.permits.acquire().await.map_err(|e| Error::unexpected("shutting down").source(e))?;
        let etag = known.filter(|etag| !etag.is_empty());
        let mut tried = 0;
        let mut backoff = Backoff::new(limits::RETRY_PAUSE, limits::RETRY_PAUSE_MAX);
        let fresh = loop {
            tried += 1;
            match self.try_once(url, path, bytes_max, etag.as_deref()).await {
                Ok(fresh) => break fresh,
                Err(error) if error.kind().is_retryable() && tried < limits::DOWNLOAD_TRIES_MAX => {
                    let url = redact(url);
                    tracing::warn!(%url, tried, error = %error.chain(), "download failed, trying again");
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(error) => return Err(error.with("tries", tried)),
            }
        };
        let version = match fresh {
            Some(version) => {
                tokio::fs::write(&etag_path, &version)
                    .await
                    .map_err(|e| Error::io("write", &etag_path, e))?;
                version
            }
            None => etag.unwrap_or_default(),
        };
        Ok(Fetched { path: path.to_owned(), version })
    }
}

#[cfg(test)]
mod tests;
