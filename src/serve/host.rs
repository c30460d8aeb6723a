//! The ledger that this gateway hosts.
//!
//! Takes: the settings, the keyring and the store. Gives: an open ledger in which the tenant is admitted. Never: makes a
//! second ledger where the store remembers one, or goes on from an older copy than the store has seen.

use std::sync::Arc;

use super::StartError;
use crate::anchor;
use crate::config::Config;
use crate::keys::{Keys, SigningKey};
use crate::ledger::embedded::{Known, Options};
use crate::ledger::keyring::Keyring;
use crate::ledger::{Embedded, Institution, Ledger as _, Name, Operation, Origin, Role, Signer, Standing};
use crate::store::Store;

/// Opens the ledger, and makes it at the very first start. The tenant's institution key is its administrator, signs its
/// checkpoints, and is the tenant's own master key.
///
/// # Errors
/// [`StartError`]: a ledger that is gone, an older copy, or another one than the store has seen; settings that can't
/// name it.
pub async fn open(config: &Config, keys: &Arc<Keys>, store: &dyn Store) -> Result<Arc<Embedded>, StartError> {
    let settings = |error: &dyn std::fmt::Display| StartError::Settings(format!("ledger: {error}"));
    let part = |error: &dyn std::fmt::Display| StartError::Part(format!("ledger: {error}"));
    let name = Name::parse(&config.tenant.id).map_err(|error| settings(&error))?;
    let ledger = Origin::parse(&config.ledger.origin).map_err(|error| settings(&error))?;
    let log = Origin::parse(&config.log.origin).map_err(|error| settings(&error))?;
    if !log.belongs_to(&name) {
        let text = format!("log.origin: expected {name}, alone or followed by / and a path: who anchors a log owns it");
        return Err(StartError::Settings(text));
    }
    let key: Arc<dyn Signer> = Arc::new(Keyring::new(Arc::clone(keys), SigningKey::Institution));
    let known = anchor::known(store).await.map_err(|error| part(&error))?;
    let known = known.map(|(size, root)| Known { size, root });
    let options = Options {
        gateway: Some(Arc::clone(&key)),
        known,
        ..Options::new(config.ledger.dir.clone(), ledger.clone(), Arc::clone(&key))
    };
    let public_key = key.public_key();
    // Replaying reads the whole log, so it does not hold up the runtime.
    let opened = tokio::task::spawn_blocking(move || {
        if options.known.is_none() && !Embedded::stands(&options.dir)? {
            Embedded::create(&options, public_key)?;
        }
        Embedded::open(&options)
    });
    let opened = opened.await.map_err(|error| part(&error))?.map_err(|error| part(&error))?;
    if opened.institution(&name).is_none() {
        let tenant = Institution {
            id: name,
            version: 1,
            standing: Standing::Admitted,
            roles: vec![Role::Hospital],
            attests: true,
            master: public_key,
        };
        let op = Operation::Institution(tenant).sign(&ledger, &[key.as_ref()]).map_err(|error| part(&error))?;
        // A crash before this leaves a ledger without members, and the next start comes here again.
        for ticket in opened.submit(&[op]).await.map_err(|error| part(&error))? {
            ticket.committed().map_err(|error| part(&error))?;
        }
    }
    Ok(Arc::new(opened))
}
