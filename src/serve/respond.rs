//! Answers as HTTP.
//!
//! Takes: answers and errors. Gives: responses in FHIR JSON, or the same in FHIR's XML. Never: puts the operator's text of an error into one.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use sluice_fhir::definitions::Definitions;
use sluice_fhir::tree::{self, Tree};
use sluice_fhir::{outcome, xml};

use crate::disclose::Shown;
use crate::error::Error;
use crate::ingest::unit::Prefer;
use crate::record::{Answer, EntryAnswer};

/// A response.
pub type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The media type of FHIR in JSON.
pub const FHIR_JSON: HeaderValue = HeaderValue::from_static("application/fhir+json; charset=utf-8");

/// The media type of FHIR in XML.
const FHIR_XML: HeaderValue = HeaderValue::from_static("application/fhir+xml; charset=utf-8");

/// Bytes of an answer that is written as XML, at most.
const XML_BYTES_MAX: u64 = 64 << 20;

/// The header that names the operation's receipt.
pub const RECEIPT: HeaderName = HeaderName::from_static("x-sluice-receipt");

/// A body that is there whole.
pub fn whole(bytes: impl Into<Bytes>) -> UnsyncBoxBody<Bytes, Infallible> {
    UnsyncBoxBody::new(Full::new(bytes.into()))
}

