use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { piece_bytes_max: 1 << 16, entries_max: 100, depth_max: 16 };

fn split(body: &[u8], cut: usize) -> Result<Vec<Piece>, SplitError> {
    let mut splitter = Splitter::new(LIMITS);
    let mut pieces = Vec::new();
    for chunk in body.chunks(cut.max(1)) {
        splitter.feed(&Bytes::copy_from_slice(chunk), &mut pieces)?;
    }
    splitter.finish()?;
    Ok(pieces)
}

const BUNDLE: &str = "{\"resourceType\" : \"Bundle\",\n \"type\":\"batch\", \"total\": 2,\n  \"entry\":[{\"a\":\"}]\\\"\"},\n {\"b\":[1,{}]}]}\n";

#[test]
fn pieces_carry_their_place() {
    let pieces = split(BUNDLE.as_bytes(), usize::MAX).unwrap();
    assert_eq!(pieces.len(), 5);
    assert_eq!(
        pieces[4],
        Piece::Entry { index: 1, text: Bytes::from_static(b"{\"b\":[1,{}]}"), at: Position { line: 4, column: 2 } }
    );
    let Piece::Member { name, text, at } = &pieces[2] else { panic!() };
    assert_eq!((name.as_str(), &text[..], *at), ("total", &b"2"[..], Position { line: 2, column: 27 }));
}

#[test]
fn faults_are_named_where_they_stand() {
    for (body, want) in [
        ("[]", "1:1 expected a JSON object"),
        ("{\"a\":1,\"a\":2}", "1:8 a member of this name stands in the Bundle already"),
        ("{\"a\":1,\"\\u0061\":2}", "1:8 a member of this name stands in the Bundle already"),
        ("{\"entry\":{}}", "1:10 expected an array of entries"),
        ("{\"entry\":[1]}", "1:11 expected an entry or ]"),
        ("{\"entry\":[{},]}", "1:14 expected an entry"),
        ("{\"a\":1}x", "1:8 expected nothing after the Bundle"),
        ("{\"a\":[[[[[[[[[[[[[[[[[", "1:22 nesting is limited"),
        ("{\"entry\":[{\"a\":\"", "1:17 the body ends before the Bundle does"),
        ("", "1:1 the body ends before the Bundle does"),
    ] {
        let error = split(body.as_bytes(), usize::MAX).unwrap_err();
        assert_eq!(format!("{}:{} {error}", error.at().line, error.at().column), want, "{body}");
    }
}

proptest! {
    #[test]
    fn where_the_chunks_are_cut_does_not_matter(cut in 1usize..40) {
        prop_assert_eq!(split(BUNDLE.as_bytes(), cut).unwrap(), split(BUNDLE.as_bytes(), usize::MAX).unwrap());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 1usize..20) {
        let _ = split(&bytes, cut);
    }

    #[test]
    fn a_bundle_splits_as_serde_json_splits_it(values in proptest::collection::vec("[a-z\"\\\\{}\\[\\] é]{0,12}", 0..8)) {
        let entries: Vec<_> = values.iter().map(|v| serde_json::json!({ "v": v, "w": [v, {"x": v}] })).collect();
        let body = serde_json::to_vec_pretty(&serde_json::json!({ "type": "batch", "entry": entries })).unwrap();
        let found: Vec<serde_json::Value> = split(&body, 7).unwrap().into_iter().filter_map(|piece| match piece {
            Piece::Entry { text, .. } => Some(serde_json::from_slice(&text).unwrap()),
            Piece::Member { .. } => None,
        }).collect();
        prop_assert_eq!(found, entries);
    }
}
