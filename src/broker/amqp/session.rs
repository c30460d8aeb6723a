//! Publishing over one link, until it breaks or the broker is closed.
//!
//! Takes commands from the queue; gives every one a verdict. Never drops one silently: what was sent and not confirmed
//! is `Unconfirmed`, what was not sent is `Unavailable`.

use std::collections::{HashMap, VecDeque};
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind, Event};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::flight::Flight;
use super::link::{Link, cause};
use super::verdict::{Confirm, Return, Verdicts};
use crate::broker::{Message, PublishError, State};

/// Messages survive a restart of the broker (AMQP 0-9-1, `delivery-mode`).
const PERSISTENT: u8 = 2;

/// A message and where its verdict goes.
pub(super) struct Command {
    pub(super) message: Message,
    pub(super) verdict: oneshot::Sender<Result<(), PublishError>>,
}

/// Why a session ended.
pub(super) enum End {
    /// It was asked to, and nothing is in flight.
    Closed,
    /// The link is of no more use.
    Broken(String),
}

/// What the future of a published message gives.
type Outcome = (Confirm, Option<lapin::Error>);

struct Session {
    flight: Flight<Outcome>,
    verdicts: Verdicts,
    /// Which message a slot holds.
    keys: Vec<u64>,
    waiting: HashMap<u64, oneshot::Sender<Result<(), PublishError>>>,
    /// When each message's time is over, in the order of sending.
    deadlines: VecDeque<(Instant, u64)>,
    key_next: u64,
    blocked: bool,
}

/// Publishes what comes until the link breaks, or until `closing` says so and all in flight has a verdict.
pub(super) async fn run(
    link: &Link,
    exchange: &str,
    window: usize,
    timeout: Duration,
    commands: &mut mpsc::Receiver<Command>,
    closing: &mut watch::Receiver<bool>,
    state: &watch::Sender<State>,
) -> End {
    let mut session = Session {
        flight: Flight::new(window),
        verdicts: Verdicts::default(),
        keys: vec![0; window],
        waiting: HashMap::with_capacity(window),
        deadlines: VecDeque::with_capacity(window),
        key_next: 0,
        blocked: false,
    };
    // An alarm of before the connection is told in no event.
    let mut events = Box::pin(link.connection.events_listener());
    let mut ticks = tokio::time::interval(timeout / 8);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut taken = Vec::with_capacity(window);
    let mut draining = *closing.borrow_and_update();
    let mut broken = None;
    while broken.is_none() && !(draining && session.waiting.is_empty()) {
        let room = session.flight.room();
        tokio::select! {
            biased;
            batch = std::future::poll_fn(|cx| session.flight.poll_batch(cx)) => broken = session.settle(batch),
            _ = commands.recv_many(&mut taken, room), if room > 0 && !session.blocked && !draining => {
                // None at all: every handle on the broker is gone.
                draining |= taken.is_empty();
                for command in taken.drain(..) {
                    session.start(&link.channel, exchange, command, timeout);
                }
            }
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(_)) => {
                    session.blocked = true;
                    state.send_replace(State::Blocked);
                    refuse_queued(commands);
                }
                Some(Event::ConnectionUnblocked) => {
                    session.blocked = false;
                    state.send_replace(State::Ready);
                }
                Some(Event::Error(error)) => broken = Some(cause(&error)),
                Some(_) => {}
                None => broken = Some("the connection has ended".into()),
            },
            _ = ticks.tick() => {
                if session.expire() && !session.blocked {
                    broken = Some(format!("no confirmation within {timeout:?}"));
                } else if !link.channel.status().connected() {
                    broken = Some("the channel has ended".into());
                }
            }
            changed = closing.changed() => draining = changed.is_err() || *closing.borrow(),
        }
    }
    session.abandon();
    match broken {
        None => End::Closed,
        Some(cause) => End::Broken(cause),
    }
}

/// Tells everything that waits in the queue that it was not sent.
pub(super) fn refuse_queued(commands: &mut mpsc::Receiver<Command>) {
    while let Ok(command) = commands.try_recv() {
        // Fails where nobody waits for it any more.
        let _ = command.verdict.send(Err(PublishError::Unavailable));
    }
}

