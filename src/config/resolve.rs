//! From what was typed to what is meant: required keys, bounds, and what one key says of another.
//!
//! Takes `Raw` and its source; gives [`Config`], or everything that is wrong. A room with an error gets stand-in values,
//! so that the rest is looked at too; they are never seen, since one error is enough for there to be no `Config`.

mod resolver;
mod value;

use std::collections::BTreeMap;
use std::path::Path;

use super::ConfigError;
use super::quantity::{Size, Span};
use super::raw::{self, Raw, SecretPath};
use super::rooms::{
    Broker, BrokerAddress, BrokerKind, BrokerTls, Budget, Caller, Check, Client, Config, Consent, Credential, Feed,
    Implicit, Keys, Ledger, Limits, Listen, Log, Normalize, Observe, Store, Subscriber, Tenant, Terminology, Tls,
    Topology, Unknown, UnknownTerminology, Upstream,
};
use super::secret::SecretFile;
use super::source::Source;
use resolver::Resolver;

pub(super) use resolver::Files;

/// Checks all of `raw` and gives what it means.
pub(super) fn resolve(raw: &Raw, source: Source<'_>, files: Files) -> Result<Config, Vec<ConfigError>> {
    let folder = source.folder().to_owned();
    let mut resolver = Resolver { source, folder, files };
    let config = resolver.config(raw);
    resolver.source.finish()?;
    Ok(config)
}

