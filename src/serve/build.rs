//! Builds a gateway from its settings.
//!
//! Takes: [`Config`]. Gives: an open [`Gateway`] and the parts that its faces need. Never: binds a port.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{StartError, host};
use crate::anchor::{Log, OpenError};
use crate::check::Rulebook;
use crate::config::{Config, Resolve};
use crate::consent::door::{Door, Parts};
use crate::consent::follow::Follower;
use crate::consent::identify::Pseudonyms;
use crate::consent::labels::Labeler;
use crate::consent::selftest;
use crate::consent::subjects::PatientSource;
use crate::forward::{Client, Server, Upstream};
use crate::gateway::Gateway;
use crate::keys::{Files, Keys, SigningKey};
use crate::ledger::keyring::Keyring;
use crate::ledger::{Embedded, Ledger, Name};
use crate::normalize::Mappings;
use crate::observe::Observer;
use crate::record::Recorder;
use crate::record::file::Filer;
use crate::stage::{Busy, Desk, Stage};
use crate::store::spool::Spools;
use crate::store::{Direction, Table};
use crate::terminology::{Remote, Terminology};

/// An open gateway.
pub struct Built {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Where bodies and answers wait.
    pub spools: Spools,
    /// The gateway's own log.
    pub log: Arc<Log>,
    /// The ledger that it hosts.
    pub ledger: Arc<Embedded>,
    /// What keeps the doors informed; it ends with this.
    pub watching: JoinSet<()>,
}

/// Opens keys, store, ledger and log, loads mappings and rules, and puts the stages together.
///
/// # Errors
/// [`StartError`] that names the file or folder which is not what it should be.
pub async fn build(config: &Config, observer: &Arc<Observer>) -> Result<Built, StartError> {
    let settings = |error: &dyn std::fmt::Display| StartError::Settings(error.to_string());
    let part = |error: &dyn std::fmt::Display| StartError::Part(error.to_string());
    let keys = Arc::new(Keys::open(&Files::from(&config.keys)).map_err(|error| settings(&error))?);
    let opened = crate::store::open(&config.store, Arc::clone(&keys)).await.map_err(|error| part(&error))?;
    let ledger = host::open(config, &keys, &*opened.store).await?;
    let log = Log::open(Arc::clone(&opened.store), Arc::clone(&keys), &config.log, Arc::clone(observer));
    let log = Arc::new(log.await.map_err(|error| match error {
        OpenError::Origin => settings(&error),
        error => part(&error),
    })?);
    let tenant: Arc<str> = config.tenant.id.as_str().into();
    let client = config.upstream.as_ref().map(Client::new).transpose().map_err(|error| settings(&error))?.map(Arc::new);
    let (stage, upstream) = if let (Some(settings), Some(client)) = (&config.upstream, &client) {
        let desk = Arc::new(Desk {
            store: Arc::clone(&opened.store),
            vault: Arc::clone(&opened.vault),
            keys: Arc::clone(&keys),
            client_ids: settings.resolve == Resolve::ClientIds,
            busy: Busy::default(),
        });
        let server = Server { client: Arc::clone(client), desk: Arc::clone(&desk), resolve: settings.resolve };
        (Stage::Desk(desk), Upstream::Server(server))
    } else {
        let left = opened.store.scan(Table::Staged, Desk::states(), 1, Direction::Up).await;
        if !left.map_err(|error| settings(&error))?.is_empty() {
            tracing::warn!("units are still on their way to an upstream that the settings do not name any more");
        }
        (Stage::Local, Upstream::Nowhere)
    };
    let recorder = Recorder::new(
        Arc::clone(&opened.store),
        Arc::clone(&opened.vault),
        Arc::clone(&keys),
        Arc::clone(&tenant),
        config.store.idempotency_window,
    );
    recorder.go_on().await.map_err(|error| part(&error))?;
    let mappings = Mappings::load(&config.normalize, &config.tenant.base_url).map_err(|error| settings(&error))?;
    let door = Arc::new(Door::new(Parts {
        settings: config.consent.clone(),
        tenant: Arc::clone(&tenant),
        base_url: config.tenant.base_url.as_str().into(),
        store: opened.store,
        vault: opened.vault,
        keys: Arc::clone(&keys),
        pseudonyms: Pseudonyms::new(Arc::clone(&keys), tenant, mappings.shared_systems()),
        upstream: client.map(|client| client as Arc<dyn PatientSource>),
        labeler: Labeler::shipped().map_err(|error| settings(&error))?,
        observer: Arc::clone(observer),
    }));
    // Before a door opens: whose Consents are recorded and not on the ledger.
    recorder.mark_unfiled(&door).await.map_err(|error| part(&error))?;
    let watching = watch(&door, &ledger, observer).await?;
    let house = Name::parse(&config.tenant.id).map_err(|error| settings(&error))?;
    let signer = Arc::new(Keyring::new(keys, SigningKey::Institution));
    let filer = Filer::new(Arc::clone(&ledger) as Arc<dyn Ledger>, house, signer);
    let remote = config.terminology.as_ref().map(|it| Remote::new(it, Arc::clone(observer))).transpose();
    let terminology = remote.map_err(|error| settings(&error))?.map(|it| Arc::new(it) as Arc<dyn Terminology>);
    let rules = Rulebook::open(&config.check, &config.tenant.id, terminology).map_err(|error| settings(&error))?;
    tracing::info!(set = &**rules.current().id(), "rules read");
    let gateway = Gateway { mappings, rules, door, stage, upstream, recorder, filer };
    Ok(Built { gateway: Arc::new(gateway), spools: opened.spools, log, ledger, watching })
}

/// Keeps the doors informed: the mirror follows the ledger, and the self-test asks again and again. Returns once the
/// first test was made; where it fails the gateway starts, is not ready and lets nothing through, so that the operator
/// can see why.
async fn watch(door: &Arc<Door>, ledger: &Arc<Embedded>, observer: &Arc<Observer>) -> Result<JoinSet<()>, StartError> {
    let follower = Follower {
        ledger: Arc::clone(ledger) as Arc<dyn Ledger>,
        mirror: Arc::clone(door.mirror()),
        observer: Arc::clone(observer),
        staleness_max: door.settings().max_staleness,
    };
    selftest::install(door).map_err(|error| StartError::Part(error.to_string()))?;
    let mut watching = JoinSet::new();
    watching.spawn(follower.run());
    // What it found is told where it is found.
    let _ = selftest::run(door).await;
    watching.spawn(selftest::repeat(Arc::clone(door)));
    Ok(watching)
}
