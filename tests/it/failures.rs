//! What goes wrong is said in words that help, and nothing is built from what cannot be trusted.

use std::fs;
use std::path::{Path, PathBuf};

use melange_remote_sdk::apk::index::Index;
use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::apk::signature::{SigningKey, generate_key};
use melange_remote_sdk::builder::BuildStatus;
use melange_remote_sdk::limits;
use melange_remote_sdk::melange::defaults::RepositoryDefaults;

use crate::support::farm::{Backend, Built, Farm, on_farm, run};

/// A definition of busybox alone with one step.
fn one_step(script: &str) -> String {
    let script = script.replace('\n', "\n      ");
    format!(
        "package:\n  name: broken\n  version: 1\n  epoch: 0\nenvironment:\n  contents:\n    packages:\n      \
         - busybox\npipeline:\n  - name: good\n    runs: echo fine\n  - name: bad\n    runs: |\n      {script}\n  \
         - name: never\n    runs: echo never\n"
    )
}

#[test]
fn a_failing_step_has_a_name_a_code_and_a_tail() {
    on_farm(async |farm| {
        let yaml = one_step("seq 1 100\necho to stderr >&2\nprintf 'no newline'\nexit 37");
        for backend in farm.backends() {
            let built = farm.build(backend, "broken", &yaml).await;
            let BuildStatus::Failed { reason, failure: Some(failure) } = &built.outcome.status else {
                panic!("{built:?}")
            };
            assert_eq!(reason, "the step `broken: bad` failed with exit code 37");
            assert_eq!((failure.step.as_str(), failure.exit_code), ("broken: bad", 37));
            assert_eq!(failure.tail.len(), limits::LOG_TAIL_LINES);
            for line in ["100", "no newline"] {
                assert!(failure.tail.iter().any(|seen| seen == line), "{backend:?}: {line:?} in {failure:?}");
            }
            // Nothing orders the two streams, so this line may have come before the tail.
            assert!(built.events.lines_of("broken: bad").contains(&"to stderr".to_owned()), "{built:?}");
            assert!(!built.events.text().contains("never"));
            assert!(built.outcome.files.is_empty());
        }
    });
}

#[test]
fn a_command_that_fails_inside_a_pipe_or_is_missing_fails_the_step() {
    on_farm(async |farm| {
        for (script, code) in
            [("false | true\necho on", 1), ("no-such-program", 127), ("sh -c 'kill -9 $$'", 137)]
        {
            for backend in farm.backends() {
                let built = farm.build(backend, "broken", &one_step(script)).await;
                let BuildStatus::Failed { failure: Some(failure), .. } = &built.outcome.status else {
                    panic!("{script}: {built:?}")
                };
                assert_eq!(failure.exit_code, code, "{script} by {backend:?}");
            }
        }
    });
}

#[test]
fn mistakes_in_a_definition_have_line_and_column() {
    on_farm(async |farm| {
        let Some(&backend) = farm.backends().first() else { return };
        let good = one_step("echo fine");
        let cases = [
            ("syntax", good.replace("  epoch: 0", "  epoch: [0")),
            (
                "variable",
                good.replace("echo fine\n  - name: never", "echo ${{package.nmae}}\n  - name: never"),
            ),
            ("field", good.replace("  epoch: 0", "  epohc: 0")),
            ("pipeline", good.replace("runs: echo fine", "uses: autoconf/mkae")),
        ];
        for (name, yaml) in cases {
            assert_ne!(yaml, good, "{name}");
            let built = farm.build(backend, "broken", &yaml).await;
            insta::assert_snapshot!(format!("mistake_{name}"), built.complaint());
        }
    });
}

#[test]
fn an_environment_that_cannot_be_resolved_names_the_package() {
    on_farm(async |farm| {
        let Some(&backend) = farm.backends().first() else { return };
        for (name, package) in [("missing", "busybux"), ("version", "busybox>99")] {
            let yaml = one_step("echo fine").replace("- busybox", &format!("- {package}"));
            let built = farm.build(backend, "broken", &yaml).await;
            insta::assert_snapshot!(format!("environment_{name}"), built.complaint());
        }
    });
}

