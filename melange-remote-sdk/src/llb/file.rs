//! Actions on files: the daemon does them itself, no process and no shell is needed in the tree.

use bollard_buildkit_proto::pb::{self, file_action::Action};

use super::output::{OpOutput, input_position};

/// Time stamps of everything that the graph makes itself. The daemon takes -1 as "now".
const FIXED_TIME: i64 = 0;
/// Leaves the time stamps of copied files as they are.
const KEEP_TIME: i64 = -1;
/// Leaves the permission bits of copied files as they are.
const KEEP_MODE: i32 = -1;
/// No input: an empty tree, or an action that takes only the tree before it.
const NO_INPUT: i64 = -1;

/// A chain of actions on one tree, done as one op: one snapshot, one cache entry.
#[derive(Debug, Clone, Default)]
pub struct FileActions {
    inputs: Vec<OpOutput>,
    on_tree: bool,
    actions: Vec<(Action, i64)>,
}

impl FileActions {
    /// Actions on an empty tree.
    pub fn on_scratch() -> Self {
        Self::default()
    }

    /// Actions on `tree`.
    pub fn on(tree: &OpOutput) -> Self {
        Self { inputs: vec![tree.clone()], on_tree: true, actions: Vec::new() }
    }

    /// Unpacks the archive `source` of the tree `from` at the folder `target`. Owners, modes, hard links,
    /// xattrs and times come from the archive; what it does not name stays.
    pub fn unpack(self, from: &OpOutput, source: &str, target: &str) -> Self {
        let mut copy = copy_action(source, target);
        copy.attempt_unpack_docker_compatibility = true;
        self.push_with(from, Action::Copy(copy))
    }

    /// Copies what is in the folder `source` of the tree `from` into the folder `target`, everything kept.
    pub fn copy_contents(self, from: &OpOutput, source: &str, target: &str) -> Self {
        self.push_with(from, Action::Copy(copy_action(source, target)))
    }

    /// Copies the file `source` of the tree `from` to the path `target`; links are followed within the tree.
    pub fn copy_file(self, from: &OpOutput, source: &str, target: &str) -> Self {
        let mut copy = copy_action(source, target);
        (copy.follow_symlink, copy.dir_copy_contents) = (true, false);
        self.push_with(from, Action::Copy(copy))
    }

    /// Makes the folder `path` and those above it, unless they exist.
    pub fn make_folder(mut self, path: &str, mode: i32, owner: (u32, u32)) -> Self {
        let action = pb::FileActionMkDir {
            path: path.to_owned(),
            mode,
            make_parents: true,
            owner: Some(chown(owner)),
            timestamp: FIXED_TIME,
        };
        self.actions.push((Action::Mkdir(action), NO_INPUT));
        self
    }

    /// Makes the file `path`, owned by root, in a folder that exists.
    pub fn make_file(mut self, path: &str, mode: i32, data: &[u8]) -> Self {
        let action = pb::FileActionMkFile {
            path: path.to_owned(),
            mode,
            data: data.to_vec(),
            owner: Some(chown((0, 0))),
            timestamp: FIXED_TIME,
        };
        self.actions.push((Action::Mkfile(action), NO_INPUT));
        self
    }

    /// Removes `path` if it is there.
    pub fn remove(mut self, path: &str) -> Self {
        let action = pb::FileActionRm { path: path.to_owned(), allow_not_found: true, allow_wildcard: false };
        self.actions.push((Action::Rm(action), NO_INPUT));
        self
    }

    fn push_with(mut self, from: &OpOutput, action: Action) -> Self {
        let position = input_position(&mut self.inputs, from);
        self.actions.push((action, position));
        self
    }

    /// Inputs and message. Within an op, numbers below the count of inputs name inputs, those from there on
    /// the result of the action with that position.
    pub(super) fn into_op(self) -> (Vec<OpOutput>, pb::FileOp) {
        let inputs = as_i64(self.inputs.len());
        let last = self.actions.len().saturating_sub(1);
        let base = if self.on_tree { 0 } else { NO_INPUT };
        let actions = self.actions.into_iter().enumerate().map(|(position, (action, secondary))| {
            let input = if position == 0 { base } else { inputs + as_i64(position) - 1 };
            let output = if position == last { 0 } else { -1 };
            pb::FileAction { input, secondary_input: secondary, output, action: Some(action) }
        });
        (self.inputs, pb::FileOp { actions: actions.collect() })
    }
}

fn copy_action(source: &str, target: &str) -> pb::FileActionCopy {
    pb::FileActionCopy {
        src: source.to_owned(),
        dest: target.to_owned(),
        mode: KEEP_MODE,
        dir_copy_contents: true,
        create_dest_path: true,
        timestamp: KEEP_TIME,
        ..pb::FileActionCopy::default()
    }
}

fn chown((uid, gid): (u32, u32)) -> pb::ChownOpt {
    let id = |id| Some(pb::UserOpt { user: Some(pb::user_opt::User::ById(id)) });
    pb::ChownOpt { user: id(uid), group: id(gid) }
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_chained_and_only_the_last_one_is_the_result() {
        let from = OpOutput::first("sha256:aa".to_owned());
        let (inputs, op) = FileActions::on_scratch()
            .make_folder("/a", 0o755, (0, 0))
            .unpack(&from, "/x", "/a")
            .remove("/b")
            .into_op();
        assert_eq!(inputs, [from]);
        let numbers: Vec<_> = op.actions.iter().map(|a| (a.input, a.secondary_input, a.output)).collect();
        assert_eq!(numbers, [(-1, -1, -1), (1, 0, -1), (2, -1, 0)]);
    }
}
