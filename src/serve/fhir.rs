//! The FHIR face: `/fhir`.
//!
//! Takes: HTTP requests with what is known of their peer. Gives: responses as FHIR R4 http.html says. Never: decides
//! anything that a stage decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use sluice_fhir::outcome;
use sluice_fhir::reference::is_id;
use tracing::Instrument as _;

use super::respond::{self, FHIR_JSON, Reply, answered, failure, reply};
use super::{stream, trace, validate};
use crate::check;
use crate::config::Right;
use crate::disclose::{Question, Shown};
use crate::error::Peer::Capacity;
use crate::error::{Error, Kind, Refusal, Result};
use crate::gateway::Gateway;
use crate::ingest::asked::Target;
use crate::ingest::body;
use crate::ingest::caller::{Callers, Peer};
use crate::ingest::entry::etag;
use crate::ingest::unit::{Caller, Context, Interaction, Prefer, Received};
use crate::ingest::units::{self, Format, Units};
use crate::ingest::window::{Entered, Window};
use crate::store::spool::{Spool, Spools};

/// What the face needs.
pub struct Face {
    /// The tenant's gateway.
    pub gateway: Arc<Gateway>,
    /// Who is known by what.
    pub callers: Arc<Callers>,
    /// What bounds bodies.
    pub body: body::Limits,
    /// What bounds units.
    pub units: units::Limits,
    /// What bounds all Bundles together that are one unit, while they are worked on.
    pub whole: Window,
    /// What bounds the entries of all streams together, while they are worked on.
    pub entries: Window,
    /// Where bodies and answers wait.
    pub spools: Spools,
    /// `[base]`, without a slash at its end.
    pub base: Arc<str>,
    /// The CapabilityStatement.
    pub metadata: bytes::Bytes,
    /// Time for one unit, from its last byte to its answer.
    pub unit_timeout: Duration,
}

/// What a request asks for.
enum Ask {
    Metadata,
    Bundle,
    Lines,
    Create(String),
    Update(String, String),
    Read(String, String, Option<u64>),
    History(String, String),
    /// Type and id, where the URL has them.
    Validate(Option<String>, Option<String>),
}

impl Face {
    /// Answers a request.
    pub async fn answer(&self, request: Request<Incoming>) -> Reply {
        // A HEAD has no body; what is told of it is told of the JSON.
        let in_xml = request.method() != Method::HEAD && wants_xml(request.headers());
        let reply = self.try_answer(request).await.unwrap_or_else(|error| failure(&error));
        if in_xml { respond::in_xml(reply).await } else { reply }
    }