#[test]
fn what_is_not_what_was_signed_is_refused() {
    on_farm(async |farm| {
        let Some(&backend) = farm.backends().first() else { return };
        let repository = SmallRepository::make(farm, "whole").await;
        repository.build(farm, backend).await.assert_succeeded();

        let repository = SmallRepository::make(farm, "wrong-key").await;
        fs::write(&repository.key, signing_key().public_pem().unwrap()).unwrap();
        repository.refused(farm, backend, "wrong_key").await;

        let repository = SmallRepository::make(farm, "other-key").await;
        let renamed = repository.folder.join("stranger.rsa.pub");
        fs::rename(&repository.key, &renamed).unwrap();
        SmallRepository { key: renamed, ..repository }.refused(farm, backend, "unknown_key").await;

        let repository = SmallRepository::make(farm, "index").await;
        let index = repository.folder.join("x86_64/APKINDEX.tar.gz");
        let size = fs::metadata(&index).unwrap().len();
        flip(&index, size * 6 / 10);
        repository.refused(farm, backend, "damaged_index").await;

        let repository = SmallRepository::make(farm, "data").await;
        let busybox = repository.package("busybox-");
        let size = fs::metadata(&busybox).unwrap().len();
        flip(&busybox, size * 9 / 10);
        repository.refused(farm, backend, "damaged_data").await;

        let repository = SmallRepository::make(farm, "control").await;
        let busybox = repository.package("busybox-");
        let (start, end) = ApkFile::open(&busybox).unwrap().control_range;
        flip(&busybox, start.midpoint(end));
        repository.refused(farm, backend, "damaged_control").await;

        let repository = SmallRepository::make(farm, "swapped").await;
        fs::copy(repository.package("glibc-"), repository.package("busybox-")).unwrap();
        repository.refused(farm, backend, "swapped_package").await;
    });
}

fn signing_key() -> SigningKey {
    SigningKey::from_pem("small.rsa", generate_key(2048).unwrap().as_bytes()).unwrap()
}

/// Changes one byte.
fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

/// A copy of the packages that busybox needs, signed by a key of its own.
struct SmallRepository {
    folder: PathBuf,
    key: PathBuf,
}

impl SmallRepository {
    async fn make(farm: &Farm, name: &str) -> Self {
        let folder = farm.places.state.join("small").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("x86_64")).unwrap();
        let distro = farm.places.distro.join("x86_64");
        let mut index = Index::default();
        for package in farm.closure_of(&["busybox"]).await {
            let file = package.file_name();
            fs::copy(distro.join(&file), folder.join("x86_64").join(&file)).unwrap();
            index.put(package);
        }
        let signing = signing_key();
        fs::write(folder.join("x86_64/APKINDEX.tar.gz"), index.write(Some(&signing)).unwrap()).unwrap();
        let key = folder.join("small.rsa.pub");
        fs::write(&key, signing.public_pem().unwrap()).unwrap();
        Self { folder, key }
    }

    fn package(&self, prefix: &str) -> PathBuf {
        let entries = fs::read_dir(self.folder.join("x86_64")).unwrap();
        let mut files = entries.map(|entry| entry.unwrap().path());
        let named = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(prefix);
        files.find(named).unwrap()
    }

    async fn build(&self, farm: &Farm, backend: Backend) -> Built {
        let (folder, key) = (self.folder.display().to_string(), self.key.display().to_string());
        let state = self.folder.join("state");
        let engine = farm.new_engine_with(RepositoryDefaults::new(vec![folder], vec![key]), &state);
        run(&engine, Farm::input(backend, "careful", &one_step("echo fine"))).await
    }

    /// No step runs, and the complaint says what is wrong with which file.
    async fn refused(&self, farm: &Farm, backend: Backend, snapshot: &str) {
        let built = self.build(farm, backend).await;
        let complaint = built.complaint();
        assert!(!complaint.contains("fine"));
        let folder = self.folder.display().to_string();
        let hex = |word: &str| {
            word.len() >= 28 && word.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c))
        };
        let shown = complaint.replace(&folder, "REPOSITORY");
        let words = shown.split_inclusive([' ', ',', ')', '\n']).map(|word| {
            let bare = word.trim_end_matches([' ', ',', ')', '\n']);
            if hex(bare) { word.replace(bare, "DIGEST") } else { word.to_owned() }
        });
        insta::assert_snapshot!(format!("refused_{snapshot}"), words.collect::<String>());
    }
}
