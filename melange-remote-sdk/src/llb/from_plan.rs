//! Station 9: [`GuestPlan`] → [`Definition`].
//!
//! # What is cached, and what is not
//! The environment (upload and unpacking of the root tar) and the parts of the workspace but the last have cache
//! keys made of their content alone: builds share them, and they are sent to a daemon once. Everything after
//! them belongs to one attempt: the op that adds the last part of the workspace also removes a file that never
//! exists, named by the attempt. That changes nothing in the tree, and it gives this op and all after it keys of
//! their own. So
//! * a build that is repeated really runs its steps;
//! * two builds of the same plan at the same time do not share a running step. BuildKit v0.8 gives the log of
//!   a shared step to one of them only.
//!
//! The price is that the daemon keeps the trees of past attempts until its garbage collection takes them.
//!
//! # The cache folder
//! [`CACHE`] is a folder of the build's own tree, and what lies in it is mounted there one by one: the
//! operator's source files read-only, the folders of the tools as the daemon's persistent cache mounts. It is
//! not one persistent mount, because the runtime makes an empty file as mount point for each source file, and
//! that would stay in the cache for later builds to find under the name of the source.
//!
//! # What the output keeps
//! Copying the output folder and the tar exporter keep owners, modes, hard links, xattrs (file capabilities
//! too) and times rounded to the second. BuildKit v0.8 leaves FIFOs out and makes empty files of device
//! nodes; v0.25 keeps both.

use std::collections::{BTreeMap, BTreeSet};

use super::exec::{Exec, Mount, Network};
use super::file::FileActions;
use super::graph::{Definition, Graph};
use super::output::OpOutput;
use crate::error::{Error, ErrorKind, Result};
use crate::guest::{
    self, Blob, CACHE, DEFAULT_CAPABILITIES, GuestPlan, GuestStep, LICENSE_FILES, OUTPUT, SCRIPTS,
    SourceFile, WORKSPACE,
};
use crate::limits;

/// Folders of [`CACHE`] that outlive a build, on the daemon's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMounts {
    /// Builds of one namespace see each other's folders: give every trust domain its own.
    pub namespace: String,
    /// Their names below [`CACHE`], such as `gomodcache`.
    pub folders: BTreeSet<String>,
}

impl CacheMounts {
    /// The folders that the built-in pipelines name, in `namespace`.
    pub fn for_tools(namespace: &str) -> Self {
        let folders = ["composer", "gomodcache", "m2repository", "npm", "pip", "uv"];
        Self { namespace: namespace.to_owned(), folders: folders.map(str::to_owned).into() }
    }
}

/// What the graph depends on besides the plan.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct PlanOptions<'a> {
    /// A name that no other attempt on the same daemon has: characters `[A-Za-z0-9._-]`.
    pub attempt: &'a str,
    /// Persistent folders; `None` gives every build empty ones.
    pub cache: Option<&'a CacheMounts>,
}

impl<'a> PlanOptions<'a> {
    /// An attempt without persistent folders.
    pub fn new(attempt: &'a str) -> Self {
        Self { attempt, cache: None }
    }
}

/// A plan as a graph, with the ops that its parts became.
#[derive(Debug, Clone, PartialEq)]
pub struct LoweredPlan {
    /// The graph; its result is the tree below [`OUTPUT`].
    pub definition: Definition,
    /// What the daemon's progress calls the steps, in the order of the plan; no two are equal.
    ///
    /// Digests would not do: newer daemons (seen with v0.25) marshal the ops anew and name them by other ones.
    pub step_names: Vec<String>,
    /// What it calls the ops that copy files with texts of licences, with the files' paths.
    pub license_files: BTreeMap<String, String>,
}

