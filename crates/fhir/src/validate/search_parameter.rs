//! SearchParameters, and where a CapabilityStatement names them: their expression is FHIRPath on the types that they are for, and what they derive from allows them
//! (FHIR R4 searchparameter.html).

use super::rules;
use super::walk::Walk;
use crate::definitions::search;
use crate::package::{items, text};
use crate::path::{Invariant, Type};
use crate::resource_type::is_type;
use crate::tree::Node;

impl<'t> Walk<'_, 't> {
    pub(super) fn search_parameter(&mut self, parameter: Node<'t>) {
        let bases: Vec<String> =
            items(parameter, "base").filter_map(|base| Some(base.as_str()?.into_owned())).collect();
        if let Some((at, expression)) = parameter.member("expression").and_then(|at| Some((at, at.as_str()?)))
            && !bases.is_empty()
        {
            self.search_expression(at, &expression, &bases);
        }
        let is_composite = parameter.member("type").is_some_and(|at| at.is_str("composite"));
        if is_composite && items(parameter, "component").count() < 2 {
            self.issue(&rules::SEARCH_PARAMETER, parameter, "Expected two components at least: it is a composite");
        }
        let Some((ty, allowed)) = text(parameter, "derivedFrom").and_then(|of| self.search_parameter_named(&of)) else {
            return;
        };
        let is_allowed = |base: &String| allowed.iter().any(|known| known == base || known == "Resource");
        if !bases.iter().all(is_allowed) {
            let text = "Expected types that the SearchParameter which it derives from is for";
            self.issue(&rules::SEARCH_PARAMETER, parameter, text);
        }
        if text(parameter, "type").is_some_and(|own| own != ty) {
            let text = "Expected the type of the SearchParameter which it derives from";
            self.issue(&rules::SEARCH_PARAMETER, parameter, text);
        }
    }

    /// The parameters of a CapabilityStatement are of the types of their definitions.
    pub(super) fn capabilities(&mut self, statement: Node<'t>) {
        for resource in items(statement, "rest").flat_map(|rest| items(rest, "resource")) {
            for parameter in items(resource, "searchParam") {
                let known = text(parameter, "definition").and_then(|canonical| self.search_parameter_named(&canonical));
                if let (Some((ty, _)), Some(own)) = (known, text(parameter, "type"))
                    && own != ty
                {
                    let text = "Expected the type that the definition of this parameter has";
                    self.issue(&rules::SEARCH_PARAMETER, parameter, text);
                }
            }
        }
    }

    /// The type of a SearchParameter, and the resource types that it is for.
    fn search_parameter_named(&self, canonical: &str) -> Option<(String, Vec<String>)> {
        let library = self.profiles.as_ref().map(|profiles| profiles.library);
        if let Some(tree) = library.and_then(|library| library.document("SearchParameter", canonical)) {
            let root = tree.root();
            let bases = items(root, "base").filter_map(|base| Some(base.as_str()?.into_owned())).collect();
            return Some((text(root, "type")?, bases));
        }
        let (ty, bases) = search::named(canonical)?;
        Some((ty.to_owned(), bases.split(',').map(str::to_owned).collect()))
    }

    fn search_expression(&mut self, at: Node<'t>, expression: &str, bases: &[String]) {
        let ty = match bases {
            [base] => self.definitions.type_named(base).map_or(Type::Unknown, |id| Type::Object(id, 0)),
            _ => Type::Unknown,
        };
        if Invariant::compile(expression, self.definitions, ty).is_err() {
            return self.issue(&rules::SEARCH_PARAMETER, at, "Expected FHIRPath");
        }
        if bases.iter().any(|base| matches!(&**base, "Resource" | "DomainResource")) {
            return;
        }
        let strange = expression.split('|').map(|part| part.trim().trim_start_matches('(')).any(|part| {
            let name = part.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            is_type(name) && !bases.iter().any(|base| base == name)
        });
        if strange {
            self.issue(&rules::SEARCH_PARAMETER, at, "Expected paths from the types that it is for only");
        }
    }
}
