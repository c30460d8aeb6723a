//! What an expression asks of those around it: terminology, hierarchies of codes, profiles. Each may not know, and says so.

use crate::definitions::Definitions;
use crate::definitions::valueset::Membership;
use crate::tree::Node;

/// Whether an element conforms to a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conformance {
    /// It does.
    Conforms,
    /// It does not.
    Differs,
    /// The profile is not known here.
    Unknown,
}

/// Answers what an expression cannot tell by itself. Never asks a network: an evaluation does not wait.
pub trait Host {
    /// Whether a code is a member of the value set with this canonical. Without a system, by that of any member.
    fn member_of(&self, value_set: &str, system: Option<&str>, code: &str) -> Membership;

    /// Whether the first code of a system covers the second; None if that is not known.
    fn subsumes(&self, system: &str, broader: &str, narrower: &str) -> Option<bool>;

    /// Whether an element, of that type, conforms to the profile with this canonical.
    fn conforms_to(&self, node: Node<'_>, type_name: &str, profile: &str) -> Conformance;
}

/// Answers by definitions alone: value sets as far as they are expanded there, and a base type for a profile.
#[derive(Debug, Clone, Copy)]
pub struct Offline<'d> {
    definitions: &'d Definitions,
}

impl<'d> Offline<'d> {
    /// By these definitions.
    pub fn new(definitions: &'d Definitions) -> Self {
        Self { definitions }
    }
}

impl Host for Offline<'_> {
    fn member_of(&self, value_set: &str, system: Option<&str>, code: &str) -> Membership {
        let url = value_set.split_once('|').map_or(value_set, |(url, _)| url);
        let Some(set) = self.definitions.value_set(url) else { return Membership::Unknown };
        match system {
            Some(system) => set.contains(self.definitions, system, code),
            None => set.contains_code(self.definitions, code),
        }
    }

    /// The packs hold no hierarchies.
    fn subsumes(&self, _system: &str, _broader: &str, _narrower: &str) -> Option<bool> {
        None
    }

    /// The profile of a base type: the type itself or one that specializes it. Its members are the validator's business.
    fn conforms_to(&self, _node: Node<'_>, type_name: &str, profile: &str) -> Conformance {
        let url = profile.split_once('|').map_or(profile, |(url, _)| url);
        let name = url.strip_prefix("http://hl7.org/fhir/StructureDefinition/");
        let asked = name.and_then(|name| super::types::test(self.definitions, Some("FHIR"), name));
        let own = self.definitions.type_named(type_name).map(|id| super::types::Type::of(self.definitions, id));
        match (asked, own) {
            (Some(asked), Some(own)) if own.passes(self.definitions, asked, false) => Conformance::Conforms,
            (Some(_), _) => Conformance::Differs,
            (None, _) => Conformance::Unknown,
        }
    }
}
