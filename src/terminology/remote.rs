//! A FHIR terminology server: `ValueSet/$validate-code`, over HTTP.
//!
//! Takes: a question. Gives: what the server answers, or has answered lately. Each request has a time, all of them a number;
//! what was answered is kept, within bounds; a server that fails is left alone for a while. Never: asks about anything but a
//! code and a value set: no resource, no patient, no caller goes out. Never: repeats by itself; who asks does.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::sync::Semaphore;

use super::breaker::Breaker;
use super::cache::Cache;
use super::{Membership, Question, Terminology, Unavailable, parameters};
use crate::config;
use crate::observe::{Asked, Observer};
use crate::wire::{self, WireError};

const FHIR_JSON: &str = "application/fhir+json";

/// A client of one terminology server.
pub struct Remote {
    settings: config::Terminology,
    operation: String,
    http: wire::Http,
    places: Semaphore,
    cache: Cache,
    breaker: Breaker,
    observer: Arc<Observer>,
}

impl Remote {
    /// A client by the settings; connects at the first question.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn new(settings: &config::Terminology, observer: Arc<Observer>) -> Result<Self, WireError> {
        let http = wire::http(wire::Peer {
            section: "terminology",
            url: &settings.url,
            ca_file: settings.ca_file.as_deref(),
            client: settings.client.as_ref(),
            connect_timeout: settings.connect_timeout,
            idle_max: settings.concurrency_max,
        })?;
        Ok(Self {
            operation: format!("{}/ValueSet/$validate-code", settings.url.to_string().trim_end_matches('/')),
            http,
            places: Semaphore::new(settings.concurrency_max),
            cache: Cache::new(settings.cache_entries_max, settings.cache_for),
            breaker: Breaker::new(settings.failures_max, settings.pause),
            settings: settings.clone(),
            observer,
        })
    }

    async fn ask(&self, question: &Question) -> Result<Membership, Unavailable> {
        let known = self.cache.get(question, Instant::now());
        if let Some(answer) = known {
            self.observer.metrics().asked(Asked::Cached);
            return Ok(answer);
        }
        let unavailable = |why| Unavailable { why, retry_after: self.settings.pause };
        // Whoever finds all places taken says nothing of the server.
        let Ok(Ok(_place)) = tokio::time::timeout(self.settings.timeout, self.places.acquire()).await else {
            self.observer.metrics().asked(Asked::Refrained);
            return Err(unavailable("too many questions to the terminology server are under way"));
        };
        let passage = self.breaker.pass(Instant::now()).map_err(|retry_after| {
            self.observer.metrics().asked(Asked::Refrained);
            Unavailable { why: "the terminology server has failed, and is left alone for a while", retry_after }
        })?;
        let sent = tokio::time::timeout(self.settings.timeout, self.send(question)).await;
        match sent.unwrap_or(Err("the terminology server did not answer in time")) {
            Ok(answer) => {
                passage.answered();
                self.observer.metrics().asked(Asked::Answered);
                self.observer.note("terminology", None);
                // What it can't tell may be loaded soon.
                let now = Instant::now();
                let age = self.settings.cache_for.saturating_sub(self.settings.pause);
                let since = if answer == Membership::Unknown { now.checked_sub(age).unwrap_or(now) } else { now };
                self.cache.insert(question.clone(), answer, since);
                Ok(answer)
            }
            Err(why) => {
                passage.failed();
                // As often as the breaker lets questions through.
                tracing::warn!(why, "a question to the terminology server has no answer");
                self.observer.metrics().asked(Asked::Failed);
                self.observer.note("terminology", Some(why.to_owned()));
                Err(unavailable(why))
            }
        }
    }

    async fn send(&self, question: &Question) -> Result<Membership, &'static str> {
        let mut request = http::Request::builder()
            .method(Method::POST)
            .uri(&self.operation)
            .header(header::ACCEPT, FHIR_JSON)
            .header(header::CONTENT_TYPE, FHIR_JSON);
        if let Some(file) = &self.settings.token_file {
            // Read each time, so that a rotated token is used at once.
            let token = file.read().map_err(|_| "terminology.token_file can't be read")?;
            let mut value = header::HeaderValue::from_bytes(&[b"Bearer ", token.expose()].concat())
                .map_err(|_| "terminology.token_file holds no token")?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Full::new(parameters::question(question)));
        let request = request.map_err(|_| "a question can't be put into HTTP")?;
        let response = self.http.request(request).await.map_err(|error| {
            if error.is_connect() { "no connection to the terminology server" } else { "the connection broke" }
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, parameters::BYTES_MAX).collect().await;
        let body: Bytes = body.map_err(|_| "the terminology server's answer broke off, or is too long")?.to_bytes();
        match head.status {
            StatusCode::OK => parameters::answer(body).ok_or("the terminology server's answer can't be read"),
            // It has the operation and can't tell: the value set is not there, or can't be expanded.
            // Somebody else on the way may say the same, and knows nothing.
            StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST
                if parameters::is_outcome(body.clone()) =>
            {
                Ok(Membership::Unknown)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err("the terminology server does not let us ask"),
            _ => Err("the terminology server answers with an error"),
        }
    }
}

impl Terminology for Remote {
    fn member<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Result<Membership, Unavailable>> {
        Box::pin(self.ask(question))
    }
}
