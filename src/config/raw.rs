//! Settings as they are typed. The documentation of each field is what the JSON Schema says of it.
//!
//! Every key has a default or is optional here, so that one missing key does not hide the next error; `resolve` asks for
//! the required ones, and `extend("required")` marks them in the schema.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use super::quantity::{Size, Span};
use super::rooms::{
    Combine, ConsentMode, Granularity, ImplicitPolicy, IntakeDeny, LedgerRole, LogFormat, LogLevel, Payload, Resolve,
    Right, Severity, Topology, Unknown, UnknownSubject, Wait,
};
use super::secret;

/// Settings of one Sluice gateway. Paths are relative to the folder of this file.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "sluice.toml")]
#[schemars(extend("required" = ["tenant"]))]
pub(super) struct Raw {
    /// Whose gateway this is.
    pub(super) tenant: Option<Tenant>,
    /// What it listens on.
    pub(super) listen: Listen,
    /// Who may call it. An institution may have several credentials, each an entry of its own.
    pub(super) caller: Vec<Caller>,
    /// Bounds on everything that comes from outside.
    pub(super) limits: Limits,
    /// The durable store, the data keys, and the spool.
    pub(super) store: Store,
    /// The keyring. Its files must exist; `sluice keys create` makes them.
    pub(super) keys: Keys,
    /// What is made one before anything is checked.
    pub(super) normalize: Normalize,
    /// What a resource is held against.
    pub(super) check: Check,
    /// The FHIR terminology server that is asked about codes which the packages cannot tell.
    pub(super) terminology: Option<Terminology>,
    /// How consent is asked for.
    pub(super) consent: Consent,
    /// What the institutions agree on.
    pub(super) ledger: Ledger,
    /// The hospital's FHIR server. Without this table Sluice stores, assigns ids and answers itself.
    pub(super) upstream: Option<Upstream>,
    /// What `sluice ingest` uses under this file: a caller's own identity, and whom it trusts.
    pub(super) client: Option<Client>,
    /// Where events go.
    pub(super) broker: Broker,
    /// Who is told.
    pub(super) subscriber: Vec<Subscriber>,
    /// The gateway's own Merkle log.
    pub(super) log: Log,
    /// What the operator sees.
    pub(super) observe: Observe,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["id", "base_url"]))]
pub(super) struct Tenant {
    /// The institution's id on the ledger: lower case letters, digits, "." and "-", at most 63.
    pub(super) id: Option<String>,
    /// Base of the FHIR URLs that callers see, as in "https://fhir.hospital.example/fhir".
    pub(super) base_url: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Listen {
    /// Address of FHIR, the feed, the receipts, and the log unless `log` is set. Port 0 takes a free one.
    pub(super) fhir: SocketAddr,
    /// Address of health and metrics, in plain HTTP; never FHIR.
    pub(super) admin: SocketAddr,
    /// Address of the Merkle log alone, in plain HTTP: everything there is public and signed.
    pub(super) log: Option<SocketAddr>,
    /// File with the SHA-256, in hexadecimal, of the token that an operator shows at the admin address to see and decide
    /// which units and events are parked; without it nobody can.
    pub(super) operator_token_sha256_file: Option<SecretPath>,
    /// TLS of the `fhir` address. May be missing on a loopback address only.
    pub(super) tls: Option<Tls>,
    /// How long requests under way are waited for at a stop.
    pub(super) drain_timeout: Span,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            fhir: SocketAddr::from((Ipv4Addr::LOCALHOST, 8443)),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)),
            log: None,
            operator_token_sha256_file: None,
            tls: None,
            drain_timeout: Span::seconds(30),
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "each names a file, and the key says so")]
#[schemars(extend("required" = ["cert_file", "key_file"]))]
pub(super) struct Tls {
    /// PEM: the certificate, then its chain.
    pub(super) cert_file: Option<PathBuf>,
    /// PEM: its private key.
    pub(super) key_file: Option<SecretPath>,
    /// PEM: who signs the clients' certificates. Needed for callers with `cert_subject_cn` or `cert_sha256`.
    pub(super) client_ca_file: Option<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["institution"]))]
