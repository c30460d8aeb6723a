//! [`Form`] -> Consent, in canonical form: members in the order of their names, no white space.
//!
//! What could not be read is printed so that it can't be read again: a modifierExtension on the Consent or provision, a
//! coding that holds nothing but the reason of its absence.

use sluice_fhir::canonical;

use super::{Base, Coding, Effect, Form, Period, Provision, Standing};
use crate::consent::codes::{ACT_CODE, CONSENT_SCOPE};

const MODIFIER: &str =
    r#""modifierExtension":[{"url":"https://sluice.dev/fhir/StructureDefinition/unreadable","valueBoolean":true}]"#;
const ABSENT: &str =
    r#"{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"unsupported"}]}"#;

pub(super) fn consent(form: &Form) -> Vec<u8> {
    let mut object = Object::new();
    object.raw("category", r#"[{"coding":[{"code":"59284-0","system":"http://loinc.org"}]}]"#);
    if let Some((text, _)) = &form.date {
        object.text("dateTime", text);
    }
    if let Some(id) = &form.id {
        object.text("id", id);
    }
    let mut meta = Object::new();
    if let Some((text, _)) = &form.version.updated {
        meta.text("lastUpdated", text);
    }
    if let Some(number) = form.version.number {
        meta.text("versionId", &number.to_string());
    }
    object.filled("meta", meta);
    if form.standing == Standing::Unreadable {
        object.member(MODIFIER);
    }
    if let Some(patient) = &form.patient {
        object.raw("patient", &reference(patient));
    }
    match form.base {
        Some(base) => {
            let code = if base == Base::OptIn { "OPTIN" } else { "OPTOUT" };
            object.raw("policyRule", &concept(&[Some((ACT_CODE.into(), code.into()))]));
        }
        // Invariant ppc-1 wants a policy named; the provision is all that counts.
        None => object.raw("policy", r#"[{"uri":"https://sluice.dev/policies/as-provided"}]"#),
    }
    object.filled("provision", provision(&form.root));
    object.text("resourceType", "Consent");
    object.raw("scope", &concept(&[Some((CONSENT_SCOPE.into(), "patient-privacy".into()))]));
    object.text("status", if form.standing == Standing::Silent { "inactive" } else { "active" });
    object.close().into_bytes()
}

fn provision(from: &Provision) -> Object {
    let mut object = Object::new();
    let concepts = |concepts: &Vec<Vec<Coding>>| array(concepts.iter().map(|codings| concept(codings)));
    let codings = |codings: &Vec<Coding>| array(codings.iter().map(coding));
    if let Some(actions) = &from.actions {
        object.raw("action", &concepts(actions));
    }
    if let Some(actors) = &from.actors {
        object.raw(
            "actor",
            &array(actors.iter().map(|actor| {
                let mut object = Object::new();
                object.raw("reference", &actor.reference.as_deref().map_or_else(|| ABSENT.into(), reference));
                if !actor.role.is_empty() {
                    object.raw("role", &concept(&actor.role));
                }
                object.close()
            })),
        );
    }
    if let Some(classes) = &from.classes {
        object.raw("class", &codings(classes));
    }
    if let Some(codes) = &from.codes {
        object.raw("code", &concepts(codes));
    }
    if let Some(data) = &from.data {
        object.raw(
            "data",
            &array(data.iter().map(|data| {
                let mut object = Object::new();
                match data.meaning {
                    Some(meaning) => object.text("meaning", meaning.code()),
                    None => object.raw("_meaning", ABSENT),
                }
                object.raw("reference", &data.reference.as_deref().map_or_else(|| ABSENT.into(), reference));
                object.close()
            })),
        );
    }
    if let Some(period) = &from.data_period {
        object.raw("dataPeriod", &self::period(period));
    }
    if from.unreadable {
        object.member(MODIFIER);
    }
    if let Some(period) = &from.period {
        object.raw("period", &self::period(period));
    }
    if !from.nested.is_empty() {
        object.raw("provision", &array(from.nested.iter().map(|nested| provision(nested).close())));
    }
    if let Some(purposes) = &from.purposes {
        object.raw("purpose", &codings(purposes));
    }
    if let Some(labels) = &from.labels {
        object.raw("securityLabel", &codings(labels));
    }
    match from.effect {
        Some(Effect::Permit) => object.text("type", "permit"),
        Some(Effect::Deny) => object.text("type", "deny"),
        Some(Effect::Unreadable) => object.text("type", "unreadable"),
        None => {}
    }
    object
}

fn period(period: &Period) -> String {
    let mut object = Object::new();
    if let Some((text, _)) = &period.end {
        object.text("end", text);
    }
    if let Some((text, _)) = &period.start {
        object.text("start", text);
    }
    object.close()
}

fn reference(to: &str) -> String {
    let mut object = Object::new();
    object.text("reference", to);
    object.close()
}

fn coding(coding: &Coding) -> String {
    let Some((system, code)) = coding else { return ABSENT.into() };
    let mut object = Object::new();
    object.text("code", code);
    object.text("system", system);
    object.close()
}

fn concept(codings: &[Coding]) -> String {
    let mut object = Object::new();
    object.raw("coding", &array(codings.iter().map(coding)));
    object.close()
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

/// An object being written; its members come in the order of their names.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self(String::from("{"))
    }

    fn member(&mut self, member: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(member);
    }

    fn raw(&mut self, name: &str, json: &str) {
        self.member(&format!("\"{name}\":{json}"));
    }

    fn text(&mut self, name: &str, text: &str) {
        self.raw(name, &canonical::string(text));
    }

    /// An object that has something in it; FHIR knows no empty ones.
    fn filled(&mut self, name: &str, object: Self) {
        if object.0.len() > 1 {
            self.raw(name, &object.close());
        }
    }

    fn close(mut self) -> String {
        self.0.push('}');
        self.0
    }
}