    async fn try_answer(&self, request: Request<Incoming>) -> Result<Reply> {
        let (parts, body) = request.into_parts();
        let ask = ask(&parts.method, parts.uri.path())?;
        acceptable(&parts.headers)?;
        if matches!(ask, Ask::Metadata) {
            // FHIR R4 http.html#capabilities: open to all, so that a client can learn how to authenticate.
            return Ok(reply(StatusCode::OK, FHIR_JSON, self.metadata.clone()));
        }
        let caller = caller(&self.callers, &parts.extensions, &parts.headers)?;
        if let Ask::Read(resource_type, id, version) = ask {
            let asked = Instant::now();
            return self.read(Question { caller, resource_type, id, version, asked }, &parts).await;
        }
        if let Ask::History(resource_type, id) = ask {
            let asked = Instant::now();
            return self.history(Question { caller, resource_type, id, version: None, asked }, &parts.uri).await;
        }
        // Before anything is read: whether something matches, or what is wrong with it, is not for everyone to learn.
        match &ask {
            Ask::Create(resource_type) | Ask::Update(resource_type, _) => {
                caller.needs(Right::to_send(resource_type))?;
            }
            _ => caller.sends()?,
        }
        let prefer = prefer(&parts.headers);
        let lines = matches!(ask, Ask::Lines);
        let format = media_type(&parts.headers, lines)?;
        if let Ask::Validate(resource_type, id) = ask {
            let target = validate::target(resource_type, id, &parts.uri)?;
            let spool = body::read(&parts.headers, body, self.body, &self.spools).await?;
            return self.validate(spool, format, target, caller).await;
        }
        let idempotency_key = idempotency_key(&parts.headers)?;
        let if_none_exist = text(&parts.headers, "if-none-exist")?;
        let if_match = if_match(&parts.headers)?;
        let spool = body::read(&parts.headers, body, self.body, &self.spools).await?;
        let sender = Arc::clone(&caller.institution);
        let context = Context {
            caller,
            received_at: time::OffsetDateTime::now_utc(),
            idempotency_key,
            prefer,
            traceparent: trace::traceparent(&parts.headers),
            tracestate: trace::tracestate(&parts.headers),
            labels: None,
        };
        let entered = self.enter(&spool, lines).await?;
        let limits = self.units;
        let read = move || match ask {
            Ask::Bundle => units::bundle(spool, format, context, limits),
            Ask::Lines => units::lines(spool, context, limits).map(Box::new).map(Units::Many),
            Ask::Create(resource_type) => {
                let interaction = Interaction::Create { if_none_exist };
                units::resource(spool, format, &resource_type, interaction, context, &limits)
                    .map(Box::new)
                    .map(Units::One)
            }
            Ask::Update(resource_type, id) => {
                let interaction = Interaction::Update { id, if_match };
                units::resource(spool, format, &resource_type, interaction, context, &limits)
                    .map(Box::new)
                    .map(Units::One)
            }
            Ask::Metadata | Ask::Read(..) | Ask::History(..) | Ask::Validate(..) => {
                Err(Error::defect("a question has no units"))
            }
        };
        // A long one takes seconds, in which this thread's other requests would stand still.
        let units =
            tokio::task::spawn_blocking(read).await.map_err(|_| Error::defect("a body's reader ended early"))?;
        match units? {
            Units::One(unit) => {
                let gateway = Arc::clone(&self.gateway);
                // A task of its own: a unit once begun is ended even if the sender hangs up.
                let admit = tower::service_fn(move |(unit, entered): (Received, Entered)| {
                    let gateway = Arc::clone(&gateway);
                    let admitting = async move {
                        let admitted = gateway.admit(unit).await;
                        drop(entered);
                        admitted
                    };
                    tokio::spawn(admitting.in_current_span())
                });
                let timed = tower::timeout::Timeout::new(admit, self.unit_timeout);
                let answer = match tower::ServiceExt::oneshot(timed, (*unit, entered)).await {
                    Ok(answer) => answer?,
                    Err(error) if error.is::<tower::timeout::error::Elapsed>() => {
                        let text = "a unit took longer than the limit";
                        return Err(Error::outage(Capacity, Duration::from_secs(5), text));
                    }
                    Err(_) => return Err(Error::defect("a unit's task ended early")),
                };
                Ok(answered(&answer, &self.base, prefer))
            }
            Units::Many(stream) => {
                // It is known to be well formed; from here on each of its entries asks for its own room. What is XML is
                // held whole until its last entry is answered.
                let _held = (format == Format::Xml).then_some(entered);
                let summary = lines.then_some(&*sender);
                stream::answer(Arc::clone(&self.gateway), stream, &self.spools, &self.entries, summary).await
            }
        }
    }

    /// FHIR R4 resource-operation-validate.html: 200 whatever is found, since that is what was asked.
    async fn validate(&self, spool: Spool, format: Format, target: Target, caller: Caller) -> Result<Reply> {
        let entered = self.enter(&spool, false).await?;
        let (rulebook, limits) = (&self.gateway.rules, self.units);
        let (rules, decides) = (rulebook.current(), rulebook.terminology().is_some());
        let sender = Arc::clone(&caller.institution);
        let held = Arc::clone(&rules);
        let finding = tokio::task::spawn_blocking(move || {
            let found = validate::found(spool, format, target, &limits, &caller, &held, decides);
            drop(entered);
            found
        });
        let (mut issues, report) = finding.await.map_err(|_| Error::defect("a validation ended early"))??;
        let decided = check::decided(report, &rules, rulebook.terminology(), Some(&sender));
        let decided = tokio::time::timeout(self.unit_timeout, decided).await;
        let late = |_| Error::outage(Capacity, Duration::from_secs(5), "a validation took longer than the limit");
        issues.extend(decided.map_err(late)??);
        Ok(reply(StatusCode::OK, FHIR_JSON, outcome::to_json(&issues)))
    }

    /// Waits until there is room for a body that may have to be held whole.
    async fn enter(&self, spool: &Spool, lines: bool) -> Result<Entered> {
        let bytes = usize::try_from(spool.len()).unwrap_or(usize::MAX);
        // What is longer is a stream, of which one entry is held at a time, or is refused.
        let held = if lines || bytes > self.units.transaction_bytes_max { 0 } else { bytes };
        let entering = tokio::time::timeout(self.unit_timeout, self.whole.enter(held)).await;
        entering.map_err(|_| Error::outage(Capacity, Duration::from_secs(5), "too much is under way"))?
    }

