//! The admin port: `/livez`, `/readyz`, `/startupz`, `/metrics`. (`/parked` and `/events/parked` are
//! faces of their own.)
//!
//! Takes: GET requests. Gives: how the process is, for probes and for Prometheus. Never: anything of a record.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;

use super::respond::{Reply, reply};
use crate::observe::Observer;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPENMETRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers a request on the admin port.
pub fn answer(observer: &Arc<Observer>, request: &Request<Incoming>) -> Reply {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET\n");
    }
    let probe = |well: Result<(), String>| match well {
        Ok(()) => reply(StatusCode::OK, TEXT, "ok\n"),
        Err(why) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
    };
    match request.uri().path() {
        "/livez" => probe(observer.live()),
        // Ready, with what an operator should know besides.
        "/readyz" if observer.ready().is_ok() => reply(StatusCode::OK, TEXT, format!("ok\n{}", observer.notes())),
        "/readyz" => probe(observer.ready()),
        "/startupz" => probe(observer.started()),
        "/metrics" => {
            // Who does not ask for OpenMetrics may not know it.
            let accept = request.headers().get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok());
            let open =
                accept.flat_map(|it| it.split(',')).any(|it| it.trim().starts_with("application/openmetrics-text"));
            reply(StatusCode::OK, if open { OPENMETRICS } else { PROMETHEUS }, observer.scrape(open))
        }
        _ => reply(StatusCode::NOT_FOUND, TEXT, "not found\n"),
    }
}
