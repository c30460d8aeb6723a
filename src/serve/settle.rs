//! Settle: durable rows on their way out, one loop for each stage.
//!
//! Takes: what was built. Gives: loops that run until they are stopped, and one last pass after that. Never: gives up: a
//! pass that fails is told and tried again, later each time. What a loop has not done stays in the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::anchor::{LEAVES_MAX, Log};
use crate::broker::Broker;
use crate::config::Config;
use crate::consent::door::Door;
use crate::error::{Error, Peer, Result};
use crate::gateway::Gateway;
use crate::ledger::Ledger;
use crate::observe::Stage;
use crate::publish::{Publisher, Resting};
use crate::record::FORGOTTEN_MAX;
use crate::route::Router;

/// The longest pause after a pass that failed.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The longest that a ledger may take over one anchor.
const ANCHOR_TIMEOUT: Duration = Duration::from_secs(30);

/// How often Consents that could not be filed at once are tried again.
const FILE_BEAT: Duration = Duration::from_secs(1);

/// How often work is looked for: the longest that a resource waits to be routed, and a proven event to be sent.
const EVENT_BEAT: Duration = Duration::from_millis(50);

/// The first pause of a lane whose event the broker refused.
const RETRY_WAIT: Duration = Duration::from_millis(100);

/// Consents filed in one pass.
const FILINGS_MAX: usize = 256;

/// How often the upstream is asked what became of what it did not answer.
const RECOVER_BEAT: Duration = Duration::from_secs(5);

/// How often answers that are given no more are looked for.
const FORGET_BEAT: Duration = Duration::from_secs(10);

/// What settles.
#[derive(Clone)]
pub struct Settle {
    /// The stages.
    pub gateway: Arc<Gateway>,
    /// The gateway's own log.
    pub log: Arc<Log>,
    /// Where its checkpoints are anchored.
    pub ledger: Arc<dyn Ledger>,
    /// Who decides for every subscriber.
    pub router: Router,
    /// Who sends.
    pub publisher: Publisher,
    /// The longest that a leaf waits to be sequenced.
    pub log_beat: Duration,
    /// How often the newest checkpoint is anchored.
    pub ledger_beat: Duration,
}

impl Settle {
    /// By the settings.
    pub fn new(
        config: &Config,
        gateway: Arc<Gateway>,
        log: Arc<Log>,
        ledger: Arc<dyn Ledger>,
        broker: Arc<dyn Broker>,
    ) -> Self {
        let subscribers: Arc<[_]> = config.subscribers.clone().into();
        let source: Arc<str> = config.tenant.base_url.as_str().into();
        let router = Router { subscribers: Arc::clone(&subscribers), source: Arc::clone(&source) };
        let publisher = Publisher {
            log: Arc::clone(&log),
            broker,
            subscribers,
            source,
            window: config.broker.window,
            attempts_max: config.broker.attempts_max,
            retry_wait: RETRY_WAIT,
            resting: Resting::default(),
        };
        let (log_beat, ledger_beat) = (config.log.beat, config.ledger.beat);
        Self { gateway, log, ledger, router, publisher, log_beat, ledger_beat }
    }

    /// Starts the loops; they end once `stop` turns true.
    pub(super) fn start(&self, tasks: &mut JoinSet<()>, stop: &watch::Receiver<bool>) {
        tasks.spawn(self.clone().recover(stop.clone()));
        tasks.spawn(self.clone().file(stop.clone()));
        tasks.spawn(self.clone().route(stop.clone()));
        tasks.spawn(self.clone().sequence(stop.clone()));
        tasks.spawn(self.clone().anchor(stop.clone()));
        tasks.spawn(self.clone().publish(stop.clone()));
        tasks.spawn(self.clone().forget(stop.clone()));
    }

    /// One pass of each in the order of the flow, so that what was recorded last is proven, if the parts serve.
    pub(super) async fn last(&self) {
        let Gateway { recorder, door, .. } = &*self.gateway;
        told("route", self.router.pass(recorder, door).await);
        while matches!(told("sequence", self.log.sequence().await), Some(1..)) {}
        told("anchor", self.anchor_once().await);
        told("publish", self.publisher.pass(recorder, door).await);
        // What a broker has taken is confirmed and marked by now; nothing is sent any more.
        self.publisher.broker.close().await;
    }

    /// Recorded resources are decided on for every subscriber.
    async fn route(self, mut stop: watch::Receiver<bool>) {
        let mut pause = EVENT_BEAT;
        loop {
            let Gateway { recorder, door, .. } = &*self.gateway;
            pause = match told("route", timed(door, Stage::Route, self.router.pass(recorder, door)).await) {
                Some(progress) if progress.waiting == 0 => EVENT_BEAT,
                Some(_) | None => longer(pause),
            };
            if stopped(&mut stop, pause).await {
                return;
            }
        }
    }

