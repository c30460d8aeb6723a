//! `ValueSet/$validate-code` as FHIR R4 valueset-operation-validate-code.html has it: the question as Parameters, and what an
//! answer means. Servers say in several ways that they do not know a system or a value set; none of them is a no.

use bytes::Bytes;
use serde_json::{Value, json};
use sluice_fhir::tree::{Limits, Node, Tree};

use super::{Membership, Question};

/// Bytes of an answer.
pub(super) const BYTES_MAX: usize = 1 << 20;

/// The body of a question.
pub(super) fn question(question: &Question) -> Bytes {
    let (url, version) = match question.value_set.split_once('|') {
        Some((url, version)) => (url, Some(version)),
        None => (&*question.value_set, None),
    };
    let mut parameters = vec![json!({ "name": "url", "valueUri": url })];
    let mut add = |name: &str, kind: &str, value: Option<&str>| {
        if let Some(value) = value {
            let mut parameter = json!({ "name": name });
            parameter[kind] = Value::from(value);
            parameters.push(parameter);
        }
    };
    add("valueSetVersion", "valueString", version);
    add("code", "valueCode", Some(&question.code));
    add("system", "valueUri", question.system.as_deref());
    add("systemVersion", "valueString", question.version.as_deref());
    if question.system.is_none() {
        // R4 leaves it to the server; this is how those that can do it are asked to.
        parameters.push(json!({ "name": "inferSystem", "valueBoolean": true }));
    }
    json!({ "resourceType": "Parameters", "parameter": parameters }).to_string().into()
}

/// Whether a body is what a FHIR server says where it does not do what was asked.
pub(super) fn is_outcome(body: Bytes) -> bool {
    Tree::parse(body, &Limits::default()).is_ok_and(|tree| tree.resource_type() == Some("OperationOutcome"))
}

/// What an answer with the status 200 says; None if it is not one.
pub(super) fn answer(body: Bytes) -> Option<Membership> {
    let tree = Tree::parse(body, &Limits { bytes_max: BYTES_MAX, ..Limits::default() }).ok()?;
    let root = tree.root();
    if root.resource_type() != Some("Parameters") {
        return None;
    }
    let parameters = || root.member("parameter").into_iter().flat_map(Node::items);
    let named = |name: &'static str| parameters().filter(move |it| it.member("name").is_some_and(|it| it.is_str(name)));
    let result = named("result").next()?.member("valueBoolean")?.as_bool()?;
    if result {
        return Some(Membership::In);
    }
    // Which system it does not know, as tx.fhir.org and those built like it say; and the issues of newer servers, where the
    // code system or the value set was not found.
    let mut unknown = ["x-unknown-system", "x-caused-by-unknown-system"].into_iter().flat_map(named);
    let issues = named("issues").filter_map(|it| it.member("resource")).flat_map(|it| it.find(&["issue"]));
    let mut not_found = issues.filter(|issue| {
        let code = issue.member("code").and_then(Node::as_str);
        matches!(code.as_deref(), Some("not-found" | "not-supported" | "too-costly" | "exception"))
    });
    let is_unknown = unknown.next().is_some() || not_found.next().is_some();
    Some(if is_unknown { Membership::Unknown } else { Membership::Out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_what_it_has() {
        let asked = Question {
            value_set: "http://x.example/v|2".to_owned(),
            system: Some("http://loinc.org".to_owned()),
            version: Some("2.77".to_owned()),
            code: "1234-5".to_owned(),
        };
        let text = String::from_utf8(question(&asked).to_vec()).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let names: Vec<_> =
            value["parameter"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["url", "valueSetVersion", "code", "system", "systemVersion"]);
        let bare = Question { system: None, version: None, value_set: "http://x.example/v".to_owned(), ..asked };
        assert!(String::from_utf8(question(&bare).to_vec()).unwrap().contains("inferSystem"));
    }

    #[test]
    fn what_a_server_does_not_know_is_no_no() {
        let parameters = |more: &str| {
            let text = format!(r#"{{"resourceType":"Parameters","parameter":[{more}]}}"#);
            answer(text.into())
        };
        let no = r#"{"name":"result","valueBoolean":false}"#;
        let issues = |code: &str| {
            format!(
                r#"{no},{{"name":"issues","resource":{{"resourceType":"OperationOutcome","issue":[{{"code":"{code}"}}]}}}}"#
            )
        };
        assert_eq!(parameters(r#"{"name":"result","valueBoolean":true}"#), Some(Membership::In));
        assert_eq!(parameters(no), Some(Membership::Out));
        assert_eq!(parameters(&issues("code-invalid")), Some(Membership::Out));
        assert_eq!(parameters(&issues("not-found")), Some(Membership::Unknown));
        let cause = format!(r#"{no},{{"name":"x-caused-by-unknown-system","valueCanonical":"http://x.example/s"}}"#);
        assert_eq!(parameters(&cause), Some(Membership::Unknown));
        assert_eq!(parameters(r#"{"name":"result","valueString":"true"}"#), None);
        for text in ["", "<html>", r#"{"resourceType":"OperationOutcome"}"#, "[]"] {
            assert_eq!(answer(text.into()), None);
        }
    }
}