/// Lowers `plan` into a graph.
///
/// Fails with [`ErrorKind::InvalidRequest`] on names that cannot stand in the graph, with
/// [`ErrorKind::Unsupported`] on capabilities that a daemon does not give, and with
/// [`ErrorKind::LimitExceeded`] on a graph that a daemon would not take.
///
/// Capabilities: steps run by root hold the 14 of runc's default, also when the plan names fewer. Steps of
/// another user hold none; for them the 14 are a bound.
pub fn from_plan(plan: &GuestPlan, options: &PlanOptions<'_>) -> Result<LoweredPlan> {
    check_capabilities(&plan.capabilities)?;
    check_name("attempt", options.attempt)?;
    let mut graph = Graph::new(plan.arch);
    let mut tree = add_tree(&mut graph, plan, options);
    let mounts = add_mounts(&mut graph, plan, options)?;
    let mut step_names = Vec::with_capacity(plan.steps.len());
    for (index, step) in plan.steps.iter().enumerate() {
        let exec = step_exec(plan, index, step, &tree, &mounts)?;
        let name = format!("step {}/{}: {}", index + 1, plan.steps.len(), printable(&step.name));
        tree = graph.exec(exec, &name);
        step_names.push(name);
    }
    let mut copy = FileActions::on_scratch().copy_contents(&tree, OUTPUT, "/");
    if !plan.license_files.is_empty() {
        // Whatever a step has put in its place.
        copy = copy.remove(&format!("/{LICENSE_FILES}"));
    }
    let mut output = graph.file(copy, "collect the output folder");
    let mut license_files = BTreeMap::new();
    for path in &plan.license_files {
        let target = format!("/{LICENSE_FILES}/{path}");
        let copy = FileActions::on(&output).copy_file(&tree, &format!("{WORKSPACE}/{path}"), &target);
        let name = format!("licence text {}", printable(path));
        output = graph.file(copy, &name);
        license_files.insert(name, path.clone());
    }
    let definition = graph.finish(&output);
    let bytes = definition.encoded_bytes();
    if bytes > limits::BUILDKIT_DEFINITION_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            "the build graph is too large for a BuildKit daemon",
        )
        .with("bytes", bytes)
        .with("bytes_max", limits::BUILDKIT_DEFINITION_BYTES_MAX)
        .hint("scripts and environments of all steps count; split the definition"));
    }
    Ok(LoweredPlan { definition, step_names, license_files })
}

/// Root and workspace: the tree that the first step starts in.
fn add_tree(graph: &mut Graph, plan: &GuestPlan, options: &PlanOptions<'_>) -> OpOutput {
    let blob = &plan.root.sha256;
    let root = graph.upload(blob, 0o400, "environment: upload");
    let unpack = FileActions::on_scratch().unpack(&root, &format!("/{blob}"), "/");
    let mut tree = graph.file(unpack, "environment: unpack");
    let (own, common) = plan.workspace.split_last().map_or((None, &[][..]), |(own, rest)| (Some(own), rest));
    for Blob { sha256: blob, .. } in common {
        let part = graph.upload(blob, 0o400, "workspace: upload what builds share");
        let unpack = FileActions::on(&tree).unpack(&part, &format!("/{blob}"), WORKSPACE);
        tree = graph.file(unpack, "workspace: unpack what builds share");
    }
    let mut actions = FileActions::on(&tree);
    if let Some(Blob { sha256: blob, .. }) = own {
        let part = graph.upload(blob, 0o400, "workspace: upload");
        actions = actions.unpack(&part, &format!("/{blob}"), WORKSPACE);
    }
    let actions = actions
        .make_folder(CACHE, 0o755, (plan.user.uid, plan.user.gid))
        .remove(&format!("/.attempt-{}", options.attempt));
    graph.file(actions, "workspace: unpack")
}

