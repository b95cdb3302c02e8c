//! Builds over a scripted builder, and the repositories of what they make.

use melange_remote_sdk::apk::index::{Index, IndexPackage};
use melange_remote_sdk::apk::signature::{Keyring, SigningKey, generate_key};
use melange_remote_sdk::artifact_storage::ArtifactStorage;
use melange_remote_sdk::artifact_storage::layout::artifact_key;
use melange_remote_sdk::builds::{BuildFiles, BuildIndexes, BuildInputs, BuildPlanner, PlannerRules};
use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::git::{GitFetcher, GitPolicy};
use melange_remote_sdk::job::{BuildId, DefinitionOrigin};
use melange_remote_sdk::melange::defaults::RepositoryDefaults;
use melange_remote_sdk::publishing::PublishedRepository;
use melange_remote_sdk::rootfs::Assembler;
use melange_remote_sdk::rootfs::fetch::NoNetwork;
use melange_remote_sdk::rootfs::repository::LocalAccess;

use super::*;

/// A service that plans builds.
pub(crate) struct Planned {
    pub(crate) service: Service,
    /// What is published, for those who plan: nothing at first.
    pub(crate) folder: tempfile::TempDir,
    builder: Arc<ScriptedBuilder>,
}

impl std::ops::Deref for Planned {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

/// A definition of a package with a subpackage.
pub(crate) fn definition(name: &str, needs: &str) -> String {
    format!(
        "package: {{name: {name}, version: \"1.0\", epoch: 0}}\nenvironment: {{contents: {{packages: [{needs}]}}}}\n\
         pipeline:\n  - runs: make\nsubpackages:\n  - name: {name}-dev\n    pipeline: [{{runs: make dev}}]\n"
    )
}

/// The content of a scripted package.
pub(crate) fn content(name: &str) -> Vec<u8> {
    format!("the package {name}").into_bytes()
}

/// What a job that builds a package of [`definition`] makes.
pub(crate) fn makes(name: &str) -> Vec<Act> {
    let mut index = Index::default();
    let mut acts = Vec::new();
    for package in [name.to_owned(), format!("{name}-dev")] {
        let record = IndexPackage {
            name: package.clone(),
            version: "1.0-r0".to_owned(),
            arch: "x86_64".to_owned(),
            size_bytes: content(&package).len() as u64,
            control_sha1: Some([7; 20]),
            ..IndexPackage::default()
        };
        acts.push(Act::Write(format!("{{arch}}/{}", record.file_name()), content(&package)));
        index.packages.push(record);
    }
    acts.push(Act::Write("{arch}/APKINDEX.tar.gz".to_owned(), index.write(None).unwrap()));
    acts
}

impl Planned {
    /// A service whose jobs play these scripts one after the other.
    pub(crate) fn start(scripts: Vec<Vec<Act>>, key: Option<SigningKey>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let published = folder.path().join("published");
        let own = SigningKey::from_pem("own.rsa", generate_key(2048).unwrap().as_bytes()).unwrap();
        let index = Index::default().write(Some(&own)).unwrap();
        for arch in ["x86_64", "aarch64"] {
            std::fs::create_dir_all(published.join(arch)).unwrap();
            std::fs::write(published.join(arch).join("APKINDEX.tar.gz"), &index).unwrap();
        }
        let public = published.join(own.public_name());
        std::fs::write(&public, own.public_pem().unwrap()).unwrap();
        let at = |path: &std::path::Path| vec![path.display().to_string()];
        let mut rules = PlannerRules::default();
        rules.repository_defaults = RepositoryDefaults::new(at(&published), at(&public));

        let store = MemoryJobStore::default();
        let job_store: Arc<dyn JobStore> = Arc::new(store.clone());
        let storage: Arc<dyn ArtifactStorage> = Arc::new(ObjectArtifactStorage::memory());
        let files = BuildFiles::new(Arc::clone(&storage));
        let labels = Labels::from_pairs([("tier", "standard")]).unwrap();
        let backend = Backend::new("tcp://one:1234", Arch::X86_64, labels).unwrap().with_max_jobs(1).unwrap();
        let builder = Arc::new(ScriptedBuilder::sequence(scripts, []));
        let inputs = BuildInputs::new(files.clone(), Arc::clone(&job_store));
        let parts = SchedulerParts::new(
            Arc::clone(&job_store),
            storage,
            Arc::clone(&builder) as _,
            BackendPool::new([backend]).unwrap(),
        )
        .with_registry(Arc::new(store))
        .with_inputs(Arc::new(inputs))
        .with_clock(Arc::new(SteadyClock::starting_at(jiff::Timestamp::now())));
        let rules_of_server = SubmissionRules::new(Arch::X86_64);
        let Assembly { mut app, scheduler, .. } =
            Assembly::new(parts, rules_of_server, SchedulerOptions::default());
        let cache = StateCache::new(&folder.path().join("state"), 1 << 30);
        let assembler = Arc::new(Assembler::new(cache, Arc::new(NoNetwork), LocalAccess::Any));
        let key = key.map(Arc::new);
        app.published = Some(PublishedRepository::new(files.clone(), key.clone(), "a farm"));
        app.indexes = Some(BuildIndexes::new(files.clone(), Arc::clone(&job_store), key));
        app.planner = Some(BuildPlanner::new(assembler, job_store, files, rules));
        let mut policy = GitPolicy::default();
        policy.files = LocalAccess::Any;
        app.git = Some(GitFetcher::new(&folder.path().join("state"), policy));
        let service = Service::of(app);
        let stop = service.shutdown.clone();
        tokio::spawn(async move { scheduler.run(stop).await });
        Self { service, folder, builder }
    }