    /// Events whose leaf is proven are decided on again and sent.
    async fn publish(self, mut stop: watch::Receiver<bool>) {
        let mut pause = EVENT_BEAT;
        loop {
            let Gateway { recorder, door, .. } = &*self.gateway;
            // What waits may only wait for the next checkpoint, so the pause grows no longer than the ledger's beat.
            let passed = told("publish", timed(door, Stage::Publish, self.publisher.pass(recorder, door)).await);
            pause = match passed {
                Some(progress) if progress.waiting == 0 || progress.sent > 0 => EVENT_BEAT,
                Some(_) => longer(pause).min(self.ledger_beat.max(EVENT_BEAT)),
                None => longer(pause),
            };
            if stopped(&mut stop, pause).await {
                return;
            }
        }
    }

    /// Units that were staged and not recorded: at the start, and then on a beat.
    async fn recover(self, mut stop: watch::Receiver<bool>) {
        let mut pause = RECOVER_BEAT;
        loop {
            pause = match told("recover", self.gateway.recover().await) {
                Some(_) => RECOVER_BEAT,
                None => longer(pause),
            };
            if stopped(&mut stop, pause).await {
                return;
            }
        }
    }

    /// Consents that were recorded and are not on the ledger get there; what the request that brought them did not do.
    async fn file(self, mut stop: watch::Receiver<bool>) {
        let mut pause = FILE_BEAT;
        loop {
            let Gateway { filer, recorder, door, .. } = &*self.gateway;
            pause = match told("file", filer.batch(recorder, door, FILINGS_MAX).await) {
                Some(progress) if progress.waiting == 0 => FILE_BEAT,
                Some(_) | None => longer(pause),
            };
            if stopped(&mut stop, pause).await {
                return;
            }
        }
    }

    /// Leaves that wait get their indexes, on a constant beat, or at once while more wait than a batch holds.
    async fn sequence(self, mut stop: watch::Receiver<bool>) {
        let mut pause = self.log_beat;
        loop {
            match told("sequence", self.log.sequence().await) {
                Some(LEAVES_MAX..) => continue,
                Some(_) => pause = self.log_beat,
                None => pause = longer(pause),
            }
            if stopped(&mut stop, pause).await {
                return;
            }
        }
    }

    /// The newest checkpoint goes to the ledger, on a constant beat.
    async fn anchor(self, mut stop: watch::Receiver<bool>) {
        let mut pause = self.ledger_beat;
        loop {
            match told("anchor", self.anchor_once().await) {
                Some(()) => pause = self.ledger_beat,
                None => pause = longer(pause.min(PAUSE_MAX / 2)),
            }
            if stopped(&mut stop, pause).await {
                return;
            }
        }
    }

    /// Answers that are given no more go, some at a time.
    async fn forget(self, mut stop: watch::Receiver<bool>) {
        let mut pause = FORGET_BEAT;
        loop {
            if stopped(&mut stop, pause).await {
                return;
            }
            pause = match told("forget", self.gateway.recorder.forget_answers().await) {
                // As many again may be as old.
                Some(FORGOTTEN_MAX..) => EVENT_BEAT,
                Some(_) => FORGET_BEAT,
                None => longer(pause),
            };
        }
    }

    async fn anchor_once(&self) -> Result<()> {
        // An anchor that is given up on stays open, and the next pass asks what became of it.
        let anchored = tokio::time::timeout(ANCHOR_TIMEOUT, self.log.anchor(&*self.ledger)).await;
        let late = |_| Error::outage(Peer::Ledger, ANCHOR_TIMEOUT, "the ledger took too long over an anchor");
        anchored.map_err(late)?.map(drop)
    }
}

/// Notes how long a pass took.
async fn timed<T>(door: &Door, stage: Stage, pass: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let output = pass.await;
    door.observer().metrics().stage(stage, started.elapsed());
    output
}

/// What a pass gave; a failure is told to the operator.
pub(super) fn told<T>(stage: &'static str, result: Result<T>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(stage, %error, "a pass failed and is tried again")).ok()
}

/// Waits, unless or until the loop is to stop; says whether it is.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>, pause: Duration) -> bool {
    // Nobody can stop the loop any more once the sender is gone: that counts as a stop.
    tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok()
}

/// The pause after one more failure.
pub(super) fn longer(pause: Duration) -> Duration {
    pause.saturating_mul(2).min(PAUSE_MAX)
}
