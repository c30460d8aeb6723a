use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use proptest::prelude::*;

use super::*;

/// c2sp.org/signed-note, example.
const EXAMPLE_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const EXAMPLE: &str = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

pub(crate) fn ed25519(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(message, signature).is_ok()
}

pub(crate) struct Pair {
    pub(crate) key: VerifierKey,
    pair: Ed25519KeyPair,
}

impl Pair {
    pub(crate) fn new(name: &str, kind: KeyKind, seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public_key = pair.public_key().as_ref().try_into().unwrap();
        Self { key: VerifierKey::new(KeyName::new(name).unwrap(), kind, public_key), pair }
    }

    pub(crate) fn sign(&self, text: &str) -> Signature {
        sign(text, &self.key, |message| self.pair.sign(message).as_ref().try_into().unwrap()).unwrap()
    }

    pub(crate) fn cosign(&self, text: &str, time_s: u64) -> Signature {
        cosign(text, time_s, &self.key, |message| self.pair.sign(message).as_ref().try_into().unwrap()).unwrap()
    }
}

#[test]
fn the_example_of_the_specification_verifies() {
    let key = VerifierKey::parse(EXAMPLE_KEY).unwrap();
    assert_eq!(key.to_string(), EXAMPLE_KEY);
    assert_eq!(key.id().to_string(), "530d903a");
    let note = Note::parse(EXAMPLE.as_bytes()).unwrap();
    assert_eq!(note.text(), "This is an example message.\n");
    assert_eq!(note.to_string(), EXAMPLE);
    assert_eq!(note.verify([&key], &ed25519), Ok(vec![Signed { by: &key, time_s: None }]));
}

#[test]
fn the_texts_in_the_specifications_read() {
    // c2sp.org/signed-note, opening; c2sp.org/tlog-cosignature, opening. Their keys are not published.
    for text in [
        "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned \u{e8} subito sera.\n\n\u{2014} quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n",
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n",
    ] {
        let note = Note::parse(text.as_bytes()).unwrap();
        assert_eq!(note.to_string(), text);
    }
    let (time_s, _) = cosignature::split(
        &base64(
            "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==",
        )
        .unwrap()[4..],
    )
    .unwrap();
    assert_eq!(time_s, 1_679_315_147, "the time that the specification's signed message names");
}

#[test]
fn a_note_is_refused_for_its_exact_cause() {
    use NoteError as E;
    let line = "\u{2014} n AAAAAAE=\n";
    let many = format!("t\n\n{}", line.repeat(SIGNATURES_MAX + 1));
    for (note, cause) in [
        ("", E::NoBlankLine),
        ("t\n", E::NoBlankLine),
        ("t\n\n", E::NoSignature),
        ("t\r\n\n\u{2014} n AAAAAAE=\n", E::ControlCharacter),
        ("t\u{0}\n\n\u{2014} n AAAAAAE=\n", E::ControlCharacter),
        ("t\n\n\u{2014} n AAAAAAE=", E::SignatureEnd),
        ("t\n\n- n AAAAAAE=\n", E::SignatureLine { line: 1 }),
        ("t\n\n\u{2014} n AAAAAAE=\nx\n", E::SignatureLine { line: 2 }),
        ("t\n\n\u{2014}  AAAAAAE=\n", E::SignatureName { line: 1 }),
        ("t\n\n\u{2014} a+b AAAAAAE=\n", E::SignatureName { line: 1 }),
        ("t\n\n\u{2014} a\u{a0}b AAAAAAE=\n", E::SignatureName { line: 1 }),
        ("t\n\n\u{2014} n AAAAAA==\n", E::SignatureBase64 { line: 1 }),
        ("t\n\n\u{2014} n AAAAAAF=\n", E::SignatureBase64 { line: 1 }),
        ("t\n\n\u{2014} n AAAAAAE\n", E::SignatureBase64 { line: 1 }),
        ("t\n\n\u{2014} n AAAAAAE= \n", E::SignatureBase64 { line: 1 }),
        (many.as_str(), E::TooManySignatures),
    ] {
        assert_eq!(Note::parse(note.as_bytes()), Err(cause), "{note:?}");
    }
    assert_eq!(Note::parse(b"t\xff\n\n"), Err(E::NotUtf8));
    assert_eq!(Note::parse(&vec![b'a'; BYTES_MAX + 1]), Err(E::TooLarge));
    assert_eq!(Note::new("t", vec![]), Err(E::TextEnd));
    assert_eq!(Note::new("t\n", vec![]), Err(E::NoSignature));
}

