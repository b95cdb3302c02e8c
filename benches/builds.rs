//! A distribution as one build: handing it in, looking at it while it runs, its end.
//!
//! 3,401 definitions (two thirds of a real distribution, some of them again under other names) go to a server in this
//! process over HTTP, with jobs in SQLite and artifacts on the disk. Every package is published, so that nothing is missing,
//! and all are built again. The builder is scripted: what is measured is the farm.
#![expect(clippy::print_stdout, reason = "figures are what a bench is for")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use melange_remote_sdk::api::v2::CreateBuildRequest;
use melange_remote_sdk::apk::index::{Index, IndexPackage};
use melange_remote_sdk::apk::signature::{SigningKey, generate_key};
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::artifact_storage::ArtifactStorage;
use melange_remote_sdk::artifact_storage::object::ObjectArtifactStorage;
use melange_remote_sdk::backend::Backend;
use melange_remote_sdk::backend::pool::BackendPool;
use melange_remote_sdk::builder::scripted::{Act, ScriptedBuilder};
use melange_remote_sdk::builds::{BuildFiles, BuildInputs, BuildPlanner, PlannerRules};
use melange_remote_sdk::cache::StateCache;
use melange_remote_sdk::client::Client;
use melange_remote_sdk::job::BuildId;
use melange_remote_sdk::job_store::JobStore;
use melange_remote_sdk::job_store::database::DatabaseBounds;
use melange_remote_sdk::job_store::sqlite::SqliteJobStore;
use melange_remote_sdk::labels::Labels;
use melange_remote_sdk::melange::defaults::RepositoryDefaults;
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::{CompileOptions, Compiled, compile};
use melange_remote_sdk::planner::Definition;
use melange_remote_sdk::rootfs::Assembler;
use melange_remote_sdk::rootfs::fetch::{FetchOptions, HttpFetcher};
use melange_remote_sdk::rootfs::repository::LocalAccess;
use melange_remote_sdk::scheduler::{SchedulerOptions, SchedulerParts};
use melange_remote_sdk::text::diagnostics::Source;
use melange_server::assembly::Assembly;
use melange_server::submission::SubmissionRules;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

mod support;

use support::{cpu, distribution, memory, rounds};

/// Definitions of the build.
const DEFINITIONS: usize = 3_401;
/// Jobs that run at once.
const SLOTS: u32 = 64;
/// What a scripted build takes. Builds that take nothing would keep the client from the processor that measures.
const BUILD: Duration = Duration::from_millis(50);

/// The definitions, some of them again under other names, and the pipelines.
fn definitions(folder: &Path) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let (mut texts, mut pipelines) = (BTreeMap::new(), BTreeMap::new());
    for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            let name = entry.file_name().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).expect("it reads");
            // Those with repositories of their own need others than the one that is made here.
            if !text.contains("keyring:") && !text.contains("repositories:") {
                texts.insert(name, text);
            }
        }
    }
    add_pipelines(&folder.join("pipelines"), "", &mut pipelines);
    let more: Vec<(String, String)> = texts
        .iter()
        .filter_map(|(file, text)| {
            let line = text.lines().find(|line| line.starts_with("  name: "))?;
            let name = line.trim_start_matches("  name: ").trim();
            Some((format!("again-{file}"), text.replacen(line, &format!("  name: again-{name}"), 1)))
        })
        .collect();
    texts.extend(more);
    (texts, pipelines)
}

fn add_pipelines(folder: &Path, prefix: &str, pipelines: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            add_pipelines(&entry.path(), &format!("{name}/"), pipelines);
        } else if name.ends_with(".yaml") {
            pipelines.insert(name, std::fs::read_to_string(entry.path()).expect("it reads"));
        }
    }
}

/// A signed repository that lists every package of the definitions at its version. Of these those stay that build, at most
/// so many.
fn publish(
    definitions: &mut BTreeMap<String, String>,
    most: usize,
    pipelines: &BTreeMap<String, String>,
    folder: &Path,
) -> RepositoryDefaults {
    let set = PipelineSet::new(pipelines).expect("the pipelines are legal");
    let mut options = CompileOptions::default();
    options.defaults = Some(RepositoryDefaults::default());
    let mut index = Index::default();
    let mut left = most;
    // Some do not take another name.
    definitions.retain(|file, text| {
        let source = Source::new(file.as_str(), text.as_str());
        let Ok(Compiled::Plan(plan)) = compile(&source, Arch::X86_64, &set, &options) else { return false };
        let definition = Definition::new(file.clone(), &plan);
        let records = definition.records();
        index.packages.extend(records.map(|record| IndexPackage { control_sha1: Some([1; 20]), ..record }));
        let is_kept = left > 0;
        left = left.saturating_sub(1);
        is_kept
    });
    let pem = generate_key(2048).expect("a key");
    let key = SigningKey::from_pem("bench.rsa", pem.as_bytes()).expect("a key");
    std::fs::create_dir_all(folder.join("x86_64")).expect("a folder");
    let bytes = index.write(Some(&key)).expect("it can be written");
    std::fs::write(folder.join("x86_64/APKINDEX.tar.gz"), bytes).expect("it can be written");
    let public = folder.join(key.public_name());
    std::fs::write(&public, key.public_pem().expect("a key")).expect("it can be written");
    RepositoryDefaults::new(vec![folder.display().to_string()], vec![public.display().to_string()])
}

