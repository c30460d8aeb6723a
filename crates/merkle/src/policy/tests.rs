use std::fmt::Write;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::note::KeyError;
use crate::note::tests::{Pair, ed25519};

fn witness(n: u8) -> Pair {
    Pair::new(&format!("witness.example/{n}"), KeyKind::Cosignature, n)
}

fn log() -> Pair {
    Pair::new("log.example/a", KeyKind::Ed25519, 100)
}

fn cosigned_by(cosigners: &[u8]) -> SignedCheckpoint {
    let checkpoint = Checkpoint::new("log.example/a", 1, [7; 32]).unwrap();
    let text = checkpoint.to_string();
    let mut signatures = vec![log().sign(&text)];
    signatures.extend(cosigners.iter().map(|n| witness(*n).cosign(&text, 1000 + u64::from(*n))));
    SignedCheckpoint::new(checkpoint, signatures).unwrap()
}

/// The example of the specification, with keys.
fn example() -> String {
    let mut text = format!("# Two operators\nlog {} https://log.example/a/\n\n", log().key);
    for n in 1..=6 {
        let group = if n <= 3 { 'X' } else { 'Y' };
        writeln!(text, "witness {group}{n}\t{}", witness(n).key).unwrap();
    }
    text + "group X-witnesses 2 X1 X2 X3\n  group Y-witnesses any Y4 Y5 Y6\ngroup X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n"
}

#[test]
fn the_example_of_the_specification_decides() {
    let policy = Policy::parse(example().as_bytes()).unwrap();
    for cosigners in [&[1, 2, 4][..], &[1, 3, 6], &[1, 2, 3, 4, 5, 6]] {
        let checkpoint = cosigned_by(cosigners);
        let endorsement = policy.check(&checkpoint, &ed25519).unwrap();
        assert_eq!((endorsement.cosigned.len(), endorsement.witnesses), (cosigners.len(), 6));
        assert_eq!(endorsement.log, &log().key);
    }
    for cosigners in [&[][..], &[1, 2, 3], &[1, 4, 5, 6], &[7, 8, 9, 10]] {
        let known = cosigners.iter().filter(|n| **n <= 6).count();
        let refused = policy.check(&cosigned_by(cosigners), &ed25519).unwrap_err();
        assert_eq!(refused, Disbelief::NoQuorum { cosigned: known, witnesses: 6 });
    }
}

#[test]
fn a_group_s_member_may_be_the_quorum() {
    let text = example().replace("quorum X-and-Y", "quorum X1");
    let policy = Policy::parse(text.as_bytes()).unwrap();
    assert!(policy.check(&cosigned_by(&[1]), &ed25519).is_ok());
    assert!(policy.check(&cosigned_by(&[2, 3, 4]), &ed25519).is_err());
}

#[test]
fn one_witness_counts_once() {
    let policy = Policy::new(vec![log().key], vec![witness(1).key, witness(2).key], 2).unwrap();
    let checkpoint = cosigned_by(&[1]);
    let again = witness(1).cosign(checkpoint.note().text(), 5000);
    let checkpoint = checkpoint.with_signatures([again]).unwrap();
    let refused = policy.check(&checkpoint, &ed25519).unwrap_err();
    assert_eq!(refused, Disbelief::NoQuorum { cosigned: 1, witnesses: 2 });
    assert!(policy.check(&cosigned_by(&[1, 2]), &ed25519).is_ok());
}

