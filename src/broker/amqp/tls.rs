//! TLS towards the broker: rustls with the aws-lc-rs provider, its own roots, and perhaps a client certificate.
//!
//! Takes file names; gives a connector. The files are read at each connection, so that a renewed certificate is used
//! without a restart. Never trusts the system's roots, and never skips the check of the broker's name.

use std::path::Path;
use std::sync::Arc;

use lapin::tcp::RustlsConnector;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::BrokerTls;

/// Reads the certificates and key as they stand now.
pub(super) fn connector(tls: &BrokerTls) -> Result<RustlsConnector, String> {
    let ca_file = tls.ca_file.as_deref().ok_or("broker.ca_file is needed for an amqps URL")?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_file)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", ca_file.display()))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some((cert_file, key_file)) => {
            let named = |error: &dyn std::fmt::Display| format!("{}: {error}", key_file.path().display());
            let secret = key_file.read().map_err(|error| named(&error))?;
            // The parser's own text names the kind of fault, never bytes of the key.
            let key = PrivateKeyDer::from_pem_slice(secret.expose()).map_err(|error| named(&error))?;
            builder.with_client_auth_cert(certificates(cert_file)?, key).map_err(|error| named(&error))?
        }
    };
    Ok(RustlsConnector::from(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(|error| named(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| named(&error))?;
    if certificates.is_empty() { Err(named(&"no certificate in it")) } else { Ok(certificates) }
}
