//! A RabbitMQ of our own: Debian's package, without systemd, on loopback, with every file under one temporary folder.
//!
//! Takes nothing; gives addresses, certificates and users, and ends or kills the server on demand. Server and epmd hang
//! on the pipe of a small shell each, which kills them by their ids once the pipe closes: also where the test process
//! itself was killed, and for the shared server, which nobody drops.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use sha2::{Digest as _, Sha256};
use sluice::config::{Broker as BrokerConfig, BrokerAddress, BrokerKind, BrokerTls, SecretFile, Topology};

/// Loaded machines have taken most of a minute.
const START: Duration = Duration::from_mins(4);

const MISSING: &str = "RabbitMQ is not installed: run ./check, which installs it, or apt-get install rabbitmq-server";

/// Runs the rest of its arguments as a child in the background, prints the child's id, and kills it when its input
/// ends. Then it removes the folder, unless it was told to keep it.
const KEEPER: &str = r#"folder=$1; log=$2; shift 2
"$@" >>"$log" 2>&1 </dev/null &
child=$!; echo $child; read -r word
kill -9 $child; wait $child 2>/dev/null
[ "$word" = keep ] || rm -rf "$folder""#;

/// May do everything.
pub(crate) const USER: &str = "sluice";
/// May write to and read from what its name starts with `locked`, and configure nothing.
pub(crate) const LEAST_USER: &str = "least";
/// The password of both.
pub(crate) const PASSWORD: &str = "a password / of tests";
/// The common name of the client certificate, and a user that may do everything.
pub(crate) const CLIENT: &str = "sluice-client";

/// A running server, or one that was killed and may be started again.
pub(crate) struct Rabbit {
    folder: PathBuf,
    server: Option<Keeper>,
    _epmd: Keeper,
    ports: Ports,
}

struct Ports {
    epmd: u16,
    amqp: u16,
    amqps: u16,
    distribution: u16,
}

/// The shell that a child hangs on.
struct Keeper(Child);

/// The server that all tests share which do not kill it. Never ask it for what another test may have changed: use an
/// exchange of your own.
pub(crate) fn shared() -> &'static Rabbit {
    static SHARED: OnceLock<Rabbit> = OnceLock::new();
    SHARED.get_or_init(Rabbit::start)
}

impl Rabbit {
    /// Starts a server and waits until it takes connections.
    pub(crate) fn start() -> Self {
        let program = program();
        let folder = tempfile::Builder::new().prefix("sluice-rabbit-").tempdir().unwrap().keep();
        std::fs::create_dir(folder.join("home")).unwrap();
        let ports = Ports::free();
        certificates(&folder);
        std::fs::write(folder.join("definitions.json"), definitions()).unwrap();
        std::fs::write(folder.join("plugins"), "[rabbitmq_auth_mechanism_ssl].\n").unwrap();
        std::fs::write(folder.join("rabbit.conf"), settings(&folder, &ports)).unwrap();
        // Of its own and before the server, which would start one that outlives it.
        let mut epmd = Command::new("epmd");
        ports.set(&mut epmd, &folder);
        let epmd = Keeper::start(&epmd, &folder, "epmd.log");
        let mut rabbit = Self { folder, server: None, _epmd: epmd, ports };
        rabbit.launch(&program);
        rabbit
    }

    /// SIGKILL, and the end of the process.
    pub(crate) fn kill(&mut self) {
        self.server.take().expect("the server runs").end("keep");
    }

    /// Starts it again on what it had on disk.
    pub(crate) fn restart(&mut self) {
        assert!(self.server.is_none(), "the server was not killed");
        self.launch(&program());
    }

    fn launch(&mut self, program: &Path) {
        let mut server = Command::new(program);
        self.ports.set(&mut server, &self.folder);
        let at = |name: &str| self.folder.join(name);
        server
            .env("RABBITMQ_NODENAME", format!("sluice{}@localhost", self.ports.amqp))
            .env("RABBITMQ_MNESIA_BASE", at("mnesia"))
            .env("RABBITMQ_LOG_BASE", at("log"))
            .env("RABBITMQ_CONFIG_FILE", at("rabbit.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins"))
            .env("RABBITMQ_PID_FILE", at("pid"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            // The script becomes the server instead of waiting for it, so that the id is the server's.
            .env("detached", "1")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false +sbwt none +S 2:2",
            );
        let log = at("server.log");
        let _ = std::fs::remove_file(&log);
        self.server = Some(Keeper::start(&server, &self.folder, "server.log"));
        let deadline = Instant::now() + START;
        loop {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.contains("completed with") {
                return;
            }
            assert!(Instant::now() < deadline && !said.contains("BOOT FAILED"), "RabbitMQ did not start:\n{said}");
            pause();
        }
    }

    /// `amqp://` with user and password.
    pub(crate) fn url(&self, user: &str) -> String {
        format!("amqp://{user}:{}@127.0.0.1:{}/%2f", PASSWORD.replace(' ', "%20").replace('/', "%2f"), self.ports.amqp)
    }

    /// `amqps://` without user.
    pub(crate) fn tls_url(&self) -> String {
        format!("amqps://localhost:{}/%2f", self.ports.amqps)
    }

    /// A file among the certificates: `ca.pem`, `other-ca.pem`, `client.pem`, `client.key`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Settings for a user by password, in a file as it must be.
    pub(crate) fn settings(&self, user: &str, exchange: &str, topology: Topology) -> BrokerConfig {
        let file = self.folder.join(format!("url-{user}"));
        std::fs::write(&file, self.url(user)).unwrap();
        broker_config(BrokerAddress::File(SecretFile::new(file)), BrokerTls::default(), exchange, topology)
    }

    /// Settings over TLS; with a client certificate if it is asked for.
    pub(crate) fn tls_settings(&self, ca: &str, client: bool, exchange: &str) -> BrokerConfig {
        let client = client.then(|| (self.file("client.pem"), SecretFile::new(self.file("client.key"))));
        let tls = BrokerTls { ca_file: Some(self.file(ca)), client };
        broker_config(BrokerAddress::Url(self.tls_url()), tls, exchange, Topology::Declare)
    }
}

fn broker_config(address: BrokerAddress, tls: BrokerTls, exchange: &str, topology: Topology) -> BrokerConfig {
    BrokerConfig {
        kind: BrokerKind::Amqp {
            address,
            exchange: exchange.into(),
            topology,
            tls,
            timeout: Duration::from_secs(20),
            heartbeat: Duration::from_secs(10),
            reconnect_wait_max: Duration::from_secs(1),
        },
        window: 256,
        attempts_max: 10,
    }
}

/// The server's own script: the wrapper on the path changes user and folder.
fn program() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/rabbitmq/lib").into_iter().flatten().flatten();
    let mut scripts = versions.map(|version| version.path().join("sbin/rabbitmq-server")).filter(|path| path.exists());
    scripts.next().expect(MISSING)
}

