//! What the demo's subscribers get, and whether it holds.
//!
//! Takes: a house whose gateway runs. Gives: each event as the subscriber got it, from the feed by its own certificate or
//! from its queue at the broker, with the verdict of the trust file. Never: looks into the gateway for it.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::Failure;
use super::super::events::Feed;
use super::super::target::base_of;
use super::house::House;
use crate::broker::amqp::{Reader, Settings};
use crate::config::BrokerKind;
use crate::publish::verify::{Link, Trust, Verdict, verify};

/// The subscribers of the house, by their ids; their certificates have the same names.
pub(super) const SUBSCRIBERS: [&str; 2] = ["insurer", "monitor"];

/// An event as a subscriber got it.
pub(super) struct Event {
    pub(super) subscriber: &'static str,
    /// As published.
    pub(super) bytes: Bytes,
    pub(super) verdict: Verdict,
    /// The same, to look at.
    value: Value,
}

/// Where the subscribers get their events.
pub(super) enum Inbox {
    /// The gateway's own feed, with the cursor of each subscriber.
    Feed(Vec<(&'static str, Feed, u64)>),
    /// Queues at a broker.
    Queues(Box<Reader>),
}

impl Inbox {
    /// Of the house's broker. One that can't be reached is told of here.
    pub(super) async fn open(house: &House) -> Result<Self, Failure> {
        if let BrokerKind::Amqp { .. } = house.config.broker.kind {
            let settings = Settings::new(&house.config.broker, SUBSCRIBERS.map(str::to_owned));
            let settings = settings.ok_or_else(|| Failure::CouldNotRun("the broker is none of AMQP".to_owned()))?;
            let reader = Reader::open(settings).await;
            let reader = reader.map_err(|error| Failure::CouldNotRun(format!("broker: {error}")))?;
            return Ok(Self::Queues(Box::new(reader)));
        }
        let base = base_of(&house.config)?;
        let feed = |id| Ok((id, Feed::new(&base, &house.identity(id), Some(id.to_owned()))?, 0));
        SUBSCRIBERS.into_iter().map(feed).collect::<Result<_, Failure>>().map(Self::Feed)
    }

    /// What has come since the last time.
    pub(super) async fn take(&mut self, trust: &Trust) -> Result<Vec<Event>, Failure> {
        let mut taken = Vec::new();
        match self {
            Self::Feed(feeds) => {
                for (subscriber, feed, cursor) in feeds {
                    loop {
                        let page = feed.page(*cursor, 0).await?;
                        if page.entries.is_empty() {
                            break;
                        }
                        *cursor = page.next;
                        let shown = page.entries.into_iter().filter_map(|it| it.event);
                        taken.extend(shown.map(|it| Event::new(subscriber, it.get().to_owned().into(), trust)));
                    }
                }
            }
            Self::Queues(reader) => {
                for subscriber in SUBSCRIBERS {
                    let failed = |error| Failure::CouldNotRun(format!("broker: {error}"));
                    while let Some(bytes) = reader.take(subscriber).await.map_err(failed)? {
                        taken.push(Event::new(subscriber, bytes, trust));
                    }
                }
            }
        }
        Ok(taken)
    }

    /// Ends; takes away what stands at the broker if nobody is to go on with it.
    pub(super) async fn close(self, keep: bool) {
        if let Self::Queues(reader) = self {
            if !keep {
                // Empty queues of a name that nobody uses again are all that stays if this fails.
                drop(reader.remove().await);
            }
            reader.close().await;
        }
    }
}

impl Event {
    fn new(subscriber: &'static str, bytes: Bytes, trust: &Trust) -> Self {
        let verdict = verify(&bytes, trust);
        let value = serde_json::from_slice(&bytes).unwrap_or_default();
        Self { subscriber, bytes, verdict, value }
    }

    /// Under whose pseudonym it speaks of its patient.
    fn subject(&self) -> Option<&str> {
        self.value["subject"].as_str()
    }

    /// Type and id of the resource that it is about.
    pub(super) fn about(&self) -> String {
        let url = self.value["data"]["entry"][1]["fullUrl"].as_str().unwrap_or_default();
        let mut parts = url.rsplitn(3, '/');
        let (id, kind) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        format!("{kind}/{id}")
    }

    /// The same event with one thing changed each, what was changed, and the link that has to break.
    pub(super) fn tampered(&self) -> Vec<(&'static str, Link, Vec<u8>)> {
        let mut changed = Vec::new();
        let mut change = |what, link, pointer: &str, change: &dyn Fn(&Value) -> Value| {
            let mut value = self.value.clone();
            if let Some(place) = value.pointer_mut(pointer).filter(|it| !it.is_null()) {
                *place = change(place);
                changed.push((what, link, value.to_string().into_bytes()));
            }
        };
        let other = |value: &Value| json!(flipped(value.as_str().unwrap_or_default()));
        let next = |value: &Value| json!(value.as_u64().unwrap_or_default().wrapping_add(1));
        change("which record it is about", Link::Body, "/data/entry/1/fullUrl", &other);
        change("when it happened", Link::Body, "/time", &other);
        change("what was decided", Link::Commitment, "/proof/decision/rule", &other);
        change("its place in the log", Link::Inclusion, "/proof/inclusion/0", &other);
        change("what the log signed", Link::Checkpoint, "/proof/checkpoint", &bigger);
        change("when the ledger had it", Link::Receipt, "/proof/receipt/time", &next);
        change("its number among others", Link::Delivery, "/delivery/sequence", &next);
        changed
    }

    /// The event itself, written anew as the tampered ones are: it still has to hold.
    pub(super) fn rewritten(&self) -> Vec<u8> {
        self.value.to_string().into_bytes()
    }
}

/// The pseudonyms of a subscriber's patients.
pub(super) fn subjects<'e>(events: &'e [Event], subscriber: &str) -> BTreeSet<&'e str> {
    events.iter().filter(|it| it.subscriber == subscriber).filter_map(Event::subject).collect()
}

/// A text of the same form that says something else: its first letter or digit is another one.
fn flipped(text: &str) -> String {
    let mut done = false;
    let other = |it: char| match it {
        _ if done || !it.is_ascii_alphanumeric() => it,
        _ => {
            done = true;
            match it {
                '9' => '8',
                'z' => 'y',
                'Z' => 'Y',
                // Neither of '9', 'z' and 'Z': the next one is a letter or digit as well.
                _ => char::from_u32(u32::from(it) + 1).unwrap_or('0'),
            }
        }
    };
    text.chars().map(other).collect()
}

/// A checkpoint of one leaf more.
fn bigger(checkpoint: &Value) -> Value {
    let text = checkpoint.as_str().unwrap_or_default();
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    if let Some(size) = lines.get_mut(1) {
        *size = size.parse::<u64>().map_or_else(|_| String::new(), |size| (size + 1).to_string());
    }
    json!(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_keeps_its_form() {
        assert_eq!(
            (flipped("https://a"), flipped("+/z9"), flipped("2026")),
            ("ittps://a".into(), "+/y9".into(), "3026".into())
        );
        assert_eq!(bigger(&json!("o/log\n9\nroot\n\nsig\n")), json!("o/log\n10\nroot\n\nsig\n"));
    }
}
