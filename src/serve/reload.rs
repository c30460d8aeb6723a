//! Reloads rules and packages while the gateway serves.
//!
//! Takes: an operator's word, and what the folders hold. Gives: another set of rules in force, or the reason why the one
//! before stays: in the log, in `/readyz` and as `sluice_rules_refused`. Never: reads a folder that is still changing, unless
//! told to; reads again what it has refused and what has not changed since.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::check::{Look, RulesError};
use crate::gateway::Gateway;
use crate::observe::Reloaded;

/// The loop that reloads.
pub(super) struct Reload {
    gateway: Arc<Gateway>,
    asked: Arc<Notify>,
    /// What the folders held when they were last read.
    read: Look,
    /// What they held at the last look.
    seen: Look,
}

impl Reload {
    /// One that knows what the folders hold now. `asked` makes it read them at once.
    pub(super) fn new(gateway: Arc<Gateway>, asked: Arc<Notify>) -> Self {
        Self { gateway, asked, read: Look::default(), seen: Look::default() }
    }

    /// Runs until it is stopped.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.read = self.gateway.rules.opened().clone();
        self.seen = self.look().await;
        loop {
            // Without folders, or where the settings say so, only an operator's word counts.
            let pause = self.gateway.rules.poll().unwrap_or(Duration::MAX);
            let is_asked = tokio::select! {
                // Nobody can stop the loop any more once the sender is gone: that counts as a stop.
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.asked.notified() => true,
                () = tokio::time::sleep(pause) => false,
            };
            let now = self.look().await;
            // What is being copied there grows from look to look.
            let is_quiet = now == self.seen;
            self.seen = now;
            if is_asked || (is_quiet && self.seen != self.read) {
                self.reload().await;
            }
        }
    }

    async fn look(&self) -> Look {
        let gateway = Arc::clone(&self.gateway);
        tokio::task::spawn_blocking(move || gateway.rules.look()).await.unwrap_or_default()
    }

    async fn reload(&mut self) {
        // What changes from here on is seen by the next look.
        self.read = self.seen.clone();
        let gateway = Arc::clone(&self.gateway);
        let reloading = tokio::task::spawn_blocking(move || gateway.rules.reload()).await;
        let ended = |_| Err(RulesError::Package("the reader of the rules ended early".to_owned()));
        let reloaded = reloading.unwrap_or_else(ended);
        let observer = self.gateway.door.observer();
        let rules = self.gateway.rules.current();
        let set = &**rules.id();
        match &reloaded {
            Ok(is_other) => {
                tracing::info!(set, is_other, "rules read again");
                observer.metrics().reloaded(if *is_other { Reloaded::Taken } else { Reloaded::Same });
                observer.note("rules", None);
            }
            Err(error) => {
                tracing::error!(set, %error, "rules refused: the set before stays");
                observer.metrics().reloaded(Reloaded::Refused);
                observer.note("rules", Some(format!("refused, and the set {set} stays: {error}")));
            }
        }
    }
}
