//! Serve: everything is built, bound, served and drained.
//!
//! Takes: [`Config`]. Gives: a running [`Server`]. Never: binds a port before everything else is built; answers before
//! it is ready.

pub mod admin;
pub mod build;
pub mod events;
pub mod fhir;
pub mod host;
pub mod log;
pub mod receipts;
pub mod metadata;
pub mod operator;
mod outlet;
mod reload;
pub mod parked;
pub mod respond;
pub mod schemas;
pub mod settle;
mod measure;
mod stream;
pub mod tls;
mod trace;
mod validate;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use data_encoding::HEXLOWER_PERMISSIVE;
use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tracing::Instrument as _;

use self::build::Built;
use self::fhir::Face;
use self::measure::Measure;
use self::reload::Reload;
use self::respond::{Reply, failure};
use self::settle::Settle;
use crate::config::{self, Config};
use crate::error::{Error, Refusal};
use crate::ingest::caller::{Callers, Credential};
use crate::ingest::listen::{self, Listener};
use crate::ingest::unit::Caller;
use crate::ingest::window::Window;
use crate::ingest::{body, units};
use crate::observe::{Condition, Observer};

/// Bytes a second below which a body comes too slowly.
const RATE_MIN: u64 = 512;

/// Bytes of the head of a request.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Bytes of the entries of all streams that are worked on at a time; each is held several times over on its way.
const ENTRIES_BYTES: usize = 3 << 20;

/// A gateway that serves.
pub struct Server {
    /// Where `/fhir` is served.
    pub fhir: SocketAddr,
    /// Where the probes and metrics are served.
    pub admin: SocketAddr,
    /// Where `/log` is served: `fhir`, unless the settings name a listener of its own.
    pub log: SocketAddr,
    drain: watch::Sender<bool>,
    observer: Arc<Observer>,
    /// The listeners of callers.
    tasks: JoinSet<()>,
    settle: Settle,
    reload: Arc<Notify>,
    /// Stops the loops of settle and the admin port, which end after the listeners.
    stop: watch::Sender<bool>,
    loops: JoinSet<()>,
    /// What keeps the doors informed: to the end, since settle asks them too.
    _watching: JoinSet<()>,
}

/// The faces of one listener, by path.
struct Faces {
    fhir: Arc<Face>,
    receipts: receipts::Face,
    events: Arc<events::Face>,
    /// None if the log has a listener of its own.
    log: Option<Arc<log::Face>>,
}

impl Faces {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path();
        if path.starts_with("/receipts/") {
            return self.receipts.answer(&request.into_parts().0).await;
        }
        if path.starts_with("/schemas/") {
            return schemas::answer(&request.into_parts().0);
        }
        match &self.log {
            Some(log) if path.starts_with("/log/") => log.answer(&request.into_parts().0).await,
            _ => self.fhir.answer(request).await,
        }
    }
}

/// The faces of the admin port.
struct Admin {
    operator: operator::Operator,
    units: parked::Face,
    events: operator::Face,
    observer: Arc<Observer>,
}

