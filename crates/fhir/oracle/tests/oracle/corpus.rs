//! Resources to ask about: HL7's R4 examples, entries of Synthea's Bundles, and definitions of R4 itself; and the places
//! in them, by the snapshots of R4.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use crate::engines::Document;

/// The oracle copies a resource for each question.
const BYTES_MAX: usize = 60_000;

/// A place in a resource.
#[derive(Debug, Default, Clone)]
pub struct Place {
    /// Members and indexes, from the root.
    pub path: Vec<String>,
    /// What is there, if it is a resource or a data type by itself.
    pub of: Option<String>,
}

/// The files of a packed folder, by name.
pub fn archive(relative: &str) -> BTreeMap<String, Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..").join(relative);
    let packed = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().trim_start_matches("./").to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(name, content);
    }
    files
}

/// R4's own package.
pub fn core() -> BTreeMap<String, Vec<u8>> {
    archive("tests/data/definitions/hl7.fhir.r4.core-4.0.1.tgz")
}

/// Resources, at most so many of a type and source.
pub fn documents(core: &BTreeMap<String, Vec<u8>>, of_type_max: usize) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut add_all = |source: Vec<(String, String)>| {
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for (name, text) in source.into_iter().filter(|(_, text)| text.len() <= BYTES_MAX) {
            let document = Document::new(&name, &text);
            let Some(resource_type) = document.value["resourceType"].as_str() else { continue };
            let count = count.entry(resource_type.to_owned()).or_default();
            *count += 1;
            if *count <= of_type_max {
                documents.push(document);
            }
        }
    };
    let texts = |files: &BTreeMap<String, Vec<u8>>| -> Vec<(String, String)> {
        let json = files.iter().filter(|(name, content)| name.ends_with(".json") && content.starts_with(b"{"));
        json.filter_map(|(name, content)| Some((name.clone(), String::from_utf8(content.clone()).ok()?))).collect()
    };
    add_all(texts(&archive("tests/data/hl7-examples/r4-4.0.1.tar.gz")));
    add_all(texts(core));
    let mut bundles = texts(&archive("tests/data/synthea/r4-30-patients.tar.gz"));
    bundles.sort_by_key(|(_, text)| text.len());
    let entries = bundles.into_iter().take(8).flat_map(|(name, text)| {
        let bundle: Value = serde_json::from_str(&text).unwrap();
        let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
        let resources = entries.into_iter().map(|entry| entry["resource"].to_string());
        resources.enumerate().map(move |(number, text)| (format!("{name}[{number}]"), text)).collect::<Vec<_>>()
    });
    add_all(entries.collect());
    documents
}

/// An element of R4's definitions.
#[derive(Debug, Default)]
pub struct Element {
    pub types: Vec<String>,
    /// The path of the element whose content it has.
    content: Option<String>,
    pub repeats: bool,
    /// Key and expression.
    pub constraints: Vec<(String, String)>,
}

impl Element {
    /// The path of the element whose content it has.
    pub fn content(&self) -> Option<&str> {
        self.content.as_deref()
    }
}