/// What every step sees besides its tree: scripts, caches, sources.
fn add_mounts(graph: &mut Graph, plan: &GuestPlan, options: &PlanOptions<'_>) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    if !plan.steps.is_empty() {
        let mut files = FileActions::on_scratch();
        for (index, step) in plan.steps.iter().enumerate() {
            files = files.make_file(&format!("/{}", script_name(index)), 0o555, step.script.as_bytes());
        }
        for (index, script) in plan.scripts.iter().enumerate() {
            let path = format!("/{}", guest::script_name(index));
            files = files.make_file(&path, 0o555, script.as_bytes());
        }
        let scripts = graph.file(files, "scripts");
        mounts.push(Mount::read_only(SCRIPTS, &scripts, ""));
    }
    if let Some(cache) = options.cache {
        check_name("cache namespace", &cache.namespace)?;
        let owner = (plan.user.uid, plan.user.gid);
        let empty =
            graph.file(FileActions::on_scratch().make_folder("/cache", 0o755, owner), "cache folders");
        for folder in &cache.folders {
            check_name("cache folder", folder)?;
            // The owner is part of the identity: another user could not write there.
            let id = format!("{}/{}/{}-{}/{folder}", cache.namespace, plan.arch, owner.0, owner.1);
            mounts.push(Mount::cache(&format!("{CACHE}/{folder}"), &id, &empty, "/cache"));
        }
    }
    for SourceFile { name, blob } in &plan.sources {
        check_name("source file", name)?;
        let file = graph.upload(&blob.sha256, 0o444, &format!("source: {}", printable(name)));
        mounts.push(Mount::read_only(&format!("{CACHE}/{name}"), &file, &format!("/{}", blob.sha256)));
    }
    Ok(mounts)
}

fn step_exec(
    plan: &GuestPlan,
    index: usize,
    step: &GuestStep,
    tree: &OpOutput,
    mounts: &[Mount],
) -> Result<Exec> {
    let mut env = Vec::with_capacity(step.environment.len());
    for (name, value) in &step.environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Error::invalid("a variable of a step cannot stand in an environment")
                .with("step", &step.name)
                .with("variable", name));
        }
        env.push(format!("{name}={value}"));
    }
    Ok(Exec {
        root: tree.clone(),
        args: vec!["/bin/sh".to_owned(), format!("{SCRIPTS}/{}", script_name(index))],
        env,
        cwd: WORKSPACE.to_owned(),
        user: format!("{}:{}", plan.user.uid, plan.user.gid),
        network: if step.network { Network::Default } else { Network::None },
        mounts: mounts.to_vec(),
    })
}

fn script_name(index: usize) -> String {
    format!("step-{index:05}.sh")
}

/// Names that end up in paths and keys: one path element, nothing to be escaped.
fn check_name(what: &'static str, name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '+');
    if name.is_empty() || name.starts_with('.') || name.len() > 255 || !name.chars().all(allowed) {
        return Err(Error::invalid(format!("not a usable name for a {what}: {name:?}"))
            .hint("letters, digits and . _ - : + are allowed, no leading dot, at most 255 bytes"));
    }
    Ok(())
}

