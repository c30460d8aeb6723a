//! The wire to peers that are asked over HTTP: the hospital's FHIR server, a terminology server.
//!
//! Takes: a URL and who signs for it. Gives: an HTTP client whose connections are made within a time. Never: uses the system's
//! roots; speaks plain HTTP off the loopback; follows a redirect; sends anything by itself.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Uri;
use http_body_util::Full;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::SecretFile;

/// How long a connection waits for its next use; shorter than servers wait.
const IDLE: Duration = Duration::from_secs(5);

/// An HTTP client of one peer.
pub type Http = legacy::Client<Wires, Full<Bytes>>;

/// Whom a client speaks to, and how.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// The table of the settings that names it, for errors.
    pub section: &'static str,
    /// Its base URL.
    pub url: &'a Uri,
    /// PEM: who signs its certificate.
    pub ca_file: Option<&'a Path>,
    /// PEM: the certificate and the key that are shown to it.
    pub client: Option<&'a (PathBuf, SecretFile)>,
    /// To open a connection, TLS included.
    pub connect_timeout: Duration,
    /// Connections that are kept open while nobody uses them.
    pub idle_max: usize,
}

/// Why a client could not be made. Names the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A PEM file is not what it should be.
    #[error("{file}: expected {expected}")]
    File {
        /// The file.
        file: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// rustls refuses the parts.
    #[error("TLS of [{section}]: {source}")]
    Parts {
        /// The table of the settings.
        section: &'static str,
        /// Why.
        source: rustls::Error,
    },
    /// `https` needs to know who signs the server's certificate.
    #[error("{0}.ca_file: expected, since the system's roots are not used")]
    NoRoots(&'static str),
    /// Plain HTTP to another machine.
    #[error("{0}.url: expected https, or http on a loopback address")]
    Plain(&'static str),
}

/// A client of a peer; connects at the first request.
///
/// # Errors
/// [`WireError`].
pub fn http(peer: Peer<'_>) -> Result<Http, WireError> {
    let tls = if peer.url.scheme_str() == Some("https") {
        Some(TlsConnector::from(Arc::new(tls(peer)?)))
    } else {
        let host = peer.url.host().unwrap_or("").trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback());
        if !loopback {
            return Err(WireError::Plain(peer.section));
        }
        None
    };
    let wires = Wires { tls, timeout: peer.connect_timeout };
    let builder = legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(peer.idle_max)
        .build(wires);
    Ok(builder)
}

fn tls(peer: Peer<'_>) -> Result<ClientConfig, WireError> {
    let section = peer.section;
    let file = |path: &Path, expected| WireError::File { file: path.display().to_string(), expected };
    let parts = |source| WireError::Parts { section, source };
    let certificates = |path: &Path| {
        let found: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(path).map_err(|_| file(path, "certificates in PEM"))?.collect();
        found.map_err(|_| file(path, "certificates in PEM"))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(peer.ca_file.ok_or(WireError::NoRoots(section))?)? {
        roots.add(certificate).map_err(parts)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(parts)?
        .with_root_certificates(roots);
    match peer.client {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            let chain = certificates(chain)?;
            let key = PrivateKeyDer::from_pem_file(key.path()).map_err(|_| file(key.path(), "a private key in PEM"))?;
            builder.with_client_auth_cert(chain, key).map_err(parts)
        }
    }
}

/// Opens connections.
#[derive(Clone)]
pub struct Wires {
    tls: Option<TlsConnector>,
    timeout: Duration,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection, with or without TLS.
pub struct Wire(TokioIo<Box<dyn Stream>>);

impl tower::Service<Uri> for Wires {
    type Response = Wire;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Wire>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { tls, timeout } = self.clone();
        Box::pin(async move {
            let open = async {
                let host = uri.host().unwrap_or("").trim_matches(['[', ']']).to_owned();
                let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                let Some(tls) = tls else { return Ok(Wire(TokioIo::new(Box::new(stream) as Box<dyn Stream>))) };
                let name = ServerName::try_from(host).map_err(io::Error::other)?;
                let stream = tls.connect(name, stream).await?;
                Ok(Wire(TokioIo::new(Box::new(stream) as Box<dyn Stream>)))
            };
            tokio::time::timeout(timeout, open).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        })
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
