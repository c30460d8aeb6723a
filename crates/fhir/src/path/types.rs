//! What a value is: one of FHIRPath's own types, or a type of FHIR's. Answers which types specialize which, by the
//! definitions; what `is`, `as` and `ofType` ask.

use crate::definitions::primitive::Primitive;
use crate::definitions::program::{Kind, Shape, Slot};
use crate::definitions::{Definitions, Role, TypeId, TypeKind};
use crate::tree::{self, NameId};

/// A type of FHIRPath itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Boolean,
    String,
    Integer,
    Decimal,
    Date,
    DateTime,
    Time,
    Quantity,
}

impl System {
    const ALL: [(Self, &'static str, &'static str); 8] = [
        (Self::Boolean, "Boolean", "boolean"),
        (Self::String, "String", "string"),
        (Self::Integer, "Integer", "integer"),
        (Self::Decimal, "Decimal", "decimal"),
        (Self::Date, "Date", "date"),
        (Self::DateTime, "DateTime", "dateTime"),
        (Self::Time, "Time", "time"),
        (Self::Quantity, "Quantity", "Quantity"),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, system, _)| *system == name).map(|&(system, ..)| system)
    }

    /// Its own name, and that of the FHIR type it is written as.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        Self::ALL.iter().find(|(system, ..)| *system == self).map_or(("", ""), |&(_, name, fhir)| (name, fhir))
    }
}

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    System(System),
    Primitive(Primitive),
    /// A type, and which of its shapes: 0 is the type itself, others are its nested elements.
    Object(TypeId, u16),
    /// What `type()` gives.
    Info,
    /// Not in the definitions.
    Unknown,
}

/// A type that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypeTest {
    System(System),
    Fhir(TypeId),
    /// `Quantity` without a namespace is both.
    Either(System, TypeId),
    /// There is no such System type, so nothing is of it.
    Nothing,
}

/// Where a member of a shape is found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// One member name, with its `_name`.
    Slot { value: NameId, companion: Option<NameId>, kind: Kind },
    /// Any of the names of a choice.
    Choice(u16),
}

/// The type that a name means, in the namespace given or in both.
pub(super) fn test(definitions: &Definitions, namespace: Option<&str>, name: &str) -> Option<TypeTest> {
    // Profiles that are named as if they were types.
    let fhir_name = if matches!(name, "SimpleQuantity" | "MoneyQuantity") { "Quantity" } else { name };
    let fhir = || definitions.type_named(fhir_name);
    match namespace {
        Some("System") => Some(System::named(name).map_or(TypeTest::Nothing, TypeTest::System)),
        Some("FHIR") => fhir().map(TypeTest::Fhir),
        Some(_) => None,
        None => match (System::named(name), fhir()) {
            (Some(system), Some(fhir)) => Some(TypeTest::Either(system, fhir)),
            (Some(system), None) => Some(TypeTest::System(system)),
            (None, fhir) => fhir.map(TypeTest::Fhir),
        },
    }
}

impl TypeTest {
    /// The types that pass.
    pub(super) fn types(self, definitions: &Definitions) -> Vec<Type> {
        match self {
            Self::System(system) => vec![Type::System(system)],
            Self::Fhir(id) => vec![Type::of(definitions, id)],
            Self::Either(system, id) => vec![Type::of(definitions, id), Type::System(system)],
            Self::Nothing => Vec::new(),
        }
    }
}

impl Type {
    /// The type itself, of that id.
    pub(crate) fn of(definitions: &Definitions, id: TypeId) -> Self {
        match definitions.type_kind(id) {
            TypeKind::Primitive => Primitive::named(definitions.type_name(id)).map_or(Self::Unknown, Self::Primitive),
            TypeKind::Complex | TypeKind::Resource => Self::Object(id, 0),
        }
    }

    /// The shape of an object's members.
    pub(crate) fn shape(self, definitions: &Definitions) -> Option<&Shape> {
        match self {
            Self::Object(id, shape) => definitions.program(id).shape(shape),
            _ => None,
        }
    }

    /// What stands at a slot of this type; None for resources, which name their type themselves.
    pub(crate) fn at(self, kind: Kind) -> Option<Self> {
        match (kind, self) {
            (Kind::Primitive(primitive), _) => Some(Self::Primitive(primitive)),
            (Kind::Complex(id), _) => Some(Self::Object(id, 0)),
            (Kind::Nested(shape), Self::Object(id, _)) => Some(Self::Object(id, shape)),
            (Kind::Resource | Kind::Contained | Kind::Nested(_), _) => None,
        }
    }

    /// Where the element of that name is found in an object of this type.
    pub(super) fn place(self, definitions: &Definitions, name: &str) -> Option<Place> {
        let shape = self.shape(definitions)?;
        match shape.slot(name) {
            // `valueQuantity` is `value` in FHIRPath.
            Some(slot) if shape.field(slot).is_choice => None,
            Some(slot) => slot_place(slot),
            None => shape.choice(name).map(Place::Choice),
        }
    }