pub(super) struct Caller {
    /// The institution's id on the ledger.
    pub(super) institution: Option<String>,
    /// Common name in the subject of its client certificate. Exactly one of the three credentials.
    pub(super) cert_subject_cn: Option<String>,
    /// SHA-256 of its client certificate (DER), 64 hexadecimal digits.
    pub(super) cert_sha256: Option<String>,
    /// File with the SHA-256, in hexadecimal, of its bearer token.
    pub(super) bearer_token_sha256_file: Option<SecretPath>,
    /// What it may do. Default: read.
    pub(super) may: BTreeSet<Right>,
    /// Roles in which it may ask, codes of Consent.provision.actor.role; the first is the default.
    pub(super) roles: Vec<String>,
    /// v3 PurposeOfUse code of its requests.
    pub(super) purpose: String,
}

impl Default for Caller {
    fn default() -> Self {
        Self {
            institution: None,
            cert_subject_cn: None,
            cert_sha256: None,
            bearer_token_sha256_file: None,
            may: BTreeSet::from([Right::Read]),
            roles: Vec::new(),
            purpose: "TREAT".to_owned(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    /// One request's body, after decompression. It is streamed, not held.
    pub(super) body_bytes_max: Size,
    /// One resource. What is being worked on is held in memory.
    pub(super) resource_bytes_max: Size,
    /// A Bundle that is one unit, and all such that are worked on at a time: held in memory. A larger one is refused
    /// with 413; a batch may be larger.
    pub(super) transaction_memory_max: Size,
    /// Levels of nesting.
    pub(super) depth_max: u32,
    /// Entries of one Bundle, and lines of one NDJSON body.
    pub(super) entries_max: u32,
    /// From the first byte of a request to the last of its body, and the same again to the reply.
    pub(super) request_timeout: Span,
    /// From the acceptance of a connection, TLS included, to the end of the first request's head, and from the end of an
    /// answer to the end of the next one's; above it the connection is closed.
    pub(super) header_timeout: Span,
    /// The longest pause between two pieces of a body, and the longest that a caller takes nothing of an answer.
    pub(super) idle_timeout: Span,
    /// Requests worked on at a time; above it they are refused with 429.
    pub(super) concurrency_max: u32,
    /// Connections open at a time.
    pub(super) connections_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: Size::gib(2),
            resource_bytes_max: Size::mib(16),
            transaction_memory_max: Size::mib(16),
            depth_max: 64,
            entries_max: 1_000_000,
            request_timeout: Span::seconds(600),
            header_timeout: Span::seconds(10),
            idle_timeout: Span::seconds(30),
            concurrency_max: 64,
            connections_max: 1024,
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Store {
    /// What keeps the rows: "embedded".
    pub(super) kind: StoreKind,
    /// Folder of the store. Made if it is missing.
    pub(super) dir: PathBuf,
    /// Folder of the patients' data keys, outside `dir`: back it up apart, and keep those backups for a shorter time,
    /// since destroying a key is what erases a patient.
    pub(super) keystore_dir: PathBuf,
    /// Folder of the encrypted spool; what is in it is worth nothing after a restart.
    pub(super) spool_dir: PathBuf,
    /// Block cache in memory.
    pub(super) cache_bytes: Size,
    /// What must stay free on the disk; below, writes are refused with 503.
    pub(super) free_bytes_min: Size,
    /// How long the first answer is given again, to an idempotency key and to what is sent twice without one.
    pub(super) idempotency_window: Span,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kind: StoreKind::Embedded,
            dir: "data/store".into(),
            keystore_dir: "data/keystore".into(),
            spool_dir: "data/spool".into(),
            cache_bytes: Size::mib(16),
            free_bytes_min: Size::mib(512),
            idempotency_window: Span::seconds(86_400),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StoreKind {
    /// In this process, on a local disk.
    Embedded,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Keys {
    /// Folder of the keyring. The files below stand in it unless they are named.
    pub(super) dir: PathBuf,
    /// Wraps the data keys. Default: master.key in `dir`.
    pub(super) master_file: Option<SecretPath>,
    /// The consortium's domain key, from which patients' pseudonyms come. Default: domain.key in `dir`.
    pub(super) domain_file: Option<SecretPath>,
    /// Keys the store's indexes. Default: index.key in `dir`.
    pub(super) index_file: Option<SecretPath>,
    /// Keys the events' ids. Default: event-id.key in `dir`.
    pub(super) event_id_file: Option<SecretPath>,
    /// Signs the log's checkpoints. Default: log.pem in `dir`.
    pub(super) log_file: Option<SecretPath>,
    /// Signs the delivery of events. Default: event.pem in `dir`.
    pub(super) event_file: Option<SecretPath>,
    /// Signs the institution's operations on the ledger. Default: institution.pem in `dir`.
    pub(super) institution_file: Option<SecretPath>,
    /// Whether the files' group may read them, as on a volume of Kubernetes. Others never may.
    pub(super) group_readable: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            dir: "keys".into(),
            master_file: None,
            domain_file: None,
            index_file: None,
            event_id_file: None,
            log_file: None,
            event_file: None,
            institution_file: None,
            group_readable: false,
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Normalize {
    /// Mapping packs, applied in this order.
    pub(super) mappings: Vec<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Check {
    /// Folder of the site's rules: JSON files with JSON Schemas, FHIRPath expressions and severities.
    pub(super) rules_dir: Option<PathBuf>,
    /// Folder of FHIR packages (.tgz, unpacked folders, definitions in JSON): resources are held against the profiles of
    /// these that they claim, and extensions against their definitions.
    pub(super) packages_dir: Option<PathBuf>,
    /// How often both folders are looked at for what has changed; "0s" for never, but at SIGHUP.
    pub(super) poll: Span,
    /// The longest that the check of one resource may take; above, it is refused as partly checked.
    pub(super) time_max: Span,
    /// The most elements and operations of rules that the check of one resource may take; above, it is refused as partly
    /// checked.
    pub(super) steps_max: u32,
    /// Severity of a rule id, where it is to differ from the rule's own.
    pub(super) severity: BTreeMap<String, Severity>,
    /// What a code becomes of which nobody can tell whether it is in its value set.
    pub(super) unknown_terminology: UnknownTerminology,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            rules_dir: None,
            packages_dir: None,
            poll: Span::seconds(10),
            time_max: Span::seconds(30),
            steps_max: 200_000_000,
            severity: BTreeMap::new(),
            unknown_terminology: UnknownTerminology { required: Unknown::Issue, extensible: Unknown::Issue },
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct UnknownTerminology {
    /// Where the binding is required.
    pub(super) required: Unknown,
    /// Where it is extensible.
    pub(super) extensible: Unknown,
}

impl Default for UnknownTerminology {
    fn default() -> Self {
        Self { required: Unknown::Issue, extensible: Unknown::Issue }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub(super) struct Terminology {
    /// Base URL; "https", or "http" on a loopback address.
    pub(super) url: Option<String>,
    /// From the first byte of a question to the whole answer.
    pub(super) timeout: Span,
    /// To open a connection, TLS included.
    pub(super) connect_timeout: Span,
    /// PEM: who signs its certificate. Required for https: the system's roots are never used.
    pub(super) ca_file: Option<PathBuf>,
    /// PEM: the certificate that the gateway shows, with its chain.
    pub(super) client_cert_file: Option<PathBuf>,
    /// PEM: the private key of `client_cert_file`.
    pub(super) client_key_file: Option<SecretPath>,
    /// File with a bearer token to send.
    pub(super) token_file: Option<SecretPath>,
    /// Questions under way at a time.
    pub(super) concurrency_max: u32,
    /// Answers that are kept in memory.
    pub(super) cache_entries_max: u32,
    /// How long an answer is kept.
    pub(super) cache_for: Span,
    /// Questions in a row without an answer after which the server is left alone for a while.
    pub(super) failures_max: u32,
    /// For how long it then is.
    pub(super) pause: Span,
}

impl Default for Terminology {
    fn default() -> Self {
        Self {
            url: None,
            timeout: Span::seconds(5),
            connect_timeout: Span::seconds(2),
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            token_file: None,
            concurrency_max: 8,
            cache_entries_max: 100_000,
            cache_for: Span::seconds(3_600),
            failures_max: 5,
            pause: Span::seconds(10),
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Consent {
    /// Whether a decision holds anything back.
    pub(super) mode: ConsentMode,
    /// Which of several Consents in force decides.
    pub(super) combine: Combine,
    /// What the doors do where no Consent speaks.
    pub(super) implicit: Implicit,
    /// The oldest state of the ledger that a permit may rest on.
    pub(super) max_staleness: Span,
    /// How far the clocks of the gateway and the ledger may differ.
    pub(super) skew: Span,
    /// What a denial at intake does.
    pub(super) on_intake_deny: IntakeDeny,
    /// What happens to a resource whose patient stays unknown.
    pub(super) unknown_subject: UnknownSubject,
    /// How often a synthetic patient's permit and denial run through the live decision path.
    pub(super) self_test_interval: Span,
}

impl Default for Consent {
    fn default() -> Self {
        Self {
            mode: ConsentMode::Enforce,
            combine: Combine::DenyOverrides,
            implicit: Implicit::default(),
            max_staleness: Span::seconds(30),
            skew: Span::seconds(5),
            on_intake_deny: IntakeDeny::Refuse,
            unknown_subject: UnknownSubject::Outage,
            self_test_interval: Span::seconds(60),
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Implicit {
    /// At intake: a hospital may record what it treats, unless a Consent says no.
    pub(super) collect: ImplicitPolicy,
    /// Towards subscribers and readers.
    pub(super) disclose: ImplicitPolicy,
}

impl Default for Implicit {
    fn default() -> Self {
        Self { collect: ImplicitPolicy::Permit, disclose: ImplicitPolicy::Deny }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ledger {
    /// What it is kept by: "embedded".
    pub(super) kind: LedgerKind,
    /// This gateway's part in it.
    pub(super) role: LedgerRole,
    /// Folder of the operations. Made if it is missing.
    pub(super) dir: PathBuf,
    /// Origin line of the ledger's checkpoints. Default: the tenant's id and "/ledger".
    pub(super) origin: Option<String>,
    /// How often the log's checkpoint is anchored, also when nothing happened.
    pub(super) beat: Span,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            kind: LedgerKind::Embedded,
            role: LedgerRole::Host,
            dir: "data/ledger".into(),
            origin: None,
            beat: Span::seconds(5),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LedgerKind {
    /// Sluice's own log of operations.
    Embedded,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Client {
    /// Base URL of a gateway; "https", or "http" on a loopback address. Default: this one, at the address of
    /// `listen.fhir`.
    pub(super) url: Option<String>,
    /// PEM: who signs the gateway's certificate. Required for https: the system's roots are never used.
    pub(super) ca_file: Option<PathBuf>,
    /// PEM: the certificate that is shown, with its chain.
    pub(super) cert_file: Option<PathBuf>,
    /// PEM: the private key of `cert_file`.
    pub(super) key_file: Option<SecretPath>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub(super) struct Upstream {
    /// Base URL; "https", or "http" on a loopback address.
    pub(super) url: Option<String>,
    /// How a forward that was not answered is resolved. It is never posted again blindly.
    pub(super) resolve: Resolve,
    /// From the first byte sent to the whole answer.
    pub(super) timeout: Span,
    /// To open a connection, TLS included.
    pub(super) connect_timeout: Span,
    /// PEM: who signs its certificate. The system's roots are never used.
    pub(super) ca_file: Option<PathBuf>,
    /// PEM: the certificate that the gateway shows, with its chain.
    pub(super) client_cert_file: Option<PathBuf>,
    /// PEM: the private key of `client_cert_file`.
    pub(super) client_key_file: Option<SecretPath>,
    /// File with a bearer token to send.
    pub(super) token_file: Option<SecretPath>,
    /// How often a request that cannot have been received is sent again.
    pub(super) retries_max: u32,
    /// The first pause before it is; doubled each time.
    pub(super) retry_wait: Span,
    /// Forwards under way at a time.
    pub(super) concurrency_max: u32,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            url: None,
            resolve: Resolve::Park,
            timeout: Span::seconds(30),
            connect_timeout: Span::seconds(5),
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            token_file: None,
            retries_max: 3,
            retry_wait: Span::milliseconds(200),
            concurrency_max: 16,
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Broker {
    /// "feed": the outbox served over HTTP. "amqp": a RabbitMQ or what speaks AMQP 0-9-1 as it does.
    pub(super) kind: BrokerKind,
    /// amqp: its URL without a password, as in "amqps://broker.example:5671/%2f".
    pub(super) url: Option<String>,
    /// amqp: file with its URL, user and password included. Read again at each connection.
    pub(super) url_file: Option<SecretPath>,
    /// amqp: name of the topic exchange. Default: "sluice".
    pub(super) exchange: Option<String>,
    /// amqp: whether Sluice makes the exchange and the queues. Default: "declare".
    pub(super) topology: Option<Topology>,
    /// amqp: PEM: who signs the broker's certificate.
    pub(super) ca_file: Option<PathBuf>,
    /// amqp: PEM: the certificate that the gateway shows; authentication is then SASL EXTERNAL.
    pub(super) client_cert_file: Option<PathBuf>,
    /// amqp: PEM: the private key of `client_cert_file`.
    pub(super) client_key_file: Option<SecretPath>,
    /// amqp: the longest wait for any answer of the broker. Default: "10s".
    pub(super) timeout: Option<Span>,
    /// amqp: heartbeat, in whole seconds. Default: "10s".
    pub(super) heartbeat: Option<Span>,
    /// amqp: the longest pause between two attempts to connect. Default: "30s".
    pub(super) reconnect_wait_max: Option<Span>,
    /// feed: how long an event can be fetched. Default: "7d".
    pub(super) retention: Option<Span>,
    /// feed: how many events of one subscriber can be fetched; above it the oldest go. Default: 1000000.
    pub(super) retention_entries_max: Option<u32>,
    /// Events in flight over all lanes; a lane is one patient of one subscriber, with one event at a time.
    pub(super) window: u32,
    /// How often an event is tried before its lane is parked.
    pub(super) attempts_max: u32,
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            kind: BrokerKind::Feed,
            url: None,
            url_file: None,
            exchange: None,
            topology: None,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            timeout: None,
            heartbeat: None,
            reconnect_wait_max: None,
            retention: None,
            retention_entries_max: None,
            window: 256,
            attempts_max: 10,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum BrokerKind {
    /// The outbox served over HTTP.
    Feed,
    /// AMQP 0-9-1.
    Amqp,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["id", "institution", "purpose"]))]
pub(super) struct Subscriber {
    /// Its id in routing keys and pseudonyms: lower case letters, digits and "-", at most 63.
    pub(super) id: Option<String>,
    /// The institution's id on the ledger.
    pub(super) institution: Option<String>,
    /// The role in which it asks, a code of Consent.provision.actor.role.
    pub(super) role: Option<String>,
    /// v3 PurposeOfUse code for which it asks.
    pub(super) purpose: Option<String>,
    /// References of organisations that it belongs to, as in "Organization/insurers".
    pub(super) member_of: Vec<String>,
    /// The domain in its routing keys: lower case letters, digits and "-".
    pub(super) domain: String,
    /// FHIR resource types that it is told about; empty for all.
    pub(super) resource_types: Vec<String>,
    /// How much of a resource an event holds.
    pub(super) payload: Payload,
    /// One event per unit or per resource.
    pub(super) granularity: Granularity,
    /// What an event waits for: a checkpoint of the log, or its receipt on the ledger.
    pub(super) wait: Wait,
}

impl Default for Subscriber {
    fn default() -> Self {
        Self {
            id: None,
            institution: None,
            role: None,
            purpose: None,
            member_of: Vec::new(),
            domain: "fhir".to_owned(),
            resource_types: Vec::new(),
            payload: Payload::IdOnly,
            granularity: Granularity::Resource,
            wait: Wait::Log,
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    /// Origin line of its checkpoints. Never change it once the log has leaves. Default: the tenant's id and "/log".
    pub(super) origin: Option<String>,
    /// A batch is filled up with dummies to a multiple of this many leaves.
    pub(super) batch_multiple: NonZeroU32,
    /// The longest that a leaf waits to be sequenced.
    pub(super) beat: Span,
}

impl Default for Log {
    fn default() -> Self {
        Self { origin: None, batch_multiple: NonZeroU32::MIN.saturating_add(15), beat: Span::milliseconds(100) }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Observe {
    /// Form of the log lines on stderr.
    pub(super) log_format: LogFormat,
    /// The least that is told. No level tells anything of a health record.
    pub(super) level: LogLevel,
}

impl Default for Observe {
    fn default() -> Self {
        Self { log_format: LogFormat::Json, level: LogLevel::Info }
    }
}

/// The path of a file that holds a secret. A value that looks like the secret itself is refused and not repeated.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SecretPath(pub(super) PathBuf);

impl<'de> Deserialize<'de> for SecretPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Path;
        impl Visitor<'_> for Path {
            type Value = SecretPath;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a file that holds the secret, not the secret itself")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretPath, E> {
                if text.is_empty() || secret::looks_inline(text) {
                    return Err(E::invalid_value(de::Unexpected::Other("a secret"), &self));
                }
                Ok(SecretPath(text.into()))
            }
        }
        deserializer.deserialize_str(Path)
    }
}

impl JsonSchema for SecretPath {
    fn schema_name() -> Cow<'static, str> {
        "SecretFile".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 1, "not": { "pattern": "-----BEGIN|://|\n" },
            "description": "Path of a file that holds the secret, never the secret itself."
        })
    }
}
