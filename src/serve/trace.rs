//! What is logged of a request.
//!
//! Takes: a request, and what became of it. Gives: a span with its method, its route, its caller and the trace that it
//! belongs to (W3C Trace Context), and one line at its end. Never: logs a path, a query, a header or a body: an id that the
//! sender chose may name a patient.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, StatusCode};
use tracing::Span;

use crate::error::{Error, Kind};
use crate::ingest::unit::Caller;

/// Bytes of a `tracestate` that is handed on, and its members at most; a member above the third length goes first.
const TRACESTATE_BYTES_MAX: usize = 512;
const TRACESTATE_MEMBERS_MAX: usize = 32;
const TRACESTATE_MEMBER_BYTES_LONG: usize = 128;

/// The span of a request.
pub(super) fn span<B>(request: &Request<B>) -> Span {
    let span = tracing::info_span!(
        "request",
        method = method(request.method()),
        route = route(request.uri().path()),
        caller = tracing::field::Empty,
        trace_id = tracing::field::Empty,
    );
    if let Some(parent) = traceparent(request.headers()) {
        // version "-" trace-id "-" parent-id "-" flags: all of it is hexadecimal.
        span.record("trace_id", parent.get(3..35));
    }
    span
}

/// Notes in the request's span who it is.
pub(super) fn known(caller: &Caller) {
    Span::current().record("caller", &*caller.institution);
}

/// What an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whole {
    /// All of a request.
    Request,
    /// One entry of many.
    Entry,
}

/// Tells the operator why something was not accepted. Refused entries are the sender's: they are told when asked for.
pub(super) fn told(error: &Error, whole: Whole) {
    match (error.kind(), whole) {
        (Kind::Refusal(refusal), Whole::Request) => tracing::info!(?refusal, rule = error.rule(), "refused"),
        (Kind::Refusal(refusal), Whole::Entry) => tracing::debug!(?refusal, rule = error.rule(), "an entry refused"),
        (Kind::Outage(_), _) => tracing::warn!(%error, ?whole, "not served"),
        (Kind::Defect, _) => tracing::error!(%error, ?whole, "a defect of the gateway"),
    }
}

/// Tells the operator that a request was answered.
pub(super) fn answered(status: StatusCode, took: Duration) {
    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(status = status.as_u16(), milliseconds, "answered");
}

/// W3C Trace Context §3.2, version 00; what is malformed is dropped, as it says.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<Arc<str>> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let fields: Vec<&str> = value.split('-').collect();
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let [version, trace, parent, flags] = fields[..] else { return None };
    let well_formed = version == "00" && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    (well_formed && !zero(trace) && !zero(parent)).then(|| Arc::from(value))
}

/// W3C Trace Context §3.3, of a request whose `traceparent` is well formed: the list of all headers of this name, what is
/// empty left out, cut to [`TRACESTATE_BYTES_MAX`] as §3.3.1.5 has it; what is malformed is dropped whole. It is the
/// sender's word to whoever traces, and stands in no log.
pub(super) fn tracestate(headers: &HeaderMap) -> Option<Arc<str>> {
    traceparent(headers)?;
    let mut members: Vec<&str> = Vec::new();
    for value in headers.get_all("tracestate") {
        let given = value.to_str().ok()?.split(',').map(|it| it.trim_matches([' ', '\t']));
        members.extend(given.filter(|it| !it.is_empty()));
    }
    let keys: Option<HashSet<&str>> = members.iter().map(|it| tracestate_key(it)).collect();
    if members.is_empty() || members.len() > TRACESTATE_MEMBERS_MAX || keys?.len() < members.len() {
        return None;
    }
    while members.iter().map(|it| it.len() + 1).sum::<usize>() > TRACESTATE_BYTES_MAX + 1 {
        // Long ones first, then the oldest, which stand at the end.
        let long = members.iter().rposition(|it| it.len() > TRACESTATE_MEMBER_BYTES_LONG);
        members.remove(long.unwrap_or(members.len() - 1));
    }
    Some(members.join(",").into())
}

