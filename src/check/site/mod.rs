//! A site's own rules: JSON Schemas and FHIRPath expressions, by resource type or profile, for all senders or for some.
//!
//! Takes the folder of rules, and resources after it. A resource is turned into a JSON value only if a schema applies to it, so
//! that sites without rules pay nothing. What the sender reads is the rule's description: a schema's own messages quote
//! values. `mappings/rules/README.md` says how a file is written.

mod file;
mod rule;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_fhir::definitions::Definitions;
use sluice_fhir::outcome::{Issue, Severity};
use sluice_fhir::path::{Budget, Document, Environment, Host};
use sluice_fhir::tree::Node;
use sluice_fhir::validate::rules;

pub(super) use self::file::Said;
use self::rule::{Rule, Subject};
use super::error::RulesError;
use super::packages::Digester;

/// Files of one folder.
const FILES_MAX: usize = 10_000;

/// The rules by resource type, and the severities that packs give.
#[derive(Debug, Default)]
pub(super) struct Site {
    by_type: HashMap<String, Vec<Rule>>,
    /// Rules of a profile, whatever the type.
    of_any: Vec<Rule>,
    severities: Vec<Placed>,
}

impl Site {
    /// Whether it says nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.by_type.is_empty() && self.of_any.is_empty() && self.severities.is_empty()
    }
}

/// A severity that a pack gives, with its place in its file.
#[derive(Debug)]
pub(super) struct Placed {
    said: Said,
    file: PathBuf,
}

/// What rules are held with.
pub(super) struct Around<'a> {
    /// The institution that has sent the resource, if it is known.
    pub(super) sender: Option<&'a str>,
    /// The time, for `now()` and `today()`.
    pub(super) now: Option<&'a str>,
    pub(super) host: &'a dyn Host,
    /// Steps that all expressions together may take.
    pub(super) steps_max: u64,
    pub(super) is_over: &'a dyn Fn() -> bool,
}

impl Site {
    /// Reads every `*.json` of the folder, in the order of names.
    pub(super) fn read(
        folder: &Path,
        tenant: &str,
        definitions: &Arc<Definitions>,
        digester: &mut Digester,
    ) -> Result<Self, RulesError> {
        let mut site = Self::default();
        for file in files(folder)? {
            let text = std::fs::read(&file).map_err(|error| RulesError::File { file: file.clone(), error })?;
            digester.add(&file, &text);
            let wrong = |wrong: file::Wrong| RulesError::Rule {
                file: file.clone(),
                position: wrong.position,
                expected: wrong.expected,
            };
            let read = file::read(&text, tenant, definitions).map_err(wrong)?;
            for (rule, position) in read.rules {
                if site.has(&rule.id) {
                    let expected = format!("an id other than `{}`, which is taken", rule.id);
                    return Err(RulesError::Rule { file, position, expected });
                }
                match rule.resource_type.clone() {
                    Some(name) => site.by_type.entry(name).or_default().push(rule),
                    None => site.of_any.push(rule),
                }
            }
            site.severities.extend(read.severities.into_iter().map(|said| Placed { said, file: file.clone() }));
        }
        Ok(site)
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.by_type.values().flatten().chain(&self.of_any).any(|rule| rule.id == id)
    }

    /// What packs say of severities, in the order of their files.
    ///
    /// # Errors
    /// The first of a rule that is not there, or that is fixed, by file, line and column.
    pub(super) fn severities(&self, is_fixed: impl Fn(&str) -> bool) -> Result<Vec<&Said>, RulesError> {
        let told = self.severities.iter().map(|Placed { said, file }| {
            let no = |expected: String| RulesError::Rule { file: file.clone(), position: said.position, expected };
            if is_fixed(&said.rule) {
                return Err(no(format!("a rule other than `{}`, whose severity is fixed", said.rule)));
            }
            if rules::named(&said.rule).is_none() && !self.has(&said.rule) {
                return Err(no(format!("a rule that is there: `{}` is not", said.rule)));
            }
            Ok(said)
        });
        told.collect()
    }

