//! Definitions ready for checking. Takes a pack, gives types by name with their programs, code systems and value sets; each is
//! compiled at its first use and kept, so that a start costs milliseconds and a type that never comes costs nothing.
//! Shared between threads; never changes after it is read.

pub(crate) mod names;
pub(crate) mod pack;
pub(crate) mod primitive;
pub(crate) mod program;
pub(crate) mod schema;
pub(crate) mod search;
pub mod valueset;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use names::Names;
use pack::{Reader, Sections, Strings};
use program::Program;
use valueset::{CodeSystem, ValueSet};

pub use pack::PackError;
pub use schema::{Strength, TypeKind};

/// R4 core 4.0.1, packed by `sluice package build`.
static R4_CORE: &[u8] = include_bytes!("../../../../mappings/definitions/r4-core-4.0.1.pack");

/// The place of a type in its [`Definitions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeId(pub(crate) u16);

impl TypeId {
    /// As an index for tables by type: below [`Definitions::type_count`].
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// A pack has at most 65,535 types.
    fn at(place: usize) -> Self {
        Self(u16::try_from(place).unwrap_or(u16::MAX))
    }
}

/// What checking treats apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Plain,
    Attachment,
    CodeableConcept,
    Coding,
    Extension,
    Quantity,
    Reference,
}

/// The definitions of one package.
#[derive(Debug)]
pub struct Definitions {
    id: u32,
    strings: Strings,
    payload: Vec<u8>,
    types: Vec<Type>,
    type_names: Names,
    systems: Vec<Lazy<CodeSystem>>,
    system_names: Names,
    sets: Vec<Lazy<ValueSet>>,
    set_names: Names,
    /// Profiles and extensions, as reduced StructureDefinitions.
    profiles: Vec<Range<usize>>,
    /// `Element`: what stands beside a primitive value under `_name`.
    element: TypeId,
}

#[derive(Debug)]
struct Type {
    name: u32,
    kind: TypeKind,
    is_abstract: bool,
    role: Role,
    block: Range<usize>,
    /// Its constraints; empty if it has none.
    constraints: Range<usize>,
    program: OnceLock<Program>,
}

/// A named part of the payload that is decoded at its first use.
#[derive(Debug)]
struct Lazy<T> {
    url: u32,
    flags: u32,
    block: Range<usize>,
    content: OnceLock<T>,
}

impl Definitions {
    /// R4 core (4.0.1), read once per process.
    #[expect(clippy::expect_used, reason = "the pack is part of the binary, and a test reads all of it")]
    pub fn r4() -> Arc<Self> {
        static R4: OnceLock<Arc<Definitions>> = OnceLock::new();
        Arc::clone(R4.get_or_init(|| Arc::new(Self::read(R4_CORE).expect("the embedded definitions are readable"))))
    }

    /// Reads a pack. Every part is decoded once to see that it is sound; compiling comes later, type by type.
    pub fn read(pack: &[u8]) -> Result<Self, PackError> {
        let sections = Sections::read(pack)?;
        let payload = |name| sections.section(name).map(|range| &sections.payload[range]);
        let strings = Strings::read(payload("STRS")?)?;
        let id = Reader::new(payload("NAME")?, "NAME").number()?;

        let start = sections.section("TYPE")?.start;
        let mut reader = Reader::new(payload("TYPE")?, "TYPE");
        let mut types = Vec::new();
        for _ in 0..reader.count()? {
            let name = reader.number()?;
            let kind = match reader.number()? {
                0 => TypeKind::Primitive,
                1 => TypeKind::Complex,
                2 => TypeKind::Resource,
                _ => return Err(reader.damaged()),
            };
            let is_abstract = reader.number()? != 0;
            let length = reader.number()? as usize;
            let block = reader.block(length)?;
            let role = match strings.at(name) {
                "Attachment" => Role::Attachment,
                "CodeableConcept" => Role::CodeableConcept,
                "Coding" => Role::Coding,
                "Extension" => Role::Extension,
                "Quantity" | "Age" | "Count" | "Distance" | "Duration" => Role::Quantity,
                "Reference" => Role::Reference,
                _ => Role::Plain,
            };
            let block = start + block.start..start + block.end;
            types.push(Type { name, kind, is_abstract, role, block, constraints: 0..0, program: OnceLock::new() });
        }
        if types.len() > usize::from(u16::MAX) {
            return Err(PackError::Damaged("TYPE"));
        }
        read_constraints(&sections, &mut types)?;
        let profiles = read_profiles(&sections)?;
        let systems = Lazy::list(&sections, "CSYS", true)?;
        let sets = Lazy::list(&sections, "VSET", false)?;
        let index =
            |urls: Vec<u32>| Names::new(urls.into_iter().map(|url| strings.at(url)).collect::<Vec<_>>().into_iter());
        let type_names = index(types.iter().map(|t| t.name).collect());
        let system_names = index(systems.iter().map(|s: &Lazy<CodeSystem>| s.url).collect());
        let set_names = index(sets.iter().map(|s: &Lazy<ValueSet>| s.url).collect());
        let element =
            type_names.find("Element", |place| strings.at(types[place].name)).ok_or(PackError::Missing("Element"))?;
        let definitions = Self {
            id,
            payload: sections.payload,
            types,
            type_names,
            systems,
            system_names,
            sets,
            set_names,
            profiles,
            element: TypeId::at(element),
            strings,
        };
        definitions.verify()?;
        Ok(definitions)
    }

