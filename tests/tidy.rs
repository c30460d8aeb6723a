//! What the compiler does not hold: the arrows between the rooms, their order, and the size and shape of files.
//!
//! Reads the sources as text. A room is a top-level module of src/; its rank is its place in src/lib.rs, and an arrow may
//! only point to a lower one. Rooms of one level, the adapters, do not see each other but for the pairs named here.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The rooms by level, low to high. Within a level of one line per room, the order is that of src/lib.rs.
const LEVELS: &[&[&str]] = &[
    &["error"],
    &["config"],
    &["observe"],
    &["wire"],
    // The adapters stand beside each other.
    &["keys", "store", "ledger", "broker", "terminology"],
    // The stages, in the order of the flow.
    &["ingest"],
    &["normalize"],
    &["check"],
    &["consent"],
    &["stage"],
    &["forward"],
    &["record"],
    &["route"],
    &["anchor"],
    &["publish"],
    &["disclose"],
    &["gateway"],
    &["serve"],
    &["cli"],
];

/// Arrows between rooms of one level, each with its reason.
const SIDEWAYS: &[(&str, &str, &str)] = &[
    ("store", "keys", "the keystore is wrapped by the master key, the vault seals under keys that it derives"),
    ("ledger", "keys", "operations and checkpoints are signed by the institution's key"),
    ("broker", "store", "the feed is rows of the store"),
];

/// Lines of the longest source file, tests included; generated data is excepted by name.
const LINES_MAX: usize = 800;
/// Lines of the median source file.
const MEDIAN_MAX: usize = 200;
/// Lines that nineteen of twenty source files do not exceed.
const P95_MAX: usize = 450;
/// Files that a program wrote: neither length nor style is theirs to choose.
const GENERATED: &[&str] = &["crates/fhir/src/resource_type/table.rs"];

/// Text that no source file may hold, with the reason. Spelled in two halves, so that this file passes too.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("/wor", "k/", "a path of one machine"),
    ("/roo", "t/", "a path of one machine"),
    ("todo", "!(", "what is not there yet is not called"),
    ("unimple", "mented!(", "what is not there yet is not called"),
    ("#[ign", "ore]", "a skipped test says why: #[ign\u{61}ore = \"…\"]"),
    ("allow(", "unsafe_code", "the house is safe code throughout"),
];

/// One source file: its path from the root of the project, and its text.
struct File {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every `.rs` file below the folders, in the order of their paths.
fn sources(folders: &[&str]) -> Vec<File> {
    let mut files = Vec::new();
    for folder in folders {
        let mut open = vec![root().join(folder)];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let path = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
                    files.push(File { path, text });
                }
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// The module path of a file below `src`: `src/store/embedded.rs` and `src/store/embedded/mod.rs` are store, embedded.
fn module_of(path: &str) -> Vec<String> {
    let (_, inner) = path.split_once("src/").unwrap();
    let mut parts: Vec<String> = inner.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// Lines of code without comments, strings' contents, and without the tests at the end of the file.
fn code(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        if line.trim() == "#[cfg(test)]" {
            // Tests stand last in a file; a lone `#[cfg(test)] mod tests;` or item is followed by what is looked at again.
            code.push_str("\u{0}\n");
            continue;
        }
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    // Cut an inline test module; keep what follows any other test-only item.
    match code.find("\u{0}\nmod tests {") {
        Some(start) => code[..start].to_owned(),
        None => code.replace('\u{0}', ""),
    }
}

/// Every path that starts at one of `starts` and is used in the code, as the names after it: `crate::{a, b::C}` gives a
/// and b.
fn heads(code: &str, start: &str) -> BTreeSet<String> {
    let mut heads = BTreeSet::new();
    for (at, _) in code.match_indices(start) {
        // `super::super::` is looked at as such, not as `super::`; and no word may run into the start.
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':') {
            continue;
        }
        let rest = &code[at + start.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0_i32;
            let mut word = String::new();
            for character in group.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        heads.insert(head(&word));
                        word.clear();
                        continue;
                    }
                    _ => {}
                }
                if depth == 0 {
                    word.push(character);
                }
            }
            heads.insert(head(&word));
        } else {
            heads.insert(head(rest));
        }
    }
    heads.remove("");
    heads
}

fn head(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn rank(room: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.contains(&room))
}

