//! The labeling step: clinical codes that say what must not be told lightly.
//!
//! Takes FHIR ValueSets, each saying by `useContext` which sensitivity it stands for, and a resource; gives the labels
//! that the resource lacks: the sensitivities whose codes occur anywhere in it, and R with them, since data with a
//! stigmatising sensitivity is restricted (IHE PCF volume 1, 53.4.2.7). It only ever adds. What a ValueSet includes by
//! reference to another can't be expanded here, and is reported rather than passed over in silence.

use std::collections::HashMap;

use bytes::Bytes;
use sluice_fhir::tree::{Limits, Node, SyntaxError, Tree};

use super::codes::{ACT_CODE, CONFIDENTIALITY, Key};
use super::facets::Facets;

/// Why a ValueSet can't serve.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// Not JSON.
    #[error("{0}")]
    Syntax(SyntaxError),
    /// No `ValueSet`, or it does not say which v3-ActCode sensitivity it stands for.
    #[error("expected a ValueSet with a useContext whose valueCodeableConcept is a code of v3-ActCode")]
    Form,
    /// A `compose` element that is not understood; leaving it out would leave records unlabelled.
    #[error(
        "expected compose.include with a system and concepts, or the filter concept is-a on a code system whose codes show their hierarchy"
    )]
    Compose,
}

/// The codes that lead to labels.
#[derive(Debug, Default)]
pub struct Labeler {
    /// Sensitivities by their code.
    sensitivities: Vec<Box<str>>,
    exact: HashMap<Key, Vec<usize>>,
    /// (system, beginning of the code, sensitivity)
    prefixes: Vec<(Box<str>, Box<str>, usize)>,
    unexpanded: Vec<String>,
}

/// Code systems in which a narrower code begins with the broader one, so that is-a can be told from the text.
const BY_PREFIX: [&str; 4] = [
    "http://hl7.org/fhir/sid/icd-10",
    "http://hl7.org/fhir/sid/icd-10-cm",
    "http://hl7.org/fhir/sid/icd-9-cm",
    "http://www.whocc.no/atc",
];

impl Labeler {
    /// A labeler that adds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sensitivities that come with Sluice (`mappings/labels`, from IHE PCF).
    pub fn shipped() -> Result<Self, LabelsError> {
        const SHIPPED: [&[u8]; 6] = [
            include_bytes!("../../mappings/labels/eth.json"),
            include_bytes!("../../mappings/labels/ethud.json"),
            include_bytes!("../../mappings/labels/hiv.json"),
            include_bytes!("../../mappings/labels/opioidud.json"),
            include_bytes!("../../mappings/labels/psy.json"),
            include_bytes!("../../mappings/labels/sdv.json"),
        ];
        let mut labeler = Self::new();
        SHIPPED.into_iter().try_for_each(|value_set| labeler.add(Bytes::from_static(value_set)))?;
        Ok(labeler)
    }

    /// Adds the codes of a ValueSet.
    pub fn add(&mut self, value_set: Bytes) -> Result<(), LabelsError> {
        let tree = Tree::parse(value_set, &Limits::default()).map_err(LabelsError::Syntax)?;
        let root = tree.root();
        if root.resource_type() != Some("ValueSet") {
            return Err(LabelsError::Form);
        }
        let mut codings = root.find(&["useContext", "valueCodeableConcept", "coding"]);
        let sensitivity = codings
            .find(|coding| coding.member("system").is_some_and(|system| system.is_str(ACT_CODE)))
            .and_then(|coding| coding.member("code")?.as_str())
            .ok_or(LabelsError::Form)?;
        let at = self.sensitivity(&sensitivity);
        let compose = root.member("compose").ok_or(LabelsError::Compose)?;
        if compose.members().any(|member| !matches!(member.name(), Some("include"))) {
            return Err(LabelsError::Compose);
        }
        for include in compose.find(&["include"]) {
            self.include(include, at)?;
        }
        Ok(())
    }

    /// ValueSets that were included by reference and are missing: records with their codes stay without the label.
    pub fn unexpanded(&self) -> &[String] {
        &self.unexpanded
    }

    /// The sensitivities whose codes occur in a resource, in the order in which they were added.
    pub fn sensitivities(&self, resource: Node<'_>) -> Vec<&str> {
        let mut found = vec![false; self.sensitivities.len()];
        for node in resource.descendants().filter(|node| node.is_object()) {
            let text = |name| node.member(name).and_then(Node::as_str);
            let (Some(system), Some(code)) = (text("system"), text("code")) else { continue };
            let exact = self.exact.get(&Key::code(&system, &code)).into_iter().flatten().copied();
            let by_prefix = self
                .prefixes
                .iter()
                .filter(|(of, prefix, _)| **of == *system && code.starts_with(&**prefix))
                .map(|(_, _, at)| *at);
            for at in exact.chain(by_prefix) {
                if let Some(found) = found.get_mut(at) {
                    *found = true;
                }
            }
        }
        let names = self.sensitivities.iter().zip(found);
        names.filter_map(|(name, found)| found.then_some(&**name)).collect()
    }

    /// Adds to the facets of a resource the labels that it lacks.
    pub fn label(&self, resource: Node<'_>, facets: &mut Facets) {
        let found = self.sensitivities(resource);
        for sensitivity in &found {
            facets.add_label(ACT_CODE, sensitivity);
        }
        if !found.is_empty() {
            // A high-water mark: where the record says V already, R takes nothing away.
            facets.add_label(CONFIDENTIALITY, "R");
        }
    }

