//! kill -9 on the keystore: a key that was given lasts, one that was destroyed never comes back.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use sluice::keys::{Files, Keys};
use sluice::store::keystore::{Keystore, KeystoreError, SlotId, SubjectKey};

use super::child;

const ROUNDS: u32 = 20;

fn subject(n: u32) -> SubjectKey {
    Sha256::digest(n.to_be_bytes()).into()
}

fn open(dir: &Path) -> Keystore {
    let keys = Arc::new(Keys::open(&Files::in_dir(&dir.join("keys"))).unwrap());
    Keystore::open(&dir.join("keystore"), keys).unwrap()
}

/// Gives keys three at a time and destroys every other one soon after, on several threads.
#[test]
fn child() {
    let Some(dir) = child::directory() else { return };
    let keystore = open(Path::new(&dir));
    let next = AtomicU32::new(u32::try_from(keystore.len()).unwrap() * 10);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let first = next.fetch_add(3, Ordering::Relaxed);
                    let three = [first, first + 1, first + 2];
                    keystore.ensure(&three.map(subject)).unwrap();
                    for n in three {
                        let (slot, key) = keystore.key_of(&subject(n)).unwrap().unwrap();
                        let print = u32::from_be_bytes(Sha256::digest(key.expose())[..4].try_into().unwrap());
                        say(&format!("key {n} {} {} {print}", slot.index, slot.generation));
                    }
                    say(&format!("destroying {first}"));
                    keystore.destroy(&subject(first)).unwrap();
                    say(&format!("destroyed {first}"));
                }
            });
        }
    });
}

/// One write a line, so that a kill cuts none but the last.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    Given,
    Destroying,
    Destroyed,
}

#[test]
fn keys_last_and_destroyed_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Arc::new(Keys::open(&Keys::create(&dir.path().join("keys")).unwrap()).unwrap());
    drop(Keystore::create(&dir.path().join("keystore"), keys).unwrap());
    let mut told: BTreeMap<u32, (SlotId, u32, Told)> = BTreeMap::new();
    let enough = |told: &BTreeMap<u32, (SlotId, u32, Told)>| {
        told.len() > 100 && told.values().any(|(_, _, told)| *told == Told::Destroyed)
    };
    // On a slow machine many a child dies before it has done anything.
    let mut round = 0;
    while round < ROUNDS || round < ROUNDS * 50 && !enough(&told) {
        round += 1;
        let mut child = child::start("store::keystore::child", dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let wait = Duration::from_micros(RandomState::new().hash_one(round) % (100_000 + 2_000 * u64::from(round)));
        let killer = std::thread::spawn(move || {
            std::thread::park_timeout(wait);
            child.kill().unwrap();
            child.wait().unwrap();
        });
        let mut line = String::new();
        while lines.read_line(&mut line).unwrap() > 0 {
            let words: Vec<_> = line.strip_suffix('\n').map(|line| line.split(' ').collect()).unwrap_or_default();
            let number = |at: usize| words[at].parse::<u32>().unwrap();
            match words.first() {
                Some(&"key") => {
                    let slot = SlotId { index: number(2), generation: number(3) };
                    told.insert(number(1), (slot, number(4), Told::Given));
                }
                Some(&"destroying") => told.get_mut(&number(1)).unwrap().2 = Told::Destroying,
                Some(&"destroyed") => told.get_mut(&number(1)).unwrap().2 = Told::Destroyed,
                _ => {}
            }
            line.clear();
        }
        killer.join().unwrap();
        check(dir.path(), &told);
    }
    assert!(enough(&told), "only {} keys", told.len());
}

fn check(dir: &Path, told: &BTreeMap<u32, (SlotId, u32, Told)>) {
    let keystore = open(dir);
    assert_eq!(keystore.damaged(), 0);
    for (n, (slot, print, told)) in told {
        let key = keystore.key(*slot);
        match (told, &key) {
            (Told::Given | Told::Destroying, Ok(key)) => {
                assert_eq!(Sha256::digest(key.expose())[..4], print.to_be_bytes(), "another key for {n}");
            }
            (Told::Destroying | Told::Destroyed, Err(KeystoreError::Erased)) => {}
            _ => panic!("subject {n} was {told:?}, and its slot is {key:?}"),
        }
    }
}
