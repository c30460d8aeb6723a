//! Checks of a whole log: a fine one is fine, and each change is found.

use std::path::Path;

use sluice::anchor::Log;
use sluice::anchor::check::{Finding, Folder, SourceError, files, operator};
use sluice::store::{Batch, Table};
use sluice_merkle::checkpoint::SignedCheckpoint;
use sluice_merkle::tile::{Resource, TilePath};

use super::{House, wait};
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