/// What the jobs make: an index with one package.
fn script() -> [Act; 2] {
    let mut index = Index::default();
    index.put(IndexPackage {
        name: "made".to_owned(),
        version: "1-r0".to_owned(),
        ..IndexPackage::default()
    });
    let index = index.write(None).expect("it can be written");
    [Act::Sleep(BUILD), Act::Write("{arch}/APKINDEX.tar.gz".into(), index)]
}

/// A server of this process, which ends with it.
async fn serve(folder: &Path, defaults: &RepositoryDefaults) -> (Client, CancellationToken) {
    let storage = ObjectArtifactStorage::local(&folder.join("out")).expect("a folder");
    let storage: Arc<dyn ArtifactStorage> = Arc::new(storage);
    let store =
        SqliteJobStore::open(&folder.join("jobs.db"), DatabaseBounds::default()).await.expect("a database");
    let job_store: Arc<dyn JobStore> = Arc::new(store.clone());
    let backend = Backend::new("tcp://one:1", Arch::X86_64, Labels::default());
    let backend = backend.and_then(|backend| backend.with_max_jobs(SLOTS)).expect("the backend is legal");
    let files = BuildFiles::new(Arc::clone(&storage));
    let cache = StateCache::new(&folder.join("state"), 1 << 30);
    let fetcher = HttpFetcher::new(FetchOptions::default()).expect("a client");
    let assembler = Arc::new(Assembler::new(cache, Arc::new(fetcher), LocalAccess::Any));
    let mut rules = PlannerRules::default();
    rules.repository_defaults = defaults.clone();
    let inputs = BuildInputs::new(files.clone(), Arc::clone(&job_store));
    let planner = BuildPlanner::new(assembler, Arc::clone(&job_store), files, rules);
    let builder = Arc::new(ScriptedBuilder::new(script()));
    let pool = BackendPool::new([backend]).expect("a backend");
    let parts = SchedulerParts::new(job_store, storage, builder, pool)
        .with_registry(Arc::new(store))
        .with_inputs(Arc::new(inputs));
    let rules = SubmissionRules::new(Arch::X86_64);
    let Assembly { mut app, scheduler, .. } = Assembly::new(parts, rules, SchedulerOptions::default());
    app.planner = Some(planner);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it has one");
    let stop = CancellationToken::new();
    tokio::spawn(melange_server::serve(listener, app, stop.clone()));
    let stopping = stop.clone();
    tokio::spawn(async move { scheduler.run(stopping).await });
    (Client::new(&format!("http://{address}")).expect("an address"), stop)
}

fn main() {
    melange_server::runtime().expect("threads").block_on(measure());
}

async fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(os) = distribution(folder.path()) else {
        println!(
            "builds: the definitions of a distribution are not beside this checkout; nothing is measured"
        );
        return;
    };
    let (mut definitions, pipelines) = definitions(&os);
    let most = rounds(DEFINITIONS, 60);
    let defaults = publish(&mut definitions, most, &pipelines, &folder.path().join("published"));
    let (client, stop) = serve(folder.path(), &defaults).await;
    let mut request = CreateBuildRequest::default();
    (request.source.definitions, request.source.pipelines) = (definitions, pipelines);
    request.options.rebuild = Some("all".to_owned());
    let (begun, used) = (Instant::now(), cpu(false));
    let told = client.create_build(&request).await.expect("it is handed in");
    let handed_in = begun.elapsed();
    let id: BuildId = told.build_id.expect("there is something to build").parse().expect("an id");
    let begun = Instant::now();
    let mut looks = Vec::new();
    let view = loop {
        let asked = Instant::now();
        let view = client.build(id).await.expect("it is there");
        looks.push(asked.elapsed());
        if view.finished_at.is_some() {
            break view;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let (took, used) = (begun.elapsed(), cpu(false).saturating_sub(used));
    stop.cancel();
    assert_eq!(view.counts.success, view.counts.total, "{:?}", view.counts);
    looks.sort_unstable();
    let at = |share: usize| looks[(looks.len() * share / 100).min(looks.len() - 1)];
    println!(
        "{} jobs of {BUILD:?}, {SLOTS} slots, {} levels, {} cuts: handed in after {handed_in:.2?}, all done after {took:.2?}; \
         {} looks at it p50 {:.1?}, p99 {:.1?}; {used:.1?} of processor time, {} MB",
        view.counts.total,
        view.plan.levels,
        view.plan.cuts,
        looks.len(),
        at(50),
        at(99),
        memory(),
    );
}
