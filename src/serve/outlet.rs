//! The broker that the settings name.
//!
//! Takes: the settings and the gateway's store. Gives: a broker that is started. Never: waits for it to be there: what can't
//! be sent waits in the outbox.

use std::sync::Arc;

use super::StartError;
use crate::broker::Broker;
use crate::broker::amqp::{self, Amqp};
use crate::broker::feed::{Feed, Retention, Seal};
use crate::config::{BrokerKind, Config};
use crate::gateway::Gateway;

/// Starts it.
///
/// # Errors
/// [`StartError`] where the settings name none that can be started.
pub(super) fn start(config: &Config, gateway: &Gateway) -> Result<Arc<dyn Broker>, StartError> {
    match &config.broker.kind {
        BrokerKind::Amqp { .. } => {
            let subscribers = config.subscribers.iter().map(|it| it.id.clone());
            let settings = amqp::Settings::new(&config.broker, subscribers)
                .ok_or_else(|| StartError::Settings("broker: expected an amqp broker".to_owned()))?;
            Ok(Arc::new(Amqp::start(settings)))
        }
        BrokerKind::Feed(feed) => {
            let seal = Arc::clone(gateway.recorder.vault()) as Arc<dyn Seal>;
            let retention = Retention { age: feed.retention, entries: u64::MAX };
            Ok(Arc::new(Feed::start(Arc::clone(gateway.recorder.store()), seal, retention)))
        }
    }
}
