//! Settings as they are meant: one plain struct per room, every quantity resolved, every kind chosen.
//!
//! Gives data and nothing else. Whoever holds one of these structs may rely on what its fields say: `resolve` has
//! checked it. Paths are joined to the folder of the settings file; sizes are in bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::SecretFile;

/// All settings of one gateway.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose gateway this is.
    pub tenant: Tenant,
    /// What it listens on.
    pub listen: Listen,
    /// Who may call it; each institution may have several credentials.
    pub callers: Vec<Caller>,
    /// Bounds on everything that comes from outside.
    pub limits: Limits,
    /// The durable store, the keystore of the data keys, and the spool.
    pub store: Store,
    /// Where the keyring stands.
    pub keys: Keys,
    /// What is made one before anything is checked.
    pub normalize: Normalize,
    /// What a resource is held against.
    pub check: Check,
    /// Who is asked about codes that the packages cannot tell.
    pub terminology: Option<Terminology>,
    /// How consent is asked for at the doors.
    pub consent: Consent,
    /// What the institutions agree on.
    pub ledger: Ledger,
    /// The hospital's FHIR server; none if Sluice stores and answers itself.
    pub upstream: Option<Upstream>,
    /// What `sluice ingest` uses: a caller's own identity, and whom it trusts.
    pub client: Option<Client>,
    /// Where events go.
    pub broker: Broker,
    /// Who is told; their ids are unique.
    pub subscribers: Vec<Subscriber>,
    /// The gateway's own Merkle log.
    pub log: Log,
    /// What the operator sees.
    pub observe: Observe,
}

/// Whose gateway this is.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The institution's id on the ledger; lower case letters, digits, `.` and `-`, at most 63.
    pub id: String,
    /// The base of the FHIR URLs that callers see; absolute, without a trailing slash.
    pub base_url: String,
}

/// What the gateway listens on.
#[derive(Clone, Debug)]
pub struct Listen {
    /// `/fhir`, `/events`, `/receipts`, and `/log` unless `log` is set.
    pub fhir: SocketAddr,
    /// Health and metrics; never FHIR.
    pub admin: SocketAddr,
    /// `/log` on a listener of its own, in plain HTTP: everything there is public and signed.
    pub log: Option<SocketAddr>,
    /// A file with the SHA-256, in hexadecimal, of the operator's token on the admin port; without it nobody sees or
    /// changes which events are parked.
    pub operator_token_sha256_file: Option<SecretFile>,
    /// TLS of the `fhir` listener; `None` only on a loopback address.
    pub tls: Option<Tls>,
    /// How long requests under way are waited for at a stop.
    pub drain_timeout: Duration,
}

/// A server's TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM: the certificate, then its chain.
    pub cert_file: PathBuf,
    /// PEM: its private key.
    pub key_file: SecretFile,
    /// PEM: who signs the clients' certificates; a certificate is asked for if set, and required where no token is given.
    pub client_ca_file: Option<PathBuf>,
}

/// One credential of one institution.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The institution's id on the ledger.
    pub institution: String,
    /// How it is recognised.
    pub credential: Credential,
    /// What it may do; never empty.
    pub may: Vec<Right>,
    /// The roles in which it may ask, as codes of `Consent.provision.actor.role`; the first is the default.
    pub roles: Vec<String>,
    /// v3 PurposeOfUse code of its requests.
    pub purpose: String,
}

/// What a caller may do. Each is given by name: none of them holds another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Right {
    /// Ask for resources, and fetch the events of its institution's subscribers; consent decides each time what is shown.
    Read,
    /// Send resources other than Consents.
    Write,
    /// Send Consents, which decide who may see what: for a house that attests what its patients say.
    Consent,
}

impl Right {
    /// What it takes to send a resource of this type.
    pub fn to_send(resource_type: &str) -> Self {
        if resource_type == "Consent" { Self::Consent } else { Self::Write }
    }
}

/// How a caller is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The common name in the subject of its verified client certificate.
    CertificateCommonName(String),
    /// SHA-256 of its verified client certificate's DER.
    CertificateSha256([u8; 32]),
    /// A file with the SHA-256, in hexadecimal, of the bearer token that it sends.
    TokenSha256(SecretFile),
}