impl Admin {
    async fn answer(&self, request: &Request<Incoming>) -> Reply {
        let path = request.uri().path();
        let is = |face: &str| path.strip_prefix(face).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let (units, events) = (is(parked::PATH), is(operator::PATH));
        if !units && !events {
            return admin::answer(&self.observer, request);
        }
        match self.operator.asks(request.headers()) {
            Err(error) => failure(&error),
            Ok(()) if units => self.units.answer(request).await,
            Ok(()) => self.events.answer(request).await,
        }
    }
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("{address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The settings, or a file that they name, are not what they should be.
    #[error("{0}")]
    Settings(String),
    /// The settings are good, and a part can't be opened: the store, the ledger, the log.
    #[error("{0}")]
    Part(String),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// The callers that the settings list.
///
/// # Errors
/// [`StartError::Settings`] for a token file that can't be used.
pub fn callers(settings: &[config::Caller]) -> Result<Callers, StartError> {
    let table = settings.iter().map(|it| {
        let credential = match &it.credential {
            config::Credential::CertificateCommonName(name) => Credential::CommonName(name.clone()),
            config::Credential::CertificateSha256(hash) => Credential::CertificateSha256(*hash),
            config::Credential::TokenSha256(file) => Credential::BearerSha256(token_hash(file)?),
        };
        let caller = Caller {
            institution: it.institution.as_str().into(),
            device: None,
            may: it.may.as_slice().into(),
            roles: it.roles.clone().into(),
            purpose: Some(it.purpose.as_str().into()),
        };
        Ok((credential, caller))
    });
    table.collect::<Result<_, _>>().map(Callers::new)
}

fn token_hash(file: &config::SecretFile) -> Result<[u8; 32], StartError> {
    let error = || StartError::Settings(format!("{}: expected 64 hexadecimal digits", file.path().display()));
    let secret = file.read().map_err(|_| error())?;
    let text = secret.expose_str().map(str::trim).ok_or_else(error)?;
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|it| it.try_into().ok()).ok_or_else(error)
}

impl Server {
    /// Binds and serves what was built.
    ///
    /// # Errors
    /// [`StartError`], with nothing left bound.
    pub async fn start(
        config: &Config,
        built: Built,
        metadata: bytes::Bytes,
        observer: Arc<Observer>,
    ) -> Result<Self, StartError> {
        let Built { gateway, spools, log, ledger, watching } = built;
        let callers = Arc::new(callers(&config.callers)?);
        let tls = config.listen.tls.as_ref().map(tls::server).transpose()?;
        let operator = config.listen.operator_token_sha256_file.as_ref().map(token_hash).transpose()?;
        let operator = operator::Operator { token_sha256: operator };
        let on_admin = Arc::new(Admin {
            operator,
            units: parked::Face { gateway: Arc::clone(&gateway) },
            events: operator::Face { gateway: Arc::clone(&gateway) },
            observer: Arc::clone(&observer),
        });
        if let Some(settings) = &config.listen.tls {
            observer.metrics().certificate_ends(tls::ends(settings)?);
        }
        let fhir_tcp = bind(config.listen.fhir).await?;
        let admin_tcp = bind(config.listen.admin).await?;
        let log_tcp = match config.listen.log {
            Some(address) => Some((bind(address).await?, address)),
            None => None,
        };
        let local =
            |tcp: &TcpListener, address| tcp.local_addr().map_err(|source| StartError::Bind { address, source });
        let (fhir, admin) = (local(&fhir_tcp, config.listen.fhir)?, local(&admin_tcp, config.listen.admin)?);
        let log_address = match &log_tcp {
            Some((tcp, address)) => local(tcp, *address)?,
            None => fhir,
        };
        let (drain, draining) = watch::channel(false);
        let limits = &config.limits;
        let connection = listen::Limits {
            connections_max: limits.connections_max,
            header: limits.header_timeout,
            header_bytes_max: HEADER_BYTES_MAX,
            streams_max: 100,
            stall: limits.idle_timeout,
            drain: config.listen.drain_timeout,
        };
        let outlet::Outlet { broker, feed } = outlet::start(config, &gateway)?;
        let settle = Settle::new(config, Arc::clone(&gateway), Arc::clone(&log), ledger, broker);
        let tenant: Arc<str> = config.tenant.id.as_str().into();
        // A listener of its own knows no callers, so it shows what is public only.
        let log_callers = if log_tcp.is_some() { Arc::default() } else { Arc::clone(&callers) };
        let log_face = Arc::new(log::Face { log: Arc::clone(&log), callers: log_callers, tenant });
        let receipts = receipts::Face { gateway: Arc::clone(&gateway), log, callers: Arc::clone(&callers) };
        let events = events::Face::new(
            feed,
            Arc::clone(&gateway),
            Arc::clone(&callers),
            config.subscribers.clone().into(),
            draining.clone(),
        );
        let face = Arc::new(Face {
            gateway: Arc::clone(&gateway),
            callers: Arc::clone(&callers),
            body: body::Limits {
                bytes_max: limits.body_bytes_max,
                idle: limits.idle_timeout,
                whole: limits.request_timeout,
                rate_min: RATE_MIN,
            },
            units: units::Limits {
                resource_bytes_max: limits.resource_bytes_max,
                transaction_bytes_max: limits.transaction_memory_max,
                entries_max: limits.entries_max,
                depth_max: limits.depth_max,
            },
            whole: Window::new(limits.transaction_memory_max),
            entries: Window::new(ENTRIES_BYTES),
            spools: spools.clone(),
            base: config.tenant.base_url.as_str().into(),
            metadata,
            unit_timeout: limits.request_timeout,
        });
        let mut tasks = JoinSet::new();
        let log_there = log_tcp.is_none().then(|| Arc::clone(&log_face));
        let faces = Faces { fhir: face, receipts, events: Arc::new(events), log: log_there };
        let service = layered(Arc::new(faces), limits.concurrency_max, Arc::clone(&observer));
        let listener = Listener { tcp: fhir_tcp, tls, callers, limits: connection };
        tasks.spawn(listen::serve(listener, service, draining.clone()));
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let admin = Arc::clone(&on_admin);
            async move { Ok::<_, Infallible>(admin.answer(&request).await) }
        });
        let (stop, stopping) = watch::channel(false);
        let mut loops = JoinSet::new();
        // It tells how the drain goes, so it ends after the others.
        let listener = Listener { tcp: admin_tcp, tls: None, callers: Arc::default(), limits: connection };
        loops.spawn(listen::serve(listener, service, stopping.clone()));
        if let Some((tcp, _)) = log_tcp {
            let service = tower::service_fn(move |request: Request<Incoming>| {
                let face = Arc::clone(&log_face);
                async move { Ok::<_, Infallible>(face.answer(&request.into_parts().0).await) }
            });
            let listener = Listener { tcp, tls: None, callers: Arc::default(), limits: connection };
            tasks.spawn(listen::serve(listener, service, draining));
        }
        settle.start(&mut loops, &stopping);
        let reload = Arc::new(Notify::new());
        loops.spawn(Reload::new(Arc::clone(&gateway), Arc::clone(&reload)).run(stopping.clone()));
        let measure = Measure { gateway, spools };
        // Before it says that it has started: what it says of itself is true from the first probe on.
        measure.ask();
        loops.spawn(measure.run(stopping));
        observer.set_started();
        Ok(Self {
            fhir,
            admin,
            log: log_address,
            drain,
            observer,
            tasks,
            settle,
            reload,
            stop,
            loops,
            _watching: watching,
        })
    }

    /// Reads rules and packages again, soon: those that are whole take the place of those in force, for units that come then.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Takes no new work, lets work in flight end within the limit, and returns when nothing runs any more.
    pub async fn drain(mut self) {
        self.observer.set(Condition::Drain, Err("draining".to_owned()));
        // Nobody listens any more only if everything has ended already.
        let _ = self.drain.send(true);
        while self.tasks.join_next().await.is_some() {}
        // Nothing is recorded any more: the loops end, and one last pass settles what they have not seen.
        let _ = self.stop.send(true);
        while self.loops.join_next().await.is_some() {}
        self.settle.last().await;
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { address, source })
}

