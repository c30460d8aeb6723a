//! One file of rules: a rule by itself, or a pack with rules and severities (`mappings/schema/rules.json`).
//!
//! Takes its text. Gives its rules, compiled, and its severities; or what is wrong with it, with line and column. Never: takes
//! a file in part.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use jsonschema::PatternOptions;
use serde_json::Value;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::outcome::Severity;
use sluice_fhir::path::{Expression, Mode};
use sluice_fhir::tree::{Limits, Node, Position, Tree};

use super::rule::{Rule, Test, node_at, unversioned};
use crate::config;

/// Bytes of one file.
const BYTES_MAX: usize = 4 << 20;

/// The schema that files fit.
static SCHEMA: LazyLock<Option<jsonschema::Validator>> = LazyLock::new(|| {
    let schema: Value = serde_json::from_str(include_str!("../../../mappings/schema/rules.json")).ok()?;
    jsonschema::validator_for(&schema).ok()
});

/// What is wrong with a file, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) position: Position,
    pub(super) expected: String,
}

impl Wrong {
    fn at(node: Node<'_>, expected: impl Into<String>) -> Self {
        Self { position: node.position(), expected: expected.into() }
    }
}

/// What a file says.
pub(super) struct File {
    /// Its rules, each with the place of its id.
    pub(super) rules: Vec<(Rule, Position)>,
    pub(super) severities: Vec<Said>,
}

/// A severity that a pack gives to a rule.
#[derive(Debug, Clone)]
pub(in crate::check) struct Said {
    pub(in crate::check) rule: String,
    pub(in crate::check) severity: config::Severity,
    /// To whose resources; everybody's if None.
    pub(in crate::check) senders: Option<Arc<[String]>>,
    pub(in crate::check) position: Position,
}

/// Reads a file for a tenant's gateway. Rules for other tenants are read as strictly, and left out.
pub(super) fn read(text: &[u8], tenant: &str, definitions: &Arc<Definitions>) -> Result<File, Wrong> {
    let limits = Limits { bytes_max: BYTES_MAX, ..Limits::default() };
    let tree = Tree::parse(Bytes::copy_from_slice(text), &limits)
        .map_err(|error| Wrong { position: error.position, expected: error.kind.text().to_owned() })?;
    let root = tree.root();
    let broken = || Wrong::at(root, "JSON that can be read");
    let value: Value = serde_json::from_slice(text).map_err(|_| broken())?;
    let schema = SCHEMA.as_ref().ok_or_else(broken)?;
    if let Some(error) = schema.iter_errors(&value).next() {
        return Err(Wrong::at(node_at(root, error.instance_path()), format!("what fits the schema: {error}")));
    }
    let around = Around { tenant, tenants: names(root, "tenants"), senders: names(root, "senders"), definitions };
    let mut file = File { rules: Vec::new(), severities: Vec::new() };
    if root.member("rules").is_none() && !root.member("severity").is_some_and(Node::is_object) {
        file.rules.extend(around.rule(root, &value)?);
        return Ok(file);
    }
    let written = value["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rules = root.member("rules").into_iter().flat_map(Node::items);
    for (node, value) in rules.zip(written) {
        file.rules.extend(around.rule(node, value)?);
    }
    if around.is_meant(None) {
        for member in root.member("severity").into_iter().flat_map(Node::members) {
            let severity = match member.as_str().as_deref() {
                Some("error") => config::Severity::Error,
                Some("warning") => config::Severity::Warning,
                Some("information") => config::Severity::Information,
                _ => config::Severity::Off,
            };
            let rule = member.name().unwrap_or_default().to_owned();
            let (senders, position) = (around.senders.clone(), member.position());
            file.severities.push(Said { rule, severity, senders, position });
        }
    }
    Ok(file)
}

/// What holds for all rules of a file.
struct Around<'a> {
    tenant: &'a str,
    tenants: Option<Arc<[String]>>,
    senders: Option<Arc<[String]>>,
    definitions: &'a Arc<Definitions>,
}

