//! Builds a gateway from its settings.
//!
//! Takes: [`Config`]. Gives: an open [`Gateway`] and the parts that its faces need. Never: binds a port.

use std::sync::Arc;

use super::StartError;
use crate::check::Rules;
use crate::config::Config;
use crate::consent::door::Door;
use crate::consent::identify::Pseudonyms;
use crate::gateway::Gateway;
use crate::keys::{Files, Keys};
use crate::normalize::Mappings;
use crate::record::Recorder;
use crate::store::spool::Spools;

/// An open gateway.
pub struct Built {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Where bodies and answers wait.
    pub spools: Spools,
}

/// Opens keys and store, loads mappings and rules, and puts the stages together.
///
/// # Errors
/// [`StartError`] that names the file or folder which is not what it should be.
pub async fn build(config: &Config) -> Result<Built, StartError> {
    let settings = |error: &dyn std::fmt::Display| StartError::Settings(error.to_string());
    let keys = Arc::new(Keys::open(&Files::from(&config.keys)).map_err(|error| settings(&error))?);
    let opened = crate::store::open(&config.store, Arc::clone(&keys)).await.map_err(|error| settings(&error))?;
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
    Ok(Built { gateway: Arc::new(gateway), spools: opened.spools })
}
