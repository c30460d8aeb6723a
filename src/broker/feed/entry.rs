//! Rows of the feed: their keys and their bytes.
//!
//! Keys in the table, where `S` is the subscriber, which holds no zero byte:
//!
//! - `S 0 e cursor`: an entry, sealed. Cursor is a big-endian u64.
//! - `S 0 h`: the head: last cursor given, last cursor removed.
//! - `S 0 i id`: the cursor of a message id, so that the same message is kept once. Lives as long as its entry.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::broker::Message;

/// One entry of a subscriber's feed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its place: one above the entry before.
    pub cursor: u64,
    /// What was published.
    pub body: Body,
}

/// What an entry holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    /// The message.
    Message {
        /// Its id.
        id: String,
        /// Its time, in seconds since the epoch.
        time: u64,
        /// Its media type.
        content_type: String,
        /// What the sender gave to be asked with again.
        recall: Bytes,
        /// Its bytes.
        bytes: Bytes,
    },
    /// The sender took it back by [`super::Feed::withdrawal`].
    Withdrawn {
        /// The id of the message.
        id: String,
        /// Its time, in seconds since the epoch.
        time: u64,
    },
    /// It was erased with a subject's key.
    Erased,
}

/// How far a subscriber's feed has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Head {
    /// The cursor given last.
    pub(super) last: u64,
    /// The cursor removed last.
    pub(super) removed: u64,
}

pub(super) fn head_key(subscriber: &str) -> Bytes {
    key(subscriber, b'h', &[])
}

pub(super) fn id_key(subscriber: &str, id: &str) -> Bytes {
    key(subscriber, b'i', id.as_bytes())
}

pub(super) fn entries_prefix(subscriber: &str) -> Bytes {
    key(subscriber, b'e', &[])
}

pub(super) fn entry_key(subscriber: &str, cursor: u64) -> Bytes {
    key(subscriber, b'e', &cursor.to_be_bytes())
}

/// The cursor in an entry's key.
pub(super) fn cursor_of(subscriber: &str, key: &[u8]) -> Option<u64> {
    key.strip_prefix(entries_prefix(subscriber).as_ref())?.try_into().ok().map(u64::from_be_bytes)
}

/// Whose row it is.
pub(super) fn subscriber_of(key: &[u8]) -> Option<String> {
    let name = key.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(name).ok().map(str::to_owned)
}

/// A key above all rows of a subscriber, and below those of the next.
pub(super) fn end_of(subscriber: &str) -> Bytes {
    key(subscriber, u8::MAX, &[])
}

fn key(subscriber: &str, kind: u8, rest: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(subscriber.len() + 2 + rest.len());
    key.put_slice(subscriber.as_bytes());
    key.put_u8(0);
    key.put_u8(kind);
    key.put_slice(rest);
    key.freeze()
}

impl Head {
    pub(super) fn encode(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(16);
        bytes.put_u64(self.last);
        bytes.put_u64(self.removed);
        bytes.freeze()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (last, removed) = bytes.split_first_chunk::<8>()?;
        let removed = removed.try_into().ok()?;
        Some(Self { last: u64::from_be_bytes(*last), removed: u64::from_be_bytes(removed) })
    }
}

/// What leads the plain form of an entry that is a message, and of one that was withdrawn.
const MESSAGE: u8 = 0;
const WITHDRAWN: u8 = 1;

/// The plain form of a message: its kind u8, time u64, id and content type each behind its length u16, the recall behind
/// its length u32, the body. Big-endian. `None` if one is longer than its length can say.
pub(super) fn encode(message: &Message) -> Option<Vec<u8>> {
    let lengths = message.id.len() + message.content_type.len() + message.recall.len() + message.body.len();
    let mut plain = Vec::with_capacity(17 + lengths);
    plain.push(MESSAGE);
    plain.extend(message.time.to_be_bytes());
    for text in [message.id.as_str(), &message.content_type] {
        plain.extend(u16::try_from(text.len()).ok()?.to_be_bytes());
        plain.extend(text.as_bytes());
    }
    plain.extend(u32::try_from(message.recall.len()).ok()?.to_be_bytes());
    plain.extend_from_slice(&message.recall);
    plain.extend_from_slice(&message.body);
    Some(plain)
}

/// The plain form of what was withdrawn: its kind u8, time u64, the id.
pub(super) fn encode_withdrawn(id: &str, time: u64) -> Vec<u8> {
    let mut plain = vec![WITHDRAWN];
    plain.extend(time.to_be_bytes());
    plain.extend(id.as_bytes());
    plain
}

impl Entry {
    pub(super) fn decode(cursor: u64, plain: &[u8]) -> Option<Self> {
        let (kind, rest) = plain.split_first()?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let time = u64::from_be_bytes(*time);
        let body = match *kind {
            MESSAGE => {
                let (id, rest) = text(rest)?;
                let (content_type, rest) = text(rest)?;
                let (length, rest) = rest.split_first_chunk::<4>()?;
                let (recall, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
                let (recall, bytes) = (Bytes::copy_from_slice(recall), Bytes::copy_from_slice(rest));
                Body::Message { id, time, content_type, recall, bytes }
            }
            WITHDRAWN => Body::Withdrawn { id: std::str::from_utf8(rest).ok()?.to_owned(), time },
            _ => return None,
        };
        Some(Self { cursor, body })
    }
}

fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(text).ok()?.to_owned(), rest))
}

// A body is what a health record became.
impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Message { bytes, .. } => write!(f, "Message({} bytes)", bytes.len()),
            Self::Withdrawn { .. } => f.write_str("Withdrawn"),
            Self::Erased => f.write_str("Erased"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(id in ".{1,40}", time: u64, recall: Vec<u8>, bytes: Vec<u8>, cursor: u64) {
            let message = Message {
                id: id.clone(),
                subscriber: "s".into(),
                lane: Bytes::new(),
                routing_key: "v1".into(),
                content_type: "application/cloudevents+json".into(),
                headers: Vec::new(),
                time,
                recall: recall.clone().into(),
                body: bytes.clone().into(),
            };
            let read = Entry::decode(cursor, &encode(&message).unwrap()).unwrap();
            let content_type = "application/cloudevents+json".to_owned();
            let (recall, bytes) = (recall.into(), bytes.into());
            let body = Body::Message { id: id.clone(), time, content_type, recall, bytes };
            prop_assert_eq!(read, Entry { cursor, body });
            let read = Entry::decode(cursor, &encode_withdrawn(&id, time)).unwrap();
            prop_assert_eq!(read, Entry { cursor, body: Body::Withdrawn { id, time } });
            prop_assert_eq!(cursor_of("s", &entry_key("s", cursor)), Some(cursor));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Entry::decode(1, &bytes);
            let _ = Head::decode(&bytes);
        }
    }

    #[test]
    fn one_subscriber_is_no_prefix_of_another() {
        assert!(!entry_key("ab", 1).starts_with(&entries_prefix("a")));
    }
}
