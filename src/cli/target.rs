//! Which gateway a command speaks to, and as whom.
//!
//! Takes: the arguments that every such command has, and the settings where they are named. Gives: a base URL, whom to
//! trust and what to show. Never: the system's roots.

use std::path::PathBuf;

use http::Uri;

use super::client::Identity;
use super::{Failure, settings};
use crate::config::Config;

/// A gateway, and what it is shown.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// Settings with a table [client]: address, trust and identity
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Base URL of the gateway, instead of that of the settings
    #[arg(long, value_name = "URL")]
    to: Option<Uri>,
    /// PEM: who signs the gateway's certificate
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM: the certificate to show
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM: the private key of the certificate
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl Target {
    /// Where to send, and as whom. An argument goes before the settings.
    pub(super) fn resolve(&self) -> Result<(Uri, Identity), Failure> {
        let config = match (&self.config, &self.to) {
            (None, Some(_)) => None,
            (path, _) => Some(settings(path.clone())?),
        };
        let client = config.as_ref().and_then(|config| config.client.as_ref());
        let shown = client.and_then(|client| client.identity.as_ref());
        let identity = Identity {
            ca_file: self.ca.clone().or_else(|| client.and_then(|client| client.ca_file.clone())),
            shown: self
                .cert
                .clone()
                .zip(self.key.clone())
                .or_else(|| shown.map(|(cert, key)| (cert.clone(), key.path().to_owned()))),
        };
        let base = match (&self.to, &config) {
            (Some(url), _) => url.clone(),
            (None, Some(config)) => base_of(config)?,
            (None, None) => return Err(Failure::Usage("--config FILE or --to URL is needed".to_owned())),
        };
        Ok((base, identity))
    }
}

/// `[base]` of the gateway of these settings.
pub(super) fn base_of(config: &Config) -> Result<Uri, Failure> {
    if let Some(url) = config.client.as_ref().and_then(|client| client.url.clone()) {
        return Ok(url);
    }
    let scheme = if config.listen.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}/fhir", config.listen.fhir);
    url.parse().map_err(|_| Failure::Usage(format!("{url}: expected a URL; --to gives one")))
}
