//! A compiled profile: its elements with what they demand beyond their base types, and nothing else. A resource's walk goes by
//! these elements, so what a profile does not speak of costs nothing.
//!
//! Profiles name each other, and value sets, by their canonicals alone: recursion costs nothing, and a compiled profile
//! outlives the set of packages that it came with.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::definitions::{Strength, TypeId};
use crate::outcome::Severity;
use crate::path::{Invariant, Type};
use crate::tree::{Node, NodeId, Tree};

/// A profile, or the definition of an extension.
#[derive(Debug)]
pub(crate) struct Profile {
    pub(crate) url: Box<str>,
    /// The type that it constrains.
    pub(crate) of: TypeId,
    /// The first is the root.
    pub(crate) elements: Vec<Element>,
    /// Where an extension may stand; empty for other profiles.
    pub(crate) contexts: Vec<Context>,
    /// FHIRPath that holds of the element that an extension stands in.
    pub(crate) context_invariants: Vec<Box<str>>,
    /// An extension that modifies what it stands in.
    pub(crate) is_modifier: bool,
    /// Profiles that hold for whatever claims this one (structuredefinition-imposeProfile).
    pub(crate) imposed: Box<[Box<str>]>,
}

/// Where an extension may stand (StructureDefinition.context).
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) kind: Box<str>,
    pub(crate) expression: Box<str>,
}

/// The place of an element in its profile.
pub(crate) type Place = usize;

/// One element, or one slice of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Element {
    /// Without `[x]`.
    pub(crate) name: Box<str>,
    /// As the profile calls it: `Observation.category:VSCat`.
    pub(crate) id: Box<str>,
    pub(crate) min: u32,
    /// None: as often as the base allows.
    pub(crate) max: Option<u32>,
    /// Empty: those of the base.
    pub(crate) types: Vec<TypeRule>,
    pub(crate) fixed: Option<Sample>,
    pub(crate) patterns: Vec<Sample>,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) constraints: Vec<Arc<Rule>>,
    pub(crate) slicing: Option<Slicing>,
    pub(crate) slices: Vec<Slice>,
    pub(crate) children: Vec<Place>,
    /// In characters.
    pub(crate) length_max: Option<u32>,
    pub(crate) value_min: Option<Sample>,
    pub(crate) value_max: Option<Sample>,
    /// What few elements say.
    pub(crate) more: Option<Box<More>>,
}

/// Demands that few elements make, and expectations that none can break.
#[derive(Debug, Clone, Default)]
pub(crate) struct More {
    /// A primitive has a value, not only extensions (ElementDefinition.mustHaveValue of R5).
    pub(crate) has_value: bool,
    /// Extensions, one of which stands where the value does not (ElementDefinition.valueAlternatives of R5).
    pub(crate) alternatives: Box<[Box<str>]>,
    /// Languages that a narrative has a section in: `_no`, `_yes`, `_resource` or a language (narrative-language-control).
    pub(crate) languages: Box<[Box<str>]>,
    /// Of a narrative without a source for each part (narrative-source-control).
    pub(crate) source: Option<Severity>,
    /// Systems must support it (ElementDefinition.mustSupport).
    pub(crate) must_support: bool,
    /// What who fills or reads it is obliged to: `SHALL:populate-if-known`.
    pub(crate) obligations: Box<[Box<str>]>,
}

/// A type that an element may have, with what it or its target must conform to.
#[derive(Debug, Clone)]
pub(crate) struct TypeRule {
    pub(crate) code: Box<str>,
    /// Any of these, as `canonical` or `canonical#element`; empty: the type alone.
    pub(crate) profiles: Box<[Box<str>]>,
    /// What a reference may point to; empty: anything.
    pub(crate) targets: Box<[Box<str>]>,
    /// Where that may be; None: anywhere.
    pub(crate) aggregation: Option<Aggregation>,
}

/// Where the target of a reference may be (resource-aggregation-mode).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aggregation {
    /// In the resource itself.
    pub(crate) contained: bool,
    /// In another place.
    pub(crate) referenced: bool,
    /// In the same Bundle.
    pub(crate) bundled: bool,
}

