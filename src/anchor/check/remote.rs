//! A log that is read over HTTP, as any monitor may.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::files::FILE_BYTES_MAX;
use super::{Source, SourceError};

/// For one file, connecting included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A log's prefix on a server. Files are read one after the other on one connection, which is made anew if it ends.
pub struct Remote {
    base: Uri,
    /// Who signs the server's certificate; the system's roots are never used.
    tls: Option<TlsConnector>,
    connection: Mutex<Option<SendRequest<Empty<Bytes>>>>,
}

impl Remote {
    /// The log at this URL, such as `https://hospital.example/log`. With `roots`, https; without, http only.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] for what is no such URL.
    pub fn new(base: &str, roots: Option<RootCertStore>) -> Result<Self, SourceError> {
        let unreadable = |text: &str| SourceError::Unreadable { path: base.to_owned(), text: text.to_owned() };
        let uri: Uri = base.trim_end_matches('/').parse().map_err(|_| unreadable("expected a URL"))?;
        let tls = match (uri.scheme_str(), roots) {
            (Some("http"), _) => None,
            (Some("https"), Some(roots)) => Some(connector(roots).ok_or_else(|| unreadable("TLS"))?),
            (Some("https"), None) => return Err(unreadable("expected the CA that signs the server's certificate")),
            _ => return Err(unreadable("expected http or https")),
        };
        if uri.host().is_none() {
            return Err(unreadable("expected a host"));
        }
        Ok(Self { base: uri, tls, connection: Mutex::new(None) })
    }

    async fn read(&self, path: &str) -> Result<Option<Bytes>, String> {
        let mut connection = self.connection.lock().await;
        let mut open = match connection.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => self.connect().await?,
        };
        let text = |error: hyper::Error| error.to_string();
        open.ready().await.map_err(text)?;
        let host = self.base.authority().map_or("", |it| it.as_str());
        let request = Request::get(format!("{}/{path}", self.base.path().trim_end_matches('/')))
            .header(header::HOST, HeaderValue::from_str(host).map_err(|error| error.to_string())?)
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = open.send_request(request).await.map_err(text)?;
        let status = response.status();
        let limit = usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX);
        let body = Limited::new(response.into_body(), limit).collect().await.map_err(|error| error.to_string())?;
        *connection = Some(open);
        match status {
            StatusCode::OK => Ok(Some(body.to_bytes())),
            // Not there, or not for us.
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(None),
            other => Err(format!("status {other}")),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, String> {
        let host = self.base.host().unwrap_or_default();
        let port = self.base.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let bare = host.trim_matches(['[', ']']);
        let tcp = TcpStream::connect((bare, port)).await.map_err(|error| error.to_string())?;
        let Some(tls) = &self.tls else { return spoken(TokioIo::new(tcp)).await };
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
        spoken(TokioIo::new(tls.connect(name, tcp).await.map_err(|error| error.to_string())?)).await
    }
}

impl Source for Remote {
    fn file<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, SourceError>> {
        async move {
            let read = tokio::time::timeout(TIMEOUT, self.read(path)).await;
            read.unwrap_or_else(|_| Err("no answer in time".to_owned()))
                .map_err(|text| SourceError::Unreadable { path: path.to_owned(), text })
        }
        .boxed()
    }
}

/// HTTP/1.1 on a connection, driven by a task that ends with it.
async fn spoken<T>(io: T) -> Result<SendRequest<Empty<Bytes>>, String>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (open, connection) = handshake(io).await.map_err(|error| error.to_string())?;
    // Its error shows at the request that meets it.
    tokio::spawn(connection);
    Ok(open)
}

fn connector(roots: RootCertStore) -> Option<TlsConnector> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    Some(Arc::new(config.with_root_certificates(roots).with_no_client_auth()).into())
}
