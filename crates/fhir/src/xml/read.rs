//! XML to elements, each with what the definitions say that it is. One pass; as many elements, and as deep, as the limits
//! say, and no more memory than in proportion to the document.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::ops::Range;

use quick_xml::events::Event;

use super::DEPTH_MAX;
use super::error::XmlError;
use super::error::XmlErrorKind::{
    self, AttributeExpected, DocumentType, InvalidCharacter, InvalidDeclaration, InvalidName, NotUtf8, OneResource,
    OutOfOrder, ProcessingInstruction, ReservedName, TooDeep, TooLong, TooManyElements, TrailingData,
    UnexpectedAttribute, UnexpectedEnd, UnexpectedText, WrongNamespace,
};
use super::lexical::{self, Attribute, BYTE_ORDER_MARK, Fault};
use super::markup::{Markup, markup, next};
use super::narrative;
use super::scope::{self, Scope, Space};
use crate::definitions::primitive::Primitive;
use crate::definitions::program::{Kind, Program, Shape};
use crate::definitions::{Definitions, Role, TypeId};
use crate::tree::{self, Limits, Position};

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Primitive(Primitive),
    /// Has members.
    Object,
    /// Has members and a type; its name is the type.
    Resource,
    /// Holds one resource.
    Holder,
    /// Nothing that the definitions have here.
    Unknown,
}

/// An element, or an attribute that is a member of one.
#[derive(Debug)]
pub(super) struct Element<'x> {
    /// Letters and digits.
    pub(super) name: &'x str,
    pub(super) value: Option<Cow<'x, str>>,
    pub(super) position: Position,
    pub(super) what: What,
    pub(super) repeats: bool,
    pub(super) first: Option<NonZeroU32>,
    next: Option<NonZeroU32>,
}

/// All elements of a document; the root is 0.
#[derive(Debug, Default)]
pub(super) struct Elements<'x>(Vec<Element<'x>>);

impl<'x> Elements<'x> {
    pub(super) fn get(&self, id: u32) -> Option<&Element<'x>> {
        self.0.get(id as usize)
    }

    pub(super) fn children(&self, id: u32) -> impl Iterator<Item = (u32, &Element<'x>)> {
        let mut next = self.get(id).and_then(|element| element.first);
        std::iter::from_fn(move || {
            let id = next?.get();
            let element = self.get(id)?;
            next = element.next;
            Some((id, element))
        })
    }
}

/// Elements that a document may have beyond what its length is good for.
const EMPTY_MAX: usize = 10_000;

/// Reads a document.
pub(super) fn elements<'x>(
    document: &'x [u8],
    limits: &Limits,
    definitions: &Definitions,
) -> Result<Elements<'x>, XmlError> {
    let bytes = document.strip_prefix(BYTE_ORDER_MARK).unwrap_or(document);
    let refused = |kind, at| XmlError { kind, position: tree::position(bytes, at), path: String::from("$this") };
    if document.len() > limits.bytes_max.min(u32::MAX as usize) {
        return Err(refused(TooLong, 0));
    }
    let source = std::str::from_utf8(bytes).map_err(|error| refused(NotUtf8, error.valid_up_to()))?;
    if let Some(at) = lexical::forbidden(source) {
        return Err(refused(InvalidCharacter, at));
    }
    let mut reading = Reading {
        source,
        definitions,
        // XML nests in other steps than JSON, and never in twice as many; the JSON is held against the limit itself.
        depth_max: limits.depth_max.saturating_mul(2).min(DEPTH_MAX),
        // Elements that say something take 14 bytes, those that hold one 7 more. A document of empty ones would take many times
        // its length of memory, and be refused in the end.
        elements_max: limits.nodes_max.min(document.len() / 8 + EMPTY_MAX),
        elements: Elements::default(),
        open: Vec::new(),
        scope: Scope::default(),
        lines: (0, Position { line: 1, column: 1 }),
        attributes: Vec::new(),
    };
    match reading.run() {
        Ok(()) => Ok(reading.elements),
        Err((kind, at)) => Err(XmlError { path: reading.path(), ..refused(kind, at) }),
    }
}

