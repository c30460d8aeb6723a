//! Brokers: where events go.
//!
//! Takes [`Message`]s, each addressed to one subscriber, with headers and body made; gives for each one verdict, so
//! that whoever keeps the outbox knows what to do with the row. Knows nothing of what a message says. Never retries:
//! the outbox does, by the verdict. Every kind of broker passes the suite in `tests/it/broker`.
//!
//! Two kinds: [`amqp`] (AMQP 0-9-1, as RabbitMQ speaks it) and [`feed`] (rows of the store, fetched by cursor).

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub mod amqp;
pub mod feed;

/// The longest message id, routing key, content type and header name, in bytes (AMQP 0-9-1 §4.2.5.3, short string).
pub const SHORT_BYTES_MAX: usize = 255;

/// The largest body, in bytes: the default `max_message_size` of RabbitMQ 4.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// The most headers of one message.
pub const HEADERS_MAX: usize = 64;

/// The longest value of a header, in bytes. All of them must fit one frame of the least size that a broker may ask for.
pub const HEADER_BYTES_MAX: usize = 1024;

/// The longest recall of a message, in bytes.
pub const RECALL_BYTES_MAX: usize = 1 << 20;

/// One message, addressed to one subscriber.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id, the same at every attempt: consumers and the feed know duplicates by it. 1 to [`SHORT_BYTES_MAX`] bytes.
    pub id: String,
    /// Whom it is for: lower case letters, digits and `-`.
    pub subscriber: String,
    /// What must stay in order. The caller has at most one message of a lane in flight; a broker keeps the order in
    /// which it is called, and says so only of messages that it confirmed. The keys of the subjects that it is about,
    /// one behind the other: what the feed keeps is erased with them.
    pub lane: Bytes,
    /// Words of lower case letters, digits, `-` and `_`, joined by dots; at most [`SHORT_BYTES_MAX`] bytes.
    pub routing_key: String,
    /// The media type of the body.
    pub content_type: Cow<'static, str>,
    /// Names and values, sent as they stand.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// Seconds since the epoch (AMQP 0-9-1 §4.2.5.4, timestamp).
    pub time: u64,
    /// What the sender needs to ask again whether the message may still be handed on. It never leaves the house: a broker
    /// that is not ours leaves it out; at most [`RECALL_BYTES_MAX`] bytes.
    pub recall: Bytes,
    /// The body, at most [`BODY_BYTES_MAX`] bytes.
    pub body: Bytes,
}

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Messages are taken.
    Ready,
    /// The broker is there and takes nothing for now: it lacks memory or disk.
    Blocked,
    /// There is no connection; it is tried again. Holds what went wrong last, in words without a secret.
    Down(Option<String>),
    /// Closed by [`Broker::close`]; it stays so.
    Closed,
}

/// Why a message was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The broker refused it, as a queue at its limit does: slow down, and send it again.
    #[error("the broker did not accept the message")]
    Nacked,
    /// The broker has nobody to give it to and dropped it: the topology is not what it should be.
    #[error("the broker returned the message: {reply_code}")]
    Returned {
        /// AMQP 0-9-1 reply code, 312 for NO_ROUTE.
        reply_code: u16,
    },
    /// It was sent, or may have been, and no confirm came: it may have happened. Send it again under the same id.
    #[error("the broker did not confirm the message in time")]
    Unconfirmed,
    /// It was certainly not sent.
    #[error("the broker is not to be reached")]
    Unavailable,
    /// No broker would take it: a defect of the caller.
    #[error("the message breaks a limit: {0}")]
    Refused(Limit),
}

/// Which limit a message breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Its id is empty or too long.
    Id,
    /// Its subscriber is empty, too long, or has other characters.
    Subscriber,
    /// Its routing key is empty, too long, or has other characters.
    RoutingKey,
    /// Its content type is empty or too long.
    ContentType,
    /// It has too many headers, or one that is too long.
    Headers,
    /// Its body is too large.
    Body,
    /// Its recall is too large.
    Recall,
}

