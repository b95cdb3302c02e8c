//! Flags, variables, files: what they mean, and every mistake at once.

use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::retention::{Keep, KeepLatest, KeepRules, Orphans};

use super::*;
use crate::args::BackendSelection;

fn read(args: &[&str], variables: &[(&str, &str)]) -> Result<Config, Refused> {
    let args = std::iter::once("melange-server").chain(args.iter().copied()).map(OsString::from);
    let find =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Config::read(args, &find)
}

fn mistakes(args: &[&str]) -> String {
    read(args, &[]).unwrap_err().to_string()
}

#[test]
fn sources_are_cached_unless_the_operator_says_no() {
    assert!(read(&[], &[]).unwrap().build.source_cache);
    assert!(!read(&["--source-cache", "no"], &[]).unwrap().build.source_cache);
    assert!(!read(&[], &[("MELANGE_SOURCE_CACHE", "no")]).unwrap().build.source_cache);
    assert!(read(&["--source-cache", "yes"], &[("MELANGE_SOURCE_CACHE", "no")]).unwrap().build.source_cache);
    assert!(read(&[], &[]).unwrap().build.publish);
    assert!(!read(&["--publish", "no"], &[]).unwrap().build.publish);
    let wrong = read(&[], &[("MELANGE_SOURCE_CACHE", "maybe")]).unwrap_err().to_string();
    assert!(wrong.contains("--source-cache: it is yes or no, not \"maybe\""), "{wrong}");
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
fn users_who_are_not_root_get_folders_of_their_own() {
    let folders = |variables: &[(&str, &str)], is_root: bool| {
        let find = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let config = Config::read_as(["melange-server".into()], &find, is_root).unwrap();
        (config.storage, config.build.state_dir)
    };
    let local = |path: &str| StorageConfig::Local(PathBuf::from(path));
    let home = [("HOME", "/home/ann")];
    let expected = (
        local("/home/ann/.local/state/melange-remote/output"),
        PathBuf::from("/home/ann/.cache/melange-remote/server"),
    );
    assert_eq!(folders(&home, false), expected);
    assert_eq!(folders(&home, true), (local(OUTPUT_DIR), PathBuf::from(STATE_DIR)));
    let all = [("HOME", "/home/ann"), ("XDG_STATE_HOME", "/s"), ("XDG_CACHE_HOME", "relative")];
    let expected =
        (local("/s/melange-remote/output"), PathBuf::from("/home/ann/.cache/melange-remote/server"));
    assert_eq!(folders(&all, false), expected);
    assert_eq!(folders(&[("MELANGE_STATE_DIR", "/x"), home[0]], false).1, PathBuf::from("/x"));
}

#[test]
fn jobs_live_in_a_file_unless_it_is_said_otherwise() {
    let database = |args: &[&str], variables: &[(&str, &str)], is_root: bool| {
        let args = ["melange-server"].iter().chain(args).map(|arg| (*arg).to_owned().into());
        let find = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let config = Config::read_as(args, &find, is_root);
        config.map(|config| config.database).map_err(|refused| format!("{refused:?}"))
    };
    let sqlite = |path: &str| Ok(DatabaseConfig::Sqlite(PathBuf::from(path)));
    let home = [("HOME", "/home/ann")];
    assert_eq!(database(&[], &home, true), sqlite("/var/lib/melange/state/melange.db"));
    assert_eq!(database(&[], &home, false), sqlite("/home/ann/.local/state/melange-remote/melange.db"));
    assert_eq!(database(&["--state-dir", "/s"], &home, false), sqlite("/s/melange.db"));
    assert_eq!(database(&["--database", "sqlite:/x/jobs.db"], &home, true), sqlite("/x/jobs.db"));
    assert_eq!(database(&["--database", "memory:"], &home, true), Ok(DatabaseConfig::Memory));
    let url = "postgres://ann:secret@db.example/farm";
    let postgres = database(&[], &[("MELANGE_DATABASE", url)], true).unwrap();
    assert_eq!(postgres, DatabaseConfig::Postgres(url.to_owned()));
    assert!(!format!("{postgres:?}").contains("secret"));
    for wrong in ["sqlite:", "postgress://ann:secret@db.example/farm", "/x/jobs.db"] {
        let refused = database(&["--database", wrong], &home, true).unwrap_err();
        assert!(refused.contains("--database") && !refused.contains("secret"), "{refused}");
    }
}

#[test]
fn linters_are_those_of_melange_unless_they_are_named() {
    use melange_remote_sdk::analysis::lint::{Linter, LinterSets};
    let linters = |args: &[&str], variables: &[(&str, &str)]| read(args, variables).map(|c| c.build.linters);
    assert_eq!(linters(&[], &[]).unwrap(), LinterSets::default());
    let named = linters(&["--lint-require", "dev, opt"], &[("MELANGE_LINT_WARN", "none")]).unwrap();
    assert_eq!((named.required, named.warned), (vec![Linter::Dev, Linter::Opt], Vec::new()));
    assert_eq!(linters(&["--lint-require="], &[]).unwrap().required, Vec::new());
    let wrong = read(&["--lint-warn", "srvv"], &[]).unwrap_err().to_string();
    assert!(wrong.contains("--lint-warn: unknown linter: \"srvv\""), "{wrong}");
}

#[test]
fn flags_go_before_variables_and_variables_before_defaults() {
    let variables = [("MELANGE_LISTEN_ADDR", "127.0.0.1:1"), ("MELANGE_NAMESPACE", "mine")];
    let config = read(&["--listen-addr", "127.0.0.1:2"], &variables).unwrap();
    assert_eq!(config.listen, ["127.0.0.1:2"]);
    assert_eq!(config.build.namespace, "mine");
    let config = read(&["--gcs-bucket", "b"], &[("GOOGLE_SERVICE_ACCOUNT", "f")]).unwrap();
    let options = vec![("google_service_account".to_owned(), "f".to_owned())];
    assert_eq!(config.storage, StorageConfig::Url { url: "gs://b".to_owned(), options });
}

#[test]
fn backends_are_chosen_as_the_flag_or_its_variable_says() {
    let selection = |args: &[&str], variables: &[(&str, &str)]| {
        read(args, variables).map(|config| config.scheduling.backend_selection).map_err(|e| e.to_string())
    };
    let variable = |value: &'static str| [("MELANGE_BACKEND_SELECTION", value)];
    assert_eq!(selection(&[], &[]), Ok(BackendSelection::RoundRobin));
    assert_eq!(selection(&[], &variable("least-loaded")), Ok(BackendSelection::LeastLoaded));
    let flag = ["--backend-selection", "round-robin"];
    assert_eq!(selection(&flag, &variable("least-loaded")), Ok(BackendSelection::RoundRobin));
    let told = selection(&[], &variable("random")).unwrap_err();
    assert!(told.contains("--backend-selection: it is round-robin or least-loaded"), "{told}");
    assert!(matches!(read(&["--backend-selection", "random"], &[]), Err(Refused::Usage(_))));
    assert!(read(&[], &[("MELANGE_LOG_FORMAT", "xml")]).unwrap_err().to_string().contains("text or json"));
}

#[test]
fn weights_of_projects_are_read_from_flags_or_the_variable() {
    let weights = |args: &[&str], variables: &[(&str, &str)]| {
        let weights = read(args, variables).unwrap().scheduling.project_weights;
        ["release", "nightly", "default"].map(|name| weights.of(&name.parse().unwrap()).get())
    };
    let variable = [("MELANGE_PROJECT_WEIGHT", "release=3, nightly=1000,")];
    assert_eq!(weights(&[], &[]), [1, 1, 1]);
    assert_eq!(weights(&[], &variable), [3, 1_000, 1]);
    let flags = ["--project-weight", "release=2", "--project-weight", "default=5"];
    assert_eq!(weights(&flags, &variable), [2, 1, 5], "flags take the place of the variable");
    let values = ["release", "release=0", "nightly=1001", "A=1", "default=x", "default=2", "default=2"];
    let args: Vec<&str> = values.iter().flat_map(|value| ["--project-weight", value]).collect();
    insta::assert_snapshot!(mistakes(&args), @r#"
    the configuration is not valid
      - --project-weight: "release" is not of the form NAME=N
      - --project-weight: the weight of release is a whole number from 1 to 1000, not "0"
      - --project-weight: the weight of nightly is a whole number from 1 to 1000, not "1001"
      - --project-weight: "A" is not the name of a project (1 to 63 lower-case letters, digits, dots, underscores and hyphens)
      - --project-weight: the weight of default is a whole number from 1 to 1000, not "x"
      - --project-weight: default has two weights
    "#);
}

#[test]
fn the_rate_of_submissions_is_a_whole_number() {
    let rate = |args: &[&str]| read(args, &[]).unwrap().scheduling.submit_rate.map(NonZero::get);
    assert_eq!(rate(&[]), Some(limits::SUBMIT_RATE));
    assert_eq!(rate(&["--submit-rate", "0"]), None);
    assert_eq!(rate(&["--submit-rate", "7"]), Some(7));
    for wrong in ["-1", "x", "1.5", "1000001", "99999999999"] {
        let told = mistakes(&[&format!("--submit-rate={wrong}")]);
        assert!(told.contains("--submit-rate: ") && told.contains("from 0 to 1000000"), "{told}");
    }
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
      - --buildkit-addr: not the address of a backend: "b:1", it has no scheme (an address is tcp://host:port, unix:///path/to/buildkitd.sock, docker:///path/to/docker.sock or sandbox://local)
      - --allow-local-repository: there is no folder /no/folder
      - --sandbox-allow-host-port: 0 is no port: 1 to 65535
      - --signing-key: there is no file /no/key
      - --buildkit-tls-cert: there is no file /no/cert
      - --buildkit-tls-cert and --buildkit-tls-key need each other
    "#
    );
}

#[test]
fn storages_sizes_and_times_are_read() {
    let variables = [("AWS_REGION", "eu-1"), ("GOOGLE_SERVICE_ACCOUNT", "x")];
    let args =
        ["--storage", "s3://b/p", "--storage-option", "aws_endpoint=http://h:1", "--job-log-bytes", "1GiB"];
    let config = read(&args, &variables).unwrap();
    let options = [("aws_region", "eu-1"), ("aws_endpoint", "http://h:1")];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    assert_eq!(config.storage, StorageConfig::Url { url: "s3://b/p".to_owned(), options });
    assert_eq!(config.build.job_log_bytes, 1 << 30);
    assert_eq!(config.build.job_timeout, Some(limits::JOB_TIMEOUT));
    // The last of two counts.
    let config = read(&["--job-timeout", "1m", "--job-timeout", "90m", "--job-silence", "0"], &[]).unwrap();
    assert_eq!(config.build.job_timeout, Some(Duration::from_secs(5_400)));
    assert_eq!(config.build.job_silence, None);
    let config = read(&["--stall-timeout", "5m", "--job-lease", "1m"], &[]).unwrap();
    assert_eq!(config.build.job_silence, Some(Duration::from_secs(300)));
    assert_eq!(config.build.job_lease, Duration::from_secs(60));
    for wrong in [
        &["--job-log-bytes", "1"][..],
        &["--job-log-bytes", "64 parsecs"],
        &["--job-timeout", "soon"],
        &["--job-lease", "0"],
        &["--job-lease", "2s"],
        &["--job-lease", "2h"],
        &["--storage", "s3://b", "--gcs-bucket", "b"],
        &["--storage-option", "a=b"],
        &["--storage", "s3://b", "--storage-option", "x"],
    ] {
        assert!(mistakes(wrong).contains("--"), "{wrong:?}");
    }
}

#[test]
fn variables_of_a_storage_are_those_of_its_tools_and_of_its_client() {
    let options =
        |variables: &[(&str, &str)]| match read(&["--storage", "az://c"], variables).unwrap().storage {
            StorageConfig::Url { options, .. } => options,
            StorageConfig::Local(path) => panic!("a folder: {}", path.display()),
        };
    let given = [
        ("AZURE_STORAGE_ACCOUNT_NAME", "second"),
        ("AZURE_STORAGE_ACCOUNT", "first"),
        ("AZURE_STORAGE_KEY", "a2V5"),
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_CLIENT_SECRET", ""),
        ("AWS_REGION", "eu-1"),
    ];
    let expected = [
        ("azure_storage_account_name", "first"),
        ("azure_storage_account_key", "a2V5"),
        ("azure_tenant_id", "t"),
        ("azure_storage_account_name", "second"),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(options(&given), expected, "the last one counts, and an empty one is none");
    // Every name stands for an option that the store knows.
    for (scheme, names) in STORAGE_VARIABLES {
        let url = format!("{scheme}b");
        for name in names {
            let StorageConfig::Url { options, .. } =
                read(&["--storage", &url], &[(name, "1")]).unwrap().storage
            else {
                panic!("{url} is no folder");
            };
            let opened = ObjectArtifactStorage::open(&url, &options).map_err(|error| error.chain());
            assert!(!opened.is_err_and(|error| error.contains("Configuration key")), "{name}");
        }
    }
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

#[test]
fn sizes_as_people_write_them() {
    for (text, bytes) in
        [("0", 0), ("512", 512), ("2K", 2 << 10), ("3 MiB", 3 << 20), ("20G", 20 << 30), ("1tb", 1 << 40)]
    {
        assert_eq!(StateCache::parse_size(text), Some(bytes), "{text}");
    }
    for text in ["", "G", "1.5G", "-1", "20X", "99999999T"] {
        assert_eq!(StateCache::parse_size(text), None, "{text}");
    }
}

#[test]
fn addresses_and_logins_are_read_once_and_wrong_ones_told() {
    let read = |args: &[&str], auth: &'static str| {
        let args = std::iter::once("melange-server").chain(args.iter().copied()).map(OsString::from);
        Config::read(args, &|name| (name == "HTTP_AUTH").then(|| auth.to_owned()))
    };
    let allowed = ["--allow-private-address", "10.0.0.0/8", "--allow-private-address", "repo.internal"];
    let config = read(&allowed, "basic:repo.internal:u:p").unwrap().build;
    assert!(config.addresses.check("x", "10.1.2.3".parse().unwrap()).is_ok());
    assert!(config.addresses.check("x", "127.0.0.1".parse().unwrap()).is_err());
    assert_eq!(config.credentials.find("repo.internal", None).unwrap().user, "u");
    let told = read(&["--allow-private-address", "http://x"], "basic:topsecret").unwrap_err().to_string();
    assert!(told.contains("--allow-private-address") && told.contains("HTTP_AUTH"), "{told}");
    assert!(!told.contains("topsecret"), "{told}");
}

#[test]
fn what_is_kept_is_said_by_times_sizes_and_numbers() {
    let rules = |args: &[&str]| read(args, &[]).unwrap().retention.rules;
    let (mut expected, default) = (KeepRules::default(), read(&[], &[]).unwrap().retention);
    (expected.jobs, expected.artifacts) = (Keep::ALL, Keep::ALL);
    assert_eq!((default.rules, default.orphans), (expected, Orphans::Keep));
    let day = |days: u64| Duration::from_secs(days * 86_400);
    let told = rules(&["--keep-jobs", "30d,10000", "--keep-logs", "2w, 200GiB", "--keep-artifacts", "all"]);
    assert_eq!((told.jobs.age, told.jobs.most), (Some(day(30)), Some(10_000)));
    assert_eq!((told.logs.age, told.logs.most), (Some(day(14)), Some(200 << 30)));
    assert_eq!((told.artifacts, told.latest), (Keep::ALL, KeepLatest::Yes));
    let told = rules(&["--keep-artifacts", "500M", "--keep-latest", "no"]);
    assert_eq!((told.artifacts, told.latest), (Keep::at_most(500 << 20), KeepLatest::No));
    let config = read(&[], &[("MELANGE_KEEP_JOBS", "12h"), ("MELANGE_KEEP_ORPHANS", "no")]).unwrap();
    assert_eq!(config.retention.rules.jobs, Keep::within(Duration::from_secs(12 * 3_600)));
    assert_eq!(config.retention.orphans, Orphans::Remove);
    let wrong = ["--keep-jobs", "200GiB", "--keep-logs", "10000", "--keep-artifacts", "30d,soon"];
    insta::assert_snapshot!(mistakes(&wrong), @r#"
    the configuration is not valid
      - --keep-jobs: "200GiB" is no bound; such as 365d, 10000, 365d,10000 or all
      - --keep-logs: "10000" is no bound; such as 30d, 200GiB, 30d,200GiB or all
      - --keep-artifacts: "soon" is no bound; such as 30d, 200GiB, 30d,200GiB or all
    "#);
    let variable = read(&[], &[("MELANGE_KEEP_LATEST", "perhaps")]).unwrap_err().to_string();
    assert!(variable.contains("--keep-latest: it is yes or no"), "{variable}");
}

#[test]
fn the_program_is_told_to_collect() {
    let task = |args: &[&str]| {
        let args = ["melange-server"].iter().chain(args).map(|arg| (*arg).to_owned().into());
        Config::read_task(args, &|_| None)
    };
    assert!(matches!(task(&["--database", "memory:"]), Ok(Task::Serve(_))));
    let args = ["gc", "--dry-run", "--output", "json", "--keep-logs", "1d", "--database", "sqlite:/x"];
    let Ok(Task::Collect(config, options)) = task(&args) else { panic!("it is a pass") };
    assert_eq!(options, GcOptions { mode: Mode::DryRun, output: Output::Json });
    assert_eq!(config.database, DatabaseConfig::Sqlite(PathBuf::from("/x")));
    assert_eq!(config.retention.rules.logs, Keep::within(Duration::from_secs(86_400)));
    assert!(matches!(task(&["gc"]), Ok(Task::Collect(_, options)) if options.mode == Mode::Remove));
    assert!(matches!(task(&["gc", "--nonsense"]), Err(Refused::Usage(_))));
    assert!(matches!(task(&["--dry-run"]), Err(Refused::Usage(_))), "a server has no such flag");
}

#[test]
fn credentials_of_git_servers_are_read_from_files_and_their_mistakes_told() {
    let folder = tempfile::tempdir().unwrap();
    let (file, secret) = (folder.path().join("git.yaml"), folder.path().join("secret"));
    std::fs::write(&secret, "hunter2\n").unwrap();
    let text = format!("work:\n  host: git.example\n  token-file: {}\n", secret.display());
    std::fs::write(&file, &text).unwrap();
    let flags = ["--git-credentials", file.to_str().unwrap()];
    let config = read(&flags, &[]).unwrap();
    assert_eq!(config.build.git_credentials["work"].host, "git.example");
    assert!(!format!("{config:?}").contains("hunter2"));
    std::fs::write(&file, text.replace("host", "hots")).unwrap();
    let refused = read(&flags, &[]).unwrap_err().to_string();
    assert!(refused.contains("git.yaml:2:3: unknown field `hots`"), "{refused}");
}
