//! Processes: arguments, environment, user, network and mounts of one step.

use bollard_buildkit_proto::pb;

use super::output::{OpOutput, input_position};

/// What a process may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Nothing, not even the host's loopback.
    None,
    /// What the daemon gives by default: on a `buildkitd` without CNI that is the host's network.
    Default,
}

/// Something besides the root filesystem that a process sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    target: String,
    source: OpOutput,
    selector: String,
    cache_id: Option<String>,
}

impl Mount {
    /// A file or folder of `source`, read-only.
    pub fn read_only(target: &str, source: &OpOutput, selector: &str) -> Self {
        Self {
            target: target.to_owned(),
            source: source.clone(),
            selector: selector.to_owned(),
            cache_id: None,
        }
    }

    /// A folder that outlives the build, shared by all processes that name the same `id`. It starts as the
    /// folder `selector` of `source`.
    pub fn cache(target: &str, id: &str, source: &OpOutput, selector: &str) -> Self {
        Self { cache_id: Some(id.to_owned()), ..Self::read_only(target, source, selector) }
    }
}

/// One process.
#[derive(Debug, Clone)]
pub struct Exec {
    /// Its root filesystem, which it may change.
    pub root: OpOutput,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Its environment, as `NAME=value`.
    pub env: Vec<String>,
    /// Where it starts.
    pub cwd: String,
    /// Who runs it, as `uid:gid`.
    pub user: String,
    /// What it may reach.
    pub network: Network,
    /// What it sees besides the root filesystem.
    pub mounts: Vec<Mount>,
}

impl Exec {
    /// The capabilities that a daemon needs for it.
    pub(super) fn capabilities(&self) -> Vec<&'static str> {
        let mut caps = vec!["exec.meta.base", "exec.mount.bind"];
        if self.network == Network::None {
            caps.push("exec.meta.network");
        }
        if self.mounts.iter().any(|mount| !mount.selector.is_empty()) {
            caps.push("exec.mount.selector");
        }
        if self.mounts.iter().any(|mount| mount.cache_id.is_some()) {
            caps.extend(["exec.mount.cache", "exec.mount.cache.sharing"]);
        }
        caps
    }

    /// Inputs and message; the changed root filesystem is output 0.
    pub(super) fn into_op(self) -> (Vec<OpOutput>, pb::ExecOp) {
        let mut inputs = vec![self.root];
        let root = pb::Mount { input: 0, dest: "/".to_owned(), output: 0, ..pb::Mount::default() };
        let mut mounts = vec![root];
        for mount in self.mounts {
            let input = input_position(&mut inputs, &mount.source);
            mounts.push(mount_message(mount, input));
        }
        let network = match self.network {
            Network::None => pb::NetMode::None,
            Network::Default => pb::NetMode::Unset,
        };
        let meta = pb::Meta {
            args: self.args,
            env: self.env,
            cwd: self.cwd,
            user: self.user,
            ..pb::Meta::default()
        };
        let op = pb::ExecOp { meta: Some(meta), mounts, network: network.into(), ..pb::ExecOp::default() };
        (inputs, op)
    }
}

fn mount_message(mount: Mount, input: i64) -> pb::Mount {
    let cached = mount.cache_id.is_some();
    let kind = if cached { pb::MountType::Cache } else { pb::MountType::Bind };
    // Shared, not locked: the tools that use these folders lock for themselves, and locking here would run
    // builds one after another.
    let cache_opt = mount.cache_id.map(|id| pb::CacheOpt { id, sharing: pb::CacheSharingOpt::Shared.into() });
    pb::Mount {
        input,
        selector: mount.selector,
        dest: mount.target,
        output: -1,
        readonly: !cached,
        mount_type: kind.into(),
        cache_opt,
        ..pb::Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_one_tree_share_its_input_and_only_the_root_is_an_output() {
        let root = OpOutput::first("sha256:aa".to_owned());
        let other = OpOutput::first("sha256:bb".to_owned());
        let exec = Exec {
            root: root.clone(),
            args: vec!["/bin/true".to_owned()],
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: "0:0".to_owned(),
            network: Network::None,
            mounts: vec![
                Mount::read_only("/a", &other, "/x"),
                Mount::read_only("/b", &other, "/y"),
                Mount::cache("/c", "id", &other, "/z"),
            ],
        };
        assert!(exec.capabilities().contains(&"exec.mount.cache.sharing"));
        let (inputs, op) = exec.into_op();
        assert_eq!(inputs, [root, other]);
        let seen: Vec<_> = op.mounts.iter().map(|m| (m.input, m.output, m.readonly)).collect();
        assert_eq!(seen, [(0, 0, false), (1, -1, true), (1, -1, true), (1, -1, false)]);
        assert_eq!(op.network, i32::from(pb::NetMode::None));
    }
}
