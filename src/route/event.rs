//! Events: what a subscriber is told.
//!
//! Takes: resources that one subscriber may be told about. Gives: the body of a CloudEvent in canonical bytes, its id, its
//! type and its routing key. Never: holds a member of a record unless the subscriber's payload is `full`; names a subject
//! other than by its pairwise pseudonym.
//!
//! Obeys CloudEvents 1.0 §3 and its JSON format §3; `data` is a notification of the Subscriptions R5 Backport IG for R4:
//! a Bundle of type history, led by a Parameters that is its status.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sluice_fhir::canonical;
use sluice_fhir::tree::{Limits, Tree};

use crate::broker;
use crate::config::{Payload, Subscriber};
use crate::consent::pseudonym::Pseudonym;
use crate::error::{Error, Result};
use crate::keys::{HmacKey, Keys};

/// The media type of an event (CloudEvents JSON format §3).
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// The media type of an event's data.
pub const DATA_CONTENT_TYPE: &str = "application/fhir+json";

/// The schema of an event's data, as [`schema`] publishes it.
pub const DATA_SCHEMA: &str = "https://sluice.dev/schemas/event/v1#/$defs/data";

/// JSON Schema of every event of version 1.
pub const SCHEMA: &str = include_str!("../../mappings/events/event.v1.json");

/// The longest body of an event. A longer one, which only whole resources can make, is made without them.
pub const BODY_BYTES_MAX: usize = broker::BODY_BYTES_MAX - PROOF_BYTES_MAX;

/// What proof and delivery add at most, by a wide margin.
const PROOF_BYTES_MAX: usize = 256 << 10;

/// Why an event does not hold the resources that its subscriber would get whole.
pub const TOO_LARGE: &str = "too-large";

/// What happened to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Its first version was recorded.
    Create,
    /// Another version was.
    Update,
}

/// One resource that an event is about.
#[derive(Debug, Clone, Copy)]
pub struct Focus<'a> {
    /// Its type.
    pub resource_type: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Its version, from 1.
    pub version: u64,
    /// The resource as stored: JSON.
    pub body: &'a Bytes,
}

/// What the events of one subscriber are made with.
#[derive(Clone, Copy)]
pub struct Maker<'a> {
    /// For ids and pairwise pseudonyms.
    pub keys: &'a Keys,
    /// The tenant's `[base]`: the source of its events.
    pub source: &'a str,
    /// Whom they are for.
    pub subscriber: &'a Subscriber,
}

/// The body of an event: what its leaf commits to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The same for the same input, for ever.
    pub id: String,
    /// Its type.
    pub kind: String,
    /// Where a broker sends it.
    pub routing_key: String,
    /// [`TOO_LARGE`] where the resources would be held and are not.
    pub omitted: Option<&'static str>,
    /// `sluice-canonical-1`, without proof, delivery and trace.
    pub canonical: Bytes,
}

/// The attributes in the JSON format; `data` is JSON itself.
#[derive(Serialize)]
struct Attributes<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    time: &'a str,
    datacontenttype: &'static str,
    dataschema: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<&'static str>,
    data: Notification,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notification {
    resource_type: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: String,
    entry: Vec<Entry>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    full_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Box<RawValue>>,
    request: Value,
    response: Value,
}

impl Action {
    /// Of a version.
    pub fn of(version: u64) -> Self {
        if version <= 1 { Self::Create } else { Self::Update }
    }

    /// The word in types and routing keys.
    pub fn code(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
        }
    }
}

