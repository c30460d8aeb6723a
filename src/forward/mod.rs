//! Forward: a staged unit is told to the hospital's FHIR server.
//!
//! Takes: [`Staged`]. Gives: [`Answered`], whose existence proves that the upstream has said yes, or that there is
//! none. Never: posts again what was not answered, unless it can be shown that nothing comes of it twice.

mod answer;
mod client;
mod request;
mod resolve;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

pub use self::client::Client;
use sluice_fhir::reference::is_id;

use self::request::Ask;
pub use self::resolve::Resolved;
use crate::config;
use crate::error::{Error, Peer, Refusal, Result};
use crate::ingest::unit::{Interaction, Shape};
use crate::stage::{Desk, Staged, State};

/// Why a unit is parked that the upstream has accepted.
const OVERLAP: &str = "the upstream says that two entries of the unit stand in one place";

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

/// What an operator knows of where one resource stands at the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its type.
    pub resource_type: String,
    /// Its id there.
    pub id: String,
    /// Its version there, if known.
    pub version: Option<String>,
}

/// How one attempt to tell the upstream ended.
enum Told {
    /// Yes.
    Located(Vec<Located>),
    /// No, and nothing of it stands there: what the sender is told.
    Refused(Error),
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

/// Finds out what became of a unit that an earlier task left behind. If nothing of it stands there it is sent once more,
/// where that can't do anything twice; with a `refusal`, because it would not be accepted today, it is taken back
/// instead.
///
/// # Errors
/// An outage of the store. What the upstream does is in [`Resolved`].
pub async fn leftover(staged: Staged, refusal: Option<&Error>, upstream: &Upstream) -> Result<Resolved> {
    match upstream {
        // The settings name no upstream any more: an operator must say what became of it.
        Upstream::Nowhere => Ok(Resolved::Open),
        Upstream::Server(server) => server.resolve(staged, refusal.is_none()).await,
    }
}

/// Tells the upstream a parked unit, on the word of an operator that it does not have it.
///
/// # Errors
/// An outage of the store.
pub async fn parked(staged: Staged, upstream: &Upstream) -> Result<Resolved> {
    match upstream {
        Upstream::Nowhere => Ok(Resolved::Open),
        Upstream::Server(server) => server.tell_parked(staged).await,
    }
}

/// Takes an operator's word that the upstream has a unit, and where.
///
/// # Errors
/// 422 if these can't be the unit's resources, in its order.
pub fn found(staged: Staged, found: &[Found]) -> Result<Answered> {
    let resources = staged.permitted().checked().normalized().resources();
    let no = || {
        let text =
            "the place of each resource of the unit, in its order: [type]/[id] or [type]/[id]/_history/[version]";
        Error::refusal(Refusal::Invalid, "parked.places", text)
    };
    if found.len() != resources.len() {
        return Err(no());
    }
    let mut upstream = Vec::with_capacity(found.len());
    for (at, (found, resource)) in found.iter().zip(resources).enumerate() {
        let asked = request::ask(&staged, resource, at);
        let other = matches!(&asked, Ask::Put { id, .. } if *id != found.id);
        if other || *found.resource_type != **resource.resource_type() || !is_id(&found.id) {
            return Err(no());
        }
        let created = matches!(asked, Ask::Post { .. }) || staged.client_id(at).is_some();
        let status = if created { 201 } else { 200 };
        upstream.push(Located { status, id: found.id.clone(), version: found.version.clone(), last_modified: None });
    }
    if overlap(&staged, &upstream) {
        return Err(no());
    }
    Ok(Answered { staged, upstream: Some(upstream) })
}

/// Without an upstream nothing is told to anyone.
pub fn nowhere(staged: Staged) -> Answered {
    Answered { staged, upstream: None }
}

impl Server {
    async fn tell(&self, mut staged: Staged) -> Result<Answered> {
        let body = request::of(&staged, self.resolve, &[])?;
        // A crash from here on leaves a leftover of which it is not known whether it was sent.
        match self.client.tell(&body, &staged).await {
            // A crash right here leaves a leftover that the upstream has: it is looked for, not sent.
            Told::Located(located) if overlap(&staged, &located) => {
                self.park(&mut staged, OVERLAP).await?;
                Err(Error::outage(Peer::UpstreamSilent, RETRY_AFTER, OVERLAP))
            }
            Told::Located(located) => Ok(Answered { staged, upstream: Some(located) }),
            Told::Refused(error) => {
                self.desk.take_back(staged).await?;
                Err(error)
            }
            Told::Untold(why) => {
                self.desk.take_back(staged).await?;
                Err(Error::outage(Peer::Upstream, RETRY_AFTER, why))
            }
            Told::Silent(why) => {
                self.desk.mark(&mut staged, State::Unknown, None).await?;
                Err(Error::outage(Peer::UpstreamSilent, RETRY_AFTER, why))
            }
        }
    }

    async fn tell_parked(&self, mut staged: Staged) -> Result<Resolved> {
        let body = request::of(&staged, self.resolve, &[])?;
        // No longer parked before it is sent: a crash from here on leaves a leftover that may have been sent.
        self.desk.mark(&mut staged, State::Unknown, None).await?;
        match self.client.tell(&body, &staged).await {
            Told::Located(located) => self.answered(staged, located).await,
            Told::Refused(_) => {
                self.desk.take_back(staged).await?;
                Ok(Resolved::Refused)
            }
            Told::Untold(why) => {
                self.desk.mark(&mut staged, State::Parked, Some(why)).await?;
                Ok(Resolved::Open)
            }
            Told::Silent(_) => Ok(Resolved::Open),
        }
    }

    /// What the upstream's yes comes to.
    async fn answered(&self, mut staged: Staged, located: Vec<Located>) -> Result<Resolved> {
        if overlap(&staged, &located) {
            self.park(&mut staged, OVERLAP).await?;
            return Ok(Resolved::Open);
        }
        Ok(Resolved::Answered(Box::new(Answered { staged, upstream: Some(located) })))
    }

    async fn park(&self, staged: &mut Staged, why: &'static str) -> Result<()> {
        tracing::warn!(operation = %staged.operation(), why, "a unit is parked: an operator decides");
        self.desk.mark(staged, State::Parked, Some(why)).await
    }
}

/// Whether an upstream says of two entries of a transaction that they were written to one place. Which of the two stands
/// there can't be told, and the rules of transactions forbid it (FHIR R4 http.html#trules): nothing of it can be
/// recorded, however often it is tried.
fn overlap(staged: &Staged, located: &[Located]) -> bool {
    let unit = staged.permitted().checked().normalized();
    let mut seen = HashSet::with_capacity(located.len());
    let written = unit.resources().iter().zip(located).filter(|(resource, it)| it.wrote(resource.interaction()));
    unit.shape() == Shape::Transaction
        && !written.into_iter().all(|(resource, it)| seen.insert((&**resource.resource_type(), &*it.id)))
}

impl Located {
    /// Whether the entry has written something there: a conditional create that found its resource has not.
    pub fn wrote(&self, asked: &Interaction) -> bool {
        !(matches!(asked, Interaction::Create { if_none_exist: Some(_) }) && self.status == 200)
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
