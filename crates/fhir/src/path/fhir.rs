//! Functions on at most one item, and what FHIR adds to FHIRPath: extensions, references, terminology, profiles, narrative.

use std::borrow::Cow;

use super::convert;
use super::error::Fault;
use super::eval::{Outcome, Run, only};
use super::functions::Function;
use super::host::Conformance;
use super::item::{Collection, Item};
use super::navigate;
use super::temporal::Temporal;
use super::types::Type;
use crate::definitions::primitive::Primitive;
use crate::definitions::valueset::Membership;
use crate::reference::{self, Reference};
use crate::tree::Node;
use crate::xhtml;

impl<'a> Run<'a> {
    /// Functions that are not about collections.
    pub(super) fn apply_to_one(
        &self,
        function: Function,
        input: &Collection<'a>,
        arguments: &[Collection<'a>],
        at: u32,
    ) -> Outcome<'a> {
        let first = arguments.first();
        match function {
            Function::Extension => return self.extension(input, first, at),
            Function::Resolve => return self.resolve_all(input, at),
            Function::Join => return self.join(input, first, at),
            Function::Now | Function::Today | Function::TimeOfDay => return self.clock(function, at),
            Function::CheckModifiers => return self.check_modifiers(input, arguments, at),
            Function::HasValue => {
                let value = input.only().ok().flatten();
                return Ok(Collection::from(value.is_some_and(|item| self.is_valued(item))));
            }
            _ => {}
        }
        let Some(item) = only(input, at)? else { return Ok(Collection::Empty) };
        match function {
            Function::GetValue => return Ok(Collection::from(self.system(item).filter(|_| self.is_valued(item)))),
            Function::MemberOf => return self.member_of(item, first, at),
            Function::Subsumes | Function::SubsumedBy => return self.subsumes(function, item, first, at),
            Function::ConformsTo => return self.conforms_to(item, first, at),
            Function::HtmlChecks | Function::HtmlChecks2 => {
                let Some(text) = self.string(input, at)? else { return Ok(Collection::Empty) };
                self.charge(at, text.len() / 16)?;
                return Ok(Collection::from(xhtml::is_allowed(&text)));
            }
            _ => {}
        }
        let value = self.system(item);
        if value.is_none() && self.is_empty_primitive(item) {
            return Ok(Collection::Empty);
        }
        match function {
            Function::ToBoolean
            | Function::ToInteger
            | Function::ToDecimal
            | Function::ToString
            | Function::ToDate
            | Function::ToDateTime
            | Function::ToTime => Ok(Collection::from(value.and_then(|value| convert::convert(function, &value)))),
            Function::ToQuantity => {
                let quantity = value.and_then(|value| convert::convert(function, &value));
                Ok(Collection::from(quantity.filter(|quantity| self.fits_unit(quantity, first, at))))
            }
            Function::ConvertsToBoolean
            | Function::ConvertsToInteger
            | Function::ConvertsToDecimal
            | Function::ConvertsToString
            | Function::ConvertsToDate
            | Function::ConvertsToDateTime
            | Function::ConvertsToTime => {
                Ok(Collection::from(value.is_some_and(|value| convert::convert(function, &value).is_some())))
            }
            Function::ConvertsToQuantity => {
                let quantity = value.and_then(|value| convert::convert(function, &value));
                Ok(Collection::from(quantity.is_some_and(|quantity| self.fits_unit(&quantity, first, at))))
            }
            Function::LowBoundary | Function::HighBoundary => {
                let digits = first.map_or(Ok(None), |digits| self.integer(digits, at))?;
                let mismatch = || Fault::evaluation(at, "Expected a number, a quantity, a date or a time");
                let value = value.ok_or_else(mismatch)?;
                if let Item::Boolean(_) | Item::String(_) = value {
                    return Err(mismatch());
                }
                Ok(Collection::from(convert::boundary(&value, digits, function == Function::LowBoundary)))
            }
            Function::Precision => Ok(Collection::from(value.and_then(|value| convert::precision(&value)))),
            Function::Comparable => {
                let other = first.map_or(Ok(None), |other| only(other, at))?;
                let other = other.and_then(|other| self.system(other));
                let (Some(Item::Quantity(left)), Some(Item::Quantity(right))) = (value, other) else {
                    return Err(Fault::evaluation(at, "Expected two quantities"));
                };
                Ok(Collection::from(left.is_comparable(&right)))
            }
            Function::Abs
            | Function::Ceiling
            | Function::Exp
            | Function::Floor
            | Function::Ln
            | Function::Log
            | Function::Power
            | Function::Round
            | Function::Sqrt
            | Function::Truncate => match value {
                Some(value) => self.math(function, &value, arguments, at),
                None => Err(Fault::evaluation(at, format!("Expected a number for {}", function.name()))),
            },
            _ => match self.string(input, at)? {
                Some(text) => self.strings(function, &text, arguments, at),
                None => Ok(Collection::Empty),
            },
        }
    }

