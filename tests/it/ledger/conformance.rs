//! What every kind of ledger must do.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use sluice::ledger::proof::{verify_anchor, verify_subject};
use sluice::ledger::{
    Approval, Authority, Breach, Change, Cursor, DeviceKind, FiledBy, Finality, Ledger, LedgerError, Operation, Origin,
    Outcome, Proof, Rejection, SignedOp, Standing, SubjectState, Timestamp,
};

use super::{Folder, Key, World, accept, anchor, attested, bound, fresh, runtime, submit};

/// Runs a test on a fresh ledger of every kind, its members admitted.
fn each<F: Future<Output = ()>>(test: impl Fn(Arc<World>, Arc<dyn Ledger>) -> F) {
    runtime().block_on(async {
        let folder = Folder::new();
        let world = Arc::new(World::new());
        let ledger: Arc<dyn Ledger> = Arc::new(world.create(&folder.path()));
        accept(ledger.as_ref(), &world.members()).await;
        let done = tokio::time::timeout(Duration::from_mins(5), test(world, ledger)).await;
        done.expect("a ledger answers, and its watch moves on");
    });
}

fn rejected(outcome: Outcome) -> Rejection {
    match outcome {
        Outcome::Rejected(why) => why,
        other => panic!("{other:?} where a rejection was due"),
    }
}

fn denied(authority: Authority) -> Rejection {
    Rejection::NotAuthorised(authority)
}

#[test]
fn a_replay_gives_the_first_ticket_again() {
    each(async |world, ledger| {
        let subject = fresh();
        let [first, second] = [1, 2].map(|version| {
            world.sign(Operation::Subject(attested(subject, version, &world.hospital)), &[&world.hospital.gateway])
        });
        let ticket = submit(ledger.as_ref(), first.clone()).await;
        accept(ledger.as_ref(), std::slice::from_ref(&second)).await;
        let before = ledger.head(Finality::Seen).await.unwrap();
        assert_eq!(submit(ledger.as_ref(), first.clone()).await, ticket);
        // Signed by another key it is the same operation, and is not judged again.
        let again = world.sign(first.operation.clone(), &[&world.hospital.master]);
        assert_eq!(submit(ledger.as_ref(), again).await, ticket);
        assert_eq!(ledger.outcome(&first.id()).await.unwrap(), ticket.outcome);
        let both = ledger.submit(&[first.clone(), second.clone(), first]).await.unwrap();
        assert_eq!((&both[0], &both[2]), (&ticket, &ticket));
        let after = ledger.head(Finality::Seen).await.unwrap();
        assert!(after.height - before.height <= 2, "only map roots may have come between");
    });
}

#[test]
fn one_operation_twice_in_a_submission_is_one() {
    each(async |world, ledger| {
        let op = world.sign(Operation::Subject(attested(fresh(), 1, &world.hospital)), &[&world.hospital.gateway]);
        let tickets = ledger.submit(&[op.clone(), op]).await.unwrap();
        assert_eq!(tickets[0], tickets[1]);
    });
}

#[test]
fn a_version_that_does_not_follow_is_a_conflict() {
    each(async |world, ledger| {
        let subject = fresh();
        let put = |version, state| {
            let record = sluice::ledger::SubjectRecord { state, ..attested(subject, version, &world.hospital) };
            world.sign(Operation::Subject(record), &[&world.hospital.gateway])
        };
        let conflict = |have| Rejection::Conflict { have };
        assert_eq!(rejected(submit(ledger.as_ref(), put(2, SubjectState::Active)).await.outcome), conflict(0));
        accept(ledger.as_ref(), &[put(1, SubjectState::Active)]).await;
        assert_eq!(rejected(submit(ledger.as_ref(), put(3, SubjectState::Active)).await.outcome), conflict(1));
        assert_eq!(rejected(submit(ledger.as_ref(), put(1, SubjectState::Revoked)).await.outcome), conflict(1));
        // Of two successors in one submission the first wins.
        let rivals = ledger.submit(&[put(2, SubjectState::Revoked), put(2, SubjectState::Active)]).await.unwrap();
        assert!(matches!(rivals[0].outcome, Outcome::Committed(_)));
        assert_eq!(rejected(rivals[1].outcome.clone()), conflict(2));
        let lookup = ledger.lookup(&[subject, fresh()], Duration::ZERO).await.unwrap();
        assert_eq!(lookup.records[0].as_ref().unwrap().state, SubjectState::Revoked);
        assert_eq!(lookup.records[1], None);
    });
}

