//! Forward: a staged unit is told to the hospital's FHIR server.
//!
//! Takes: [`Staged`]. Gives: [`Answered`], whose existence proves that the upstream has said yes, or that there is
//! none. Never: posts again what was not answered, unless it can be shown that nothing comes of it twice.

mod answer;
mod client;
mod request;
mod resolve;

use std::sync::Arc;
use std::time::Duration;

pub use self::client::{Client, ClientError};
pub use self::resolve::Resolved;
use crate::config;
use crate::error::{Error, Peer, Result};
use crate::stage::{Desk, Staged, State};

/// When the sender may ask again whether the upstream has come back.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A unit to which the upstream, if there is one, has said yes. Only `forward` makes one.
#[derive(Debug)]
pub struct Answered {
    staged: Staged,
    upstream: Option<Vec<Located>>,
}

/// Where the upstream put one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// 200 or 201.
    pub status: u16,
    /// The resource's id there.
    pub id: String,
    /// Its version there, as the upstream writes it.
    pub version: Option<String>,
    /// When it was written there, as the upstream writes it.
    pub last_modified: Option<String>,
}

/// Who is told.
pub enum Upstream {
    /// Nobody: Sluice is the server.
    Nowhere,
    /// The hospital's FHIR server.
    Server(Server),
}

/// The hospital's FHIR server, and what is known of units on their way to it.
pub struct Server {
    /// Speaks to it.
    pub client: Arc<Client>,
    /// Keeps what is on its way.
    pub desk: Arc<Desk>,
    /// What is done about what was not answered.
    pub resolve: config::Resolve,
}

/// How one attempt to tell the upstream ended.
enum Told {
    /// Yes.
    Located(Vec<Located>),
    /// No, and nothing of it stands there: the status and what the sender is told.
    Refused(u16, Error),
    /// It was not told: the request never left, or the upstream says that it did not look at it.
    Untold(&'static str),
    /// It may have happened.
    Silent(&'static str),
}

/// Tells the upstream, if there is one.
///
/// # Errors
/// The upstream's refusal, with its words; 502 where it can't have been told; 504 where it did not answer, and what
/// became of the unit is found out later.
pub async fn unit(staged: Staged, upstream: &Upstream) -> Result<Answered> {
    match upstream {
        Upstream::Nowhere => Ok(nowhere(staged)),
        Upstream::Server(server) => server.tell(staged).await,
    }
}

/// Finds out what became of a unit that an earlier task left behind.
///
/// # Errors
/// An outage of the store. What the upstream does is in [`Resolved`].
pub async fn leftover(staged: Staged, upstream: &Upstream) -> Result<Resolved> {
    match upstream {
        // The settings name no upstream any more: an operator must say what became of it.
        Upstream::Nowhere => Ok(Resolved::Open),
        Upstream::Server(server) => server.resolve(staged).await,
    }
}

/// Without an upstream nothing is told to anyone.
pub fn nowhere(staged: Staged) -> Answered {
    Answered { staged, upstream: None }
}

impl Server {
    async fn tell(&self, mut staged: Staged) -> Result<Answered> {
        let body = request::of(&staged, self.resolve)?;
        // A crash from here on leaves a leftover of which it is not known whether it was sent.
        match self.client.tell(&body, &staged).await {
            Told::Located(located) => Ok(Answered { staged, upstream: Some(located) }),
            Told::Refused(status, error) => {
                self.desk.take_back(staged, Some(status)).await?;
                Err(error)
            }
            Told::Untold(why) => {
                self.desk.take_back(staged, None).await?;
                Err(Error::outage(Peer::Upstream, RETRY_AFTER, why))
            }
            Told::Silent(why) => {
                self.desk.mark(&mut staged, State::Unknown).await?;
                Err(Error::outage(Peer::UpstreamSilent, RETRY_AFTER, why))
            }
        }
    }
}

impl Answered {
    /// The unit.
    pub fn staged(&self) -> &Staged {
        &self.staged
    }

    /// Where each resource stands at the upstream, in the order of the unit; none without an upstream.
    pub fn upstream(&self) -> Option<&[Located]> {
        self.upstream.as_deref()
    }
}