#[test]
fn a_verifier_key_is_refused_for_its_exact_cause() {
    use KeyError as E;
    let key = "AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    for (text, cause) in [
        ("example.com/foo".to_owned(), E::Parts),
        ("example.com/foo+530d903a".to_owned(), E::Parts),
        (format!("+530d903a+{key}"), E::NameEmpty),
        (format!("a b+530d903a+{key}"), E::NameCharacter),
        (format!("{}+530d903a+{key}", "n".repeat(NAME_BYTES_MAX + 1)), E::NameTooLong),
        (format!("example.com/foo+530D903A+{key}"), E::IdForm),
        (format!("example.com/foo+530d903+{key}"), E::IdForm),
        (format!("example.com/foo+530d903b+{key}"), E::IdMismatch),
        (format!("example.com/bar+530d903a+{key}"), E::IdMismatch),
        ("example.com/foo+530d903a+".to_owned(), E::KeyBase64),
        (format!("example.com/foo+530d903a+{key}="), E::KeyBase64),
        ("example.com/foo+530d903a+AQ==".to_owned(), E::KeyLength(0)),
        ("example.com/foo+530d903a+Ag==".to_owned(), E::UnknownKind(2)),
    ] {
        assert_eq!(VerifierKey::parse(&text), Err(cause), "{text:?}");
    }
}

#[test]
fn only_trusted_keys_count_and_all_of_their_lines_must_verify() {
    let text = "o\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let log = Pair::new("o", KeyKind::Ed25519, 1);
    let witness = Pair::new("w", KeyKind::Cosignature, 2);
    let stranger = Pair::new("s", KeyKind::Ed25519, 3);
    let note =
        Note::new(text, vec![log.sign(text), stranger.sign(text), witness.cosign(text, 7), witness.cosign(text, 9)])
            .unwrap();
    let note = Note::parse(note.to_string().as_bytes()).unwrap();

    assert_eq!(
        note.verify([&witness.key, &log.key, &log.key], &ed25519),
        Ok(vec![Signed { by: &witness.key, time_s: Some(9) }, Signed { by: &log.key, time_s: None }])
    );
    let unknown = Pair::new("o", KeyKind::Ed25519, 4);
    assert_eq!(note.verify([&unknown.key], &ed25519), Err(VerifyError::NoTrustedSignature));
    assert_eq!(note.verify([], &ed25519), Err(VerifyError::NoTrustedSignature));

    // The same public key under the other kind is another key.
    let as_note = VerifierKey::new(witness.key.name().clone(), KeyKind::Ed25519, *witness.key.public_key());
    assert_eq!(note.verify([&as_note], &ed25519), Err(VerifyError::NoTrustedSignature));

    let forged = Signature::new(log.key.name().clone(), log.key.id(), vec![0; 64]).unwrap();
    let short = Signature::new(witness.key.name().clone(), witness.key.id(), vec![0; 64]).unwrap();
    for line in [forged, short] {
        let name = line.name().clone();
        let note = note.clone().with_signatures([line]).unwrap();
        assert_eq!(note.verify([&log.key, &witness.key], &ed25519), Err(VerifyError::BadSignature { name }));
    }
}

#[test]
fn a_key_signs_only_its_own_kind() {
    let log = Pair::new("o", KeyKind::Ed25519, 1);
    let witness = Pair::new("w", KeyKind::Cosignature, 2);
    let never = |_: &[u8]| -> [u8; 64] { unreachable!() };
    assert_eq!(sign("t\n", &witness.key, never), Err(SignError::WrongKind));
    assert_eq!(cosign("t\n", 1, &log.key, never), Err(SignError::WrongKind));
    assert_eq!(cosign("t\n", 0, &witness.key, never), Err(SignError::Time));
    assert_eq!(cosign("t\n", 1 << 63, &witness.key, never), Err(SignError::Time));
    assert_eq!(sign("t", &log.key, never), Err(SignError::Text(NoteError::TextEnd)));
}

#[test]
fn a_repeated_line_is_not_added() {
    let log = Pair::new("o", KeyKind::Ed25519, 1);
    let note = Note::new("t\n", vec![log.sign("t\n")]).unwrap();
    assert_eq!(note.clone().with_signatures([log.sign("t\n")]), Ok(note));
}

proptest! {
    #[test]
    fn what_parses_is_given_back_byte_for_byte(note in "(a|\n|\u{2014} |n|\u{2014} n AAAAAAE=\n| |AAAAAAE=|\u{e8}|\n\n\u{2014} w [A-D]{8}\n){0,12}") {
        if let Ok(parsed) = Note::parse(note.as_bytes()) {
            prop_assert_eq!(parsed.to_string(), note);
            prop_assert_eq!(Note::new(parsed.text(), parsed.signatures().to_vec()), Ok(parsed));
        }
    }

    #[test]
    fn any_flipped_bit_under_the_only_signature_fails(text in "[a-z\n]{0,40}\n", at in any::<prop::sample::Index>()) {
        let log = Pair::new("o", KeyKind::Ed25519, 1);
        let mut bytes = Note::new(text.as_str(), vec![log.sign(&text)]).unwrap().to_string().into_bytes();
        let at = at.index(bytes.len() * 8);
        bytes[at / 8] ^= 1 << (at % 8);
        if let Ok(note) = Note::parse(&bytes) {
            prop_assert!(note.verify([&log.key], &ed25519).is_err());
        }
    }

    #[test]
    fn a_verifier_key_has_one_spelling(text in "example.com/foo\\+[0-9a-f]{8}\\+A[A-Za-z0-9+/=]{43}") {
        if let Ok(key) = VerifierKey::parse(&text) {
            prop_assert_eq!(key.to_string(), text);
        }
    }
}