    /// Decodes everything once, so that nothing can be found damaged at a later first use.
    fn verify(&self) -> Result<(), PackError> {
        for t in &self.types {
            let elements = program::decode(self, self.block(&t.block, "TYPE"))?;
            program::decode_constraints(self, self.block(&t.constraints, "CNST"), elements.len())?;
        }
        for system in &self.systems {
            self.block(&system.block, "CSYS").ascending()?;
        }
        for set in &self.sets {
            ValueSet::check(self.block(&set.block, "VSET"))?;
        }
        Ok(())
    }

    /// The profiles and extensions of the package, each a StructureDefinition in JSON.
    pub(crate) fn profiles(&self) -> impl Iterator<Item = &[u8]> {
        self.profiles.iter().filter_map(|range| self.payload.get(range.clone()))
    }

    fn block(&self, range: &Range<usize>, section: &'static str) -> Reader<'_> {
        Reader::new(self.payload.get(range.clone()).unwrap_or_default(), section)
    }

    /// `name#version` of the package.
    pub fn id(&self) -> &str {
        self.strings.at(self.id)
    }

    pub(crate) fn strings(&self) -> &Strings {
        &self.strings
    }

    /// The type of that name: a resource, a data type or a primitive.
    pub fn type_named(&self, name: &str) -> Option<TypeId> {
        self.type_names.find(name, |place| self.strings.at(self.types[place].name)).map(TypeId::at)
    }

    /// How many types there are.
    pub(crate) fn type_count(&self) -> usize {
        self.types.len()
    }

    /// How many constraints a type has.
    pub(crate) fn constraint_count(&self, id: TypeId) -> usize {
        let reader = self.types.get(id.index()).map(|t| self.block(&t.constraints, "CNST"));
        reader.filter(|reader| !reader.is_empty()).and_then(|mut reader| reader.count().ok()).unwrap_or(0)
    }

    /// The name of a type.
    pub fn type_name(&self, id: TypeId) -> &str {
        self.types.get(usize::from(id.0)).map_or("", |t| self.strings.at(t.name))
    }

    /// What a type is.
    pub fn type_kind(&self, id: TypeId) -> TypeKind {
        self.types.get(usize::from(id.0)).map_or(TypeKind::Complex, |t| t.kind)
    }

    /// The resource type of that name, unless it is abstract.
    pub fn resource_named(&self, name: &str) -> Option<TypeId> {
        self.type_named(name).filter(|id| {
            let t = &self.types[usize::from(id.0)];
            t.kind == TypeKind::Resource && !t.is_abstract
        })
    }

    /// The names of all types, sorted.
    pub fn type_list(&self) -> impl Iterator<Item = (&str, TypeKind)> {
        self.types.iter().map(|t| (self.strings.at(t.name), t.kind))
    }

    pub(crate) fn role(&self, id: TypeId) -> Role {
        self.types.get(usize::from(id.0)).map_or(Role::Plain, |t| t.role)
    }

    pub(crate) fn element(&self) -> TypeId {
        self.element
    }

    /// The compiled elements of a type.
    pub(crate) fn program(&self, id: TypeId) -> &Program {
        static NONE: Program = Program::NONE;
        self.types.get(usize::from(id.0)).map_or(&NONE, |t| {
            t.program.get_or_init(|| {
                // `verify` has decoded it; should it fail all the same, a program without members refuses every member.
                let elements = program::decode(self, self.block(&t.block, "TYPE")).unwrap_or_default();
                let constraints = self.block(&t.constraints, "CNST");
                let constraints = program::decode_constraints(self, constraints, elements.len()).unwrap_or_default();
                Program::compile(self, t.kind, &elements, &constraints)
            })
        })
    }

    /// The CodeSystem of that url, if the package holds it whole.
    pub fn code_system(&self, url: &str) -> Option<&CodeSystem> {
        let place = self.system_names.find(url, |place| self.strings.at(self.systems[place].url))?;
        let system = &self.systems[place];
        Some(system.content.get_or_init(|| {
            let codes = self.block(&system.block, "CSYS").ascending().unwrap_or_default();
            CodeSystem::new(&self.strings, codes, system.flags != 0)
        }))
    }

    pub(crate) fn value_set_place(&self, url: &str) -> Option<u32> {
        self.set_names
            .find(url, |place| self.strings.at(self.sets[place].url))
            .and_then(|place| u32::try_from(place).ok())
    }

    pub(crate) fn value_set_at(&self, place: u32) -> Option<&ValueSet> {
        let set = self.sets.get(place as usize)?;
        Some(set.content.get_or_init(|| ValueSet::read(self, self.block(&set.block, "VSET"))))
    }

    /// The ValueSet of that url (without version), expanded as far as the package allows.
    pub fn value_set(&self, url: &str) -> Option<&ValueSet> {
        self.value_set_at(self.value_set_place(url)?)
    }
}

/// Packs of before have no profiles.
fn read_profiles(sections: &Sections) -> Result<Vec<Range<usize>>, PackError> {
    let Ok(range) = sections.section("PROF") else { return Ok(Vec::new()) };
    let mut reader = Reader::new(&sections.payload[range.clone()], "PROF");
    let mut profiles = Vec::new();
    for _ in 0..reader.count()? {
        let length = reader.number()? as usize;
        let block = reader.block(length)?;
        profiles.push(range.start + block.start..range.start + block.end);
    }
    Ok(profiles)
}

/// Packs of before have no constraints.
fn read_constraints(sections: &Sections, types: &mut [Type]) -> Result<(), PackError> {
    let Ok(range) = sections.section("CNST") else { return Ok(()) };
    let mut reader = Reader::new(&sections.payload[range.clone()], "CNST");
    for _ in 0..reader.count()? {
        let place = reader.number()? as usize;
        let length = reader.number()? as usize;
        let block = reader.block(length)?;
        let of = types.get_mut(place).ok_or_else(|| reader.damaged())?;
        of.constraints = range.start + block.start..range.start + block.end;
    }
    Ok(())
}

impl<T> Lazy<T> {
    fn list(sections: &Sections, name: &'static str, with_flags: bool) -> Result<Vec<Self>, PackError> {
        let range = sections.section(name)?;
        let mut reader = Reader::new(&sections.payload[range.clone()], name);
        let mut list = Vec::new();
        for _ in 0..reader.count()? {
            let url = reader.number()?;
            let flags = if with_flags { reader.number()? } else { 0 };
            let length = reader.number()? as usize;
            let block = reader.block(length)?;
            let block = range.start + block.start..range.start + block.end;
            list.push(Self { url, flags, block, content: OnceLock::new() });
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_pack_is_read_and_every_type_compiles() {
        let r4 = Definitions::r4();
        assert_eq!(r4.id(), "hl7.fhir.r4.core#4.0.1");
        let names: Vec<_> = r4.type_list().map(|(name, _)| name.to_owned()).collect();
        assert!(names.is_sorted());
        for name in &names {
            let id = r4.type_named(name).unwrap();
            assert_eq!(r4.type_name(id), name);
            let program = r4.program(id);
            assert!(r4.type_kind(id) == TypeKind::Primitive || program.shape(0).is_some(), "{name}");
        }
        assert_eq!(r4.resource_named("Resource"), None);
        assert_eq!(r4.resource_named("HumanName"), None);
        assert!(r4.resource_named("Patient").is_some());
        assert_eq!(r4.type_named("patient"), None);
    }

    #[test]
    fn a_pack_cut_anywhere_is_refused_without_a_panic() {
        for cut in (0..R4_CORE.len()).step_by(R4_CORE.len() / 50) {
            assert!(Definitions::read(&R4_CORE[..cut]).is_err());
        }
    }
}
