//! Reads a body.
//!
//! Takes: the frames of a request. Gives: its bytes, inflated, in a spool that is in memory while it is small and in
//! an encrypted file beyond. Never: takes more than the limits allow, neither on the wire nor after inflating; waits
//! for a peer that has stopped sending.

use std::io::Write as _;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::Body;

use crate::error::{Error, Peer, Refusal, Result};
use crate::store::spool::{Spool, SpoolError, Spools, Writer};

/// What bounds a body.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes, after inflating.
    pub bytes_max: u64,
    /// Time without a byte after which the peer counts as too slow.
    pub idle: Duration,
    /// Time for all of it.
    pub whole: Duration,
    /// Bytes a second, on average over the body, below which the peer counts as too slow.
    pub rate_min: u64,
}

/// Reads all of a body.
///
/// # Errors
/// 413 beyond the limit, 415 for a content coding other than gzip, 408 for a slow peer, 400 for broken gzip or a
/// broken connection; an outage when there is no room for it.
pub async fn read<B>(headers: &HeaderMap, body: B, limits: Limits, spools: &Spools) -> Result<Spool>
where
    B: Body<Data = Bytes> + Send,
    B::Error: std::error::Error,
{
    let mut body = std::pin::pin!(body);
    let spooled = spool(headers, body.as_mut(), limits, spools).await;
    if spooled.is_err() {
        // A connection that is closed with bytes unread is reset, and the reset may overtake the answer: a sender that
        // is not far over gets to read it.
        let _ = tokio::time::timeout(LINGER, linger(body)).await;
    }
    spooled
}

/// How long, and how many bytes, a body that is refused is still taken and thrown away.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 16 << 20;

async fn linger<B: Body<Data = Bytes>>(mut body: Pin<&mut B>) {
    let mut thrown = 0;
    while let Some(Ok(frame)) = body.frame().await {
        thrown += frame.data_ref().map_or(0, Bytes::len);
        if thrown > LINGER_BYTES_MAX {
            return;
        }
    }
}

async fn spool<B>(headers: &HeaderMap, mut body: Pin<&mut B>, limits: Limits, spools: &Spools) -> Result<Spool>
where
    B: Body<Data = Bytes> + Send,
    B::Error: std::error::Error,
{
    let mut sink = Sink::new(headers, limits, spools.begin())?;
    let declared = body.size_hint().exact();
    if declared.is_some_and(|bytes| bytes > limits.bytes_max) {
        return Err(too_large(limits));
    }
    let started = tokio::time::Instant::now();
    let mut received: u64 = 0;
    loop {
        let until = (started + limits.whole).min(tokio::time::Instant::now() + limits.idle);
        let frame = match tokio::time::timeout_at(until, body.frame()).await {
            Err(_) if started.elapsed() >= limits.whole => return Err(too_slow("the body took too long")),
            Err(_) => return Err(too_slow("no byte came in time")),
            Ok(None) => break,
            Ok(Some(Err(_))) => {
                return Err(Error::refusal(Refusal::Malformed, "http.body", "the body ended before it was complete"));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        received += data.len() as u64;
        if received > limits.bytes_max {
            return Err(too_large(limits));
        }
        if started.elapsed() > limits.whole {
            return Err(too_slow("the body took too long"));
        }
        let elapsed = started.elapsed().saturating_sub(limits.idle).as_secs();
        if received < elapsed.saturating_mul(limits.rate_min) {
            return Err(too_slow("the body comes too slowly"));
        }
        sink.push(&data)?;
    }
    sink.finish()
}

fn too_slow(text: &'static str) -> Error {
    Error::refusal(Refusal::Timeout, "http.slow", text)
}

fn too_large(limits: Limits) -> Error {
    Error::refusal(Refusal::TooLarge, "limits.body", format!("a body of at most {} bytes", limits.bytes_max))
}

fn no_room(error: &SpoolError) -> Error {
    Error::outage(Peer::Capacity, Duration::from_secs(5), format!("spool: {error}"))
}

/// Where the bytes go: straight to the spool, or through gzip.
enum Sink {
    Identity { spool: Writer, limits: Limits },
    Gzip { decoder: Box<MultiGzDecoder<Bounded>> },
}

impl Sink {
    fn new(headers: &HeaderMap, limits: Limits, spool: Writer) -> Result<Self> {
        let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
        let coding = codings.next().map(http::HeaderValue::as_bytes);
        match coding {
            _ if codings.next().is_some() => Err(unsupported()),
            None | Some(b"identity") => Ok(Self::Identity { spool, limits }),
            Some(b"gzip" | b"x-gzip") => {
                let bounded = Bounded { spool, limits, failed: None };
                Ok(Self::Gzip { decoder: Box::new(MultiGzDecoder::new(bounded)) })
            }
            Some(_) => Err(unsupported()),
        }
    }

    fn push(&mut self, data: &[u8]) -> Result<()> {
        match self {
            Self::Identity { spool, limits } => {
                if spool.len() + data.len() as u64 > limits.bytes_max {
                    return Err(too_large(*limits));
                }
                spool.write(data).map_err(|error| no_room(&error))
            }
            Self::Gzip { decoder } => match decoder.write_all(data) {
                Ok(()) => Ok(()),
                Err(_) => Err(decoder.get_mut().failed.take().unwrap_or_else(broken_gzip)),
            },
        }
    }

    fn finish(self) -> Result<Spool> {
        let spool = match self {
            Self::Identity { spool, .. } => spool,
            Self::Gzip { mut decoder } => {
                if decoder.try_finish().is_err() {
                    return Err(decoder.get_mut().failed.take().unwrap_or_else(broken_gzip));
                }
                decoder.finish().map_err(|_| broken_gzip())?.spool
            }
        };
        spool.finish().map_err(|error| no_room(&error))
    }
}

fn unsupported() -> Error {
    Error::refusal(Refusal::UnsupportedMedia, "http.content-encoding", "the content codings taken are gzip and none")
}

fn broken_gzip() -> Error {
    Error::refusal(Refusal::Malformed, "http.gzip", "a body that is complete and valid gzip")
}

/// The inflating side: counts what comes out, so that a bomb ends at the limit.
struct Bounded {
    spool: Writer,
    limits: Limits,
    failed: Option<Error>,
}

impl std::io::Write for Bounded {
    fn write(&mut self, inflated: &[u8]) -> std::io::Result<usize> {
        let result = if self.spool.len() + inflated.len() as u64 > self.limits.bytes_max {
            Err(too_large(self.limits))
        } else {
            self.spool.write(inflated).map_err(|error| no_room(&error))
        };
        result.map(|()| inflated.len()).map_err(|error| {
            self.failed = Some(error);
            std::io::Error::other("refused")
        })
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