/// The key of a list member, if it is one: `key "=" value`.
fn tracestate_key(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let lower = |byte: u8| byte.is_ascii_lowercase();
    let word = |text: &str, most: usize, first: fn(u8) -> bool| {
        let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(&byte);
        text.len() <= most && text.bytes().next().is_some_and(first) && text.bytes().skip(1).all(rest)
    };
    let named = match key.split_once('@') {
        None => word(key, 256, lower),
        Some((tenant, system)) => {
            word(tenant, 241, |it| it.is_ascii_lowercase() || it.is_ascii_digit()) && word(system, 14, lower)
        }
    };
    let printable = |byte: u8| (0x20..=0x7e).contains(&byte) && byte != b',' && byte != b'=';
    let valued = (1..=256).contains(&value.len()) && value.bytes().all(printable) && !value.ends_with(' ');
    (named && valued).then_some(key)
}

/// The method, if HTTP knows it: others are the sender's words.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The path's shape, without what stands in it.
fn route(path: &str) -> &'static str {
    let segments: Vec<&str> = path.split('/').filter(|it| !it.is_empty()).take(6).collect();
    match segments[..] {
        ["fhir"] => "/fhir",
        ["fhir", "metadata"] => "/fhir/metadata",
        ["fhir", "$ingest"] => "/fhir/$ingest",
        ["fhir", "$validate"] => "/fhir/$validate",
        ["fhir", _] => "/fhir/[type]",
        ["fhir", _, "$validate"] => "/fhir/[type]/$validate",
        ["fhir", _, _] => "/fhir/[type]/[id]",
        ["fhir", _, _, "$validate"] => "/fhir/[type]/[id]/$validate",
        ["fhir", _, _, "_history"] => "/fhir/[type]/[id]/_history",
        ["fhir", _, _, "_history", _] => "/fhir/[type]/[id]/_history/[vid]",
        ["receipts", ..] => "/receipts/[id]",
        ["log", "checkpoint"] => "/log/checkpoint",
        ["log", "tile", ..] => "/log/tile",
        ["events", ..] => "/events",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_says_nothing_of_what_was_sent() {
        for (path, expected) in [
            ("/fhir/", "/fhir"),
            ("/fhir/Patient/Smith-1970", "/fhir/[type]/[id]"),
            ("/fhir/Smith", "/fhir/[type]"),
            ("/fhir/Patient/a/_history/2", "/fhir/[type]/[id]/_history/[vid]"),
            ("/Smith", "other"),
            ("/fhir/Patient/a/_history/2/Smith", "other"),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
    }

    #[test]
    fn a_malformed_traceparent_is_dropped() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", value.parse().unwrap());
            traceparent(&headers)
        };
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(of(good).as_deref(), Some(good));
        for bad in [
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-Smith-b7ad6b7169203331-01",
            "",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tracestate_is_handed_on_as_far_as_it_is_one() {
        let of = |parent: &str, values: &[&str]| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", parent.parse().unwrap());
            for value in values {
                headers.append("tracestate", value.parse().unwrap());
            }
            tracestate(&headers).map(|it| it.to_string())
        };
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (values, expected) in [
            (&["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"][..], "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
            (&["a=1", "b=2"], "a=1,b=2"),
            (&[" a=1 ,,\tb=2 , "], "a=1,b=2"),
            (&["0tenant@system=a b"], "0tenant@system=a b"),
        ] {
            assert_eq!(of(parent, values).as_deref(), Some(expected));
            assert_eq!(of("00-Smith", values), None, "without a parent there is no state");
        }
        let many = (0..33).map(|it| format!("k{it}=1")).collect::<Vec<_>>().join(",");
        for bad in [
            "",
            " , ",
            "A=1",
            "a",
            "a=",
            "=1",
            "a=1,a=2",
            "a=é",
            "1a=1",
            "a@1=1",
            "a@toolongasystem1=1",
            "a=b=c",
            &many,
        ] {
            assert_eq!(of(parent, &[bad]), None, "{bad}");
        }
        let long = format!("a={}", "1".repeat(200));
        let states: Vec<String> = (0..31).map(|it| format!("k{it}={}", "1".repeat(14))).collect();
        let cut = of(parent, &[&states.join(","), &long]).unwrap();
        assert!(cut.len() <= 512 && cut.starts_with("k0=1") && !cut.contains("a="), "{cut}");
        assert!(cut.split(',').count() > 25, "{cut}");
    }
}