#[test]
fn who_may_not_sign_is_refused() {
    each(async |world, ledger| {
        let (hospital, clinic, insurer) = (&world.hospital, &world.clinic, &world.insurer);
        let stranger = Key::ed25519(99);
        let institution = |house: &super::House| Operation::Institution(house.institution(2));
        let device =
            |house: &super::House| Operation::Device(house.device(&stranger, DeviceKind::Gateway, 1, Timestamp::MAX));
        let filed = |house: &super::House| Operation::Subject(attested(fresh(), 1, house));
        let taken = sluice::ledger::Device {
            institution: clinic.id.clone(),
            ..hospital.device(&hospital.gateway, DeviceKind::Gateway, 2, Timestamp::MAX)
        };
        let cases = [
            (institution(hospital), vec![&hospital.master], Authority::Administrator),
            (institution(hospital), vec![&stranger], Authority::Administrator),
            (device(hospital), vec![&world.administrator], Authority::Master),
            (device(hospital), vec![&clinic.master], Authority::Master),
            (device(hospital), vec![&hospital.gateway], Authority::Master),
            (Operation::Device(taken), vec![&clinic.master], Authority::Master),
            (filed(hospital), vec![&stranger], Authority::Attested),
            (filed(hospital), vec![&clinic.gateway], Authority::Attested),
            (filed(hospital), vec![&world.administrator], Authority::Attested),
            (filed(insurer), vec![&insurer.gateway], Authority::Attested),
            (filed(insurer), vec![&insurer.master], Authority::Attested),
            (Operation::Anchor(anchor("hospital.example/log", 1, 1, 1)), vec![&clinic.gateway], Authority::Origin),
            (
                Operation::Anchor(anchor("hospital.example/log", 1, 1, 1)),
                vec![&hospital.practitioner],
                Authority::Origin,
            ),
            (
                Operation::Anchor(anchor("nowhere.example/log", 1, 1, 1)),
                vec![&hospital.gateway],
                Authority::Institution,
            ),
        ];
        for (operation, signers, authority) in cases {
            let ticket = submit(ledger.as_ref(), world.sign(operation.clone(), &signers)).await;
            assert_eq!(rejected(ticket.outcome), denied(authority), "{operation:?}");
        }
    });
}

#[test]
fn a_gateway_alone_never_writes_a_record_bound_to_a_patient() {
    each(async |world, ledger| {
        let (hospital, clinic) = (&world.hospital, &world.clinic);
        let (patient, next, thief) = (Key::p256(), Key::ed25519(71), Key::ed25519(72));
        let subject = fresh();
        let put = |record: &sluice::ledger::SubjectRecord, signers: &[&Arc<Key>]| {
            world.sign(Operation::Subject(record.clone()), signers)
        };
        let refused = async |record: &sluice::ledger::SubjectRecord, signers: &[&Arc<Key>], authority| {
            let ticket = submit(ledger.as_ref(), put(record, signers)).await;
            assert_eq!(rejected(ticket.outcome), denied(authority));
        };
        // Binding takes the patient's key and a practitioner's device, neither of which a gateway has.
        let first = bound(subject, 1, &[&patient]);
        refused(&first, &[&hospital.gateway], Authority::Patient).await;
        refused(&first, &[&hospital.gateway, &hospital.master], Authority::Patient).await;
        refused(&first, &[&patient], Authority::Practitioner).await;
        refused(&first, &[&patient, &hospital.gateway, &hospital.master], Authority::Practitioner).await;
        accept(ledger.as_ref(), &[put(&first, &[&patient, &hospital.practitioner])]).await;

        // From then on only the key that stands.
        let second = bound(subject, 2, &[&patient]);
        let all = [&hospital.gateway, &hospital.master, &hospital.practitioner];
        refused(&second, &all, Authority::Patient).await;
        refused(&second, &[&thief, &hospital.practitioner], Authority::Patient).await;
        refused(&attested(subject, 2, hospital), &all, Authority::Patient).await;
        let stolen = bound(subject, 2, &[&thief]);
        refused(&stolen, &[&thief, &hospital.practitioner], Authority::Patient).await;
        let attested_theft = sluice::ledger::SubjectRecord {
            filed_by: FiledBy::Attested(hospital.id.clone()),
            consent_root: first.consent_root,
            ..stolen
        };
        refused(&attested_theft, &[&thief, &hospital.gateway], Authority::Practitioner).await;
        refused(&attested_theft, &[&thief, &hospital.practitioner], Authority::SecondAttester).await;
        refused(&attested_theft, &[&thief, &clinic.practitioner], Authority::Practitioner).await;
        // A recovery with both attesters may change the keys, and nothing else.
        let attesters = [&next, &hospital.practitioner, &clinic.practitioner];
        let recovered = sluice::ledger::SubjectRecord {
            consent_root: first.consent_root,
            filed_by: FiledBy::Attested(hospital.id.clone()),
            ..bound(subject, 2, &[&next])
        };
        let more = sluice::ledger::SubjectRecord { consent_root: [77; 32], ..recovered.clone() };
        refused(&more, &attesters, Authority::Patient).await;
        accept(ledger.as_ref(), &[put(&recovered, &attesters)]).await;
        // The old key is out, the new one rotates by itself.
        refused(&bound(subject, 3, &[&patient]), &[&patient], Authority::Patient).await;
        accept(ledger.as_ref(), &[put(&bound(subject, 3, &[&patient, &next]), &[&next])]).await;
        accept(ledger.as_ref(), &[put(&bound(subject, 4, &[&patient, &next]), &[&patient])]).await;
        let standing = ledger.lookup(&[subject], Duration::ZERO).await.unwrap().records.remove(0).unwrap();
        assert_eq!((standing.version, standing.filed_by), (4, FiledBy::Patient));
    });
}