impl Session {
    /// Gives the message to lapin, which sends it with the next poll. A crash from here on leaves a message that may
    /// have been sent; the outbox sends it again under the same id.
    fn start(&mut self, channel: &Channel, exchange: &str, command: Command, timeout: Duration) {
        let Command { message, verdict } = command;
        let key = self.key_next;
        self.key_next += 1;
        self.verdicts.sent(key, message.id.clone());
        let future = publish(channel.clone(), ShortString::from(exchange), message).boxed();
        let Some(slot) = self.flight.start(future) else {
            // Not reached: no more commands are taken than there is room for.
            let _ = verdict.send(Err(PublishError::Unavailable));
            return;
        };
        if let Some(held) = self.keys.get_mut(slot) {
            *held = key;
        }
        self.waiting.insert(key, verdict);
        self.deadlines.push_back((Instant::now() + timeout, key));
    }

    /// Passes on every verdict that is certain; the cause, if the channel is gone.
    fn settle(&mut self, batch: Vec<(usize, Outcome)>) -> Option<String> {
        let mut broken = None;
        let mut confirms = Vec::with_capacity(batch.len());
        for (slot, (confirm, error)) in batch {
            if let (None, Some(error)) = (&broken, &error) {
                broken = Some(cause(error));
            }
            if let Some(key) = self.keys.get(slot) {
                confirms.push((*key, confirm));
            }
        }
        for (key, verdict) in self.verdicts.batch(confirms) {
            if let Some(waiting) = self.waiting.remove(&key) {
                let _ = waiting.send(verdict);
            }
        }
        broken
    }

    /// Gives up on those whose time is over; whether there were any. Their slots stay taken until lapin is done.
    fn expire(&mut self) -> bool {
        let now = Instant::now();
        let mut any = false;
        while let Some((deadline, key)) = self.deadlines.front().copied() {
            let open = self.waiting.contains_key(&key);
            if open && deadline > now {
                break;
            }
            self.deadlines.pop_front();
            if let Some(waiting) = self.waiting.remove(&key) {
                any = true;
                let _ = waiting.send(Err(PublishError::Unconfirmed));
            }
        }
        any
    }

    /// Takes what has been confirmed up to now, and gives up on the rest.
    fn abandon(mut self) {
        let mut none = std::task::Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(batch) = self.flight.poll_batch(&mut none) {
            self.settle(batch);
        }
        for (_, waiting) in self.waiting.drain() {
            let _ = waiting.send(Err(PublishError::Unconfirmed));
        }
    }
}

async fn publish(channel: Channel, exchange: ShortString, message: Message) -> Outcome {
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        headers.insert(name.as_ref().into(), AMQPValue::LongString(LongString::from(value.as_str())));
    }
    let properties = BasicProperties::default()
        .with_content_type(message.content_type.as_ref().into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers)
        .with_message_id(message.id.as_str().into())
        .with_timestamp(message.time);
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let sent =
        channel.basic_publish(exchange, message.routing_key.as_str().into(), options, &message.body, properties).await;
    let confirm = match sent {
        Ok(confirm) => confirm,
        // lapin looked at the channel before it made the frames.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidChannelState(_, "basic.publish")) => {
            return (Confirm::NotSent, Some(error));
        }
        Err(error) => return (Confirm::Lost, Some(error)),
    };
    match confirm.await {
        Ok(Confirmation::Ack(returned)) => (Confirm::Ack(returned.map(|returned| known(&returned))), None),
        Ok(Confirmation::Nack(returned)) => (Confirm::Nack(returned.map(|returned| known(&returned))), None),
        Ok(Confirmation::NotRequested) => (Confirm::Lost, None),
        Err(error) => (Confirm::Lost, Some(error)),
    }
}

fn known(returned: &lapin::message::BasicReturnMessage) -> Return {
    let id = returned.properties.message_id().as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default();
    Return { id, reply_code: returned.reply_code }
}