    /// Its name, without namespace.
    pub(crate) fn name(self, definitions: &Definitions) -> &str {
        match self {
            Self::System(system) => system.names().0,
            Self::Primitive(primitive) => primitive.name(),
            Self::Object(id, 0) => definitions.type_name(id),
            Self::Object(..) if self.is_backbone(definitions) => "BackboneElement",
            Self::Object(..) => "Element",
            Self::Info => "TypeInfo",
            Self::Unknown => "Unknown",
        }
    }

    fn is_backbone(self, definitions: &Definitions) -> bool {
        self.shape(definitions).is_some_and(|shape| shape.slot("modifierExtension").is_some())
    }

    /// Whether it is a Quantity or one of its specializations.
    pub(super) fn is_quantity(self, definitions: &Definitions) -> bool {
        matches!(self, Self::Object(id, 0) if definitions.role(id) == Role::Quantity)
    }

    /// Whether it is the type asked for, or (`exact` aside) specializes it. Primitives that specialize another are never
    /// taken for it by `as` and `ofType`, as the official tests demand.
    pub(super) fn passes(self, definitions: &Definitions, test: TypeTest, exact: bool) -> bool {
        let is_system = |system| self == Self::System(system);
        match test {
            TypeTest::System(system) => is_system(system),
            TypeTest::Fhir(id) => self.is_fhir(definitions, id, exact),
            TypeTest::Either(system, id) => is_system(system) || self.is_fhir(definitions, id, exact),
            TypeTest::Nothing => false,
        }
    }

    fn is_fhir(self, definitions: &Definitions, asked: TypeId, exact: bool) -> bool {
        let asked_name = definitions.type_name(asked);
        match self {
            Self::Primitive(primitive) => {
                let mut bases = std::iter::successors(Some(primitive), |primitive| primitive.base());
                if exact {
                    primitive.name() == asked_name
                } else {
                    asked_name == "Element" || bases.any(|base| base.name() == asked_name)
                }
            }
            Self::Object(id, 0) => {
                let bases = std::iter::successors(Some(definitions.type_name(id)), |name| base(definitions, name));
                // A type's bases are few; the bound is against definitions that say nonsense.
                bases.take(8).any(|name| name == asked_name)
            }
            Self::Object(..) => {
                asked_name == "Element" || asked_name == "BackboneElement" && self.is_backbone(definitions)
            }
            Self::System(_) | Self::Info | Self::Unknown => false,
        }
    }
}

fn slot_place(slot: &Slot) -> Option<Place> {
    let companion = match slot.kind {
        Kind::Primitive(_) => tree::known(&format!("_{}", slot.name)),
        _ => None,
    };
    Some(Place::Slot { value: tree::known(&slot.name)?, companion, kind: slot.kind })
}

/// The type that a type specializes (FHIR R4, types.html). Packs do not tell; the members do.
fn base<'d>(definitions: &'d Definitions, name: &str) -> Option<&'d str> {
    let id = definitions.type_named(name)?;
    let shape = definitions.program(id).shape(0);
    let has = |member: &str| shape.is_some_and(|shape| shape.slot(member).is_some());
    match (definitions.type_kind(id), name) {
        (_, "Resource" | "Element") => None,
        (TypeKind::Resource, "DomainResource") => Some("Resource"),
        (TypeKind::Resource, _) => Some(if has("contained") { "DomainResource" } else { "Resource" }),
        (TypeKind::Complex, "Quantity" | "BackboneElement") => Some("Element"),
        (TypeKind::Complex, _) if definitions.role(id) == Role::Quantity => Some("Quantity"),
        (TypeKind::Complex, _) => Some(if has("modifierExtension") { "BackboneElement" } else { "Element" }),
        (TypeKind::Primitive, _) => Some("Element"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_specialize_as_the_specification_says() {
        let r4 = Definitions::r4();
        let is = |name: &str, asked: &str, exact| {
            let own = Type::of(&r4, r4.type_named(name).unwrap());
            own.passes(&r4, test(&r4, None, asked).unwrap(), exact)
        };
        for (name, asked) in [
            ("Patient", "DomainResource"),
            ("Patient", "Resource"),
            ("Bundle", "Resource"),
            ("Age", "Quantity"),
            ("Age", "Element"),
            ("Timing", "BackboneElement"),
            ("HumanName", "Element"),
            ("uuid", "uri"),
            ("code", "string"),
            ("positiveInt", "integer"),
        ] {
            assert!(is(name, asked, false), "{name} {asked}");
            assert!(!is(asked, name, false), "{asked} {name}");
        }
        assert!(!is("Bundle", "DomainResource", false) && !is("code", "string", true) && is("Age", "Quantity", true));
        assert_eq!(test(&r4, None, "string1"), None);
        assert_eq!(test(&r4, Some("System"), "Patient"), Some(TypeTest::Nothing));
        assert!(matches!(test(&r4, None, "Quantity"), Some(TypeTest::Either(..))));
    }
}