/// A name for people, on one line.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn check_capabilities(wanted: &[String]) -> Result<()> {
    for capability in wanted {
        let upper = capability.to_ascii_uppercase();
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        if !DEFAULT_CAPABILITIES.contains(&full.as_str()) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a BuildKit daemon does not give this capability",
            )
            .with("capability", &full)
            .hint(format!("remove {full} from the definition's capabilities, or build it in the sandbox")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bollard_buildkit_proto::pb;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::arch::Arch;
    use crate::guest::GuestUser;
    use crate::llb::dump;

    fn blob(digit: char) -> Blob {
        Blob { path: PathBuf::from("x"), sha256: digit.to_string().repeat(64), size_bytes: 1 }
    }

    fn step(name: &str, script: &str) -> GuestStep {
        GuestStep {
            name: name.to_owned(),
            script: script.to_owned(),
            environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            network: false,
        }
    }

    fn plan() -> GuestPlan {
        GuestPlan {
            name: "hello".to_owned(),
            arch: Arch::X86_64,
            root: blob('a'),
            layers: crate::guest::Layers::default(),
            workspace: vec![blob('d'), blob('b')],
            sources: vec![SourceFile { name: "sha256:cc".to_owned(), blob: blob('c') }],
            steps: vec![step("hello: fetch", "set -e\necho fetch\n"), step("hello: make", "make install\n")],
            scripts: Vec::new(),
            shared_root: true,
            user: GuestUser { uid: 1000, gid: 1000 },
            capabilities: vec!["CAP_CHOWN".to_owned()],
            resources: crate::guest::GuestResources::default(),
            license_files: Vec::new(),
        }
    }

    fn lower(plan: &GuestPlan, attempt: &str) -> LoweredPlan {
        let cache =
            CacheMounts { namespace: "tests".to_owned(), folders: BTreeSet::from(["npm".to_owned()]) };
        from_plan(plan, &PlanOptions { attempt, cache: Some(&cache) }).unwrap()
    }

    fn digests(lowered: &LoweredPlan) -> BTreeSet<String> {
        lowered.definition.ops().iter().map(|bytes| super::super::graph::sha256(bytes)).collect()
    }

    #[test]
    fn a_small_plan_gives_this_graph() {
        let mut plan = plan();
        plan.steps[0].network = true;
        let lowered = lower(&plan, "one");
        insta::assert_snapshot!("small_plan", dump(&lowered.definition));
        // Pinned: another digest means that every daemon unpacks every environment again.
        insta::assert_snapshot!("small_plan_digest", lowered.definition.digest());
    }

    #[test]
    fn attempts_share_the_environment_and_nothing_after_it() {
        let (one, two) = (lower(&plan(), "one"), lower(&plan(), "two"));
        assert_eq!(one, lower(&plan(), "one"));
        let (one, two) = (digests(&one), digests(&two));
        // Three uploads of tars, environment and common workspace unpacked, scripts, cache folders, the source file.
        assert_eq!(one.intersection(&two).count(), 8);
    }

    #[test]
    fn packages_share_what_all_workspaces_have() {
        let mut other = plan();
        other.workspace[1] = blob('e');
        let (one, two) = (lower(&plan(), "one"), lower(&other, "two"));
        let shared = digests(&one).intersection(&digests(&two)).count();
        // As above, without the upload of what is each one's own.
        assert_eq!(shared, 7);
    }

    #[test]
    fn a_plan_without_steps_still_collects_its_output() {
        let mut plan = plan();
        plan.steps.clear();
        let lowered = from_plan(&plan, &PlanOptions { attempt: "one", cache: None }).unwrap();
        assert!(lowered.step_names.is_empty());
        assert!(!dump(&lowered.definition).contains("run:"));
    }

    #[test]
    fn what_a_daemon_cannot_do_is_refused_with_its_name() {
        let mut plan = plan();
        plan.capabilities = vec!["chown".to_owned(), "CAP_SYS_ADMIN".to_owned()];
        let error = from_plan(&plan, &PlanOptions { attempt: "one", cache: None }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.hint_text().unwrap().contains("CAP_SYS_ADMIN"));

        plan.capabilities.clear();
        plan.steps[0].script = "x".repeat(limits::BUILDKIT_DEFINITION_BYTES_MAX);
        let error = from_plan(&plan, &PlanOptions { attempt: "one", cache: None }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn names_that_would_leave_their_folder_are_refused() {
        for name in ["", "..", "a/b", "../x", "a b", "\n", ".hidden", &"x".repeat(256)] {
            let mut plan = plan();
            plan.sources[0].name = name.to_owned();
            let result = from_plan(&plan, &PlanOptions { attempt: "one", cache: None });
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidRequest, "{name:?}");
        }
        let mut plan = plan();
        plan.steps[0].environment.push(("A=B".to_owned(), String::new()));
        assert!(from_plan(&plan, &PlanOptions { attempt: "one", cache: None }).is_err());
    }

    proptest! {
        /// Whatever the scripts: the chain is linear, every input stands before its user, bytes are stable.
        #[test]
        fn any_chain_is_well_formed(scripts in proptest::collection::vec(".{0,40}", 0..12)) {
            let mut plan = plan();
            plan.steps = scripts.iter().map(|script| step("same name", script)).collect();
            let lowered = lower(&plan, "one");
            prop_assert_eq!(&lowered, &lower(&plan, "one"));
            let distinct: BTreeSet<_> = lowered.step_names.iter().collect();
            prop_assert_eq!(distinct.len(), plan.steps.len());
            let mut seen = BTreeSet::new();
            for bytes in lowered.definition.ops() {
                let op = pb::Op::decode(bytes.as_slice()).unwrap();
                for input in &op.inputs {
                    prop_assert!(seen.contains(&input.digest));
                }
                seen.insert(super::super::graph::sha256(bytes));
            }
        }
    }
}
