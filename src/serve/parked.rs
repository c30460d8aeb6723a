//! The face for parked units, on the admin port: `/parked` and `/parked/[operation]/[ruling]`.
//!
//! Takes: GET for the list; POST of `look`, `send`, `drop` or `found?at=[type]/[id]…` for what an operator says of one.
//! Gives: JSON: operations, times, reasons, numbers of resources by type. Never: anything of a resource; takes a POST that
//! a web page could have sent by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;
use time::OffsetDateTime;

use super::respond::{Reply, failure, reply};
use crate::error::{Error, Refusal, Result};
use crate::forward::Found;
use crate::gateway::{Fate, Gateway, Ruling};
use crate::record::instant;
use crate::stage::OperationId;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The path, and what leads those below it.
pub const PATH: &str = "/parked";

/// Units listed at a time.
const LISTED_MAX: usize = 1_000;

/// What the face needs.
pub struct Face {
    /// The tenant's gateway.
    pub gateway: Arc<Gateway>,
}

#[derive(Serialize)]
struct List {
    parked: Vec<Unit>,
    /// Whether there are more than are listed.
    more: bool,
}

#[derive(Serialize)]
struct Unit {
    operation: String,
    since: String,
    why: String,
    sender: Option<String>,
    resources: BTreeMap<String, usize>,
}

#[derive(Serialize)]
struct Done {
    operation: String,
    outcome: &'static str,
}

impl Face {
    /// Answers an operator's request for `/parked` or a path below it.
    pub async fn answer(&self, request: &Request<Incoming>) -> Reply {
        self.try_answer(request).await.unwrap_or_else(|error| failure(&error))
    }

    async fn try_answer(&self, request: &Request<Incoming>) -> Result<Reply> {
        let mut parts = request.uri().path().trim_start_matches(PATH).trim_matches('/').split('/');
        match (request.method(), parts.next(), parts.next(), parts.next()) {
            (&Method::GET, Some(""), None, None) => self.list().await,
            (&Method::POST, Some(operation), Some(ruling), None) => {
                // A page in a browser can't send this type to another origin without asking first.
                if request.headers().get(header::CONTENT_TYPE) != Some(&JSON) {
                    let text = "Content-Type: application/json, also without a body";
                    return Err(Error::refusal(Refusal::UnsupportedMedia, "http.content-type", text));
                }
                let operation = OperationId::parse(operation).ok_or_else(not_found)?;
                tracing::warn!(%operation, ruling, "an operator decides on a parked unit");
                let ruling = ruling_of(ruling, request.uri().query().unwrap_or_default())?;
                self.decide(operation, ruling).await
            }
            (_, Some(""), None, None) => Err(Error::refusal(Refusal::Method, "http.method", "GET")),
            (_, Some(_), Some(_), None) => Err(Error::refusal(Refusal::Method, "http.method", "POST")),
            _ => Err(not_found()),
        }
    }

    async fn list(&self) -> Result<Reply> {
        let (parked, more) = self.gateway.parked(LISTED_MAX).await?;
        let parked = parked.into_iter().map(|it| Unit {
            operation: it.operation.to_string(),
            since: OffsetDateTime::from_unix_timestamp_nanos(i128::from(it.since_micros) * 1000)
                .map_or_else(|_| String::new(), instant),
            why: it.why,
            sender: it.sender,
            resources: it.resources,
        });
        json(&List { parked: parked.collect(), more })
    }

    async fn decide(&self, operation: OperationId, ruling: Ruling) -> Result<Reply> {
        let gateway = Arc::clone(&self.gateway);
        // A task of its own: what was begun is ended even if the operator hangs up.
        let decided = tokio::spawn(async move { gateway.decide(operation, ruling).await }).await;
        let outcome = match decided.map_err(|_| Error::defect("a ruling's task ended early"))?? {
            Fate::Recorded => "recorded",
            Fate::Refused => "dropped",
            Fate::Open => "open",
        };
        json(&Done { operation: operation.to_string(), outcome })
    }
}

fn ruling_of(name: &str, query: &str) -> Result<Ruling> {
    match name {
        "drop" => Ok(Ruling::Drop),
        "look" => Ok(Ruling::Look),
        "send" => Ok(Ruling::Send),
        "found" => {
            let places = query.split('&').filter(|it| !it.is_empty());
            places.map(place).collect::<Option<Vec<Found>>>().map(Ruling::Found).ok_or_else(|| {
                let text = "at=[type]/[id] or at=[type]/[id]/_history/[version] for each resource, in the unit's order";
                Error::refusal(Refusal::Malformed, "parked.places", text)
            })
        }
        _ => Err(not_found()),
    }
}

fn place(text: &str) -> Option<Found> {
    let mut parts = text.strip_prefix("at=")?.split('/');
    let (resource_type, id) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let version = match (parts.next(), parts.next()) {
        (None, None) => None,
        (Some("_history"), Some(version)) => Some(version.to_owned()),
        _ => return None,
    };
    parts.next().is_none().then_some(Found { resource_type, id, version })
}

fn not_found() -> Error {
    let text = "/parked, or /parked/[operation]/ and one of look, send, drop, found";
    Error::refusal(Refusal::NotFound, "http.path", text)
}

fn json(value: &impl Serialize) -> Result<Reply> {
    let body = serde_json::to_vec(value).map_err(|_| Error::defect("a list can't be written"))?;
    Ok(reply(StatusCode::OK, JSON, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_whole_or_not_at_all() {
        let found = |resource_type: &str, id: &str, version: Option<&str>| Found {
            resource_type: resource_type.to_owned(),
            id: id.to_owned(),
            version: version.map(str::to_owned),
        };
        assert_eq!(place("at=Patient/1"), Some(found("Patient", "1", None)));
        assert_eq!(place("at=Patient/1/_history/2"), Some(found("Patient", "1", Some("2"))));
        for bad in ["Patient/1", "at=Patient", "at=Patient/1/2", "at=Patient/1/_history", "at=Patient/1/_history/2/3"] {
            assert_eq!(place(bad), None, "{bad}");
        }
    }
}
