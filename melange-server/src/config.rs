//! Flags and environment variables become typed settings, once; all mistakes are told at once.

use std::ffi::OsString;
use std::fmt;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::backend::{Backend, check_max_jobs, file};
use melange_remote_sdk::error::Error;
use melange_remote_sdk::labels::Labels;
use melange_remote_sdk::limits;
use melange_remote_sdk::melange::defaults::{NAMESPACE, RepositoryDefaults};
use melange_remote_sdk::text::diagnostics::Source;

use crate::args::{Args, LogFormat};

/// The backend of a server without BuildKit.
pub const SANDBOX_ADDR: &str = "sandbox://local";
/// Where artifacts go by default.
pub const OUTPUT_DIR: &str = "/var/lib/melange/output";

/// Everything that a server is told when it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses to listen on; the first that works is taken.
    pub listen: Vec<String>,
    /// Where to write the port.
    pub port_file: Option<PathBuf>,
    /// The backends at the start; never empty.
    pub backends: Vec<Backend>,
    /// Where artifacts go.
    pub storage: StorageConfig,
    /// How packages are built.
    pub build: BuildConfig,
    /// The form of the log.
    pub log_format: LogFormat,
}

/// Where artifacts go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageConfig {
    /// A local directory.
    Local(PathBuf),
    /// A bucket of Google Cloud Storage.
    Gcs {
        /// Its name.
        bucket: String,
        /// Credentials, as keys of the object store.
        options: Vec<(String, String)>,
    },
}

/// How packages are built.
#[derive(Debug, Clone)]
pub struct BuildConfig {
    /// The architecture of jobs that name none.
    pub default_arch: Arch,
    /// The key that signs packages and indexes.
    pub signing_key: Option<PathBuf>,
    /// What definitions get that name no repository.
    pub repositories: RepositoryDefaults,
    /// Folders whose repositories definitions may name by path.
    pub allow_local_repositories: Vec<PathBuf>,
    /// The folder of downloaded sources.
    pub cache_dir: Option<PathBuf>,
    /// The folder of the server's own state.
    pub state_dir: Option<PathBuf>,
    /// The namespace of package URLs.
    pub namespace: String,
    /// Ports of this machine's loopback that steps in the sandbox find on their own.
    pub sandbox_host_ports: Vec<u16>,
    /// The program that starts the sandbox's guests, for programs that embed the server; `None` for this one.
    pub sandbox_launcher: Option<PathBuf>,
    /// TLS for tcp:// daemons.
    pub buildkit_tls: Option<TlsFiles>,
}

/// PEM files for tcp:// daemons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate authority.
    pub ca: Option<PathBuf>,
    /// The client's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum Refused {
    /// Flags that cannot be read, or a request for help; the caller prints it.
    Usage(clap::Error),
    /// Everything that is wrong with their values.
    Mistakes(Vec<String>),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::Mistakes(mistakes) => {
                write!(f, "the configuration is not valid")?;
                mistakes.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
            }
        }
    }
}

impl std::error::Error for Refused {}

/// Looks up environment variables.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads flags and, for those that are missing, environment variables.
    ///
    /// # Errors
    /// [`Refused`] with every mistake.
    pub fn read(
        args: impl IntoIterator<Item = OsString>,
        environment: Environment<'_>,
    ) -> Result<Self, Refused> {
        let args = Args::try_parse_from(args).map_err(Refused::Usage)?;
        let mut reader = Reader { environment, mistakes: Vec::new() };
        let config = reader.config(args);
        match config {
            Some(config) if reader.mistakes.is_empty() => Ok(config),
            _ => Err(Refused::Mistakes(reader.mistakes)),
        }
    }
}

struct Reader<'a> {
    environment: Environment<'a>,
    mistakes: Vec<String>,
}

