//! A gateway of its own for a test: embedded parts in a temporary folder, no sockets.

use std::sync::Arc;
use std::time::Duration;

use sluice::anchor::Log;
use sluice::config::{Config, Right};
use sluice::error::{Error, Result};
use sluice::forward::{Server, Upstream};
use sluice::gateway::Gateway;
use sluice::ingest::unit::{Caller, Context, Prefer, Received};
use sluice::ingest::units::{self, Pass, Units};
use sluice::keys::Keys;
use sluice::ledger::Embedded;
use sluice::observe::Observer;
use sluice::record::{Answer, Recorder};
use sluice::serve::build::{Built, build};
use sluice::stage::{Desk, Stage};
use sluice::store::Store;
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

    /// The same with these sections of settings besides.
    pub(crate) async fn restart_with(self, more: &str) -> Self {
        let path = self.folder.path().join("sluice.toml");
        let settings = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{settings}{more}")).unwrap();
        self.restart().await
    }

    /// The same, with what admits over a store of the test's.
    pub(crate) fn over(self, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        self.rebuilt(wrap, Duration::from_hours(24))
    }

    /// The same, with an idempotency window of the test's.
    pub(crate) fn remembering(self, window: Duration) -> Self {
        self.rebuilt(|store| store, window)
    }

    fn rebuilt(mut self, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>, window: Duration) -> Self {
        let Gateway { mappings, rules, door, stage, upstream, recorder, filer } =
            Arc::into_inner(self.gateway).unwrap();
        let store = wrap(Arc::clone(recorder.store()));
        let (stage, upstream) = match (stage, upstream) {
            (Stage::Desk(desk), Upstream::Server(server)) => {
                let desk = Arc::new(Desk {
                    store: Arc::clone(&store),
                    vault: Arc::clone(&desk.vault),
                    keys: Arc::clone(&desk.keys),
                    client_ids: desk.client_ids,
                    busy: desk.busy.clone(),
                });
                (Stage::Desk(Arc::clone(&desk)), Upstream::Server(Server { desk, ..server }))
            }
            others => others,
        };
        let (vault, keys) = (Arc::clone(recorder.vault()), Arc::clone(recorder.keys()));
        let recorder = Recorder::new(store, vault, keys, Arc::clone(recorder.tenant()), window);
        self.gateway = Arc::new(Gateway { mappings, rules, door, stage, upstream, recorder, filer });
        self
    }

    async fn open(folder: tempfile::TempDir) -> Self {
        let path = folder.path().join("sluice.toml");
        let config = Config::load(&path).unwrap_or_else(|errors| panic!("{errors:?}"));
        let begun = std::time::Instant::now();
        let built = loop {
            match build(&config, &Observer::new()).await {
                Ok(built) => break built,
                // A process that another test has just forked holds what was locked here until it is a program of its own.
                Err(error) if error.to_string().contains("another process") && begun.elapsed().as_secs() < 60 => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        let Built { gateway, spools, log, ledger, watching } = built;
        let rig = Self { gateway, log, ledger, folder, spools, watching };
        rig.opened().await;
        rig
    }

    /// Waits until the mirror has caught up with the ledger, as a probe of readiness would.
    pub(crate) async fn opened(&self) {
        while self.gateway.door.ready().is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Admits a body as if it had been posted to the base.
    pub(crate) async fn admit(&self, body: &str) -> Result<Answer> {
        self.admit_from("hospital-a", body).await
    }

    /// The same, posted by this institution.
    pub(crate) async fn admit_from(&self, institution: &str, body: &str) -> Result<Answer> {
        self.gateway.admit(self.received(context_of(institution), body)?).await
    }

    /// Admits a transaction that came with an idempotency key.
    pub(crate) async fn admit_under(&self, key: &str, body: &str) -> Result<Answer> {
        self.gateway.admit(self.received(Context { idempotency_key: Some(key.into()), ..context() }, body)?).await
    }

    /// A transaction as a listener hands it on.
    pub(crate) fn received(&self, context: Context, body: &str) -> Result<Received> {
        match units(&self.spools, context, body)? {
            Units::One(unit) => Ok(*unit),
            Units::Many(_) => Err(Error::defect("a transaction was meant")),
        }
    }

    /// Admits a batch or a collection, one entry after the other, Patients first.
    pub(crate) async fn admit_each(&self, body: &str) -> Result<Vec<Answer>> {
        self.admit_passes(body, &[Pass::Patients, Pass::Others]).await
    }

    /// The same of some of the entries.
    pub(crate) async fn admit_passes(&self, body: &str, passes: &[Pass]) -> Result<Vec<Answer>> {
        let Units::Many(stream) = units(&self.spools, context(), body)? else {
            return Err(Error::defect("a batch was meant"));
        };
        let mut received = Vec::new();
        for pass in passes.iter().copied() {
            stream.each(pass, |_, unit| {
                received.push(unit?);
                Ok(())
            })?;
        }
        let mut answers = Vec::new();
        for unit in received {
            answers.push(self.gateway.admit(unit).await?);
        }
        Ok(answers)
    }

    /// Admits a batch or a collection in two groups, Patients first; what became of each, in the order sent.
    pub(crate) async fn admit_all(&self, body: &str) -> Result<Vec<Result<Answer>>> {
        let Units::Many(stream) = units(&self.spools, context(), body)? else {
            return Err(Error::defect("a batch was meant"));
        };
        let mut answers = Vec::new();
        for pass in [Pass::Patients, Pass::Others] {
            let (mut places, mut received) = (Vec::new(), Vec::new());
            stream.each(pass, |place, unit| {
                places.push(place);
                received.push(unit?);
                Ok(())
            })?;
            answers.extend(places.into_iter().zip(self.gateway.admit_all(received).await));
        }
        answers.sort_by_key(|(place, _)| *place);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }
}

/// A body as if it had been posted to the base.
pub(crate) fn units(spools: &Spools, context: Context, body: &str) -> Result<Units> {
    let mut spool = spools.begin();
    spool.write(body.as_bytes()).unwrap();
    let limits = units::Limits {
        resource_bytes_max: 32 << 20,
        transaction_bytes_max: 64 << 20,
        entries_max: 100_000,
        depth_max: 32,
    };
    units::bundle(spool.finish().unwrap(), units::Format::Json, context, limits)
}

/// What comes with a request of the hospital.
pub(crate) fn context() -> Context {
    context_of("hospital-a")
}

fn context_of(institution: &str) -> Context {
    Context {
        caller: Caller {
            institution: institution.into(),
            device: None,
            may: Arc::new([Right::Read, Right::Write, Right::Consent]),
            roles: Arc::new([]),
            purpose: Some("TREAT".into()),
        },
        received_at: time::OffsetDateTime::now_utc(),
        idempotency_key: None,
        prefer: Prefer::Minimal,
        traceparent: None,
        tracestate: None,
        labels: None,
    }
}

/// A transaction of these entries.
pub(crate) fn transaction(entries: &[impl AsRef<str>]) -> String {
    let entries: Vec<&str> = entries.iter().map(AsRef::as_ref).collect();
    format!(r#"{{"resourceType":"Bundle","type":"transaction","entry":[{}]}}"#, entries.join(","))
}