impl Around<'_> {
    fn is_meant(&self, own: Option<&Arc<[String]>>) -> bool {
        own.or(self.tenants.as_ref()).is_none_or(|tenants| tenants.iter().any(|it| it == self.tenant))
    }

    /// A rule that fits the schema; None if it is for other tenants.
    fn rule(&self, node: Node<'_>, value: &Value) -> Result<Option<(Rule, Position)>, Wrong> {
        let text = |name: &str| node.member(name).and_then(Node::as_str).map(std::borrow::Cow::into_owned);
        let place = |name: &str| node.member(name).unwrap_or(node);
        let (resource_type, profile) = (text("resourceType"), text("profile"));
        if resource_type.as_ref().is_some_and(|name| self.definitions.resource_named(name).is_none()) {
            return Err(Wrong::at(place("resourceType"), "`resourceType` that R4 has"));
        }
        if resource_type.is_none() && profile.is_none() {
            return Err(Wrong::at(node, "`resourceType` or `profile`: the resources that the rule is about"));
        }
        let test = match (value.get("schema"), text("expression")) {
            (Some(schema), None) => schema_of(schema, place("schema"))?,
            (None, Some(text)) => {
                let compiled = Expression::compile(&text, self.definitions, resource_type.as_deref(), Mode::Strict);
                Test::Expression(compiled.map_err(|error| {
                    Wrong::at(place("expression"), format!("`expression` that is FHIRPath; at its {error}"))
                })?)
            }
            _ => return Err(Wrong::at(node, "either `schema` or `expression`")),
        };
        let severity = match text("severity").as_deref() {
            Some("error") => Severity::Error,
            Some("warning") => Severity::Warning,
            _ => Severity::Information,
        };
        if !self.is_meant(names(node, "tenants").as_ref()) {
            return Ok(None);
        }
        let rule = Rule {
            id: format!("site.{}", text("id").unwrap_or_default()),
            description: text("description").unwrap_or_default(),
            severity,
            resource_type,
            profile: profile.map(|profile| unversioned(&profile).to_owned()),
            senders: names(node, "senders").or_else(|| self.senders.clone()),
            test,
        };
        Ok(Some((rule, place("id").position())))
    }
}

fn schema_of(schema: &Value, node: Node<'_>) -> Result<Test, Wrong> {
    // References to other documents find no one to fetch them: the crate is built without.
    // Patterns by the engine whose time is linear in the text: what a sender writes can't make one of them run away.
    // What it has no counterpart for (look-around, back-references) is refused here.
    let built = jsonschema::options().with_pattern_options(PatternOptions::regex()).build(schema);
    built.map(|schema| Test::Schema(Box::new(schema))).map_err(|error| {
        let place = node_at(node, error.instance_path());
        Wrong::at(place, format!("`schema` that is a JSON Schema, its patterns without look-around: {error}"))
    })
}