impl Maker<'_> {
    /// The body of an event about these resources, all of the same subjects; the first gives its routing key. `subject` is
    /// the pairwise pseudonym, `time` RFC 3339. It is never longer than [`BODY_BYTES_MAX`]: rather than that it refers to
    /// the resources and says so.
    ///
    /// # Errors
    /// A defect if there is no resource, or one is not JSON.
    pub fn body(&self, subject: Option<&Pseudonym>, time: &str, focus: &[Focus<'_>]) -> Result<Body> {
        let first = focus.first().ok_or_else(|| Error::defect("an event is about nothing"))?;
        let action = Action::of(first.version);
        let Subscriber { id: subscriber, domain, .. } = self.subscriber;
        let kind = kind(domain, action);
        let resource = first.resource_type.to_ascii_lowercase();
        let routing_key = format!("v1.{subscriber}.{domain}.{resource}.{}", action.code());
        let id = self.id(&kind, focus);
        let whole = self.subscriber.payload == Payload::Full;
        let bytes = |omitted: Option<&'static str>| {
            self.written(
                &id,
                &kind,
                subject,
                time,
                omitted,
                self.notification(&id, time, focus, whole && omitted.is_none())?,
            )
        };
        let (mut omitted, mut canonical) = (None, bytes(None)?);
        if whole && canonical.len() > BODY_BYTES_MAX {
            omitted = Some(TOO_LARGE);
            canonical = bytes(omitted)?;
        }
        Ok(Body { id, kind, routing_key, omitted, canonical })
    }

    fn written(
        &self,
        id: &str,
        kind: &str,
        subject: Option<&Pseudonym>,
        time: &str,
        omitted: Option<&'static str>,
        data: Notification,
    ) -> Result<Bytes> {
        let attributes = Attributes {
            specversion: "1.0",
            id,
            source: self.source,
            kind,
            subject: subject.map(Pseudonym::hex),
            time,
            datacontenttype: DATA_CONTENT_TYPE,
            dataschema: DATA_SCHEMA,
            omitted,
            data,
        };
        let text = serde_json::to_vec(&attributes).map_err(|_| Error::defect("an event can't be written"))?;
        canonical(text)
    }

    fn id(&self, kind: &str, focus: &[Focus<'_>]) -> String {
        let versions: Vec<_> = focus.iter().map(|it| it.version.to_be_bytes()).collect();
        let mut parts = vec![self.source.as_bytes(), kind.as_bytes(), self.subscriber.id.as_bytes()];
        for (focus, version) in focus.iter().zip(&versions) {
            parts.extend([focus.resource_type.as_bytes(), focus.id.as_bytes(), &version[..]]);
        }
        HEXLOWER.encode(&self.keys.hmac(HmacKey::EventId, &parts))
    }

    fn notification(&self, id: &str, time: &str, focus: &[Focus<'_>], whole: bool) -> Result<Notification> {
        let base = self.source.trim_end_matches('/');
        let subscription = format!("{base}/Subscription/{}", self.subscriber.id);
        let url = |it: &Focus<'_>| format!("{base}/{}/{}", it.resource_type, it.id);
        let shown = if self.subscriber.payload == Payload::None { &[][..] } else { focus };
        // Relative to this notification, as R5's SubscriptionStatus.notificationEvent.eventNumber has it for channels that
        // guarantee delivery: the body is committed to before its place in the lane is known, which stands in `delivery`.
        let mut event = vec![
            json!({"name": "event-number", "valueString": "1"}),
            json!({"name": "timestamp", "valueInstant": time}),
        ];
        for (at, it) in shown.iter().enumerate() {
            let name = if at == 0 { "focus" } else { "additional-context" };
            event.push(json!({"name": name, "valueReference": {"reference": url(it)}}));
        }
        let status = json!({
            "resourceType": "Parameters",
            "id": id,
            "meta": {"profile": [
                "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-subscription-status-r4"
            ]},
            "parameter": [
                {"name": "subscription", "valueReference": {"reference": subscription}},
                {"name": "status", "valueCode": "active"},
                {"name": "type", "valueCode": "event-notification"},
                {"name": "notification-event", "part": event},
            ],
        });
        let mut entry = vec![Entry {
            full_url: format!("{base}/Parameters/{id}"),
            resource: Some(raw(status.to_string())?),
            request: json!({"method": "GET", "url": format!("{subscription}/$status")}),
            response: json!({"status": "200"}),
        }];
        for it in shown {
            let resource = if whole {
                let text = String::from_utf8(it.body.to_vec());
                Some(raw(text.map_err(|_| Error::defect("a stored resource is not UTF-8"))?)?)
            } else {
                None
            };
            let reference = format!("{}/{}", it.resource_type, it.id);
            let (method, url_asked, status) = match Action::of(it.version) {
                Action::Create => ("POST", it.resource_type.to_owned(), "201"),
                Action::Update => ("PUT", reference, "200"),
            };
            entry.push(Entry {
                full_url: url(it),
                resource,
                request: json!({"method": method, "url": url_asked}),
                response: json!({"status": status}),
            });
        }
        Ok(Notification { resource_type: "Bundle", kind: "history", timestamp: time.to_owned(), entry })
    }
}

/// The type of an event.
fn kind(domain: &str, action: Action) -> String {
    format!("dev.sluice.{domain}.{}.v1", action.code())
}

/// JSON Schema of one type's events; none if it is no type.
///
/// # Errors
/// A defect if the schema that is shipped is not JSON.
pub fn schema(kind: &str) -> Result<Option<Vec<u8>>> {
    let words: Vec<&str> = kind.split('.').collect();
    let ["dev", "sluice", domain, "create" | "update", "v1"] = words[..] else { return Ok(None) };
    let named = (1..=63).contains(&domain.len())
        && domain.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !named {
        return Ok(None);
    }
    let broken = |_| Error::defect("the schema of events is not JSON");
    let mut schema: Value = serde_json::from_str(SCHEMA).map_err(broken)?;
    schema["$id"] = format!("https://sluice.dev/schemas/{kind}").into();
    schema["title"] = kind.into();
    schema["properties"]["type"] = json!({"const": kind});
    serde_json::to_vec_pretty(&schema).map(Some).map_err(broken)
}

/// The canonical form of JSON that we wrote.
///
/// # Errors
/// A defect if it has none.
pub fn canonical(text: Vec<u8>) -> Result<Bytes> {
    let tree = Tree::parse(text.into(), &Limits::default()).map_err(|_| Error::defect("an event is not JSON"))?;
    Ok(canonical::to_vec(tree.root()).into())
}

fn raw(text: String) -> Result<Box<RawValue>> {
    RawValue::from_string(text).map_err(|_| Error::defect("a part of an event is not JSON"))
}
