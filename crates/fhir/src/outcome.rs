//! What is found wrong with a resource, and the OperationOutcome that says so.
//!
//! Takes issues, gives FHIR R4 JSON. An issue holds locations, rule ids and what was expected; never a value of the record.

use std::borrow::Cow;

use crate::tree::{Position, text::write_string};

/// How bad an issue is (issue-severity).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Checking could not go on.
    Fatal,
    /// The resource is refused.
    Error,
    /// The resource is taken, but something should be looked at.
    Warning,
    /// Nothing to act upon.
    Information,
}

impl Severity {
    /// The code of the value set.
    pub fn code(self) -> &'static str {
        match self {
            Self::Fatal => "fatal",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Information => "information",
        }
    }
}

macro_rules! issue_types {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)+) => {
        /// What kind of issue it is (issue-type of R4).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum IssueType {
            $($(#[doc = $doc])+ $name,)+
        }

        impl IssueType {
            /// Every issue type.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code of the value set.
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }
        }
    };
}

issue_types! {
    /// Content invalid against the specification or a profile.
    Invalid = "invalid",
    /// A structural issue in the content.
    Structure = "structure",
    /// A required element is missing.
    Required = "required",
    /// An element or header value is invalid.
    Value = "value",
    /// A content validation rule failed.
    Invariant = "invariant",
    /// An authentication, authorization or permissions issue.
    Security = "security",
    /// The client needs to authenticate.
    Login = "login",
    /// The user or system could not be authenticated.
    Unknown = "unknown",
    /// The session expired.
    Expired = "expired",
    /// The user does not have the rights.
    Forbidden = "forbidden",
    /// Some information was not or might not have been returned due to rules.
    Suppressed = "suppressed",
    /// Processing issues; these are expected to be final.
    Processing = "processing",
    /// The interaction, operation, resource or profile is not supported.
    NotSupported = "not-supported",
    /// An attempt was made to create a duplicate record.
    Duplicate = "duplicate",
    /// Multiple matching records were found when the operation required only one.
    MultipleMatches = "multiple-matches",
    /// The reference provided was not found.
    NotFound = "not-found",
    /// The reference pointed to content that has been deleted.
    Deleted = "deleted",
    /// The content is too long.
    TooLong = "too-long",
    /// The code or system could not be understood, or was not valid in the context.
    CodeInvalid = "code-invalid",
    /// An extension was found that was not acceptable or could not be resolved.
    Extension = "extension",
    /// The operation was stopped to protect server resources.
    TooCostly = "too-costly",
    /// The content or operation failed to pass a business rule.
    BusinessRule = "business-rule",
    /// Content could not be accepted because of an edit conflict.
    Conflict = "conflict",
    /// A transient processing issue; the same later may succeed.
    Transient = "transient",
    /// A resource or record locking failure.
    LockError = "lock-error",
    /// The persistent store is unavailable.
    NoStore = "no-store",
    /// An unexpected internal error.
    Exception = "exception",
    /// An internal timeout.
    Timeout = "timeout",
    /// Not all data sources could be accessed.
    Incomplete = "incomplete",
    /// The system is not prepared to handle this request due to load.
    Throttled = "throttled",
    /// A message unrelated to the processing success.
    Informational = "informational",
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// How bad it is.
    pub severity: Severity,
    /// What kind it is.
    pub code: IssueType,
    /// The id of the rule, stable over releases: `structure.unknown-member`.
    pub rule: Cow<'static, str>,
    /// The FHIRPath location: `Bundle.entry[3].resource.name[0]`.
    pub expression: Option<String>,
    /// Line and column.
    pub position: Option<Position>,
    /// What was expected; never a value of the record.
    pub text: String,
    /// The canonical of the ValueSet or profile that the rule belongs to.
    pub about: Option<String>,
}

/// The code system of rule ids.
pub const RULE_SYSTEM: &str = "https://sluice.dev/fhir/CodeSystem/rule";

