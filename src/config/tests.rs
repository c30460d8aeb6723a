//! The settings' tests: the committed example and schema in step with the types, and what each mistake is told.

use std::fmt::Write as _;
use std::path::Path;

use super::*;

const EXAMPLE: &str = "config/sluice.toml";
const SCHEMA: &str = "config/sluice.schema.json";
const CASES: &str = "tests/cases/config";

/// Writes what the tests expect, instead of comparing with it.
#[expect(clippy::disallowed_methods, reason = "a test's switch, not a setting")]
fn bless() -> bool {
    std::env::var_os("SLUICE_BLESS").is_some()
}

fn example() -> String {
    std::fs::read_to_string(EXAMPLE).unwrap()
}

/// `text` as JSON, for the schema.
fn json(text: &str) -> serde_json::Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

fn schema_errors(text: &str) -> Vec<String> {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    validator.iter_errors(&json(text)).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// The example with every commented key written out.
fn uncommented() -> String {
    let is_key = |line: &str| {
        let name = line.split(" = ").next().unwrap_or_default().trim_matches('"');
        line.starts_with('[') || (line.contains(" = ") && !name.is_empty() && !name.contains([' ', ':']))
    };
    example()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if is_key(key) => key,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_example_is_good() {
    let config = Config::load_without_files(Path::new(EXAMPLE)).unwrap();
    assert_eq!(config.tenant.id, "hospital.example");
    assert_eq!(config.log.origin, "hospital.example/log");
    assert_eq!(config.keys.log_file.path(), Path::new("config/keys/log.pem"));
    assert_eq!(config.limits.request_timeout, std::time::Duration::from_mins(10));
    assert_eq!(schema_errors(&example()), [""; 0]);
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let text = uncommented();
    assert_eq!(schema_errors(&text), [""; 0]);
    // Every key that the schema knows stands in the example, in its table.
    let (written, schema) = (json(&text), schema());
    let mut missing = Vec::new();
    every_key(&schema, &schema, &written, "", &mut missing);
    assert_eq!(missing, [""; 0]);
    // Where the example shows a key that has a default, it shows the default.
    let mut other = Vec::new();
    let default = serde_json::to_value(raw::Raw::default()).unwrap();
    every_default(&default, &written, "", &mut other);
    assert_eq!(other, [""; 0]);
}

/// Collects the properties of `schema` that `written` does not hold.
fn every_key(
    root: &serde_json::Value,
    schema: &serde_json::Value,
    written: &serde_json::Value,
    at: &str,
    missing: &mut Vec<String>,
) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    if let Some(items) = schema.get("items") {
        return every_key(root, items, &written[0], at, missing);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{at}{name}");
        assert!(property["description"].is_string(), "{path} is not described");
        match written.get(name) {
            Some(value) => every_key(root, property, value, &format!("{path}."), missing),
            None => missing.push(path),
        }
    }
}

/// Collects the keys whose written value is not their default.
fn every_default(default: &serde_json::Value, written: &serde_json::Value, at: &str, other: &mut Vec<String>) {
    for (name, default) in default.as_object().into_iter().flatten() {
        let (path, written) = (format!("{at}.{name}"), &written[name]);
        if default.is_object() {
            every_default(default, written, &path, other);
        } else if !default.is_null() && !default.is_array() && default != written {
            other.push(path);
        }
    }
}

#[test]
fn the_schema_is_in_step() {
    let generated = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if bless() {
        std::fs::write(SCHEMA, &generated).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(SCHEMA).unwrap(),
        generated,
        "run the tests with SLUICE_BLESS=1 to write it anew"
    );
}

#[test]
fn the_schema_refuses_what_loading_refuses_by_form() {
    for text in ["[tenant]\nid = 1\nbase_url = \"https://a/b\"", "[limits]\nbody_bytes_max = \"5\"", "unknown = 1", ""]
    {
        assert_ne!(schema_errors(text), [""; 0], "{text}");
    }
}

/// Each `NAME.toml` with what is told of it in `NAME.errors`; an empty list is a good file.
#[test]
fn every_mistake_is_told_at_its_place() {
    let mut seen = 0;
    for entry in std::fs::read_dir(CASES).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let mut told = String::new();
        for error in Config::load_without_files(&path).err().unwrap_or_default() {
            let ConfigError { line, column, key, expected, .. } = error;
            writeln!(told, "{line}:{column} {key}: {expected}").unwrap();
        }
        let expected = path.with_extension("errors");
        if bless() {
            std::fs::write(&expected, &told).unwrap();
        }
        assert_eq!(told, std::fs::read_to_string(&expected).unwrap(), "{}", path.display());
        assert!(!told.contains("hunter2"), "{} repeats a secret", path.display());
        seen += 1;
    }
    assert!(seen >= 15, "{seen} cases");
}

#[test]
fn files_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sluice.toml");
    let text = "[tenant]\nid = \"a\"\nbase_url = \"https://a.example/fhir\"\n[keys]\nmaster_file = \"absent\"\n";
    std::fs::write(&file, text).unwrap();
    assert!(Config::load_without_files(&file).is_ok());
    let errors = Config::load(&file).unwrap_err();
    let told: Vec<_> = errors.iter().map(|error| (error.line, error.key.as_str())).collect();
    assert_eq!(told.len(), 7, "{told:?}");
    assert!(told.contains(&(5, "keys.master_file")) && told.contains(&(4, "keys.log_file")), "{told:?}");

    std::fs::create_dir(folder.path().join("keys")).unwrap();
    for name in ["domain.key", "index.key", "event-id.key", "log.pem", "event.pem", "institution.pem"] {
        std::fs::write(folder.path().join("keys").join(name), "x").unwrap();
    }
    std::fs::write(folder.path().join("absent"), "x").unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.keys.master_file.path(), folder.path().join("absent"));
}

#[test]
fn a_file_that_cannot_be_read_is_told_too() {
    let errors = Config::load(Path::new("tests/cases/config/no-such-file.toml")).unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "tests/cases/config/no-such-file.toml:1:1: -: expected a settings file that can be read (entity not found)"
    );
}

#[test]
fn the_argument_comes_before_the_environment() {
    assert_eq!(path(Some("a.toml".into())), Some("a.toml".into()));
}

proptest::proptest! {
    /// Whatever is handed in, it is read or told, and never a panic.
    #[test]
    fn any_text_is_read_or_told(text in "[a-z\\[\\]=\".0-9 \n_{}',#]{0,200}") {
        match Config::parse(&text, Path::new("f.toml")) {
            Ok(config) => proptest::prop_assert!(!config.tenant.id.is_empty()),
            Err(errors) => proptest::prop_assert!(!errors.is_empty()),
        }
    }

    /// The example with one line taken out, doubled or cut is read or told.
    #[test]
    fn a_broken_example_is_read_or_told(line in 0_usize..400, cut in 0_usize..60, double in proptest::bool::ANY) {
        let text = example();
        let mut lines: Vec<&str> = text.lines().collect();
        let line = line % lines.len();
        let cut = cut.min(lines[line].len());
        if double { lines.insert(line, lines[line]); } else if lines[line].is_char_boundary(cut) { lines[line] = &lines[line][..cut]; }
        if let Err(errors) = Config::parse(&lines.join("\n"), Path::new("f.toml")) {
            proptest::prop_assert!(!errors.is_empty());
        }
    }
}