impl Resolver<'_> {
    fn config(&mut self, raw: &Raw) -> Config {
        let tenant = self.tenant(raw.tenant.as_ref());
        let log = self.log(&raw.log, &tenant.id);
        let ledger = self.ledger(&raw.ledger, &tenant.id);
        if log.origin == ledger.origin {
            self.fail(
                "ledger.origin",
                "expected another origin than log.origin: two logs with one name look like a fork",
            );
        }
        Config {
            listen: self.listen(&raw.listen),
            callers: self.callers(raw),
            limits: self.limits(&raw.limits),
            store: self.store(raw),
            keys: self.keys(&raw.keys),
            normalize: Normalize {
                mappings: (raw.normalize.mappings.iter().enumerate())
                    .map(|(index, path)| self.file(&format!("normalize.mappings[{index}]"), path))
                    .collect(),
            },
            check: self.check(raw),
            terminology: raw.terminology.as_ref().map(|terminology| self.terminology(terminology)),
            consent: self.consent(&raw.consent),
            upstream: raw.upstream.as_ref().map(|upstream| self.upstream(upstream)),
            client: raw.client.as_ref().map(|client| self.client_of_gateway(client)),
            broker: self.broker(&raw.broker),
            subscribers: self.subscribers(&raw.subscriber),
            observe: Observe { log_format: raw.observe.log_format, level: raw.observe.level },
            tenant,
            ledger,
            log,
        }
    }

    fn tenant(&mut self, raw: Option<&raw::Tenant>) -> Tenant {
        let Some(raw) = raw else {
            self.fail("tenant", "expected a table [tenant] with id and base_url");
            // A stand-in; the keys inside are not asked for on top.
            return Tenant { id: "-".to_owned(), base_url: String::new() };
        };
        let id = self.required("tenant.id", raw.id.as_ref());
        self.hold(value::is_institution(&id), "tenant.id", value::INSTITUTION);
        let base_url = self.required("tenant.base_url", raw.base_url.as_ref());
        self.hold(value::is_base_url(&base_url), "tenant.base_url", value::BASE_URL);
        Tenant { id, base_url: base_url.trim_end_matches('/').to_owned() }
    }

    fn listen(&mut self, raw: &raw::Listen) -> Listen {
        if raw.tls.is_none() && !self.source.is_removed("listen.tls") && !raw.fhir.ip().is_loopback() {
            self.fail(
                "listen.fhir",
                "expected a table [listen.tls], or a loopback address: health data is never sent in the clear",
            );
        }
        let addresses = [("listen.fhir", Some(raw.fhir)), ("listen.admin", Some(raw.admin)), ("listen.log", raw.log)];
        for (index, (key, address)) in addresses.iter().enumerate() {
            let taken = addresses[..index].iter().find(|(_, other)| other.is_some() && other == address);
            if let (Some(address), Some((other, _))) = (address, taken)
                && address.port() != 0
            {
                self.fail(key, &format!("expected another address than {other}"));
            }
        }
        let tls = raw.tls.as_ref().map(|tls| Tls {
            cert_file: self.required_file("listen.tls.cert_file", tls.cert_file.as_ref()),
            key_file: self.required_secret("listen.tls.key_file", tls.key_file.as_ref()),
            client_ca_file: tls.client_ca_file.as_ref().map(|path| self.file("listen.tls.client_ca_file", path)),
        });
        let drain_timeout =
            self.time("listen.drain_timeout", raw.drain_timeout, Span::milliseconds(0), Span::seconds(3600));
        let operator = raw.operator_token_sha256_file.as_ref();
        let operator_token_sha256_file = operator.map(|path| self.secret("listen.operator_token_sha256_file", path));
        Listen { fhir: raw.fhir, admin: raw.admin, log: raw.log, operator_token_sha256_file, tls, drain_timeout }
    }

    fn callers(&mut self, raw: &Raw) -> Vec<Caller> {
        let asks_certificate = raw.listen.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some())
            || self.source.is_removed("listen.tls.client_ca_file");
        let mut callers: Vec<Caller> = Vec::new();
        for (index, caller) in raw.caller.iter().enumerate() {
            let key = |name: &str| format!("caller[{index}].{name}");
            let institution = self.required(&key("institution"), caller.institution.as_ref());
            self.hold(value::is_institution(&institution), &key("institution"), value::INSTITUTION);
            let (name, credential) = self.credential(index, caller);
            if matches!(credential, Credential::CertificateCommonName(_) | Credential::CertificateSha256(_))
                && !asks_certificate
            {
                self.fail(
                    &key(name),
                    "expected listen.tls.client_ca_file to be set: without it no client certificate is asked for",
                );
            }
            if callers.iter().any(|other| other.credential == credential) {
                self.fail(&key(name), "expected a credential that no other caller has");
            }
            for role in &caller.roles {
                self.hold(value::is_code(role), &key("roles"), value::CODE);
            }
            self.hold(value::is_code(&caller.purpose), &key("purpose"), value::PURPOSE);
            self.hold(!caller.may.is_empty(), &key("may"), "expected at least one of read, write and consent");
            callers.push(Caller {
                institution,
                credential,
                may: caller.may.iter().copied().collect(),
                roles: caller.roles.clone(),
                purpose: caller.purpose.clone(),
            });
        }
        callers
    }

    /// The caller's one credential and the name of its key.
    fn credential(&mut self, index: usize, caller: &raw::Caller) -> (&'static str, Credential) {
        let key = |name: &str| format!("caller[{index}].{name}");
        let removed = ["cert_subject_cn", "cert_sha256", "bearer_token_sha256_file"]
            .iter()
            .any(|name| self.source.is_removed(&key(name)));
        match (&caller.cert_subject_cn, &caller.cert_sha256, &caller.bearer_token_sha256_file) {
            (Some(name), None, None) => {
                self.hold(!name.is_empty(), &key("cert_subject_cn"), "expected a common name");
                ("cert_subject_cn", Credential::CertificateCommonName(name.clone()))
            }
            (None, Some(digest), None) => {
                let bytes = value::sha256(digest);
                self.hold(bytes.is_some(), &key("cert_sha256"), "expected 64 hexadecimal digits");
                ("cert_sha256", Credential::CertificateSha256(bytes.unwrap_or_default()))
            }
            (None, None, Some(path)) => {
                let name = "bearer_token_sha256_file";
                (name, Credential::TokenSha256(self.secret(&key(name), path)))
            }
            _ => {
                self.hold(
                    removed,
                    &format!("caller[{index}]"),
                    "expected exactly one of cert_subject_cn, cert_sha256 and bearer_token_sha256_file",
                );
                // Differs from every other stand-in, so that it is not taken for the same credential.
                ("institution", Credential::TokenSha256(SecretFile::new(index.to_string())))
            }
        }
    }

    fn limits(&mut self, raw: &raw::Limits) -> Limits {
        let (millisecond, hour, day) = (Span::milliseconds(1), Span::seconds(3600), Span::seconds(86_400));
        if raw.resource_bytes_max > raw.body_bytes_max {
            self.fail("limits.resource_bytes_max", "expected at most limits.body_bytes_max");
        }
        if raw.header_timeout > raw.request_timeout {
            self.fail("limits.header_timeout", "expected at most limits.request_timeout");
        }
        Limits {
            body_bytes_max: self.size("limits.body_bytes_max", raw.body_bytes_max, Size::kib(1), Size::gib(1 << 10)),
            resource_bytes_max: self.memory(
                "limits.resource_bytes_max",
                raw.resource_bytes_max,
                Size::kib(1),
                Size::gib(1),
            ),
            transaction_memory_max: self.memory(
                "limits.transaction_memory_max",
                raw.transaction_memory_max,
                Size::kib(64),
                Size::gib(16),
            ),
            depth_max: self.count("limits.depth_max", raw.depth_max, 8, 512),
            entries_max: self.count("limits.entries_max", raw.entries_max, 1, 100_000_000),
            request_timeout: self.time("limits.request_timeout", raw.request_timeout, millisecond, day),
            header_timeout: self.time("limits.header_timeout", raw.header_timeout, millisecond, hour),
            idle_timeout: self.time("limits.idle_timeout", raw.idle_timeout, millisecond, hour),
            concurrency_max: self.count("limits.concurrency_max", raw.concurrency_max, 1, 100_000),
            connections_max: self.count("limits.connections_max", raw.connections_max, 1, 1_000_000),
        }
    }

    fn store(&mut self, raw: &Raw) -> Store {
        let raw::Store { kind: raw::StoreKind::Embedded, .. } = raw.store;
        let ledger = ("ledger.dir", &raw.ledger.dir);
        let raw = &raw.store;
        let folders = [
            ("store.dir", &raw.dir),
            ("store.keystore_dir", &raw.keystore_dir),
            ("store.spool_dir", &raw.spool_dir),
            ledger,
        ];
        for (index, (key, folder)) in folders.iter().enumerate() {
            self.hold(!folder.as_os_str().is_empty(), key, "expected the path of a folder");
            let within = |a: &Path, b: &Path| value::normal(a).starts_with(value::normal(b));
            let overlap = folders[..index].iter().find(|(_, other)| within(folder, other) || within(other, folder));
            if let Some((other, _)) = overlap {
                self.fail(key, &format!("expected a folder apart from {other}: neither may lie in the other"));
            }
        }
        Store {
            dir: self.folder.join(&raw.dir),
            keystore_dir: self.folder.join(&raw.keystore_dir),
            spool_dir: self.folder.join(&raw.spool_dir),
            cache_bytes: self.memory("store.cache_bytes", raw.cache_bytes, Size::mib(1), Size::gib(1 << 10)),
            free_bytes_min: self.size("store.free_bytes_min", raw.free_bytes_min, Size::mib(1), Size::gib(1 << 20)),
            idempotency_window: self.time(
                "store.idempotency_window",
                raw.idempotency_window,
                Span::seconds(1),
                Span::seconds(366 * 86_400),
            ),
        }
    }

    fn keys(&mut self, raw: &raw::Keys) -> Keys {
        let mut file = |key: &str, named: Option<&SecretPath>, default: &str| {
            let path = named.map_or_else(|| raw.dir.join(default), |named| named.0.clone());
            self.secret(&format!("keys.{key}"), &SecretPath(path))
        };
        Keys {
            master_file: file("master_file", raw.master_file.as_ref(), "master.key"),
            domain_file: file("domain_file", raw.domain_file.as_ref(), "domain.key"),
            index_file: file("index_file", raw.index_file.as_ref(), "index.key"),
            event_id_file: file("event_id_file", raw.event_id_file.as_ref(), "event-id.key"),
            log_file: file("log_file", raw.log_file.as_ref(), "log.pem"),
            event_file: file("event_file", raw.event_file.as_ref(), "event.pem"),
            institution_file: file("institution_file", raw.institution_file.as_ref(), "institution.pem"),
            group_readable: raw.group_readable,
            dir: self.folder.join(&raw.dir),
        }
    }

    fn check(&mut self, raw: &Raw) -> Check {
        let has_server = raw.terminology.is_some() || self.source.is_removed("terminology");
        let raw = &raw.check;
        let unknown = &raw.unknown_terminology;
        for (key, unknown) in [("required", unknown.required), ("extensible", unknown.extensible)] {
            if unknown == Unknown::Outage && !has_server {
                let key = format!("check.unknown_terminology.{key}");
                self.fail(
                    &key,
                    "expected a table [terminology]: without a server that may answer later, later is never",
                );
            }
        }
        let poll = self.time("check.poll", raw.poll, Span::milliseconds(0), Span::seconds(86_400));
        Check {
            rules_dir: raw.rules_dir.as_ref().map(|path| self.directory("check.rules_dir", path)),
            packages_dir: raw.packages_dir.as_ref().map(|path| self.directory("check.packages_dir", path)),
            poll: (!poll.is_zero()).then_some(poll),
            budget: Budget {
                time_max: self.time("check.time_max", raw.time_max, Span::milliseconds(1), Span::seconds(3600)),
                steps_max: self.count("check.steps_max", raw.steps_max, 1_000, u32::MAX),
            },
            severity: raw.severity.clone(),
            unknown_terminology: UnknownTerminology { required: unknown.required, extensible: unknown.extensible },
        }
    }

    fn terminology(&mut self, raw: &raw::Terminology) -> Terminology {
        let (millisecond, hour, day) = (Span::milliseconds(1), Span::seconds(3600), Span::seconds(86_400));
        let typed = self.required("terminology.url", raw.url.as_ref());
        let url = value::upstream_url(&typed);
        self.hold(url.is_some(), "terminology.url", value::UPSTREAM_URL);
        let url = url.unwrap_or_default();
        if url.scheme_str() == Some("https") && raw.ca_file.is_none() && !self.source.is_removed("terminology.ca_file")
        {
            let expected = "expected terminology.ca_file for an https URL: the system's roots are never used";
            self.fail("terminology.url", expected);
        }
        Terminology {
            url,
            timeout: self.time("terminology.timeout", raw.timeout, millisecond, hour),
            connect_timeout: self.time("terminology.connect_timeout", raw.connect_timeout, millisecond, hour),
            ca_file: raw.ca_file.as_ref().map(|path| self.file("terminology.ca_file", path)),
            client: self.client("terminology", raw.client_cert_file.as_ref(), raw.client_key_file.as_ref()),
            token_file: raw.token_file.as_ref().map(|path| self.secret("terminology.token_file", path)),
            concurrency_max: self.count("terminology.concurrency_max", raw.concurrency_max, 1, 10_000),
            cache_entries_max: self.count("terminology.cache_entries_max", raw.cache_entries_max, 1, 100_000_000),
            cache_for: self.time(
                "terminology.cache_for",
                raw.cache_for,
                Span::milliseconds(0),
                Span::seconds(366 * 86_400),
            ),
            failures_max: self.count("terminology.failures_max", raw.failures_max, 1, 10_000),
            pause: self.time("terminology.pause", raw.pause, millisecond, day),
        }
    }

    fn consent(&mut self, raw: &raw::Consent) -> Consent {
        let hour = Span::seconds(3600);
        if raw.skew > raw.max_staleness {
            self.fail("consent.skew", "expected at most consent.max_staleness");
        }
        Consent {
            mode: raw.mode,
            combine: raw.combine,
            implicit: Implicit { collect: raw.implicit.collect, disclose: raw.implicit.disclose },
            max_staleness: self.time(
                "consent.max_staleness",
                raw.max_staleness,
                Span::milliseconds(100),
                Span::seconds(86_400),
            ),
            skew: self.time("consent.skew", raw.skew, Span::milliseconds(0), hour),
            on_intake_deny: raw.on_intake_deny,
            unknown_subject: raw.unknown_subject,
            self_test_interval: self.time("consent.self_test_interval", raw.self_test_interval, Span::seconds(1), hour),
        }
    }

    fn ledger(&mut self, raw: &raw::Ledger, tenant: &str) -> Ledger {
        let raw::LedgerKind::Embedded = raw.kind;
        Ledger {
            role: raw.role,
            dir: self.folder.join(&raw.dir),
            origin: self.origin("ledger.origin", raw.origin.as_ref(), tenant, "ledger"),
            beat: self.time("ledger.beat", raw.beat, Span::milliseconds(10), Span::seconds(86_400)),
        }
    }

    fn log(&mut self, raw: &raw::Log, tenant: &str) -> Log {
        let multiple = self.count("log.batch_multiple", raw.batch_multiple.get(), 1, 65_536_u32);
        Log {
            origin: self.origin("log.origin", raw.origin.as_ref(), tenant, "log"),
            batch_multiple: std::num::NonZeroU32::new(multiple).unwrap_or(std::num::NonZeroU32::MIN),
            beat: self.time("log.beat", raw.beat, Span::milliseconds(1), Span::seconds(3600)),
        }
    }

    fn upstream(&mut self, raw: &raw::Upstream) -> Upstream {
        let (millisecond, hour) = (Span::milliseconds(1), Span::seconds(3600));
        let typed = self.required("upstream.url", raw.url.as_ref());
        let url = value::upstream_url(&typed);
        self.hold(url.is_some(), "upstream.url", value::UPSTREAM_URL);
        let url = url.unwrap_or_default();
        if url.scheme_str() == Some("https") && raw.ca_file.is_none() && !self.source.is_removed("upstream.ca_file") {
            self.fail("upstream.url", "expected upstream.ca_file for an https URL: the system's roots are never used");
        }
        Upstream {
            url,
            resolve: raw.resolve,
            timeout: self.time("upstream.timeout", raw.timeout, millisecond, hour),
            connect_timeout: self.time("upstream.connect_timeout", raw.connect_timeout, millisecond, hour),
            ca_file: raw.ca_file.as_ref().map(|path| self.file("upstream.ca_file", path)),
            client: self.client("upstream", raw.client_cert_file.as_ref(), raw.client_key_file.as_ref()),
            token_file: raw.token_file.as_ref().map(|path| self.secret("upstream.token_file", path)),
            retries_max: self.count("upstream.retries_max", raw.retries_max, 0, 100),
            retry_wait: self.time("upstream.retry_wait", raw.retry_wait, millisecond, hour),
            concurrency_max: self.count("upstream.concurrency_max", raw.concurrency_max, 1, 10_000),
        }
    }

    fn client_of_gateway(&mut self, raw: &raw::Client) -> Client {
        let url = raw.url.as_ref().map(|typed| {
            let url = value::upstream_url(typed);
            self.hold(url.is_some(), "client.url", value::UPSTREAM_URL);
            url.unwrap_or_default()
        });
        let (cert, key) = (raw.cert_file.as_ref(), raw.key_file.as_ref());
        self.hold(cert.is_some() || key.is_none(), "client.cert_file", "expected this key beside client.key_file");
        self.hold(key.is_some() || cert.is_none(), "client.key_file", "expected this key beside client.cert_file");
        Client {
            url,
            ca_file: raw.ca_file.as_ref().map(|path| self.file("client.ca_file", path)),
            identity: cert
                .zip(key)
                .map(|(cert, key)| (self.file("client.cert_file", cert), self.secret("client.key_file", key))),
        }
    }

    fn broker(&mut self, raw: &raw::Broker) -> Broker {
        let amqp_keys: [(&str, bool); 10] = [
            ("url", raw.url.is_some()),
            ("url_file", raw.url_file.is_some()),
            ("exchange", raw.exchange.is_some()),
            ("topology", raw.topology.is_some()),
            ("ca_file", raw.ca_file.is_some()),
            ("client_cert_file", raw.client_cert_file.is_some()),
            ("client_key_file", raw.client_key_file.is_some()),
            ("timeout", raw.timeout.is_some()),
            ("heartbeat", raw.heartbeat.is_some()),
            ("reconnect_wait_max", raw.reconnect_wait_max.is_some()),
        ];
        let feed_keys =
            [("retention", raw.retention.is_some()), ("retention_entries_max", raw.retention_entries_max.is_some())];
        let (other_keys, only): (&[(&str, bool)], _) = match raw.kind {
            raw::BrokerKind::Feed => (&amqp_keys, "amqp"),
            raw::BrokerKind::Amqp => (&feed_keys, "feed"),
        };
        for (name, _) in other_keys.iter().filter(|(_, set)| *set) {
            self.fail(&format!("broker.{name}"), &format!("expected broker.kind = \"{only}\" beside this key"));
        }
        let kind = match raw.kind {
            raw::BrokerKind::Feed => BrokerKind::Feed(Feed {
                retention: self.optional_time(
                    "broker.retention",
                    raw.retention,
                    Span::seconds(7 * 86_400),
                    Span::seconds(60),
                    Span::seconds(3660 * 86_400),
                ),
                entries_max: self.count(
                    "broker.retention_entries_max",
                    raw.retention_entries_max.unwrap_or(1_000_000),
                    1,
                    u32::MAX,
                ),
            }),
            raw::BrokerKind::Amqp => self.amqp(raw),
        };
        Broker {
            kind,
            window: self.count("broker.window", raw.window, 1, 65_535),
            attempts_max: self.count("broker.attempts_max", raw.attempts_max, 1, 1_000_000),
        }
    }

    fn amqp(&mut self, raw: &raw::Broker) -> BrokerKind {
        let (second, hour) = (Span::seconds(1), Span::seconds(3600));
        let exchange = raw.exchange.clone().unwrap_or_else(|| "sluice".to_owned());
        self.hold(value::is_exchange(&exchange), "broker.exchange", value::EXCHANGE);
        let heartbeat =
            self.optional_time("broker.heartbeat", raw.heartbeat, Span::seconds(10), second, Span::seconds(65_535));
        self.hold(heartbeat.subsec_millis() == 0, "broker.heartbeat", "expected whole seconds: AMQP counts no less");
        let address = self.broker_address(raw);
        BrokerKind::Amqp {
            address,
            exchange,
            topology: raw.topology.unwrap_or(Topology::Declare),
            tls: BrokerTls {
                ca_file: raw.ca_file.as_ref().map(|path| self.file("broker.ca_file", path)),
                client: self.client("broker", raw.client_cert_file.as_ref(), raw.client_key_file.as_ref()),
            },
            timeout: self.optional_time("broker.timeout", raw.timeout, Span::seconds(10), Span::milliseconds(1), hour),
            heartbeat,
            reconnect_wait_max: self.optional_time(
                "broker.reconnect_wait_max",
                raw.reconnect_wait_max,
                Span::seconds(30),
                Span::milliseconds(1),
                hour,
            ),
        }
    }

    fn broker_address(&mut self, raw: &raw::Broker) -> BrokerAddress {
        let removed = self.source.is_removed("broker.url") || self.source.is_removed("broker.url_file");
        let stand_in = BrokerAddress::Url(String::new());
        match (&raw.url, &raw.url_file) {
            (Some(url), None) => {
                let user = value::amqp_password(url);
                self.hold(!user, "broker.url", "expected a URL without a password; one with a password belongs into a file named by broker.url_file");
                if !user {
                    self.amqp_url("broker.url", url, raw);
                }
                BrokerAddress::Url(url.clone())
            }
            (None, Some(path)) => {
                let file = self.secret("broker.url_file", path);
                // What cannot be read is told already.
                if self.files == Files::MustExist
                    && let Ok(secret) = file.read()
                {
                    self.amqp_url("broker.url_file", secret.expose_str().unwrap_or_default(), raw);
                }
                BrokerAddress::File(file)
            }
            (Some(_), Some(_)) => {
                self.fail("broker.url", "expected one of url and url_file, not both");
                stand_in
            }
            (None, None) => {
                self.hold(removed, "broker", "expected url or url_file for kind = \"amqp\"");
                stand_in
            }
        }
    }

    /// An AMQP URL that may be used: TLS unless the host is a loopback address, and certificates only with TLS.
    fn amqp_url(&mut self, key: &str, url: &str, raw: &raw::Broker) {
        match value::amqp_scheme(url) {
            None => self.fail(key, value::AMQP_URL),
            Some(value::AmqpScheme::Plain { loopback: false }) => {
                self.fail(
                    key,
                    "expected amqps for any host but a loopback address: events are never sent in the clear",
                );
            }
            Some(value::AmqpScheme::Plain { loopback: true }) => {
                self.hold(raw.ca_file.is_none(), "broker.ca_file", "expected an amqps URL beside this key");
                self.hold(
                    raw.client_cert_file.is_none(),
                    "broker.client_cert_file",
                    "expected an amqps URL beside this key",
                );
            }
            Some(value::AmqpScheme::Tls) => {
                let given = raw.ca_file.is_some() || self.source.is_removed("broker.ca_file");
                self.hold(given, key, "expected broker.ca_file for an amqps URL: the system's roots are never used");
            }
        }
    }

    fn subscribers(&mut self, raw: &[raw::Subscriber]) -> Vec<Subscriber> {
        let mut first: BTreeMap<String, usize> = BTreeMap::new();
        raw.iter()
            .enumerate()
            .map(|(index, subscriber)| {
                let key = |name: &str| format!("subscriber[{index}].{name}");
                let id = self.required(&key("id"), subscriber.id.as_ref());
                self.hold(value::is_word(&id), &key("id"), value::WORD);
                if !id.is_empty()
                    && let Some(other) = first.insert(id.clone(), index)
                {
                    self.fail(&key("id"), &format!("expected another id than subscriber[{other}].id"));
                }
                let institution = self.required(&key("institution"), subscriber.institution.as_ref());
                self.hold(value::is_institution(&institution), &key("institution"), value::INSTITUTION);
                let purpose = self.required(&key("purpose"), subscriber.purpose.as_ref());
                self.hold(value::is_code(&purpose), &key("purpose"), value::PURPOSE);
                self.hold(subscriber.role.as_ref().is_none_or(|role| value::is_code(role)), &key("role"), value::CODE);
                self.hold(value::is_word(&subscriber.domain), &key("domain"), value::WORD);
                self.hold(
                    subscriber.member_of.iter().all(|one| value::is_reference(one)),
                    &key("member_of"),
                    value::REFERENCE,
                );
                self.hold(
                    subscriber.resource_types.iter().all(|one| value::is_type(one)),
                    &key("resource_types"),
                    value::TYPE,
                );
                Subscriber {
                    id,
                    institution,
                    role: subscriber.role.clone(),
                    purpose,
                    member_of: subscriber.member_of.clone(),
                    domain: subscriber.domain.clone(),
                    resource_types: subscriber.resource_types.clone(),
                    payload: subscriber.payload,
                    granularity: subscriber.granularity,
                    wait: subscriber.wait,
                }
            })
            .collect()
    }
}