#[test]
fn an_approval_that_is_over_counts_for_nothing() {
    each(async |world, ledger| {
        let hospital = &world.hospital;
        let filed = |key: &Arc<Key>| world.sign(Operation::Subject(attested(fresh(), 1, hospital)), &[key]);
        let ticket = submit(ledger.as_ref(), filed(&hospital.expired)).await;
        assert!(matches!(rejected(ticket.outcome), Rejection::Expired { .. }));
        // Nor one that has not begun.
        let early = Key::ed25519(81);
        let device = sluice::ledger::Device {
            valid_from: Timestamp(u64::MAX - 1),
            ..hospital.device(&early, DeviceKind::Gateway, 1, Timestamp::MAX)
        };
        accept(ledger.as_ref(), &[world.sign(Operation::Device(device), &[&hospital.master])]).await;
        let ticket = submit(ledger.as_ref(), filed(&early)).await;
        assert!(matches!(rejected(ticket.outcome), Rejection::Expired { .. }));
        // Nor one that was withdrawn.
        accept(ledger.as_ref(), &[filed(&hospital.gateway)]).await;
        let withdrawn = sluice::ledger::Device {
            approval: Approval::Withdrawn,
            ..hospital.device(&hospital.gateway, DeviceKind::Gateway, 2, Timestamp::MAX)
        };
        accept(ledger.as_ref(), &[world.sign(Operation::Device(withdrawn), &[&hospital.master])]).await;
        let ticket = submit(ledger.as_ref(), filed(&hospital.gateway)).await;
        assert!(matches!(rejected(ticket.outcome), Rejection::Expired { .. }));
        // A suspended house speaks no more, by whatever key.
        let suspended = sluice::ledger::Institution { standing: Standing::Suspended, ..hospital.institution(2) };
        accept(ledger.as_ref(), &[world.sign(Operation::Institution(suspended), &[&world.administrator])]).await;
        let ticket = submit(ledger.as_ref(), filed(&hospital.master)).await;
        assert_eq!(rejected(ticket.outcome), denied(Authority::Institution));
    });
}

#[test]
fn a_wrong_signature_is_refused_before_anything_else() {
    each(async |world, ledger| {
        let operation = Operation::Subject(attested(fresh(), 1, &world.hospital));
        for key in [&world.hospital.gateway, &world.hospital.practitioner] {
            let good = world.sign(operation.clone(), &[key]);
            for byte in [0, 31, 32, 63] {
                let mut bad = good.clone();
                bad.signatures[0].bytes[byte] ^= 1;
                assert_eq!(rejected(submit(ledger.as_ref(), bad).await.outcome), Rejection::BadSignature);
            }
        }
        // Signed for another ledger, it is void here.
        let other = Origin::parse("other.example/ledger").unwrap();
        let foreign = operation.clone().sign(&other, &[world.hospital.gateway.as_ref()]).unwrap();
        assert_eq!(rejected(submit(ledger.as_ref(), foreign).await.outcome), Rejection::BadSignature);
        let unsigned = SignedOp { operation, signatures: Vec::new() };
        assert!(matches!(rejected(submit(ledger.as_ref(), unsigned).await.outcome), Rejection::Malformed(_)));
    });
}