/// Bounds on everything that comes from outside.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one request's body, after decompression.
    pub body_bytes_max: u64,
    /// Bytes of one resource.
    pub resource_bytes_max: usize,
    /// Bytes of a Bundle that is one unit, and of all such that are worked on at a time.
    pub transaction_memory_max: usize,
    /// Levels of nesting.
    pub depth_max: usize,
    /// Entries of one Bundle, and lines of one NDJSON body.
    pub entries_max: usize,
    /// From the first byte of a request to the last of its body, and the same again to the reply.
    pub request_timeout: Duration,
    /// From the acceptance of a connection, or the last reply on it, to the end of the next request's head.
    pub header_timeout: Duration,
    /// The longest pause between two pieces of a body.
    pub idle_timeout: Duration,
    /// Requests worked on at a time; above it they are shed with 429.
    pub concurrency_max: usize,
    /// Connections open at a time.
    pub connections_max: usize,
}

/// The durable store, the keystore of the data keys, and the spool.
#[derive(Clone, Debug)]
pub struct Store {
    /// Folder of the store.
    pub dir: PathBuf,
    /// Folder of the data keys, apart from `dir` so that its backups can be kept for a shorter time.
    pub keystore_dir: PathBuf,
    /// Folder of the encrypted spool; what is in it is worth nothing after a restart.
    pub spool_dir: PathBuf,
    /// Bytes of the block cache.
    pub cache_bytes: usize,
    /// Bytes that must stay free on the disk; below, writes are refused.
    pub free_bytes_min: u64,
    /// How long the first answer to an idempotency key, or to a bundle of nothing but POST, is given again.
    pub idempotency_window: Duration,
}

/// Where the keyring stands. Files that are missing are an error, never made on the way.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The folder that the names below are relative to, unless a file is named in the settings.
    pub dir: PathBuf,
    /// Wraps the data keys. `master.key`
    pub master_file: SecretFile,
    /// The consortium's domain key of the subjects' pseudonyms. `domain.key`
    pub domain_file: SecretFile,
    /// Keys the store's indexes. `index.key`
    pub index_file: SecretFile,
    /// Keys the events' ids. `event-id.key`
    pub event_id_file: SecretFile,
    /// Signs the log's checkpoints. `log.pem`
    pub log_file: SecretFile,
    /// Signs events' delivery. `event.pem`
    pub event_file: SecretFile,
    /// Signs the institution's operations on the ledger. `institution.pem`
    pub institution_file: SecretFile,
    /// Whether the files' group may read them; others never may.
    pub group_readable: bool,
}

/// What is made one before anything is checked.
#[derive(Clone, Debug)]
pub struct Normalize {
    /// Mapping packs, applied in this order.
    pub mappings: Vec<PathBuf>,
}

/// What a resource is held against.
#[derive(Clone, Debug, Default)]
pub struct Check {
    /// Folder of the site's rules; `None` if there are none.
    pub rules_dir: Option<PathBuf>,
    /// Folder of FHIR packages, whose profiles and extensions are held too; `None` if there are none.
    pub packages_dir: Option<PathBuf>,
    /// How often both are looked at for what has changed; `None` for never.
    pub poll: Option<Duration>,
    /// What the check of one resource may cost.
    pub budget: Budget,
    /// Severity of a rule id, where it differs from the rule's own.
    pub severity: BTreeMap<String, Severity>,
    /// What a code becomes of which nobody can tell whether it is in its value set.
    pub unknown_terminology: UnknownTerminology,
}

/// What the check of one resource may cost. Above, it is refused as partly checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Time.
    pub time_max: Duration,
    /// Elements that are visited, and operations of rules.
    pub steps_max: u64,
}

impl Default for Budget {
    /// None that a command would meet.
    fn default() -> Self {
        Self { time_max: Duration::from_hours(24), steps_max: u64::MAX }
    }
}

/// What a code becomes of which nobody can tell whether it is in its value set, by the strength of the binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnknownTerminology {
    /// Where it is required.
    pub required: Unknown,
    /// Where it is extensible.
    pub extensible: Unknown,
}

/// A FHIR terminology server.
#[derive(Clone, Debug)]
pub struct Terminology {
    /// Base URL; `https`, or `http` on a loopback address.
    pub url: http::Uri,
    /// From the first byte of a question to the whole answer.
    pub timeout: Duration,
    /// To open a connection, TLS included.
    pub connect_timeout: Duration,
    /// PEM: who signs its certificate; the system's roots are never used.
    pub ca_file: Option<PathBuf>,
    /// PEM: the certificate and key that the gateway shows.
    pub client: Option<(PathBuf, SecretFile)>,
    /// A file with a bearer token to send.
    pub token_file: Option<SecretFile>,
    /// Questions under way at a time.
    pub concurrency_max: usize,
    /// Answers that are kept in memory.
    pub cache_entries_max: usize,
    /// How long an answer is kept.
    pub cache_for: Duration,
    /// Questions in a row without an answer after which it is left alone.
    pub failures_max: u32,
    /// For how long it then is.
    pub pause: Duration,
}