    /// Reads a path until what it tells fits.
    pub(crate) async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut hint = self.app.job_store.changed(melange_remote_sdk::job_store::Subject::Events);
            let told = self.get(path).await.json();
            if fits(&told) {
                return told;
            }
            hint.changed().await.unwrap();
        }
    }

    /// Hands definitions in, by what each needs.
    pub(crate) async fn build(&self, definitions: &[(&str, &str)]) -> String {
        let texts: serde_json::Map<String, Value> = definitions
            .iter()
            .map(|(name, needs)| (format!("{name}.yaml"), json!(definition(name, needs))))
            .collect();
        let answer = self
            .post("/api/v2/builds", &json!({ "source": { "definitions": texts }, "trigger": "nightly" }))
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        answer.json()["build_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn succeeded(&self, build: &str, count: u64) {
        self.until(&format!("/api/v2/builds/{build}"), |told| told["counts"]["success"] == count).await;
    }
}

/// The names of the packages of an index.
pub(crate) fn listed(answer: &Answer, keyring: Option<&Keyring>) -> Vec<String> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    Index::read(&answer.bytes, keyring).unwrap().packages.iter().map(IndexPackage::file_name).collect()
}

#[tokio::test(start_paused = true)]
async fn a_build_is_a_repository_of_what_it_has_made_so_far() {
    let key = SigningKey::from_pem("farm.rsa", generate_key(2048).unwrap().as_bytes()).unwrap();
    let mut keyring = Keyring::default();
    let (name, pem) = (key.public_name(), key.public_pem().unwrap());
    keyring.add(&name, pem.as_bytes()).unwrap();
    let gates = [Arc::new(Notify::new()), Arc::new(Notify::new())];
    let script = |gate: &Arc<Notify>, name| [vec![Act::Wait(Arc::clone(gate))], makes(name)].concat();
    let service = Planned::start(vec![script(&gates[0], "zlib"), script(&gates[1], "curl")], Some(key));
    let build = service.build(&[("zlib", ""), ("curl", "zlib-dev")]).await;
    let path = format!("/apk/builds/{build}/x86_64/APKINDEX.tar.gz");
    let empty = service.get(&path).await;
    assert_eq!(listed(&empty, Some(&keyring)), [""; 0], "it is there from the beginning");
    let early = service.get(&format!("/apk/builds/{build}/x86_64/curl-1.0-r0.apk")).await;
    insta::assert_snapshot!("early_package", refusal(&early).replace(&build, "[build]"));

    gates[0].notify_one();
    service.succeeded(&build, 1).await;
    let first = service.get(&path).await;
    assert_eq!(listed(&first, Some(&keyring)), ["zlib-1.0-r0.apk", "zlib-dev-1.0-r0.apk"]);
    assert_ne!(first.header(header::ETAG), empty.header(header::ETAG));
    assert_eq!(first.header(header::CONTENT_TYPE), "application/gzip");
    let known = Request::get(&path).header(header::IF_NONE_MATCH, first.header(header::ETAG));
    let known = service.send(known.body(Body::empty()).unwrap()).await;
    assert_eq!((known.status, known.bytes.len()), (StatusCode::NOT_MODIFIED, 0));

    gates[1].notify_one();
    service.succeeded(&build, 2).await;
    let all = ["zlib-1.0-r0.apk", "zlib-dev-1.0-r0.apk", "curl-1.0-r0.apk", "curl-dev-1.0-r0.apk"];
    let whole = service.get(&path).await;
    assert_eq!(listed(&whole, Some(&keyring)), all);
    for file in all {
        let path = format!("/apk/builds/{build}/x86_64/{file}");
        let package = service.get(&path).await;
        assert_eq!(package.bytes, content(file.strip_suffix("-1.0-r0.apk").unwrap()));
        assert_eq!(package.header(header::CONTENT_TYPE), "application/vnd.apk");
        let part = Request::get(&path).header(header::RANGE, "bytes=4-10").body(Body::empty()).unwrap();
        let part = service.send(part).await;
        assert_eq!((part.status, part.bytes.as_slice()), (StatusCode::PARTIAL_CONTENT, &b"package"[..]));
    }
    let public = service.get(&format!("/apk/keys/{name}")).await;
    assert_eq!((public.status, public.text()), (StatusCode::OK, pem));
    assert_eq!(service.get("/apk/keys/other.rsa.pub").await.status, StatusCode::NOT_FOUND);
}

