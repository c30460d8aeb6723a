//! TLS of the listeners.
//!
//! Takes: PEM files. Gives: a rustls configuration for TLS 1.2 and 1.3, with client certificates asked for where a
//! client CA is set. Never: uses the system's roots; falls back to plain text.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::config;

/// Why TLS could not be set up. Names the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file is not what it should be.
    #[error("{file}: expected {expected}")]
    File {
        /// The file.
        file: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// rustls refuses the parts: the key does not belong to the certificate, or the CA can't be used.
    #[error("TLS: {0}")]
    Parts(String),
}

/// The certificates of a PEM file, in its order.
///
/// # Errors
/// [`TlsError::File`].
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = || TlsError::File { file: file.display().to_string(), expected: "certificates in PEM" };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(|_| error())?.collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(error)
}

/// The roots of a PEM file.
///
/// # Errors
/// [`TlsError`].
pub fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| TlsError::Parts(error.to_string()))?;
    }
    Ok(roots)
}

/// When the server's certificate ends, in seconds since 1970.
///
/// # Errors
/// [`TlsError`].
pub fn ends(settings: &config::Tls) -> Result<i64, TlsError> {
    let file = &settings.cert_file;
    let error = || TlsError::File { file: file.display().to_string(), expected: "certificates in PEM" };
    let chain = certificates(file)?;
    let (_, certificate) =
        chain.first().and_then(|it| x509_parser::parse_x509_certificate(it).ok()).ok_or_else(error)?;
    Ok(certificate.validity().not_after.timestamp())
}

/// A server's configuration: HTTP/2 and HTTP/1.1 by ALPN.
///
/// # Errors
/// [`TlsError`].
pub fn server(settings: &config::Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(&settings.cert_file)?;
    let key_file = settings.key_file.path();
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|_| TlsError::File { file: key_file.display().to_string(), expected: "a private key in PEM" })?;
    let parts = |error: &dyn std::fmt::Display| TlsError::Parts(error.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| parts(&error))?;
    let builder = match &settings.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(file) => {
            // A certificate is verified if it is shown. Who shows none must have a token; /fhir/metadata needs neither.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(file)?), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| parts(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut tls = builder.with_single_cert(chain, key).map_err(|error| parts(&error))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}
