//! Why a document is not taken, or a resource not written, and where.

use crate::tree::Position;

/// The exact cause for which an XML document is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum XmlErrorKind {
    /// The document is longer than the limit.
    TooLong,
    /// There are more elements within each other than the limit.
    TooDeep,
    /// There are more elements than the limit.
    TooManyElements,
    /// An element has more attributes than the limit.
    TooManyAttributes,
    /// The bytes are not UTF-8, or the XML declaration names another encoding.
    NotUtf8,
    /// The XML declaration is not that of XML 1.0, or stands elsewhere than at the start.
    InvalidDeclaration,
    /// There is a character that XML 1.0 does not allow.
    InvalidCharacter,
    /// The document ends within an element, or holds none.
    UnexpectedEnd,
    /// Markup is not that of XML 1.0.
    InvalidMarkup,
    /// An end tag closes another element than the one that is open.
    MismatchedEnd,
    /// A name is not one of XML, or of an element of FHIR.
    InvalidName,
    /// An attribute is not written as XML 1.0 demands.
    InvalidAttribute,
    /// An element has an attribute twice.
    DuplicateAttribute,
    /// There is a document type declaration.
    DocumentType,
    /// There is a processing instruction.
    ProcessingInstruction,
    /// There is a reference to an entity other than `amp`, `apos`, `gt`, `lt` and `quot`.
    Entity,
    /// A reference to a character is not written as XML demands, or means none.
    InvalidReference,
    /// A prefix is used that no namespace is declared for.
    UnknownPrefix,
    /// An element is not in the namespace of FHIR, or, within a narrative, of XHTML.
    WrongNamespace,
    /// There is text, or CDATA, outside of a narrative.
    UnexpectedText,
    /// There is an attribute that FHIR does not have there.
    UnexpectedAttribute,
    /// An `id` or `url` that FHIR writes as an attribute is written as an element.
    AttributeExpected,
    /// An element stands behind one that the definition has after it.
    OutOfOrder,
    /// An element that holds one resource holds a second one.
    OneResource,
    /// An element has a name that means something else in JSON.
    ReservedName,
    /// Something follows the one resource.
    TrailingData,
}

impl XmlErrorKind {
    /// What was expected, without a word of the document.
    pub fn text(self) -> &'static str {
        match self {
            Self::TooLong => "the document is longer than allowed",
            Self::TooDeep => "the document is nested deeper than allowed",
            Self::TooManyElements => "the document holds more elements than allowed",
            Self::TooManyAttributes => "the element has more attributes than allowed",
            Self::NotUtf8 => "expected UTF-8",
            Self::InvalidDeclaration => "expected an XML declaration of version 1.0 at the start only, or none",
            Self::InvalidCharacter => "expected only characters that XML 1.0 allows",
            Self::UnexpectedEnd => "the document ends too early",
            Self::InvalidMarkup => "expected markup as XML 1.0 writes it",
            Self::MismatchedEnd => "expected the end tag of the element that is open",
            Self::InvalidName => "expected a name of letters and digits, as FHIR's elements have",
            Self::InvalidAttribute => "expected attributes as XML 1.0 writes them",
            Self::DuplicateAttribute => "expected each attribute once",
            Self::DocumentType => "expected no document type declaration",
            Self::ProcessingInstruction => "expected no processing instruction",
            Self::Entity => "expected no entities but `amp`, `apos`, `gt`, `lt` and `quot`",
            Self::InvalidReference => "expected `&` only in references to entities or characters",
            Self::UnknownPrefix => "expected a prefix that a namespace is declared for",
            Self::WrongNamespace => {
                "expected an element of the namespace http://hl7.org/fhir, or of http://www.w3.org/1999/xhtml in a narrative"
            }
            Self::UnexpectedText => "expected no text outside of attributes and narratives",
            Self::UnexpectedAttribute => "expected no attribute but those that FHIR has here",
            Self::AttributeExpected => "expected an attribute of this name, not an element",
            Self::OutOfOrder => "expected the elements in the order of their definition",
            Self::OneResource => "expected one resource",
            Self::ReservedName => "expected no element of this name",
            Self::TrailingData => "expected nothing after the resource",
        }
    }

    /// Whether it is the size of the document that is refused, not its content.
    pub fn is_limit(self) -> bool {
        matches!(self, Self::TooLong | Self::TooDeep | Self::TooManyElements | Self::TooManyAttributes)
    }
}

/// Why and where a document is refused. Says what was expected, never what stood there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}, at {position} ({path})", .kind.text())]
pub struct XmlError {
    /// The exact cause.
    pub kind: XmlErrorKind,
    /// Where in the document.
    pub position: Position,
    /// The FHIRPath location of the element that the parser was in.
    pub path: String,
}

/// The exact cause for which a resource is not written as XML.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteErrorKind {
    /// There are more elements within each other than the limit.
    TooDeep,
    /// An object is no resource of the definitions.
    UnknownResource,
    /// A member is not one of the definitions.
    UnknownMember,
    /// A value is not of the JSON kind of its definition.
    ValueKind,
    /// An array stands where there can be none, is empty, or is missing.
    Array,
    /// A member of a primitive, or of what XML writes as an attribute, has no place in XML.
    Companion,
    /// A string holds a character that XML 1.0 does not allow.
    Character,
    /// A narrative is not XML, or not as it would be read again.
    Narrative,
}

impl WriteErrorKind {
    /// What was expected, without a word of the resource.
    pub fn text(self) -> &'static str {
        match self {
            Self::TooDeep => "the resource is nested deeper than XML is written",
            Self::UnknownResource => "expected a resource of a type that the definitions have",
            Self::UnknownMember => "expected only members that the definitions have",
            Self::ValueKind => "expected a value of the kind that the definition demands",
            Self::Array => "expected an array where the element repeats, and only there",
            Self::Companion => {
                "expected only `id` and `extension` beside a primitive value, and nothing beside an attribute"
            }
            Self::Character => "expected only characters that XML 1.0 allows",
            Self::Narrative => "expected a narrative that is one `div`, well-formed and without entities",
        }
    }
}

/// Why and where a resource is not written as XML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}, at {path}", .kind.text())]
pub struct WriteError {
    /// The exact cause.
    pub kind: WriteErrorKind,
    /// The FHIRPath location of the value.
    pub path: String,
}
