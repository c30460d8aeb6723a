//! The plain shape of definitions, between a package and its pack: what the builder writes and the reader gives back.

use std::collections::{BTreeMap, BTreeSet};

/// What a type is. The number is its byte in the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeKind {
    /// A single value with extensions.
    Primitive = 0,
    /// Members, no identity.
    Complex = 1,
    /// Has a `resourceType`.
    Resource = 2,
}

/// One type with the elements of its snapshot; element 0 is the type itself.
#[derive(Debug, Clone)]
pub(crate) struct Type {
    pub(crate) name: String,
    pub(crate) kind: TypeKind,
    pub(crate) is_abstract: bool,
    pub(crate) elements: Vec<Element>,
}

/// One element of a snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Element {
    /// Place of the parent element; an element's parent stands before it.
    pub(crate) parent: usize,
    /// Last segment of the path, with `[x]` where it is a choice.
    pub(crate) name: String,
    pub(crate) min: u32,
    /// None: unbounded.
    pub(crate) max: Option<u32>,
    /// Written as a JSON array.
    pub(crate) repeats: bool,
    pub(crate) is_modifier: bool,
    pub(crate) is_summary: bool,
    /// Takes its children from that element.
    pub(crate) content: Option<usize>,
    pub(crate) types: Vec<TypeRef>,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) constraints: Vec<Constraint>,
}

/// An invariant of an element, as FHIRPath.
#[derive(Debug, Clone)]
pub(crate) struct Constraint {
    pub(crate) key: String,
    pub(crate) is_error: bool,
    pub(crate) expression: String,
    /// What it demands, in words.
    pub(crate) human: String,
}

/// A type that an element may have.
#[derive(Debug, Clone)]
pub(crate) struct TypeRef {
    pub(crate) code: String,
    /// Types that a reference may point to, or canonicals of other packages' profiles.
    pub(crate) targets: Vec<String>,
}

/// A binding to a value set.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    pub(crate) strength: Strength,
    /// Canonical without version.
    pub(crate) value_set: String,
}

/// BindingStrength (FHIR R4 terminologies, 4.1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// For illustration only.
    Example = 0,
    /// Recommended.
    Preferred = 1,
    /// Demanded if the set covers the concept.
    Extensible = 2,
    /// Demanded.
    Required = 3,
}

impl Strength {
    pub(crate) fn parse(code: &str) -> Option<Self> {
        Some(match code {
            "required" => Self::Required,
            "extensible" => Self::Extensible,
            "preferred" => Self::Preferred,
            "example" => Self::Example,
            _ => return None,
        })
    }

    pub(crate) fn from_byte(byte: u32) -> Option<Self> {
        [Self::Example, Self::Preferred, Self::Extensible, Self::Required].into_iter().find(|s| *s as u32 == byte)
    }
}

/// A CodeSystem that a package holds whole.
#[derive(Debug, Clone)]
pub(crate) struct CodeSystem {
    pub(crate) case_sensitive: bool,
    pub(crate) codes: BTreeSet<String>,
}

/// What is known of the members of a value set within one code system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    /// Certain members.
    pub(crate) codes: BTreeSet<String>,
    /// What the other codes of this system are.
    pub(crate) rest: Rest,
}

/// What codes that are not listed are. The number is its byte in the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rest {
    /// Not in the set.
    Out = 0,
    /// Cannot be told with these packages.
    Unknown = 1,
    /// Members: the whole of a CodeSystem that the pack holds.
    Whole = 2,
}

/// A value set, as far as it can be expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ValueSet {
    pub(crate) regions: BTreeMap<String, Region>,
    /// What codes of systems without a region are.
    pub(crate) elsewhere: Rest,
}
