//! A site's own rules: JSON Schemas, one file each, applied by resource type.
//!
//! Takes the folder of rules at the start, and resources after it. A resource is turned into a JSON value only if there
//! is a rule for its type, so that sites without rules pay nothing. The file: {"id", "description", "resourceType",
//! "severity": "error" | "warning" | "information", "schema": a JSON Schema of that resource}. The rule's id is
//! `site.<id>`, and its description is what the sender reads: a schema's own messages quote values.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use jsonschema::PatternOptions;
use jsonschema::paths::{Location, LocationSegment};
use serde::Deserialize;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::outcome::{Issue, IssueType, Severity};
use sluice_fhir::tree::Node;

use super::error::RulesError;

/// Issues of one rule on one resource; a schema can fail at every node.
const ISSUES_MAX: usize = 50;

/// The rules by resource type.
#[derive(Debug, Default)]
pub(super) struct Site {
    by_type: HashMap<String, Vec<Rule>>,
}

#[derive(Debug)]
struct Rule {
    id: String,
    description: String,
    severity: Severity,
    schema: jsonschema::Validator,
}

/// A file, as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    id: String,
    description: String,
    resource_type: String,
    severity: Level,
    schema: serde_json::Value,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    Error,
    Warning,
    Information,
}

impl Site {
    /// Reads every `*.json` of the folder, in the order of names.
    pub(super) fn read(folder: &Path, definitions: &Definitions) -> Result<Self, RulesError> {
        let at = |file: &Path| {
            let file = file.to_owned();
            move |error| RulesError::File { file, error }
        };
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(at(folder))? {
            let file = entry.map_err(at(folder))?.path();
            if file.extension().is_some_and(|extension| extension == "json") {
                files.push(file);
            }
        }
        files.sort();
        let mut site = Self::default();
        for file in files {
            let text = std::fs::read(&file).map_err(at(&file))?;
            let (resource_type, rule) =
                Rule::read(&text, definitions).map_err(|expected| RulesError::Rule { file: file.clone(), expected })?;
            if site.has(&rule.id) {
                return Err(RulesError::Rule {
                    file,
                    expected: format!("an id other than `{}`, which is taken", rule.id),
                });
            }
            site.by_type.entry(resource_type).or_default().push(rule);
        }
        Ok(site)
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.by_type.values().flatten().any(|rule| rule.id == id)
    }

    /// Adds what the site's rules find: in the resource, and in those of a Bundle's entries.
    pub(super) fn check(&self, resource: Node<'_>, issues: &mut Vec<Issue>) {
        if self.by_type.is_empty() {
            return;
        }
        let mut open = vec![resource];
        while let Some(resource) = open.pop() {
            let Some(name) = resource.resource_type() else { continue };
            if let Some(rules) = self.by_type.get(name) {
                check(rules, resource, issues);
            }
            if name == "Bundle" {
                open.extend(resource.find(&["entry", "resource"]));
            }
        }
    }
}

fn check(rules: &[Rule], resource: Node<'_>, issues: &mut Vec<Issue>) {
    // The tree has taken it for JSON; what this reader refuses all the same (a number beyond its range) is an issue, not silence.
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(resource.raw()) else {
        for rule in rules {
            issues.push(rule.issue(resource));
        }
        return;
    };
    for rule in rules {
        for error in rule.schema.iter_errors(&value).take(ISSUES_MAX) {
            issues.push(rule.issue(node_at(resource, error.instance_path())));
        }
    }
}

