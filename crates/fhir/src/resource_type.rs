//! The resource types of FHIR R4.
//!
//! Takes a name, tells whether it is a type and by which elements its resources are about patients. The table is
//! generated from CompartmentDefinition/patient, the SearchParameters that it names and the StructureDefinitions
//! (`examples/generate_tables`). Never looks at a resource: [`crate::compartment`] does.

mod table;

pub(crate) use table::TYPES;

/// A resource type of R4.
pub(crate) struct Type {
    pub(crate) name: &'static str,
    /// Whether each of its resources is about a patient, so that one that names none cannot be decided about.
    pub(crate) should: bool,
    pub(crate) paths: &'static [Path],
}

/// An element by which a resource of a type is in a patient's compartment.
pub(crate) struct Path {
    /// Whether it says whom the resource is about, and not only who took part.
    pub(crate) subject: bool,
    pub(crate) members: &'static [&'static str],
}

/// Whether a name is one of the resource types of R4.
pub fn is_type(name: &str) -> bool {
    row(name).is_some()
}

/// What is known of a type.
pub(crate) fn row(name: &str) -> Option<&'static Type> {
    TYPES.binary_search_by_key(&name, |row| row.name).ok().and_then(|index| TYPES.get(index))
}
