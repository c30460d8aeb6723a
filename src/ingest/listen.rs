//! Accepts connections and speaks HTTP/1.1 and HTTP/2 on them, over TLS 1.2 or 1.3.
//!
//! Takes: a bound socket, a TLS configuration, a service. Gives: each request, with what is known of its peer, to the
//! service. Never: reads a body; lets a slow or silent peer hold a connection beyond the limits; accepts after drain.
//!
//! Which of the two is spoken is agreed in the TLS handshake (ALPN, RFC 7301), never guessed from the first bytes: without
//! TLS, and without ALPN, it is HTTP/1.1. Who has asked nothing `header` after the acceptance is closed, wherever it stopped:
//! in the handshake, in a preface, in a head.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::caller::{Callers, Peer};
use super::flight::{Answer, Bounds, Flight, Verdict};
use super::stall::Bounded;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Streams that a peer has opened and reset before they were looked at: above it the connection ends (rapid reset,
/// CVE-2023-44487).
const RESETS_PENDING_MAX: usize = 20;

/// Streams that were reset over errors of the peer's own: above it the connection ends (CVE-2025-8671).
const RESETS_MAX: usize = 128;

/// What a peer may have sent and we not read, of a stream and of all of a connection.
const WINDOW_BYTES: u32 = 1 << 20;

/// How often a silent HTTP/2 peer is asked whether it is there, and how long it has to say so.
const PING: Duration = Duration::from_secs(20);

/// What bounds a connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once; more wait in the kernel's queue.
    pub connections_max: usize,
    /// From the acceptance, TLS included, or from the end of an answer, to the end of a request's head.
    pub header: Duration,
    /// Bytes of the head of a request.
    pub header_bytes_max: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// The longest that a peer may take nothing of what is written to it.
    pub stall: Duration,
    /// Time that requests in flight get after drain has begun.
    pub drain: Duration,
}

/// One address that is served.
pub struct Listener {
    /// The bound socket.
    pub tcp: TcpListener,
    /// TLS; without it the address must be on loopback or behind something that terminates TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Whom client certificates name.
    pub callers: Arc<Callers>,
    /// What bounds each connection.
    pub limits: Limits,
}

/// Serves until `drain` turns true, then lets requests in flight end within the limit.
pub async fn serve<S, B>(listener: Listener, service: S, mut drain: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let Listener { tcp, tls, callers, limits } = listener;
    let acceptor = tls.map(TlsAcceptor::from);
    let places = u32::try_from(limits.connections_max).unwrap_or(u32::MAX);
    let room = Arc::new(Semaphore::new(places as usize));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = tcp.accept() => accepted,
            _ = drain.wait_for(|drain| *drain) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // Too many open files, or the peer is gone already: the next accept may do better, but not at once.
            Err(error) => {
                tracing::warn!(kind = ?error.kind(), "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, callers, service) = (acceptor.clone(), Arc::clone(&callers), service.clone());
        let draining = drain.clone();
        tokio::spawn(async move {
            connection(stream, acceptor, &callers, service, limits, draining).await;
            drop(permit);
        });
    }
    drop(tcp);
    // Each connection holds its place until it has ended.
    if tokio::time::timeout(limits.drain, room.acquire_many(places)).await.is_err() {
        tracing::warn!("requests were still in flight when the time to drain was over");
    }
}

async fn connection<S, B>(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    callers: &Callers,
    service: S,
    limits: Limits,
    drain: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let opened = Instant::now();
    // Small answers wait for nothing; the platform's refusal to set it costs only time.
    let _ = stream.set_nodelay(true);
    let written = Arc::new(AtomicU64::new(0));
    let stream = Bounded::new(stream, limits.stall, Arc::clone(&written));
    let flight = Flight::new(Bounds { head: limits.header, stall: limits.stall }, opened, written);
    let Some(acceptor) = acceptor else {
        let service = accompanied(service, Peer::default(), Arc::clone(&flight));
        return until_its_end(one(stream, service, limits), &flight, false, drain).await;
    };
    let tls = match timeout_at(opened + limits.header, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(kind = ?error.kind(), "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let by_certificate = certificate.and_then(|it| callers.by_certificate(it)).cloned().map(Arc::new);
    let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = accompanied(service, Peer { by_certificate }, Arc::clone(&flight));
    if is_h2 {
        until_its_end(two(tls, service, limits), &flight, true, drain).await;
    } else {
        until_its_end(one(tls, service, limits), &flight, false, drain).await;
    }
}

/// Drives a connection until it has ended by itself, or its peer has held it for too long.
async fn until_its_end(
    connection: impl GracefulConnection<Error = hyper::Error>,
    flight: &Flight,
    is_h2: bool,
    mut drain: watch::Receiver<bool>,
) {
    let mut connection = pin!(connection);
    let mut told = false;
    loop {
        // Once it has asked, hyper's own timer looks after HTTP/1.1, of which it knows each byte.
        let watched = is_h2 || !flight.has_begun();
        let mut look = Instant::now();
        if watched {
            match flight.judge(look) {
                Verdict::Wait(until) => look = until,
                Verdict::End => {
                    connection.as_mut().graceful_shutdown();
                    continue;
                }
                Verdict::Drop => return tracing::debug!("the peer held its connection for too long"),
            }
        }
        tokio::select! {
            ended = connection.as_mut() => {
                // hyper has answered what can be answered. Its text may quote the request.
                if ended.is_err() {
                    tracing::debug!("connection ended with an error");
                }
                return;
            }
            _ = drain.wait_for(|drain| *drain), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(look), if watched => {}
        }
    }
}

/// HTTP/1.1. What comes too slowly is closed, before the first byte, within a head and between two requests.
fn one<T, S, B>(stream: T, service: S, limits: Limits) -> http1::Connection<TokioIo<T>, S>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    S: hyper::service::HttpService<Incoming, ResBody = B, Error = Infallible>,
    B: Body + 'static,
    B::Error: Into<BoxError>,
{
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(limits.header_bytes_max)
        .serve_connection(TokioIo::new(stream), service)
}

/// HTTP/2. What comes too slowly is for [`Flight`] to tell: hyper has no timer before the first request.
fn two<T, S, B>(stream: T, service: S, limits: Limits) -> http2::Connection<TokioIo<T>, S, TokioExecutor>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    S: hyper::service::HttpService<Incoming, ResBody = B, Error = Infallible>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    TokioExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .serve_connection(TokioIo::new(stream), service)
}

/// Puts what is known of the peer beside each request, and counts it until all of its answer was handed on.
fn accompanied<S, B>(
    service: S,
    peer: Peer,
    flight: Arc<Flight>,
) -> impl hyper::service::Service<Request<Incoming>, Response = Response<Answer<B>>, Error = Infallible, Future: Send> + Clone
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Unpin + Send + 'static,
{
    hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let begun = flight.begin();
        request.extensions_mut().insert(peer.clone());
        let answering = tower::ServiceExt::oneshot(service.clone(), request);
        async move { Ok(answering.await?.map(|body| begun.answers(body))) }
    })
}