/// Whatever was read before is not read again, and another key makes another index of the same.
#[tokio::test(start_paused = true)]
async fn an_index_is_made_once_and_leaves_out_what_was_removed() {
    let service = Planned::start(vec![makes("a"), makes("b")], None);
    let build = service.build(&[("a", ""), ("b", "a")]).await;
    service.succeeded(&build, 2).await;
    let path = format!("/apk/builds/{build}/x86_64/APKINDEX.tar.gz");
    let whole = service.get(&path).await;
    assert_eq!(listed(&whole, None).len(), 4);
    // The storage could tell nothing any more.
    let view = service.get(&format!("/api/v2/builds/{build}/packages/a")).await.json();
    let job: JobId = view["job_id"].as_str().unwrap().parse().unwrap();
    let key = artifact_key(job, 1, "x86_64/APKINDEX.tar.gz").unwrap();
    service.app.artifact_storage.delete(&key).await.unwrap();
    assert_eq!(service.get(&path).await.bytes, whole.bytes);
    let (at, what) = (service.app.clock.now(), melange_remote_sdk::job_store::Holding::Artifacts);
    service.app.job_store.note_removed(job, what, at).await.unwrap();
    assert_eq!(listed(&service.get(&path).await, None), ["b-1.0-r0.apk", "b-dev-1.0-r0.apk"]);
    let gone = service.get(&format!("/apk/builds/{build}/x86_64/a-1.0-r0.apk")).await;
    assert_eq!(gone.status, StatusCode::GONE);
}

