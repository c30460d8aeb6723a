//! The faces of the log and of receipts, without sockets.

use std::sync::Arc;

use http::{Request, StatusCode, header, request};
use http_body_util::BodyExt as _;
use sluice::config::Right;
use sluice::ingest::caller::{Callers, Peer};
use sluice::ingest::unit::Caller;
use sluice::record::leaf::{leaf_bytes, mac};
use sluice::serve::respond::Reply;
use sluice::serve::{log, receipts};
use sluice_merkle::proof::TlogProof;
use sluice_merkle::receipt::verify_proof;
use sluice_merkle::tile::decode_entries;
use sluice_merkle::tree::leaf_hash;

use super::{policy, verifier};
use crate::rig::{Rig, transaction};

/// A GET by an institution's certificate, or by nobody.
fn get(path: &str, institution: Option<&str>, accept: Option<&str>) -> request::Parts {
    let mut request = Request::get(path);
    if let Some(accept) = accept {
        request = request.header(header::ACCEPT, accept);
    }
    let mut parts = request.body(()).unwrap().into_parts().0;
    let caller = institution.map(|institution| {
        Arc::new(Caller {
            institution: institution.into(),
            device: None,
            may: Arc::new([Right::Read]),
            roles: Arc::new([]),
            purpose: None,
        })
    });
    parts.extensions.insert(Peer { by_certificate: caller });
    parts
}

async fn body(reply: Reply) -> bytes::Bytes {
    reply.into_body().collect().await.unwrap().to_bytes()
}