/// A response with a body.
pub fn reply(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    // What is told of patients stays in no cache on the way.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An OperationOutcome with the status of the error's kind. The error travels along, beside what is sent, for whoever
/// counts and logs.
pub fn failure(error: &Error) -> Reply {
    let face = error.kind().face();
    let mut response = reply(face.status, FHIR_JSON, outcome::to_json(error.issues()));
    response.extensions_mut().insert(error.clone());
    let headers = response.headers_mut();
    if let Some(after) = error.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    if face.status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if face.status == StatusCode::REQUEST_TIMEOUT {
        // RFC 9110 §15.5.9: the connection is of no more use.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The same answer in FHIR's XML. One that is not held whole, or that XML can't carry, stays as it is: RFC 9110 §12.5.1
/// leaves it to the server to pass over `Accept`, and by now what was asked for is done.
pub async fn in_xml(response: Reply) -> Reply {
    let is_json = response.headers().get(header::CONTENT_TYPE) == Some(&FHIR_JSON);
    let bytes = response.body().size_hint().exact().unwrap_or(u64::MAX);
    if !is_json || bytes == 0 || bytes > XML_BYTES_MAX {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = body.collect().await;
    let json = body.to_bytes();
    let text = json.clone();
    // A long one takes a while, in which this thread's other requests would stand still.
    let writing = tokio::task::spawn_blocking(move || {
        let tree = Tree::parse(text, &tree::Limits::default()).ok()?;
        xml::write(tree.root(), &Definitions::r4()).ok()
    });
    let body = match writing.await {
        Ok(Some(written)) => {
            parts.headers.insert(header::CONTENT_TYPE, FHIR_XML);
            Bytes::from(written)
        }
        Ok(None) | Err(_) => json,
    };
    Response::from_parts(parts, whole(body))
}

/// The answer to a unit: `transaction-response` for a transaction, else as FHIR R4 http.html#create and #update say.
pub fn answered(answer: &Answer, base: &str, prefer: Prefer) -> Reply {
    let mut response = match (&answer.entries[..], answer.transaction) {
        ([entry], false) => single(entry, base, prefer),
        _ => reply(StatusCode::OK, FHIR_JSON, transaction(answer)),
    };
    if let Ok(operation) = HeaderValue::from_str(&answer.operation) {
        response.headers_mut().insert(RECEIPT, operation);
    }
    response
}

fn single(entry: &EntryAnswer, base: &str, prefer: Prefer) -> Reply {
    let body = match (prefer, &entry.resource, &entry.outcome) {
        (Prefer::Representation, Some(resource), _) => resource.get().to_owned(),
        (Prefer::Outcome, _, Some(outcome)) => outcome.get().to_owned(),
        _ => String::new(),
    };
    let status = StatusCode::from_u16(entry.status).unwrap_or(StatusCode::OK);
    let mut response = reply(status, FHIR_JSON, body);
    let headers = response.headers_mut();
    let location = format!("{base}/{}", entry.location());
    for (name, value) in [(header::LOCATION, location), (header::ETAG, entry.etag())] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    if let Some(date) = http_date(&entry.last_modified) {
        headers.insert(header::LAST_MODIFIED, date);
    }
    response
}

/// A resource that may be shown (FHIR R4 http.html#read), or 304 where the asker holds this version (RFC 9110 §13.1.2).
pub fn shown(shown: &Shown, if_none_match: Option<&str>, head_only: bool) -> Reply {
    let etag = shown.etag();
    // Weak comparison: W/"1" and "1" are the same.
    let strong = etag.trim_start_matches("W/");
    let held = if_none_match.is_some_and(|wanted| {
        wanted.split(',').map(str::trim).any(|it| it == "*" || it.trim_start_matches("W/") == strong)
    });
    let (status, body) = match (held, head_only) {
        (true, _) => (StatusCode::NOT_MODIFIED, Bytes::new()),
        (false, true) => (StatusCode::OK, Bytes::new()),
        (false, false) => (StatusCode::OK, shown.body().clone()),
    };
    let mut response = reply(status, FHIR_JSON, body);
    let headers = response.headers_mut();
    if head_only && !held {
        // RFC 9110 §8.6: what a GET would have sent.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(shown.body().len()));
    }
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    if let Some(date) = http_date(shown.last_modified()) {
        headers.insert(header::LAST_MODIFIED, date);
    }
    response
}

/// A `history` Bundle of versions of one resource, newest first (FHIR R4 http.html#history). It has no `total`, which
/// would tell of versions that may not be shown.
pub fn history(versions: &[Shown], place: &str, base: &str, older: Option<(u64, u64)>) -> Reply {
    let mut body = b"{\"resourceType\":\"Bundle\",\"type\":\"history\"".to_vec();
    let url = serde_json::Value::from(format!("{base}/{place}"));
    if let Some((count, before)) = older {
        let next = serde_json::json!([{
            "relation": "next",
            "url": format!("{base}/{place}/_history?_count={count}&_before={before}"),
        }]);
        body.extend_from_slice(format!(",\"link\":{next}").as_bytes());
    }
    body.extend_from_slice(b",\"entry\":[");
    for (at, shown) in versions.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        let response = serde_json::json!({
            "status": "200 OK", "etag": shown.etag(), "lastModified": shown.last_modified(),
        });
        let request = serde_json::json!({ "method": "PUT", "url": place });
        body.extend_from_slice(format!("{{\"fullUrl\":{url},\"resource\":").as_bytes());
        body.extend_from_slice(shown.body());
        body.extend_from_slice(format!(",\"request\":{request},\"response\":{response}}}").as_bytes());
    }
    body.extend_from_slice(b"]}");
    reply(StatusCode::OK, FHIR_JSON, body)
}

/// RFC 9110 §5.6.7 of an instant in RFC 3339.
pub fn http_date(instant: &str) -> Option<HeaderValue> {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let at = time::OffsetDateTime::parse(instant, &time::format_description::well_known::Rfc3339).ok()?;
    HeaderValue::from_str(&at.to_offset(time::UtcOffset::UTC).format(FORMAT).ok()?).ok()
}

fn transaction(answer: &Answer) -> Vec<u8> {
    let mut body = b"{\"resourceType\":\"Bundle\",\"type\":\"transaction-response\",\"entry\":[".to_vec();
    for (at, entry) in answer.entries.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend(entry_json(entry, None));
    }
    body.extend_from_slice(b"]}");
    body
}

/// `Bundle.entry` of a response (FHIR R4 http.html#transaction-response). In a batch each unit has a receipt of its
/// own, which an extension names.
pub fn entry_json(entry: &EntryAnswer, receipt: Option<&str>) -> Vec<u8> {
    let status = StatusCode::from_u16(entry.status).unwrap_or(StatusCode::OK);
    let mut response = serde_json::json!({
        "status": status.to_string(),
        "location": entry.location(),
        "etag": entry.etag(),
        "lastModified": entry.last_modified,
    });
    if let Some(outcome) = &entry.outcome {
        response["outcome"] = serde_json::from_str(outcome.get()).unwrap_or_default();
    }
    if let Some(receipt) = receipt {
        response["extension"] = serde_json::json!([{ "url": RECEIPT_EXTENSION, "valueString": receipt }]);
    }
    let mut body = b"{".to_vec();
    if let Some(resource) = &entry.resource {
        body.extend_from_slice(b"\"resource\":");
        body.extend_from_slice(resource.get().as_bytes());
        body.push(b',');
    }
    body.extend_from_slice(format!("\"response\":{response}}}").as_bytes());
    body
}

/// `Bundle.entry` of a response for a unit that was not accepted.
pub fn entry_failure(error: &Error) -> Vec<u8> {
    let status = error.kind().face().status;
    let mut body = format!("{{\"response\":{{\"status\":\"{status}\",\"outcome\":").into_bytes();
    body.extend(outcome::to_json(error.issues()));
    body.extend_from_slice(b"}}");
    body
}

/// The extension of `Bundle.entry.response` that names a unit's receipt.
pub const RECEIPT_EXTENSION: &str = "https://sluice.dev/fhir/StructureDefinition/receipt";
