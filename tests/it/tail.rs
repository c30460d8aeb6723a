//! `sluice events tail --follow`: a stream where the gateway offers one, taken up again where it ended, and pages where not.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::house::House;
use crate::story::{observation, patient, put, told};

/// A command that runs until it is dropped, and the lines that it prints.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn tail(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args(["events", "tail", "--follow", "--format", "json"])
            .args(args)
            .env_remove("SLUICE_CONFIG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn next(&self) -> Value {
        let line = self.lines.recv_timeout(Duration::from_mins(1)).expect("a line");
        serde_json::from_str(&line).unwrap()
    }

    /// Waits for its end; gives the exit code and what it has told.
    fn ended(mut self) -> (Option<i32>, String) {
        let mut told = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        (self.child.wait().unwrap().code(), told)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next request: its first line, and its headers in lower case.
fn request(listener: &TcpListener) -> (TcpStream, String, String) {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut head) = (String::new(), String::new());
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            return (stream, first, head.to_ascii_lowercase());
        }
        head.push_str(&line);
    }
}

fn answer(mut stream: TcpStream, status: &str, headers: &str, body: &str) {
    let text = format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\n\r\n{body}");
    // Whoever has gone needs no answer.
    let _ = stream.write_all(text.as_bytes());
}

const STREAM: &str = "content-type: text/event-stream\r\n";

#[test]
fn a_stream_that_ends_is_taken_up_again_at_its_last_id() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}/fhir", listener.local_addr().unwrap());
    let tail = Running::tail(&["--to", &base, "--after", "6", "--subscriber", "insurer"]);
    let (stream, first, head) = request(&listener);
    assert_eq!(first.trim(), "GET /events?after=6&subscriber=insurer HTTP/1.1");
    assert!(head.contains("accept: text/event-stream"), "{head}");
    // The second has not come whole, so it has not come.
    let body = "retry: 50\n\n: alive\n\nid: 7\ndata: {\"id\":\"a\", \"n\":1.00}\n\nid: 8\ndata: {\"id\":";
    answer(stream, "200 OK", STREAM, body);
    let line = tail.lines.recv_timeout(Duration::from_mins(1)).unwrap();
    assert_eq!(line, r#"{"cursor":7,"event":{"id":"a", "n":1.00}}"#, "byte for byte");
    let (stream, _, head) = request(&listener);
    assert!(head.contains("last-event-id: 7"), "{head}");
    answer(stream, "503 Service Unavailable", "retry-after: 0\r\n", "");
    let (stream, _, head) = request(&listener);
    assert!(head.contains("last-event-id: 7"), "{head}");
    // No answer at all.
    drop(stream);
    let (stream, _, _) = request(&listener);
    answer(stream, "200 OK", STREAM, "id: 8\r\nevent: withdrawn\r\ndata: null\r\n\r\nid: 9\ndata: {\"id\":\"b\"}\n\n");
    assert_eq!(tail.next(), serde_json::json!({"cursor": 8, "event": null}));
    assert_eq!(tail.next()["cursor"], 9);
    let (stream, _, head) = request(&listener);
    assert!(head.contains("last-event-id: 9"), "{head}");
    answer(stream, "410 Gone", "x-sluice-oldest: 20\r\n", "{}");
    let (code, told) = tail.ended();
    assert_eq!(code, Some(2));
    assert!(told.contains("--after 20 goes on"), "{told}");
}

#[test]
fn without_a_stream_pages_are_asked_for() {
    for refusal in ["406 Not Acceptable", "200 OK"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/fhir", listener.local_addr().unwrap());
        let tail = Running::tail(&["--to", &base]);
        let (stream, _, _) = request(&listener);
        answer(stream, refusal, "content-type: application/json\r\n", r#"{"entries":[],"next":0}"#);
        let (stream, first, head) = request(&listener);
        assert!(first.contains("wait=30") && head.contains("accept: application/json"), "{first}{head}");
        let page = r#"{"entries":[{"cursor":1,"event":{"id":"a"}}],"next":1}"#;
        answer(stream, "200 OK", "content-type: application/json\r\n", page);
        assert_eq!(tail.next()["cursor"], 1);
        let (_stream, first, _) = request(&listener);
        assert!(first.contains("after=1"), "{first}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_is_told_as_it_comes_and_verifies() {
    let house: House = told("permit", "");
    let served = house.serve();
    let hospital = house.client(Some("tls/hospital"));
    put(&hospital, &served, &patient("p"), &[]).await;
    let to = served.ready["fhir"].as_str().unwrap().to_owned();
    let [ca, cert, key] = ["tls/ca.pem", "tls/insurer.pem", "tls/insurer.key"].map(|it| house.path(it));
    let tail = Running::tail(&["--to", &to, "--ca", &ca, "--cert", &cert, "--key", &key]);
    let state = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";
    for at in 1..=3 {
        let trace = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333{at}-01");
        let headers = [("traceparent", &*trace), ("tracestate", state)];
        put(&hospital, &served, &observation(&format!("o{at}"), &["p"]), &headers).await;
        let line = tail.next();
        assert_eq!(line["cursor"], at);
        assert_eq!((&line["event"]["traceparent"], &line["event"]["tracestate"]), (&trace.into(), &state.into()));
    }
}