    /// Adds what the site's rules find: in the resource, and in those of a Bundle's entries. A rule that can't be held within
    /// the bounds ends it with an error.
    pub(super) fn check(&self, resource: Node<'_>, around: &Around<'_>, issues: &mut Vec<Issue>) {
        if self.by_type.is_empty() && self.of_any.is_empty() {
            return;
        }
        let document = Document::within(resource.tree(), around.steps_max);
        let budget = Budget { steps_max: around.steps_max, ..Budget::default() };
        let environment = Environment { host: around.host, now: around.now, budget };
        let mut open = vec![resource];
        while let Some(resource) = open.pop() {
            let Some(name) = resource.resource_type() else { continue };
            let subject = Subject::new(resource);
            let rules = self.by_type.get(name).map(Vec::as_slice).unwrap_or_default();
            for rule in rules.iter().chain(&self.of_any) {
                if !rule.applies(resource, around.sender) {
                    continue;
                }
                if (around.is_over)() || rule.check(&subject, &document, &environment, issues).is_err() {
                    issues.push(partly(resource));
                    return;
                }
            }
            if name == "Bundle" {
                open.extend(resource.find(&["entry", "resource"]));
            }
        }
    }
}

/// The issue of a check that ended at its bound.
fn partly(resource: Node<'_>) -> Issue {
    let rule = rules::named("limit.budget");
    Issue {
        severity: Severity::Error,
        code: rule.map_or(sluice_fhir::outcome::IssueType::TooCostly, |rule| rule.code),
        rule: "limit.budget".into(),
        expression: Some(resource.path()),
        position: Some(resource.position()),
        text: rule.map(|rule| rule.about.to_owned()).unwrap_or_default(),
        about: None,
    }
}

