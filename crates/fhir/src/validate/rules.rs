//! The table of rules: every finding of the validator has one of these ids, which are stable and may be named in settings.
//! `docs/rules.md` is this table; a test holds the two together.

use crate::outcome::{IssueType, Severity};

/// One rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Dotted, stable.
    pub id: &'static str,
    /// As found; a site may set another.
    pub severity: Severity,
    /// IssueType of the OperationOutcome.
    pub code: IssueType,
    /// What it demands, with the clause of FHIR R4.
    pub about: &'static str,
}

macro_rules! rules {
    ($($name:ident = $id:literal, $severity:ident, $code:ident, $about:literal;)*) => {
        $(#[doc = $about] pub(crate) static $name: Rule =
            Rule { id: $id, severity: Severity::$severity, code: IssueType::$code, about: $about };)*
        /// Every rule, by id.
        pub static ALL: &[&Rule] = &[$(&$name),*];
    };
}

rules! {
    ATTACHMENT_SIZE = "attachment.size", Error, Structure, "The size of an attachment is that of its data (datatypes.html#Attachment).";
    BUNDLE_LINK = "bundle.link", Error, Invalid, "A link relation of pages stands in searches and histories only, and each relation occurs once (bundle.html).";
    BUNDLE_REFERENCE = "bundle.reference", Error, NotFound, "What a Composition or a MessageHeader refers to is an entry of its Bundle (documents.html#content, messaging.html).";
    DOCUMENT_UNREACHED = "bundle.document-unreached", Error, Invalid, "Each entry of a document is linked with its Composition (documents.html#content).";
    FULL_URL = "bundle.full-url", Error, Invalid, "The fullUrl of an entry is absolute, is there but in transactions and batches, and ends with the type and id of the resource if it is that of a server (bundle.html#bundle-unique).";
    MESSAGE_UNREACHED = "bundle.message-unreached", Warning, Invalid, "Each entry of a message is linked with its MessageHeader (messaging.html).";
    SEARCH_ENTRY = "bundle.search-entry", Error, Invalid, "The entries of a search are resources with ids, of the types that were searched for, or outcomes (search.html#entries).";
    CODE_SYSTEM = "definition.code-system", Error, BusinessRule, "A CodeSystem's codes and properties are defined once, and its properties have values of their types (codesystem.html).";
    SYSTEM = "code.system", Error, CodeInvalid, "The system of a Coding is the absolute URI of a code system (datatypes.html#Coding).";
    CONCEPT_MAP = "definition.concept-map", Error, CodeInvalid, "A ConceptMap maps codes of the code systems and value sets that it names (conceptmap.html).";
    ELEMENT_ID_TWICE = "element.id-twice", Error, Duplicate, "The id of an element is that of no other element of the resource (element.html#id).";
    EXTENSION_RELEASE = "extension.release-not-checked", Information, NotSupported, "An extension that stands for an element of another release is checked against that (versions.html#extensions).";
    MEASURE_CQL = "measure.cql", Error, Invalid, "The criteria of a Measure in CQL are defined in one of its libraries, as far as these are at hand (measure.html).";
    MEASURE_REPORT = "measure.report", Error, BusinessRule, "The groups, populations, stratifiers and scores of a MeasureReport are those of its Measure (measurereport.html).";
    XHTML_LINK = "narrative.link", Error, Invalid, "A link in a narrative leads to an id that the resource or its Bundle has, or to a URL that can be opened (narrative.html).";
    POLICY_EXAMPLE = "policy.example-url", Error, Invalid, "Where the policy has it so: no URLs that are kept for examples.";
    POLICY_HTML = "policy.html", Error, Invalid, "Where the policy has it so: no HTML in strings, or in Markdown.";
    REFERENCE_ELSEWHERE = "reference.elsewhere", Error, NotFound, "Where the policy has it so: references within a Parameters or a Bundle name what is in it.";
    SEARCH_PARAMETER = "definition.search-parameter", Error, BusinessRule, "A SearchParameter's expression is FHIRPath on the types that it is for, and goes with what it derives from (searchparameter.html).";
    STRUCTURE = "definition.structure", Error, BusinessRule, "A StructureDefinition goes with its base, its elements with its type, their profiles and discriminators with theirs (structuredefinition.html).";
    VALUE_SET = "definition.value-set", Error, BusinessRule, "A ValueSet includes codes, by filters and values, that its code systems have (valueset.html).";
    REQUIRED = "binding.required", Error, CodeInvalid, "A coded element with a required binding holds a code of that value set (terminologies.html#required).";
    REQUIRED_NOT_CHECKED = "binding.required-not-checked", Warning, NotSupported, "The value set of a required binding cannot be expanded with the packages at hand; reported at its first use.";
    EXTENSIBLE = "binding.extensible", Warning, CodeInvalid, "A coded element with an extensible binding holds a code of that value set, if the set covers its meaning (terminologies.html#extensible).";
    EXTENSIBLE_NOT_CHECKED = "binding.extensible-not-checked", Information, NotSupported, "The value set of an extensible binding cannot be expanded with the packages at hand; reported at its first use.";
    MAX = "cardinality.max", Error, Structure, "An element occurs at most as often as its definition says.";
    MIN = "cardinality.min", Error, Required, "A mandatory element is present, by a value or by an extension that stands for it.";
    CODE_UNKNOWN = "code.unknown", Error, CodeInvalid, "A code of a code system that is known whole is one of its codes; of UCUM, a unit by its grammar.";
    CONTAINED_DUPLICATE = "contained.duplicate-id", Error, Duplicate, "Contained resources of one container have different ids (references.html#contained).";
    CONTAINED_ID = "contained.id", Error, Required, "A contained resource has an id (references.html#contained).";
    CONTAINED_NESTED = "contained.nested", Error, Structure, "A contained resource contains no resources (domainresource.html, dom-2).";
    EXTENSION_CONTENT = "extension.content", Error, Invariant, "An extension has a value or extensions, never both and never neither (extensibility.html, ext-1).";
    EXTENSION_URL = "extension.url", Error, Value, "The url of an extension is absolute, except inside of another extension (extensibility.html#extension).";
    CONTAINED_UNUSED = "contained.unreferenced", Error, Invariant, "A contained resource is referred to from its container, or refers to it (domainresource.html, dom-3).";
    EXTENSION_CONTEXT = "extension.context", Error, Extension, "An extension stands where its definition allows it (defining-extensions.html#context).";
    EXTENSION_MODIFIER = "extension.modifier", Error, Extension, "An extension that modifies is a modifierExtension, whose definition is known; any other is not (extensibility.html#modifierExtension).";
    EXTENSION_PART = "extension.part", Error, Extension, "An extension within an extension is one of those that the definition of the outer one names.";
    EXTENSION_ELEMENT = "extension.release-element", Error, Extension, "An extension that stands for an element of STU3 or R5 names one that this release has (versions.html#extensions).";
    EXTENSION_UNKNOWN = "extension.unknown", Warning, Extension, "The definition of an extension is among the packages.";
    INVARIANT = "invariant.key", Error, Invariant, "An invariant of the definitions holds; for `key` stands its key, such as `invariant.obs-6`. Its severity is what the definitions say: error or warning.";
    NARRATIVE_MISSING = "invariant.dom-6", Warning, Invariant, "A resource that is not contained has a narrative (domainresource.html, dom-6). Good practice: asked for only where that is wanted.";
    INVARIANT_NOT_CHECKED = "invariant.not-checked", Warning, NotSupported, "Whether an invariant of the definitions holds can be told from the document.";
    BUDGET = "limit.budget", Error, TooCostly, "Partly checked: the check ended at its bound of time or work, and what it had not looked at by then may be wrong.";
    DEPTH = "limit.depth", Error, TooCostly, "Elements nest no deeper than the validator's limit.";
    ISSUES = "limit.issues", Error, TooCostly, "The check stopped at its limit of errors; there may be more.";
    ISSUES_MINOR = "limit.minor-issues", Information, Informational, "There are more warnings and notes than are listed; errors are all listed.";
    XHTML = "narrative.xhtml", Error, Invalid, "A narrative is one div element in the XHTML namespace, well formed, of the elements and attributes that FHIR allows, with some content (narrative.html, txt-1 and txt-2).";
    CONTAINED_META = "contained.meta", Error, Invariant, "A contained resource has no version, time or security label of its own (domainresource.html, dom-4 and dom-5).";
    AGGREGATION = "profile.aggregation", Error, Structure, "What a reference points to is where a profile allows it to be: contained, in the same Bundle, or elsewhere (ElementDefinition.type.aggregation).";
    PROFILE_BROKEN = "profile.broken", Error, Processing, "A profile that a resource claims can be compiled.";
    FIXED = "profile.fixed", Error, Value, "An element has the value that a profile fixes.";
    LENGTH = "profile.max-length", Error, TooLong, "A string is no longer than a profile allows.";
    MUST_SUPPORT = "profile.must-support", Information, Informational, "An element that a profile calls must-support is there; told only where that is asked for.";
    LANGUAGE = "profile.narrative-language", Error, BusinessRule, "A narrative has sections in the languages that a profile demands, or none (narrative-language-control).";
    LANGUAGE_UNTOLD = "profile.narrative-language-unknown", Warning, BusinessRule, "A narrative has sections in several languages, as a profile expects, and its resource a language.";
    SOURCE = "profile.narrative-source", Error, BusinessRule, "Each part of a narrative says by its class where it comes from: generated, boilerplate or original (narrative-source-control). Its severity is what the profile says.";
    PROFILE_NONE = "profile.no-match", Error, Structure, "An element conforms to one of the profiles of its type that a profile names.";
    PROFILE_UNKNOWN = "profile.not-checked", Warning, NotFound, "A profile that a resource claims, or that another profile names, is among the packages.";
    OBLIGATION = "profile.obligation", Information, Informational, "What a profile obliges who fills or reads an element to; told only where that is asked for.";
    PATTERN = "profile.pattern", Error, Value, "An element has all that the pattern of a profile has.";
    RANGE = "profile.range", Error, Value, "A value lies within the limits of a profile.";
    PROFILE_TYPE = "profile.type", Error, Structure, "A profile that a resource claims is for its type.";
    VALUE = "profile.value", Error, Invalid, "A primitive element has a value where a profile demands one, or an extension that may stand for it (ElementDefinition.mustHaveValue and valueAlternatives of R5).";
    TYPE_NARROWED = "profile.type-forbidden", Error, Structure, "An element is of a type that a profile allows.";
    QUESTIONNAIRE_ANSWER = "questionnaire.answer", Error, Value, "An answer is of the type of its item, and stands only where the item is a question.";
    QUESTIONNAIRE_CONDITION = "questionnaire.condition", Error, BusinessRule, "The conditions of an item are on other questions of the Questionnaire, none of them within the item (questionnaire.html, enableWhen).";
    QUESTIONNAIRE_ENABLED = "questionnaire.enabled", Error, Invalid, "An item that is not enabled has no answer (questionnaire.html, enableWhen).";
    QUESTIONNAIRE_ITEM = "questionnaire.item", Error, Structure, "The items of a response are those of its Questionnaire, at their places and in their order (questionnaireresponse.html#link).";
    QUESTIONNAIRE_LIMIT = "questionnaire.limit", Error, Value, "An answer is within the limits of its item: length, value, format, media type and size.";
    QUESTIONNAIRE_MISSING = "questionnaire.not-checked", Warning, NotFound, "The Questionnaire of a response, and the value sets of its items, are among the packages.";
    QUESTIONNAIRE_OPTION = "questionnaire.option", Error, CodeInvalid, "An answer is one of the options of its item, of its value set, and of its units.";
    QUESTIONNAIRE_REPEATS = "questionnaire.repeats", Error, Structure, "An item that does not repeat has one answer, and none has more than it may.";
    QUESTIONNAIRE_REQUIRED = "questionnaire.required", Error, Required, "A finished response answers every required item that is enabled.";
    CONTAINED_MISSING = "reference.contained-missing", Error, NotFound, "A reference to a contained resource names one that its container holds (references.html#contained).";
    TARGET_PROFILE = "reference.target-profile", Error, Structure, "What a reference points to conforms to one of the profiles that a profile names, as far as it is at hand.";
    REFERENCE_TARGET = "reference.target-type", Error, Structure, "A reference points to a type that its element allows.";
    REFERENCE_TYPE = "reference.type-mismatch", Error, Structure, "Reference.type is the type of what Reference.reference points to (references.html#type).";
    QUESTIONNAIRE_TEXT = "questionnaire.text", Error, Invalid, "The text of an item in a response is that of the Questionnaire's item (questionnaireresponse.html).";
    SLICE_CLOSED = "slice.closed", Error, Structure, "Where a slicing is closed, each item belongs to a slice (profiling.html#slicing).";
    SLICE_ORDER = "slice.order", Error, Structure, "The items of ordered slices stand in the order of the slices, and those of none at the end where the slicing is open there only.";
    SLICE_SEVERAL = "slice.several", Error, Structure, "An item belongs to one slice of an element only.";
    SLICE_UNDECIDABLE = "slice.undecidable", Warning, NotSupported, "Whether an item belongs to a slice can be told from the definitions and the document.";
    ARRAY_EXPECTED = "structure.array-expected", Error, Structure, "An element that may repeat is an array, even with one item (json.html).";
    ARRAY_UNEXPECTED = "structure.array-unexpected", Error, Structure, "An element that may not repeat is no array (json.html).";
    CHOICE_FORBIDDEN = "structure.choice-forbidden-type", Error, Structure, "A choice element has one of the types that its definition allows.";
    CHOICE_MANY = "structure.choice-many", Error, Structure, "A choice element occurs with one type only (formats.html#choice).";
    CHOICE_UNKNOWN = "structure.choice-unknown-type", Error, Structure, "What follows a choice element's name is the name of a FHIR type.";
    COMPANION = "structure.companion", Error, Structure, "A member whose name begins with an underscore belongs to a primitive element and holds its id and extensions (json.html#primitive).";
    COMPANION_LENGTH = "structure.companion-length", Error, Structure, "The arrays of a repeating primitive and of its extensions have the same length (json.html#primitive).";
    EMPTY_ARRAY = "structure.empty-array", Error, Structure, "An array has at least one item (json.html).";
    EMPTY_OBJECT = "structure.empty-object", Error, Structure, "An object has content beside its id (element.html, ele-1).";
    NULL = "structure.null", Error, Structure, "null stands only in the array of a repeating primitive, to fill the place of a value that has an extension (json.html#primitive).";
    OBJECT_EXPECTED = "structure.object-expected", Error, Structure, "An element with members is a JSON object.";
    PRIMITIVE_EXPECTED = "structure.primitive-expected", Error, Structure, "A primitive element is a single JSON value.";
    RESOURCE_TYPE_MISPLACED = "structure.resource-type-misplaced", Error, Structure, "resourceType stands in resources only.";
    RESOURCE_TYPE_MISSING = "structure.resource-type-missing", Error, Structure, "A resource has a resourceType, a string (json.html#resources).";
    RESOURCE_TYPE_UNKNOWN = "structure.resource-type-unknown", Error, NotSupported, "resourceType is a resource type of this FHIR release that is not abstract.";
    UNKNOWN_MEMBER = "structure.unknown-member", Error, Structure, "An object has only the members that its type defines.";
    TYPE = "type.json", Error, Value, "A primitive is of the JSON type that belongs to it: a string, a number or a boolean (json.html#primitive).";
    BASE64 = "value.base64-binary", Error, Value, "base64Binary: groups of four base64 characters, padded at the end, white space allowed between.";
    CANONICAL = "value.canonical", Error, Value, "canonical: a URI without white space.";
    CANONICAL_RELATIVE = "value.canonical-relative", Error, Value, "A canonical is an absolute URI, or # and the id of a contained resource (references.html#canonical).";
    CODE = "value.code", Error, Value, "code: no white space at the ends, single spaces inside.";
    CONTROL = "value.control-character", Warning, Value, "A string has no control characters but tab, line feed and carriage return (datatypes.html#string).";
    DATE = "value.date", Error, Value, "date: YYYY, YYYY-MM or YYYY-MM-DD, a day that exists.";
    DATE_TIME = "value.date-time", Error, Value, "dateTime: a date, or a date with hours, minutes, seconds and a time zone.";
    DECIMAL = "value.decimal", Error, Value, "decimal: a JSON number.";
    ELEMENT_ID = "value.element-id", Error, Value, "Element.id: a string without white space (element.html#id).";
    EMPTY = "value.empty", Error, Value, "A string is not empty (datatypes.html#string).";
    ID = "value.id", Error, Value, "id: 1 to 64 of A-Z, a-z, 0-9, '-' and '.'.";
    INSTANT = "value.instant", Error, Value, "instant: a date and a time to the second at least, with a time zone.";
    INTEGER = "value.integer", Error, Value, "integer: a whole number from -2147483648 to 2147483647, without leading zeros.";
    OID = "value.oid", Error, Value, "oid: urn:oid: and an object identifier.";
    POSITIVE_INT = "value.positive-int", Error, Value, "positiveInt: a whole number from 1 to 2147483647.";
    STRING = "value.string", Error, Value, "string: no white space but space, tab, line feed and carriage return among the ASCII characters.";
    STRING_BLANK = "value.string-blank", Warning, Value, "A string has content that is not white space (datatypes.html#string).";
    TIME = "value.time", Error, Value, "time: hh:mm:ss, optionally with a fraction, without a zone.";
    TOO_LONG = "value.too-long", Error, TooLong, "A string has at most 1,048,576 characters (datatypes.html#string).";
    UNSIGNED_INT = "value.unsigned-int", Error, Value, "unsignedInt: a whole number from 0 to 2147483647.";
    URI = "value.uri", Error, Value, "uri: no white space; OIDs and UUIDs begin with urn:oid: and urn:uuid: and are such identifiers.";
    URL = "value.url", Error, Value, "url: a URI without white space.";
    UUID = "value.uuid", Error, Value, "uuid: urn:uuid: and a UUID in lower case.";
}

/// The rule with this id. The ids of all invariants have one rule.
pub fn named(id: &str) -> Option<&'static Rule> {
    let rule = ALL.iter().find(|rule| rule.id == id).copied();
    rule.or_else(|| id.starts_with("invariant.").then_some(&INVARIANT))
}

/// The table as Markdown, for `docs/rules.md`.
pub fn markdown() -> String {
    use std::fmt::Write as _;
    let mut out = String::from("| rule | severity | issue code | demands |\n|---|---|---|---|\n");
    for rule in ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| `{}` | {} | {} | {} |", rule.id, rule.severity.code(), rule.code.code(), rule.about);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_well_formed() {
        let mut ids: Vec<_> = ALL.iter().map(|rule| rule.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ALL.len());
        for id in ids {
            assert!(
                id.contains('.')
                    && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-'),
                "{id}"
            );
            assert_eq!(named(id).map(|rule| rule.id), Some(id));
        }
    }
}
