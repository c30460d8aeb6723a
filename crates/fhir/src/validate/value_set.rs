//! ValueSets: what they include is of code systems, by codes, filters and values that these have (FHIR R4 valueset.html).

use super::rules;
use super::walk::Walk;
use crate::definitions::primitive::Primitive;
use crate::package::{extension, items, text};
use crate::path::is_expression;
use crate::profile::library::InSystem;
use crate::tree::{Node, Tree};

impl<'t> Walk<'_, 't> {
    pub(super) fn value_set(&mut self, set: Node<'t>) {
        let Some(compose) = set.member("compose") else { return };
        for part in items(compose, "include").chain(items(compose, "exclude")) {
            if self.is_full() {
                return;
            }
            let Some(system) = text(part, "system") else { continue };
            let system = if let Some((url, version)) = system.split_once('|') {
                if !version.is_empty() {
                    self.issue(
                        &rules::VALUE_SET,
                        part,
                        "Expected the version in a member of its own, not in the system",
                    );
                }
                url.to_owned()
            } else {
                system
            };
            if !system.contains(':') {
                let text = "Expected a system that is an absolute URI, that of a contained code system too";
                self.issue(&rules::VALUE_SET, part, text);
                continue;
            }
            self.included(part, &system);
            let library = self.profiles.as_ref().map(|profiles| profiles.library);
            let definition = library.and_then(|library| library.written(&system, "CodeSystem"));
            for filter in items(part, "filter") {
                if let Some(companion) = filter.member("_value").filter(|_| filter.member("value").is_none()) {
                    self.filter_expression(set, companion);
                }
                self.filter(filter, definition.as_ref());
            }
        }
    }

    /// The value of a filter that an expression gives, of parameters that the value set declares.
    fn filter_expression(&mut self, set: Node<'t>, value: Node<'t>) {
        const EXPRESSION: &str = "http://hl7.org/fhir/StructureDefinition/cqf-expression";
        const PARAMETER: &str = "http://hl7.org/fhir/tools/StructureDefinition/valueset-parameter";
        let Some(at) = extension(value, EXPRESSION, "valueExpression") else { return };
        if !at.member("language").is_some_and(|language| language.is_str("text/fhirpath")) {
            return self.issue(&rules::VALUE_SET, at, "Expected an expression in FHIRPath");
        }
        let Some(text_of) = text(at, "expression") else { return };
        if !is_expression(&text_of) {
            return self.issue(&rules::VALUE_SET, at, "Expected an expression in FHIRPath");
        }
        let declared: Vec<String> = items(set, "extension")
            .filter(|extension| extension.member("url").is_some_and(|url| url.is_str(PARAMETER)))
            .filter_map(|parameter| {
                let name = items(parameter, "extension")
                    .find(|part| part.member("url").is_some_and(|url| url.is_str("name")))?;
                name.members()
                    .find(|member| member.name().is_some_and(|name| name.starts_with("value")))?
                    .as_str()
                    .map(Into::into)
            })
            .collect();
        let is_declared = |after: &str| {
            let name: String =
                after.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
            declared.contains(&name)
        };
        if !text_of.split('%').skip(1).all(is_declared) {
            self.issue(&rules::VALUE_SET, at, "Expected parameters only that the value set declares");
        }
    }

    /// The codes that are listed are codes of the system, as far as that is known whole.
    fn included(&mut self, part: Node<'t>, system: &str) {
        // Another version may have other codes.
        if part.member("version").is_some() || part.member("concept").is_none() {
            return;
        }
        for concept in items(part, "concept") {
            let Some(code) = text(concept, "code") else { continue };
            if self.is_no_code(system, &code) {
                self.issue(&rules::VALUE_SET, concept, "Expected a code of the code system that is named");
            }
        }
    }

    /// Whether a code system that is known whole has no such code.
    pub(super) fn is_no_code(&self, system: &str, code: &str) -> bool {
        if let Some(known) = self.definitions.code_system(system) {
            return !known.contains(self.definitions, code);
        }
        let library = self.profiles.as_ref().map(|profiles| profiles.library);
        library.and_then(|library| library.code_in(system, Some(code))) == Some(InSystem::Out)
    }

    /// The value of a filter is of the type of its property.
    fn filter(&mut self, filter: Node<'t>, definition: Option<&Tree>) {
        let (Some(property), Some(op)) = (text(filter, "property"), text(filter, "op")) else { return };
        let Some(value) = text(filter, "value") else { return };
        let mut wrong = |expected: &str| self.issue(&rules::VALUE_SET, filter, expected);
        if op == "exists" {
            if !matches!(&*value, "true" | "false") {
                wrong("Expected true or false, whether the property exists");
            }
            return;
        }
        if op == "regex" {
            // Its grammar alone is asked about: an expression that is too large to be compiled is one.
            let compiled = regex::RegexBuilder::new(&value).size_limit(1 << 16).build();
            if value.len() <= 1024 && matches!(compiled, Err(regex::Error::Syntax(_))) {
                wrong("Expected a regular expression");
            }
            return;
        }
        let Some(definition) = definition else { return };
        let own =
            items(definition.root(), "property").find(|own| own.member("code").is_some_and(|at| at.is_str(&property)));
        let Some(ty) = own.and_then(|own| text(own, "type")) else { return };
        let values: Vec<&str> = if matches!(&*op, "in" | "not-in") { value.split(',').collect() } else { vec![&value] };
        for value in values {
            let plain =
                ["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"].iter().find_map(|p| value.strip_prefix(p));
            let fits = match &*ty {
                "boolean" => matches!(value, "true" | "false"),
                "code" => value.trim() == value,
                "integer" => is(Primitive::Integer, plain.unwrap_or(value)),
                "decimal" => plain.unwrap_or(value).parse::<rust_decimal::Decimal>().is_ok(),
                "dateTime" => is(Primitive::DateTime, plain.unwrap_or(value)),
                "Coding" => {
                    let (system, code) = value.split_once('#').unwrap_or_default();
                    let url = system.split_once('|').map_or(system, |(url, _)| url);
                    if !url.contains(':') || code.is_empty() {
                        false
                    } else if self.is_no_code(url, code) {
                        self.issue(
                            &rules::VALUE_SET,
                            filter,
                            "Expected a code of the code system that the value names",
                        );
                        continue;
                    } else {
                        true
                    }
                }
                _ => true,
            };
            if !fits {
                let form = if ty == "Coding" { "Coding: system#code" } else { &*ty };
                self.issue(&rules::VALUE_SET, filter, format!("Expected a value of the property's type, {form}"));
            }
        }
    }
}

fn is(primitive: Primitive, value: &str) -> bool {
    super::lexical::broken_rule(primitive, value).is_none()
}
