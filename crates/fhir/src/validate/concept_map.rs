//! ConceptMaps: what they map are codes of the systems and value sets that they map between, as far as these are known
//! (FHIR R4 conceptmap.html).

use super::rules;
use super::walk::Walk;
use crate::definitions::valueset::Membership;
use crate::package::{items, text, unversioned};
use crate::tree::Node;

impl<'t> Walk<'_, 't> {
    pub(super) fn concept_map(&mut self, map: Node<'t>) {
        let set = |of: &str| text(map, &format!("{of}Canonical")).or_else(|| text(map, &format!("{of}Uri")));
        let (source, target) = (set("source"), set("target"));
        for group in items(map, "group") {
            let (from, to) = (text(group, "source"), text(group, "target"));
            for element in items(group, "element") {
                if self.is_full() {
                    return;
                }
                self.mapped(element, from.as_deref(), source.as_deref());
                for target_element in items(element, "target") {
                    self.mapped(target_element, to.as_deref(), target.as_deref());
                }
            }
        }
    }

    fn mapped(&mut self, element: Node<'t>, system: Option<&str>, set: Option<&str>) {
        let Some((at, code)) = element.member("code").and_then(|at| Some((at, at.as_str()?))) else { return };
        let Some(system) = system.map(unversioned) else { return };
        if self.is_no_code(system, &code) {
            return self.issue(&rules::CONCEPT_MAP, at, "Expected a code of the code system that the group names");
        }
        let library = self.profiles.as_ref().map(|profiles| profiles.library);
        if let (Some(library), Some(set)) = (library, set)
            && library.member_of(set, Some(system), &code) == Membership::Out
        {
            self.issue(&rules::CONCEPT_MAP, at, "Expected a code of the value set that the map is for");
        }
    }
}
