//! What a confirmed publish costs the client: CPU per message on one quorum queue, at a window of 256.
//!
//! Starts a RabbitMQ of its own, or takes the URL of one that may be filled (`cargo bench --bench publish -- URL`).
//! Bar: at most 25 µs a message. CPU is the whole process's, lapin's thread included.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench tells its figures")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice::broker::amqp::{Amqp, Settings};
use sluice::broker::{Broker as _, Message, State};
use sluice::config::{Broker, BrokerAddress, BrokerKind, BrokerTls, Topology};

#[path = "../tests/it/rabbit.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod rabbit;

const MESSAGES: u32 = 20_000;
const WINDOW: u32 = 256;
const BODY_BYTES: usize = 512;

fn main() {
    // Cargo adds `--bench`.
    let url = std::env::args().skip(1).find(|argument| argument.contains("://"));
    let own = url.is_none().then(rabbit::Rabbit::start);
    let url = url.or_else(|| own.as_ref().map(|own| own.url(rabbit::USER))).expect("one of the two");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = Broker {
            kind: BrokerKind::Amqp {
                address: BrokerAddress::Url(url),
                exchange: "sluice-bench".into(),
                topology: Topology::Declare,
                tls: BrokerTls::default(),
                timeout: Duration::from_secs(30),
                heartbeat: Duration::from_secs(10),
                reconnect_wait_max: Duration::from_secs(1),
            },
            window: WINDOW as usize,
            attempts_max: 1,
        };
        let broker = Arc::new(Amqp::start(Settings::new(&config, ["bench".to_owned()]).unwrap()));
        assert_eq!(broker.ready().await, State::Ready);
        for round in 0..3 {
            let (cpu, wall) = (cpu(), Instant::now());
            let lanes = (0..WINDOW).map(|lane| {
                let broker = broker.clone();
                tokio::spawn(async move {
                    for number in (lane..MESSAGES).step_by(WINDOW as usize) {
                        broker.publish(message(round, number)).await.unwrap();
                    }
                })
            });
            for lane in lanes.collect::<Vec<_>>() {
                lane.await.unwrap();
            }
            let (cpu, wall) = (self::cpu().saturating_sub(cpu), wall.elapsed());
            println!(
                "window {WINDOW}, body {BODY_BYTES} B: client CPU {:.1} µs a message, {:.0} messages a second",
                cpu.as_secs_f64() * 1e6 / f64::from(MESSAGES),
                f64::from(MESSAGES) / wall.as_secs_f64(),
            );
        }
        broker.close().await;
    });
}

fn message(round: u32, number: u32) -> Message {
    let id = format!("{round}-{number:060}");
    Message {
        headers: ["id", "type", "source", "time"].map(|name| (format!("cloudEvents:{name}").into(), id.clone())).into(),
        id,
        subscriber: "bench".into(),
        lane: bytes::Bytes::new(),
        routing_key: "v1.bench.care.observation.create".into(),
        content_type: "application/cloudevents+json".into(),
        time: 1_700_000_000,
        recall: bytes::Bytes::new(),
        body: vec![b'x'; BODY_BYTES].into(),
    }
}

/// User and system time of this process so far (proc(5), `stat`, in ticks of 10 ms).
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
