//! The doors, without sockets: what patients decided holds at intake and at reads, at once and through crashes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::BoxStream;
use sluice::config::Right;
use sluice::consent::decide::PolicySet;
use sluice::consent::follow::Follower;
use sluice::consent::mirror::Moment;
use sluice::consent::pseudonym::Pseudonym;
use sluice::consent::{policy::Policy, selftest};
use sluice::disclose::Question;
use sluice::error::Error;
use sluice::gateway::Gateway;
use sluice::ingest::unit::Caller;
use sluice::keys::SigningKey;
use sluice::ledger::keyring::Keyring;
use sluice::ledger::{
    self, Anchor, Breach, Caps, Change, Cursor, Embedded, Finality, Head, Ledger, LedgerError, Name, OpId, Outcome,
    Proof, Receipt, SignedOp, Snapshot, Ticket,
};
use sluice::record::file::{Filer, Progress};
use sluice::store::{Direction, KeyRange, Table};
use sluice_fhir::tree::{Limits, Tree};

use crate::rig::{Rig, transaction};

mod whom;

const INSURER: &str = "insurer";

fn entry(resource: &serde_json::Value) -> String {
    let url = format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
    serde_json::json!({"resource": resource, "request": {"method": "PUT", "url": url}}).to_string()
}

fn patient(id: &str) -> String {
    entry(&serde_json::json!({"resourceType": "Patient", "id": id}))
}

/// An Observation about the first of these, performed by the others: about all of them.
fn observation(id: &str, about: &[&str]) -> String {
    let reference = |id: &&str| serde_json::json!({"reference": format!("Patient/{id}")});
    let mut resource = serde_json::json!({
        "resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"},
    });
    if let [subject, performers @ ..] = about {
        resource["subject"] = reference(subject);
        if !performers.is_empty() {
            resource["performer"] = performers.iter().map(reference).collect();
        }
    }
    entry(&resource)
}

fn coding(system: &str, code: &str) -> serde_json::Value {
    serde_json::json!({"system": format!("http://terminology.hl7.org/CodeSystem/{system}"), "code": code})
}

fn consent(id: &str, patient: &str, status: &str, provision: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "resourceType": "Consent", "id": id, "status": status,
        "scope": {"coding": [coding("consentscope", "patient-privacy")]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": format!("Patient/{patient}")},
        "policyRule": {"coding": [coding("v3-ActCode", "OPTIN")]},
        "provision": provision,
    })
}

/// Lets the insurer read, for payment.
fn to_insurer(kind: &str) -> serde_json::Value {
    serde_json::json!({
        "type": kind,
        "actor": [{
            "role": {"coding": [coding("v3-ParticipationType", "IRCP")]},
            "reference": {"reference": format!("Organization/{INSURER}")},
        }],
        "purpose": [coding("v3-ActReason", "HPAYMT")],
    })
}

async fn post(rig: &Rig, entries: &[String]) -> Result<(), Error> {
    rig.admit(&transaction(entries)).await.map(drop)
}

async fn give(rig: &Rig, id: &str, patient: &str, kind: &str) {
    post(rig, &[entry(&consent(id, patient, "active", &to_insurer(kind)))]).await.unwrap();
}

async fn read(rig: &Rig, purpose: &str, resource_type: &str, id: &str) -> Result<serde_json::Value, Error> {
    read_from(&rig.gateway, purpose, resource_type, id).await
}

async fn read_from(
    gateway: &Gateway,
    purpose: &str,
    resource_type: &str,
    id: &str,
) -> Result<serde_json::Value, Error> {
    let caller = Caller {
        institution: INSURER.into(),
        device: None,
        may: Arc::new([Right::Read]),
        roles: Arc::new([]),
        purpose: Some(purpose.into()),
    };
    let asked = std::time::Instant::now();
    let question = Question { caller, resource_type: resource_type.into(), id: id.into(), version: None, asked };
    gateway.disclose(question).await.map(|shown| serde_json::from_slice(shown.body()).unwrap())
}

