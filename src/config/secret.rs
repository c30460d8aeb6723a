//! Secrets: always in a file of their own, never in the settings, an argument or the environment.
//!
//! Takes a path; gives the file's bytes when they are asked for, so that a rotated secret is seen at the next use.
//! Never: printed, compared or cloned into a log. The settings refuse a value that looks like the secret itself.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The longest secret that is read, in bytes; a certificate chain with its key is far below.
const SECRET_BYTES_MAX: u64 = 1 << 20;

/// Where a secret stands. Knowing it gives nothing away, so it prints as its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile(PathBuf);

/// The bytes of a secret, without a trailing newline. Debug prints nothing of them.
#[derive(PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl SecretFile {
    /// The secret kept at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the secret as it stands now.
    ///
    /// Errors are the file system's; `InvalidData` for an empty file or one above 1 MiB.
    pub fn read(&self) -> io::Result<Secret> {
        let mut bytes = Vec::new();
        std::fs::File::open(&self.0)?.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > SECRET_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "above 1 MiB"));
        }
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "empty"));
        }
        Ok(Secret(bytes.into()))
    }
}

impl Secret {
    /// The bytes: for the one place that uses them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, if they are UTF-8.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Does this look like a secret that was put where its file's name belongs?
///
/// True for PEM text, several lines, URLs, and for a long run of base64 or hexadecimal without a dot or a slash.
pub(super) fn looks_inline(value: &str) -> bool {
    let encoded = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'=' | b'-' | b'_');
    value.contains("-----BEGIN")
        || value.contains(['\n', '\r'])
        || value.contains("://")
        || (value.len() >= 32 && value.bytes().all(encoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told_from_a_secret() {
        for path in ["keys/master.key", "/run/secrets/tls.key", "master-key-of-the-hospital-in-the-north.key", "a"] {
            assert!(!looks_inline(path), "{path}");
        }
        let hex = "3f".repeat(32);
        for secret in ["-----BEGIN PRIVATE KEY-----", "amqps://user:password@host", "one\ntwo", hex.as_str()] {
            assert!(looks_inline(secret));
        }
    }

    #[test]
    fn debug_prints_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "hunter2\r\n").unwrap();
        let secret = SecretFile::new(&path).read().unwrap();
        assert_eq!(secret.expose_str(), Some("hunter2"));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(SecretFile::new(&path).read().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
