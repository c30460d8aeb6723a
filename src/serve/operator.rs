//! What an operator does on the admin port: who is one, and what one does about parked events, `/events/parked`.
//!
//! Takes: requests of an operator, who shows a token. Gives: which events are parked, and their return or their end. Never:
//! shows anything of a record; lets anything be seen or changed where the settings name no operator's token.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::respond::{Reply, failure, reply};
use crate::error::{Error, Refusal, Result};
use crate::gateway::Gateway;
use crate::publish::parked;

/// The path, and what leads those below it.
pub const PATH: &str = "/events/parked";

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Who may decide on what is parked: one gate before every such path of the admin port.
pub struct Operator {
    /// SHA-256 of the operator's token; without it there is no operator.
    pub token_sha256: Option<[u8; 32]>,
}

impl Operator {
    /// Holds that an operator asks.
    ///
    /// # Errors
    /// 401 without the token; 404 where the settings name none.
    pub fn asks(&self, headers: &HeaderMap) -> Result<()> {
        match &self.token_sha256 {
            Some(hash) if shows(headers, hash) => Ok(()),
            Some(_) => {
                let text = "the operator's bearer token: see listen.operator_token_sha256_file";
                Err(Error::refusal(Refusal::Unauthenticated, "http.operator", text))
            }
            None => {
                let text =
                    "listen.operator_token_sha256_file in the settings, without which nobody decides on what is parked";
                Err(Error::refusal(Refusal::NotFound, "http.operator", text))
            }
        }
    }
}

/// What the face needs.
pub struct Face {
    /// The tenant's gateway.
    pub gateway: Arc<Gateway>,
}

impl Face {
    /// Answers an operator's request for [`PATH`], or a path below it.
    pub async fn answer(&self, request: &Request<Incoming>) -> Reply {
        let rest = request.uri().path().strip_prefix(PATH).unwrap_or_default();
        self.parked(request.method(), rest, request.uri().query()).await.unwrap_or_else(|it| failure(&it))
    }

    /// `GET /events/parked?after=KEY`, `POST /events/parked/retry`, `POST /events/parked/[key]/retry`, `POST /events/parked/[key]/discard`.
    async fn parked(&self, method: &Method, rest: &str, query: Option<&str>) -> Result<Reply> {
        let recorder = &self.gateway.recorder;
        let words: Vec<&str> = rest.split('/').skip(1).collect();
        let done = match (method.as_str(), &words[..]) {
            ("GET", []) => {
                let after = query.and_then(|it| it.strip_prefix("after="));
                let after = match after.map(key) {
                    Some(None) => return Ok(reply(StatusCode::BAD_REQUEST, TEXT, "after=KEY of a parked event\n")),
                    after => after.flatten(),
                };
                let list = parked::list(after, recorder).await?;
                let next = list.last().filter(|_| list.len() == parked::LIST_MAX).map(|it| it.key.clone());
                return Ok(reply(StatusCode::OK, JSON, json!({"parked": list, "next": next}).to_string()));
            }
            ("POST", ["retry"]) => {
                let (mut retried, mut after) = (0, None);
                loop {
                    let list = parked::list(after, recorder).await?;
                    let keys: Vec<Bytes> = list.iter().filter_map(|it| key(&it.key)).collect();
                    let Some(last) = keys.last() else { break };
                    after = Some(last.clone());
                    for key in &keys {
                        retried += usize::from(parked::retry(key, recorder).await?);
                    }
                }
                tracing::info!(retried, "an operator let parked events be tried again");
                return Ok(reply(StatusCode::OK, JSON, json!({"retried": retried}).to_string()));
            }
            ("POST", [named, "retry"]) => match key(named) {
                Some(key) => parked::retry(&key, recorder).await?,
                None => false,
            },
            ("POST", [named, "discard"]) => match key(named) {
                Some(key) => parked::discard(&key, recorder).await?,
                None => false,
            },
            _ => false,
        };
        if !done {
            return Ok(not_found());
        }
        tracing::info!(action = words.last(), "an operator dealt with a parked event");
        Ok(reply(StatusCode::NO_CONTENT, TEXT, ""))
    }
}

fn not_found() -> Reply {
    reply(StatusCode::NOT_FOUND, TEXT, "not found\n")
}

/// Whether the bearer token is the one of this hash. Compared by hash, so the time that it takes tells nothing of it.
fn shows(headers: &HeaderMap, hash: &[u8; 32]) -> bool {
    let shown = headers.get(header::AUTHORIZATION).and_then(|it| it.as_bytes().split_at_checked(7));
    shown.is_some_and(|(scheme, token)| {
        scheme.eq_ignore_ascii_case(b"bearer ") && Sha256::digest(token).as_slice() == hash
    })
}

/// The key of a row, from hex.
fn key(text: &str) -> Option<Bytes> {
    let key = HEXLOWER.decode(text.as_bytes()).ok()?;
    (1..=64).contains(&key.len()).then(|| key.into())
}