    /// FHIR R4 http.html#read and #vread.
    async fn read(&self, question: Question, parts: &http::request::Parts) -> Result<Reply> {
        let shown = self.ask(question).await?;
        let wanted = text(&parts.headers, "if-none-match")?;
        Ok(respond::shown(&shown, wanted.as_deref(), parts.method == Method::HEAD))
    }

    /// FHIR R4 http.html#history of one resource. Each version is a question of its own, decided and audited like any;
    /// one that may not be shown is passed over, as if it had never been.
    async fn history(&self, question: Question, uri: &http::Uri) -> Result<Reply> {
        let count = number(uri.query(), "_count").map_or(HISTORY_MAX, |it| it.clamp(1, HISTORY_MAX));
        let mut versions = Vec::new();
        // What may not be seen as it stands has no history either.
        let newest = self.ask(question.clone()).await?;
        let mut version = newest.version();
        match number(uri.query(), "_before") {
            Some(before) => version = before.min(version + 1),
            None => versions.push(newest),
        }
        while versions.len() as u64 != count && version > 1 {
            version -= 1;
            match self.ask(Question { version: Some(version), ..question.clone() }).await {
                Ok(shown) => versions.push(shown),
                Err(error) if error.kind() == Kind::Refusal(Refusal::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        let place = format!("{}/{}", question.resource_type, question.id);
        Ok(respond::history(&versions, &place, &self.base, (version > 1).then_some((count, version))))
    }

    async fn ask(&self, question: Question) -> Result<Shown> {
        let disclosed = tokio::time::timeout(self.unit_timeout, self.gateway.disclose(question)).await;
        let late = |_| {
            let text = "a question took longer than the limit";
            Error::outage(Capacity, Duration::from_secs(5), text)
        };
        disclosed.map_err(late)?
    }
}

/// Versions of a history in one answer, unless fewer are asked for.
const HISTORY_MAX: u64 = 100;

/// The number that a query gives for a name.
fn number(query: Option<&str>, name: &str) -> Option<u64> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok())
}

/// Who asks: by the certificate that it showed, else by a bearer token.
///
/// # Errors
/// 401 for one that is not known.
pub(super) fn caller(callers: &Callers, extensions: &http::Extensions, headers: &HeaderMap) -> Result<Caller> {
    let by_certificate = extensions.get::<Peer>().and_then(|peer| peer.by_certificate.as_deref()).cloned();
    let bearer = || {
        let header = headers.get(header::AUTHORIZATION)?.as_bytes();
        let (scheme, token) = header.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| callers.by_bearer(token)).flatten().cloned()
    };
    let caller = by_certificate.or_else(bearer).ok_or_else(|| {
        let text = "a client certificate or a bearer token of a caller that the settings list";
        Error::refusal(Refusal::Unauthenticated, "http.caller", text)
    })?;
    trace::known(&caller);
    Ok(caller)
}

fn ask(method: &Method, path: &str) -> Result<Ask> {
    let not_found = || Error::refusal(Refusal::NotFound, "http.path", "a path of the FHIR API under /fhir");
    let path = path.strip_prefix("/fhir").ok_or_else(not_found)?;
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut segments = path.split('/').filter(|it| !it.is_empty());
    let wanted = [segments.next(), segments.next(), segments.next()];
    let is_type = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_uppercase()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    match (method.as_str(), wanted) {
        ("GET" | "HEAD", [Some("metadata"), None, None]) => Ok(Ask::Metadata),
        ("POST", [None, ..]) => Ok(Ask::Bundle),
        ("POST", [Some("$ingest"), None, None]) => Ok(Ask::Lines),
        ("POST", [Some("$validate"), None, None]) => Ok(Ask::Validate(None, None)),
        (_, [Some(name), ..]) if is_type(name) && !sluice_fhir::resource_type::is_type(name) => {
            Err(Error::refusal(Refusal::NotFound, "http.type", "a resource type of FHIR R4"))
        }
        ("POST", [Some(name), Some("$validate"), None]) if is_type(name) => {
            Ok(Ask::Validate(Some(name.to_owned()), None))
        }
        ("POST", [Some(name), Some(id), Some("$validate")])
            if is_type(name) && is_id(id) && segments.next().is_none() =>
        {
            Ok(Ask::Validate(Some(name.to_owned()), Some(id.to_owned())))
        }
        ("POST", [Some(name), None, None]) if is_type(name) => Ok(Ask::Create(name.to_owned())),
        ("PUT", [Some(name), Some(id), None]) if is_type(name) && is_id(id) => {
            Ok(Ask::Update(name.to_owned(), id.to_owned()))
        }
        ("GET" | "HEAD", [Some(name), Some(id), None]) if is_type(name) && is_id(id) => {
            Ok(Ask::Read(name.to_owned(), id.to_owned(), None))
        }
        ("GET" | "HEAD", [Some(name), Some(id), Some("_history")]) if is_type(name) && is_id(id) => {
            let Some(version) = segments.next() else {
                return Ok(Ask::History(name.to_owned(), id.to_owned()));
            };
            // A version that is no number of ours stands nowhere.
            let version = version.parse().map_err(|_| not_found())?;
            if segments.next().is_some() {
                return Err(not_found());
            }
            Ok(Ask::Read(name.to_owned(), id.to_owned(), Some(version)))
        }
        (_, [None, ..] | [Some(_), _, None]) => {
            Err(Error::refusal(Refusal::Method, "http.method", "an interaction that /fhir/metadata lists"))
        }
        _ => Err(not_found()),
    }
}

