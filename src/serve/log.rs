//! The log's face: `/log/checkpoint` and `/log/tile/…` (c2sp.org/tlog-tiles).
//!
//! Takes: GET requests. Gives: the newest checkpoint and hash tiles to anyone who monitors, entry tiles to the tenant
//! itself. Never: shows what no durable checkpoint covers; what is shown tells no leaf from a dummy.

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, header, request};
use sluice_merkle::tile::{Resource, TilePath};

use super::fhir::caller;
use super::respond::{Reply, failure, reply};
use crate::anchor::Log;
use crate::error::{Error, Refusal, Result};
use crate::ingest::caller::Callers;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The next checkpoint may be there at any moment.
const FRESH: HeaderValue = HeaderValue::from_static("no-cache");

/// A tile of a given width never changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// What the face needs.
pub struct Face {
    /// The gateway's own log.
    pub log: Arc<Log>,
    /// Who is known by what; nobody on a listener that knows no callers.
    pub callers: Arc<Callers>,
    /// The tenant's institution, which alone may read entries.
    pub tenant: Arc<str>,
}

impl Face {
    /// Answers a request for a path below `/log/`.
    pub async fn answer(&self, request: &request::Parts) -> Reply {
        self.try_answer(request).await.unwrap_or_else(|error| failure(&error))
    }

    async fn try_answer(&self, request: &request::Parts) -> Result<Reply> {
        let path = request.uri.path().strip_prefix("/log/").unwrap_or_default();
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Err(Error::refusal(Refusal::Method, "http.method", "GET"));
        }
        let not_found = || {
            let text = "checkpoint, or the path of a tile that the newest checkpoint covers, under /log/";
            Error::refusal(Refusal::NotFound, "http.path", text)
        };
        if path == "checkpoint" {
            let mut response = reply(StatusCode::OK, TEXT, self.log.head().checkpoint.as_bytes().to_vec());
            response.headers_mut().insert(header::CACHE_CONTROL, FRESH);
            return Ok(response);
        }
        let path = TilePath::parse(path).map_err(|_| not_found())?;
        let public = matches!(path.resource(), Resource::Hashes { .. });
        if !public && caller(&self.callers, &request.extensions, &request.headers)?.institution != self.tenant {
            return Err(Error::refusal(Refusal::Forbidden, "http.caller", "a caller of the log's own institution"));
        }
        let tile = self.log.tile(&path).await?.ok_or_else(not_found)?;
        let mut response = reply(StatusCode::OK, OCTETS, tile);
        if public {
            response.headers_mut().insert(header::CACHE_CONTROL, IMMUTABLE);
        }
        Ok(response)
    }
}
