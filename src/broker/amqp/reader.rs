//! The other end of a subscriber's queue: takes messages from it, as a subscriber would.
//!
//! Takes the settings of the broker and a subscriber's id; gives bodies in the order of the queue. A message that was
//! given is gone from the queue: this is for looking and for trying out, a subscriber acknowledges after its own commit.

use bytes::Bytes;
use lapin::options::{BasicAckOptions, BasicGetOptions};

use super::Settings;
use super::link::{Link, within};

/// A connection that reads.
pub struct Reader {
    link: Link,
    settings: Settings,
}

impl Reader {
    /// Connects. The topology stands afterwards, if it is ours to make.
    ///
    /// # Errors
    /// What was asked of the broker and what it answered; without passwords.
    pub async fn open(settings: Settings) -> Result<Self, String> {
        let link = Link::open(&settings).await?;
        Ok(Self { link, settings })
    }

    /// The next message of a subscriber's queue; none if it is empty.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub async fn take(&self, subscriber: &str) -> Result<Option<Bytes>, String> {
        let queue = self.settings.names.queue(subscriber);
        let timeout = self.settings.timeout;
        let got = self.link.channel.basic_get(queue.as_str().into(), BasicGetOptions::default());
        let Some(got) = within(timeout, &format!("queue {queue}"), got).await? else { return Ok(None) };
        // A crash before this leaves the message in the queue.
        let acked = got.delivery.acker.ack(BasicAckOptions::default());
        within(timeout, "acknowledging", async { acked.await.map(drop) }).await?;
        Ok(Some(got.delivery.data.into()))
    }

    /// Takes away what was declared: exchanges and queues, with all that lies in them.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub async fn remove(&self) -> Result<(), String> {
        self.settings.names.remove(&self.link.channel, self.settings.timeout).await
    }

    /// Disconnects.
    pub async fn close(self) {
        self.link.end().await;
    }
}