/// A binding, by the canonical of its value set.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    pub(crate) strength: Strength,
    pub(crate) value_set: Box<str>,
    /// It holds where all of these do.
    pub(crate) uses: Box<[Use]>,
}

/// What a record has where a binding holds: one of these codes, with their systems, at a path from its type on.
#[derive(Debug, Clone)]
pub(crate) struct Use {
    pub(crate) path: Box<[Box<str>]>,
    pub(crate) codes: Box<[(Box<str>, Box<str>)]>,
}

impl Use {
    /// Whether a resource is of it.
    pub(crate) fn is_of(&self, resource: Node<'_>) -> bool {
        let Some((ty, path)) = self.path.split_first() else { return false };
        let path: Vec<&str> = path.iter().map(|name| &**name).collect();
        let is_one = |coding: Node<'_>| {
            let has = |name, text: &str| coding.member(name).is_some_and(|member| member.is_str(text));
            self.codes.iter().any(|(system, code)| has("system", system) && has("code", code))
        };
        resource.resource_type() == Some(ty)
            && resource
                .find(&path)
                .any(|node| is_one(node) || node.member("coding").into_iter().flat_map(Node::items).any(is_one))
    }
}

/// An invariant of a profile.
pub(crate) struct Rule {
    pub(crate) key: Box<str>,
    pub(crate) expression: Box<str>,
    pub(crate) human: Box<str>,
    pub(crate) is_error: bool,
    /// Compiled at its first use, for that type; None: it cannot be.
    pub(crate) invariant: OnceLock<(Type, Option<Invariant>)>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").field("key", &self.key).finish_non_exhaustive()
    }
}

/// How the items of an element are told apart.
#[derive(Debug, Clone)]
pub(crate) struct Slicing {
    pub(crate) discriminators: Box<[Discriminator]>,
    pub(crate) openness: Openness,
    pub(crate) is_ordered: bool,
}

/// What becomes of items that no slice has (ElementDefinition.slicing.rules).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Openness {
    Open,
    Closed,
    AtEnd,
}

/// One discriminator; those of a slicing hold together.
#[derive(Debug, Clone)]
pub(crate) struct Discriminator {
    pub(crate) by: By,
    pub(crate) path: Box<[Step]>,
    /// As it is written.
    pub(crate) text: Box<str>,
}

/// What of the discriminator's element tells (discriminator-type).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Value,
    Exists,
    Type,
    Profile,
    /// Another kind, or a path that is not among the simple ones.
    Unknown,
}

/// A step of a discriminator's path; no step at all is `$this`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Member(Box<str>),
    /// The extension with that url.
    Extension(Box<str>),
    /// What a reference points to.
    Resolve,
    OfType(Box<str>),
}

/// A slice: its name, its element, and what makes an item belong to it.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) name: Box<str>,
    pub(crate) element: Place,
    /// All of them; told when the profile is whole.
    pub(crate) conditions: Vec<Condition>,
}

/// What one discriminator asks of an item.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub(crate) path: Box<[Step]>,
    pub(crate) test: Test,
    /// The discriminator, as it is written.
    pub(crate) text: Box<str>,
}

/// What must be so at the path of a discriminator.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    /// Something there has the values that this element fixes.
    Element(Place),
    /// Something there has this value, or one that contains it.
    Sample(Sample),
    /// Something there does, or does not, stand.
    Exists(bool),
    /// It is of one of these types.
    Types(Box<[Box<str>]>),
    /// It conforms to one of these profiles.
    Profiles(Box<[Box<str>]>),
    /// It is an extension with one of these urls.
    Urls(Box<[Box<str>]>),
    /// It has the values that the element at `path` of one of these profiles fixes.
    Within { profiles: Box<[Box<str>]>, path: Box<[Step]> },
    /// The definition says nothing by which to tell.
    Undecidable,
}

/// A value of a definition: a part of its own tree.
#[derive(Clone)]
pub(crate) struct Sample {
    tree: Arc<Tree>,
    node: NodeId,
}

impl Sample {
    pub(crate) fn new(tree: &Arc<Tree>, node: Node<'_>) -> Self {
        Self { tree: Arc::clone(tree), node: node.id() }
    }