fn status(error: &Error) -> u16 {
    error.kind().face().status.as_u16()
}

/// Seals the ledger, and waits until the mirror holds everything as final.
async fn settled(rig: &Rig) {
    let head = rig.ledger.seal().await.unwrap();
    while rig.gateway.door.mirror().read().unwrap().height() < head.height {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn pending_leaves(rig: &Rig) -> usize {
    let rows = rig.gateway.recorder.store().scan(Table::LeafPending, KeyRange::all(), 10_000, Direction::Up).await;
    rows.unwrap().iter().map(|row| row.value.len() / 33).sum()
}

async fn subject_of(rig: &Rig, patient: &str) -> Pseudonym {
    let version = rig.gateway.recorder.read_current("Patient", patient).await.unwrap().unwrap();
    version.about.subjects[0]
}

async fn ledger_version(rig: &Rig, subject: Pseudonym) -> Option<u64> {
    let found = rig.ledger.lookup(&[ledger::Pseudonym(subject.0)], Duration::ZERO).await.unwrap();
    found.records[0].as_ref().map(|record| record.version)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_needs_a_permit_and_a_denial_looks_like_nothing() {
    let rig = Rig::new().await;
    post(&rig, &[patient("p"), observation("o", &["p"])]).await.unwrap();
    let before = pending_leaves(&rig).await;
    let denied = read(&rig, "HPAYMT", "Observation", "o").await.unwrap_err();
    assert_eq!(pending_leaves(&rig).await - before, 2, "a decision and an audit leaf");
    let absent = read(&rig, "HPAYMT", "Observation", "none").await.unwrap_err();
    assert_eq!(pending_leaves(&rig).await - before, 3, "who asked for nothing is known too");
    assert_eq!((status(&denied), denied.issues()), (404, absent.issues()));

    give(&rig, "c", "p", "permit").await;
    settled(&rig).await;
    assert_eq!(read(&rig, "HPAYMT", "Observation", "o").await.unwrap()["id"], "o");
    assert_eq!(status(&read(&rig, "HMARKT", "Observation", "o").await.unwrap_err()), 404);

    // A revocation counts when its answer is given.
    give(&rig, "c", "p", "deny").await;
    assert_eq!(status(&read(&rig, "HPAYMT", "Observation", "o").await.unwrap_err()), 404);
    // And so does a Consent that is not active any more; what it had permitted falls to the implicit policy.
    give(&rig, "c", "p", "permit").await;
    settled(&rig).await;
    read(&rig, "HPAYMT", "Observation", "o").await.unwrap();
    post(&rig, &[entry(&consent("c", "p", "inactive", &to_insurer("permit")))]).await.unwrap();
    assert_eq!(status(&read(&rig, "HPAYMT", "Observation", "o").await.unwrap_err()), 404);
    assert_eq!(ledger_version(&rig, subject_of(&rig, "p").await).await, Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_collected_is_refused_and_a_consent_never_is() {
    let rig = Rig::new().await;
    post(&rig, &[patient("p"), patient("q")]).await.unwrap();
    let deny = serde_json::json!({"type": "deny", "class": [
        {"system": "http://hl7.org/fhir/resource-types", "code": "Observation"},
    ]});
    post(&rig, &[entry(&consent("c", "p", "active", &deny))]).await.unwrap();
    let before = pending_leaves(&rig).await;
    let refused = post(&rig, &[observation("o", &["p"])]).await.unwrap_err();
    assert_eq!(status(&refused), 403);
    assert_eq!(pending_leaves(&rig).await - before, 1, "a denial leaves its leaf");
    assert!(rig.gateway.recorder.read_current("Observation", "o").await.unwrap().is_none());
    assert_eq!(status(&post(&rig, &[observation("o", &["q", "p"])]).await.unwrap_err()), 403, "all must permit");
    post(&rig, &[observation("o", &["q"])]).await.unwrap();
    // The deny does not keep out the Consent that takes it back.
    post(&rig, &[entry(&consent("c", "p", "inactive", &deny))]).await.unwrap();
    settled(&rig).await;
    post(&rig, &[observation("o2", &["p"])]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn observe_decides_and_holds_nothing_back_but_what_is_of_nobody_known() {
    let rig = Rig::with("[consent]\nmode = \"observe\"\n").await;
    post(&rig, &[patient("p"), observation("nobody", &[])]).await.unwrap();
    post(&rig, &[entry(&consent("c", "p", "active", &serde_json::json!({"type": "deny"})))]).await.unwrap();
    post(&rig, &[observation("o", &["p"])]).await.unwrap();
    read(&rig, "HPAYMT", "Observation", "o").await.unwrap();
    assert_eq!(status(&read(&rig, "HPAYMT", "Observation", "nobody").await.unwrap_err()), 404);
    let counted = rig.gateway.door.observer().scrape(true);
    for line in ["door=\"intake\",decision=\"deny\"} 1", "door=\"read\",decision=\"deny\"} 2"] {
        assert!(counted.contains(line), "{line} in\n{counted}");
    }
}

/// Every combination of who permits, and of whom a record is about: released only if all of its patients permit.
#[tokio::test(flavor = "multi_thread")]
async fn no_permit_of_one_patient_releases_the_record_of_another() {
    const PATIENTS: [&str; 3] = ["a", "b", "c"];
    let rig = Rig::new().await;
    let subset = |set: usize| -> Vec<&str> {
        PATIENTS.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1).map(|(_, id)| *id).collect()
    };
    let mut entries: Vec<String> = PATIENTS.iter().map(|id| patient(id)).collect();
    // One of them names nobody: it must not take the place, or the patient, of its neighbour.
    entries.extend((0..8).map(|set| observation(&format!("o{set}"), &subset(set))));
    post(&rig, &entries).await.unwrap();
    for permitting in 0..8_usize {
        for (at, id) in PATIENTS.iter().enumerate() {
            let kind = if permitting >> at & 1 == 1 { "permit" } else { "deny" };
            give(&rig, &format!("consent-{id}"), id, kind).await;
        }
        settled(&rig).await;
        for about in 0..8_usize {
            let released = read(&rig, "HPAYMT", "Observation", &format!("o{about}")).await;
            let expected = about != 0 && about & permitting == about;
            assert_eq!(released.is_ok(), expected, "about {about:03b}, permitting {permitting:03b}");
        }
        for (at, id) in PATIENTS.iter().enumerate() {
            let released = read(&rig, "HPAYMT", "Patient", id).await;
            assert_eq!(released.is_ok(), permitting >> at & 1 == 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_mirror_closes_the_doors() {
    let mut rig = Rig::with("[consent]\nmax_staleness = \"1s\"\nskew = \"1s\"\nself_test_interval = \"1s\"\n").await;
    post(&rig, &[patient("p")]).await.unwrap();
    rig.watching.abort_all();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let read = read(&rig, "HPAYMT", "Patient", "p").await.unwrap_err();
    let absent = self::read(&rig, "HPAYMT", "Patient", "none").await.unwrap_err();
    assert_eq!((status(&read), status(&absent)), (503, 503), "an outage tells nothing of what is there");
    assert_eq!(status(&post(&rig, &[observation("o", &["p"])]).await.unwrap_err()), 503);
}

/// Neither by its words nor by its time.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decided_yet_is_waited_for_and_then_looks_like_nothing() {
    let rig = Rig::new().await;
    post(&rig, &[patient("p"), observation("o", &["p"]), patient("q"), observation("oq", &["q"])]).await.unwrap();
    give(&rig, "c", "p", "permit").await;
    settled(&rig).await;
    let unfiled = rig.gateway.door.unfiled();
    let subject = subject_of(&rig, "p").await;
    let mark = unfiled.mark(vec![subject]);
    let filed = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(mark);
    };
    let (shown, ()) = tokio::join!(read(&rig, "HPAYMT", "Observation", "o"), filed);
    assert_eq!(shown.unwrap()["id"], "o", "it was decided while it waited");

    let _mark = unfiled.mark(vec![subject]);
    let mut answers = Vec::new();
    // Undecided, denied, and not there: while anything is on its way, all wait as long.
    for id in ["o", "oq", "none"] {
        let begun = std::time::Instant::now();
        answers.push(read(&rig, "HPAYMT", "Observation", id).await.unwrap_err());
        assert!(begun.elapsed() >= Duration::from_secs(1), "{id} was answered sooner than the others");
    }
    for answer in &answers {
        assert_eq!((status(answer), answer.issues()), (404, answers[2].issues()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_contradicts_itself_closes_the_doors_for_good() {
    let rig = Rig::new().await;
    post(&rig, &[patient("p")]).await.unwrap();
    let door = &rig.gateway.door;
    let follower = Follower {
        ledger: Arc::new(Faulty(Arc::clone(&rig.ledger), Fault::Contradicts)),
        mirror: Arc::clone(door.mirror()),
        observer: Arc::clone(door.observer()),
        staleness_max: door.settings().max_staleness,
    };
    tokio::time::timeout(Duration::from_mins(2), follower.run()).await.expect("it follows no more");
    // Nobody's word opens them again, as the other follower's still comes in here.
    for _ in 0..2 {
        door.mirror().write().unwrap().confirm(Moment::now(), 0);
        assert!(door.ready().is_err());
        assert_eq!(status(&read(&rig, "HPAYMT", "Patient", "p").await.unwrap_err()), 503);
        assert_eq!(status(&post(&rig, &[observation("o", &["p"])]).await.unwrap_err()), 503);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_of_the_bundle_alone_holds_for_each_entry() {
    let rig = Rig::new().await;
    post(&rig, &[patient("p"), patient("q")]).await.unwrap();
    let sensitive = serde_json::json!([coding("v3-ActCode", "PSY")]);
    let mut provision = to_insurer("permit");
    provision["provision"] = serde_json::json!([{"type": "deny", "securityLabel": sensitive}]);
    let collect = serde_json::json!({"type": "deny", "securityLabel": sensitive});
    post(&rig, &[entry(&consent("cp", "p", "active", &provision))]).await.unwrap();
    post(&rig, &[entry(&consent("cq", "q", "active", &collect))]).await.unwrap();
    settled(&rig).await;
    let normal = |id: &str, about: &str| {
        let mut it: serde_json::Value = serde_json::from_str(&observation(id, &[about])).unwrap();
        it["resource"]["meta"] = serde_json::json!({"security": [coding("v3-Confidentiality", "N")]});
        it.to_string()
    };
    let labelled =
        |body: String| body.replacen("\"type\"", &format!("\"meta\":{{\"security\":{sensitive}}},\"type\""), 1);
    rig.admit(&transaction(&[normal("plain", "p")])).await.unwrap();
    rig.admit(&labelled(transaction(&[normal("whole", "p")]))).await.unwrap();
    let batch = transaction(&[normal("part", "p")]).replace("\"transaction\"", "\"batch\"");
    rig.admit_each(&labelled(batch)).await.unwrap();
    read(&rig, "HPAYMT", "Observation", "plain").await.unwrap();
    for id in ["whole", "part"] {
        assert_eq!(status(&read(&rig, "HPAYMT", "Observation", id).await.unwrap_err()), 404, "{id}");
    }
    // At intake too.
    rig.admit(&transaction(&[normal("plain-q", "q")])).await.unwrap();
    let refused = rig.admit(&labelled(transaction(&[normal("whole-q", "q")]))).await.unwrap_err();
    assert_eq!(status(&refused), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deny_that_does_not_deny_closes_the_doors() {
    let rig = Rig::new().await;
    let observer = Arc::clone(rig.gateway.door.observer());
    observer.set_started();
    assert_eq!(observer.ready(), Ok(()));
    let permits_all = consent("x", "self-test", "active", &serde_json::json!({"type": "permit"})).to_string();
    let tree = Tree::parse(permits_all.into(), &Limits::default()).unwrap();
    selftest::install_with(&rig.gateway.door, PolicySet::new([Policy::compile(tree.root())]));
    assert_eq!(selftest::run(&rig.gateway.door).await, Err("a deny does not deny"));
    assert!(observer.ready().unwrap_err().contains("consent self-test"));
    assert_eq!(status(&post(&rig, &[patient("p")]).await.unwrap_err()), 503);
    assert_eq!(status(&read(&rig, "HPAYMT", "Patient", "p").await.unwrap_err()), 503);
    selftest::install(&rig.gateway.door).unwrap();
    selftest::run(&rig.gateway.door).await.unwrap();
    post(&rig, &[patient("p")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn consents_given_at_once_all_count() {
    let rig = Rig::new().await;
    post(&rig, &[patient("p"), observation("o", &["p"])]).await.unwrap();
    let kinds = ["permit", "permit", "permit", "deny", "permit", "permit"];
    let ids: Vec<String> = (0..kinds.len()).map(|at| format!("c{at}")).collect();
    join_all(ids.iter().zip(kinds).map(|(id, kind)| give(&rig, id, "p", kind))).await;
    let Gateway { filer, recorder, door, .. } = &*rig.gateway;
    assert_eq!(filer.batch(recorder, door, 100).await.unwrap(), Progress::default(), "nothing is left to do");
    let subject = subject_of(&rig, "p").await;
    assert!(!door.unfiled().has(&subject));
    let found = rig.ledger.lookup(&[ledger::Pseudonym(subject.0)], Duration::ZERO).await.unwrap();
    let record = found.records[0].clone().unwrap();
    assert!(record.version <= 6);
    let tree = door.openings().tree(subject, &record.consent_root).await.unwrap().unwrap();
    let text: String = tree.openings().map(|it| String::from_utf8(it.policy.clone()).unwrap()).collect();
    assert!(ids.iter().all(|id| text.contains(&format!("\"id\":\"{id}\""))), "{}", text.len());
    settled(&rig).await;
    assert_eq!(status(&read(&rig, "HPAYMT", "Observation", "o").await.unwrap_err()), 404, "one denies");
}

/// What a submission meets.
#[derive(Clone, Copy)]
enum Fault {
    /// It fails and nothing was committed.
    Undone,
    /// It was committed, and nobody says so.
    Done,
    /// None; but a look-up finds another history.
    Contradicts,
}

struct Faulty(Arc<Embedded>, Fault);

const GONE: LedgerError = LedgerError::Unavailable { retry_after: None, reason: "a fault" };

impl Ledger for Faulty {
    fn caps(&self) -> &Caps {
        self.0.caps()
    }
    fn head(&self, at_least: Finality) -> BoxFuture<'_, Result<Head, LedgerError>> {
        self.0.head(at_least)
    }
    fn lookup<'a>(
        &'a self,
        subjects: &'a [ledger::Pseudonym],
        age_max: Duration,
    ) -> BoxFuture<'a, Result<Snapshot, LedgerError>> {
        match self.1 {
            Fault::Contradicts => Box::pin(async { Err(LedgerError::Integrity(Breach::WrongLedger)) }),
            Fault::Undone | Fault::Done => self.0.lookup(subjects, age_max),
        }
    }
    fn prove<'a>(&'a self, subject: &'a ledger::Pseudonym, at: &'a Head) -> BoxFuture<'a, Result<Proof, LedgerError>> {
        self.0.prove(subject, at)
    }
    fn submit<'a>(&'a self, ops: &'a [SignedOp]) -> BoxFuture<'a, Result<Vec<Ticket>, LedgerError>> {
        Box::pin(async move {
            match self.1 {
                Fault::Undone | Fault::Contradicts => Err(GONE),
                Fault::Done => {
                    self.0.submit(ops).await?;
                    Err(LedgerError::Ambiguous { op: ops[0].id() })
                }
            }
        })
    }
    fn outcome<'a>(&'a self, _op: &'a OpId) -> BoxFuture<'a, Result<Outcome, LedgerError>> {
        Box::pin(async { Err(GONE) })
    }
    fn watch(&self, from: Cursor) -> BoxStream<'static, Result<Change, LedgerError>> {
        self.0.watch(from)
    }
    fn anchor<'a>(&'a self, anchor: &'a Anchor) -> BoxFuture<'a, Result<Receipt, LedgerError>> {
        self.0.anchor(anchor)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filing_survives_a_crash_at_each_of_its_points() {
    for fault in [Fault::Undone, Fault::Done] {
        let rig = Rig::new().await;
        post(&rig, &[patient("p"), patient("q"), observation("o", &["p"]), observation("oq", &["q"])]).await.unwrap();
        let subject = subject_of(&rig, "p").await;
        let mut rig = rig;
        let mut gateway = Arc::into_inner(rig.gateway).unwrap();
        let signer = Arc::new(Keyring::new(Arc::clone(gateway.recorder.keys()), SigningKey::Institution));
        let faulty = Arc::new(Faulty(Arc::clone(&rig.ledger), fault));
        gateway.filer = Filer::new(faulty, Name::parse("hospital-a").unwrap(), signer);
        rig.gateway = Arc::new(gateway);

        give(&rig, "c", "p", "permit").await;
        settled(&rig).await;
        // A Consent that is not filed leaves nothing decided; and what is not decided looks like what is not there.
        let undecided = read(&rig, "HPAYMT", "Observation", "o").await.unwrap_err();
        let absent = read(&rig, "HPAYMT", "Observation", "none").await.unwrap_err();
        assert_eq!((status(&undecided), undecided.issues()), (404, absent.issues()));
        assert_eq!(status(&post(&rig, &[observation("o2", &["p"])]).await.unwrap_err()), 503);
        assert_eq!(status(&read(&rig, "HPAYMT", "Observation", "oq").await.unwrap_err()), 404, "others are");

        let rig = rig.restart().await;
        assert!(rig.gateway.door.unfiled().has(&subject), "after a restart too");
        assert_eq!(status(&read(&rig, "HPAYMT", "Observation", "o").await.unwrap_err()), 404);
        let Gateway { filer, recorder, door, .. } = &*rig.gateway;
        assert_eq!(filer.batch(recorder, door, 100).await.unwrap(), Progress { done: 1, waiting: 0 });
        settled(&rig).await;
        read(&rig, "HPAYMT", "Observation", "o").await.unwrap();
        assert_eq!(ledger_version(&rig, subject).await, Some(1), "what was committed is not filed again");
        assert_eq!(filer.batch(recorder, door, 100).await.unwrap(), Progress::default());
    }
}

/// Its repetition, as a gateway runs it: nobody calls it here.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_runs_finds_a_broken_deny_by_itself_and_recovers_by_itself() {
    let rig = Rig::with("[consent]\nself_test_interval = \"1s\"\n").await;
    let observer = Arc::clone(rig.gateway.door.observer());
    observer.set_started();
    assert_eq!(observer.ready(), Ok(()));
    let waits = async |well: bool| {
        for _ in 0..6000 {
            match observer.ready() {
                Ok(()) if well => return,
                Err(why) if !well && why.contains("consent self-test") => return,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        panic!("readiness does not follow: {:?}", observer.ready());
    };
    let permits_all = consent("x", "self-test", "active", &serde_json::json!({"type": "permit"})).to_string();
    let tree = Tree::parse(permits_all.into(), &Limits::default()).unwrap();
    selftest::install_with(&rig.gateway.door, PolicySet::new([Policy::compile(tree.root())]));
    waits(false).await;
    assert_eq!(status(&post(&rig, &[patient("p")]).await.unwrap_err()), 503);
    selftest::install(&rig.gateway.door).unwrap();
    waits(true).await;
    post(&rig, &[patient("p")]).await.unwrap();
}