fn names(node: Node<'_>, name: &str) -> Option<Arc<[String]>> {
    let list = node.member(name)?;
    Some(list.items().filter_map(Node::as_str).map(std::borrow::Cow::into_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Wrong {
        read(text.as_bytes(), "hospital-a", &Definitions::r4()).err().expect("a file that is wrong")
    }

    #[test]
    fn a_file_that_is_no_rule_says_what_was_expected_and_where() {
        let base = "{\"id\":\"a\",\"description\":\"b\",\n\"resourceType\":\"Patient\",\n\"severity\":\"error\",\n\"schema\":{}}";
        let file = read(base.as_bytes(), "hospital-a", &Definitions::r4()).unwrap_or_else(|it| panic!("{it:?}"));
        assert_eq!(file.rules.len(), 1);
        for (from, to, expected, line) in [
            ("\"a\"", "\"A b\"", "^[a-z0-9-]{1,64}$", 1),
            ("Patient", "Patience", "`resourceType` that R4 has", 2),
            ("\"error\"", "\"fatal\"", "fatal", 3),
            ("{}", "{\"type\":5}", "`schema`", 4),
            ("{}", "{\"$ref\":\"http://example.org/other.json\"}", "`schema`", 4),
            ("\"id\"", "\"di\"", "'di'", 1),
            ("{}", r#"{"properties":{"id":{"pattern":"^(?=a)b"}}}"#, "^(?=a)b", 4),
            ("{}", r#"{"patternProperties":{"(a)\\1":{}}}"#, "(a)", 4),
            ("\"schema\":{}", "\"schema\":{},\"expression\":\"true\"", "either `schema` or `expression`", 1),
            ("\"schema\":{}", "\"expression\":\"name.where(\"", "`expression` that is FHIRPath; at its line 1", 4),
            ("\"schema\":{}", "\"expression\":\"nme.exists()\"", "`expression` that is FHIRPath; at its line 1", 4),
            ("\"resourceType\":\"Patient\",", "", "`resourceType` or `profile`", 1),
            ("\"schema\":{}", "\"schema\":{},", "", 4),
            ("\"schema\":{}", "\"schema\":{},\"senders\":[]", "[]", 4),
            ("\"schema\":{}", "\"schema\":{},\"nonsense\":1", "nonsense", 1),
        ] {
            let wrong = wrong(&base.replacen(from, to, 1));
            assert!(wrong.expected.contains(expected), "{from} {to}: {wrong:?}");
            assert_eq!(wrong.position.line, line, "{from} {to}: {wrong:?}");
        }
    }

    #[test]
    fn a_pack_has_rules_and_severities_for_its_tenants_and_senders() {
        let text = r#"{"id":"ward","description":"d","tenants":["hospital-a"],"senders":["insurer"],
            "rules":[
              {"id":"a","description":"a","resourceType":"Patient","severity":"error","expression":"name.exists()"},
              {"id":"b","description":"b","profile":"http://x.example/p|2","severity":"warning","schema":true,"senders":["x"]},
              {"id":"c","description":"c","resourceType":"Patient","severity":"error","schema":true,"tenants":["hospital-b"]}],
            "severity":{"binding.required":"off","site.a":"information"}}"#;
        let file = read(text.as_bytes(), "hospital-a", &Definitions::r4()).unwrap_or_else(|it| panic!("{it:?}"));
        let rules: Vec<_> = file.rules.iter().map(|(rule, at)| (&*rule.id, rule.senders.as_deref(), at.line)).collect();
        let (insurer, x) = (["insurer".to_owned()], ["x".to_owned()]);
        assert_eq!(rules, [("site.a", Some(&insurer[..]), 3), ("site.b", Some(&x[..]), 4)]);
        assert_eq!(file.rules[1].0.profile.as_deref(), Some("http://x.example/p"));
        let said: Vec<_> =
            file.severities.iter().map(|said| (&*said.rule, said.severity, said.position.line)).collect();
        assert_eq!(
            said,
            [("binding.required", config::Severity::Off, 6), ("site.a", config::Severity::Information, 6)]
        );
        let other = read(text.as_bytes(), "hospital-b", &Definitions::r4()).unwrap_or_else(|it| panic!("{it:?}"));
        assert_eq!((other.rules.len(), other.severities.len()), (1, 0));
        assert_eq!(wrong(&text.replace("name.exists()", "name.exist()")).position.line, 3);
    }

    proptest::proptest! {
        /// Whatever stands in a file, it is read or told, and never a panic.
        #[test]
        fn any_text_is_read_or_told(
            text in "[\\{\\}\\[\\]\":,a-c0-9 \n]{0,60}",
            expression in "[a-z().'=<>|$%0-9 ]{0,40}",
            cut in 0_usize..200,
        ) {
            let r4 = Definitions::r4();
            let _ = read(text.as_bytes(), "hospital-a", &r4);
            let whole = serde_json::json!({
                "id": "a", "description": "b", "resourceType": "Patient", "severity": "error", "expression": expression,
            })
            .to_string();
            let _ = read(whole.as_bytes(), "hospital-a", &r4);
            let _ = read(&whole.as_bytes()[..cut.min(whole.len())], "hospital-a", &r4);
        }
    }
}
