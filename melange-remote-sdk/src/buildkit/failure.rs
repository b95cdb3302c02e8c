//! A daemon's refusals → our errors, and what a failed solve says of the step at fault.

use bollard_buildkit_proto::google::rpc;
use prost::Message;
use serde::Deserialize;
use tonic::{Code, Status};

use crate::error::{Error, ErrorKind};

/// Type URLs end in these names. The values are JSON, not protobuf: BuildKit's `util/grpcerrors` packs
/// structs that are no messages so.
const EXIT_CODE_TYPE: &str = "gatewayapi.ExitMessage+json";
const VERTEX_TYPE: &str = "errdefs.Vertex+json";
/// Before BuildKit v0.9 the code stands only in the text.
const EXIT_CODE_TEXT: &str = "exit code: ";

/// `ExitMessage` of BuildKit's `frontend/gateway/pb/gateway.proto`, field 1 `Code`, as Go writes it in JSON.
#[derive(Deserialize)]
struct ExitMessage {
    #[serde(rename = "Code", alias = "code", default)]
    code: i64,
}

/// `Vertex` of BuildKit's `solver/errdefs/errdefs.proto`, field 1 `digest`.
#[derive(Deserialize)]
struct VertexMessage {
    #[serde(default)]
    digest: String,
}

/// What a failed solve says of its cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SolveFailure {
    /// The code with which a process ended.
    pub(super) exit_code: Option<i32>,
    /// The digest of the op at fault; old daemons do not tell.
    pub(super) vertex: Option<String>,
    /// Whether the daemon stopped the build by itself, as it does when it shuts down.
    pub(super) stopped: bool,
}

impl SolveFailure {
    pub(super) fn of(status: &Status) -> Self {
        let mut failure = Self {
            stopped: matches!(status.code(), Code::Cancelled | Code::Unavailable)
                || status.message().contains("context canceled"),
            ..Self::default()
        };
        for detail in rpc::Status::decode(status.details()).map(|status| status.details).unwrap_or_default() {
            if detail.type_url.ends_with(EXIT_CODE_TYPE) {
                failure.exit_code = serde_json::from_slice::<ExitMessage>(&detail.value)
                    .ok()
                    .and_then(|exit| i32::try_from(exit.code).ok());
            } else if detail.type_url.ends_with(VERTEX_TYPE) {
                let vertex = serde_json::from_slice::<VertexMessage>(&detail.value).ok();
                failure.vertex = vertex.map(|vertex| vertex.digest).filter(|digest| !digest.is_empty());
            }
        }
        failure.exit_code = failure.exit_code.or_else(|| exit_code_in(status.message()));
        failure
    }
}

/// The code that the text of an error names last.
fn exit_code_in(text: &str) -> Option<i32> {
    let (_, after) = text.rsplit_once(EXIT_CODE_TEXT)?;
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after[..end].parse().ok()
}

/// A call that the daemon did not answer as it should. Unless the code says that asking again is useless, it is
/// [`ErrorKind::Unavailable`].
pub(super) fn status_error(status: Status, message: &'static str) -> Error {
    let kind = match status.code() {
        Code::InvalidArgument => ErrorKind::InvalidRequest,
        Code::ResourceExhausted | Code::OutOfRange => ErrorKind::LimitExceeded,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Untrusted,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, message).source(DaemonStatus(status))
}

/// A status in words of the daemon's: tonic's own text shows how its type is made.
#[derive(Debug)]
pub(super) struct DaemonStatus(pub(super) Status);

impl std::fmt::Display for DaemonStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.message() {
            "" => f.write_str(self.0.code().description()),
            message => f.write_str(message),
        }
    }
}

impl std::error::Error for DaemonStatus {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::google::protobuf::Any;

    use super::*;

    fn any(kind: &str, json: &str) -> Any {
        Any { type_url: format!("github.com/moby/buildkit/{kind}"), value: json.as_bytes().to_vec() }
    }

    fn with_details(message: &str, details: Vec<Any>) -> Status {
        let encoded = rpc::Status { code: 2, message: message.to_owned(), details }.encode_to_vec();
        Status::with_details(Code::Unknown, message, encoded.into())
    }

    #[test]
    fn typed_details_win_over_the_text() {
        let status = with_details(
            "process \"/bin/sh\" did not complete successfully: exit code: 1",
            vec![
                any("frontend/gatewayapi.ExitMessage+json", r#"{"Code":37}"#),
                any("solver/errdefs.Vertex+json", r#"{"digest":"sha256:aa"}"#),
                any("other.Thing", "\u{0}"),
            ],
        );
        let failure = SolveFailure::of(&status);
        assert_eq!(failure.exit_code, Some(37));
        assert_eq!(failure.vertex.as_deref(), Some("sha256:aa"));
        assert!(!failure.stopped);
    }

    #[test]
    fn the_text_of_old_daemons_is_enough_and_malformed_details_do_no_harm() {
        let text = "failed: exit code: 3: executor failed running [/bin/sh x]: exit code: 137";
        assert_eq!(SolveFailure::of(&Status::unknown(text)).exit_code, Some(137));
        let status = with_details(text, vec![any("gatewayapi.ExitMessage+json", "no json")]);
        assert_eq!(SolveFailure::of(&status).exit_code, Some(137));
        let broken = Status::with_details(Code::Unknown, "no such file", vec![0xff, 0xff].into());
        assert_eq!(SolveFailure::of(&broken), SolveFailure::default());
        assert_eq!(exit_code_in("exit code: x"), None);
        assert_eq!(exit_code_in("exit code: 99999999999999"), None);
    }

    #[test]
    fn a_daemon_that_stops_is_no_fault_of_the_step() {
        assert!(SolveFailure::of(&Status::unknown("x: context canceled")).stopped);
        assert!(SolveFailure::of(&Status::unavailable("transport error")).stopped);
    }

    #[test]
    fn kinds_say_whether_to_ask_again() {
        let kind = |status| status_error(status, "x").kind();
        assert_eq!(kind(Status::unknown("x")), ErrorKind::Unavailable);
        assert_eq!(kind(Status::resource_exhausted("x")), ErrorKind::LimitExceeded);
        assert_eq!(kind(Status::unimplemented("x")), ErrorKind::Unsupported);
    }
}