/// Severity that the settings give to a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The unit is refused.
    Error,
    /// Told, not refused.
    Warning,
    /// Told, not refused.
    Information,
    /// Not told.
    Off,
}

/// What a code becomes of which nobody can tell whether it is in its value set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// An issue that says "not checked".
    #[default]
    Issue,
    /// An error: the unit is refused (422); as long as the terminology server does not answer, an outage.
    Refuse,
    /// An outage: 503, to be sent again later.
    Outage,
}

/// How consent is asked for at the doors.
#[derive(Clone, Debug)]
pub struct Consent {
    /// Whether a decision holds anything back.
    pub mode: ConsentMode,
    /// Which of several Consents in force decides.
    pub combine: Combine,
    /// What the doors do where no Consent speaks.
    pub implicit: Implicit,
    /// The oldest state of the ledger that a permit may rest on.
    pub max_staleness: Duration,
    /// How far the clocks of the gateway and the ledger may differ.
    pub skew: Duration,
    /// What a denial at intake does.
    pub on_intake_deny: IntakeDeny,
    /// What happens to a resource whose patient stays unknown.
    pub unknown_subject: UnknownSubject,
    /// How often the self-test runs.
    pub self_test_interval: Duration,
}

/// Whether a decision holds anything back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ConsentMode {
    /// A denial holds back.
    Enforce,
    /// Decides, records and reports, and lets everything through.
    Observe,
}

/// Which of several Consents in force decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// One denial is enough.
    DenyOverrides,
    /// The one given last.
    MostRecent,
}

/// What the doors do where no Consent speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Implicit {
    /// At intake.
    pub collect: ImplicitPolicy,
    /// Towards subscribers and readers.
    pub disclose: ImplicitPolicy,
}

/// What a door does where no Consent speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImplicitPolicy {
    /// Lets through.
    Permit,
    /// Holds back.
    Deny,
}

/// What a denial at intake does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IntakeDeny {
    /// 403; nothing is kept.
    Refuse,
    /// The upstream gets it, nobody else is told.
    ForwardUnannounced,
}

/// What happens to a resource whose patient is neither in the bundle, nor known from before, nor at the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownSubject {
    /// Cannot be decided: 503, to be sent again once the patient is known.
    Outage,
    /// Collected by the implicit policy, and disclosed to nobody.
    Collect,
}

/// What the institutions agree on: kind `embedded`.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// This gateway's part in it.
    pub role: LedgerRole,
    /// Folder of the operations.
    pub dir: PathBuf,
    /// Origin line of the ledger's own checkpoints.
    pub origin: String,
    /// How often the log's checkpoint is anchored, also when nothing happened.
    pub beat: Duration,
}

/// A gateway's part in the embedded ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LedgerRole {
    /// Its single writer.
    Host,
}

/// What a caller uses to reach a gateway.
#[derive(Clone, Debug)]
pub struct Client {
    /// `[base]` of the gateway; `https`, or `http` on a loopback address. `None`: the one of these settings.
    pub url: Option<http::Uri>,
    /// PEM: who signs the gateway's certificate; the system's roots are never used.
    pub ca_file: Option<PathBuf>,
    /// PEM: the certificate and key that it shows.
    pub identity: Option<(PathBuf, SecretFile)>,
}

/// The hospital's FHIR server.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Base URL; `https`, or `http` on a loopback address.
    pub url: http::Uri,
    /// How a forward that was not answered is resolved.
    pub resolve: Resolve,
    /// From the first byte sent to the whole answer.
    pub timeout: Duration,
    /// To open a connection, TLS included.
    pub connect_timeout: Duration,
    /// PEM: who signs its certificate; the system's roots are never used.
    pub ca_file: Option<PathBuf>,
    /// PEM: the certificate and key that the gateway shows.
    pub client: Option<(PathBuf, SecretFile)>,
    /// A file with a bearer token to send.
    pub token_file: Option<SecretFile>,
    /// How often a request that cannot have been received is sent again.
    pub retries_max: u32,
    /// The first pause before it is; doubled each time.
    pub retry_wait: Duration,
    /// Forwards under way at a time.
    pub concurrency_max: usize,
}