/// FHIR R4 http.html#mime-type.
fn media_type(headers: &HeaderMap, lines: bool) -> Result<Format> {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or("");
    let mut parts = declared.split(';').map(str::trim);
    let essence = parts.next().unwrap_or("").to_ascii_lowercase();
    let taken: &[&str] = if lines {
        &["application/fhir+ndjson", "application/x-ndjson", "application/ndjson"]
    } else {
        &["application/fhir+json", "application/json", "application/fhir+xml", "application/xml", "text/xml"]
    };
    let utf8 = parts.all(|it| {
        it.split_once('=').is_none_or(|(name, value)| {
            !name.trim().eq_ignore_ascii_case("charset") || value.trim_matches([' ', '"']).eq_ignore_ascii_case("utf-8")
        })
    });
    if taken.contains(&&*essence) && utf8 {
        return Ok(if essence.ends_with("xml") { Format::Xml } else { Format::Json });
    }
    let text = format!("Content-Type {} in UTF-8", taken.join(" or "));
    Err(Error::refusal(Refusal::UnsupportedMedia, "http.content-type", text))
}

/// JSON and XML are written; a client that takes nothing else is told so.
fn acceptable(headers: &HeaderMap) -> Result<()> {
    if headers.get_all(header::ACCEPT).iter().all(|it| it.to_str().is_err()) || taken(headers).next().is_some() {
        return Ok(());
    }
    let text = "Accept with application/fhir+json or application/fhir+xml";
    Err(Error::refusal(Refusal::NotAcceptable, "http.accept", text))
}

/// Whether XML is what a client names before anything else that is written.
fn wants_xml(headers: &HeaderMap) -> bool {
    taken(headers).next() == Some(Format::Xml)
}

/// The formats that a client takes and that are written, in its order.
fn taken(headers: &HeaderMap) -> impl Iterator<Item = Format> {
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(','));
    ranges.filter_map(|range| {
        let essence = range.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match &*essence {
            "application/fhir+xml" | "application/xml" | "text/xml" | "xml" => Some(Format::Xml),
            "*/*" | "application/*" | "application/json" | "application/fhir+json" | "json" | "" => Some(Format::Json),
            _ => essence.ends_with("ndjson").then_some(Format::Json),
        }
    })
}

/// RFC 7240.
fn prefer(headers: &HeaderMap) -> Prefer {
    let mut given =
        headers.get_all("prefer").iter().filter_map(|it| it.to_str().ok()).flat_map(|it| it.split([',', ';']));
    let wanted = given.find_map(|it| it.trim().strip_prefix("return=")).unwrap_or("minimal");
    match wanted {
        "representation" => Prefer::Representation,
        "OperationOutcome" => Prefer::Outcome,
        _ => Prefer::Minimal,
    }
}

fn text(headers: &HeaderMap, name: &'static str) -> Result<Option<String>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let value = value
        .to_str()
        .map_err(|_| Error::refusal(Refusal::Malformed, "http.header", format!("{name} in visible ASCII")))?;
    Ok(Some(value.to_owned()))
}

fn if_match(headers: &HeaderMap) -> Result<Option<u64>> {
    let Some(value) = text(headers, "if-match")? else { return Ok(None) };
    let version = etag(&value).ok_or_else(|| {
        Error::refusal(Refusal::Precondition, "http.if-match", "If-Match with a weak ETag: W/\"[version]\"")
    })?;
    Ok(Some(version))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<Arc<str>>> {
    let key = match text(headers, "idempotency-key")? {
        Some(key) => Some(key),
        None => text(headers, "x-request-id")?,
    };
    match key {
        Some(key) if key.is_empty() || key.len() > 255 => {
            Err(Error::refusal(Refusal::Malformed, "http.idempotency-key", "a key of 1 to 255 characters"))
        }
        key => Ok(key.map(Arc::from)),
    }
}
