//! Accepts connections and speaks HTTP/1.1 and HTTP/2 on them, over TLS 1.2 or 1.3.
//!
//! Takes: a bound socket, a TLS configuration, a service. Gives: each request, with what is known of its peer, to the
//! service. Never: reads a body; lets a slow or silent peer hold a connection beyond the limits; accepts after drain.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::caller::{Callers, Peer};
use super::stall::Bounded;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What bounds a connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once; more wait in the kernel's queue.
    pub connections_max: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for the head of a request.
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
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let Listener { tcp, tls, callers, limits } = listener;
    let acceptor = tls.map(TlsAcceptor::from);
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = Arc::new(GracefulShutdown::new());
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
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            connection(stream, acceptor, &callers, service, limits, watcher).await;
            drop(permit);
        });
    }
    drop(tcp);
    // Every watcher is held by its connection, so this is the last owner once they have ended.
    if let Some(graceful) = Arc::into_inner(graceful)
        && tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err()
    {
        tracing::warn!("requests were still in flight when the time to drain was over");
    }
}

async fn connection<S, B>(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    callers: &Callers,
    service: S,
    limits: Limits,
    watcher: hyper_util::server::graceful::Watcher,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    // Small answers wait for nothing; the platform's refusal to set it costs only time.
    let _ = stream.set_nodelay(true);
    let stream = Bounded::new(stream, limits.stall);
    let mut peer = Peer::default();
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(limits.header).max_buf_size(limits.header_bytes_max);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(20));
    let ended = match acceptor {
        None => {
            let service = with_peer(service, peer);
            watcher.watch(http.serve_connection(TokioIo::new(stream), service).into_owned()).await
        }
        Some(acceptor) => {
            let tls = match tokio::time::timeout(limits.handshake, acceptor.accept(stream)).await {
                Ok(Ok(tls)) => tls,
                Ok(Err(error)) => return tracing::debug!(kind = ?error.kind(), "TLS handshake failed"),
                Err(_) => return tracing::debug!("TLS handshake took too long"),
            };
            let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
            peer.by_certificate = certificate.and_then(|it| callers.by_certificate(it)).cloned().map(Arc::new);
            let service = with_peer(service, peer);
            watcher.watch(http.serve_connection(TokioIo::new(tls), service).into_owned()).await
        }
    };
    if let Err(error) = ended {
        // hyper has answered what can be answered (a head that came too slowly: 408). Its text may quote the request.
        let _ = error;
        tracing::debug!("connection ended with an error");
    }
}

/// Puts what is known of the peer beside each request.
fn with_peer<S, B>(
    service: S,
    peer: Peer,
) -> impl hyper::service::Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
{
    hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        tower::ServiceExt::oneshot(service.clone(), request)
    })
}
