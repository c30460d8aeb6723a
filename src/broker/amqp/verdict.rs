//! Which message a returned one is: pure bookkeeping between confirms and verdicts.
//!
//! The broker sends an unroutable message back before it acknowledges it, but the two are tied together by nothing
//! except the message itself. lapin gives a returned message to whichever confirm it processes next, and the broker
//! acknowledges many messages at once: with more than one in flight, the wrong one would count as delivered. So a
//! returned message is known by its message id here, and an acknowledgement counts only once every return that came
//! before it has been seen.
//!
//! What that rests on: lapin keeps returned messages in a queue and each confirm takes the first, if there is one. So
//! if a confirm took none, the queue was empty at that moment, and a return of that message, which came earlier, was
//! taken by a confirm that was processed earlier: it is in this batch or in one before (see [`super::flight`]). If a
//! confirm took another message's return, its own may still be in the queue; the message is *suspect* until a confirm
//! of a later batch takes none, or nothing else is in flight.

use crate::broker::PublishError;

/// What the broker said about the message of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Confirm {
    /// Acknowledged; with it came a returned message, not necessarily this one.
    Ack(Option<Return>),
    /// Not accepted; the same holds.
    Nack(Option<Return>),
    /// Nothing, and nothing will come: the channel is gone.
    Lost,
    /// The channel was gone before the message was sent.
    NotSent,
}

/// A message that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Return {
    /// Its message id.
    pub(super) id: String,
    /// AMQP 0-9-1 reply code.
    pub(super) reply_code: u16,
}

/// Messages without a verdict, each under the key of whoever sent it.
#[derive(Default)]
pub(super) struct Verdicts {
    open: Vec<Open>,
    suspects: usize,
}

struct Open {
    key: u64,
    id: String,
    /// Set once its return was seen.
    reply_code: Option<u16>,
    /// Acknowledged, but its return may still come.
    suspect: bool,
}

/// A key with what became of its message.
pub(super) type Verdict = (u64, Result<(), PublishError>);

impl Verdicts {
    /// A message was sent.
    pub(super) fn sent(&mut self, key: u64, id: String) {
        self.open.push(Open { key, id, reply_code: None, suspect: false });
    }

    /// Takes the confirms of one batch; gives every verdict that is certain now.
    pub(super) fn batch(&mut self, batch: Vec<(u64, Confirm)>) -> Vec<Verdict> {
        for (_, confirm) in &batch {
            if let Confirm::Ack(Some(returned)) | Confirm::Nack(Some(returned)) = confirm {
                self.mark(returned);
            }
        }
        let mut verdicts = Vec::with_capacity(batch.len());
        if batch.iter().any(|(_, confirm)| matches!(confirm, Confirm::Ack(None) | Confirm::Nack(None))) {
            self.clear(&mut verdicts);
        }
        for (key, confirm) in batch {
            let Some(at) = self.open.iter().position(|open| open.key == key) else { continue };
            let Some(open) = self.open.get_mut(at) else { continue };
            let verdict = match (confirm, open.reply_code) {
                (Confirm::Ack(_), Some(reply_code)) => Err(PublishError::Returned { reply_code }),
                (Confirm::Ack(None), None) => Ok(()),
                (Confirm::Ack(Some(_)), None) => {
                    open.suspect = true;
                    self.suspects += 1;
                    continue;
                }
                (Confirm::Nack(_), _) => Err(PublishError::Nacked),
                (Confirm::Lost, _) => Err(PublishError::Unconfirmed),
                (Confirm::NotSent, _) => Err(PublishError::Unavailable),
            };
            self.open.swap_remove(at);
            verdicts.push((key, verdict));
        }
        if self.open.len() == self.suspects {
            self.clear(&mut verdicts);
        }
        verdicts
    }

    /// No return is outstanding for what is suspect: what was not marked by now was routed.
    fn clear(&mut self, verdicts: &mut Vec<Verdict>) {
        if self.suspects == 0 {
            return;
        }
        self.suspects = 0;
        self.open.retain(|open| {
            if open.suspect {
                verdicts.push((
                    open.key,
                    match open.reply_code {
                        Some(reply_code) => Err(PublishError::Returned { reply_code }),
                        None => Ok(()),
                    },
                ));
            }
            !open.suspect
        });
    }

    /// Of several messages of one id each return marks one.
    fn mark(&mut self, returned: &Return) {
        let unmarked = |open: &&mut Open| open.reply_code.is_none() && open.id == returned.id;
        if let Some(open) = self.open.iter_mut().find(unmarked) {
            open.reply_code = Some(returned.reply_code);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::*;

    const NO_ROUTE: u16 = 312;

    fn returned(id: u64) -> Return {
        Return { id: id.to_string(), reply_code: NO_ROUTE }
    }

    #[test]
    fn a_return_given_to_another_confirm_finds_its_message() {
        let mut verdicts = Verdicts::default();
        verdicts.sent(1, "1".into());
        verdicts.sent(2, "2".into());
        // Message 2 came back, and lapin gave it to the confirm of message 1.
        let got = verdicts.batch(vec![(1, Confirm::Ack(Some(returned(2)))), (2, Confirm::Ack(None))]);
        assert_eq!(got, [(2, Err(PublishError::Returned { reply_code: NO_ROUTE })), (1, Ok(()))]);
    }

    #[test]
    fn a_suspect_waits_for_its_own_return() {
        let mut verdicts = Verdicts::default();
        for key in 1..=3 {
            verdicts.sent(key, key.to_string());
        }
        assert_eq!(verdicts.batch(vec![(2, Confirm::Ack(Some(returned(1))))]), []);
        let got = verdicts.batch(vec![(1, Confirm::Ack(Some(returned(2)))), (3, Confirm::Ack(None))]);
        let no_route = Err(PublishError::Returned { reply_code: NO_ROUTE });
        assert_eq!(got, [(2, no_route), (1, no_route), (3, Ok(()))]);
    }

    proptest! {
        /// A model of the broker and of lapin's queue: whatever is acknowledged together, in whatever order, and
        /// however the confirms fall into batches, each message gets its own verdict.
        #[test]
        fn every_message_gets_its_own_verdict(
            messages in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), any::<bool>()), 1..60),
        ) {
            let mut verdicts = Verdicts::default();
            let mut queue = VecDeque::new();
            let mut unacked: Vec<u64> = Vec::new();
            let mut confirms = Vec::new();
            let mut got = BTreeMap::new();
            let mut last = 0;
            for (key, (routed, _, _)) in (0..).zip(&messages) {
                verdicts.sent(key, key.to_string());
                unacked.push(key);
                if !routed {
                    queue.push_back(key);
                }
                last = key;
            }
            for (_, pick, cut) in &messages {
                let key = unacked.remove(pick.index(unacked.len()));
                confirms.push((key, Confirm::Ack(queue.pop_front().map(returned))));
                if *cut || key == last {
                    got.extend(verdicts.batch(std::mem::take(&mut confirms)));
                }
            }
            got.extend(verdicts.batch(confirms));
            for (key, (routed, _, _)) in (0..).zip(&messages) {
                let expected = if *routed { Ok(()) } else { Err(PublishError::Returned { reply_code: NO_ROUTE }) };
                prop_assert_eq!(got.get(&key), Some(&expected), "message {}", key);
            }
            prop_assert!(verdicts.open.is_empty());
        }
    }
}