#[test]
fn an_anchor_never_goes_back() {
    each(async |world, ledger| {
        let origin = "hospital.example/log";
        let first = anchor(origin, 1, 10, 1);
        let receipt = ledger.anchor(&first).await.unwrap();
        assert_eq!(ledger.anchor(&first).await.unwrap().position, receipt.position);
        let shown = verify_anchor(&receipt.text, &first, &world.trust()).unwrap();
        assert_eq!(shown.position, receipt.position);
        for (wrong, what) in [
            (anchor(origin, 1, 10, 2), "a second root for a beat"),
            (anchor(origin, 1, 11, 3), "a second size for a beat"),
            (anchor(origin, 2, 9, 1), "a smaller size"),
            (anchor(origin, 2, 10, 2), "a second root for a size"),
        ] {
            let refused = ledger.anchor(&wrong).await;
            assert!(
                matches!(refused, Err(LedgerError::Rejected(Rejection::AnchorRegression { beat: 1, .. }))),
                "{what}: {refused:?}"
            );
        }
        // An idle beat, then growth; the first is still to be had.
        for (beat, size, root) in [(2, 10, 1), (7, 20, 4)] {
            let next = anchor(origin, beat, size, root);
            let receipt = ledger.anchor(&next).await.unwrap();
            verify_anchor(&receipt.text, &next, &world.trust()).unwrap();
        }
        let again = ledger.anchor(&first).await.unwrap();
        assert_eq!(again.position, receipt.position);
        verify_anchor(&again.text, &first, &world.trust()).unwrap();
    });
}

#[test]
fn a_receipt_with_any_bit_flipped_fails() {
    each(async |world, ledger| {
        let anchored = anchor("hospital.example/log", 1, 10, 1);
        let receipt = ledger.anchor(&anchored).await.unwrap();
        let trust = world.trust();
        for at in 0..receipt.text.len() {
            for bit in 0..8 {
                let mut bytes = receipt.text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let Ok(text) = String::from_utf8(bytes) else { continue };
                assert!(verify_anchor(&text, &anchored, &trust).is_err(), "byte {at} bit {bit}:\n{text}");
            }
        }
        assert!(verify_anchor(&receipt.text, &anchor("hospital.example/log", 1, 11, 1), &trust).is_err());
        let other = sluice::ledger::Trust { key: [3; 32], ..trust };
        assert!(verify_anchor(&receipt.text, &anchored, &other).is_err());
    });
}

#[test]
fn presence_revocation_and_absence_are_proven() {
    each(async |world, ledger| {
        let (there, revoked, nobody) = (fresh(), fresh(), fresh());
        let gateway = &world.hospital.gateway;
        let mut ops = vec![
            world.sign(Operation::Subject(attested(there, 1, &world.hospital)), &[gateway]),
            world.sign(Operation::Subject(attested(revoked, 1, &world.hospital)), &[gateway]),
        ];
        let gone =
            sluice::ledger::SubjectRecord { state: SubjectState::Revoked, ..attested(revoked, 2, &world.hospital) };
        ops.push(world.sign(Operation::Subject(gone), &[gateway]));
        for _ in 0..20 {
            ops.push(world.sign(Operation::Subject(attested(fresh(), 1, &world.hospital)), &[gateway]));
        }
        accept(ledger.as_ref(), &ops).await;
        let head = ledger.head(Finality::Seen).await.unwrap();
        let trust = world.trust();
        for (subject, state) in
            [(there, Some(SubjectState::Active)), (revoked, Some(SubjectState::Revoked)), (nobody, None)]
        {
            let proof = ledger.prove(&subject, &head).await.unwrap();
            let shown = verify_subject(&proof, &subject, &trust).unwrap();
            assert_eq!(shown.record.as_ref().map(|record| record.state), state);
            assert!(shown.head.height >= head.height && shown.head.finality == Finality::Final);
            for at in 0..proof.bytes.len() {
                for bit in 0..8 {
                    let mut bytes = proof.bytes.clone();
                    bytes[at] ^= 1 << bit;
                    let changed = Proof { bytes, ..proof.clone() };
                    assert!(verify_subject(&changed, &subject, &trust).is_err(), "byte {at} bit {bit}");
                }
            }
            for length in 0..proof.bytes.len() {
                let changed = Proof { bytes: proof.bytes[..length].to_vec(), ..proof.clone() };
                assert!(verify_subject(&changed, &subject, &trust).is_err());
            }
            let other = Proof { subject: fresh(), ..proof.clone() };
            assert!(verify_subject(&other, &other.subject, &trust).is_err());
        }
        let beyond = sluice::ledger::Head { height: head.height + 1000, ..head };
        let refused = ledger.prove(&there, &beyond).await;
        assert!(matches!(refused, Err(LedgerError::Integrity(Breach::Rollback { .. }))));
    });
}