/// The layers at the socket, where types do not change: load is shed before it queues, and a queue is never longer
/// than what is worked on.
fn layered(
    faces: Arc<Faces>,
    concurrency_max: usize,
    observer: Arc<Observer>,
) -> impl tower::Service<Request<Incoming>, Response = Reply, Error = Infallible, Future: Send> + Clone + Send + 'static
{
    let events = Arc::clone(&faces.events);
    let inner = ServiceBuilder::new().load_shed().concurrency_limit(concurrency_max).service_fn(
        move |request: Request<Incoming>| {
            let faces = Arc::clone(&faces);
            async move { Ok::<_, Infallible>(faces.answer(request).await) }
        },
    );
    tower::service_fn(move |request: Request<Incoming>| {
        let (inner, observer, events) = (inner.clone(), Arc::clone(&observer), Arc::clone(&events));
        let span = trace::span(&request);
        let answering = async move {
            let started = Instant::now();
            // Readers of the feed wait for most of their time: they have bounds of their own, and take no sender's place.
            let reply = if request.uri().path() == events::PATH {
                events.answer(&request.into_parts().0).await
            } else {
                let answered: Result<Reply, BoxError> = inner.oneshot(request).await;
                answered.unwrap_or_else(|_| shed(&observer))
            };
            if let Some(error) = reply.extensions().get::<Error>() {
                trace::told(error, trace::Whole::Request);
                observer.metrics().failed(error);
            }
            trace::answered(reply.status(), started.elapsed());
            Ok(reply)
        };
        answering.instrument(span)
    })
}

/// RFC 6585 §4.
fn shed(observer: &Observer) -> Reply {
    let error = Error::refusal(Refusal::TooMany, "limits.concurrency", "fewer requests at a time");
    observer.metrics().shed.inc();
    let mut reply = failure(&error);
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}
