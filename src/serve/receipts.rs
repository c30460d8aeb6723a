//! The face for receipts: `/receipts/[operation]`, `/receipts/[operation]/[number]` and `/receipts/[stream]?from=[line]`.
//!
//! Takes: GET requests of the institution that sent the operation. Gives: what proves it, as JSON, or one resource's as
//! a C2SP tlog-proof where `Accept` asks for text/plain. Never: tells another institution that an operation exists.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request};

use super::fhir::caller;
use super::respond::{Reply, failure, reply};
use crate::anchor::Log;
use crate::error::{Error, Refusal, Result};
use crate::gateway::Gateway;
use crate::ingest::caller::Callers;
use crate::record::stream::StreamId;
use crate::stage::OperationId;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What the face needs.
pub struct Face {
    /// The tenant's gateway.
    pub gateway: Arc<Gateway>,
    /// Its log.
    pub log: Arc<Log>,
    /// Who is known by what.
    pub callers: Arc<Callers>,
}

impl Face {
    /// Answers a request for a path below `/receipts/`.
    pub async fn answer(&self, request: &request::Parts) -> Reply {
        self.try_answer(request).await.unwrap_or_else(|error| failure(&error))
    }

    async fn try_answer(&self, request: &request::Parts) -> Result<Reply> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Err(Error::refusal(Refusal::Method, "http.method", "GET"));
        }
        let caller = caller(&self.callers, &request.extensions, &request.headers)?;
        let not_found = || {
            let text = "a stream that the caller sent, or an operation, alone or with the number of one of its resources, \
                        from 0";
            Error::refusal(Refusal::NotFound, "http.path", text)
        };
        let path = request.uri.path().strip_prefix("/receipts/").unwrap_or_default();
        let (id, number) = match path.split_once('/') {
            None => (path, None),
            Some((id, number)) => (id, Some(number.parse::<usize>().map_err(|_| not_found())?)),
        };
        if let (Some(id), None) = (StreamId::parse(id), number) {
            return self.stream(id, &caller.institution, request).await?.ok_or_else(not_found);
        }
        let id = OperationId::parse(id).ok_or_else(not_found)?;
        let receipt = self.log.operation(&self.gateway.recorder, id, &caller.institution).await?;
        let mut receipt = receipt.ok_or_else(not_found)?;
        if let Some(number) = number {
            let one = receipt.resources.get(number).cloned().ok_or_else(not_found)?;
            receipt.resources = vec![one];
        }
        if !as_text(&request.headers) {
            let body = serde_json::to_vec(&receipt).map_err(|_| Error::defect("a receipt can't be written"))?;
            return Ok(reply(StatusCode::OK, JSON, body));
        }
        let [resource] = &receipt.resources[..] else {
            let text = "the number of one resource after the operation, since a tlog-proof is about one leaf";
            return Err(Error::refusal(Refusal::NotAcceptable, "http.accept", text));
        };
        let Some(proof) = resource.tlog_proof()? else {
            // Accepted, and not in the log yet: one beat more.
            let mut response = reply(StatusCode::ACCEPTED, TEXT, "");
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return Ok(response);
        };
        Ok(reply(StatusCode::OK, TEXT, proof))
    }

    /// A page of a stream's receipt; none if there is no such stream of this institution.
    async fn stream(&self, id: StreamId, institution: &str, request: &request::Parts) -> Result<Option<Reply>> {
        let from = match request.uri.query() {
            None => 0,
            Some(query) => query.strip_prefix("from=").and_then(|it| it.parse().ok()).ok_or_else(|| {
                Error::refusal(Refusal::Malformed, "http.query", "from=LINE, the number of a line, from 0")
            })?,
        };
        if as_text(&request.headers) {
            let text = "JSON, or the receipt of one of the stream's operations, since a tlog-proof is about one leaf";
            return Err(Error::refusal(Refusal::NotAcceptable, "http.accept", text));
        }
        let Some(receipt) = self.log.stream(&self.gateway.recorder, id, institution, from).await? else {
            return Ok(None);
        };
        let body = serde_json::to_vec(&receipt).map_err(|_| Error::defect("a receipt can't be written"))?;
        Ok(Some(reply(StatusCode::OK, JSON, body)))
    }
}

/// Whether text/plain is named before any form of JSON.
fn as_text(headers: &HeaderMap) -> bool {
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok());
    let mut essences = ranges.flat_map(|it| it.split(',')).map(|it| it.split(';').next().unwrap_or("").trim());
    essences.next().is_some_and(|first| first.eq_ignore_ascii_case("text/plain"))
}
