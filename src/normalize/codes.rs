//! Codings translated by ConceptMap.
//!
//! Takes: the codings of a CodeableConcept, and FHIR R4 ConceptMaps in their order. Gives: the targets' codings beside
//! the originals. Never: removes or changes a coding; adds one twice; follows a map whose equivalence the pack does not
//! allow, or that depends on other elements.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sluice_fhir::tree::{Kind, Node};

use super::overlay::Overlay;
use super::table::{Unmapped, Wrong};

/// Codings of one concept that are looked at, the added ones included.
const CODINGS_MAX: usize = 256;

/// A pack, as written; mappings/schema/codes.json describes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    #[serde(default)]
    unmapped: Unmapped,
    equivalence: Vec<String>,
    concept_map: ConceptMap,
}

/// What is read of FHIR R4 conceptmap.html; the schema refuses what is not honoured.
#[derive(Deserialize)]
struct ConceptMap {
    group: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    source: String,
    target: String,
    target_version: Option<String>,
    element: Vec<Element>,
}

#[derive(Deserialize)]
struct Element {
    code: String,
    #[serde(default)]
    target: Vec<WrittenTarget>,
}

#[derive(Deserialize)]
struct WrittenTarget {
    code: Option<String>,
    display: Option<String>,
    equivalence: String,
}

/// The ConceptMaps of all packs, in their order.
#[derive(Debug, Default)]
pub(super) struct Codes {
    maps: Vec<Map>,
}

#[derive(Debug)]
struct Map {
    pack: usize,
    unmapped: Unmapped,
    by_system: HashMap<String, HashMap<String, Vec<Target>>>,
}

#[derive(Debug)]
struct Target {
    system: String,
    code: String,
    json: Vec<u8>,
}

#[derive(Serialize)]
struct Coding<'a> {
    system: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    display: Option<&'a str>,
}

impl Codes {
    pub(super) fn add(&mut self, pack: usize, written: &Written) -> Result<(), Wrong> {
        let mut by_system: HashMap<String, HashMap<String, Vec<Target>>> = HashMap::new();
        for (group_at, group) in written.concept_map.group.iter().enumerate() {
            let codes = by_system.entry(group.source.clone()).or_default();
            for (at, element) in group.element.iter().enumerate() {
                let targets = codes.entry(element.code.clone()).or_default();
                for target in element.target.iter().filter(|it| written.equivalence.contains(&it.equivalence)) {
                    let Some(code) = target.code.as_deref() else { continue };
                    let json = serde_json::to_vec(&Coding {
                        system: &group.target,
                        version: group.target_version.as_deref(),
                        code,
                        display: target.display.as_deref(),
                    });
                    let json = json.map_err(|error| {
                        (format!("/conceptMap/group/{group_at}/element/{at}/target"), error.to_string())
                    })?;
                    targets.push(Target { system: group.target.clone(), code: code.to_owned(), json });
                }
            }
        }
        let map = Map { pack, unmapped: written.unmapped, by_system };
        // Applied a second time, a map must not find what it, or a later one, has added the first time.
        for earlier in self.maps.iter().chain([&map]) {
            if let Some(target) = map.targets().find(|it| earlier.has(&it.system, &it.code)) {
                return Err((
                    "/conceptMap/group".to_owned(),
                    format!(
                        "targets that neither this map nor one before it translates; `{}|{}` is translated",
                        target.system, target.code
                    ),
                ));
            }
        }
        self.maps.push(map);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.maps.is_empty()
    }

    /// The codings of a CodeableConcept: an array named `coding`.
    pub(super) fn apply(&self, codings: Node<'_>, overlay: &mut Overlay) {
        if codings.kind() != Kind::Array {
            return;
        }
        let mut known: Vec<(String, String)> = Vec::new();
        let mut nodes = Vec::new();
        for coding in codings.items().take(CODINGS_MAX) {
            let text = |name| coding.member(name).and_then(Node::as_str);
            if let (Some(system), Some(code)) = (text("system"), text("code")) {
                known.push((system.into_owned(), code.into_owned()));
                nodes.push(coding);
            }
        }
        for map in &self.maps {
            let mut at = 0;
            while let Some((system, code)) = known.get(at).cloned() {
                let Some(codes) = map.by_system.get(&system) else {
                    at += 1;
                    continue;
                };
                match codes.get(&code).filter(|targets| !targets.is_empty()) {
                    Some(targets) => {
                        for target in targets {
                            let is_known = known.iter().any(|(system, code)| target.is(system, code));
                            if !is_known && known.len() < CODINGS_MAX {
                                overlay.edits.append_item(codings, target.json.clone());
                                overlay.changed(codings, map.pack);
                                known.push((target.system.clone(), target.code.clone()));
                            }
                        }
                    }
                    None => {
                        if let Some(node) = nodes.get(at) {
                            let expected = "a code that the ConceptMap of its system translates";
                            overlay.unmapped(*node, map.unmapped, "normalize.code", expected);
                        }
                    }
                }
                at += 1;
            }
        }
    }
}

impl Map {
    fn targets(&self) -> impl Iterator<Item = &Target> {
        self.by_system.values().flat_map(HashMap::values).flatten()
    }

    fn has(&self, system: &str, code: &str) -> bool {
        let targets = self.by_system.get(system).and_then(|codes| codes.get(code));
        targets.is_some_and(|it| !it.is_empty())
    }
}

impl Target {
    fn is(&self, system: &str, code: &str) -> bool {
        self.system == system && self.code == code
    }
}
