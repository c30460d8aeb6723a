//! Certificates for tests and demonstrations: one CA, whose key is dropped, and what it has signed.
//!
//! Takes names; gives PEM files. Never: keeps the CA's key; overwrites a file.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::super::{Exit, Failure, Format, json_line};

/// How long the certificates hold.
const VALID: Duration = Duration::days(365);

/// What is signed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder; made if it is missing
    dir: PathBuf,
    /// A name or address of the server [default: localhost, 127.0.0.1 and ::1]
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// The common name of a client; its files are NAME.pem and NAME.key
    #[arg(long = "client", value_name = "NAME")]
    clients: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// A file that is there already, or can't be written; a name that no certificate can hold.
pub(super) fn run(args: &Args, format: Format, out: &mut dyn Write) -> Result<Exit, Failure> {
    let local = ["localhost", "127.0.0.1", "::1"];
    let hosts: Vec<&str> =
        if args.hosts.is_empty() { local.to_vec() } else { args.hosts.iter().map(String::as_str).collect() };
    let clients: Vec<&str> = args.clients.iter().map(String::as_str).collect();
    for (file, subject) in create(&args.dir, &hosts, &clients)? {
        match format {
            Format::Human => writeln!(out, "{}  {subject}", file.display())?,
            Format::Json => {
                json_line(out, &serde_json::json!({ "file": file.to_string_lossy(), "subject": subject }))?;
            }
        }
    }
    Ok(Exit::Fine)
}

/// Makes `ca.pem`, `server.pem`, `server.key`, and `NAME.pem` and `NAME.key` of each client. Gives the files made, with
/// their subjects.
///
/// # Errors
/// As [`run`]; a crash or an error on the way leaves some of the files, and the next attempt says which is there.
pub(in crate::cli) fn create(dir: &Path, hosts: &[&str], clients: &[&str]) -> Result<Vec<(PathBuf, String)>, Failure> {
    for name in clients {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !name.bytes().all(plain) || matches!(*name, "" | "." | ".." | "ca" | "server") {
            return Err(Failure::Usage(format!("--client {name}: expected letters, digits, `-`, `_` and `.`")));
        }
    }
    std::fs::create_dir_all(dir).map_err(|error| Failure::file(dir, &error))?;
    let authority = Authority::new()?;
    let mut made = Vec::new();
    let mut keep = |name: String, text: &str, secret: bool, subject: &str| {
        let path = dir.join(name);
        write_new(&path, text, secret).map_err(|error| Failure::file(&path, &error))?;
        made.push((path, subject.to_owned()));
        Ok::<_, Failure>(())
    };
    keep("ca.pem".to_owned(), &authority.pem, false, "Sluice test CA")?;
    let server = authority.sign("server", hosts, ExtendedKeyUsagePurpose::ServerAuth)?;
    keep("server.pem".to_owned(), &server.pem, false, "server")?;
    keep("server.key".to_owned(), &server.key, true, "server")?;
    for name in clients {
        let client = authority.sign(name, &[], ExtendedKeyUsagePurpose::ClientAuth)?;
        keep(format!("{name}.pem"), &client.pem, false, name)?;
        keep(format!("{name}.key"), &client.key, true, name)?;
    }
    Ok(made)
}

struct Signed {
    pem: String,
    key: String,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Result<Self, Failure> {
        let mut params = params("Sluice test CA", &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(|error| Failure::could_not_run(&error))?;
        let certificate = params.self_signed(&key).map_err(|error| Failure::could_not_run(&error))?;
        Ok(Self { pem: certificate.pem(), issuer: Issuer::new(params, key) })
    }

    fn sign(&self, name: &str, hosts: &[&str], usage: ExtendedKeyUsagePurpose) -> Result<Signed, Failure> {
        let mut params = params(name, hosts)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(|error| Failure::could_not_run(&error))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| Failure::could_not_run(&error))?;
        Ok(Signed { pem: certificate.pem(), key: key.serialize_pem() })
    }
}

fn params(name: &str, hosts: &[&str]) -> Result<CertificateParams, Failure> {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts)
        .map_err(|_| Failure::Usage("--host: expected host names and addresses".to_owned()))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // A clock that is a little behind takes them too.
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - Duration::hours(1), now + VALID);
    Ok(params)
}

fn write_new(path: &Path, text: &str, secret: bool) -> std::io::Result<()> {
    let mode = if secret { 0o600 } else { 0o644 };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
