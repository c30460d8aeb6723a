//! The demo's house: keys, certificates and settings of one gateway in one folder.
//!
//! Takes: an empty folder. Gives: settings that name paths relative to themselves and fixed loopback ports, so that
//! `serve` and `ingest` work with them later. Never: writes over a house that is there.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use super::super::Failure;
use super::super::client::Identity;
use super::super::keys::tls;
use crate::config::Config;
use crate::keys::Keys;

/// Who holds a client certificate: two hospitals that send, two subscribers that read.
const CLIENTS: [&str; 4] = ["north", "south", "insurer", "monitor"];

/// The mapping packs of the demo: what makes one patient of what two hospitals write.
const MAPPINGS: [(&str, &str); 4] = [
    ("us.json", include_str!("../../../mappings/identifiers/us.json")),
    ("synthea.json", include_str!("../../../mappings/identifiers/synthea.json")),
    ("units.json", include_str!("../../../mappings/units/common.json")),
    ("references.json", include_str!("../../../mappings/references.json")),
];

/// A folder with everything that a gateway needs.
pub(super) struct House {
    /// The folder.
    pub(super) dir: PathBuf,
    /// Its settings.
    pub(super) config: Config,
}

impl House {
    /// Furnishes a folder.
    pub(super) fn furnish(dir: &Path, amqp: Option<&str>) -> Result<Self, Failure> {
        let settings = dir.join("sluice.toml");
        if settings.exists() {
            return Err(Failure::CouldNotRun(format!("{}: exists already", settings.display())));
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error: std::io::Error| Failure::file(&path, &error)
        };
        for folder in ["", "events", "mappings", "receipts", "samples"] {
            let folder = dir.join(folder);
            std::fs::create_dir_all(&folder).map_err(failed(&folder))?;
        }
        for (name, text) in MAPPINGS {
            let file = dir.join("mappings").join(name);
            std::fs::write(&file, text).map_err(failed(&file))?;
        }
        Keys::create(&dir.join("keys")).map_err(|error| Failure::could_not_run(&error))?;
        tls::create(&dir.join("tls"), &["localhost", "127.0.0.1", "::1"], &CLIENTS)?;
        let [fhir, admin, log] = free_ports().map_err(|error| Failure::could_not_run(&error))?;
        let broker = match amqp {
            None => "kind = \"feed\"".to_owned(),
            Some(url) => {
                // It may hold a password, so it is a file of its own.
                let file = dir.join("keys/broker-url");
                write_secret(&file, url).map_err(failed(&file))?;
                // Of this run alone: what another run has left in its queues is not ours.
                let exchange = uuid::Uuid::new_v4().simple().to_string();
                format!(
                    "kind = \"amqp\"\nurl_file = \"keys/broker-url\"\nexchange = \"sluice-demo-{}\"",
                    &exchange[..8]
                )
            }
        };
        let text = SETTINGS
            .replace("{fhir}", &fhir.to_string())
            .replace("{admin}", &admin.to_string())
            .replace("{log}", &log.to_string())
            .replace("{broker}", &broker);
        std::fs::write(&settings, text).map_err(failed(&settings))?;
        let config = Config::load(&settings).map_err(Failure::Settings)?;
        Ok(Self { dir: dir.to_owned(), config })
    }

    /// What a holder of a client certificate shows.
    pub(super) fn identity(&self, name: &str) -> Identity {
        let tls = self.dir.join("tls");
        Identity {
            ca_file: Some(tls.join("ca.pem")),
            shown: Some((tls.join(format!("{name}.pem")), tls.join(format!("{name}.key")))),
        }
    }
}

/// Ports that nobody listens on at this moment.
fn free_ports() -> std::io::Result<[u16; 3]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    // All are held until all are known, so that no two are the same.
    let held = [bind()?, bind()?, bind()?];
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    Ok([port(&held[0])?, port(&held[1])?, port(&held[2])?])
}

fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")
}

const SETTINGS: &str = r#"# Made by `sluice demo`. Paths are relative to this file; the ports were free when it was written.
[tenant]
id = "north.example"
base_url = "https://127.0.0.1:{fhir}/fhir"

[listen]
fhir = "127.0.0.1:{fhir}"
admin = "127.0.0.1:{admin}"
log = "127.0.0.1:{log}"
[listen.tls]
cert_file = "tls/server.pem"
key_file = "tls/server.key"
client_ca_file = "tls/ca.pem"

# What `sluice ingest --config` shows.
[client]
ca_file = "tls/ca.pem"
cert_file = "tls/north.pem"
key_file = "tls/north.key"

# Two hospitals that send,
[[caller]]
institution = "north.example"
cert_subject_cn = "north"
may = ["read", "write", "consent"]
[[caller]]
institution = "south.example"
cert_subject_cn = "south"
may = ["read", "write", "consent"]
# and two that are told, and may do no more than read.
[[caller]]
institution = "insurer.example"
cert_subject_cn = "insurer"
roles = ["IRCP"]
purpose = "HPAYMT"
[[caller]]
institution = "monitor.example"
cert_subject_cn = "monitor"
roles = ["IRCP"]
purpose = "PUBHLTH"

[store]
dir = "data/store"
keystore_dir = "data/keystore"
spool_dir = "data/spool"
free_bytes_min = "64MiB"

[keys]
dir = "keys"

# What both hospitals write is made one first: which identifier systems name the same thing, and that the consortium
# shares the social security number, so that a patient is one patient in both hospitals.
[normalize]
mappings = ["mappings/us.json", "mappings/synthea.json", "mappings/units.json", "mappings/references.json"]

# Synthea writes codes that FHIR R4 does not hold, as `vital-sign` for observation-category's `vital-signs`, and
# languages that are none of R4's. Here they are told and let through; without these two lines they are refused.
[check.severity]
"code.unknown" = "warning"
"binding.required" = "warning"

[consent]
# Any bundle goes through, also one about a patient that nobody has told of; it is disclosed to nobody.
unknown_subject = "collect"

[ledger]
dir = "data/ledger"
beat = "1s"

[broker]
{broker}

[[subscriber]]
id = "insurer"
institution = "insurer.example"
role = "IRCP"
purpose = "HPAYMT"
domain = "claims"
# Sent as soon as the gateway's own log has it,
wait = "log"
resource_types = ["Claim", "ExplanationOfBenefit"]

[[subscriber]]
id = "monitor"
institution = "monitor.example"
role = "IRCP"
purpose = "PUBHLTH"
domain = "safety"
# or only with the ledger's receipt.
wait = "ledger"
resource_types = ["AdverseEvent"]

[observe]
log_format = "text"
level = "error"
"#;