/// How a forward that was not answered is resolved. It is never posted again blindly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Resolve {
    /// Creates go out as PUT under ids of ours, so sending again is harmless.
    ClientIds,
    /// Resources carry the operation's tag, which is searched for.
    TagProbe,
    /// Waits for an operator.
    Park,
}

/// Where events go.
#[derive(Clone, Debug)]
pub struct Broker {
    /// The kind and its settings.
    pub kind: BrokerKind,
    /// Events in flight over all lanes; one per lane.
    pub window: usize,
    /// How often an event is tried before its lane is parked.
    pub attempts_max: u32,
}

/// The kinds of broker.
#[derive(Clone, Debug)]
pub enum BrokerKind {
    /// AMQP 0-9-1, as RabbitMQ speaks it.
    Amqp {
        /// Where it is, with user and password if it wants them.
        address: BrokerAddress,
        /// The topic exchange.
        exchange: String,
        /// Whether Sluice makes the exchange and the queues.
        topology: Topology,
        /// Its certificates; with a client certificate, authentication is SASL EXTERNAL.
        tls: BrokerTls,
        /// Every wait for the broker.
        timeout: Duration,
        /// Heartbeat agreed with the broker, in whole seconds.
        heartbeat: Duration,
        /// The longest pause between two attempts to connect.
        reconnect_wait_max: Duration,
    },
    /// The outbox served over HTTP.
    Feed(Feed),
}

/// The embedded feed.
#[derive(Clone, Debug)]
pub struct Feed {
    /// How long an event can be fetched.
    pub retention: Duration,
    /// How many events of one subscriber can be fetched; above it the oldest go.
    pub entries_max: u64,
}

/// An AMQP URL, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerAddress {
    /// Stands in the settings: no password in it.
    Url(String),
    /// Stands in a file; read it again at each connection, so that a rotated password is seen.
    File(SecretFile),
}

/// TLS towards the broker.
#[derive(Clone, Debug, Default)]
pub struct BrokerTls {
    /// PEM: who signs its certificate.
    pub ca_file: Option<PathBuf>,
    /// PEM: the certificate and key that the gateway shows.
    pub client: Option<(PathBuf, SecretFile)>,
}

/// Whether Sluice makes the exchange and the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// Declares them.
    Declare,
    /// Only checks that they are there.
    Passive,
}

/// An institution that is told.
#[derive(Clone, Debug)]
pub struct Subscriber {
    /// Its id in routing keys and pairwise pseudonyms; lower case letters, digits and `-`.
    pub id: String,
    /// The institution's id on the ledger.
    pub institution: String,
    /// The role in which it asks, a code of `Consent.provision.actor.role`.
    pub role: Option<String>,
    /// v3 PurposeOfUse code.
    pub purpose: String,
    /// References of organisations that it belongs to.
    pub member_of: Vec<String>,
    /// The domain in its routing keys; lower case letters, digits and `-`.
    pub domain: String,
    /// FHIR resource types that it is told about; empty for all.
    pub resource_types: Vec<String>,
    /// How much of a resource an event holds.
    pub payload: Payload,
    /// One event per unit or per resource.
    pub granularity: Granularity,
    /// What an event waits for.
    pub wait: Wait,
}

/// How much of a resource an event holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Payload {
    /// Its type and id.
    IdOnly,
    /// Nothing but that something happened.
    None,
    /// All of it.
    Full,
}

/// One event per unit or per resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// One event for all resources of a unit about one subject.
    Unit,
    /// One event per resource.
    Resource,
}

/// What an event waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// A signed and durable checkpoint of the gateway's log.
    Log,
    /// A receipt of that checkpoint on the ledger.
    Ledger,
}

/// The gateway's own Merkle log.
#[derive(Clone, Debug)]
pub struct Log {
    /// Origin line of its checkpoints.
    pub origin: String,
    /// A batch is filled up with dummies to a multiple of this many leaves.
    pub batch_multiple: NonZeroU32,
    /// The longest that a leaf waits to be sequenced.
    pub beat: Duration,
}

/// What the operator sees.
#[derive(Clone, Debug)]
pub struct Observe {
    /// Form of the log lines on stderr.
    pub log_format: LogFormat,
    /// The least that is told.
    pub level: LogLevel,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a terminal.
    Text,
}

/// The least that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// What an operator must act on.
    Error,
    /// What may need acting on.
    Warn,
    /// What happened.
    Info,
    /// Why it happened.
    Debug,
    /// Each step.
    Trace,
}
