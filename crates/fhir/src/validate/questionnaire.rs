//! A QuestionnaireResponse against its Questionnaire (FHIR R4 questionnaireresponse.html#link): items in their places, answers of
//! their types, within their options and limits, and only where they are enabled. The Questionnaire is one of the packages' or
//! contained in the response; without it, that is said.

use std::collections::HashMap;

use super::enabled::{Response, compare, is_option, typed};
use super::reference::Scope;
use super::rules::{self, Rule};
use super::walk::Walk;
use crate::definitions::valueset::Membership;
use crate::package::{extension, items, text};
use crate::profile::value::decimal;
use crate::reference;
use crate::resource_type::is_type;
use crate::tree::{Node, Tree};

const EXTENSION: &str = "http://hl7.org/fhir/StructureDefinition/";
const DEPTH_MAX: u32 = 64;
/// The types of answers (QuestionnaireResponse.item.answer.value).
const ANSWERS: [&str; 12] = [
    "Attachment",
    "Boolean",
    "Coding",
    "Date",
    "DateTime",
    "Decimal",
    "Integer",
    "Quantity",
    "Reference",
    "String",
    "Time",
    "Uri",
];

/// An extension of an item by the last part of its url, as the member of that name.
fn limit<'q>(item: Node<'q>, name: &str) -> Option<Node<'q>> {
    let url = format!("{EXTENSION}{name}");
    let found = items(item, "extension").find(|extension| extension.member("url").is_some_and(|at| at.is_str(&url)))?;
    typed(found, "value").map(|(_, value)| value)
}

/// The same of a quantity, which Structured Data Capture defines.
fn quantity_limit<'q>(item: Node<'q>, name: &str) -> Option<Node<'q>> {
    let name = if name == "minValue" { "minQuantity" } else { "maxQuantity" };
    let url = format!("http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-{name}");
    extension(item, &url, "valueQuantity")
}

fn as_count(node: Node<'_>) -> Option<usize> {
    node.number()?.parse().ok()
}

