//! The broker that the settings name.
//!
//! Takes: the settings and the gateway's store. Gives: a broker that is started, and the feed if it is that one. Never: waits for it to be there: what can't
//! be sent waits in the outbox.

use std::sync::Arc;

use super::StartError;
use crate::broker::Broker;
use crate::broker::amqp::{self, Amqp};
use crate::broker::feed::{Feed, Retention, Seal};
use crate::config::{BrokerKind, Config};
use crate::gateway::Gateway;

/// Where events go.
pub(super) struct Outlet {
    /// The broker.
    pub(super) broker: Arc<dyn Broker>,
    /// The same, if it is the feed.
    pub(super) feed: Option<Arc<Feed>>,
}

/// Starts it.
///
/// # Errors
/// [`StartError`] where the settings name none that can be started.
pub(super) fn start(config: &Config, gateway: &Gateway) -> Result<Outlet, StartError> {
    match &config.broker.kind {
        BrokerKind::Amqp { .. } => {
            let subscribers = config.subscribers.iter().map(|it| it.id.clone());
            let settings = amqp::Settings::new(&config.broker, subscribers)
                .ok_or_else(|| StartError::Settings("broker: expected an amqp broker".to_owned()))?;
            let reconnects = gateway.door.observer().metrics().amqp_reconnects.clone();
            Ok(Outlet { broker: Arc::new(Amqp::start(settings.reconnects(reconnects))), feed: None })
        }
        BrokerKind::Feed(feed) => {
            let seal = Arc::clone(gateway.recorder.vault()) as Arc<dyn Seal>;
            let retention = Retention { age: feed.retention, entries: feed.entries_max };
            let feed = Arc::new(Feed::start(Arc::clone(gateway.recorder.store()), seal, retention));
            Ok(Outlet { broker: Arc::clone(&feed) as Arc<dyn Broker>, feed: Some(feed) })
        }
    }
}