#[test]
fn a_checkpoint_is_disbelieved_for_its_exact_cause() {
    let policy = Policy::new(vec![log().key], vec![witness(1).key], 0).unwrap();
    let other = Pair::new("log.example/b", KeyKind::Ed25519, 101);
    let checkpoint = Checkpoint::new("log.example/b", 1, [7; 32]).unwrap();
    let by_other = SignedCheckpoint::new(checkpoint.clone(), vec![other.sign(&checkpoint.to_string())]).unwrap();
    assert_eq!(policy.check(&by_other, &ed25519), Err(Disbelief::UnknownLog));

    // A trusted log's key does not speak for another origin.
    let by_log = SignedCheckpoint::new(checkpoint.clone(), vec![log().sign(&checkpoint.to_string())]).unwrap();
    assert_eq!(policy.check(&by_log, &ed25519), Err(Disbelief::UnknownLog));

    let checkpoint = Checkpoint::new("log.example/a", 1, [7; 32]).unwrap();
    let text = checkpoint.to_string();
    let unsigned = SignedCheckpoint::new(checkpoint.clone(), vec![witness(1).cosign(&text, 1)]).unwrap();
    assert_eq!(policy.check(&unsigned, &ed25519), Err(Disbelief::NotSignedByLog));
    let forged = SignedCheckpoint::new(checkpoint.clone(), vec![log().sign("another text\n")]).unwrap();
    assert_eq!(policy.check(&forged, &ed25519), Err(Disbelief::LogSignature));
    let lines = vec![log().sign(&text), witness(1).cosign("another text\n", 1)];
    let forged = SignedCheckpoint::new(checkpoint, lines).unwrap();
    let name = witness(1).key.name().clone();
    assert_eq!(policy.check(&forged, &ed25519), Err(Disbelief::Cosignature { name }));
}

#[test]
fn keys_must_go_together() {
    assert_eq!(Policy::new(vec![witness(1).key], vec![], 0), Err(KeysError::WrongKind));
    assert_eq!(Policy::new(vec![], vec![log().key], 0), Err(KeysError::WrongKind));
    assert_eq!(Policy::new(vec![log().key], vec![witness(1).key], 2), Err(KeysError::Threshold));
    let renamed = Pair::new("another.example", KeyKind::Cosignature, 1);
    assert_eq!(Policy::new(vec![log().key], vec![witness(1).key, renamed.key], 1), Err(KeysError::Duplicate));
}

#[test]
fn a_policy_is_refused_at_its_line_for_its_exact_cause() {
    use PolicyErrorKind as E;
    let (log, one, two) = (log().key, witness(1).key, witness(2).key);
    for (text, line, kind) in [
        (String::new(), 1, E::QuorumCount),
        (format!("log {log}\n"), 1, E::QuorumCount),
        ("quorum none".to_owned(), 1, E::LineEnd),
        ("quorum none\nquorum none\n".to_owned(), 2, E::QuorumCount),
        ("quorum none\r\n".to_owned(), 1, E::ControlCharacter),
        ("quorum none\nlogs x\n".to_owned(), 2, E::Keyword),
        ("log\n".to_owned(), 1, E::Words),
        (format!("log {log} url more\n"), 1, E::Words),
        ("group g all\n".to_owned(), 1, E::Words),
        ("log x\n".to_owned(), 1, E::Key(KeyError::Parts)),
        (format!("log {one}\n"), 1, E::Keys(KeysError::WrongKind)),
        (format!("witness w {log}\n"), 1, E::Keys(KeysError::WrongKind)),
        (format!("log {log}\nlog {log}\n"), 2, E::Keys(KeysError::Duplicate)),
        (format!("witness none {one}\n"), 1, E::NameTaken),
        (format!("witness w {one}\nwitness w {two}\n"), 2, E::NameTaken),
        ("group g all g\n".to_owned(), 1, E::NameUnknown),
        ("quorum w\n".to_owned(), 1, E::NameUnknown),
        (format!("witness w {one}\ngroup g all w w\n"), 2, E::MemberTwice),
        (format!("witness w {one}\ngroup g all w\ngroup h all w\n"), 3, E::MemberTwice),
        (format!("witness w {one}\ngroup g 2 w\n"), 2, E::Threshold),
        (format!("witness w {one}\ngroup g 0 w\n"), 2, E::Threshold),
        (format!("witness w {one}\ngroup g 01 w\n"), 2, E::Threshold),
        ("#".repeat(300_000), 1, E::TooLarge),
    ] {
        assert_eq!(Policy::parse(text.as_bytes()), Err(PolicyError { line, kind }), "{text:.200}");
    }
}
