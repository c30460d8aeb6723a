//! Key files: how they are made and read.
//!
//! Signing keys are PKCS#8 in PEM (RFC 5958, RFC 7468), as `openssl genpkey -algorithm ed25519` writes them; all others are 32 bytes in
//! base64 on one line. Never writes to a file that exists.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::{Files, KeysError, SECRET_BYTES, Secret};

/// No key file is longer, in bytes.
const FILE_BYTES_MAX: usize = 4096;

const PEM: &str = "an Ed25519 private key, PKCS#8 in PEM";
const BASE64: &str = "32 bytes in base64, on one line";

pub(super) fn create_all(dir: &Path, files: &Files) -> Result<(), KeysError> {
    let signing = [&files.log, &files.event, &files.institution];
    let secret = [&files.domain, &files.index, &files.event_id, &files.master];
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| io(dir, source))?;
    // First of all, so that a keyring that exists is refused before anything is added to it.
    if let Some(path) = signing.iter().chain(&secret).find(|path| path.symlink_metadata().is_ok()) {
        return Err(KeysError::Exists((*path).clone()));
    }
    // A crash between two files leaves an incomplete keyring, which `open` refuses by the name of what is missing and
    // which nothing has used yet.
    for path in signing {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeysError::NoRandom)?;
        // Version 1, without the public key: what OpenSSL reads and writes.
        let der = pair.to_pkcs8v1().map_err(|_| KeysError::NoRandom)?;
        let body = Zeroizing::new(STANDARD.encode(der.as_ref()));
        let text = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", *body);
        create(path, &Zeroizing::new(text))?;
    }
    for path in secret {
        let mut text = Zeroizing::new(STANDARD.encode(Secret::random()?.expose()));
        text.push('\n');
        create(path, &text)?;
    }
    // The names; the files themselves are synced. A crash before this may lose the keyring, and nobody was told of it.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| io(dir, source))
}

pub(super) fn read_ed25519(path: &Path, group_readable: bool) -> Result<Ed25519KeyPair, KeysError> {
    let text = read(path, group_readable, PEM)?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| form(path, PEM))?;
    // Version 1 carries no public key to compare with; of version 2 both halves must agree.
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map_err(|_| form(path, PEM))
}

pub(super) fn read_secret(path: &Path, group_readable: bool) -> Result<Secret, KeysError> {
    let text = read(path, group_readable, BASE64)?;
    let line = text.strip_suffix(b"\n").unwrap_or(&text);
    let decoded = Zeroizing::new(STANDARD.decode(line).map_err(|_| form(path, BASE64))?);
    let bytes = <[u8; SECRET_BYTES]>::try_from(&decoded[..]).map_err(|_| form(path, BASE64))?;
    // A file of zeros is one that was never filled.
    if bytes == [0; SECRET_BYTES] {
        return Err(form(path, BASE64));
    }
    Ok(Secret(Zeroizing::new(bytes)))
}

fn create(path: &Path, text: &str) -> Result<(), KeysError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = made.map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => KeysError::Exists(path.to_path_buf()),
        _ => io(path, source),
    })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|source| io(path, source))
}

fn read(path: &Path, group_readable: bool, expected: &'static str) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let file = File::open(path).map_err(|source| io(path, source))?;
    // Of the open file: what is checked is what is read. Mounted secrets are links, so links are followed.
    let metadata = file.metadata().map_err(|source| io(path, source))?;
    if !metadata.is_file() {
        return Err(form(path, expected));
    }
    let mode = metadata.permissions().mode() & 0o777;
    let (forbidden, closed_to) =
        if group_readable { (0o037, "others, and to its group's writes") } else { (0o077, "its group and to others") };
    if mode & forbidden != 0 {
        return Err(KeysError::TooOpen { file: path.to_path_buf(), mode, closed_to });
    }
    // One buffer of the greatest size, so that growing leaves no copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(|source| io(path, source))?;
    if text.len() > FILE_BYTES_MAX {
        return Err(form(path, expected));
    }
    Ok(text)
}

fn io(path: &Path, source: std::io::Error) -> KeysError {
    KeysError::Io { file: path.to_path_buf(), source }
}

fn form(path: &Path, expected: &'static str) -> KeysError {
    KeysError::Form { file: path.to_path_buf(), expected }
}
