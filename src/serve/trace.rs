//! What is logged of a request.
//!
//! Takes: a request, and what became of it. Gives: a span with its method, its route, its caller and the trace that it
//! belongs to (W3C Trace Context), and one line at its end. Never: logs a path, a query, a header or a body: an id that the
//! sender chose may name a patient.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, StatusCode};
use tracing::Span;

use crate::error::{Error, Kind};
use crate::ingest::unit::Caller;

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
        ["fhir", _] => "/fhir/[type]",
        ["fhir", _, _] => "/fhir/[type]/[id]",
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
}
