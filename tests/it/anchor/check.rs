//! Checks of a whole log: a fine one is fine, and each change is found.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sluice::anchor::Log;
use sluice::anchor::check::{Finding, Folder, SourceError, files, operator};
use sluice::store::{Batch, Table};
use sluice_merkle::checkpoint::SignedCheckpoint;
use sluice_merkle::note::{KeyKind, KeyName, VerifierKey};
use sluice_merkle::tile::{Resource, TilePath};

use super::{House, wait};
use crate::house::{lines, sluice};
use crate::rig::{Rig, transaction};

/// Writes a log as a monitor would fetch it.
async fn fetch(log: &Log, to: &Path, entries: bool) {
    std::fs::create_dir_all(to).unwrap();
    let head = log.head();
    std::fs::write(to.join("checkpoint"), head.checkpoint.as_bytes()).unwrap();
    let hashes = (0..8).map(|level| Resource::Hashes { level });
    for resource in hashes.chain(entries.then_some(Resource::Entries)) {
        for path in (0..).map_while(|index| TilePath::within(resource, index, head.size)) {
            let tile = log.tile(&path).await.unwrap().unwrap();
            let file = to.join(path.to_string());
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, tile).unwrap();
        }
    }
}

fn change(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

fn tile(level: u8, index: u64, width: u16) -> Finding {
    Finding::Tile { path: TilePath::new(Resource::Hashes { level }, index, width).unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_finds_every_change() {
    let house = House::new();
    let store = house.store(None);
    let log = house.open(&store).await.unwrap();
    wait(&store, 0..200).await;
    log.sequence().await.unwrap();
    let earlier = SignedCheckpoint::parse(log.head().checkpoint.as_bytes()).unwrap();
    wait(&store, 200..900).await;
    log.sequence().await.unwrap();
    let head = log.head();
    assert_eq!(head.size, 904);
    let fetched = |name: &str| house.folder.path().join(name);
    fetch(&log, &fetched("fine"), true).await;
    let key = Some(log.verifier_key());
    let report = files(&Folder(fetched("fine")), key, std::slice::from_ref(&earlier)).await.unwrap();
    assert!(report.is_ok(), "{:?}", report.findings);
    assert_eq!((report.size, report.root, report.signed), (904, head.root, true));
    assert!(!files(&Folder(fetched("fine")), None, &[]).await.unwrap().signed);
    let stranger = House::new();
    let theirs = stranger.open(&stranger.store(None)).await.unwrap();
    let report = files(&Folder(fetched("fine")), Some(theirs.verifier_key()), &[]).await.unwrap();
    assert_eq!(report.findings, [Finding::Signature { size: 904 }]);

    // Which file, which byte, and what is found.
    let cases: Vec<(&str, usize, Vec<Finding>)> = vec![
        (
            "tile/0/000",
            3,
            vec![Finding::Root { size: 200 }, Finding::Root { size: 904 }, tile(1, 0, 3), Finding::Leaf { index: 0 }],
        ),
        ("tile/0/003.p/136", 0, vec![Finding::Root { size: 904 }, Finding::Leaf { index: 768 }]),
        ("tile/1/000.p/3", 64, vec![tile(1, 0, 3)]),
        ("tile/entries/002", 2 + 33 + 2 + 9, vec![Finding::Leaf { index: 513 }]),
    ];
    for (n, (file, at, expected)) in cases.into_iter().enumerate() {
        let folder = fetched(&format!("changed{n}"));
        fetch(&log, &folder, true).await;
        change(&folder.join(file), at);
        let mut found = files(&Folder(folder.clone()), key, std::slice::from_ref(&earlier)).await.unwrap().findings;
        found.sort_by_key(|it| format!("{it:?}"));
        let mut expected = expected;
        expected.sort_by_key(|it| format!("{it:?}"));
        assert_eq!(found, expected, "{file}");
    }
    // A fork: other leaves, the same key. And a log that was cut.
    let fork = house.open(&super::open(&fetched("forked"), None)).await.unwrap();
    fetch(&fork, &fetched("empty"), false).await;
    let report = files(&Folder(fetched("empty")), key, std::slice::from_ref(&earlier)).await.unwrap();
    assert_eq!(report.findings, [Finding::Rollback { size: 200 }]);
    let nothing = files(&Folder(fetched("nothing")), key, &[]).await;
    assert!(matches!(nothing, Err(SourceError::NoCheckpoint)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_counts_leaves_by_kind_and_finds_what_a_start_does_not() {
    let rig = Rig::new().await;
    let entry = |n: usize| {
        format!(
            r#"{{"fullUrl":"urn:uuid:{n}","resource":{{"resourceType":"Patient","identifier":[{{"system":"urn:a","value":"{n}"}}]}},"request":{{"method":"POST","url":"Patient"}}}}"#
        )
    };
    rig.admit(&transaction(&(0..300).map(entry).collect::<Vec<_>>())).await.unwrap();
    while rig.log.sequence().await.unwrap() > 0 {}
    let vault = rig.gateway.recorder.vault();
    let report = operator(&rig.log, vault).await.unwrap();
    assert!(report.is_ok(), "{:?}", report.findings);
    let leaves = report.leaves.unwrap();
    assert_eq!(leaves.resource, 300);
    assert!(leaves.decision > 0, "{leaves:?}");
    assert_eq!(leaves.audit + leaves.erased, 0);
    assert_eq!(leaves.resource + leaves.decision + leaves.dummy, report.size);

    let store = rig.gateway.recorder.store();
    let (index, first) = ([&[0][..], &0u64.to_be_bytes()].concat(), 0u64.to_be_bytes().to_vec());
    for (table, key, expected) in [
        (Table::Tile, index, vec![tile(0, 0, 256)]),
        (Table::Leaf, first, vec![Finding::Root { size: report.size }, tile(0, 0, 256)]),
    ] {
        let before = store.read(table, &key).await.unwrap().unwrap();
        let mut changed = before.to_vec();
        changed[7] ^= 1;
        store.commit(Batch::new().put(table, key.clone(), changed)).await.unwrap();
        let found = operator(&rig.log, vault).await.unwrap().findings;
        assert!(expected.iter().all(|it| found.contains(it)), "{table:?}: {found:?}");
        store.commit(Batch::new().put(table, key, before)).await.unwrap();
    }
    assert!(operator(&rig.log, vault).await.unwrap().is_ok());
}

/// The same through the command: each kind of damage is found and named, and what can't be checked is no finding.
#[test]
fn the_command_names_every_kind_of_damage() {
    let house = House::new();
    let at = |name: &str| house.folder.path().join(name);
    let (size, later, key) = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = house.store(None);
        let log = house.open(&store).await.unwrap();
        wait(&store, 0..200).await;
        log.sequence().await.unwrap();
        fetch(&log, &at("early"), true).await;
        wait(&store, 200..900).await;
        log.sequence().await.unwrap();
        for name in ["fine", "leaf", "tile", "entry", "gap", "cut", "signature", "garbage", "none"] {
            fetch(&log, &at(name), true).await;
        }
        (log.head().size, log.head().checkpoint.to_string(), log.verifier_key().to_string())
    });
    let source = json!({ "source": "https://a.example", "key": STANDARD.encode([7; 32]) });
    let trust = |origin: &str, key: &str| {
        let file = at(&format!("trust-{}.json", origin.replace('/', "-")));
        let text = json!({ "logs": [{ "origin": origin, "key": key }], "events": [source] });
        std::fs::write(&file, text.to_string()).unwrap();
        file.display().to_string()
    };
    let trusted = trust("hospital-a/log", &key);
    let stranger = VerifierKey::new(KeyName::new("elsewhere/log").unwrap(), KeyKind::Ed25519, [7; 32]).to_string();
    let untrusted = trust("elsewhere/log", &stranger);
    change(&at("leaf").join("tile/0/000"), 3);
    change(&at("tile").join("tile/1/000.p/3"), 64);
    change(&at("entry").join("tile/entries/002"), 2 + 33 + 2 + 9);
    std::fs::remove_file(at("gap").join("tile/0/001")).unwrap();
    std::fs::remove_file(at("cut").join("tile/1/000.p/3")).unwrap();
    std::fs::write(at("garbage").join("checkpoint"), "nothing of the kind").unwrap();
    std::fs::remove_file(at("none").join("checkpoint")).unwrap();
    let checkpoint = at("signature").join("checkpoint");
    let forged = later.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size - 1), 1);
    std::fs::write(&checkpoint, forged).unwrap();
    std::fs::write(at("later"), &later).unwrap();
    let later = at("later").display().to_string();

    // Which folder, the exit code, what is found.
    let table: [(&str, &[&str], i32, &[&str]); 10] = [
        ("fine", &[], 0, &[]),
        ("fine", &["--seen", &later], 0, &[]),
        ("early", &["--seen", &later], 1, &["rollback"]),
        ("leaf", &[], 1, &["fork", "leaf", "tile"]),
        ("tile", &[], 1, &["tile"]),
        ("entry", &[], 1, &["leaf"]),
        ("gap", &[], 1, &["gap", "rollback"]),
        ("cut", &[], 1, &["gap"]),
        ("signature", &["--seen", &later], 1, &["fork", "gap", "rollback", "signature"]),
        ("garbage", &[], 1, &["checkpoint"]),
    ];
    for (name, more, code, expected) in table {
        let folder = at(name).display().to_string();
        let run = |what: &str| {
            let output =
                sluice(&[&["--format", "json", "log", what, &folder, "--trust", &trusted], more].concat(), b"");
            (output.status.code(), lines(&output), String::from_utf8(output.stderr).unwrap())
        };
        let (ended, found, told) = run("audit");
        let (last, findings) = found.split_last().unwrap();
        let mut kinds: Vec<_> = findings.iter().map(|it| it["finding"].as_str().unwrap()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        if name != "signature" {
            assert_eq!(kinds, expected, "{name}: {found:?}");
        }
        // A forged size leads to more than one of these; its signature is found in any case.
        assert!(expected.contains(&"signature") == kinds.contains(&"signature"), "{name}: {found:?}");
        assert_eq!(
            (ended, &last["ok"], &last["findings"]),
            (Some(code), &json!(code == 0), &json!(findings.len())),
            "{told}"
        );
        let (ended, line, told) = run("check");
        assert_eq!((ended, line.len(), &line[0]["ok"]), (Some(code), 1, &json!(code == 0)), "{name}: {told}");
        assert_eq!(told.is_empty(), code == 0, "{name}: {told}");
        if name == "fine" {
            assert_eq!(line[0].as_object().unwrap().keys().collect::<Vec<_>>(), ["ok", "root", "size"]);
            assert_eq!(line[0]["size"], size);
        }
    }
    let codes = |args: &[&str]| sluice(&[&["log", "check"], args].concat(), b"").status.code();
    let (fine, none) = (at("fine").display().to_string(), at("none").display().to_string());
    assert_eq!(codes(&[&fine]), Some(0), "of one piece, by nobody's word");
    assert_eq!(codes(&[&fine, "--trust", &untrusted]), Some(2), "nobody trusts this log");
    assert_eq!(codes(&[&none, "--trust", &trusted]), Some(2), "no log is there");
    assert_eq!(codes(&[&fine, "--trust", &trusted, "--seen", &trusted]), Some(2), "no checkpoint was seen there");
}
