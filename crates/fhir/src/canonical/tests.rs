use bytes::Bytes;

use super::*;
use crate::tree::{Limits, Tree};

fn tree(text: &str) -> Tree {
    Tree::parse(Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).unwrap()
}

fn canonical(text: &str) -> String {
    String::from_utf8(to_vec(tree(text).root())).unwrap()
}

#[test]
fn the_form_is_the_one_described() {
    for (given, expected) in [
        (r#" { "b" : 1.00 , "a" : [ null , true ] } "#, r#"{"a":[null,true],"b":1.00}"#),
        (r#"{"id":"1","active":false,"zzz":{},"aaa":[]}"#, r#"{"aaa":[],"active":false,"id":"1","zzz":{}}"#),
        (r#""\u0041\/\u00e9\ud83d\ude00\u001F\u000a\u0022\u005c""#, r#""A/é😀\u001f\n\"\\""#),
        (r#"{"\u0062":1,"a\n":2,"a":3}"#, r#"{"a":3,"a\n":2,"b":1}"#),
        ("{\"€\":1,\"😀\":2,\"\u{fb33}\":3,\"\\r\":4}", "{\"\\r\":4,\"€\":1,\"\u{fb33}\":3,\"😀\":2}"),
        ("[9007199254740993,1E2,-0,-0.0,0e-1]", "[9007199254740993,1E2,-0,-0.0,0e-1]"),
        (r#""\u007f \u2028""#, "\"\u{7f} \u{2028}\""),
        (r#""\"\\\b\t\n\f\r\u0000\u001f""#, r#""\"\\\b\t\n\f\r\u0000\u001f""#),
        ("7", "7"),
    ] {
        assert_eq!(canonical(given), expected);
        assert_eq!(canonical(expected), expected, "the form of the form is itself");
    }
}

#[test]
fn what_is_canonical_is_known_to_be() {
    for (text, expected) in [
        (r#"{"active":true,"id":"a\nb","name":[{"family":"x"},{}]}"#, true),
        (r#"{"id":"1","active":true}"#, false),
        (r#"{"id": "1"}"#, false),
        (r#"{"id":"\u0041"}"#, false),
        (r#"{"id":"\/"}"#, false),
        (r#"{"name":[{"id":"1","family":"x"}]}"#, false),
    ] {
        let tree = tree(text);
        assert_eq!(tree.root().is_verbatim(), expected, "{text}");
        assert_eq!(canonical(text) == text, expected, "{text}");
    }
    // White space outside a value does not touch it.
    let tree = tree(r#"{"id": {"a":1}, "b": [ {"c":[]} ]}"#);
    assert!(tree.root().member("id").unwrap().is_verbatim());
    assert!(!tree.root().member("b").unwrap().is_verbatim());
    assert!(tree.root().find(&["b"]).next().unwrap().is_verbatim());
}

#[test]
fn the_digest_is_over_the_form() {
    let tree = tree(r#"{"b": 1, "a": "x"}"#);
    assert_eq!(digest(tree.root()).0, <[u8; 32]>::from(Sha256::digest(br#"{"a":"x","b":1}"#)));
    assert_eq!(digest(tree.root()).to_string().len(), 64);
}

#[test]
fn large_values_are_hashed_in_pieces() {
    let items: Vec<String> = (0..20_000).map(|index| format!("\"{index}\"")).collect();
    let text = format!(r#"{{"id": "{}", "name": [{}]}}"#, "x".repeat(40_000), items.join(", "));
    let expected: [u8; 32] = Sha256::digest(canonical(&text).as_bytes()).into();
    assert_eq!(digest(tree(&text).root()).0, expected);
}

#[test]
fn evidence_leaves_out_what_a_server_assigns_and_no_more() {
    let same = |a: &str, b: &str| evidence_digest(tree(a).root()) == evidence_digest(tree(b).root());
    let bare = r#"{"resourceType":"Patient","active":true}"#;
    assert!(same(bare, r#"{"resourceType":"Patient","id":"7","active":true}"#));
    assert!(same(bare, r#"{"resourceType":"Patient","meta":{"versionId":"7","lastUpdated":"2020"},"active":true}"#));
    assert!(same(bare, r#"{"active":true,"meta":{},"resourceType":"Patient"}"#));
    let profiled = r#"{"resourceType":"Patient","meta":{"profile":["x"]},"active":true}"#;
    assert!(same(profiled, r#"{"resourceType":"Patient","meta":{"versionId":"1","profile":["x"]},"active":true}"#));
    assert!(!same(profiled, bare));
    assert!(!same(bare, r#"{"resourceType":"Patient","active":true,"contained":[{"id":"1"}]}"#));
    let inner =
        |id: &str| format!(r#"{{"resourceType":"List","contained":[{{"id":"{id}","meta":{{"versionId":"{id}"}}}}]}}"#);
    assert!(!same(&inner("1"), &inner("2")));
    // Already canonical, so that the fast path would copy it whole.
    assert!(same(r#"{"active":1}"#, r#"{"active":1,"id":"1","meta":{"versionId":"1"}}"#));
    assert_eq!(evidence_digest(tree(bare).root()), digest(tree(bare).root()));
    // The same within a Bundle, where the resource is not the root of the tree.
    let bundle = tree(r#"{"entry":[{"resource":{"resourceType":"Patient","id":"7","active":true}}]}"#);
    let resource = bundle.root().find(&["entry", "resource"]).next().unwrap();
    assert_eq!(evidence_digest(resource), digest(tree(bare).root()));
}

#[test]
fn a_bundle_is_over_its_entries() {
    let of = |text: &str| bundle_digest(tree(text).root());
    let bundle = r#"{"resourceType":"Bundle","type":"batch","entry":[{"fullUrl":"a"},{"fullUrl":"b"}]}"#;
    assert_eq!(
        of(bundle),
        of(r#"{"entry":[{"fullUrl":"a"}, {"fullUrl":"b"}],"type":"batch","resourceType":"Bundle"}"#)
    );
    assert_ne!(of(bundle), of(&bundle.replace("batch", "transaction")));
    assert_ne!(of(bundle), of(&bundle.replace(r#""a""#, r#""c""#)));
    assert_ne!(of(bundle), of(r#"{"resourceType":"Bundle","type":"batch","entry":[{"fullUrl":"b"},{"fullUrl":"a"}]}"#));
    assert_ne!(of(r#"{"entry":[]}"#), of("{}"));
    assert_ne!(of(r#"{"entry":{}}"#), of("{}"));
    let mut digests = BundleDigest::default();
    digests.entry(digest(tree(r#"{"fullUrl":"a"}"#).root()));
    digests.entry(digest(tree(r#"{"fullUrl":"b"}"#).root()));
    let rest = tree(r#"{"resourceType":"Bundle","type":"batch"}"#);
    assert_eq!(digests.finish(digest(rest.root())), of(bundle));
}
