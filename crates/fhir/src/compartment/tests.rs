use bytes::Bytes;

use super::*;
use crate::resource_type::TYPES;
use crate::tree::{Limits, Tree};

/// The membership, with paths for nodes.
fn membership(text: &str) -> Result<Vec<String>, Membership> {
    let tree = Tree::parse(Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).unwrap();
    match patient(tree.root()) {
        Membership::Patients(ids) => Ok(ids.into_iter().map(|id| tree.node(id).path()).collect()),
        other => Err(other),
    }
}

#[test]
fn every_type_is_classified() {
    assert_eq!(TYPES.len(), 146);
    assert!(TYPES.is_sorted_by(|a, b| a.name < b.name));
    for row in TYPES {
        let bare = membership(&format!(r#"{{"resourceType":"{}"}}"#, row.name));
        match row.name {
            "Patient" => assert_eq!(bare, Ok(vec![String::from("Patient")])),
            _ if row.should => assert_eq!(bare, Err(Membership::ShouldButDoesNot), "{}", row.name),
            _ => assert_eq!(bare, Err(Membership::NeverAboutPatient), "{}", row.name),
        }
    }
    let should = TYPES.iter().filter(|row| row.should).count();
    let none = TYPES.iter().filter(|row| row.paths.is_empty() && row.name != "Bundle").count();
    assert_eq!((should, none), (74, 63));
}

#[test]
fn a_resource_is_about_the_patients_it_points_at() {
    let none = Err(Membership::ShouldButDoesNot);
    let never = Err(Membership::NeverAboutPatient);
    let some = |paths: &[&str]| Ok(paths.iter().map(|&path| path.to_owned()).collect());
    for (text, expected) in [
        (r#"{"resourceType":"Observation","subject":{"reference":"Patient/1"}}"#, some(&["Observation.subject"])),
        (
            r#"{"resourceType":"Observation","subject":{"reference":"http://a.b/Patient/1"}}"#,
            some(&["Observation.subject"]),
        ),
        (r#"{"resourceType":"Observation","subject":{"reference":"urn:uuid:1"}}"#, some(&["Observation.subject"])),
        (r#"{"resourceType":"Observation","subject":{"reference":"urn:uuid:1","type":"Device"}}"#, none.clone()),
        (
            r#"{"resourceType":"Observation","subject":{"reference":"Patient/1","type":"Device"}}"#,
            some(&["Observation.subject"]),
        ),
        (
            r#"{"resourceType":"Observation","subject":{"reference":"Patient?identifier=1"}}"#,
            some(&["Observation.subject"]),
        ),
        (r#"{"resourceType":"Observation","subject":{"reference":"Group/1"}}"#, none.clone()),
        (r#"{"resourceType":"Observation","subject":{"display":"x"}}"#, none.clone()),
        (
            r#"{"resourceType":"Observation","subject":{"identifier":{"value":"x"}},"performer":[{"reference":"Patient/1"}]}"#,
            none.clone(),
        ),
        (
            r#"{"resourceType":"Observation","subject":{"reference":"Patient/1"},"performer":[{"display":"x"},{"reference":"Practitioner/1"},{"reference":"Patient/2"}]}"#,
            some(&["Observation.subject", "Observation.performer[2]"]),
        ),
        (
            r##"{"resourceType":"Observation","contained":[{"resourceType":"Patient","id":"p"},{"resourceType":"Device","id":"d"}],"subject":{"reference":"#p"},"performer":[{"reference":"#d"}]}"##,
            some(&["Observation.subject"]),
        ),
        (
            r#"{"resourceType":"Patient","link":[{"other":{"reference":"Patient/2"}},{"other":{"reference":"RelatedPerson/2"}}]}"#,
            some(&["Patient", "Patient.link[0].other"]),
        ),
        (
            r#"{"resourceType":"Group","member":[{"entity":{"reference":"Patient/1"}},{"entity":{"reference":"Patient/2"}}]}"#,
            some(&["Group.member[0].entity", "Group.member[1].entity"]),
        ),
        (r#"{"resourceType":"Device","patient":{"reference":"Patient/1"}}"#, some(&["Device.patient"])),
        (r#"{"resourceType":"Task","for":{"reference":"Patient/1"}}"#, some(&["Task.for"])),
        (
            r#"{"resourceType":"Task","input":[{"valueReference":{"reference":"Patient/1"}}]}"#,
            some(&["Task.input[0].valueReference"]),
        ),
        (r#"{"resourceType":"MessageHeader","focus":[{"reference":"Patient/1"}]}"#, some(&["MessageHeader.focus[0]"])),
        (r#"{"resourceType":"MessageHeader","focus":[{"reference":"Task/1"}]}"#, never.clone()),
        (
            r#"{"resourceType":"AuditEvent","agent":[{"who":{"display":"x"}}],"entity":[{"what":{"reference":"Patient/1"}}]}"#,
            some(&["AuditEvent.entity[0].what"]),
        ),
        (r#"{"resourceType":"Organization"}"#, never),
        (r#"{"resourceType":"Bundle","entry":[]}"#, none.clone()),
        (r#"{"resourceType":"NoSuchType"}"#, none.clone()),
        ("{}", none.clone()),
        ("[]", none.clone()),
        (r#"{"resourceType":"Observation","subject":"Patient/1"}"#, none),
    ] {
        assert_eq!(membership(text), expected, "{text}");
    }
}