#[test]
fn a_watch_goes_on_from_any_cursor_without_gaps() {
    each(async |world, ledger| {
        let gateway = &world.hospital.gateway;
        let mut ids: Vec<_> = world.members().iter().map(SignedOp::id).collect();
        for _ in 0..12 {
            let ops: Vec<_> = (0..7)
                .map(|_| world.sign(Operation::Subject(attested(fresh(), 1, &world.hospital)), &[gateway]))
                .collect();
            ids.extend(ops.iter().map(SignedOp::id));
            accept(ledger.as_ref(), &ops).await;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        let head = ledger.head(Finality::Seen).await.unwrap();
        let mut whole = Vec::new();
        let mut stream = ledger.watch(Cursor::start());
        loop {
            let change = stream.next().await.unwrap().unwrap();
            let end = matches!(&change, Change::Finalized { head: last, .. } if last.height >= head.height); // A beat may have sealed all before `head` was asked for.
            whole.push(change);
            if end || whole.len() > 1000 {
                break;
            }
        }
        let applied = |changes: &[Change]| -> Vec<_> {
            let id = |change: &Change| if let Change::Applied { op, .. } = change { Some(op.id()) } else { None };
            changes.iter().filter_map(id).collect()
        };
        // Practitioners' P-256 signatures are random, so ids compare, not whole operations.
        assert_eq!(applied(&whole).len(), ids.len());
        assert_eq!(applied(&whole)[12..], ids[12..]);
        assert!(whole.windows(2).all(|pair| pair[0].cursor() != pair[1].cursor()));
        for at in 0..whole.len() - 1 {
            let stored = Cursor::from_bytes(whole[at].cursor().as_bytes()).unwrap();
            let rest: Vec<_> = ledger.watch(stored).take(whole.len() - at - 1).map(Result::unwrap).collect().await;
            assert_eq!(rest, whole[at + 1..], "from change {at}");
        }
        // It waits for what comes.
        let mut live = ledger.watch(whole.last().unwrap().cursor().clone());
        let op = world.sign(Operation::Subject(attested(fresh(), 1, &world.hospital)), &[gateway]);
        accept(ledger.as_ref(), std::slice::from_ref(&op)).await;
        let change = live.next().await.unwrap().unwrap();
        assert!(matches!(change, Change::Applied { op: seen, .. } if seen == op));
        assert!(matches!(live.next().await.unwrap().unwrap(), Change::Finalized { .. }));
    });
}

#[test]
fn a_cursor_from_a_longer_history_is_an_integrity_error() {
    each(async |_, ledger| {
        let ahead = Cursor::from_bytes(&1_000_000_u64.to_be_bytes()).unwrap();
        let mut stream = ledger.watch(ahead);
        let first = stream.next().await.unwrap();
        assert!(matches!(first, Err(LedgerError::Integrity(Breach::Rollback { known: 1_000_000, .. }))));
        assert!(stream.next().await.is_none());
    });
}

#[test]
fn an_unknown_operation_is_unknown() {
    each(async |world, ledger| {
        let op = world.sign(Operation::Subject(attested(fresh(), 1, &world.hospital)), &[&world.hospital.gateway]);
        assert_eq!(ledger.outcome(&op.id()).await.unwrap(), Outcome::Unknown);
    });
}

#[test]
fn an_erased_subject_stays_erased() {
    each(async |world, ledger| {
        let subject = fresh();
        let put = |version, state| {
            let record = sluice::ledger::SubjectRecord { state, ..attested(subject, version, &world.hospital) };
            world.sign(Operation::Subject(record), &[&world.hospital.gateway])
        };
        accept(ledger.as_ref(), &[put(1, SubjectState::Active), put(2, SubjectState::Erased)]).await;
        let ticket = submit(ledger.as_ref(), put(3, SubjectState::Active)).await;
        assert!(matches!(rejected(ticket.outcome), Rejection::Unsupported(_)));
    });
}
