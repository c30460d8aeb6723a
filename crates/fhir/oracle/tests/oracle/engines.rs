//! Two engines behind one question. Answers are compared as texts: a decimal by its value, since the oracle reads numbers
//! as floating point, an object as JSON with its members sorted.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use rh_fhirpath::{EvaluationContext, FhirPathEvaluator, FhirPathExpression, FhirPathParser, FhirPathValue};
use rust_decimal::Decimal;
use serde_json::Value;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::path::{self, Environment, Expression, Mode, Offline};
use sluice_fhir::tree::{Limits, Node, Tree};

use crate::corpus::Place;

/// What an engine says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Items(Vec<String>),
    Error,
}

/// A resource in the form that each of them takes.
pub struct Document {
    pub name: String,
    pub value: Value,
    tree: Tree,
    context: EvaluationContext,
}

thread_local! {
    static OURS: RefCell<HashMap<String, Option<Rc<Expression>>>> = RefCell::default();
    static THEIRS: RefCell<HashMap<String, Option<Rc<FhirPathExpression>>>> = RefCell::default();
}

impl Document {
    pub fn new(name: &str, text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap();
        let tree = Tree::parse(text.to_owned().into(), &Limits::default()).unwrap();
        Self { name: name.to_owned(), context: EvaluationContext::new(value.clone()), value, tree }
    }

    pub fn ours(&self, text: &str, at: &Place) -> Answer {
        let definitions = Definitions::r4();
        let compiled = OURS.with_borrow_mut(|known| {
            let of = at.of.as_deref();
            let key = format!("{} {text}", of.unwrap_or_default());
            let compile = || Expression::compile(text, &definitions, of, Mode::Lenient).ok().map(Rc::new);
            known.entry(key).or_insert_with(compile).clone()
        });
        let Some(expression) = compiled else { return Answer::Error };
        let host = Offline::new(&definitions);
        let environment = Environment::new(&host);
        let document = path::Document::new(&self.tree);
        match expression.evaluate(&document, at.node(self.tree.root()), &environment) {
            Ok(answer) => Answer::Items(answer.values.iter().filter_map(our_text).collect()),
            Err(_) => Answer::Error,
        }
    }

    pub fn theirs(&self, text: &str, at: &Place) -> Answer {
        let parsed = THEIRS.with_borrow_mut(|known| {
            let parse = || FhirPathParser::new().parse(text).ok().map(Rc::new);
            known.entry(text.to_owned()).or_insert_with(parse).clone()
        });
        let Some(expression) = parsed else { return Answer::Error };
        let evaluate = || {
            let evaluator = FhirPathEvaluator::new();
            if at.path.is_empty() {
                evaluator.evaluate(&expression, &self.context)
            } else {
                evaluator.evaluate(&expression, &self.context.with_current(at.value(&self.value).clone()))
            }
        };
        match catch_unwind(AssertUnwindSafe(evaluate)) {
            Ok(Ok(value)) => {
                let mut items = Vec::new();
                their_texts(&value, &mut items);
                Answer::Items(items)
            }
            Ok(Err(_)) | Err(_) => Answer::Error,
        }
    }
}

impl Place {
    /// The node there.
    fn node<'t>(&self, root: Node<'t>) -> Node<'t> {
        self.path.iter().fold(root, |node, step| match step.parse::<usize>() {
            Ok(index) => node.items().nth(index).unwrap(),
            Err(_) => node.member(step).unwrap(),
        })
    }

    /// The value there.
    pub fn value<'v>(&self, root: &'v Value) -> &'v Value {
        self.path.iter().fold(root, |value, step| match step.parse::<usize>() {
            Ok(index) => &value[index],
            Err(_) => &value[step.as_str()],
        })
    }
}

/// None of a primitive that has no value, which the oracle leaves out.
fn our_text(value: &path::Value<'_>) -> Option<String> {
    match value.type_name() {
        "Quantity" if value.node().is_none() => {
            let text = value.text()?;
            let (number, unit) = text.split_once(' ').unwrap_or((&text, "1"));
            Some(quantity(decimal(number), unit.trim_matches('\'')))
        }
        "TypeInfo" => value.text().map(|text| text.into_owned()),
        _ => match value.node() {
            Some(node) if node.is_object() => Some(object(&serde_json::from_slice(node.raw()).unwrap())),
            None if value.text().is_none() => None,
            _ if matches!(value.type_name(), "decimal" | "integer" | "positiveInt" | "unsignedInt") => {
                Some(decimal(&value.text()?))
            }
            _ => value.text().map(|text| text.into_owned()),
        },
    }
}

fn their_texts(value: &FhirPathValue, items: &mut Vec<String>) {
    match value {
        FhirPathValue::Empty => {}
        FhirPathValue::Collection(values) | FhirPathValue::UnorderedCollection(values) => {
            values.iter().for_each(|value| their_texts(value, items));
        }
        FhirPathValue::FhirPrimitive { inner, .. } => their_texts(inner, items),
        FhirPathValue::Object(Value::Null) => {}
        FhirPathValue::Object(value) | FhirPathValue::TypedObject { value, .. } => items.push(object(value)),
        FhirPathValue::Number(number) => items.push(decimal(&number.to_string())),
        FhirPathValue::Quantity { value, unit } => {
            items.push(quantity(decimal(&value.to_string()), unit.as_deref().unwrap_or("1")));
        }
        other => items.push(match other.to_json() {
            Value::String(text) => text,
            other => other.to_string(),
        }),
    }
}

fn decimal(text: &str) -> String {
    // As far as floating point tells it.
    let number = text.parse::<Decimal>().or_else(|_| Decimal::from_scientific(text));
    number.map_or_else(|_| text.to_owned(), |number| number.round_dp(9).normalize().to_string())
}

fn quantity(number: String, unit: &str) -> String {
    format!("{number} {unit}")
}

/// A Quantity by what it means, which is how the oracle gives some; any other object as JSON.
fn object(value: &Value) -> String {
    match (value.get("value"), value.get("code").or(value.get("unit"))) {
        (Some(Value::Number(number)), Some(Value::String(unit))) => quantity(decimal(&number.to_string()), unit),
        (Some(Value::Number(number)), None) => quantity(decimal(&number.to_string()), "1"),
        _ => value.to_string(),
    }
}