fn hex(text: &str) -> [u8; 32] {
    let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

fn patients(count: usize) -> String {
    let entry = |n: usize| {
        format!(
            r#"{{"resource":{{"resourceType":"Patient","id":"p{n}"}},"request":{{"method":"PUT","url":"Patient/p{n}"}}}}"#
        )
    };
    transaction(&(0..count).map(entry).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoint_and_hash_tiles_are_for_all_and_entries_for_the_tenant() {
    let rig = Rig::new().await;
    rig.admit(&patients(300)).await.unwrap();
    while rig.log.sequence().await.unwrap() > 0 {}
    let size = rig.log.head().size;
    let face =
        log::Face { log: Arc::clone(&rig.log), callers: Arc::new(Callers::default()), tenant: "hospital-a".into() };
    let status = async |path: &str, who| face.answer(&get(path, who, None)).await.status();

    let checkpoint = face.answer(&get("/log/checkpoint", None, None)).await;
    assert_eq!(checkpoint.headers()[header::CACHE_CONTROL], "no-cache");
    assert_eq!(body(checkpoint).await, rig.log.head().checkpoint.as_bytes());
    let full = face.answer(&get("/log/tile/0/000", None, None)).await;
    assert_eq!(full.status(), StatusCode::OK);
    assert_eq!(full.headers()[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
    assert_eq!(full.headers()[header::CONTENT_TYPE], "application/octet-stream");
    let full = body(full).await;
    assert_eq!(full.len(), 256 * 32);
    let partial = face.answer(&get("/log/tile/0/000.p/7", None, None)).await;
    assert_eq!(body(partial).await, full[..7 * 32], "a partial tile of what has grown since");
    let (index, width) = (size / 256, size % 256);
    assert_eq!(status(&format!("/log/tile/0/{index:03}.p/{width}"), None).await, StatusCode::OK);
    for beyond in [
        format!("/log/tile/0/{index:03}"),
        format!("/log/tile/0/{index:03}.p/{}", width + 1),
        "/log/tile/9/000".to_owned(),
        "/log/tile/0/0".to_owned(),
        "/log/tile/0/../../checkpoint".to_owned(),
        "/log/".to_owned(),
    ] {
        assert_eq!(status(&beyond, None).await, StatusCode::NOT_FOUND, "{beyond}");
    }
    assert_eq!(status("/log/tile/entries/000", None).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status("/log/tile/entries/000", Some("pharma-x")).await, StatusCode::FORBIDDEN);
    let entries = face.answer(&get("/log/tile/entries/000", Some("hospital-a"), None)).await;
    assert_eq!(entries.headers()[header::CACHE_CONTROL], "no-store");
    let entries = body(entries).await;
    let entries = decode_entries(&entries, 256).unwrap();
    let hashes = full.as_chunks::<32>().0;
    assert!(entries.iter().zip(hashes).all(|(entry, hash)| leaf_hash(entry) == *hash));
    let mut post = get("/log/checkpoint", None, None);
    post.method = http::Method::POST;
    assert_eq!(face.answer(&post).await.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_given_to_the_sender_alone_and_proves_what_was_accepted() {
    let rig = Rig::new().await;
    let answer = rig.admit(&patients(3)).await.unwrap();
    let callers = Arc::new(Callers::default());
    let face = receipts::Face { gateway: Arc::clone(&rig.gateway), log: Arc::clone(&rig.log), callers };
    let path = format!("/receipts/{}", answer.operation);
    let ask = async |path: &str, who, accept| face.answer(&get(path, who, accept)).await;
    let json = async || -> serde_json::Value {
        serde_json::from_slice(&body(ask(&path, Some("hospital-a"), None).await).await).unwrap()
    };

    // Accepted, and not in the log yet.
    let waiting = json().await;
    assert_eq!(waiting["resources"][2]["leafIndex"], serde_json::Value::Null);
    let text = Some("text/plain");
    assert_eq!(ask(&format!("{path}/0"), Some("hospital-a"), text).await.status(), StatusCode::ACCEPTED);
    while rig.log.sequence().await.unwrap() > 0 {}
    let own = json().await;
    assert_eq!(
        (&own["resources"][0]["assurance"], &own["resources"][0]["receipt"]),
        (&"self".into(), &serde_json::Value::Null)
    );
    rig.log.anchor(&*rig.ledger).await.unwrap();
    let receipt = json().await;
    assert_eq!((&receipt["sender"], &receipt["operation"]), (&"hospital-a".into(), &answer.operation.as_str().into()));
    assert_eq!(receipt["key"], rig.log.verifier_key().to_string());
    for (n, resource) in receipt["resources"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&resource["type"], &resource["version"]), (&"Patient".into(), &1.into()));
        assert_eq!(resource["id"], answer.entries[n].id);
        let record = serde_json::to_string(&resource["record"]).unwrap();
        let commitment = mac(&hex(resource["r"].as_str().unwrap()), record.as_bytes());
        assert_eq!(hex(resource["commitment"].as_str().unwrap()), commitment, "r opens the commitment");
        assert_eq!(resource["record"]["operation"], answer.operation);
        let anchored = rig.log.anchored().unwrap();
        assert_eq!(resource["receipt"]["text"], anchored.receipt.text);
        let proof = body(ask(&format!("{path}/{n}"), Some("hospital-a"), text).await).await;
        let proof = TlogProof::parse(&proof).unwrap();
        let shown = verify_proof(&policy(&rig.log), &leaf_hash(&leaf_bytes(&commitment)), &proof, &verifier).unwrap();
        assert_eq!(resource["leafIndex"], shown.index);
    }
    assert_eq!(ask(&path, Some("hospital-a"), text).await.status(), StatusCode::NOT_ACCEPTABLE, "one leaf, one proof");
    assert_eq!(ask(&path, Some("hospital-b"), None).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask(&path, None, None).await.status(), StatusCode::UNAUTHORIZED);
    for nothing in ["/receipts/00000000-0000-4000-8000-000000000000", "/receipts/x", "/receipts/", &format!("{path}/3")]
    {
        assert_eq!(ask(nothing, Some("hospital-a"), None).await.status(), StatusCode::NOT_FOUND, "{nothing}");
    }

    // The next version's opening is not the first operation's to show.
    let again = rig.admit(&patients(1).replace(r#""id":"p0""#, r#""id":"p0","active":true"#)).await.unwrap();
    assert_ne!(again.operation, answer.operation);
    assert_eq!(json().await["resources"][0]["version"], 1);
}
