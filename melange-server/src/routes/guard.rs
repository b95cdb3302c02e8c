//! What every request must keep to before its handler sees it: pages of other sites change nothing here, and bodies
//! are JSON, or archives where archives are sent. It holds whether callers have identities or not.

use std::net::IpAddr;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use melange_remote_sdk::api::v1;
use melange_remote_sdk::error::{Error, ErrorKind};

use crate::app::App;
use crate::problem::Problem;

/// The content type of everything but archives.
const JSON_TYPE: &str = "application/json";

/// Refuses requests that change something and come from a page of another site, or have a body of another type.
pub(super) async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if changes {
        if let Err(problem) = check_origin(request.headers(), &app.rules.public_hosts) {
            return problem.into_response();
        }
        let is_archive = request.uri().path().starts_with(v1::SOURCES);
        let (what, wanted) = if is_archive { ("a tar", v1::SOURCE_TYPE) } else { ("JSON", JSON_TYPE) };
        if !request.body().is_end_stream() && !has_type(request.headers(), wanted) {
            let error = Error::invalid(format!("the body of a request is {what}"))
                .hint(format!("send the header `content-type: {wanted}`"));
            let problem = Problem::from(error);
            return problem
                .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
                .into_response();
        }
    }
    next.run(request).await
}

/// Browsers say which site a request comes from. One of another site is refused, and so is one whose own site is a
/// name that we do not know as ours: anybody may let a name of theirs point at this server.
fn check_origin(headers: &HeaderMap, public_hosts: &[String]) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let foreign = |why: String, hint: &'static str| {
        let error = Error::new(ErrorKind::PermissionDenied, why).hint(hint);
        Err(Problem::from(error).with_status(StatusCode::FORBIDDEN, "foreign_origin"))
    };
    if let Some(site @ ("cross-site" | "same-site")) = text(header::HeaderName::from_static("sec-fetch-site"))
    {
        return foreign(
            format!("this request comes from a page of another site ({site})"),
            "only pages of this server may change something here",
        );
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let host = text(header::HOST).unwrap_or_default();
    let same = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
    if !same {
        return foreign(
            format!("this request comes from a page of {origin:?}"),
            "only pages of this server may change something here",
        );
    }
    if is_own(host_name(host), public_hosts) {
        return Ok(());
    }
    foreign(
        format!("{host:?} is not known as a name of this server"),
        "its operator names it with --public-host",
    )
}

/// The name of an authority, without its port and brackets.
fn host_name(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.split(':').next().unwrap_or_default()
}

/// Whether a host can only be us: no name service is asked for addresses and for `localhost`.
fn is_own(name: &str, public_hosts: &[String]) -> bool {
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || public_hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
}

fn has_type(headers: &HeaderMap, wanted: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(pairs: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        check_origin(&headers, &["farm.example".to_owned()]).is_ok()
    }

    #[test]
    fn programs_and_own_pages_may_and_others_may_not() {
        for fine in [
            &[("host", "anything.example")][..],
            &[("origin", "http://127.0.0.1:8080"), ("host", "127.0.0.1:8080")],
            &[("origin", "http://[::1]:8080"), ("host", "[::1]:8080")],
            &[("origin", "https://farm.example"), ("host", "Farm.example")],
            &[("origin", "http://localhost"), ("host", "localhost"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(allowed(fine), "{fine:?}");
        }
        for foreign in [
            &[("origin", "http://evil.example"), ("host", "127.0.0.1:8080")][..],
            &[("origin", "null"), ("host", "127.0.0.1:8080")],
            &[("origin", "http://127.0.0.1:9"), ("host", "127.0.0.1:8080")],
            // A name of theirs that points at us.
            &[("origin", "http://evil.example:8080"), ("host", "evil.example:8080")],
            &[("sec-fetch-site", "cross-site"), ("host", "127.0.0.1")],
            &[("sec-fetch-site", "same-site"), ("host", "127.0.0.1")],
            &[("origin", "http://127.0.0.1")],
        ] {
            assert!(!allowed(foreign), "{foreign:?}");
        }
    }

    #[test]
    fn json_is_told_by_its_type() {
        let json = |value: &'static str| {
            has_type(&HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]), JSON_TYPE)
        };
        assert!(json("application/json") && json("Application/JSON; charset=utf-8"));
        assert!(!json("text/plain") && !json("application/x-www-form-urlencoded") && !json(""));
    }
}
