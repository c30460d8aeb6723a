//! One rule of a site: what it is about, and how it is held against a resource.

use std::cell::OnceCell;
use std::sync::Arc;

use jsonschema::paths::{Location, LocationSegment};
use serde_json::Value;
use sluice_fhir::outcome::{Issue, IssueType, Severity};
use sluice_fhir::path::{Document, Environment, ErrorKind, Expression};
use sluice_fhir::tree::Node;

/// Issues of one rule on one resource; a schema can fail at every node.
const ISSUES_MAX: usize = 50;

/// A rule.
#[derive(Debug)]
pub(super) struct Rule {
    /// `site.<id>`
    pub(super) id: String,
    pub(super) description: String,
    pub(super) severity: Severity,
    pub(super) resource_type: Option<String>,
    /// Without a version.
    pub(super) profile: Option<String>,
    /// To whose resources it applies; everybody's if None.
    pub(super) senders: Option<Arc<[String]>>,
    pub(super) test: Test,
}

/// How it is held.
#[derive(Debug)]
pub(super) enum Test {
    Schema(Box<jsonschema::Validator>),
    Expression(Expression),
}

/// A resource that rules are held against, with what they need of it once for all of them.
pub(super) struct Subject<'t> {
    pub(super) node: Node<'t>,
    /// The same as a JSON value, once a schema has asked for it; None within if it can't be one.
    value: OnceCell<Option<Value>>,
}

/// The work of a rule went beyond its bound.
pub(super) struct Spent;

impl<'t> Subject<'t> {
    pub(super) fn new(node: Node<'t>) -> Self {
        Self { node, value: OnceCell::new() }
    }
}

impl Rule {
    /// Whether it is about this resource, sent by this institution.
    pub(super) fn applies(&self, resource: Node<'_>, sender: Option<&str>) -> bool {
        let is_sent = |senders: &Arc<[String]>| sender.is_some_and(|sender| senders.iter().any(|it| it == sender));
        let claims = |profile: &String| {
            resource
                .find(&["meta", "profile"])
                .filter_map(Node::as_str)
                .any(|claim| unversioned(&claim) == profile.as_str())
        };
        self.senders.as_ref().is_none_or(is_sent) && self.profile.as_ref().is_none_or(claims)
    }

    /// Adds what it finds.
    ///
    /// # Errors
    /// [`Spent`], with nothing found: it ended at the bound of steps.
    pub(super) fn check<'t>(
        &self,
        subject: &Subject<'t>,
        document: &Document<'t>,
        environment: &Environment<'_>,
        issues: &mut Vec<Issue>,
    ) -> Result<(), Spent> {
        let resource = subject.node;
        match &self.test {
            Test::Schema(schema) => {
                let value = subject.value.get_or_init(|| serde_json::from_slice(resource.raw()).ok());
                // The tree has taken it for JSON; what this reader refuses all the same (a number beyond its range) is an
                // issue, not silence.
                let Some(value) = value else {
                    issues.push(self.issue(resource));
                    return Ok(());
                };
                for error in schema.iter_errors(value).take(ISSUES_MAX) {
                    issues.push(self.issue(node_at(resource, error.instance_path())));
                }
            }
            Test::Expression(expression) => match expression.evaluate(document, resource, environment) {
                Ok(answer) if answer.truth() == Some(true) => {}
                // False, nothing, several items, or what cannot be known here: the rule does not hold for sure.
                Ok(_) => issues.push(self.issue(resource)),
                Err(error) if error.kind == ErrorKind::Budget => return Err(Spent),
                Err(_) => issues.push(self.issue(resource)),
            },
        }
        Ok(())
    }

    fn issue(&self, node: Node<'_>) -> Issue {
        Issue {
            severity: self.severity,
            code: IssueType::BusinessRule,
            rule: self.id.clone().into(),
            expression: Some(node.path()),
            position: Some(node.position()),
            text: self.description.clone(),
            about: self.profile.clone(),
        }
    }
}

/// The node that a schema's location names; the nearest above it, if it is not there.
pub(super) fn node_at<'t>(root: Node<'t>, location: &Location) -> Node<'t> {
    let mut node = root;
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

/// A canonical without its version.
pub(super) fn unversioned(canonical: &str) -> &str {
    canonical.split_once('|').map_or(canonical, |(url, _)| url)
}
