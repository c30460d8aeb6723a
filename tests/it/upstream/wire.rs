//! The wire to the upstream: what its statuses mean, TLS, tokens, and what goes over it unchanged.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

use super::fake::{Fake, Mode};
use super::{admission, recorded, settings, staged_rows};
use crate::house::sluice;
use crate::rig::{Rig, transaction};

/// Each status: what the sender is told, and whether the unit stays open.
const STATUSES: [(u16, u16, bool); 18] = [
    (301, 502, false),
    (307, 502, false),
    (400, 400, false),
    (401, 502, false),
    (403, 403, false),
    (404, 404, false),
    (408, 504, true),
    (409, 409, false),
    (412, 412, false),
    (413, 413, false),
    (418, 400, false),
    (422, 422, false),
    (429, 502, false),
    (500, 504, true),
    (501, 502, false),
    (503, 504, true),
    // A yes without a place.
    (201, 504, true),
    (204, 504, true),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_status_means_one_thing() {
    for (says, told, open) in STATUSES {
        let fake = Fake::start().await;
        let rig = Rig::with(&settings(&fake, "park")).await;
        fake.turn(Mode::Says(says));
        let refused = rig.admit(&admission()).await.unwrap_err();
        assert_eq!(refused.kind().face().status, told, "{says}");
        assert_eq!(!staged_rows(&rig).await.is_empty(), open, "{says}");
        assert_eq!((fake.writes(), recorded(&rig).await), (1, (0, 0)), "{says}: neither followed nor repeated");
    }
}

fn acceptor(folder: &Path) -> TlsAcceptor {
    let certificates = |name: &str| CertificateDer::pem_file_iter(folder.join(name)).unwrap().map(Result::unwrap);
    let mut roots = RootCertStore::empty();
    certificates("ca.pem").for_each(|it| roots.add(it).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates("server.pem").collect(),
            PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap(),
        );
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_shows_a_certificate_and_trusts_what_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ours", "theirs"] {
        let path = folder.path().join(name).display().to_string();
        assert!(sluice(&["keys", "tls", &path, "--client", "gateway"], b"").status.success());
    }
    let token = folder.path().join("token");
    std::fs::write(&token, "secret").unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (ca, client, status) in
        [("ours/ca.pem", "ours", 200), ("theirs/ca.pem", "ours", 502), ("ours/ca.pem", "theirs", 504)]
    {
        let fake = Fake::start_with(Some(acceptor(&folder.path().join("ours")))).await;
        let tls = format!(
            "ca_file = \"{}\"\nclient_cert_file = \"{}\"\nclient_key_file = \"{}\"\ntoken_file = \"{}\"\n",
            path(ca),
            path(&format!("{client}/gateway.pem")),
            path(&format!("{client}/gateway.key")),
            token.display()
        );
        let rig = Rig::with(&format!("{}{tls}", settings(&fake, "client-ids").replace("http:", "https:"))).await;
        let answer = rig.admit(&admission()).await;
        let told = answer.as_ref().map_or_else(|error| error.kind().face().status.as_u16(), |_| 200);
        // A server that turns the certificate down may do so after TLS 1.3's handshake: that counts as unanswered.
        assert!(told == status || (status == 504 && told == 502), "{ca}, {client}: {told}");
        assert_eq!(fake.writes(), usize::from(status == 200), "{ca}, {client}");
        if status == 200 {
            assert_eq!(fake.held.lock().unwrap().last.2.as_deref(), Some("Bearer secret"));
        }
    }
}

/// A document may be signed: not a byte of it changes, it gets no id and no tag, and what became of it an operator says.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_goes_on_as_it_came() {
    let document = r#"{ "resourceType" : "Bundle", "type":"document","identifier":{"system":"urn:a","value":"1"},"timestamp":"2026-01-01T00:00:00Z", "entry":[{"fullUrl":"urn:uuid:00000000-0000-4000-8000-000000000009","resource":{"resourceType":"Composition","status":"final","type":{"text":"x"},"date":"2026-01-01","author":[{"display":"a"}],"title":"t"}}]}"#;
    for resolve in ["client-ids", "tag-probe", "park"] {
        let fake = Fake::start().await;
        let rig = Rig::with(&settings(&fake, resolve)).await;
        fake.turn(Mode::BreaksBefore);
        assert_eq!(rig.admit(document).await.unwrap_err().kind().face().status, 504, "{resolve}");
        let (method, path, _, body) = fake.held.lock().unwrap().last.clone();
        assert_eq!((&*method, &*path, &*body), ("POST", "Bundle", document.as_bytes()), "{resolve}");
        rig.gateway.recover().await.unwrap();
        assert_eq!((rig.gateway.parked(9).await.unwrap().0.len(), fake.writes()), (1, 1), "{resolve}");
    }
}

/// A patient who is neither in the unit nor known from before is looked up at the upstream.
#[tokio::test(flavor = "multi_thread")]
async fn a_patient_is_looked_up_at_the_upstream() {
    let observation = |patient: &str| {
        transaction(&[format!(
            r#"{{"resource":{{"resourceType":"Observation","status":"final","code":{{"text":"x"}},"subject":{{"reference":"Patient/{patient}"}}}},"request":{{"method":"POST","url":"Observation"}}}}"#
        )])
    };
    let fake = Fake::start().await;
    let patient = json!({"resourceType": "Patient", "identifier": [{"system": "urn:a", "value": "7"}]});
    fake.held.lock().unwrap().put("PUT", "Patient/old", patient);
    let rig = Rig::with(&settings(&fake, "client-ids")).await;
    let unknown = rig.admit(&observation("nobody")).await.unwrap_err();
    assert_eq!((unknown.kind().face().status.as_u16(), fake.writes()), (503, 0));
    let answer = rig.admit(&observation("old")).await.unwrap();
    let stored = rig.gateway.recorder.read_current("Observation", &answer.entries[0].id).await.unwrap().unwrap();
    let answer = rig.admit(&admission()).await.unwrap();
    let same = rig.gateway.recorder.read_current("Patient", &answer.entries[0].id).await.unwrap().unwrap();
    // By the identifier that the upstream's Patient carries.
    assert_eq!(stored.about.subjects, same.about.subjects);
}

/// What could not be recorded in one commit is refused before the upstream is told.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_to_record_is_not_sent() {
    let entry =
        r#"{"resource":{"resourceType":"Organization","name":"a"},"request":{"method":"POST","url":"Organization"}}"#;
    let fake = Fake::start().await;
    let rig = Rig::with(&settings(&fake, "client-ids").replace("2s", "60s")).await;
    let refused = rig.admit(&transaction(&vec![entry; 8_000])).await.unwrap_err();
    assert_eq!((refused.kind().face().status.as_u16(), fake.writes()), (413, 0));
    // The most that is sent can be recorded.
    let answer = rig.admit(&transaction(&vec![entry; 7_000])).await.unwrap();
    assert_eq!((answer.entries.len(), fake.writes()), (7_000, 1));
}
