//! Verification on vectors: real events, edits that name the link which has to break, and every byte flipped. The JavaScript
//! verifier is held to the same files (`node --test js/verify.test.mjs`).
//!
//! `SLUICE_BLESS=1` makes them anew of events that a run of the demo took out of a RabbitMQ; what an edit has to break is
//! written here, not found out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use sluice::publish::verify::{Link, Trust, verify};
use sluice_merkle::note::{KeyKind, KeyName, VerifierKey};

use crate::house::{lines, sluice};
use crate::rabbit::{self, USER};

/// The folders, and the event of the demo that each is made of: one that waited for the log alone, one for the ledger.
const VECTORS: [(&str, &str); 2] = [("log", "insurer-0001.json"), ("ledger", "monitor-0001.json")];

/// What a byte is changed by: another letter or digit, another case, no UTF-8 any more.
const MASKS: [u8; 3] = [0x01, 0x20, 0x80];

/// The links, by their digits in flips.txt.
const LINKS: [Link; 9] = [
    Link::Form,
    Link::Body,
    Link::Commitment,
    Link::Leaf,
    Link::Trust,
    Link::Checkpoint,
    Link::Inclusion,
    Link::Receipt,
    Link::Delivery,
];

/// A change of an event, or of whom is trusted: a text that stands once becomes another.
#[derive(Serialize, Deserialize)]
struct Edit {
    name: String,
    find: String,
    replace: String,
    /// Whether the trust file is changed instead of the event.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    trust: bool,
    /// Null where nothing breaks.
    broken_link: Option<String>,
}

#[expect(clippy::disallowed_methods, reason = "a test's switch, not a setting")]
fn is_blessing() -> bool {
    std::env::var_os("SLUICE_BLESS").is_some()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/verify").join(name)
}

