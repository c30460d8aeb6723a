//! Whether an item of a Questionnaire is enabled, by the answers to others (questionnaire.html, enableWhen) or by an expression in FHIRPath
//! on the response (Structured Data Capture), and how answers compare with what is asked of them.

use std::collections::HashMap;

use super::rules;
use super::walk::Walk;
use crate::package::{items, text};
use crate::path::{Budget, Environment, Invariant, Offline, Verdict, compare_quantities, resource};
use crate::profile::value::{self, decimal};
use crate::tree::{Kind, Node};

/// Steps of an expression that enables an item.
const STEPS_MAX: u64 = 1_000_000;

/// A response, as a whole.
pub(super) struct Response<'q, 't> {
    pub(super) node: Node<'t>,
    pub(super) questionnaire: Node<'q>,
    /// Answers by linkId, for `enableWhen`.
    pub(super) answers: HashMap<String, Vec<Node<'t>>>,
    /// The Questionnaire is contained in it.
    pub(super) is_contained: bool,
    /// Missing answers of a response that is not finished are no errors.
    pub(super) is_finished: bool,
}

/// The members `value[x]`, or others with a type at the end of their names.
pub(super) fn typed<'n>(node: Node<'n>, prefix: &str) -> Option<(&'n str, Node<'n>)> {
    node.members().find_map(|member| {
        let suffix = member.name()?.strip_prefix(prefix)?;
        suffix.starts_with(|c: char| c.is_ascii_uppercase()).then_some((suffix, member))
    })
}

impl<'t> Walk<'_, 't> {
    /// The conditions of a Questionnaire's items ask questions that it has, and that are neither the item itself nor within it.
    pub(super) fn conditions(&mut self, questionnaire: Node<'t>) {
        let mut questions: HashMap<String, Node<'t>> = HashMap::new();
        let mut asking: Vec<Node<'t>> = Vec::new();
        let mut open: Vec<Node<'t>> = items(questionnaire, "item").collect();
        while let Some(item) = open.pop() {
            open.extend(items(item, "item"));
            if let Some(id) = text(item, "linkId") {
                questions.entry(id).or_insert(item);
            }
            if item.member("enableWhen").is_some() {
                asking.push(item);
            }
        }
        asking.sort_by_key(|item| item.id());
        for item in asking {
            let span = item.span();
            for question in items(item, "enableWhen").filter_map(|condition| text(condition, "question")) {
                match questions.get(&question) {
                    None => {
                        let text = "Expected conditions on questions that the Questionnaire has";
                        self.issue(&rules::QUESTIONNAIRE_CONDITION, item, text);
                    }
                    Some(asked) if span.start <= asked.span().start && asked.span().end <= span.end => {
                        let text = "Expected conditions on other questions, which are not within this item";
                        self.issue(&rules::QUESTIONNAIRE_CONDITION, item, text);
                    }
                    Some(_) => {}
                }
            }
        }
    }

    /// Whether an item is enabled; None where an expression decides it that cannot be told here.
    pub(super) fn enabled(&self, whole: &Response<'_, 't>, item: Node<'_>) -> Option<bool> {
        let expression = items(item, "extension")
            .find(|extension| text(*extension, "url").is_some_and(|url| url.ends_with("-enableWhenExpression")));
        let Some(extension) = expression else { return Some(by_conditions(whole, item)) };
        let expression = extension.member("valueExpression")?;
        if text(expression, "language").as_deref() != Some("text/fhirpath") {
            return None;
        }
        let path = format!("iif({}, true, false)", text(expression, "expression")?);
        let response = resource(self.definitions, whole.node);
        let compiled = Invariant::compile(&path, self.definitions, response.ty).ok()?;
        let host = Offline::new(self.definitions);
        let budget = Budget { steps_max: STEPS_MAX, ..Budget::default() };
        let environment = Environment { budget, ..Environment::new(&host) };
        let around = (whole.node, whole.node);
        match compiled.ask_item(self.definitions, self.document, &environment, response, around) {
            Verdict::Holds => Some(true),
            Verdict::Broken => Some(false),
            Verdict::Open => None,
        }
    }
}

/// Whether an answer is an option: a Coding by system and code, anything else by value.
pub(super) fn is_option(value: Node<'_>, option: Node<'_>) -> bool {
    if option.is_object() && option.member("code").is_some() {
        return ["system", "code"].iter().all(|name| text(option, name) == text(value, name));
    }
    value::contains(value, option)
}

/// How a value stands to a limit; times by their text, of which a more precise one is the greater.
pub(super) fn compare(value: Node<'_>, bound: Node<'_>) -> Option<std::cmp::Ordering> {
    match (value.kind(), bound.kind()) {
        (Kind::Number, Kind::Number) => Some(decimal(value)?.cmp(&decimal(bound)?)),
        (Kind::String, Kind::String) => Some(value.as_str()?.cmp(&bound.as_str()?)),
        (Kind::Object, Kind::Object) => {
            let is_formal = |node: Node<'_>| node.member("code").is_some() && node.member("system").is_some();
            (is_formal(value) && is_formal(bound)).then(|| compare_quantities(value, bound)).flatten()
        }
        _ => None,
    }
}

/// Whether the conditions of an item enable it.
fn by_conditions(whole: &Response<'_, '_>, item: Node<'_>) -> bool {
    let conditions: Vec<bool> = items(item, "enableWhen").map(|condition| is_met(whole, condition)).collect();
    if conditions.is_empty() {
        return true;
    }
    let is_any = text(item, "enableBehavior").as_deref() == Some("any");
    if is_any { conditions.contains(&true) } else { !conditions.contains(&false) }
}

fn is_met(whole: &Response<'_, '_>, condition: Node<'_>) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let question = text(condition, "question").unwrap_or_default();
    let answers = whole.answers.get(&question).map_or(&[][..], Vec::as_slice);
    let Some((_, wanted)) = typed(condition, "answer") else { return false };
    let any = |test: &dyn Fn(Node<'_>) -> bool| answers.iter().any(|answer| test(*answer));
    let ordered = |orders: &[std::cmp::Ordering]| {
        any(&|answer| compare(answer, wanted).is_some_and(|order| orders.contains(&order)))
    };
    match text(condition, "operator").as_deref() {
        Some("exists") => answers.is_empty() != wanted.as_bool().unwrap_or(true),
        Some("=") => any(&|answer| is_option(answer, wanted)),
        Some("!=") => any(&|answer| !is_option(answer, wanted)),
        Some(">") => ordered(&[Greater]),
        Some("<") => ordered(&[Less]),
        Some(">=") => ordered(&[Greater, Equal]),
        Some("<=") => ordered(&[Less, Equal]),
        _ => false,
    }
}