/// What may stand within an element.
#[derive(Clone, Copy)]
enum Content<'d> {
    Members(&'d Program, &'d Shape),
    /// One resource.
    Resource,
    Anything,
}

/// An element that is open.
struct Frame<'d> {
    element: u32,
    /// Its last child so far.
    last: Option<NonZeroU32>,
    content: Content<'d>,
    is_extension: bool,
    /// The field of the definition that was reached.
    field: u16,
}

/// What the definitions say of an element.
struct Meaning<'d> {
    what: What,
    repeats: bool,
    content: Content<'d>,
    is_extension: bool,
}

struct Reading<'x, 'd> {
    source: &'x str,
    definitions: &'d Definitions,
    depth_max: usize,
    elements_max: usize,
    elements: Elements<'x>,
    open: Vec<Frame<'d>>,
    scope: Scope<'x>,
    /// An offset up to which lines were counted, and its position.
    lines: (usize, Position),
    attributes: Vec<Attribute<'x>>,
}

impl<'x, 'd> Reading<'x, 'd> {
    fn run(&mut self) -> Result<(), Fault> {
        let mut markup = markup(self.source);
        loop {
            let (event, span) = next(&mut markup)?;
            match event {
                Event::Start(_) => self.start(&mut markup, &span, false)?,
                Event::Empty(_) => self.start(&mut markup, &span, true)?,
                Event::End(_) => self.end(),
                Event::Text(_) => self.text(&span)?,
                Event::CData(_) => return Err((self.outside().unwrap_or(UnexpectedText), span.start)),
                Event::GeneralRef(_) => {
                    lexical::reference(self.source, span.start)?;
                    return Err((self.outside().unwrap_or(UnexpectedText), span.start));
                }
                Event::Comment(_) => {}
                Event::Decl(_) => self.declaration(&span)?,
                Event::PI(_) => return Err((ProcessingInstruction, span.start)),
                Event::DocType(_) => return Err((DocumentType, span.start)),
                Event::Eof => {
                    let is_whole = self.open.is_empty() && !self.elements.0.is_empty();
                    return if is_whole { Ok(()) } else { Err((UnexpectedEnd, self.source.len())) };
                }
            }
        }
    }