#[tokio::test(start_paused = true)]
async fn what_no_build_has_made_is_not_found() {
    let service = Planned::start(vec![makes("a")], None);
    let build = service.build(&[("a", "")]).await;
    service.succeeded(&build, 1).await;
    let nobody = BuildId::new(service.app.clock.now());
    for path in [
        format!("{nobody}/x86_64/APKINDEX.tar.gz"),
        "build/x86_64/APKINDEX.tar.gz".to_owned(),
        format!("{build}/amd64/APKINDEX.tar.gz"),
        format!("{build}/aarch64/APKINDEX.tar.gz"),
        format!("{build}/noarch/a-1.0-r0.apk"),
        format!("{build}/x86_64/a-1.0-r1.apk"),
        format!("{build}/x86_64/a-dev.apk"),
        format!("{build}/x86_64/build.log.zst"),
        format!("{build}/x86_64/..%2F..%2Fa-1.0-r0.apk"),
        format!("{build}/x86_64/x86_64%2Fa-1.0-r0.apk"),
    ] {
        let answer = service.get(&format!("/apk/builds/{path}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.json()["error"]["hint"].is_string(), "{path}: {}", answer.text());
    }
    let unsigned = service.get("/apk/keys/farm.rsa.pub").await;
    assert!(unsigned.text().contains("--allow-untrusted"), "{}", unsigned.text());
    let without = Service::start([]);
    let answer = without.get(&format!("/apk/builds/{build}/x86_64/APKINDEX.tar.gz")).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
}

/// The other definitions are planned without it, and whoever adds a repository for all of them must name one that is there.
#[tokio::test(start_paused = true)]
async fn a_definition_whose_repository_cannot_be_had_is_left_out_and_says_so() {
    let service = Planned::start(vec![], None);
    let own = |name: &str, key: &str, repository: &str| {
        let places = format!("repositories: [\"{repository}\"], keyring: [{key}], packages: [");
        definition(name, "").replace("packages: [", &places)
    };
    let gone = "https://me:secret@gone.example/os";
    let missing = service.folder.path().join("missing.rsa.pub").display().to_string();
    let texts = json!({
        "a.yaml": definition("a", ""),
        "b/b.yaml": own("b", "", gone),
        "c.yaml": definition("c", "b"),
        "d.yaml": own("d", "", gone),
        "e.yaml": own("e", &missing, "/nowhere"),
    });
    let request =
        |extra: &[&str]| json!({ "source": { "definitions": texts }, "options": { "extra_repos": extra } });
    let answer = service.post("/api/v2/plans", &request(&[])).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    insta::assert_snapshot!("unread_repository", refusal(&answer).replace(&missing, "[missing]"));
    let answer = service.post("/api/v2/plans", &request(&["https://also-gone.example/os"])).await;
    insta::assert_snapshot!("unread_repository_of_all", refusal(&answer));
    let many: serde_json::Map<String, Value> = (0..=melange_remote_sdk::limits::PLAN_PLACES_UNREAD_MAX)
        .map(|number| {
            let text = own(&format!("p{number}"), "", &format!("https://gone{number:03}.example/os"));
            (format!("p{number}.yaml"), json!(text))
        })
        .collect();
    let answer = service.post("/api/v2/plans", &json!({ "source": { "definitions": many } })).await;
    insta::assert_snapshot!("too_many_unread_repositories", refusal(&answer));
}

#[tokio::test(start_paused = true)]
async fn builders_are_told_where_definitions_come_from() {
    let planned = Planned::start(vec![makes("a"), makes("b")], None);
    let stated = |url: &str| {
        let options = json!({ "git_commit": "c0ffee", "git_repo_url": url, "license": "MIT" });
        json!({ "source": { "definitions": { "a.yaml": definition("a", "") } }, "options": options })
    };
    let refused = planned.post("/api/v2/builds", &stated("../os")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.json()["error"]["details"][0]["field"], "options.git_repo_url", "{}", refused.text());
    let answer = planned.post("/api/v2/builds", &stated("https://u:topsecret@git.example/o/os.git")).await;
    planned.succeeded(answer.json()["build_id"].as_str().unwrap(), 1).await;
    let mut body = json!({ "config_yaml": definition("b", ""), "git_commit": "c0ffee", "license": "MIT" });
    body["git_repo_url"] = json!("git@git.example:o/os.git");
    let id = planned.submit(&body).await;
    let job = planned.wait(&id, "success").await;
    assert_eq!(job["spec"]["git_repo_url"], "https://git.example/o/os");
    assert_eq!((&job["spec"]["git_commit"], &job["spec"]["license"]), (&json!("c0ffee"), &json!("MIT")));
    body["git_commit"] = json!("a\nb");
    let refused = planned.post("/api/v1/jobs", &body).await;
    assert_eq!(refused.json()["error"]["details"][0]["field"], "git_commit", "{}", refused.text());
    let told: Vec<_> = planned.builder.builds().into_iter().map(|input| input.origin).collect();
    let mut expected = DefinitionOrigin::of_git("https://git.example/o/os", "c0ffee");
    expected.license = "MIT".to_owned();
    assert_eq!(told, [expected.clone(), expected]);
}
