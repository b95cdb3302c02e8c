//! Results of ops, and their places among the inputs of other ops.

use bollard_buildkit_proto::pb;

/// One result of one op: what a later op takes as its input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpOutput {
    digest: String,
    index: i64,
}

impl OpOutput {
    /// The digest of the op's bytes, by which other ops refer to it.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub(super) fn first(digest: String) -> Self {
        Self { digest, index: 0 }
    }

    /// The result as the input of another op.
    pub(super) fn input(&self) -> pb::Input {
        pb::Input { digest: self.digest.clone(), index: self.index }
    }
}

/// The position of `wanted` in `inputs`, added when it is new.
pub(super) fn input_position(inputs: &mut Vec<OpOutput>, wanted: &OpOutput) -> i64 {
    let position = inputs.iter().position(|input| input == wanted).unwrap_or_else(|| {
        inputs.push(wanted.clone());
        inputs.len() - 1
    });
    i64::try_from(position).unwrap_or(i64::MAX)
}