/// Why `from` may not name `to`, if it may not.
fn forbidden_arrow(from: &str, to: &str) -> Option<String> {
    let (Some(from_rank), Some(to_rank)) = (rank(from), rank(to)) else {
        return Some(format!("{from} or {to} has no rank in tests/tidy.rs"));
    };
    let sideways = SIDEWAYS.iter().any(|(a, b, _)| (*a, *b) == (from, to));
    (from != to && to_rank >= from_rank && !sideways).then(|| format!("{from} must not see {to}"))
}

#[test]
fn every_arrow_points_down() {
    let mut wrong = Vec::new();
    for file in sources(&["src"]) {
        let module = module_of(&file.path);
        // lib.rs lists the rooms, and main.rs stands above them all.
        let Some(room) = module.first() else { continue };
        for other in heads(&code(&file.text), "crate::") {
            // A crate-level macro or the crate's own re-export has no rank either, and there are none.
            if let Some(reason) = forbidden_arrow(room, &other) {
                wrong.push(format!("{}: {reason}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_rooms_are_ranked_in_the_order_of_the_flow() {
    let text = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.split(';').next()).collect();
    let ranked: Vec<&str> = LEVELS.iter().flat_map(|level| level.iter().copied()).collect();
    assert_eq!(declared, ranked, "src/lib.rs and the ranks in tests/tidy.rs differ");
    for (from, to, _) in SIDEWAYS {
        assert_eq!(rank(from), rank(to), "{from} -> {to} is not sideways");
    }
}

#[test]
fn the_arrows_are_seen() {
    let seen = |text: &str| heads(&code(text), "crate::").into_iter().collect::<Vec<_>>();
    assert_eq!(seen("use crate::store::{Row, Table};"), ["store"]);
    assert_eq!(seen("use crate::{error::{A, B}, keys::Keys,\n store};"), ["error", "keys", "store"]);
    assert_eq!(seen("let x = crate::ledger::root(); // crate::cli::x"), ["ledger"]);
    assert_eq!(seen("a\n#[cfg(test)]\nmod tests {\n use crate::cli::x;\n}\n"), [""; 0]);
    assert_eq!(seen("#[cfg(test)]\nmod tests;\nuse crate::store::Row;"), ["store"]);
    assert!(forbidden_arrow("store", "ingest").is_some());
    assert!(forbidden_arrow("store", "ledger").is_some());
    assert!(forbidden_arrow("store", "nowhere").is_some());
    assert!(forbidden_arrow("store", "keys").is_none());
    assert!(forbidden_arrow("cli", "gateway").is_none());
}

/// What the children of each module use of each other, as `super::child` or by their full path.
fn children_arrows(files: &[File]) -> BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>> {
    let modules: BTreeSet<(String, Vec<String>)> =
        files.iter().map(|file| (crate_of(&file.path), module_of(&file.path))).collect();
    let mut arrows: BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for file in files {
        // Tests may look anywhere in their crate.
        if file.path.ends_with("tests.rs") {
            continue;
        }
        let module = module_of(&file.path);
        let code = code(&file.text);
        for depth in 1..=module.len() {
            // The child of `parent` that this file belongs to, and how the file names the parent's other children.
            let (parent, child) = (&module[..depth - 1], &module[depth - 1]);
            let by_super = "super::".repeat(module.len() - depth + 1);
            let by_path =
                ["crate"].into_iter().chain(parent.iter().map(String::as_str)).collect::<Vec<_>>().join("::") + "::";
            for start in [by_super, by_path] {
                for other in heads(&code, &start) {
                    let mut sibling = parent.to_vec();
                    sibling.push(other.clone());
                    if other != *child && modules.contains(&(crate_of(&file.path), sibling)) {
                        let mut key = vec![crate_of(&file.path)];
                        key.extend_from_slice(parent);
                        arrows.entry(key).or_default().entry(child.clone()).or_default().insert(other);
                    }
                }
            }
        }
    }
    arrows
}

fn crate_of(path: &str) -> String {
    path.split("src/").next().unwrap_or_default().trim_end_matches('/').to_owned()
}

/// A cycle in the graph, if there is one, as the names on it.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        node: &str,
        graph: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|other| other == node) {
            return Some(way[start..].to_vec());
        }
        if !done.contains(node) {
            way.push(node.to_owned());
            for next in graph.get(node).into_iter().flatten() {
                if let Some(found) = visit(next, graph, way, done) {
                    return Some(found);
                }
            }
            way.pop();
            done.insert(node.to_owned());
        }
        None
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|node| visit(node, graph, &mut Vec::new(), &mut done))
}

#[test]
fn no_modules_stand_in_a_cycle() {
    let mut wrong = String::new();
    for (parent, graph) in
        children_arrows(&sources(&["src", "crates/fhir/src", "crates/merkle/src", "crates/typed/src"]))
    {
        if let Some(found) = cycle(&graph) {
            writeln!(wrong, "{}: {} -> {}", parent.join("::"), found.join(" -> "), found[0]).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_cycle_is_seen() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let files = [
        file("src/store/a.rs", "use super::b::X;"),
        file("src/store/b.rs", "use crate::store::c::Y;"),
        file("src/store/c/mod.rs", "mod d;"),
        file("src/store/c/d.rs", "use super::super::a::Z;"),
    ];
    let arrows = children_arrows(&files);
    let found = arrows.values().find_map(cycle).unwrap();
    assert_eq!(found, ["a", "b", "c"]);
    assert!(children_arrows(&files[..3]).values().all(|graph| cycle(graph).is_none()));
}

#[test]
fn files_are_small() {
    let mut lengths = Vec::new();
    let mut wrong = String::new();
    for file in sources(&["src", "crates", "tests/it"]) {
        if GENERATED.contains(&file.path.as_str()) {
            continue;
        }
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            writeln!(wrong, "{}: {lines} lines, at most {LINES_MAX}", file.path).unwrap();
        }
        lengths.push(lines);
    }
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    let p95 = lengths[lengths.len() * 95 / 100];
    println!("{} files, median {median} lines, p95 {p95}, longest {}", lengths.len(), lengths[lengths.len() - 1]);
    assert!(wrong.is_empty(), "{wrong}");
    assert!(median <= MEDIAN_MAX, "median {median} lines, at most {MEDIAN_MAX}");
    assert!(p95 <= P95_MAX, "p95 {p95} lines, at most {P95_MAX}");
}

#[test]
fn every_module_opens_with_what_it_is() {
    let mut wrong = String::new();
    for file in sources(&["src", "crates", "tests/it"]) {
        let first = file.text.lines().next().unwrap_or_default();
        // The tests of a module are told by the module; a room without a line of code has nothing to tell yet.
        if file.path.ends_with("/tests.rs") || file.text.lines().count() <= 1 {
            continue;
        }
        let says = first.strip_prefix("//! ").is_some_and(|text| text.split(' ').count() >= 2);
        if !says {
            writeln!(wrong, "{}: expected a first line //! that says what the module is", file.path).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn nothing_forbidden_is_written() {
    let mut wrong = String::new();
    for file in sources(&["src", "crates", "tests/it"]) {
        for (index, line) in file.text.lines().enumerate() {
            for (start, end, reason) in FORBIDDEN {
                if line.contains(&format!("{start}{end}")) {
                    writeln!(wrong, "{}:{}: {reason}", file.path, index + 1).unwrap();
                }
            }
            // A mark of work to be done says what and why, in a sentence.
            let mark = ["TO", "DO"].concat();
            if let Some((_, rest)) = line.split_once(&mark)
                && rest.split_whitespace().count() < 4
            {
                writeln!(wrong, "{}:{}: a {mark} without its reason", file.path, index + 1).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_crate_refuses_unsafe_code() {
    let manifest = |path: &Path| -> toml::Table { std::fs::read_to_string(path).unwrap().parse().unwrap() };
    let root_manifest = manifest(&root().join("Cargo.toml"));
    assert_eq!(root_manifest["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    for member in root_manifest["workspace"]["members"].as_array().unwrap() {
        let path = root().join(member.as_str().unwrap()).join("Cargo.toml");
        assert_eq!(manifest(&path)["lints"]["workspace"].as_bool(), Some(true), "{}", path.display());
    }
    assert_eq!(root_manifest["lints"]["workspace"].as_bool(), Some(true));
}

#[test]
fn the_pure_crates_stay_pure() {
    let mut wrong = String::new();
    for file in sources(&["crates/fhir/src", "crates/merkle/src"]) {
        for reach in ["std::net", "std::env", "SystemTime::now", "Instant::now", "std::thread", "tokio"] {
            if code(&file.text).contains(reach) {
                writeln!(wrong, "{}: {reach} has no place in a pure crate", file.path).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn only_config_reads_the_environment() {
    // A test's switch, such as the one that writes cases anew, is no setting.
    for file in sources(&["src"]).iter().filter(|it| !it.path.ends_with("/tests.rs")) {
        let reads = code(&file.text).contains("std::env::var");
        assert!(!reads || file.path.starts_with("src/config/"), "{}", file.path);
    }
}
