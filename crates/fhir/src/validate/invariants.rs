//! The invariants of the definitions, as compiled FHIRPath. Takes an element of a type, gives those that it breaks. A type's
//! invariants are compiled when the first of its elements comes, and kept; so one that never comes costs nothing.

use std::sync::OnceLock;

use super::shortcut::Shortcut;
use crate::definitions::program::{Constraint, Seen, Shape};
use crate::definitions::{Definitions, TypeId};
use crate::path::{Budget, Document, Environment, Invariant, Offline, Type, Verdict};
use crate::tree::Node;

/// Steps of one invariant on one element; `entry.all(…)` takes some for each entry of a Bundle.
const STEPS_MAX: u64 = 20_000_000;

/// Compiled invariants, by type. Shared between threads.
#[derive(Debug)]
pub(super) struct Invariants {
    types: Box<[OnceLock<Slots>]>,
}

/// The invariants of one type, by number; each compiled at its first use.
type Slots = Box<[OnceLock<Compiled>]>;

#[derive(Debug)]
struct Compiled {
    shortcut: Shortcut,
    /// None: it could not be compiled.
    invariant: Option<Invariant>,
}

/// The element that is asked about.
#[derive(Clone, Copy)]
pub(super) struct Asked<'t> {
    pub(super) node: Node<'t>,
    pub(super) ty: Type,
    /// The resource that it is in, and what contains that.
    pub(super) resource: Node<'t>,
    pub(super) container: Node<'t>,
}

/// An object's shape, and which of its fields it has.
pub(super) type Content<'c> = (&'c Shape, &'c Seen);

impl Invariants {
    /// For these definitions; compiles nothing yet.
    pub(super) fn new(definitions: &Definitions) -> Self {
        Self { types: (0..definitions.type_count()).map(|_| OnceLock::new()).collect() }
    }

    /// What an invariant, defined in the type `of`, says.
    pub(super) fn ask<'a>(
        &'a self,
        definitions: &'a Definitions,
        document: &'a Document<'a>,
        of: TypeId,
        constraint: &Constraint,
        asked: Asked<'a>,
        content: Option<Content<'_>>,
    ) -> Verdict {
        let Some(slots) = self.types.get(of.index()) else { return Verdict::Open };
        let slots = slots.get_or_init(|| {
            let count = definitions.constraint_count(of);
            (0..count).map(|_| OnceLock::new()).collect()
        });
        let Some(slot) = slots.get(usize::from(constraint.number)) else { return Verdict::Open };
        let compiled = slot.get_or_init(|| {
            let text = definitions.strings().at(constraint.expression);
            let shortcut = content.map(|(shape, _)| Shortcut::new(text, shape)).unwrap_or_default();
            Compiled { shortcut, invariant: Invariant::compile(text, definitions, asked.ty).ok() }
        });
        if content.is_some_and(|(_, seen)| compiled.shortcut.holds(asked.node, seen)) {
            return Verdict::Holds;
        }
        let Some(invariant) = &compiled.invariant else { return Verdict::Open };
        let host = Offline::new(definitions);
        let budget = Budget { steps_max: STEPS_MAX, ..Budget::default() };
        let environment = Environment { budget, ..Environment::new(&host) };
        invariant.ask(definitions, document, &environment, (asked.node, asked.ty), (asked.resource, asked.container))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::TypeKind;

    #[test]
    fn every_invariant_of_the_definitions_compiles() {
        let r4 = Definitions::r4();
        let mut count = 0;
        for (name, kind) in r4.type_list() {
            if kind == TypeKind::Primitive {
                continue;
            }
            let id = r4.type_named(name).unwrap();
            for (place, shape) in (0..).map_while(|place| Some((place, r4.program(id).shape(place)?))) {
                let own = shape.constraints.iter().map(|constraint| (constraint, Type::Object(id, place)));
                let fields = shape.fields.iter().flat_map(|field| field.constraints.iter());
                for (constraint, ty) in own.chain(fields.map(|constraint| (constraint, Type::Unknown))) {
                    let text = r4.strings().at(constraint.expression);
                    Invariant::compile(text, &r4, ty).unwrap_or_else(|error| panic!("{name}: {text}: {error}"));
                    count += 1;
                }
            }
        }
        assert!(count > 200, "{count}");
    }
}
