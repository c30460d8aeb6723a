//! Reads a StructureDefinition's snapshot. Gives the element table that a pack stores: types (resources, data types,
//! primitives); never profiles or logical models, which need slicing and come with it.

use crate::definitions::schema::{Binding, Element, Strength, Type, TypeKind, TypeRef};
use crate::tree::Node;

use super::{constraints, extension, items, text, unversioned};

const CORE: &str = "http://hl7.org/fhir/StructureDefinition/";
const FHIR_TYPE: &str = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type";
const MAX_VALUE_SET: &str = "http://hl7.org/fhir/StructureDefinition/elementdefinition-maxValueSet";

/// The type that this StructureDefinition defines, or nothing if it is a profile, a logical model or has no snapshot.
pub(super) fn read(definition: Node<'_>) -> Option<Type> {
    let kind = match &*text(definition, "kind")? {
        "primitive-type" => TypeKind::Primitive,
        "complex-type" => TypeKind::Complex,
        "resource" => TypeKind::Resource,
        _ => return None,
    };
    if text(definition, "derivation").is_some_and(|derivation| derivation == "constraint") {
        return None;
    }
    let name = text(definition, "type")?;
    let is_abstract = definition.member("abstract").and_then(Node::as_bool).unwrap_or(false);
    let mut paths: Vec<String> = Vec::new();
    let mut elements = Vec::new();
    let mut contents = Vec::new();
    for element in items(definition.member("snapshot")?, "element") {
        let path = text(element, "path")?;
        let parent = match path.rsplit_once('.') {
            None => 0,
            Some((parent, _)) => paths.iter().rposition(|p| p == parent)?,
        };
        contents.push(text(element, "contentReference"));
        elements.push(read_element(element, &path, parent, kind, &name));
        paths.push(path);
    }
    // A content reference names an element id: `#Bundle.link`. In a type's own snapshot id and path are the same.
    for (element, content) in elements.iter_mut().zip(contents) {
        element.content = content.and_then(|c| {
            let id = c.rsplit_once('#').map_or(&*c, |(_, id)| id).to_owned();
            paths.iter().position(|path| *path == id)
        });
    }
    Some(Type { name, kind, is_abstract, elements })
}

fn read_element(element: Node<'_>, path: &str, parent: usize, kind: TypeKind, type_name: &str) -> Element {
    let name = path.rsplit_once('.').map_or(path, |(_, name)| name).to_owned();
    let max = text(element, "max").and_then(|max| max.parse().ok());
    // An element that its base lets repeat is an array even where it is narrowed to one.
    let base_max = element.member("base").and_then(|base| text(base, "max"));
    let repeats = base_max.map_or(max != Some(1), |max| max != "1" && max != "0");
    let is_root_id = kind == TypeKind::Resource && path.len() == type_name.len() + 3 && name == "id";
    let types = items(element, "type").map(|t| read_type(t, is_root_id)).collect();
    let mut bindings = Vec::new();
    if let Some(binding) = element.member("binding") {
        let strength = text(binding, "strength").and_then(|s| Strength::parse(&s));
        if let (Some(strength), Some(value_set)) = (strength, text(binding, "valueSet")) {
            bindings.push(Binding { strength, value_set: unversioned(&value_set).to_owned() });
        }
        // The outer bound of an otherwise loose binding: nothing outside of it is allowed.
        let max = extension(binding, MAX_VALUE_SET, "valueCanonical")
            .and_then(|c| c.as_str().map(|c| unversioned(&c).to_owned()));
        if let Some(value_set) = max {
            bindings.push(Binding { strength: Strength::Required, value_set });
        }
    }
    Element {
        parent,
        name,
        min: element.member("min").and_then(|min| min.number().and_then(|n| n.parse().ok())).unwrap_or(0),
        max,
        repeats,
        is_modifier: element.member("isModifier").and_then(Node::as_bool).unwrap_or(false),
        is_summary: element.member("isSummary").and_then(Node::as_bool).unwrap_or(false),
        content: None,
        types,
        bindings,
        constraints: constraints::read(element),
    }
}

/// FHIR writes the types of ids, urls and primitive values as FHIRPath system types with the FHIR type in an extension.
fn read_type(node: Node<'_>, is_root_id: bool) -> TypeRef {
    let code = if is_root_id {
        // R4 says `string` for Resource.id there, against its own text (resource.html#id: type id).
        "id".to_owned()
    } else {
        extension(node, FHIR_TYPE, "valueUrl")
            .and_then(|url| url.as_str().map(std::borrow::Cow::into_owned))
            .or_else(|| text(node, "code"))
            .unwrap_or_default()
    };
    let targets = items(node, "targetProfile")
        .filter_map(|target| target.as_str().map(|t| t.strip_prefix(CORE).unwrap_or(&t).to_owned()))
        .collect();
    TypeRef { code, targets }
}