/// The issues as an OperationOutcome of R4, in the order given. `OperationOutcome.issue` is 1..*, so no issues become one
/// of severity information that says so.
pub fn to_json(issues: &[Issue]) -> Vec<u8> {
    let mut json = Vec::with_capacity(64 + issues.len() * 512);
    json.extend_from_slice(br#"{"resourceType":"OperationOutcome","issue":["#);
    for (index, issue) in issues.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write_issue(&mut json, issue);
    }
    if issues.is_empty() {
        json.extend_from_slice(br#"{"severity":"information","code":"informational","diagnostics":"no issues"}"#);
    }
    json.extend_from_slice(b"]}");
    json
}

fn write_issue(json: &mut Vec<u8>, issue: &Issue) {
    const LINE: &str = "http://hl7.org/fhir/StructureDefinition/operationoutcome-issue-line";
    const COLUMN: &str = "http://hl7.org/fhir/StructureDefinition/operationoutcome-issue-col";
    const AUTHORITY: &str = "http://hl7.org/fhir/StructureDefinition/operationoutcome-authority";
    json.push(b'{');
    let mut extensions = Vec::with_capacity(3);
    if let Some(position) = issue.position {
        extensions.push((LINE, Err(position.line)));
        extensions.push((COLUMN, Err(position.column)));
    }
    if let Some(about) = &issue.about {
        extensions.push((AUTHORITY, Ok(about)));
    }
    if !extensions.is_empty() {
        json.extend_from_slice(br#""extension":["#);
        for (index, (url, value)) in extensions.into_iter().enumerate() {
            json.extend_from_slice(if index == 0 { br#"{"url":"# } else { br#",{"url":"# });
            put(json, url);
            match value {
                Ok(uri) => {
                    json.extend_from_slice(br#","valueUri":"#);
                    put(json, uri);
                }
                Err(integer) => {
                    // FHIR's integer ends at 2^31 - 1.
                    json.extend_from_slice(
                        format!(r#","valueInteger":{}"#, integer.min(i32::MAX.unsigned_abs())).as_bytes(),
                    );
                }
            }
            json.push(b'}');
        }
        json.extend_from_slice(b"],");
    }
    json.extend_from_slice(br#""severity":"#);
    put(json, issue.severity.code());
    json.extend_from_slice(br#","code":"#);
    put(json, issue.code.code());
    json.extend_from_slice(br#","details":{"coding":[{"system":"#);
    put(json, RULE_SYSTEM);
    json.extend_from_slice(br#","code":"#);
    put(json, &issue.rule);
    json.extend_from_slice(b"}]}");
    // An empty string is no FHIR string.
    if !issue.text.is_empty() {
        json.extend_from_slice(br#","diagnostics":"#);
        put(json, &issue.text);
    }
    if let Some(expression) = &issue.expression {
        json.extend_from_slice(br#","expression":["#);
        put(json, expression);
        json.push(b']');
    }
    json.push(b'}');
}

fn put(json: &mut Vec<u8>, text: &str) {
    write_string(text, |piece| json.extend_from_slice(piece));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_says_what_and_where() {
        let issue = Issue {
            severity: Severity::Error,
            code: IssueType::CodeInvalid,
            rule: Cow::Borrowed("binding.required"),
            expression: Some(String::from("Patient.gender")),
            position: Some(Position { line: 3, column: 14 }),
            text: String::from("expected a code of \"AdministrativeGender\""),
            about: Some(String::from("http://hl7.org/fhir/ValueSet/administrative-gender")),
        };
        let bare = Issue { expression: None, position: None, about: None, text: String::new(), ..issue.clone() };
        let value: serde_json::Value = serde_json::from_slice(&to_json(&[issue, bare])).unwrap();
        assert_eq!(value["resourceType"], "OperationOutcome");
        let first = &value["issue"][0];
        assert_eq!(first["severity"], "error");
        assert_eq!(first["code"], "code-invalid");
        assert_eq!(first["details"]["coding"][0]["code"], "binding.required");
        assert_eq!(first["details"]["coding"][0]["system"], RULE_SYSTEM);
        assert_eq!(first["expression"][0], "Patient.gender");
        assert_eq!(first["diagnostics"], "expected a code of \"AdministrativeGender\"");
        assert_eq!(first["extension"][0]["valueInteger"], 3);
        assert_eq!(first["extension"][1]["valueInteger"], 14);
        assert_eq!(first["extension"][2]["valueUri"], "http://hl7.org/fhir/ValueSet/administrative-gender");
        assert_eq!(value["issue"][1].as_object().map(serde_json::Map::len), Some(3));
    }

    #[test]
    fn no_issues_are_still_an_outcome() {
        let value: serde_json::Value = serde_json::from_slice(&to_json(&[])).unwrap();
        assert_eq!(value["issue"][0]["severity"], "information");
    }
}