    /// Whether a quantity can be told in the unit asked for.
    fn fits_unit(&self, quantity: &Item<'a>, unit: Option<&Collection<'a>>, at: u32) -> bool {
        let Some(unit) = unit else { return true };
        let (Ok(Some(unit)), Item::Quantity(quantity)) = (self.string(unit, at), quantity) else { return false };
        let other = super::quantity::Quantity { value: quantity.value, unit: super::quantity::Unit::quoted(&unit) };
        quantity.is_comparable(&other)
    }

    /// Whether it is a primitive with a value.
    fn is_valued(&self, item: &Item<'a>) -> bool {
        match item {
            Item::Element(element) => !matches!(element.ty, Type::Object(..)) && self.system(item).is_some(),
            other => !matches!(other, Item::TypeInfo { .. } | Item::Elsewhere(_)),
        }
    }

    fn clock(&self, function: Function, at: u32) -> Outcome<'a> {
        let now = self.environment.now.and_then(Temporal::date_time);
        let now = now.ok_or_else(|| Fault::evaluation(at, "Expected a caller who tells the time"))?;
        Ok(Collection::from(
            match function {
                Function::Now => Some(now),
                Function::Today => now.to_date(),
                _ => now.to_time(),
            }
            .map(Item::Temporal),
        ))
    }

    /// Extensions by url.
    fn extension(&self, input: &Collection<'a>, url: Option<&Collection<'a>>, at: u32) -> Outcome<'a> {
        let Some(url) = url.map_or(Ok(None), |url| self.string(url, at))? else { return Ok(Collection::Empty) };
        let mut found = Collection::Empty;
        for item in input.iter() {
            let Item::Element(element) = item else { continue };
            let mut looked_at = 0;
            navigate::children(self.definitions, self.tree(), *element, &mut |name, child| {
                looked_at += 1;
                let node = child.value(self.tree());
                if name == "extension"
                    && node.and_then(|node| node.member("url")).is_some_and(|found| found.is_str(&url))
                {
                    found.push(Item::Element(child));
                }
            });
            self.charge(at, looked_at)?;
        }
        Ok(found)
    }

    /// An error if there is a modifier extension that is not among those given.
    fn check_modifiers(&self, input: &Collection<'a>, urls: &[Collection<'a>], at: u32) -> Outcome<'a> {
        let mut known = Vec::with_capacity(urls.len());
        for url in urls {
            known.extend(self.string(url, at)?);
        }
        for item in input.iter() {
            let Item::Element(element) = item else { continue };
            let node = element.value(self.tree());
            for extension in node.and_then(|node| node.member("modifierExtension")).into_iter().flat_map(Node::items) {
                self.charge(at, 1 + known.len())?;
                let url = extension.member("url").and_then(Node::as_str);
                if !url.is_some_and(|url| known.contains(&url)) {
                    return Err(Fault::evaluation(at, "Expected no modifier extensions but those named"));
                }
            }
        }
        Ok(input.clone())
    }

    fn resolve_all(&self, input: &Collection<'a>, at: u32) -> Outcome<'a> {
        let mut found = Collection::Empty;
        for item in input.iter() {
            self.charge(at, 10)?;
            let Item::Element(element) = item else {
                if let Item::String(text) = item {
                    found.append(Collection::from(self.resolve(text, None)));
                }
                continue;
            };
            let Some(node) = element.value(self.tree()) else { continue };
            let text = if node.is_object() { node.member("reference").and_then(Node::as_str) } else { node.as_str() };
            if let Some(text) = text {
                found.append(Collection::from(self.resolve(&text, Some(node))));
            }
        }
        Ok(found)
    }

    /// What a reference names: in its container, in its Bundle, or only its type. Nothing is fetched from anywhere.
    fn resolve(&self, text: &str, from: Option<Node<'a>>) -> Option<Item<'a>> {
        let element = |node: Node<'a>| Item::Element(navigate::resource(self.definitions, node));
        let here = from.or(self.focus.resource.value(self.tree()))?;
        if let Some(found) = self.document.resource_at(text, here) {
            return Some(element(found));
        }
        let (Reference::Relative { resource_type, .. }
        | Reference::Absolute { resource_type, .. }
        | Reference::Conditional { resource_type, .. }) = reference::parse(text)
        else {
            return None;
        };
        self.definitions.resource_named(resource_type).map(Item::Elsewhere)
    }

    /// The codes of an item: its own, its Coding's or its CodeableConcept's.
    fn codings(&self, item: &Item<'a>) -> Vec<(Option<Cow<'a, str>>, Cow<'a, str>)> {
        let of = |node: Node<'a>| {
            let code = node.member("code").and_then(Node::as_str)?;
            Some((node.member("system").and_then(Node::as_str), code))
        };
        match item {
            Item::String(text) => vec![(None, text.clone())],
            Item::Element(element) => match element.value(self.tree()) {
                Some(node) if node.is_object() => match node.member("coding") {
                    Some(codings) => codings.items().filter_map(of).collect(),
                    None => of(node).into_iter().collect(),
                },
                Some(node) => node.as_str().map(|code| (None, code)).into_iter().collect(),
                None => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    fn member_of(&self, item: &Item<'a>, set: Option<&Collection<'a>>, at: u32) -> Outcome<'a> {
        let Some(set) = set.map_or(Ok(None), |set| self.string(set, at))? else { return Ok(Collection::Empty) };
        let mut answer = Membership::Out;
        for (system, code) in self.codings(item) {
            self.charge(at, 10)?;
            match self.environment.host.member_of(&set, system.as_deref(), &code) {
                Membership::In => return Ok(Collection::from(true)),
                Membership::Unknown => answer = Membership::Unknown,
                Membership::Out => {}
            }
        }
        if answer == Membership::Unknown {
            self.unknown.set(true);
            return Ok(Collection::Empty);
        }
        Ok(Collection::from(false))
    }

    fn subsumes(&self, function: Function, item: &Item<'a>, other: Option<&Collection<'a>>, at: u32) -> Outcome<'a> {
        let Some(other) = other.map_or(Ok(None), |other| only(other, at))? else { return Ok(Collection::Empty) };
        let mut is_unknown = false;
        for (system, code) in self.codings(item) {
            for (other_system, other_code) in self.codings(other) {
                self.charge(at, 10)?;
                if system != other_system {
                    continue;
                }
                let pair = if function == Function::Subsumes { (&code, &other_code) } else { (&other_code, &code) };
                match system.as_deref().map(|system| self.environment.host.subsumes(system, pair.0, pair.1)) {
                    _ if code == other_code => return Ok(Collection::from(true)),
                    Some(Some(true)) => return Ok(Collection::from(true)),
                    Some(Some(false)) => {}
                    Some(None) | None => is_unknown = true,
                }
            }
        }
        if is_unknown {
            self.unknown.set(true);
            return Ok(Collection::Empty);
        }
        Ok(Collection::from(false))
    }

    fn conforms_to(&self, item: &Item<'a>, profile: Option<&Collection<'a>>, at: u32) -> Outcome<'a> {
        let Some(profile) = profile.map_or(Ok(None), |profile| self.string(profile, at))? else {
            return Ok(Collection::Empty);
        };
        let node = match item {
            Item::Element(element) if !matches!(element.ty, Type::Primitive(Primitive::Xhtml)) => {
                element.value(self.tree())
            }
            _ => None,
        };
        let Some(node) = node else { return Err(Fault::evaluation(at, "Expected an element for conformsTo")) };
        match self.environment.host.conforms_to(node, self.type_of(item).name(self.definitions), &profile) {
            Conformance::Conforms => Ok(Collection::from(true)),
            Conformance::Differs => Ok(Collection::from(false)),
            Conformance::Unknown => Err(Fault::evaluation(at, "Expected a profile that is known here")),
        }
    }
}
