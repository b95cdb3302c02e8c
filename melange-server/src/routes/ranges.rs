//! Ranges of bytes: what a client asks for, and how it is told what it gets.

use std::ops::Range;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use melange_remote_sdk::error::Error;

use crate::problem::Problem;

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of it: several ranges, or what is no range of bytes, may be ignored.
    Everything,
    /// Some bytes.
    Part(Range<u64>),
    /// Bytes that are not there.
    Nothing,
}

/// What a client asks for of so many bytes, which have this entity tag.
pub(super) fn asked(headers: &HeaderMap, tag: &str, size: u64) -> Asked {
    // A range of another version would not fit to the part that the client has.
    let same = headers.get(header::IF_RANGE).is_none_or(|value| value.as_bytes() == tag.as_bytes());
    let asked = headers.get(header::RANGE).filter(|_| same).and_then(|value| value.to_str().ok());
    asked.map_or(Asked::Everything, |text| parse_range(text, size))
}

/// What the text of a `Range` header asks for, of so many bytes.
pub(super) fn parse_range(text: &str, size: u64) -> Asked {
    let Some((start, end)) = text.strip_prefix("bytes=").and_then(|text| text.split_once('-')) else {
        return Asked::Everything;
    };
    let (start, end) = (start.trim(), end.trim());
    let range = match (start.parse::<u64>(), end.parse::<u64>()) {
        (Ok(start), Ok(end)) if start <= end => start..end.saturating_add(1).min(size),
        (Ok(start), Err(_)) if end.is_empty() => start..size,
        (Err(_), Ok(last)) if start.is_empty() => size.saturating_sub(last)..size,
        _ => return Asked::Everything,
    };
    if range.is_empty() { Asked::Nothing } else { Asked::Part(range) }
}

/// Whether the client says that it has what has this entity tag.
pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let told = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut each = told.flat_map(|list| list.split(',')).map(str::trim);
    // What was compressed on its way has a weak one.
    each.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// Tells that the client gets the bytes `sent` of so many; `is_part` when it asked for a range.
pub(super) fn tell(response: &mut Response, sent: Range<u64>, is_part: bool, size: u64) {
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(sent.end.saturating_sub(sent.start)));
    if is_part {
        let told = format!("bytes {}-{}/{size}", sent.start, sent.end.saturating_sub(1));
        if let Ok(told) = HeaderValue::from_str(&told) {
            headers.insert(header::CONTENT_RANGE, told);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
}

/// The refusal of a range that lies outside.
pub(super) fn not_satisfiable(what: &str, size: u64) -> Response {
    let error = Error::invalid(format!("the range lies outside {what}")).hint(format!("it has {size} bytes"));
    let problem = Problem::from(error);
    let problem = problem.with_status(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable");
    let mut response = problem.into_response();
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_alone_and_among_others() {
        let known = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_NONE_MATCH, HeaderValue::from_static(value));
            }
            is_known(&headers, "\"ab\"")
        };
        assert!(
            known(&["\"ab\""]) && known(&["\"x\", W/\"ab\""]) && known(&["\"x\"", "\"ab\""]) && known(&["*"])
        );
        assert!(!known(&[]) && !known(&["\"a\", ab"]) && !known(&["\"abc\""]));
    }

    #[test]
    fn ranges_are_read_as_http_says() {
        for (text, expected) in [
            ("bytes=0-3", Asked::Part(0..4)),
            ("bytes=3-", Asked::Part(3..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("bytes=8-99", Asked::Part(8..10)),
            ("bytes=10-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=3-1", Asked::Everything),
            ("bytes=0-1,3-4", Asked::Everything),
            ("lines=1-2", Asked::Everything),
        ] {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
    }
}