impl Keeper {
    fn start(command: &Command, folder: &Path, log: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(KEEPER).arg("keeper").arg(folder).arg(folder.join(log)).arg(command.get_program());
        shell.args(command.get_args());
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut id = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut id).unwrap();
        assert!(id.trim().parse::<u32>().is_ok(), "{id}");
        Self(shell)
    }

    fn end(mut self, word: &str) {
        if let Some(mut input) = self.0.stdin.take() {
            let _ = writeln!(input, "{word}");
        }
        self.0.wait().unwrap();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Ports {
    fn free() -> Self {
        let listeners: Vec<_> = (0..4).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
        let port = |at: usize| listeners[at].local_addr().unwrap().port();
        Self { epmd: port(0), amqp: port(1), amqps: port(2), distribution: port(3) }
    }

    fn set(&self, command: &mut Command, folder: &Path) {
        command
            .env("HOME", folder.join("home"))
            .env("ERL_EPMD_PORT", self.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1");
    }
}

fn settings(folder: &Path, ports: &Ports) -> String {
    let mut text = format!(
        "listeners.tcp.1 = 127.0.0.1:{}\nlisteners.ssl.1 = 127.0.0.1:{}\nload_definitions = {}\n",
        ports.amqp,
        ports.amqps,
        folder.join("definitions.json").display(),
    );
    for (key, name) in [("cacertfile", "ca.pem"), ("certfile", "server.pem"), ("keyfile", "server.key")] {
        writeln!(text, "ssl_options.{key} = {}", folder.join(name).display()).unwrap();
    }
    text.push_str(
        "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\nssl_cert_login_from = common_name\n\
         auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\n\
         vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 10MB\n",
    );
    text
}

fn definitions() -> String {
    // rabbit_password_hashing_sha256: a salt of four bytes, then the digest of salt and password.
    let mut hash = b"salt".to_vec();
    hash.extend(Sha256::digest([b"salt", PASSWORD.as_bytes()].concat()));
    let hash = base64::engine::general_purpose::STANDARD.encode(hash);
    let user = |name: &str| {
        serde_json::json!({ "name": name, "password_hash": hash, "tags": [], "limits": {},
            "hashing_algorithm": "rabbit_password_hashing_sha256" })
    };
    let permission = |name: &str, configure: &str, rest: &str| serde_json::json!({ "user": name, "vhost": "/", "configure": configure, "write": rest, "read": rest });
    let topic = |name: &str| {
        serde_json::json!({ "name": name, "vhost": "/", "type": "topic", "durable": true, "auto_delete": false,
            "internal": false, "arguments": {} })
    };
    serde_json::json!({
        "users": [user(USER), user(LEAST_USER), user(CLIENT)],
        "vhosts": [{ "name": "/" }],
        "permissions": [permission(USER, ".*", ".*"), permission(CLIENT, ".*", ".*"),
            permission(LEAST_USER, "^$", "^locked")],
        "exchanges": [topic("locked"), topic("closed")],
        "queues": [{ "name": "locked.insurer", "vhost": "/", "durable": true, "auto_delete": false,
            "arguments": { "x-queue-type": "quorum" } }],
        "bindings": [{ "source": "locked", "vhost": "/", "destination": "locked.insurer",
            "destination_type": "queue", "routing_key": "v1.insurer.#", "arguments": {} }],
    })
    .to_string()
}

/// An authority, a server `localhost`, a client, and an authority that signed none of them.
fn certificates(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), Issuer::new(params, key))
    };
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    let (ca, issuer) = authority("broker authority");
    write("ca.pem", ca);
    write("other-ca.pem", authority("another authority").0);
    for (name, common_name, hosts) in
        [("server", "localhost", vec!["localhost".to_owned()]), ("client", CLIENT, Vec::new())]
    {
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        write(&format!("{name}.pem"), params.signed_by(&key, &issuer).unwrap().pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own thread waits for another process")]
fn pause() {
    std::thread::sleep(Duration::from_millis(200));
}
