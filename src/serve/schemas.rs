//! The schemas of events: `/schemas/event/v1`, and `/schemas/[type]` for each type of event.
//!
//! Takes: GET requests of anybody. Gives: JSON Schema. Never: tells which types there are subscribers for.

use http::{HeaderValue, Method, StatusCode, header, request};

use super::respond::{Reply, failure, reply};
use crate::error::{Error, Refusal, Result};
use crate::route::event;

const SCHEMA_JSON: HeaderValue = HeaderValue::from_static("application/schema+json");

/// Within a version members are only added.
const FOR_AN_HOUR: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// Answers a request for a path below `/schemas/`.
pub fn answer(request: &request::Parts) -> Reply {
    try_answer(request).unwrap_or_else(|error| failure(&error))
}

fn try_answer(request: &request::Parts) -> Result<Reply> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(Error::refusal(Refusal::Method, "http.method", "GET"));
    }
    let schema = match request.uri.path().strip_prefix("/schemas/").unwrap_or_default() {
        "event/v1" => event::SCHEMA.as_bytes().to_vec(),
        kind => {
            let text = "event/v1, or the type of an event, under /schemas/";
            let not_found = || Error::refusal(Refusal::NotFound, "http.path", text);
            event::schema(kind)?.ok_or_else(not_found)?
        }
    };
    let mut response = reply(StatusCode::OK, SCHEMA_JSON, schema);
    response.headers_mut().insert(header::CACHE_CONTROL, FOR_AN_HOUR);
    Ok(response)
}