    pub(crate) fn node(&self) -> Node<'_> {
        self.tree.node(self.node)
    }

    /// A part of it.
    pub(crate) fn part(&self, name: &str) -> Option<Self> {
        let member = self.node().member(name)?;
        // Of a list that holds one item, that item.
        let member = if member.is_array() && member.len() == 1 { member.items().next()? } else { member };
        Some(Self::new(&self.tree, member))
    }
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sample").field(&String::from_utf8_lossy(self.node().raw())).finish()
    }
}

impl Binding {
    /// Whether a value must be of its set wherever it stands.
    pub(crate) fn is_telling(&self) -> bool {
        self.strength == Strength::Required && self.uses.is_empty()
    }
}

impl Profile {
    /// The element that a canonical names: the root, or behind a `#` the one with that id.
    pub(crate) fn place(&self, canonical: &str) -> Option<Place> {
        match canonical.split_once('#') {
            None => Some(0),
            Some((_, id)) => self.elements.iter().position(|element| *element.id == *id),
        }
    }
}

impl Element {
    /// Whether it, or anything below it, says which value must stand there.
    pub(crate) fn is_telling(&self, elements: &[Self]) -> bool {
        self.fixed.is_some()
            || !self.patterns.is_empty()
            || self.bindings.iter().any(Binding::is_telling)
            || self.children.iter().filter_map(|&child| elements.get(child)).any(|child| child.is_telling(elements))
    }
}

/// Reads a discriminator's path; None if it is none of the simple ones (FHIR R4 profiling.html#discriminator).
pub(crate) fn steps(path: &str) -> Option<Box<[Step]>> {
    let mut steps = Vec::new();
    let mut rest = path.trim();
    // `(value as Quantity).code`
    if let Some((inner, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        && !inner.contains('(')
    {
        steps.extend(self::steps(inner)?);
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    while !rest.is_empty() {
        let name_end = rest.find(['.', '(']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(name_end);
        let mut argument = None;
        let mut next = after;
        if let Some(call) = after.strip_prefix('(') {
            let end = call.find(')')?;
            argument = Some(call[..end].trim());
            next = &call[end + 1..];
        }
        match (name, argument) {
            ("$this", None) => {}
            ("resolve", Some("")) => steps.push(Step::Resolve),
            ("extension", Some(url)) => {
                steps.push(Step::Extension(url.trim_matches(['\'', '"']).into()));
            }
            ("ofType" | "as", Some(name)) => {
                steps.push(Step::OfType(name.strip_prefix("FHIR.").unwrap_or(name).into()));
            }
            (name, None) if !name.is_empty() => {
                let (name, of) = name.split_once(" as ").map_or((name, None), |(name, of)| (name, Some(of.trim())));
                steps.push(Step::Member(name.trim().trim_end_matches("[x]").into()));
                steps.extend(of.map(|of| Step::OfType(of.strip_prefix("FHIR.").unwrap_or(of).into())));
            }
            _ => return None,
        }
        rest = match next.strip_prefix('.') {
            Some(rest) => rest,
            None if next.is_empty() => next,
            None => return None,
        };
    }
    Some(steps.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_discriminators() {
        let member = |name: &str| Step::Member(name.into());
        assert_eq!(steps("$this").unwrap().len(), 0);
        assert_eq!(*steps("coding.code").unwrap(), [member("coding"), member("code")]);
        assert_eq!(*steps("resolve().code").unwrap(), [Step::Resolve, member("code")]);
        assert_eq!(
            *steps("extension('http://a.example/b.c').value").unwrap(),
            [Step::Extension("http://a.example/b.c".into()), member("value")]
        );
        assert_eq!(*steps("$this.resolve()").unwrap(), [Step::Resolve]);
        assert_eq!(*steps("value.ofType(Quantity)").unwrap(), [member("value"), Step::OfType("Quantity".into())]);
        let as_boolean = [Step::Extension("http://a.b".into()), member("value"), Step::OfType("boolean".into())];
        assert_eq!(*steps("extension('http://a.b').value as boolean").unwrap(), as_boolean);
        assert_eq!(
            *steps("(value as Quantity).code").unwrap(),
            [member("value"), Step::OfType("Quantity".into()), member("code")]
        );
        assert!(steps("where(a = 1)").is_none());
        assert!(steps("a..b").is_none() && steps("a(").is_none());
    }
}