/// Where events go.
///
/// `publish` may be called for many messages at a time; each gets its own verdict. Messages are sent in the order of
/// the calls. Dropping the future does not take a message back.
pub trait Broker: Send + Sync {
    /// Sends a message; `Ok` once the broker has taken responsibility for it and somebody is there to get it.
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), PublishError>>;

    /// Where the broker is, at once and without I/O.
    fn state(&self) -> State;

    /// Waits until the state is [`State::Ready`] or [`State::Closed`].
    fn ready(&self) -> BoxFuture<'_, State>;

    /// Takes no more messages, waits for what is in flight, and closes. To be awaited before the runtime ends.
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl Message {
    /// Holds the message against the limits that every kind of broker has.
    pub fn check(&self) -> Result<(), PublishError> {
        let short = |text: &str| !text.is_empty() && text.len() <= SHORT_BYTES_MAX;
        let limit = if !short(&self.id) {
            Limit::Id
        } else if !(short(&self.subscriber) && self.subscriber.bytes().all(subscriber_byte)) {
            Limit::Subscriber
        } else if !(short(&self.routing_key) && self.routing_key.split('.').all(word)) {
            Limit::RoutingKey
        } else if !short(&self.content_type) {
            Limit::ContentType
        } else if self.headers.len() > HEADERS_MAX
            || !self.headers.iter().all(|(name, value)| short(name) && value.len() <= HEADER_BYTES_MAX)
        {
            Limit::Headers
        } else if self.body.len() > BODY_BYTES_MAX {
            Limit::Body
        } else if self.recall.len() > RECALL_BYTES_MAX {
            Limit::Recall
        } else {
            return Ok(());
        };
        Err(PublishError::Refused(limit))
    }
}

fn subscriber_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

fn word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| subscriber_byte(byte) || byte == b'_')
}

// The body and headers are what a health record became; only their size may be seen.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({}, {} headers, body {} bytes)", self.routing_key, self.headers.len(), self.body.len())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Blocked => f.write_str("blocked by the broker"),
            Self::Down(None) => f.write_str("connecting"),
            Self::Down(Some(cause)) => write!(f, "down: {cause}"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Id => "id of 1 to 255 bytes",
            Self::Subscriber => "subscriber of 1 to 255 lower case letters, digits and -",
            Self::RoutingKey => "routing key of words joined by dots, at most 255 bytes",
            Self::ContentType => "content type of 1 to 255 bytes",
            Self::Headers => "at most 64 headers of at most 1024 bytes",
            Self::Body => "body of at most 16 MiB",
            Self::Recall => "recall of at most 1 MiB",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            id: "1".into(),
            subscriber: "insurer-1".into(),
            lane: Bytes::from_static(b"lane"),
            routing_key: "v1.insurer-1.care.observation.create".into(),
            content_type: "application/cloudevents+json".into(),
            headers: vec![("cloudEvents:id".into(), "1".into())],
            time: 0,
            recall: Bytes::from_static(b"CANARY"),
            body: Bytes::from_static(b"CANARY"),
        }
    }

    #[test]
    fn each_limit_is_named() {
        assert_eq!(message().check(), Ok(()));
        let long = "x".repeat(SHORT_BYTES_MAX + 1);
        let breaks: [(Limit, Message); 12] = [
            (Limit::Id, Message { id: String::new(), ..message() }),
            (Limit::Id, Message { id: long.clone(), ..message() }),
            (Limit::Subscriber, Message { subscriber: "A".into(), ..message() }),
            (Limit::Subscriber, Message { subscriber: "a.b".into(), ..message() }),
            (Limit::RoutingKey, Message { routing_key: long.clone(), ..message() }),
            (Limit::RoutingKey, Message { routing_key: "a..b".into(), ..message() }),
            (Limit::RoutingKey, Message { routing_key: "a.#".into(), ..message() }),
            (Limit::ContentType, Message { content_type: "".into(), ..message() }),
            (Limit::Headers, Message { headers: vec![(long.into(), String::new())], ..message() }),
            (Limit::Headers, Message { headers: vec![("a".into(), String::new()); HEADERS_MAX + 1], ..message() }),
            (Limit::Body, Message { body: vec![0; BODY_BYTES_MAX + 1].into(), ..message() }),
            (Limit::Recall, Message { recall: vec![0; RECALL_BYTES_MAX + 1].into(), ..message() }),
        ];
        for (limit, message) in breaks {
            assert_eq!(message.check(), Err(PublishError::Refused(limit)), "{message:?}");
        }
    }

    #[test]
    fn debug_shows_no_body() {
        assert!(!format!("{:?}", message()).contains("CANARY"));
    }
}