/// The node that a schema's location names; the nearest above it, if it is not there.
fn node_at<'t>(resource: Node<'t>, location: &Location) -> Node<'t> {
    let mut node = resource;
    for segment in location {
        let next = match segment {
            LocationSegment::Property(name) => node.member(&name),
            LocationSegment::Index(place) => node.items().nth(place),
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node
}

impl Rule {
    /// The resource type and the rule, or what was expected of the file.
    fn read(text: &[u8], definitions: &Definitions) -> Result<(String, Self), String> {
        let written: Written = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let plain =
            |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !plain(&written.id) {
            return Err("`id` of lower case letters, digits and hyphens".to_owned());
        }
        if definitions.resource_named(&written.resource_type).is_none() {
            return Err("`resourceType` that R4 has".to_owned());
        }
        // References to other documents find no one to fetch them: the crate is built without.
        // Patterns by the engine whose time is linear in the text: what a sender writes can't make one of them run away.
        // What it has no counterpart for (look-around, back-references) is refused here, at the start.
        let schema = jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .build(&written.schema)
            .map_err(|error| format!("`schema` that is a JSON Schema, its patterns without look-around: {error}"))?;
        let severity = match written.severity {
            Level::Error => Severity::Error,
            Level::Warning => Severity::Warning,
            Level::Information => Severity::Information,
        };
        let id = format!("site.{}", written.id);
        Ok((written.resource_type, Self { id, description: written.description, severity, schema }))
    }

    fn issue(&self, node: Node<'_>) -> Issue {
        Issue {
            severity: self.severity,
            code: IssueType::BusinessRule,
            rule: self.id.clone().into(),
            expression: Some(node.path()),
            position: Some(node.position()),
            text: self.description.clone(),
            about: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_fhir::tree::{Limits, Tree};

    fn rule(text: &str) -> Result<(String, Rule), String> {
        Rule::read(text.as_bytes(), &Definitions::r4())
    }

    #[test]
    fn the_rules_that_ship_find_what_they_say() {
        let site = Site::read(Path::new("mappings/rules"), &Definitions::r4()).unwrap();
        let text = r#"{"resourceType":"Bundle","type":"collection","entry":[
            {"resource":{"resourceType":"Patient","identifier":[{"system":"urn:x","value":"1"},{"value":"2"}]}},
            {"resource":{"resourceType":"Observation","status":"final","code":{"text":"x"}}},
            {"resource":{"resourceType":"Observation","status":"final","code":{"text":"x"},"effectiveDateTime":"2024"}},
            {"resource":{"resourceType":"Patient"}}]}"#;
        let tree = Tree::parse(text.into(), &Limits::default()).unwrap();
        let mut issues = Vec::new();
        site.check(tree.root(), &mut issues);
        let mut found: Vec<_> =
            issues.iter().map(|i| (&*i.rule, i.expression.as_deref().unwrap(), i.position.unwrap().line)).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("site.observation-time", "Bundle.entry[1].resource", 3),
                ("site.patient-identifier", "Bundle.entry[0].resource.identifier[1]", 2),
                ("site.patient-identifier", "Bundle.entry[3].resource", 5),
            ]
        );
    }

    #[test]
    fn a_file_that_is_no_rule_says_what_was_expected() {
        let base = r#"{"id":"a","description":"b","resourceType":"Patient","severity":"error","schema":{}}"#;
        assert!(rule(base).is_ok());
        for (from, to, expected) in [
            ("\"a\"", "\"A b\"", "`id`"),
            ("Patient", "Patience", "`resourceType`"),
            ("\"error\"", "\"fatal\"", "unknown variant"),
            ("{}", "{\"type\":5}", "`schema`"),
            ("{}", "{\"$ref\":\"http://example.org/other.json\"}", "`schema`"),
            ("\"id\"", "\"di\"", "unknown field"),
            ("{}", r#"{"properties":{"id":{"pattern":"^(?=a)b"}}}"#, "^(?=a)b"),
            ("{}", r#"{"patternProperties":{"(a)\\1":{}}}"#, "(a)"),
        ] {
            let error = rule(&base.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn without_rules_for_a_type_nothing_is_found() {
        let tree = Tree::parse(r#"{"resourceType":"Device"}"#.into(), &Limits::default()).unwrap();
        let mut issues = Vec::new();
        Site::read(Path::new("mappings/rules"), &Definitions::r4()).unwrap().check(tree.root(), &mut issues);
        Site::default().check(tree.root(), &mut issues);
        assert!(issues.is_empty());
    }
}
