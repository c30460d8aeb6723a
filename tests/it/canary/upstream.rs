//! Canaries behind which a FHIR server stands that says again what it was told: in its refusal, or in what is no answer.

use super::*;
use crate::upstream::fake::{Fake, Mode};

/// A transaction of one patient and what was observed.
fn unit(place: &str) -> String {
    let observed = format!("{place}-observed");
    let entries = [entry(&patient(place), place), entry(&observation(&observed, &id(place)), place)];
    bundle("transaction", place, &entries)
}

async fn gauge(served: &Served, name: &str) -> Option<f64> {
    let (_, _, scrape) = served.admin("/metrics", "text/plain").await?;
    Search::for_all(&[VALUE, ID]).assert_nothing("a scrape", scrape.as_bytes());
    scrape.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until a gauge stands at this.
async fn until(served: &Served, name: &str, expected: f64) {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(2);
    while gauge(served, name).await.is_none_or(|it| (it - expected).abs() > f64::EPSILON) {
        assert!(tokio::time::Instant::now() < deadline, "{name} is not {expected}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_says_comes_to_the_sender_alone() {
    for resolve in ["client-ids", "tag-probe"] {
        let fake = Fake::start().await;
        let house = House::new(&format!(
            "{SETTINGS}[upstream]\nurl = \"http://{}/fhir\"\nresolve = \"{resolve}\"\ntimeout = \"5s\"\n\
             retries_max = 0\n",
            fake.address
        ));
        let served = house.serve();
        let search = Search::for_all(&[VALUE, ID]);
        let mut sender = Sender { house: &house, served: &served, answers: Vec::new() };
        let status = sender.send("hospital", "accepted", "POST", "", &[], unit("accepted")).await;
        assert_eq!(status, 200, "{resolve}: {:?}", sender.answers);

        // Its refusal is the sender's to read, and nobody else's.
        fake.turn(Mode::Tells);
        assert_eq!(sender.send("hospital", "refused", "POST", "", &[], unit("refused")).await, 422);
        let (_, _, refusal) = sender.answers.pop().unwrap();
        assert!(refusal.contains(VALUE), "the upstream's words are passed on: {refusal}");
        let line = patient("refused-line").to_string();
        let lines = [("content-type", "application/fhir+ndjson")];
        assert_eq!(sender.send("hospital", "a refused line", "POST", "/$ingest", &lines, line).await, 200);
        let (_, _, summary) = sender.answers.pop().unwrap();
        assert!(summary.contains(VALUE), "{summary}");

        // What is silent, and what talks nonsense.
        for (place, mode) in [("silent", Mode::HangsAfter), ("broken", Mode::BreaksAfter), ("garbage", Mode::Garbles)] {
            fake.turn(mode);
            assert_eq!(sender.send("hospital", place, "POST", "", &[], unit(place)).await, 504, "{resolve}");
        }
        // Of a patient whom the gateway does not know the upstream is asked.
        fake.turn(Mode::Babbles);
        let stranger = observation("strangers", &id("stranger")).to_string();
        let status = sender.send("hospital", "a stranger's", "POST", "/Observation", &[], stranger).await;
        assert!(status >= 500, "{status}");
        // Recovery asks it too, and gets nonsense.
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(gauge(&served, "sluice_upstream_open").await.is_some_and(|it| it >= 1.0), "it has found nothing out");
        for path in ["/parked", "/events/parked", "/readyz"] {
            let (_, told) = crate::house::admin(&served, "GET", path, crate::house::OPERATOR).await;
            search.assert_nothing(path, told.to_string().as_bytes());
        }
        let data = house.folder.path().join("data");
        assert!(search.assert_nothing_under(&data) > 0, "what is staged is sealed");
        for (what, _, answer) in &sender.answers {
            Search::for_all(&[VALUE]).assert_nothing(&format!("the answer to {what}"), answer.as_bytes());
        }
        fake.turn(Mode::Works);
        until(&served, "sluice_upstream_open", 0.0).await;
        assert_eq!(fake.count("Patient"), 4, "each once, and none that was refused");
        until(&served, "sluice_work_depth", 0.0).await;
        until(&served, "sluice_outbox_depth", 0.0).await;
        until(&served, "sluice_publish_total{result=\"ack\"}", 16.0).await;
        nothing_is_left(&house, served, 8).await;
    }
}
