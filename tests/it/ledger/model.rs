//! A thousand random operations against a model: the same decisions, the same state, before and after reopening.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use sluice::ledger::proof::verify_subject;
use sluice::ledger::{
    Embedded, Finality, Ledger, Operation, Outcome, Pseudonym, Rejection, SubjectRecord, SubjectState,
};

use super::{Folder, World, accept, attested, pseudonym, runtime};

const SUBJECTS: u64 = 12;

#[derive(Debug, Clone)]
enum Step {
    /// Puts a version that is this far from the one that stands.
    Put {
        subject: u64,
        offset: i8,
        state: SubjectState,
        root: u8,
        may: bool,
    },
    Replay {
        pick: prop::sample::Index,
    },
    Prove {
        subject: u64,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let state = prop_oneof![
        8 => Just(SubjectState::Active),
        4 => Just(SubjectState::Revoked),
        1 => Just(SubjectState::Erased)
    ];
    prop_oneof![
        40 => (0..SUBJECTS, prop_oneof![5 => Just(1_i8), 1 => -1..=3_i8], state, any::<u8>(), prop::bool::weighted(0.9))
            .prop_map(|(subject, offset, state, root, may)| Step::Put { subject, offset, state, root, may }),
        8 => any::<prop::sample::Index>().prop_map(|pick| Step::Replay { pick }),
        3 => (0..SUBJECTS + 2).prop_map(|subject| Step::Prove { subject }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_does_what_the_model_does(steps in proptest::collection::vec(step(), 125..=150)) {
        runtime().block_on(run(steps));
    }
}

async fn run(steps: Vec<Step>) {
    let (folder, world) = (Folder::new(), World::new());
    let mut ledger = world.create(&folder.path());
    accept(&ledger, &world.members()).await;
    let mut model: HashMap<Pseudonym, SubjectRecord> = HashMap::new();
    let mut done = Vec::new();
    for step in steps {
        match step {
            Step::Put { subject, offset, state, root, may } => {
                let subject = pseudonym(subject);
                let standing = model.get(&subject);
                let have = standing.map_or(0, |record| record.version);
                let version = have.saturating_add_signed(offset.into()).max(1);
                let record =
                    SubjectRecord { state, consent_root: [root; 32], ..attested(subject, version, &world.hospital) };
                let signer = if may { &world.hospital.gateway } else { &world.insurer.gateway };
                let op = world.sign(Operation::Subject(record.clone()), &[signer]);
                let replay = done.iter().find(|(id, _)| *id == op.id()).map(|(_, ticket)| ticket);
                let ticket = ledger.submit(std::slice::from_ref(&op)).await.unwrap().remove(0);
                if let Some(first) = replay {
                    assert_eq!(&ticket, first);
                } else if version != have + 1 {
                    assert_eq!(ticket.outcome, Outcome::Rejected(Rejection::Conflict { have }));
                } else if standing.is_some_and(|record| record.state == SubjectState::Erased) {
                    assert!(matches!(ticket.outcome, Outcome::Rejected(Rejection::Unsupported(_))));
                } else if !may {
                    assert!(matches!(ticket.outcome, Outcome::Rejected(Rejection::NotAuthorised(_))));
                } else {
                    assert!(matches!(ticket.outcome, Outcome::Committed(_)));
                    model.insert(subject, record);
                    done.push((op.id(), ticket));
                }
            }
            Step::Replay { pick } if !done.is_empty() => {
                let (id, ticket) = pick.get(&done);
                assert_eq!(ledger.outcome(id).await.unwrap(), ticket.outcome);
            }
            Step::Replay { .. } => {}
            Step::Prove { subject } => {
                let subject = pseudonym(subject);
                let head = ledger.head(Finality::Seen).await.unwrap();
                let proof = ledger.prove(&subject, &head).await.unwrap();
                let shown = verify_subject(&proof, &subject, &world.trust()).unwrap();
                assert_eq!(shown.record.as_ref(), model.get(&subject));
            }
            Step::Reopen => {
                drop(ledger);
                ledger = Embedded::open(&world.options(&folder.path())).unwrap();
            }
        }
    }
    let subjects: Vec<_> = (0..SUBJECTS).map(pseudonym).collect();
    let snapshot = ledger.lookup(&subjects, Duration::ZERO).await.unwrap();
    for (subject, record) in subjects.iter().zip(&snapshot.records) {
        assert_eq!(record.as_ref(), model.get(subject));
    }
}
