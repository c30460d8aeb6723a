//! The house's HTTP client: HTTP/1.1 over rustls, one connection that is kept.
//!
//! Takes: a base URL, whom to trust, what to show, requests. Gives: answers, whole. Never: uses the system's roots;
//! speaks in the clear but to a loopback address; sends again what has no idempotency key.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Failure;
use crate::serve::tls;

/// To open a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// From the first byte of a request to the last of its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(30);

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 512 << 20;

/// Bytes of a file that are read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// How often a request is sent that gets no answer, or an answer that says to come again.
const ATTEMPTS_MAX: u32 = 6;

/// The longest pause before it is sent again, whatever the answer asks for.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(5);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a request carries; it can be read again.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    /// Nothing.
    None,
    /// A file, streamed.
    File(PathBuf),
}

/// A request; its path is relative to the base URL's origin.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) payload: Payload,
    /// Whether sending it twice does what sending it once does.
    pub(super) repeatable: bool,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("{0}: no connection within 10 s")]
    ConnectTimeout(String),
    #[error("{address}: {error}")]
    Connect { address: String, error: io::Error },
    #[error("the connection ended before the answer: {0}")]
    Ended(hyper::Error),
    #[error("no answer within 30 minutes")]
    AnswerTimeout,
    #[error("the answer can't be read: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
    #[error("{}: {error}", file.display())]
    File { file: PathBuf, error: io::Error },
    #[error("the request is not one: {0}")]
    Request(#[from] http::Error),
}

/// Whom a client trusts and what it shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    /// PEM: who signs servers' certificates.
    pub(super) ca_file: Option<PathBuf>,
    /// PEM: the certificate and key that are shown.
    pub(super) shown: Option<(PathBuf, PathBuf)>,
}

/// A client of one origin.
pub(super) struct Client {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connection: Option<SendRequest<Body>>,
}

impl Client {
    /// A client of the origin of `base`. Nothing is connected yet.
    pub(super) fn new(base: &Uri, identity: &Identity) -> Result<Self, Failure> {
        let bad = || Failure::Usage(format!("{base}: expected an https URL, or an http one on a loopback address"));
        let host = base.host().ok_or_else(bad)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let (tls, port) = match base.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
                (Some((TlsConnector::from(Arc::new(client_config(identity)?)), name)), 443)
            }
            Some("http") => {
                let loopback = host.parse::<std::net::IpAddr>().map_or(host == "localhost", |it| it.is_loopback());
                if !loopback {
                    return Err(bad());
                }
                (None, 80)
            }
            _ => return Err(bad()),
        };
        Ok(Self { host, port: base.port_u16().unwrap_or(port), tls, connection: None })
    }

    /// Sends a request. One that is repeatable is sent again if there is no answer, or one of 429 or 503.
    pub(super) async fn send(&mut self, ask: &Ask) -> Result<Answer, ClientError> {
        let mut attempt = 1;
        loop {
            let answered = self.send_once(ask).await;
            let last = attempt == ATTEMPTS_MAX || !ask.repeatable;
            let pause = match &answered {
                Ok(answer) if matches!(answer.status.as_u16(), 429 | 503) => retry_after(&answer.headers),
                Err(ClientError::Ended(_) | ClientError::Connect { .. } | ClientError::ConnectTimeout(_)) => {
                    Duration::from_millis(200)
                }
                _ => return answered,
            };
            if last {
                return answered;
            }
            tokio::time::sleep(pause.min(PAUSE_MAX)).await;
            attempt += 1;
        }
    }

    /// Sends a request once, on a connection of its own, and gives the answer before its body has come.
    pub(super) async fn open(&self, ask: &Ask, wait: Duration) -> Result<Response<Incoming>, ClientError> {
        let mut connection = self.connect().await?;
        let request = self.request(ask).await?;
        let answered = tokio::time::timeout(wait, connection.send_request(request)).await;
        answered.map_err(|_| ClientError::AnswerTimeout)?.map_err(ClientError::Ended)
    }

    async fn send_once(&mut self, ask: &Ask) -> Result<Answer, ClientError> {
        let mut connection = match self.connection.take() {
            // One that the server has closed meanwhile is no longer ready.
            Some(mut kept) => match kept.ready().await {
                Ok(()) => kept,
                Err(_) => self.connect().await?,
            },
            None => self.connect().await?,
        };
        let request = self.request(ask).await?;
        let answered = async {
            let response = connection.send_request(request).await.map_err(ClientError::Ended)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(ClientError::Answer)?.to_bytes();
            Ok::<_, ClientError>(Answer { status: parts.status, headers: parts.headers, body })
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, answered).await.map_err(|_| ClientError::AnswerTimeout)??;
        self.connection = Some(connection);
        Ok(answer)
    }

    async fn request(&self, ask: &Ask) -> Result<Request<Body>, ClientError> {
        let mut request = Request::builder().method(&ask.method).uri(&ask.path);
        let authority = if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        };
        request = request.header(header::HOST, authority);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        Ok(request.body(body(&ask.payload).await?)?)
    }

    async fn connect(&self) -> Result<SendRequest<Body>, ClientError> {
        let address = format!("{}:{}", self.host, self.port);
        let failed = |error| ClientError::Connect { address: address.clone(), error };
        let connecting = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
            // The platform's refusal costs only time.
            let _ = stream.set_nodelay(true);
            match &self.tls {
                None => handshake(TokioIo::new(stream)).await,
                Some((connector, name)) => {
                    let stream = connector.connect(name.clone(), stream).await.map_err(failed)?;
                    handshake(TokioIo::new(stream)).await
                }
            }
        };
        let timeout = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        timeout.map_err(|_| ClientError::ConnectTimeout(address.clone()))?
    }
}

async fn handshake<T>(io: T) -> Result<SendRequest<Body>, ClientError>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await.map_err(ClientError::Ended)?;
    // It ends with the sender; its errors are told to whoever waits for an answer.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

pub(super) fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(header::RETRY_AFTER).and_then(|it| it.to_str().ok()).and_then(|it| it.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}

async fn body(payload: &Payload) -> Result<Body, ClientError> {
    match payload {
        Payload::None => Ok(whole(Bytes::new())),
        Payload::File(path) => {
            let file = tokio::fs::File::open(path).await;
            let file = file.map_err(|error| ClientError::File { file: path.clone(), error })?;
            let chunks = stream::unfold(Some(file), |file| async move {
                let mut file = file?;
                let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
                match file.read_buf(&mut chunk).await {
                    Ok(0) => None,
                    Ok(_) => Some((Ok(chunk.freeze()), Some(file))),
                    Err(error) => Some((Err(error), None)),
                }
            });
            Ok(UnsyncBoxBody::new(StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data)))))
        }
    }
}

fn whole(bytes: Bytes) -> Body {
    UnsyncBoxBody::new(Full::new(bytes).map_err(|never| match never {}))
}

fn client_config(identity: &Identity) -> Result<rustls::ClientConfig, Failure> {
    let bad = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
    let ca = identity.ca_file.as_deref().ok_or_else(|| {
        Failure::Usage("https needs --ca FILE, or client.ca_file: the system's roots are never used".to_owned())
    })?;
    let roots = tls::roots(ca).map_err(|error| bad(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| bad(&error))?
        .with_root_certificates(roots);
    match &identity.shown {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let chain = tls::certificates(cert).map_err(|error| bad(&error))?;
            builder.with_client_auth_cert(chain, private_key(key)?).map_err(|error| bad(&error))
        }
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|_| Failure::Usage(format!("{}: expected a private key in PEM", file.display())))
}
