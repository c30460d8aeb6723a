//! Builds a gateway from its settings.
//!
//! Takes: [`Config`]. Gives: an open [`Gateway`] and the parts that its faces need. Never: binds a port.

use std::sync::Arc;

use super::{StartError, host};
use crate::anchor::Log;
use crate::check::Rules;
use crate::config::Config;
use crate::consent::door::Door;
use crate::consent::identify::Pseudonyms;
use crate::gateway::Gateway;
use crate::keys::{Files, Keys};
use crate::ledger::Embedded;
use crate::normalize::Mappings;
use crate::observe::Observer;
use crate::record::Recorder;
use crate::store::spool::Spools;

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
}

/// Opens keys, store, ledger and log, loads mappings and rules, and puts the stages together.
///
/// # Errors
/// [`StartError`] that names the file or folder which is not what it should be.
pub async fn build(config: &Config, observer: &Arc<Observer>) -> Result<Built, StartError> {
    let settings = |error: &dyn std::fmt::Display| StartError::Settings(error.to_string());
    let keys = Arc::new(Keys::open(&Files::from(&config.keys)).map_err(|error| settings(&error))?);
    let opened = crate::store::open(&config.store, Arc::clone(&keys)).await.map_err(|error| settings(&error))?;
    let ledger = host::open(config, &keys, &*opened.store).await?;
    let log = Log::open(Arc::clone(&opened.store), Arc::clone(&keys), &config.log, Arc::clone(observer));
    let log = Arc::new(log.await.map_err(|error| settings(&error))?);
    let tenant: Arc<str> = config.tenant.id.as_str().into();
    let recorder = Recorder::new(
        Arc::clone(&opened.store),
        opened.vault,
        Arc::clone(&keys),
        Arc::clone(&tenant),
        config.store.idempotency_window,
    );
    let door = Door {
        settings: config.consent.clone(),
        store: opened.store,
        keys: Arc::clone(&keys),
        pseudonyms: Pseudonyms::new(keys, tenant, Vec::new()),
        upstream: None,
    };
    let rules = Rules::new(&config.check).map_err(|error| settings(&error))?;
    let gateway = Gateway { mappings: Mappings::default(), rules, door, recorder };
    Ok(Built { gateway: Arc::new(gateway), spools: opened.spools, log, ledger })
}