/// The files of rules of a folder, by name.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, RulesError> {
    let at = |error| RulesError::File { file: folder.to_owned(), error };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(at)? {
        let entry = entry.map_err(at)?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        let file = entry.path();
        if !is_hidden && file.extension().is_some_and(|extension| extension == "json") {
            files.push(file);
        }
    }
    if files.len() > FILES_MAX {
        return Err(RulesError::Package(format!("{}: at most {FILES_MAX} files", folder.display())));
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use sluice_fhir::path::Offline;
    use sluice_fhir::tree::{Limits, Tree};

    fn read(folder: &Path) -> Result<Site, RulesError> {
        Site::read(folder, "hospital-a", &Definitions::r4(), &mut Digester::default())
    }

    fn found(site: &Site, sender: Option<&str>, steps_max: u64, text: &str) -> Vec<(String, String, u32)> {
        let tree = Tree::parse(Bytes::from(text.to_owned()), &Limits::default()).unwrap();
        let r4 = Definitions::r4();
        let host = Offline::new(&r4);
        let now = Some("2024-05-06T07:08:09Z");
        let mut issues = Vec::new();
        site.check(tree.root(), &Around { sender, now, host: &host, steps_max, is_over: &|| false }, &mut issues);
        let told =
            issues.into_iter().map(|it| (it.rule.into_owned(), it.expression.unwrap(), it.position.unwrap().line));
        let mut found: Vec<_> = told.collect();
        found.sort();
        found
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn the_rules_that_ship_find_what_they_say() {
        let site = read(Path::new("mappings/rules")).unwrap();
        let text = r#"{"resourceType":"Bundle","type":"collection","entry":[
            {"resource":{"resourceType":"Patient","identifier":[{"system":"urn:x","value":"1"},{"value":"2"}]}},
            {"resource":{"resourceType":"Observation","status":"final","code":{"text":"x"}}},
            {"resource":{"resourceType":"Observation","status":"final","code":{"text":"x"},"effectiveDateTime":"2024"}},
            {"resource":{"resourceType":"Patient"}}]}"#;
        let rule = |id: &str, path: &str, line| (id.to_owned(), path.to_owned(), line);
        assert_eq!(
            found(&site, None, u64::MAX, text),
            [
                rule("site.observation-time", "Bundle.entry[1].resource", 3),
                rule("site.patient-identifier", "Bundle.entry[0].resource.identifier[1]", 2),
                rule("site.patient-identifier", "Bundle.entry[3].resource", 5),
            ]
        );
        let late = r#"{"resourceType":"Patient","birthDate":"2025","identifier":[{"system":"urn:x","value":"1"}]}"#;
        assert_eq!(found(&site, None, u64::MAX, late), [rule("site.birth-not-in-future", "Patient", 1)]);
    }

    #[test]
    fn without_rules_for_a_type_nothing_is_found() {
        let device = r#"{"resourceType":"Device"}"#;
        assert_eq!(found(&read(Path::new("mappings/rules")).unwrap(), None, u64::MAX, device), []);
        assert_eq!(found(&Site::default(), None, u64::MAX, device), []);
    }

    #[test]
    fn rules_are_held_by_sender_and_profile_and_only_a_clear_yes_passes() {
        let rule = |id: &str, more: &str| format!(r#"{{"id":"{id}","description":"d","severity":"error",{more}}}"#);
        let folder = folder(&[
            ("a.json", &rule("a", r#""resourceType":"Patient","expression":"active","senders":["insurer"]"#)),
            ("b.json", &rule("b", r#""profile":"http://x.example/p","expression":"Patient.name.exists()""#)),
            (
                "c.json",
                &rule("c", r#""resourceType":"Patient","expression":"gender.memberOf('http://x.example/none')""#),
            ),
        ]);
        let site = read(folder.path()).unwrap();
        let ids = |sender, text: &str| {
            let found = found(&site, sender, u64::MAX, text).into_iter().map(|(id, ..)| id);
            found.collect::<Vec<_>>()
        };
        assert_eq!(
            ids(None, r#"{"resourceType":"Patient","gender":"other"}"#),
            ["site.c"],
            "what is not known is no yes"
        );
        assert_eq!(ids(Some("x"), r#"{"resourceType":"Patient","active":false}"#), ["site.c"]);
        for (active, is_found) in [(r#","active":true"#, false), (r#","active":false"#, true), ("", true)] {
            let patient = format!(r#"{{"resourceType":"Patient"{active}}}"#);
            assert_eq!(ids(Some("insurer"), &patient).contains(&"site.a".to_owned()), is_found, "{patient}");
        }
        let claims = r#"{"resourceType":"Patient","meta":{"profile":["http://x.example/p|3"]}}"#;
        assert_eq!(ids(None, claims), ["site.b", "site.c"]);
    }

    #[test]
    fn a_rule_that_is_too_much_work_refuses() {
        let rule = r#"{"id":"a","description":"d","resourceType":"Patient","severity":"information",
            "expression":"descendants().select($this | %resource.descendants()).exists()"}"#;
        let folder = folder(&[("a.json", rule)]);
        let site = read(folder.path()).unwrap();
        let names = r#"{"family":"x"},"#.repeat(50);
        let patient = format!(r#"{{"resourceType":"Patient","name":[{}]}}"#, names.trim_end_matches(','));
        let found = found(&site, None, 1_000, &patient);
        assert_eq!(found, [("limit.budget".to_owned(), "Patient".to_owned(), 1)]);
    }

    #[test]
    fn ids_are_taken_once_and_severities_are_of_rules_that_are_there() {
        let rule = r#"{"id":"a","description":"d","resourceType":"Patient","severity":"error","schema":true}"#;
        let error = read(folder(&[("a.json", rule), ("b.json", rule)]).path()).unwrap_err().to_string();
        assert!(error.contains("b.json:1:7: expected an id other than `site.a`"), "{error}");
        let pack = |id: &str| format!("{{\"id\":\"p\",\"description\":\"d\",\n\"severity\":{{\"{id}\":\"off\"}}}}");
        for (id, expected) in [("site.a", None), ("site.b", Some("`site.b` is not")), ("limit.depth", Some("fixed"))] {
            let folder = folder(&[("a.json", rule), ("p.json", &pack(id))]);
            let site = read(folder.path()).unwrap();
            let error = site.severities(|rule| rule == "limit.depth").err().map(|error| error.to_string());
            assert_eq!(error.is_some(), expected.is_some(), "{error:?}");
            if let (Some(error), Some(expected)) = (error, expected) {
                assert!(error.contains("p.json:2:") && error.contains(expected), "{error}");
            }
        }
    }
}
