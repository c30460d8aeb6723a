//! A gateway of its own for a test: embedded parts in a temporary folder, no sockets.

use std::sync::Arc;

use sluice::anchor::Log;
use sluice::config::Config;
use sluice::error::{Error, Result};
use sluice::gateway::Gateway;
use sluice::ingest::unit::{Caller, Context, Prefer};
use sluice::ingest::units::{self, Units};
use sluice::keys::Keys;
use sluice::ledger::Embedded;
use sluice::observe::Observer;
use sluice::record::Answer;
use sluice::serve::build::{Built, build};
use sluice::store::spool::Spools;

/// The gateway and its folder, which goes with it.
pub(crate) struct Rig {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) log: Arc<Log>,
    pub(crate) ledger: Arc<Embedded>,
    folder: tempfile::TempDir,
    spools: Spools,
    pub(crate) watching: tokio::task::JoinSet<()>,
}

const SETTINGS: &str = r#"
[tenant]
id = "hospital-a"
base_url = "https://a.example/fhir"
[listen]
fhir = "127.0.0.1:0"
admin = "127.0.0.1:0"
[[caller]]
institution = "hospital-a"
bearer_token_sha256_file = "token"
roles = ["AUT"]
purpose = "TREAT"
[store]
dir = "store"
keystore_dir = "keystore"
spool_dir = "spool"
[keys]
dir = "keys"
[ledger]
dir = "ledger"
origin = "ledger.example/consortium"
[log]
origin = "hospital-a/log"
"#;

impl Rig {
    /// One with the least settings.
    pub(crate) async fn new() -> Self {
        Self::with("").await
    }

    /// One with these sections of settings besides.
    pub(crate) async fn with(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Keys::create(&folder.path().join("keys")).unwrap();
        std::fs::write(folder.path().join("token"), "0".repeat(64)).unwrap();
        std::fs::write(folder.path().join("sluice.toml"), format!("{SETTINGS}{settings}")).unwrap();
        Self::open(folder).await
    }

    /// The same again after a stop, as if the process had ended.
    pub(crate) async fn restart(self) -> Self {
        let Self { gateway, log, ledger, folder, spools, mut watching } = self;
        watching.shutdown().await;
        drop((gateway, log, ledger, spools));
        Self::open(folder).await
    }

    async fn open(folder: tempfile::TempDir) -> Self {
        let path = folder.path().join("sluice.toml");
        let config = Config::load(&path).unwrap_or_else(|errors| panic!("{errors:?}"));
        let Built { gateway, spools, log, ledger, watching } = build(&config, &Observer::new()).await.unwrap();
        let rig = Self { gateway, log, ledger, folder, spools, watching };
        rig.opened().await;
        rig
    }

    /// Waits until the mirror has caught up with the ledger, as a probe of readiness would.
    pub(crate) async fn opened(&self) {
        while self.gateway.door.ready().is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    /// Admits a body as if it had been posted to the base.
    pub(crate) async fn admit(&self, body: &str) -> Result<Answer> {
        let mut spool = self.spools.begin();
        spool.write(body.as_bytes()).unwrap();
        let limits = units::Limits {
            resource_bytes_max: 1 << 20,
            transaction_bytes_max: 64 << 20,
            entries_max: 100_000,
            depth_max: 32,
        };
        match units::bundle(spool.finish().unwrap(), context(), limits)? {
            Units::One(unit) => self.gateway.admit(*unit).await,
            Units::Many(_) => Err(Error::defect("a transaction was meant")),
        }
    }
}

fn context() -> Context {
    Context {
        caller: Caller {
            institution: "hospital-a".into(),
            device: None,
            roles: Arc::new([]),
            purpose: Some("TREAT".into()),
        },
        received_at: time::OffsetDateTime::now_utc(),
        idempotency_key: None,
        prefer: Prefer::Minimal,
        traceparent: None,
    }
}

/// A transaction of these entries.
pub(crate) fn transaction(entries: &[impl AsRef<str>]) -> String {
    let entries: Vec<&str> = entries.iter().map(AsRef::as_ref).collect();
    format!(r#"{{"resourceType":"Bundle","type":"transaction","entry":[{}]}}"#, entries.join(","))
}