impl Reader<'_> {
    fn wrong(&mut self, mistake: impl Into<String>) {
        self.mistakes.push(mistake.into());
    }

    fn error(&mut self, flag: &str, error: &Error) {
        let hint = error.hint_text().map(|hint| format!(" ({hint})")).unwrap_or_default();
        self.wrong(format!("{flag}: {error}{hint}"));
    }

    /// A flag's value, or its variable's; an empty variable counts as missing.
    fn value(&self, flag: &str, given: Option<String>) -> Option<String> {
        let name = format!("MELANGE_{}", flag.trim_start_matches('-').replace('-', "_").to_uppercase());
        given.or_else(|| (self.environment)(&name).filter(|value| !value.is_empty()))
    }

    fn path(&self, flag: &str, given: Option<String>) -> Option<PathBuf> {
        self.value(flag, given).map(PathBuf::from)
    }

    fn file(&mut self, flag: &str, given: Option<String>) -> Option<PathBuf> {
        let path = self.path(flag, given)?;
        if !path.is_file() {
            self.wrong(format!("{flag}: there is no file {}", path.display()));
        }
        Some(path)
    }

    fn config(&mut self, args: Args) -> Option<Config> {
        let listen = self.listen(args.listen_addr.clone());
        let port_file = self.path("--port-file", args.port_file.clone());
        let log_format = self.log_format(args.log_format);
        let storage = self.storage(args.output_dir.clone(), args.gcs_bucket.clone());
        let given_arch = self.value("--default-arch", args.default_arch.clone());
        let given_arch = given_arch
            .and_then(|text| text.parse::<Arch>().map_err(|error| self.error("--default-arch", &error)).ok());
        let (backends, default_arch) = self.backends(&args, given_arch);
        let build = self.build(args, default_arch);
        Some(Config { listen, port_file, backends: backends?, storage, build, log_format })
    }

    fn listen(&mut self, given: Option<String>) -> Vec<String> {
        let addr = self.value("--listen-addr", given).unwrap_or_else(|| ":8080".to_owned());
        let port = addr.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        match port {
            // All interfaces: both families where there are two, else the older one.
            Some(("", port)) => vec![format!("[::]:{port}"), format!("0.0.0.0:{port}")],
            Some(_) => vec![addr],
            None => {
                self.wrong(format!("--listen-addr: {addr:?} does not end in a port, such as :8080"));
                Vec::new()
            }
        }
    }

    fn log_format(&mut self, given: Option<LogFormat>) -> LogFormat {
        let variable = || self.value("--log-format", None).map(|text| LogFormat::from_str(&text, true));
        match given.map(Ok).or_else(variable) {
            None => LogFormat::default(),
            Some(Ok(format)) => format,
            Some(Err(_)) => {
                self.wrong("--log-format: it is text or json");
                LogFormat::default()
            }
        }
    }

    fn storage(&mut self, output_dir: Option<String>, bucket: Option<String>) -> StorageConfig {
        let output_dir = self.path("--output-dir", output_dir);
        match self.value("--gcs-bucket", bucket) {
            Some(bucket) => {
                let names = [
                    "GOOGLE_SERVICE_ACCOUNT",
                    "GOOGLE_SERVICE_ACCOUNT_KEY",
                    "GOOGLE_APPLICATION_CREDENTIALS",
                ];
                let option = |name: &str| Some((name.to_lowercase(), (self.environment)(name)?));
                StorageConfig::Gcs { bucket, options: names.into_iter().filter_map(option).collect() }
            }
            None => StorageConfig::Local(output_dir.unwrap_or_else(|| PathBuf::from(OUTPUT_DIR))),
        }
    }

    /// The backends, and the architecture of jobs that name none.
    fn backends(&mut self, args: &Args, given_arch: Option<Arch>) -> (Option<Vec<Backend>>, Arch) {
        let default_arch = given_arch.unwrap_or(Arch::X86_64);
        let addr = self.value("--buildkit-addr", args.buildkit_addr.clone());
        let file = self.path("--backends-config", args.backends_config.clone());
        let max_jobs = self.max_jobs(args.max_jobs.clone());
        match (addr, file) {
            (Some(_), Some(_)) => {
                self.wrong("--buildkit-addr and --backends-config exclude each other");
                (None, default_arch)
            }
            (None, Some(path)) => {
                if max_jobs.is_some() {
                    self.wrong("--max-jobs: write maxJobs into the backends file instead");
                }
                (self.backends_file(&path), default_arch)
            }
            (Some(addr), None) => {
                let max_jobs = max_jobs.unwrap_or(limits::JOBS_PER_BACKEND_DEFAULT);
                (self.single(&addr, default_arch, max_jobs), default_arch)
            }
            (None, None) => {
                let host = Arch::host().unwrap_or(Arch::X86_64);
                let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
                let cores = u32::try_from(cores).unwrap_or(u32::MAX);
                let max_jobs = max_jobs.unwrap_or(limits::JOBS_PER_BACKEND_DEFAULT.min(cores));
                (self.single(SANDBOX_ADDR, host, max_jobs), given_arch.unwrap_or(host))
            }
        }
    }

    fn max_jobs(&mut self, given: Option<String>) -> Option<u32> {
        let text = self.value("--max-jobs", given)?;
        match text.parse::<u32>().ok().map(check_max_jobs) {
            Some(Ok(number)) => return Some(number),
            Some(Err(error)) => self.error("--max-jobs", &error),
            None => self.wrong(format!("--max-jobs: {text:?} is not a whole number")),
        }
        None
    }

    fn single(&mut self, addr: &str, arch: Arch, max_jobs: u32) -> Option<Vec<Backend>> {
        let backend =
            Backend::new(addr, arch, Labels::default()).and_then(|backend| backend.with_max_jobs(max_jobs));
        backend.map(|backend| vec![backend]).map_err(|error| self.error("--buildkit-addr", &error)).ok()
    }

    fn backends_file(&mut self, path: &Path) -> Option<Vec<Backend>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                self.wrong(format!("--backends-config: cannot read {}: {error}", path.display()));
                return None;
            }
        };
        match file::read(&Source::new(path.display().to_string(), text)) {
            Ok(backends) => Some(backends),
            Err(diagnostics) => {
                for mistake in &diagnostics.0 {
                    self.wrong(format!("--backends-config: {}", mistake.summary()));
                }
                None
            }
        }
    }

    fn build(&mut self, args: Args, default_arch: Arch) -> BuildConfig {
        let mut repositories = RepositoryDefaults::default();
        if !args.repository.is_empty() {
            repositories.repositories = args.repository;
            // The default key is not the key of other repositories.
            repositories.keyring = Vec::new();
        }
        if !args.keyring.is_empty() {
            repositories.keyring = args.keyring;
        }
        let mut allowed = Vec::new();
        for folder in args.allow_local_repository {
            match std::fs::canonicalize(&folder) {
                Ok(path) if path.is_dir() => allowed.push(path),
                _ => self.wrong(format!("--allow-local-repository: there is no folder {folder}")),
            }
        }
        let mut sandbox_host_ports = Vec::new();
        for port in args.sandbox_allow_host_port {
            match port.parse() {
                Ok(0) | Err(_) => {
                    self.wrong(format!("--sandbox-allow-host-port: {port} is no port: 1 to 65535"))
                }
                Ok(port) => sandbox_host_ports.push(port),
            }
        }
        BuildConfig {
            sandbox_host_ports,
            sandbox_launcher: None,
            default_arch,
            signing_key: self.file("--signing-key", args.signing_key),
            repositories,
            allow_local_repositories: allowed,
            cache_dir: self.path("--cache-dir", args.cache_dir),
            state_dir: self.path("--state-dir", args.state_dir),
            namespace: self.value("--namespace", args.namespace).unwrap_or_else(|| NAMESPACE.to_owned()),
            buildkit_tls: self.tls(args.buildkit_tls_ca, args.buildkit_tls_cert, args.buildkit_tls_key),
        }
    }

    fn tls(&mut self, ca: Option<String>, cert: Option<String>, key: Option<String>) -> Option<TlsFiles> {
        let ca = self.file("--buildkit-tls-ca", ca);
        let cert = self.file("--buildkit-tls-cert", cert);
        let key = self.file("--buildkit-tls-key", key);
        if cert.is_some() != key.is_some() {
            self.wrong("--buildkit-tls-cert and --buildkit-tls-key need each other");
        }
        let identity = cert.zip(key);
        (ca.is_some() || identity.is_some()).then_some(TlsFiles { ca, identity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str], variables: &[(&str, &str)]) -> Result<Config, Refused> {
        let args = std::iter::once("melange-server").chain(args.iter().copied()).map(OsString::from);
        let find = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Config::read(args, &find)
    }

    fn mistakes(args: &[&str]) -> String {
        read(args, &[]).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_those_of_the_product_document() {
        let config = read(&[], &[]).unwrap();
        assert_eq!(config.listen, ["[::]:8080", "0.0.0.0:8080"]);
        assert_eq!(config.storage, StorageConfig::Local(PathBuf::from("/var/lib/melange/output")));
        assert_eq!(config.backends[0].addr(), "sandbox://local");
        assert_eq!(Some(config.backends[0].arch()), Arch::host());
        assert_eq!(config.build.repositories, RepositoryDefaults::default());
        assert_eq!(config.build.namespace, "wolfi");
        let config = read(&["--buildkit-addr", "tcp://b:1234"], &[]).unwrap();
        let backend = &config.backends[0];
        assert_eq!((backend.arch(), backend.max_jobs()), (Arch::X86_64, 4));
    }

    #[test]
    fn flags_go_before_variables_and_variables_before_defaults() {
        let variables = [("MELANGE_LISTEN_ADDR", "127.0.0.1:1"), ("MELANGE_NAMESPACE", "mine")];
        let config = read(&["--listen-addr", "127.0.0.1:2"], &variables).unwrap();
        assert_eq!(config.listen, ["127.0.0.1:2"]);
        assert_eq!(config.build.namespace, "mine");
        let config = read(&["--gcs-bucket", "b"], &[("GOOGLE_SERVICE_ACCOUNT", "f")]).unwrap();
        let options = vec![("google_service_account".to_owned(), "f".to_owned())];
        assert_eq!(config.storage, StorageConfig::Gcs { bucket: "b".to_owned(), options });
    }

    #[test]
    fn a_repository_replaces_the_default_and_its_key() {
        let config = read(&["--repository", "https://r.example", "--keyring", "/k.pub"], &[]).unwrap();
        assert_eq!(config.build.repositories.repositories, ["https://r.example"]);
        assert_eq!(config.build.repositories.keyring, ["/k.pub"]);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        insta::assert_snapshot!(
            mistakes(&[
                "--listen-addr", "nowhere", "--buildkit-addr", "b:1", "--default-arch", "z80",
                "--max-jobs", "many", "--signing-key", "/no/key", "--allow-local-repository", "/no/folder",
                "--buildkit-tls-cert", "/no/cert", "--sandbox-allow-host-port", "0",
            ]),
            @r#"
        the configuration is not valid
          - --listen-addr: "nowhere" does not end in a port, such as :8080
          - --default-arch: unknown architecture "z80" (known: x86, x86_64, aarch64, armhf, armv7, loongarch64, ppc64le, riscv64, s390x)
          - --max-jobs: "many" is not a whole number
          - --buildkit-addr: the backend address "b:1" has no scheme (an address looks like tcp://host:1234, unix:///run/buildkit/buildkitd.sock or sandbox://local)
          - --allow-local-repository: there is no folder /no/folder
          - --sandbox-allow-host-port: 0 is no port: 1 to 65535
          - --signing-key: there is no file /no/key
          - --buildkit-tls-cert: there is no file /no/cert
          - --buildkit-tls-cert and --buildkit-tls-key need each other
        "#
        );
    }

    #[test]
    fn a_backends_file_is_read_strictly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.yaml");
        std::fs::write(&path, "backends:\n  - addr: tcp://a:1\n    arch: arm64\n").unwrap();
        let path = path.to_str().unwrap();
        let config = read(&["--backends-config", path], &[]).unwrap();
        assert_eq!(config.backends[0].arch(), Arch::Aarch64);
        std::fs::write(path, "backends:\n  - addr: tcp://a:1\n    arch: z80\n").unwrap();
        assert!(mistakes(&["--backends-config", path]).contains("b.yaml:3:11: unknown architecture"));
        assert!(mistakes(&["--backends-config", path, "--buildkit-addr", "tcp://a:1"]).contains("exclude"));
        assert!(mistakes(&["--backends-config", "/no/file"]).contains("cannot read"));
        assert!(matches!(read(&["--no-such-flag"], &[]), Err(Refused::Usage(_))));
    }
}