    fn slice(&self, span: Range<usize>) -> &'x str {
        self.source.get(span).unwrap_or_default()
    }

    /// What is wrong with anything that follows the root.
    fn outside(&self) -> Option<XmlErrorKind> {
        (self.open.is_empty() && !self.elements.0.is_empty()).then_some(TrailingData)
    }

    /// Between elements stands nothing but white space.
    fn text(&self, span: &Range<usize>) -> Result<(), Fault> {
        let text = self.slice(span.clone());
        if lexical::is_space(text) {
            return Ok(());
        }
        let at = text.len() - text.trim_ascii_start().len();
        Err((self.outside().unwrap_or(UnexpectedText), span.start + at))
    }

    /// XML 1.0 §2.8: version, then encoding, then standalone.
    fn declaration(&mut self, span: &Range<usize>) -> Result<(), Fault> {
        if span.start != 0 {
            return Err((InvalidDeclaration, span.start));
        }
        let inside = self.slice(2..span.end.saturating_sub(2));
        let mut attributes = Vec::new();
        lexical::tag(inside, &mut attributes).map_err(|(_, at)| (InvalidDeclaration, at + 2))?;
        let mut rest = attributes.iter().peekable();
        let refused = |attribute: Option<&&Attribute<'_>>| (InvalidDeclaration, attribute.map_or(0, |a| a.at + 2));
        if rest.next_if(|a| a.name == "version" && a.value == "1.0").is_none() {
            return Err(refused(rest.peek()));
        }
        if let Some(encoding) = rest.next_if(|a| a.name == "encoding")
            && !encoding.value.eq_ignore_ascii_case("utf-8")
        {
            return Err((NotUtf8, encoding.value_at + 2));
        }
        rest.next_if(|a| a.name == "standalone" && matches!(a.value, "yes" | "no"));
        rest.peek().map_or(Ok(()), |more| Err(refused(Some(more))))
    }

    fn start(&mut self, markup: &mut Markup<'x>, span: &Range<usize>, is_empty: bool) -> Result<(), Fault> {
        let inside = self.slice(span.start + 1..span.end.saturating_sub(1 + usize::from(is_empty)));
        let mut attributes = std::mem::take(&mut self.attributes);
        let at = |(kind, at): Fault| (kind, span.start + 1 + at);
        let name = lexical::tag(inside, &mut attributes).map_err(at)?;
        let depth = self.open.len();
        if depth >= self.depth_max {
            return Err((TooDeep, span.start));
        }
        self.scope.enter(depth, &attributes).map_err(at)?;
        let (prefix, local) = lexical::split(name);
        let space = self.scope.space(prefix).map_err(|kind| (kind, span.start + 1))?;
        if let Some(kind) = self.outside() {
            return Err((kind, span.start));
        }
        let is_element = local.starts_with(|c: char| c.is_ascii_alphabetic());
        if !is_element || !local.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err((InvalidName, span.start + 1));
        }
        let meaning = self.meaning(local).map_err(|kind| (kind, span.start))?;
        // ExampleScenario.instance has an element of this name; anywhere else it would make a resource of what is none.
        if local == "resourceType" && meaning.what == What::Unknown {
            return Err((ReservedName, span.start + 1));
        }
        let is_narrative = meaning.what == What::Primitive(Primitive::Xhtml);
        if space != Space::Fhir && !is_narrative {
            return Err((WrongNamespace, span.start));
        }
        let (what, is_extension) = (meaning.what, meaning.is_extension);
        let element = self.add(local, meaning.what, meaning.repeats, span.start)?;
        self.open.push(Frame { element, last: None, content: meaning.content, is_extension, field: 0 });
        if is_narrative {
            let tag = narrative::Tag { inside, name, is_empty, start: span.start };
            let div = narrative::read(markup, self.source, &tag, &attributes, &mut self.scope, depth)?;
            self.set_value(element, Cow::Owned(div));
        } else {
            for attribute in attributes.iter().filter(|attribute| !scope::is_declaration(attribute)) {
                self.attribute(attribute, what, is_extension, span.start + 1)?;
            }
        }
        self.attributes = attributes;
        if is_empty || is_narrative {
            self.end();
        }
        Ok(())
    }

    fn end(&mut self) {
        self.open.pop();
        self.scope.leave(self.open.len());
    }

    /// What an element of this name is where the reader stands.
    fn meaning(&mut self, name: &str) -> Result<Meaning<'d>, XmlErrorKind> {
        let definitions = self.definitions;
        let unknown = Meaning { what: What::Unknown, repeats: false, content: Content::Anything, is_extension: false };
        let members = |what: What, repeats: bool, id: TypeId| Meaning {
            what,
            repeats,
            content: content(definitions.program(id), 0),
            is_extension: definitions.role(id) == Role::Extension,
        };
        let resource = || match definitions.resource_named(name) {
            Some(id) => members(What::Resource, false, id),
            None => Meaning { what: What::Resource, ..unknown },
        };
        let Some(frame) = self.open.last_mut() else { return Ok(resource()) };
        match frame.content {
            Content::Anything => Ok(unknown),
            Content::Resource if frame.last.is_some() => Err(OneResource),
            Content::Resource => Ok(resource()),
            Content::Members(program, shape) => {
                let Some(slot) = shape.slot(name) else { return Ok(unknown) };
                if name == "id" && !shape.is_resource || name == "url" && frame.is_extension {
                    return Err(AttributeExpected);
                }
                // FHIR R4 xml.html: elements always appear in the order of the definition.
                if slot.field < frame.field {
                    return Err(OutOfOrder);
                }
                frame.field = slot.field;
                let repeats = shape.field(slot).repeats;
                let nested = |what, content| Meaning { what, repeats, content, is_extension: false };
                Ok(match slot.kind {
                    Kind::Primitive(primitive) => members(What::Primitive(primitive), repeats, definitions.element()),
                    Kind::Complex(id) => members(What::Object, repeats, id),
                    Kind::Nested(place) => nested(What::Object, content(program, place)),
                    Kind::Resource | Kind::Contained => nested(What::Holder, Content::Resource),
                })
            }
        }
    }

    /// `value` of a primitive, `id` of any element but a resource, `url` of an extension (FHIR R4 xml.html).
    fn attribute(
        &mut self,
        attribute: &Attribute<'x>,
        what: What,
        is_extension: bool,
        base: usize,
    ) -> Result<(), Fault> {
        let refused = Err((UnexpectedAttribute, base + attribute.at));
        if let (Some(prefix), local) = lexical::split(attribute.name) {
            let space = self.scope.space(Some(prefix)).map_err(|kind| (kind, base + attribute.at))?;
            // Says where a schema might be found; nothing of the resource, and never followed.
            let is_hint = matches!(local, "schemaLocation" | "noNamespaceSchemaLocation");
            return if space == Space::SchemaInstance && is_hint { Ok(()) } else { refused };
        }
        let value =
            lexical::attribute_value(attribute.value).map_err(|(kind, at)| (kind, base + attribute.value_at + at))?;
        let member = match (attribute.name, what) {
            ("value", What::Primitive(_) | What::Unknown) => {
                if let Some(frame) = self.open.last() {
                    self.set_value(frame.element, value);
                }
                return Ok(());
            }
            ("id", What::Primitive(_) | What::Object | What::Unknown) => Primitive::ElementId,
            ("url", What::Unknown) => Primitive::Uri,
            ("url", What::Object) if is_extension => Primitive::Uri,
            _ => return refused,
        };
        let element = self.add(attribute.name, What::Primitive(member), false, base + attribute.at)?;
        self.set_value(element, value);
        Ok(())
    }

    fn set_value(&mut self, element: u32, value: Cow<'x, str>) {
        if let Some(element) = self.elements.0.get_mut(element as usize) {
            element.value = Some(value);
        }
    }

    /// Adds an element to the one that is open.
    fn add(&mut self, name: &'x str, what: What, repeats: bool, at: usize) -> Result<u32, Fault> {
        if self.elements.0.len() >= self.elements_max {
            return Err((TooManyElements, at));
        }
        let id = u32::try_from(self.elements.0.len()).map_err(|_| (TooManyElements, at))?;
        let (counted, position) = self.lines;
        let position = tree::advance(position, self.slice(counted..at).as_bytes());
        self.lines = (at, position);
        self.elements.0.push(Element { name, value: None, position, what, repeats, first: None, next: None });
        if let (Some(frame), Some(link)) = (self.open.last_mut(), NonZeroU32::new(id)) {
            let before = frame.last.replace(link);
            let place = before.map_or(frame.element, NonZeroU32::get);
            if let Some(element) = self.elements.0.get_mut(place as usize) {
                *(if before.is_some() { &mut element.next } else { &mut element.first }) = Some(link);
            }
        }
        Ok(id)
    }

    /// The FHIRPath location of the element that is open, as its node in the tree would have it.
    fn path(&self) -> String {
        let mut path = String::new();
        let mut parent = None;
        for frame in &self.open {
            let Some(element) = self.elements.get(frame.element) else { break };
            let Some(holder) = parent.replace(frame.element) else {
                path.push_str(if element.name.len() <= 64 { element.name } else { "$this" });
                continue;
            };
            if element.what == What::Resource {
                continue;
            }
            path.push('.');
            path.push_str(if element.name.len() <= 64 { element.name } else { "`?`" });
            let before = self.elements.children(holder).take_while(|(id, _)| *id != frame.element);
            let index = before.filter(|(_, other)| other.name == element.name).count();
            if element.repeats || index > 0 {
                // Writing to a String cannot fail.
                let _ = write!(path, "[{index}]");
            }
        }
        if path.is_empty() { String::from("$this") } else { path }
    }
}

fn content(program: &Program, place: u16) -> Content<'_> {
    program.shape(place).map_or(Content::Anything, |shape| Content::Members(program, shape))
}