fn read(folder: &Path, name: &str) -> String {
    let file = folder.join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn word(link: Link) -> String {
    serde_json::to_value(link).unwrap().as_str().unwrap().to_owned()
}

#[test]
fn the_vectors_hold() {
    if is_blessing() {
        bless();
    }
    for (name, _) in VECTORS {
        let folder = folder(name);
        let (event, trust_file) = (read(&folder, "event.json"), read(&folder, "trust.json"));
        let edits: Vec<Edit> = serde_json::from_str(&read(&folder, "edits.json")).unwrap();
        let broken: Vec<_> = edits.iter().filter_map(|it| it.broken_link.clone()).collect();
        for link in LINKS.into_iter().filter(|it| name == "ledger" || *it != Link::Receipt) {
            assert!(broken.contains(&word(link)), "{name}: no edit breaks {}", word(link));
        }
        for Edit { name: what, find, replace, trust, broken_link } in edits {
            let text = if trust { &trust_file } else { &event };
            assert_eq!(text.matches(&find).count(), 1, "{name}: {what}: {find}");
            let edited = text.replacen(&find, &replace, 1);
            let (event, trust_file) = if trust { (&event, &edited) } else { (&edited, &trust_file) };
            let verdict = verify(event.as_bytes(), &Trust::parse(trust_file.as_bytes()).unwrap());
            assert_eq!(verdict.broken_link.map(word), broken_link, "{name}: {what}");
            assert_eq!((verdict.verified, verdict.assurance.is_some()), (broken_link.is_none(), broken_link.is_none()));
        }
        let trust = Trust::parse(trust_file.as_bytes()).unwrap();
        assert_eq!(read(&folder, "flips.txt"), flips(&event, &trust), "{name}");
    }
}

/// For each mask a line: where each byte that is changed by it is found. All of them are.
fn flips(event: &str, trust: &Trust) -> String {
    let mut text = String::new();
    for mask in MASKS {
        let found = (0..event.len()).map(|at| {
            let mut changed = event.as_bytes().to_vec();
            changed[at] ^= mask;
            let link =
                verify(&changed, trust).broken_link.unwrap_or_else(|| panic!("byte {at} ^ {mask:02x} is believed"));
            char::from_digit(LINKS.iter().position(|it| *it == link).unwrap().try_into().unwrap(), 10).unwrap()
        });
        writeln!(text, "{mask:02x} {}", found.collect::<String>()).unwrap();
    }
    text
}

fn bless() {
    let house = tempfile::tempdir().unwrap();
    let kept = house.path().join("kept");
    let broker = rabbit::shared().url(USER);
    let output = sluice(&["demo", "--format", "json", "--amqp", &broker, "--keep", kept.to_str().unwrap()], b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(lines(&output)[0]["events"].as_u64() > Some(1));
    for (name, file) in VECTORS {
        let folder = folder(name);
        std::fs::create_dir_all(&folder).unwrap();
        let (event, trust) = (read(&kept.join("events"), file), read(&kept, "trust.json"));
        let edits = serde_json::to_string_pretty(&edits(&event, &trust)).unwrap();
        let flips = flips(&event, &Trust::parse(trust.as_bytes()).unwrap());
        for (name, text) in
            [("event.json", event), ("trust.json", trust), ("edits.json", edits + "\n"), ("flips.txt", flips)]
        {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }
}

type Raw<'t> = BTreeMap<String, &'t RawValue>;

/// What can be done to an event, and what has to come of it.
fn edits(event: &str, trust: &str) -> Vec<Edit> {
    let members: Raw<'_> = serde_json::from_str(event).unwrap();
    let proof: Raw<'_> = serde_json::from_str(members["proof"].get()).unwrap();
    let decision: Raw<'_> = serde_json::from_str(proof["decision"].get()).unwrap();
    let delivery: Raw<'_> = serde_json::from_str(members["delivery"].get()).unwrap();
    let number = |raw: &RawValue| raw.get().parse::<u64>().unwrap();
    let mut edits = Vec::new();
    let mut edit = |name: &str, broken: Option<Link>, find: String, replace: String| {
        let (name, broken_link) = (name.to_owned(), broken.map(word));
        edits.push(Edit { name, find, replace, trust: false, broken_link });
    };
    let of = |name: &str, raw: &RawValue| format!("\"{name}\":{}", raw.get());
    let version = || "\"specversion\":\"1.0\"".to_owned();

    // What changes nothing.
    edit("white space", None, version(), "\n \"specversion\" :\t\"1.0\"\r".into());
    edit("an escape that need not be", None, version(), "\"\\u0073pecversion\":\"1\\u002e0\"".into());
    let trace = "\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"";
    match members.get("traceparent") {
        None => edit("a trace", None, version(), format!("{},{trace}", version())),
        Some(old) => edit("another trace", None, of("traceparent", old), trace.into()),
    }

    // Form.
    let form = Some(Link::Form);
    edit("another version of CloudEvents", form, version(), "\"specversion\":\"1.1\"".into());
    edit("a member twice", form, version(), format!("{0},{0}", version()));
    edit("a comma too many", form, version(), format!("{},", version()));
    edit("a lone surrogate", form, version(), format!("{},\"a\":\"\\ud800\"", version()));
    edit("no id", form, of("id", members["id"]), "\"ID\":\"\"".into());
    edit("a source that is no text", form, of("source", members["source"]), "\"source\":1".into());
    let scheme = || "\"scheme\":1".to_owned();
    edit("a scheme with a fraction", form, scheme(), "\"scheme\":1.0".into());
    edit("a scheme beyond a byte", form, scheme(), "\"scheme\":257".into());
    edit("a member that proofs do not have", form, scheme(), "\"scheme\":1,\"more\":1".into());
    edit("no scheme", form, format!(",{}", scheme()), String::new());
    let index = || of("leafIndex", proof["leafIndex"]);
    edit("an index as text", form, index(), format!("\"leafIndex\":\"{}\"", proof["leafIndex"].get()));
    edit("an index below zero", form, index(), "\"leafIndex\":-1".into());
    edit("an index beyond 64 bits", form, index(), "\"leafIndex\":18446744073709551616".into());
    let r = || of("r", proof["r"]);
    edit("r in upper case", form, r(), r().to_uppercase().replacen('R', "r", 1));
    edit("r cut", form, r(), format!("{}\"", &r()[..r().len() - 3]));
    edit("no delivery", form, "\"delivery\":".into(), "\"tracestate\":".into());
    let (sequence, signature) = (delivery["sequence"].get(), delivery["signature"].get());
    edit(
        "a delivery as a list",
        form,
        of("delivery", members["delivery"]),
        format!("\"delivery\":[{sequence},{signature}]"),
    );
    edit(
        "a sequence with an exponent",
        form,
        of("sequence", delivery["sequence"]),
        format!("\"sequence\":{sequence}e0"),
    );

    // Body.
    let body = Some(Link::Body);
    edit("another time", body, of("time", members["time"]), "\"time\":\"1999-01-01T00:00:00Z\"".into());
    edit("another id", body, of("id", members["id"]), "\"id\":\"another\"".into());
    edit("a member more", body, version(), format!("{},\"more\":null", version()));
    edit(
        "another kind of data",
        body,
        "\"datacontenttype\":\"application/fhir+json\"".into(),
        "\"datacontenttype\":\"application/json\"".into(),
    );
    edit(
        "another notification",
        body,
        "\"valueCode\":\"event-notification\"".into(),
        "\"valueCode\":\"heartbeat\"".into(),
    );
    edit(
        "a decision about another event",
        body,
        of("event", decision["event"]),
        format!("\"event\":\"{}\"", "0".repeat(64)),
    );
    edit("a decision that is none", body, "\"kind\":\"decision\"".into(), "\"kind\":\"resource\"".into());

    // Commitment.
    let commitment = Some(Link::Commitment);
    edit("another scheme", commitment, scheme(), "\"scheme\":2".into());
    edit("another r", commitment, r(), format!("\"r\":\"{}\"", "1".repeat(64)));
    edit(
        "another commitment",
        commitment,
        of("commitment", proof["commitment"]),
        format!("\"commitment\":\"{}\"", "2".repeat(64)),
    );
    edit("another reason", commitment, of("rule", decision["rule"]), "\"rule\":\"implicit.permit\"".into());
    edit(
        "another subscriber",
        commitment,
        of("subscriber", decision["subscriber"]),
        "\"subscriber\":\"somebody\"".into(),
    );

    // Leaf, inclusion.
    let (leaf, inclusion) = (Some(Link::Leaf), Some(Link::Inclusion));
    edit("an index beyond the log", leaf, index(), "\"leafIndex\":9223372036854775807".into());
    edit("its neighbour's index", inclusion, index(), format!("\"leafIndex\":{}", number(proof["leafIndex"]) ^ 1));
    let path: Vec<String> = serde_json::from_str(proof["inclusion"].get()).unwrap();
    let path_of = |path: &[String]| format!("\"inclusion\":{}", serde_json::to_string(path).unwrap());
    let mut swapped = path.clone();
    swapped.swap(0, 1);
    edit("two hashes changed round", inclusion, path_of(&path), path_of(&swapped));
    edit("a hash less", inclusion, path_of(&path), path_of(&path[1..]));
    edit("a hash more", inclusion, path_of(&path), path_of(&[&path[..], &path[..1]].concat()));
    edit("no hashes", inclusion, path_of(&path), path_of(&[]));
    let loose = path[0].trim_end_matches('=').to_owned();
    edit("a hash without padding", inclusion, format!("\"{}\"", path[0]), format!("\"{loose}\""));

    // Checkpoint, and who signed it.
    let checkpoint = Some(Link::Checkpoint);
    let note: String = serde_json::from_str(proof["checkpoint"].get()).unwrap();
    let note_of = |note: &str| format!("\"checkpoint\":{}", serde_json::to_string(note).unwrap());
    let mut lines: Vec<&str> = note.lines().collect();
    let (origin, size) = (lines[0].to_owned(), lines[1].parse::<u64>().unwrap());
    let mut noted = |name: &str, broken, changed: String| edit(name, broken, note_of(&note), note_of(&changed));
    noted("a size of one more", checkpoint, note.replacen(&format!("\n{size}\n"), &format!("\n{}\n", size + 1), 1));
    noted(
        "a size with a zero before it",
        checkpoint,
        note.replacen(&format!("\n{size}\n"), &format!("\n0{size}\n"), 1),
    );
    noted("another institution's log", checkpoint, note.replacen(&origin, "elsewhere.example/log", 1));
    noted("another log of the institution", Some(Link::Trust), note.replacen(&origin, &format!("{origin}2"), 1));
    noted("a signature twice", checkpoint, format!("{note}{}\n", lines[4]));
    noted("a signature of a stranger", checkpoint, format!("{note}\u{2014} stranger.example AAAAAAE=\n"));
    noted("no signature", checkpoint, format!("{}\n\n", lines[..3].join("\n")));
    noted("no end", checkpoint, note.trim_end().to_owned());
    lines[2] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    noted("another root", checkpoint, lines.join("\n") + "\n");
    let tenant = "elsewhere.example";
    edit(
        "a decision of another tenant",
        commitment,
        of("tenant", decision["tenant"]),
        format!("\"tenant\":\"{tenant}\""),
    );

    // Receipt.
    let broken = Some(Link::Receipt);
    edit("a receipt left out", form, format!(",{}", of("receipt", proof["receipt"])), String::new());
    if proof["receipt"].get() == "null" {
        let none = || "\"receipt\":null".to_owned();
        let made = "\"receipt\":{\"assurance\":\"self\",\"beat\":1,\"position\":1,\"text\":\"\",\"time\":1}";
        edit("a receipt that nobody waited for", broken, none(), made.into());
        edit("a receipt without members", form, none(), "\"receipt\":{}".into());
        edit("a receipt as a list", form, none(), "\"receipt\":[\"self\",1,1,1,\"\"]".into());
        edit("a decision that waited", commitment, "\"wait\":\"log\"".into(), "\"wait\":\"ledger\"".into());
    } else {
        let receipt: Raw<'_> = serde_json::from_str(proof["receipt"].get()).unwrap();
        let text: String = serde_json::from_str(receipt["text"].get()).unwrap();
        edit("no receipt", broken, of("receipt", proof["receipt"]), "\"receipt\":null".into());
        edit("a decision that did not wait", commitment, "\"wait\":\"ledger\"".into(), "\"wait\":\"log\"".into());
        for name in ["beat", "position", "time"] {
            let more = format!("\"{name}\":{}", number(receipt[name]) + 1);
            edit(&format!("another {name} of the anchor"), broken, of(name, receipt[name]), more);
        }
        edit(
            "more assurance than there is",
            broken,
            of("assurance", receipt["assurance"]),
            "\"assurance\":\"fabric\"".into(),
        );
        let text_of = |text: &str| format!("\"text\":{}", serde_json::to_string(text).unwrap());
        let mut texted = |name: &str, changed: String| edit(name, broken, text_of(&text), text_of(&changed));
        texted("a receipt of another kind", text.replacen("@v1", "@v2", 1));
        texted(
            "a receipt without the entry",
            text.split('\n').filter(|it| !it.starts_with("extra ")).collect::<Vec<_>>().join("\n"),
        );
        texted("a receipt of another place", text.replacen("index ", "index 1", 1));
        texted("a receipt that a stranger signed as well", format!("{text}\u{2014} stranger.example AAAAAAE=\n"));
        texted("a receipt that is cut", text[..text.len() - 1].to_owned());
    }

    // Delivery.
    let delivered = Some(Link::Delivery);
    let more = format!("\"sequence\":{}", number(delivery["sequence"]) + 1);
    edit("another number among the subject's", delivered, of("sequence", delivery["sequence"]), more);
    let other = signature.replacen("==", "", 1);
    edit("a signature without padding", delivered, signature.into(), other);
    edit("a signature of something else", delivered, signature.into(), format!("\"{}A==\"", "A".repeat(85)));
    edits.extend(of_trust(trust, proof["receipt"].get() != "null"));
    edits
}

/// What can be done to whom is trusted.
fn of_trust(trust: &str, on_ledger: bool) -> Vec<Edit> {
    let file: Value = serde_json::from_str(trust).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (log, event, ledger) = (&file["logs"][0], &file["events"][0], &file["ledger"]);
    let stranger =
        |origin: &Value| VerifierKey::new(KeyName::new(text(origin)).unwrap(), KeyKind::Ed25519, [7; 32]).to_string();
    let mut edits = Vec::new();
    let mut edit = |name: &str, broken: Option<Link>, find: String, replace: String| {
        let (name, broken_link) = (name.to_owned(), broken.map(word));
        edits.push(Edit { name, find, replace, trust: true, broken_link });
    };
    edit("another key of the log", Some(Link::Checkpoint), text(&log["key"]), stranger(&log["origin"]));
    edit(
        "another source",
        Some(Link::Trust),
        format!("\"{}\"", text(&event["source"])),
        "\"https://elsewhere.example\"".into(),
    );
    let other = format!("\"{}=\"", "A".repeat(43));
    edit("another key of the source", Some(Link::Delivery), format!("\"{}\"", text(&event["key"])), other);
    let broken = on_ledger.then_some(Link::Receipt);
    edit("another key of the ledger", broken, text(&ledger["key"]), stranger(&ledger["origin"]));
    let start = trust.find("\"ledger\":").unwrap();
    let end = start + trust[start..].find('}').unwrap() + 1;
    edit("no ledger", on_ledger.then_some(Link::Trust), trust[start..end].into(), "\"ledger\": null".into());
    edits
}
