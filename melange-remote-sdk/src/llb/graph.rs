//! The graph: ops, their digests and their marshalled form. It knows nothing of guests.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use prost::Message;
use sha2::{Digest, Sha256};

use super::exec::Exec;
use super::file::FileActions;
use super::output::OpOutput;
use crate::arch::Arch;

/// A marshalled graph, ready to be solved.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    message: pb::Definition,
}

impl Definition {
    /// The graph as the daemon's message type.
    #[cfg(feature = "buildkit")]
    pub(crate) fn message(&self) -> &pb::Definition {
        &self.message
    }

    /// The size of the message.
    pub fn encoded_bytes(&self) -> usize {
        self.message.encoded_len()
    }

    /// The bytes, as `buildctl debug dump-llb` reads them.
    pub fn encode(&self) -> Vec<u8> {
        self.message.encode_to_vec()
    }

    /// SHA-256 of [`Self::encode`], as `sha256:<hex>`.
    pub fn digest(&self) -> String {
        sha256(&self.encode())
    }

    /// The marshalled ops, inputs before users; the last one only points at the result.
    pub(super) fn ops(&self) -> &[Vec<u8>] {
        &self.message.def
    }

    /// What is known of the op with this digest besides its bytes.
    pub(super) fn metadata(&self, digest: &str) -> Option<&pb::OpMetadata> {
        self.message.metadata.get(digest)
    }
}

/// Collects ops. An op that is added twice is there once.
#[derive(Debug)]
pub struct Graph {
    platform: pb::Platform,
    ops: Vec<Vec<u8>>,
    metadata: BTreeMap<String, pb::OpMetadata>,
}

impl Graph {
    /// An empty graph whose ops run on `arch`.
    pub fn new(arch: Arch) -> Self {
        let (architecture, variant) = arch.oci_name().split_once('/').unwrap_or((arch.oci_name(), ""));
        let platform = pb::Platform {
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            os: "linux".to_owned(),
            ..pb::Platform::default()
        };
        Self { platform, ops: Vec::new(), metadata: BTreeMap::new() }
    }

    /// A file that the client's session offers under its SHA-256 in hex; the result is a tree with that file
    /// at its root, named by the digest, with permission bits `mode`.
    ///
    /// The daemon's cache key is the checksum, the name and the mode: a file that it has seen is not asked for.
    pub fn upload(&mut self, sha256: &str, mode: u32, name: &str) -> OpOutput {
        let attrs = [
            ("http.checksum".to_owned(), format!("sha256:{sha256}")),
            ("http.perm".to_owned(), format!("0{mode:o}")),
        ];
        let source = pb::SourceOp {
            identifier: format!("http://buildkit-session/{sha256}"),
            attrs: BTreeMap::from(attrs),
        };
        let caps = ["source.http", "source.http.checksum", "source.http.perm"];
        self.add(&[], pb::op::Op::Source(source), name, &caps)
    }

    /// Actions on files.
    pub fn file(&mut self, actions: FileActions, name: &str) -> OpOutput {
        let (inputs, op) = actions.into_op();
        self.add(&inputs, pb::op::Op::File(op), name, &["file.base"])
    }

    /// A process; the result is its root filesystem afterwards.
    pub fn exec(&mut self, exec: Exec, name: &str) -> OpOutput {
        let caps = exec.capabilities();
        let (inputs, op) = exec.into_op();
        self.add(&inputs, pb::op::Op::Exec(op), name, &caps)
    }

    /// The graph with `result` as its result.
    pub fn finish(self, result: &OpOutput) -> Definition {
        let Self { mut ops, mut metadata, .. } = self;
        let terminal = pb::Op { inputs: vec![result.input()], ..pb::Op::default() }.encode_to_vec();
        // Constraints and platforms are fields of every op; the capabilities for them stand on the last one.
        metadata.insert(sha256(&terminal), op_metadata("", &["constraints", "platform"]));
        ops.push(terminal);
        Definition { message: pb::Definition { def: ops, metadata, source: None } }
    }

    fn add(&mut self, inputs: &[OpOutput], op: pb::op::Op, name: &str, caps: &[&str]) -> OpOutput {
        let message = pb::Op {
            inputs: inputs.iter().map(OpOutput::input).collect(),
            platform: Some(self.platform.clone()),
            constraints: Some(pb::WorkerConstraints { filter: Vec::new() }),
            op: Some(op),
        };
        let bytes = message.encode_to_vec();
        let digest = sha256(&bytes);
        if self.metadata.insert(digest.clone(), op_metadata(name, caps)).is_none() {
            self.ops.push(bytes);
        }
        OpOutput::first(digest)
    }
}

/// The digest that LLB names an op by: SHA-256 of its bytes.
pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn op_metadata(name: &str, caps: &[&str]) -> pb::OpMetadata {
    let mut metadata = pb::OpMetadata::default();
    if !name.is_empty() {
        metadata.description.insert("llb.customname".to_owned(), name.to_owned());
    }
    metadata.caps = caps.iter().map(|cap| ((*cap).to_owned(), true)).collect();
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_op_added_twice_is_there_once_and_inputs_stand_before_users() {
        let mut graph = Graph::new(Arch::X86_64);
        let one = graph.upload("aa", 0o444, "one");
        let again = graph.upload("aa", 0o444, "one");
        assert_eq!(one, again);
        let tree = graph.file(FileActions::on_scratch().unpack(&one, "/aa", "/"), "tree");
        let definition = graph.finish(&tree);
        assert_eq!(definition.ops().len(), 3);
        assert_eq!(sha256(&definition.ops()[0]), one.digest());
        assert_eq!(sha256(&definition.ops()[1]), tree.digest());
        let last = pb::Op::decode(definition.ops()[2].as_slice()).unwrap();
        assert_eq!(last.inputs[0].digest, tree.digest());
        assert!(last.op.is_none());
    }

    #[test]
    fn variants_of_an_architecture_are_told_apart() {
        let graph = Graph::new(Arch::Armv7);
        assert_eq!((graph.platform.architecture.as_str(), graph.platform.variant.as_str()), ("arm", "v7"));
        assert_eq!(Graph::new(Arch::Aarch64).platform.variant, "");
    }
}
