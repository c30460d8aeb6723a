//! AMQP 0-9-1, as RabbitMQ speaks it.
//!
//! Takes messages; publishes each as persistent and mandatory, with confirms, at most a window of them at a time.
//! Success is exactly an acknowledgement without a return: an unroutable message is acknowledged as well. With the
//! declared topology such a message goes to the alternate exchange and is kept for the operator.
//!
//! A link (connection and channel) is disposable; a loop of ours makes the next one, with growing, jittered pauses.
//! lapin's own recovery stays off: with it, confirms in flight may never resolve. Credentials come from files alone, read
//! at each connection; no text of this module holds them.
//!
//! lapin logs a returned message whole, body included, under its own targets: whoever installs a subscriber must keep
//! the target `lapin` out of it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::link::Link;
use self::session::{Command, End};
use self::topology::Names;
use super::{Broker, Message, PublishError, State};
use crate::config;

mod address;
mod flight;
mod link;
mod reader;
mod session;
mod tls;
mod topology;
mod verdict;

pub use self::reader::Reader;

/// The pause after the first failed attempt to connect; it doubles from there.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// How often a message is delivered before it is a dead letter, where the topology is ours.
const DELIVERY_LIMIT: u32 = 10;

/// How many messages a subscriber's queue holds before it refuses, where the topology is ours.
const QUEUE_LENGTH_MAX: u64 = 1_000_000;

/// How to reach a broker and what to find there.
#[derive(Clone, Debug)]
pub struct Settings {
    address: config::BrokerAddress,
    tls: config::BrokerTls,
    names: Names,
    window: usize,
    timeout: Duration,
    heartbeat: Duration,
    reconnect_wait_max: Duration,
    reconnects: Counter,
}

/// A broker over AMQP 0-9-1.
pub struct Amqp {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
    closing: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Settings {
    /// From the settings of the broker and the ids of the subscribers; `None` if the kind is another.
    pub fn new(broker: &config::Broker, subscribers: impl IntoIterator<Item = String>) -> Option<Self> {
        let config::BrokerKind::Amqp { address, exchange, topology, tls, timeout, heartbeat, reconnect_wait_max } =
            &broker.kind
        else {
            return None;
        };
        Some(Self {
            address: address.clone(),
            tls: tls.clone(),
            names: Names {
                exchange: exchange.clone(),
                topology: *topology,
                subscribers: subscribers.into_iter().collect(),
                delivery_limit: DELIVERY_LIMIT,
                queue_length_max: QUEUE_LENGTH_MAX,
            },
            window: broker.window.max(1),
            timeout: *timeout,
            heartbeat: *heartbeat,
            reconnect_wait_max: *reconnect_wait_max,
            reconnects: Counter::default(),
        })
    }

    /// The same with another limit of messages in a subscriber's queue.
    #[must_use]
    pub fn queue_length_max(mut self, messages: u64) -> Self {
        self.names.queue_length_max = messages;
        self
    }

    /// The same with a counter of the attempts to connect after the first.
    #[must_use]
    pub fn reconnects(mut self, reconnects: Counter) -> Self {
        self.reconnects = reconnects;
        self
    }

    /// The same with another limit of deliveries.
    #[must_use]
    pub fn delivery_limit(mut self, deliveries: u32) -> Self {
        self.names.delivery_limit = deliveries;
        self
    }
}

impl Amqp {
    /// Starts to connect, and returns at once: [`Broker::ready`] waits. To be called within a tokio runtime.
    pub fn start(settings: Settings) -> Self {
        let (commands, queue) = mpsc::channel(settings.window);
        let (state_sender, state) = watch::channel(State::Down(None));
        let (closing, closing_receiver) = watch::channel(false);
        let task = tokio::spawn(keep_connected(Arc::new(settings), queue, closing_receiver, state_sender));
        Self { commands, state, closing, task: Mutex::new(Some(task)) }
    }
}

impl Broker for Amqp {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), PublishError>> {
        async move {
            message.check()?;
            if *self.state.borrow() != State::Ready {
                return Err(PublishError::Unavailable);
            }
            let (verdict, received) = oneshot::channel();
            // Waits while the window is full. What is in the queue has not been sent.
            if self.commands.send(Command { message, verdict }).await.is_err() {
                return Err(PublishError::Unavailable);
            }
            received.await.unwrap_or(Err(PublishError::Unconfirmed))
        }
        .boxed()
    }

    fn state(&self) -> State {
        self.state.borrow().clone()
    }

    fn ready(&self) -> BoxFuture<'_, State> {
        let mut state = self.state.clone();
        async move {
            match state.wait_for(|state| matches!(state, State::Ready | State::Closed)).await {
                Ok(state) => state.clone(),
                Err(_) => State::Closed,
            }
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.closing.send_replace(true);
            if let Some(task) = self.task.lock().await.take()
                && task.await.is_err()
            {
                tracing::error!("the broker's task panicked");
            }
        }
        .boxed()
    }
}

/// Makes link after link until it is told to close.
async fn keep_connected(
    settings: Arc<Settings>,
    mut commands: mpsc::Receiver<Command>,
    mut closing: watch::Receiver<bool>,
    state: watch::Sender<State>,
) {
    let mut pause = PAUSE_MIN;
    loop {
        let link = tokio::select! {
            link = Link::open(&settings) => link,
            () = refuse(&mut commands) => break,
            () = told(&mut closing) => break,
        };
        let cause = match link {
            Ok(link) => {
                state.send_replace(State::Ready);
                pause = PAUSE_MIN;
                let end = session::run(
                    &link,
                    &settings.names.exchange,
                    settings.window,
                    settings.timeout,
                    &mut commands,
                    &mut closing,
                    &state,
                )
                .await;
                if let End::Broken(cause) = &end {
                    state.send_replace(State::Down(Some(cause.clone())));
                }
                session::refuse_queued(&mut commands);
                link.end().await;
                match end {
                    End::Closed => break,
                    End::Broken(cause) => cause,
                }
            }
            Err(cause) => cause,
        };
        tracing::warn!(%cause, "no connection to the broker");
        state.send_replace(State::Down(Some(cause)));
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => {}
            () = refuse(&mut commands) => break,
            () = told(&mut closing) => break,
        }
        settings.reconnects.inc();
        pause = (pause * 2).min(settings.reconnect_wait_max);
    }
    state.send_replace(State::Closed);
    commands.close();
    session::refuse_queued(&mut commands);
}

/// Refuses whatever comes, for as long as there is nobody to send it to; ends once nobody is left to ask.
async fn refuse(commands: &mut mpsc::Receiver<Command>) {
    while let Some(command) = commands.recv().await {
        let _ = command.verdict.send(Err(PublishError::Unavailable));
    }
}

async fn told(closing: &mut watch::Receiver<bool>) {
    // An error means that the handle is gone, which is as good as a call.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Between half and all of a pause, so that many gateways do not come back in one moment.
fn jittered(pause: Duration) -> Duration {
    let mut bytes = [0; 2];
    // Without randomness the pause is whole.
    let share = aws_lc_rs::rand::fill(&mut bytes).map_or(u16::MAX, |()| u16::from_le_bytes(bytes));
    pause / 2 + (pause / 2).mul_f64(f64::from(share) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jittered_pause_is_half_to_whole() {
        let pause = Duration::from_secs(8);
        for _ in 0..100 {
            let jittered = jittered(pause);
            assert!(jittered >= pause / 2 && jittered <= pause, "{jittered:?}");
        }
    }
}
