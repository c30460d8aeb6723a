//! Who calls.
//!
//! Takes: the client certificate that rustls has verified, or a bearer token. Gives: the [`Caller`] that the settings
//! name for it. Never: believes a name that the settings do not list; believes a header.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use super::unit::Caller;

/// How one caller is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// The SHA-256 of its certificate in DER.
    CertificateSha256([u8; 32]),
    /// The common name of its certificate's subject, unique among those that the client CA signs.
    CommonName(String),
    /// The SHA-256 of its bearer token (RFC 6750).
    BearerSha256([u8; 32]),
}

/// The callers that the settings list.
#[derive(Debug, Default)]
pub struct Callers(Vec<(Credential, Caller)>);

impl Callers {
    /// A table of who is recognised by what. The first match counts.
    pub fn new(table: Vec<(Credential, Caller)>) -> Self {
        Self(table)
    }

    /// The caller of a connection whose client certificate has been verified against the client CA.
    pub fn by_certificate(&self, certificate: &CertificateDer<'_>) -> Option<&Caller> {
        let fingerprint: [u8; 32] = Sha256::digest(certificate).into();
        let common_name = common_name(certificate);
        self.find(|credential| match credential {
            Credential::CertificateSha256(wanted) => *wanted == fingerprint,
            Credential::CommonName(wanted) => common_name.as_deref() == Some(wanted),
            Credential::BearerSha256(_) => false,
        })
    }

    /// The caller of a request with `Authorization: Bearer …`. Tokens are compared by hash, so the time that the
    /// comparison takes tells nothing of a token.
    pub fn by_bearer(&self, token: &[u8]) -> Option<&Caller> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        self.find(|credential| matches!(credential, Credential::BearerSha256(wanted) if *wanted == hash))
    }

    fn find(&self, matches: impl Fn(&Credential) -> bool) -> Option<&Caller> {
        self.0.iter().find(|(credential, _)| matches(credential)).map(|(_, caller)| caller)
    }
}

/// What is known of the other end of a connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The caller that its certificate names.
    pub by_certificate: Option<Arc<Caller>>,
}

/// The only common name of the subject; none if there are several, since then it is not clear which one was meant.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(institution: &str) -> Caller {
        Caller { institution: institution.into(), device: None, may: Arc::new([]), roles: Arc::new([]), purpose: None }
    }

    fn certificate(common_names: &[&str]) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common_names {
            params.distinguished_name.push(rcgen::DnType::CommonName, *name);
        }
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_is_known_by_name_or_by_hash() {
        let one = certificate(&["hospital-a"]);
        let other = certificate(&["other"]);
        let callers = Callers::new(vec![
            (Credential::CommonName("hospital-a".into()), caller("a")),
            (Credential::CertificateSha256(Sha256::digest(&other).into()), caller("b")),
        ]);
        assert_eq!(callers.by_certificate(&one).unwrap(), &caller("a"));
        assert_eq!(callers.by_certificate(&other).unwrap(), &caller("b"));
        assert_eq!(callers.by_certificate(&certificate(&["hospital-b"])), None);
        assert_eq!(callers.by_certificate(&certificate(&[])), None);
        assert_eq!(callers.by_certificate(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn a_token_is_known_by_its_hash_only() {
        let callers = Callers::new(vec![(Credential::BearerSha256(Sha256::digest(b"t0ken").into()), caller("a"))]);
        assert!(callers.by_bearer(b"t0ken").is_some());
        assert!(callers.by_bearer(b"t0ke").is_none());
    }
}
