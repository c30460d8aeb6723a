//! Who says nothing, or too little at a time, holds no place: over TLS, HTTP/1.1 and HTTP/2.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;

use crate::house::{House, first_issue};

/// Longer than any bound here, however busy the machine is.
const PATIENCE: Duration = Duration::from_mins(2);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// RFC 9113 §4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET /` of `a` over https, in indexed fields and one literal (RFC 7541).
const FIELDS: &[u8] = &[0x82, 0x87, 0x84, 0x01, 1, b'a'];

fn settings() -> Vec<u8> {
    [PREFACE, &frame(4, 0, 0, &[])].concat()
}

/// Reads until the server has closed. None if it does not.
async fn closed(mut stream: TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let mut told = Vec::new();
    // A reset is an end too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut told)).await.ok()?;
    Some(told)
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_holds_no_place() {
    let half = b"POST /fhir/Patient HTTP/1.1\r\nhost: loc";
    let cases: [(bool, Vec<u8>); 9] = [
        (false, Vec::new()),
        (true, Vec::new()),
        (false, b"P".to_vec()),
        (true, b"P".to_vec()),
        (false, half.to_vec()),
        (true, PREFACE[..20].to_vec()),
        (true, PREFACE.to_vec()),
        (true, settings()),
        // HEADERS that CONTINUATION never ends.
        (true, [settings(), frame(1, 1, 1, &FIELDS[..2])].concat()),
    ];
    // As many places as there are silent peers, and one of a peer that does not even begin TLS.
    let house = House::new(&format!("limits = {{ header_timeout = \"5s\", connections_max = {} }}", cases.len() + 1));
    let served = house.serve();
    let mut untold = TcpStream::connect(served.address("fhir")).await.unwrap();
    let mut held = Vec::new();
    for (h2, said) in &cases {
        let client = house.client(Some("tls/hospital"));
        let client = if *h2 { client.h2() } else { client };
        let mut stream = client.connect(&served).await.unwrap();
        stream.write_all(said).await.unwrap();
        held.push(stream);
    }
    // It comes in only once one of the others has gone.
    let body = r#"{"resourceType":"Patient"}"#;
    let posted = async {
        let client = house.client(Some("tls/hospital"));
        timeout(PATIENCE, client.post(&served, "/Patient", &[], body)).await.expect("a place")
    };
    let (posted, ends) = tokio::join!(posted, join_all(held.into_iter().map(closed)));
    assert_eq!(posted.0, StatusCode::CREATED);
    for ((h2, said), end) in cases.iter().zip(ends) {
        assert!(end.is_some(), "HTTP/2: {h2}, after {said:?}");
    }
    assert!(timeout(PATIENCE, untold.read_u8()).await.unwrap().is_err(), "no TLS was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_asked_and_asks_no_more_is_let_go() {
    let house = House::new("limits = { header_timeout = \"5s\", idle_timeout = \"3s\" }");
    let served = house.serve();
    let metadata =
        || Request::get("https://localhost/fhir/metadata").header("host", "localhost").body(Full::<Bytes>::default());
    // These answer every ping.
    for asks in [false, true] {
        let io = TokioIo::new(house.client(None).h2().connect(&served).await.unwrap());
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        let ended = tokio::spawn(connection);
        if asks {
            let answer = sender.send_request(metadata().unwrap()).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            assert!(answer.into_body().collect().await.unwrap().to_bytes().len() > 100);
        }
        assert!(timeout(PATIENCE, ended).await.is_ok(), "asks: {asks}");
    }
    let io = TokioIo::new(house.client(None).connect(&served).await.unwrap());
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    let ended = tokio::spawn(connection);
    let answer = sender.send_request(metadata().unwrap()).await.unwrap();
    answer.into_body().collect().await.unwrap();
    assert!(timeout(PATIENCE, ended).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_of_an_answer_is_let_go() {
    let house = House::new("limits = { header_timeout = \"5s\", idle_timeout = \"3s\" }");
    let served = house.serve();
    let mut stream = house.client(None).h2().connect(&served).await.unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE 0: the answer's head comes, and none of its body can.
    let asked = [PREFACE, &frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
    stream.write_all(&asked).await.unwrap();
    let path = b"/fhir/metadata";
    let fields = [&[0x82, 0x87, 0x04, u8::try_from(path.len()).unwrap()], &path[..], &[0x01, 1, b'a']].concat();
    stream.write_all(&frame(1, 5, 1, &fields)).await.unwrap();
    // Whatever is asked of it is answered, so that it is not taken for dead.
    let lives = async {
        let mut head = [0; 9];
        let mut answered = false;
        while stream.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            if stream.read_exact(&mut payload).await.is_err() {
                break;
            }
            answered |= head[3] == 1;
            assert_ne!(head[3], 0, "no DATA fits");
            let acknowledged = match (head[3], head[4] & 1) {
                (4, 0) => stream.write_all(&frame(4, 1, 0, &[])).await,
                (6, 0) => stream.write_all(&frame(6, 1, 0, &payload)).await,
                _ => Ok(()),
            };
            if acknowledged.is_err() {
                break;
            }
        }
        answered
    };
    assert!(timeout(PATIENCE, lives).await.expect("it is closed"), "the head of the answer came");
}

/// A body of these pieces, one after each pause.
fn dripping(
    piece: &'static [u8],
    pause: Duration,
) -> StreamBody<impl stream::Stream<Item = Result<Frame<Bytes>, std::io::Error>>> {
    StreamBody::new(stream::unfold((), move |()| async move {
        sleep(pause).await;
        Some((Ok(Frame::data(Bytes::from_static(piece))), ()))
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_or_never_ends_gets_408() {
    let limits = "header_timeout = \"5s\", idle_timeout = \"2s\", request_timeout = \"8s\"";
    let house = House::new(&format!("limits = {{ {limits} }}"));
    let served = house.serve();
    let slow: &[u8] = b" ";
    let steady: &[u8] = &[b' '; 4096];
    for (piece, why) in [(slow, "too slowly"), (steady, "too long")] {
        for h2 in [false, true] {
            let client = house.client(Some("tls/hospital"));
            let body = Box::pin(dripping(piece, Duration::from_millis(100)));
            let request = Request::post("https://localhost/fhir/Patient").header("host", "localhost");
            let request = request.header("content-type", "application/fhir+json").body(body).unwrap();
            let answered = async {
                if h2 {
                    let io = TokioIo::new(client.h2().connect(&served).await.unwrap());
                    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
                    tokio::spawn(connection);
                    sender.send_request(request).await
                } else {
                    let io = TokioIo::new(client.connect(&served).await.unwrap());
                    let (mut sender, connection) = http1::handshake(io).await.unwrap();
                    tokio::spawn(connection);
                    sender.send_request(request).await
                }
            };
            let answer = timeout(PATIENCE, answered).await.expect("an answer").unwrap();
            assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT, "{why}, HTTP/2: {h2}");
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let outcome: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(first_issue(&outcome).0, "http.slow");
            assert!(outcome.to_string().contains(why), "{outcome}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_bounded() {
    let house = House::new("");
    let served = house.serve();
    let client = house.client(None).h2();
    let mut stream = client.connect(&served).await.unwrap();
    stream.write_all(&settings()).await.unwrap();
    let mut head = [0; 9];
    timeout(PATIENCE, stream.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!((head[3], head[4]), (4, 0), "SETTINGS come first");
    let mut payload = vec![0; usize::from(head[2])];
    timeout(PATIENCE, stream.read_exact(&mut payload)).await.unwrap().unwrap();
    let told = |name: u8| {
        let found = payload.chunks(6).find(|it| it[1] == name);
        found.map(|it| u32::from_be_bytes([it[2], it[3], it[4], it[5]]))
    };
    assert_eq!((told(3), told(6)), (Some(100), Some(64 << 10)), "streams, and bytes of a head");

    // Rapid reset (CVE-2023-44487): streams that are opened and taken back at once end the connection.
    let mut flood = Vec::new();
    // As little as one TLS record holds, so that all of it is read and the answer is not lost to a reset.
    for at in 0..300 {
        flood.extend(frame(1, 5, 2 * at + 1, FIELDS));
        flood.extend(frame(3, 0, 2 * at + 1, &8_u32.to_be_bytes()));
    }
    stream.write_all(&flood).await.unwrap();
    let told = closed(stream).await.expect("it is closed");
    assert!(
        told.windows(17).any(|it| it[3..9] == [7, 0, 0, 0, 0, 0] && it[13..] == [0, 0, 0, 11]),
        "ENHANCE_YOUR_CALM"
    );

    let request = Request::get("https://localhost/fhir/metadata").header("x-long", "x".repeat(70_000));
    let answer = timeout(PATIENCE, client.answer(&served, request.body(Bytes::new()).unwrap())).await.unwrap();
    assert!(answer.is_none_or(|it| it.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
}