/// All elements of R4's resources and data types, by path.
pub fn elements(core: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Element> {
    let mut elements = BTreeMap::new();
    for content in core.iter().filter(|(name, _)| name.contains("/StructureDefinition-")).map(|(_, content)| content) {
        let definition: Value = serde_json::from_slice(content).unwrap();
        if definition["derivation"] == "constraint" {
            continue;
        }
        for element in definition["snapshot"]["element"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
            let constraints = list(&element["constraint"])
                .iter()
                .filter_map(|constraint| Some((text(&constraint["key"])?, text(&constraint["expression"])?)))
                .collect();
            let types = list(&element["type"]).iter().filter_map(|ty| text(&ty["code"])).collect();
            let content = element["contentReference"].as_str().map(|at| at.trim_start_matches('#').to_owned());
            elements.insert(
                text(&element["path"]).unwrap(),
                Element { types, content, repeats: element["max"] != "1", constraints },
            );
        }
    }
    elements
}

/// Gives every element of a resource with the paths of its definitions: of the element, and of its type. Not what is in
/// contained resources and entries of Bundles, where `%resource` is another.
pub fn places(elements: &BTreeMap<String, Element>, document: &Document, give: &mut dyn FnMut(&Place, &[&str])) {
    let Some(resource_type) = document.value["resourceType"].as_str() else { return };
    let place = Place { path: Vec::new(), of: Some(resource_type.to_owned()) };
    give(&place, &[resource_type]);
    within(elements, &document.value, &place, resource_type, give);
}

fn within(
    elements: &BTreeMap<String, Element>,
    value: &Value,
    at: &Place,
    path: &str,
    give: &mut dyn FnMut(&Place, &[&str]),
) {
    for (name, member) in value.as_object().into_iter().flatten() {
        let Some((found, element, chosen)) = named(elements, path, name) else { continue };
        let items: Vec<(Option<usize>, &Value)> = match member {
            Value::Array(items) => items.iter().enumerate().map(|(index, item)| (Some(index), item)).collect(),
            other => vec![(None, other)],
        };
        for (index, item) in items.into_iter().filter(|(_, item)| !item.is_null()) {
            let mut steps = at.path.clone();
            steps.push(name.clone());
            steps.extend(index.map(|index| index.to_string()));
            if !item.is_object() {
                give(&Place { path: steps, of: None }, &[&found]);
                continue;
            }
            if let Some(content) = &element.content {
                let place = Place { path: steps, of: None };
                give(&place, &[&found, content]);
                within(elements, item, &place, content, give);
                continue;
            }
            let Some(ty) = chosen.as_deref().or(element.types.first().map(String::as_str)) else { continue };
            if ty == "Resource" {
                continue;
            }
            if matches!(ty, "BackboneElement" | "Element") {
                let place = Place { path: steps, of: None };
                give(&place, &[&found]);
                within(elements, item, &place, &found, give);
            } else {
                let place = Place { path: steps, of: Some(ty.to_owned()) };
                give(&place, &[&found, ty]);
                within(elements, item, &place, ty, give);
            }
        }
    }
}

/// The element that a member is, with the type that its name chooses.
fn named<'e>(
    elements: &'e BTreeMap<String, Element>,
    path: &str,
    name: &str,
) -> Option<(String, &'e Element, Option<String>)> {
    let plain = format!("{path}.{name}");
    if let Some(element) = elements.get(&plain) {
        return Some((plain, element, None));
    }
    let split = name.char_indices().filter(|(_, c)| c.is_ascii_uppercase()).map(|(at, _)| name.split_at(at));
    split.into_iter().find_map(|(stem, ty)| {
        let choice = format!("{path}.{stem}[x]");
        let element = elements.get(&choice)?;
        element.types.iter().any(|it| it == ty).then(|| (choice, element, Some(ty.to_owned())))
    })
}

/// The paths of a resource that are the same in JSON and in FHIRPath, with the types at their ends: no choices, and
/// nothing within a Quantity, of which the oracle makes a value of its own.
pub fn paths(elements: &BTreeMap<String, Element>, document: &Document) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    if let Some(resource_type) = document.value["resourceType"].as_str() {
        paths_within(elements, &document.value, "", resource_type, &mut paths);
    }
    paths
}

fn paths_within(
    elements: &BTreeMap<String, Element>,
    value: &Value,
    from: &str,
    path: &str,
    paths: &mut Vec<(String, String)>,
) {
    for (name, member) in value.as_object().into_iter().flatten() {
        let Some((found, element, None)) = named(elements, path, name) else { continue };
        let items: Vec<&Value> = member.as_array().map_or_else(|| vec![member], |items| items.iter().take(2).collect());
        let ty = element.types.first().map_or("", String::as_str);
        let is_word = name.bytes().all(|byte| byte.is_ascii_alphabetic());
        let is_reserved = ["as", "is", "in", "and", "or", "div", "mod", "contains"].contains(&name.as_str());
        // The type of `Patient.id` is written as a System type.
        let ty = if ty.starts_with("http:") { "id" } else { ty };
        if !is_word
            || is_reserved
            || matches!(ty, "Resource" | "Quantity" | "SimpleQuantity" | "Age" | "Duration" | "Money")
        {
            continue;
        }
        let here = if from.is_empty() { name.clone() } else { format!("{from}.{name}") };
        if paths.iter().all(|(known, _)| *known != here) {
            paths.push((here.clone(), ty.to_owned()));
        }
        let inner = match (&element.content, ty) {
            (Some(content), _) => content.clone(),
            (None, "BackboneElement" | "Element") => found,
            (None, ty) => ty.to_owned(),
        };
        items.into_iter().for_each(|item| paths_within(elements, item, &here, &inner, paths));
    }
}
