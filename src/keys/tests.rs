//! Tests of the keyring.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

fn ring() -> (tempfile::TempDir, Files, Keys) {
    let dir = tempfile::tempdir().unwrap();
    let files = Keys::create(&dir.path().join("keys")).unwrap();
    let keys = Keys::open(&files).unwrap();
    (dir, files, keys)
}

/// The signing keys, then the others.
fn all(files: &Files) -> [&Path; 7] {
    let signing = [&files.log, &files.event, &files.institution];
    let others = [&files.domain, &files.index, &files.event_id, &files.master];
    std::array::from_fn(|place| if place < 3 { signing[place].as_path() } else { others[place - 3].as_path() })
}

#[test]
fn create_makes_closed_files_once() {
    let (dir, files, _) = ring();
    for path in all(&files) {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let dir = dir.path().join("keys");
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let before = all(&files).map(|path| fs::read(path).unwrap());
    assert!(matches!(Keys::create(&dir), Err(KeysError::Exists(path)) if path == files.log));
    // Even one file that is there stops it before it makes any other.
    for path in all(&files) {
        if path != files.master {
            fs::remove_file(path).unwrap();
        }
    }
    assert!(matches!(Keys::create(&dir), Err(KeysError::Exists(path)) if path == files.master));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    assert_eq!(fs::read(&files.master).unwrap(), before[6]);
}

#[test]
fn open_files_are_refused_by_name() {
    let (_dir, files, _) = ring();
    for path in all(&files) {
        for (mode, with_group) in [(0o640, true), (0o604, false), (0o620, false), (0o644, false), (0o602, false)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            let error = Keys::open(&files).unwrap_err();
            assert!(matches!(&error, KeysError::TooOpen { file, .. } if file == path), "{error}");
            assert!(error.to_string().contains(&format!("{mode:03o}")));
            let group = Files { group_readable: true, ..files.clone() };
            assert_eq!(Keys::open(&group).is_ok(), with_group, "{mode:o}");
        }
        fs::set_permissions(path, Permissions::from_mode(0o400)).unwrap();
    }
    Keys::open(&files).unwrap();
}

#[test]
fn wrong_forms_are_refused_by_name() {
    let (_dir, files, _) = ring();
    let p256 = aws_lc_rs::signature::EcdsaKeyPair::generate_pkcs8(
        &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        &rand::SystemRandom::new(),
    );
    let p256 = STANDARD.encode(p256.unwrap());
    let other = format!("-----BEGIN PRIVATE KEY-----\n{p256}\n-----END PRIVATE KEY-----\n");
    let short = STANDARD.encode([1; 31]);
    let zeros = STANDARD.encode([0; 32]);
    let url_safe = STANDARD.encode([0xff; 32]).replace('/', "_");
    for (place, path) in all(&files).into_iter().enumerate() {
        let good = fs::read(path).unwrap();
        let twice = [&good[..], &good[..]].concat();
        let pem = place < 3;
        let mut bad: Vec<&[u8]> = vec![b"", b"\n", b"CANARY", &[0xff; 64], &[b'A'; 5000], &good[..good.len() / 2]];
        if pem {
            bad.push(other.as_bytes());
        } else {
            bad.extend([short.as_bytes(), zeros.as_bytes(), url_safe.as_bytes(), &twice]);
        }
        for text in bad {
            fs::write(path, text).unwrap();
            let error = Keys::open(&files).unwrap_err();
            assert!(matches!(&error, KeysError::Form { file, .. } if file == path), "{error}");
            assert!(!format!("{error} {error:?}").contains("CANARY"));
        }
        fs::write(path, good).unwrap();
        let away = path.with_extension("away");
        fs::rename(path, &away).unwrap();
        assert!(matches!(Keys::open(&files), Err(KeysError::Io { file, .. }) if file == path));
        fs::create_dir(path).unwrap();
        assert!(matches!(Keys::open(&files), Err(KeysError::Form { file, .. }) if file == path));
        fs::remove_dir(path).unwrap();
        fs::rename(&away, path).unwrap();
    }
    Keys::open(&files).unwrap();
}

/// A key that OpenSSL 3 made: RFC 8410's example.
#[test]
fn reads_what_openssl_writes() {
    let (_dir, files, _) = ring();
    let pem = "-----BEGIN PRIVATE KEY-----\n\
               MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
               -----END PRIVATE KEY-----\n";
    fs::write(&files.log, pem).unwrap();
    let keys = Keys::open(&files).unwrap();
    let public = STANDARD.encode(keys.public_key(SigningKey::Log));
    assert_eq!(public, "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
}

#[test]
fn signatures_verify_and_keys_differ() {
    let (_dir, files, keys) = ring();
    let kinds = [SigningKey::Log, SigningKey::Event, SigningKey::Institution];
    for kind in kinds {
        let signature = keys.sign(kind, b"message");
        for other in kinds {
            let public = UnparsedPublicKey::new(&ED25519, keys.public_key(other));
            assert_eq!(public.verify(b"message", &signature).is_ok(), kind == other);
        }
        assert_eq!(Keys::open(&files).unwrap().sign(kind, b"message"), signature);
    }
}

#[test]
fn hashes_tell_keys_and_parts_apart() {
    let (_dir, files, keys) = ring();
    let lists: &[&[&[u8]]] = &[&[], &[b""], &[b"ab", b"c"], &[b"a", b"bc"], &[b"abc"], &[b"abc", b""]];
    let mut seen = std::collections::HashSet::new();
    for key in [HmacKey::Domain, HmacKey::Index, HmacKey::EventId] {
        for parts in lists {
            assert!(seen.insert(keys.hmac(key, parts)));
            assert_eq!(keys.hmac(key, parts), Keys::open(&files).unwrap().hmac(key, parts));
        }
    }
    // One and the same key material under two uses still hashes apart.
    fs::copy(&files.domain, &files.index).unwrap();
    let keys = Keys::open(&files).unwrap();
    assert_ne!(keys.hmac(HmacKey::Domain, &[b"a"]), keys.hmac(HmacKey::Index, &[b"a"]));
}

/// Pseudonyms must be the same in every institution and every version: the framing is fixed for ever.
#[test]
fn framing_is_fixed() {
    let (_dir, files, _) = ring();
    fs::write(&files.domain, STANDARD.encode([7; 32])).unwrap();
    let hash = Keys::open(&files).unwrap().hmac(HmacKey::Domain, &[b"use", b"value"]);
    let mut message = Vec::new();
    for part in [&b"sluice/1/hmac/domain"[..], b"use", b"value"] {
        message.extend((part.len() as u64).to_be_bytes());
        message.extend(part);
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    assert_eq!(hash, hmac::sign(&key, &message).as_ref());
}

#[test]
fn wrapped_keys_open_only_in_their_place() {
    let (_dir, files, keys) = ring();
    let secret = Secret::random().unwrap();
    let wrapped = keys.wrap(WrapKey::Keystore, b"slot 7", &secret).unwrap();
    assert_ne!(keys.wrap(WrapKey::Keystore, b"slot 7", &secret).unwrap(), wrapped);
    let opened = keys.unwrap(WrapKey::Keystore, b"slot 7", &wrapped).unwrap();
    assert_eq!(opened.expose(), secret.expose());
    assert!(matches!(keys.unwrap(WrapKey::Keystore, b"slot 8", &wrapped), Err(KeysError::Unwrap)));
    assert!(matches!(keys.unwrap(WrapKey::Data, b"slot 7", &wrapped), Err(KeysError::Unwrap)));
    for byte in 0..WRAPPED_BYTES {
        let mut changed = wrapped;
        changed[byte] ^= 1;
        assert!(keys.unwrap(WrapKey::Keystore, b"slot 7", &changed).is_err());
    }
    fs::write(&files.master, STANDARD.encode([9; 32])).unwrap();
    let other = Keys::open(&files).unwrap();
    assert!(other.unwrap(WrapKey::Keystore, b"slot 7", &wrapped).is_err());
}

#[test]
fn derived_keys_are_stable_and_apart() {
    let (_dir, files, keys) = ring();
    let again = Keys::open(&files).unwrap();
    assert_eq!(keys.derive("a").unwrap().expose(), again.derive("a").unwrap().expose());
    assert_ne!(keys.derive("a").unwrap().expose(), keys.derive("b").unwrap().expose());
}

#[test]
fn debug_shows_nothing() {
    let (_dir, _, keys) = ring();
    assert_eq!(format!("{keys:?} {:?}", keys.derive("a").unwrap()), "Keys(..) Secret(..)");
}