impl<'t> Walk<'_, 't> {
    /// Holds a response against the Questionnaire that it names.
    pub(super) fn answered(&mut self, response: Node<'t>, scope: Scope<'t>) {
        let Some(named) = response.member("questionnaire") else { return };
        let Some(canonical) = named.as_str() else { return };
        if let Some(contained) = canonical.strip_prefix('#') {
            let found =
                items(scope.container, "contained").find(|one| one.member("id").is_some_and(|id| id.is_str(contained)));
            match found.filter(|found| found.resource_type() == Some("Questionnaire")) {
                Some(questionnaire) => self.against(response, questionnaire, true),
                None => {
                    self.issue(&rules::QUESTIONNAIRE_MISSING, named, "Not checked: the Questionnaire is not contained");
                }
            }
            return;
        }
        let Some(library) = self.profiles.as_ref().map(|profiles| profiles.library) else { return };
        let found: Option<std::sync::Arc<Tree>> = library.document("Questionnaire", &canonical);
        if let Some(tree) = found {
            return self.against(response, tree.root(), false);
        }
        let text = "Not checked: the Questionnaire is not among the packages";
        self.issue_about(&rules::QUESTIONNAIRE_MISSING, named, text, Some(canonical.into_owned()));
    }

    fn against(&mut self, response: Node<'t>, questionnaire: Node<'_>, is_contained: bool) {
        let mut answers: HashMap<String, Vec<Node<'t>>> = HashMap::new();
        let mut open: Vec<Node<'t>> = items(response, "item").collect();
        while let Some(item) = open.pop() {
            open.extend(items(item, "item"));
            let own = answers.entry(text(item, "linkId").unwrap_or_default()).or_default();
            for answer in items(item, "answer") {
                open.extend(items(answer, "item"));
                own.extend(typed(answer, "value").map(|(_, value)| value));
            }
        }
        let status = text(response, "status").unwrap_or_default();
        let whole = Response {
            node: response,
            questionnaire,
            answers,
            is_contained,
            is_finished: matches!(&*status, "completed" | "amended"),
        };
        self.group(&whole, response, questionnaire, 0);
    }

    /// The items in an element of the response against those in an element of the Questionnaire.
    fn group(&mut self, whole: &Response<'_, 't>, given: Node<'t>, asked: Node<'_>, depth: u32) {
        if depth >= DEPTH_MAX || self.is_full() {
            return;
        }
        let asked: Vec<Node<'_>> = items(asked, "item").collect();
        let ids: Vec<String> = asked.iter().map(|item| text(*item, "linkId").unwrap_or_default()).collect();
        let mut found: Vec<Vec<Node<'t>>> = vec![Vec::new(); asked.len()];
        let mut last = 0;
        for item in items(given, "item") {
            let id = text(item, "linkId").unwrap_or_default();
            let Some(place) = ids.iter().position(|known| *known == id) else {
                let text = "Expected only items that the Questionnaire has at this place";
                self.once_of(&rules::QUESTIONNAIRE_ITEM, given, item, text);
                continue;
            };
            if place < last {
                let text = "Expected the items in the order of the Questionnaire";
                self.once_of(&rules::QUESTIONNAIRE_ITEM, given, item, text);
            }
            last = last.max(place);
            found[place].push(item);
        }
        for (item, found) in asked.into_iter().zip(found) {
            self.asked_item(whole, given, item, &found, depth);
        }
    }

    fn asked_item(
        &mut self,
        whole: &Response<'_, 't>,
        parent: Node<'t>,
        item: Node<'_>,
        found: &[Node<'t>],
        depth: u32,
    ) {
        let is_enabled = self.enabled(whole, item);
        let kind = text(item, "type").unwrap_or_default();
        let is_group = kind == "group";
        let count: usize =
            if is_group { found.len() } else { found.iter().map(|item| items(*item, "answer").count()).sum() };
        if is_enabled == Some(false) {
            for given in found.iter().filter(|given| given.member("answer").is_some() || is_group) {
                self.once(&rules::QUESTIONNAIRE_ENABLED, *given, "Expected no answer: the item is not enabled");
            }
            return;
        }
        let is_true = |name: &str| item.member(name).and_then(Node::as_bool) == Some(true);
        let at = found.first().copied().unwrap_or(parent);
        if count == 0 && is_true("required") && is_enabled == Some(true) && whole.is_finished {
            self.once(
                &rules::QUESTIONNAIRE_REQUIRED,
                at,
                &format!("Expected an answer to each required item; {} has none", called(whole, item)),
            );
        }
        if count > 1 && !is_true("repeats") {
            self.once(
                &rules::QUESTIONNAIRE_REPEATS,
                found.get(1).copied().unwrap_or(at),
                "Expected one answer to this item only",
            );
        } else if found.len() > 1 && !is_group {
            self.once(&rules::QUESTIONNAIRE_REPEATS, found[1], "Expected all answers to a question in one item");
        }
        if let Some(least) = limit(item, "questionnaire-minOccurs").and_then(as_count)
            && count < least
            && whole.is_finished
            && !found.is_empty()
        {
            self.once(&rules::QUESTIONNAIRE_REQUIRED, at, &format!("Expected at least {least} answers"));
        }
        if let Some(most) = limit(item, "questionnaire-maxOccurs").and_then(as_count)
            && count > most
        {
            self.once(&rules::QUESTIONNAIRE_REPEATS, at, &format!("Expected at most {most} answers"));
        }
        for &given in found {
            if let (Some(own), Some(asked)) = (given.member("text"), item.member("text").and_then(Node::as_str))
                && !own.is_str(&asked)
            {
                self.once_of(&rules::QUESTIONNAIRE_TEXT, given, own, "Expected the text of the Questionnaire's item");
            }
            if matches!(&*kind, "group" | "display" | "question") {
                if given.member("answer").is_some() {
                    self.once(
                        &rules::QUESTIONNAIRE_ANSWER,
                        given,
                        "Expected no answer to an item that is not a question",
                    );
                }
                self.group(whole, given, item, depth + 1);
                continue;
            }
            if given.member("item").is_some() {
                let text = "Expected the items within a question below its answers";
                self.once(&rules::QUESTIONNAIRE_ITEM, given, text);
            }
            self.exclusive(item, given);
            for answer in items(given, "answer") {
                self.answer(whole, item, &kind, answer);
                self.group(whole, answer, item, depth + 1);
            }
        }
    }

    /// One answer: its type, its options, its limits.
    fn answer(&mut self, whole: &Response<'_, 't>, item: Node<'_>, kind: &str, answer: Node<'t>) {
        let Some((suffix, value)) = typed(answer, "value") else { return };
        let allowed: &[&str] = match kind {
            "boolean" => &["Boolean"],
            "decimal" => &["Decimal", "Integer"],
            "integer" => &["Integer"],
            "date" => &["Date"],
            "dateTime" => &["DateTime"],
            "time" => &["Time"],
            "string" | "text" => &["String"],
            "url" => &["Uri"],
            "attachment" => &["Attachment"],
            "reference" => &["Reference"],
            "quantity" => &["Quantity"],
            "choice" => &["Coding", "Integer", "Date", "Time", "String", "Reference"],
            "open-choice" => &["Coding", "Integer", "Date", "Time", "String", "Reference"],
            _ => return,
        };
        if !allowed.contains(&suffix) {
            // What is no type of any answer is an issue already.
            if !ANSWERS.contains(&suffix) {
                return;
            }
            let text = format!("Expected an answer of the type {}", allowed.join(" or "));
            return self.once(&rules::QUESTIONNAIRE_ANSWER, value, &text);
        }
        // A text of one's own is an answer to an open choice.
        let is_own = kind == "open-choice" && suffix == "String";
        let options: Vec<Node<'_>> =
            items(item, "answerOption").filter_map(|option| typed(option, "value").map(|(_, value)| value)).collect();
        if !options.is_empty() && !is_own && !options.iter().any(|option| is_option(value, *option)) {
            // Of its type there is none, or another.
            let has_type = options.iter().any(|option| option.name() == value.name());
            let at = if has_type && !value.is_object() { value } else { answer };
            self.once(&rules::QUESTIONNAIRE_OPTION, at, "Expected one of the item's options");
        }
        if let Some(set) = text(item, "answerValueSet").filter(|_| suffix == "Coding") {
            self.in_set(whole, &set, value, answer);
        }
        self.limits(item, value, answer);
        if suffix == "Reference" {
            self.referred(item, value);
        }
        if suffix == "Quantity" {
            self.unit(whole, item, value);
        }
    }

    /// A Coding in the value set of an item, which may be contained in the Questionnaire.
    fn in_set(&mut self, whole: &Response<'_, 't>, set: &str, coding: Node<'t>, at: Node<'t>) {
        let Some(library) = self.profiles.as_ref().map(|profiles| profiles.library) else { return };
        let Some(code) = text(coding, "code") else { return };
        let system = text(coding, "system").unwrap_or_default();
        let member = match set.strip_prefix('#') {
            None => library.member_of(set, Some(&system), &code),
            Some(id) => items(whole.questionnaire, "contained")
                .find(|one| one.member("id").is_some_and(|known| known.is_str(id)))
                .map_or(Membership::Unknown, |set| library.member_of_node(set, Some(&system), &code)),
        };
        match member {
            Membership::In => {}
            Membership::Out => self.once(&rules::QUESTIONNAIRE_OPTION, at, "Expected a code of the item's value set"),
            Membership::Unknown => {
                let text = format!("Not checked: the value set {set} cannot be expanded");
                self.once(&rules::QUESTIONNAIRE_MISSING, at, &text);
            }
        }
    }

    fn limits(&mut self, item: Node<'_>, value: Node<'t>, answer: Node<'t>) {
        let length = value.as_str().map(|text| text.chars().count());
        if let (Some(most), Some(length)) = (item.member("maxLength").and_then(as_count), length)
            && length > most
        {
            self.once(&rules::QUESTIONNAIRE_LIMIT, value, &format!("Expected at most {most} characters"));
        }
        if let (Some(least), Some(length)) = (limit(item, "minLength").and_then(as_count), length)
            && length < least
        {
            self.once(&rules::QUESTIONNAIRE_LIMIT, value, &format!("Expected at least {least} characters"));
        }
        if let (Some(expression), Some(text)) = (limit(item, "regex").and_then(Node::as_str), value.as_str())
            && regex::Regex::new(&format!("^(?:{expression})$")).is_ok_and(|regex| !regex.is_match(&text))
        {
            self.once(&rules::QUESTIONNAIRE_LIMIT, value, "Expected the format that the item describes");
        }
        for (name, wrong, which) in [
            ("minValue", std::cmp::Ordering::Less, "below the least"),
            ("maxValue", std::cmp::Ordering::Greater, "above the greatest"),
        ] {
            let Some(bound) = limit(item, name).or_else(|| quantity_limit(item, name)) else { continue };
            match compare(value, bound) {
                Some(order) if order == wrong => {
                    self.once(&rules::QUESTIONNAIRE_LIMIT, value, &format!("Expected no value {which} of the item"));
                }
                None if value.is_object() => {
                    let text = "Expected a quantity that can be compared with the item's limits";
                    self.once(&rules::QUESTIONNAIRE_LIMIT, value, text);
                }
                _ => {}
            }
        }
        if let (Some(most), Some(places)) = (
            limit(item, "maxDecimalPlaces").and_then(as_count),
            value.number().and_then(|n| Some(n.split_once('.')?.1.len())),
        ) && places > most
        {
            self.once(&rules::QUESTIONNAIRE_LIMIT, value, &format!("Expected at most {most} decimal places"));
        }
        let types: Vec<Node<'_>> = items(item, "extension")
            .filter(|extension| extension.member("url").is_some_and(|url| url.is_str(&format!("{EXTENSION}mimeType"))))
            .filter_map(|extension| typed(extension, "value").map(|(_, value)| value))
            .collect();
        if let Some(found) = value.member("contentType").and_then(Node::as_str)
            && !types.is_empty()
            && !types.iter().any(|known| known.is_str(&found))
        {
            self.once(&rules::QUESTIONNAIRE_LIMIT, answer, "Expected an attachment of one of the item's media types");
        }
        let bytes = value.member("size").and_then(decimal).or_else(|| {
            let data = value
                .member("data")?
                .as_str()?
                .bytes()
                .filter(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte))
                .count();
            Some((data * 3 / 4).into())
        });
        if let (Some(most), Some(bytes)) = (limit(item, "maxSize").and_then(decimal), bytes)
            && bytes > most
        {
            self.once(&rules::QUESTIONNAIRE_LIMIT, answer, &format!("Expected an attachment of at most {most} bytes"));
        }
    }

    /// A reference is to one of the types that the item allows.
    fn referred(&mut self, item: Node<'_>, value: Node<'t>) {
        let url = format!("{EXTENSION}questionnaire-referenceResource");
        let allowed: Vec<String> = items(item, "extension")
            .filter(|extension| extension.member("url").is_some_and(|at| at.is_str(&url)))
            .filter_map(|extension| text(extension, "valueCode"))
            .filter(|name| is_type(name))
            .collect();
        let reference = text(value, "reference").unwrap_or_default();
        let named = reference::parse(&reference).resource_type();
        if named.is_some_and(|name| !allowed.is_empty() && !allowed.iter().any(|known| known == name)) {
            let text = format!("Expected a reference to {}", allowed.join(" or "));
            self.once(&rules::QUESTIONNAIRE_ANSWER, value, &text);
        }
    }

    /// The unit of a quantity is one of the item's.
    fn unit(&mut self, whole: &Response<'_, 't>, item: Node<'_>, quantity: Node<'t>) {
        let units: Vec<Node<'_>> = items(item, "extension")
            .filter(|extension| {
                extension.member("url").is_some_and(|url| url.is_str(&format!("{EXTENSION}questionnaire-unitOption")))
            })
            .filter_map(|extension| extension.member("valueCoding"))
            .collect();
        let same = |unit: &&Node<'_>| {
            text(**unit, "code") == text(quantity, "code") && text(**unit, "system") == text(quantity, "system")
        };
        if !units.is_empty() && !units.iter().any(|unit| same(&unit)) {
            self.once(&rules::QUESTIONNAIRE_OPTION, quantity, "Expected one of the item's units");
        }
        let url = format!("{EXTENSION}questionnaire-unitValueSet");
        if let Some(set) = extension(item, &url, "valueCanonical").and_then(Node::as_str) {
            if quantity.member("code").is_none() {
                self.once(&rules::QUESTIONNAIRE_OPTION, quantity, "Expected a unit of the item's value set");
            } else {
                self.in_set(whole, &set, quantity, quantity);
            }
        }
    }

    /// An option that excludes others stands alone.
    fn exclusive(&mut self, item: Node<'_>, given: Node<'t>) {
        let url = format!("{EXTENSION}questionnaire-optionExclusive");
        let excluding: Vec<Node<'_>> = items(item, "answerOption")
            .filter(|option| extension(*option, &url, "valueBoolean").and_then(Node::as_bool) == Some(true))
            .filter_map(|option| typed(option, "value").map(|(_, value)| value))
            .collect();
        if excluding.is_empty() || items(given, "answer").count() < 2 {
            return;
        }
        for answer in items(given, "answer") {
            let value = typed(answer, "value").map(|(_, value)| value);
            if value.is_some_and(|value| excluding.iter().any(|option| is_option(value, *option))) {
                self.once(&rules::QUESTIONNAIRE_OPTION, answer, "Expected no other answer beside this option");
            }
        }
    }

    /// The same of an element, seen at a node within it.
    fn once_of(&mut self, rule: &'static Rule, element: Node<'t>, node: Node<'t>, text: &str) {
        if !self.has(rule, node, text) {
            self.issue_of(rule, element, node, text);
        }
    }

    fn once(&mut self, rule: &'static Rule, node: Node<'t>, text: &str) {
        if !self.has(rule, node, text) {
            self.issue(rule, node, text);
        }
    }
}

/// What to call an item: by its linkId, unless the Questionnaire is part of the record and its texts with it.
fn called(whole: &Response<'_, '_>, item: Node<'_>) -> String {
    let id = text(item, "linkId").filter(|id| !whole.is_contained && id.len() <= 64);
    id.unwrap_or_else(|| "an item".to_owned())
}
