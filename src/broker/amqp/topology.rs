//! What must stand at the broker before anything is published: exchanges, queues and their bindings.
//!
//! Takes names; declares them, or only looks whether they are there. The one place that knows how they are called:
//!
//! - `X`, topic, durable: where everything is published. Its alternate exchange is `X.unrouted`.
//! - `X.unrouted`, fanout, with a queue of that name: what no queue was bound for, kept for the operator.
//! - `X.S`, quorum: what subscriber `S` reads, bound by `v1.S.#`. After [`Names::delivery_limit`] deliveries without an
//!   acknowledgement, a message goes to `X.dead`. At its limit of length it refuses, and the outbox waits.
//! - `X.dead`, topic, with a queue `X.S.dead` for each subscriber: its dead letters, and nobody else's.
//!
//! Dead letters are moved at least once, for which RabbitMQ wants `x-overflow=reject-publish`.

use std::time::Duration;

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, ExchangeKind};

use super::link::within;
use crate::config;

/// What the topology is made of.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The topic exchange.
    pub(super) exchange: String,
    /// Whether to declare, or only to look.
    pub(super) topology: config::Topology,
    /// Who has a queue.
    pub(super) subscribers: Vec<String>,
    /// How often a message is delivered before it is a dead letter.
    pub(super) delivery_limit: u32,
    /// How many messages a subscriber's queue holds.
    pub(super) queue_length_max: u64,
}

impl Names {
    /// Makes everything, or looks for what is published to. An error names the part and the broker's reply.
    pub(super) async fn establish(&self, channel: &Channel, timeout: Duration) -> Result<(), String> {
        match self.topology {
            config::Topology::Declare => self.declare(channel, timeout).await,
            config::Topology::Passive => self.look(channel, timeout).await,
        }
    }

    // Idempotent, and each step by itself: a crash anywhere here leaves what the next connection finishes.
    async fn declare(&self, channel: &Channel, timeout: Duration) -> Result<(), String> {
        let at = Declaring { channel, timeout };
        let (unrouted, dead) = (format!("{}.unrouted", self.exchange), format!("{}.dead", self.exchange));
        at.exchange(&unrouted, ExchangeKind::Fanout, FieldTable::default()).await?;
        at.queue(&unrouted, quorum()).await?;
        at.bind(&unrouted, &unrouted, "").await?;
        at.exchange(&dead, ExchangeKind::Topic, FieldTable::default()).await?;
        let mut arguments = FieldTable::default();
        text(&mut arguments, "alternate-exchange", &unrouted);
        at.exchange(&self.exchange, ExchangeKind::Topic, arguments).await?;
        for subscriber in &self.subscribers {
            let pattern = format!("v1.{subscriber}.#");
            let queue = self.queue(subscriber);
            let letters = format!("{queue}.dead");
            at.queue(&letters, quorum()).await?;
            at.bind(&letters, &dead, &pattern).await?;
            let mut arguments = quorum();
            text(&mut arguments, "x-dead-letter-exchange", &dead);
            text(&mut arguments, "x-dead-letter-strategy", "at-least-once");
            text(&mut arguments, "x-overflow", "reject-publish");
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongUInt(self.delivery_limit));
            let length = i64::try_from(self.queue_length_max).unwrap_or(i64::MAX);
            arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(length));
            at.queue(&queue, arguments).await?;
            at.bind(&queue, &self.exchange, &pattern).await?;
        }
        Ok(())
    }

    /// Takes away everything that [`Names::declare`] makes.
    // Each step by itself: a crash anywhere here leaves names that nobody publishes to.
    pub(super) async fn remove(&self, channel: &Channel, timeout: Duration) -> Result<(), String> {
        let (unrouted, dead) = (format!("{}.unrouted", self.exchange), format!("{}.dead", self.exchange));
        let own = self.subscribers.iter().map(|it| self.queue(it));
        let letters = self.subscribers.iter().map(|it| format!("{}.dead", self.queue(it)));
        for queue in own.chain(letters).chain([unrouted.clone()]) {
            let delete = channel.queue_delete(short(&queue), QueueDeleteOptions::default());
            within(timeout, &format!("deleting queue {queue}"), delete).await?;
        }
        for exchange in [&self.exchange, &unrouted, &dead] {
            let delete = channel.exchange_delete(short(exchange), ExchangeDeleteOptions::default());
            within(timeout, &format!("deleting exchange {exchange}"), delete).await?;
        }
        Ok(())
    }

    /// The queue of a subscriber.
    pub(super) fn queue(&self, subscriber: &str) -> String {
        format!("{}.{subscriber}", self.exchange)
    }

    async fn look(&self, channel: &Channel, timeout: Duration) -> Result<(), String> {
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let look = channel.exchange_declare(short(&self.exchange), ExchangeKind::Topic, options, FieldTable::default());
        within(timeout, &format!("exchange {}", self.exchange), look).await?;
        for subscriber in &self.subscribers {
            let queue = self.queue(subscriber);
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let look = channel.queue_declare(short(&queue), options, FieldTable::default());
            within(timeout, &format!("queue {queue}"), look).await?;
        }
        Ok(())
    }
}

struct Declaring<'a> {
    channel: &'a Channel,
    timeout: Duration,
}

impl Declaring<'_> {
    async fn exchange(&self, name: &str, kind: ExchangeKind, arguments: FieldTable) -> Result<(), String> {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declare = self.channel.exchange_declare(short(name), kind, options, arguments);
        within(self.timeout, &format!("exchange {name}"), declare).await
    }

    async fn queue(&self, name: &str, arguments: FieldTable) -> Result<(), String> {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declare = self.channel.queue_declare(short(name), options, arguments);
        within(self.timeout, &format!("queue {name}"), declare).await.map(drop)
    }

    async fn bind(&self, queue: &str, exchange: &str, pattern: &str) -> Result<(), String> {
        let bind = self.channel.queue_bind(
            short(queue),
            short(exchange),
            short(pattern),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        within(self.timeout, &format!("binding of queue {queue}"), bind).await
    }
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    text(&mut arguments, "x-queue-type", "quorum");
    arguments
}

fn text(arguments: &mut FieldTable, name: &'static str, value: &str) {
    arguments.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
}

/// A name as AMQP wants it. One that is too long becomes empty, which every broker refuses.
fn short(name: &str) -> ShortString {
    ShortString::try_new(name).unwrap_or_default()
}