    fn sensitivity(&mut self, code: &str) -> usize {
        if let Some(at) = self.sensitivities.iter().position(|known| **known == *code) {
            return at;
        }
        self.sensitivities.push(code.into());
        self.sensitivities.len() - 1
    }

    fn include(&mut self, include: Node<'_>, at: usize) -> Result<(), LabelsError> {
        let text = |node: Node<'_>, name: &str| node.member(name).and_then(Node::as_str).map(String::from);
        let known = ["system", "version", "concept", "filter", "valueSet"];
        if include.members().any(|member| !member.name().is_some_and(|name| known.contains(&name))) {
            return Err(LabelsError::Compose);
        }
        let elsewhere = include.find(&["valueSet"]).filter_map(Node::as_str).map(String::from);
        let before = self.unexpanded.len();
        self.unexpanded.extend(elsewhere);
        let Some(system) = text(include, "system") else {
            return if self.unexpanded.len() > before { Ok(()) } else { Err(LabelsError::Compose) };
        };
        for concept in include.find(&["concept"]) {
            let code = text(concept, "code").ok_or(LabelsError::Compose)?;
            self.exact.entry(Key::code(&system, &code)).or_default().push(at);
        }
        for filter in include.find(&["filter"]) {
            let is = |name, wanted| text(filter, name).as_deref() == Some(wanted);
            let understood = is("property", "concept") && is("op", "is-a") && BY_PREFIX.contains(&&*system);
            let code =
                text(filter, "value").filter(|code| understood && !code.is_empty()).ok_or(LabelsError::Compose)?;
            self.prefixes.push((system.as_str().into(), code.into(), at));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consent::facets::Surroundings;

    fn shipped() -> Labeler {
        let mut labeler = Labeler::new();
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/mappings/labels")).unwrap();
        let files =
            files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
        let mut files: Vec<_> = files.collect();
        files.sort();
        assert_eq!(files.len(), 6);
        for file in files {
            labeler.add(Bytes::from(std::fs::read(&file).unwrap())).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        }
        labeler
    }

    fn found(labeler: &Labeler, system: &str, code: &str) -> Vec<String> {
        let json = format!(
            r#"{{"resourceType":"Observation","component":[{{"code":{{"coding":[{{"system":"{system}","code":"{code}"}}]}}}}]}}"#
        );
        let tree = Tree::parse(Bytes::from(json), &Limits::default()).unwrap();
        labeler.sensitivities(tree.root()).into_iter().map(String::from).collect()
    }

    #[test]
    fn codes_anywhere_in_a_record_are_found() {
        let labeler = shipped();
        let icd = "http://hl7.org/fhir/sid/icd-10-cm";
        assert_eq!(found(&labeler, icd, "B20"), ["HIV"]);
        assert_eq!(found(&labeler, icd, "F10.20"), ["ETH", "ETHUD"]);
        assert_eq!(found(&labeler, icd, "F11.1"), ["ETH", "OPIOIDUD"]);
        assert_eq!(found(&labeler, icd, "F32.9"), ["PSY"]);
        assert_eq!(found(&labeler, icd, "T74.21XA"), ["SDV"]);
        assert_eq!(found(&labeler, "http://loinc.org", "74013-4"), ["ETH", "ETHUD"]);
        assert!(found(&labeler, icd, "J45").is_empty());
        assert!(found(&labeler, "http://example.org", "B20").is_empty(), "a code counts in its system alone");
        assert!(!labeler.unexpanded().is_empty(), "what IHE includes by reference is reported");
    }

    #[test]
    fn sensitive_is_restricted() {
        let json = r#"{"resourceType":"Condition","code":{"coding":[{"system":"http://hl7.org/fhir/sid/icd-10","code":"B24"}]}}"#;
        let tree = Tree::parse(Bytes::from(json), &Limits::default()).unwrap();
        let mut facets = Facets::of(tree.root(), &Surroundings::none());
        assert!(!facets.has_confidentiality());
        shipped().label(tree.root(), &mut facets);
        assert!(facets.has_confidentiality());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let context = r#""useContext":[{"valueCodeableConcept":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"HIV"}]}}]"#;
        for (json, error) in [
            (r#"{"resourceType":"ValueSet"}"#.to_owned(), LabelsError::Form),
            (r#"{"resourceType":"Patient"}"#.to_owned(), LabelsError::Form),
            (format!(r#"{{"resourceType":"ValueSet",{context}}}"#), LabelsError::Compose),
            (format!(r#"{{"resourceType":"ValueSet",{context},"compose":{{"exclude":[]}}}}"#), LabelsError::Compose),
            (
                format!(
                    r#"{{"resourceType":"ValueSet",{context},"compose":{{"include":[{{"system":"http://snomed.info/sct","filter":[{{"property":"concept","op":"is-a","value":"1"}}]}}]}}}}"#
                ),
                LabelsError::Compose,
            ),
        ] {
            assert_eq!(Labeler::new().add(Bytes::from(json)), Err(error));
        }
        assert!(matches!(Labeler::new().add(Bytes::from_static(b"{")), Err(LabelsError::Syntax(_))));
    }
}
