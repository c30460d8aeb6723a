//! The `div` of a narrative: kept as it is spelled, since FHIR's JSON carries its XML as text. Prefixes of XHTML are taken
//! away, CDATA becomes text, line ends become line feeds as XML demands; nothing else changes. Whether the elements are
//! those that FHIR allows is for checking.

use std::ops::Range;

use quick_xml::events::Event;

use super::XHTML;
use super::error::XmlErrorKind::{
    self, DocumentType, InvalidDeclaration, InvalidMarkup, ProcessingInstruction, TooDeep, UnexpectedEnd,
    WrongNamespace,
};
use super::lexical::{self, Attribute, Fault};
use super::markup::{Markup, markup, next};
use super::scope::{Scope, Space, is_declaration};

/// Elements of a narrative within each other.
const DEPTH_MAX: usize = 128;

/// A start tag.
pub(super) struct Tag<'x> {
    /// Between `<` and `>` or `/>`.
    pub(super) inside: &'x str,
    pub(super) name: &'x str,
    pub(super) is_empty: bool,
    /// Where `<` stands.
    pub(super) start: usize,
}

/// Reads the rest of a `div` whose start tag was read, and whose declarations are in the scope at `depth`.
pub(super) fn read<'x>(
    markup: &mut Markup<'x>,
    source: &'x str,
    root: &Tag<'x>,
    attributes: &[Attribute<'x>],
    scope: &mut Scope<'x>,
    depth: usize,
) -> Result<String, Fault> {
    let mut div = Div { text: String::new(), space: Space::Other, prefixes: Vec::new() };
    let (prefix, _) = lexical::split(root.name);
    div.space = scope.space(prefix).map_err(|kind| (kind, root.start))?;
    div.start(root, attributes, scope)?;
    let mut attributes = Vec::new();
    while !div.prefixes.is_empty() {
        let (event, span) = next(markup)?;
        let slice = |span: Range<usize>| source.get(span).unwrap_or_default();
        let is_empty = matches!(event, Event::Empty(_));
        match event {
            Event::Start(_) | Event::Empty(_) => {
                let level = depth + div.prefixes.len();
                if div.prefixes.len() >= DEPTH_MAX {
                    return Err((TooDeep, span.start));
                }
                let inside = slice(span.start + 1..span.end.saturating_sub(1 + usize::from(is_empty)));
                let at = |(kind, at): Fault| (kind, span.start + 1 + at);
                let name = lexical::tag(inside, &mut attributes).map_err(at)?;
                scope.enter(level, &attributes).map_err(at)?;
                div.start(&Tag { inside, name, is_empty, start: span.start }, &attributes, scope)?;
                if is_empty {
                    scope.leave(level);
                }
            }
            Event::End(_) => {
                div.end(slice(span.start + 2..span.end.saturating_sub(1)));
                scope.leave(depth + div.prefixes.len());
            }
            Event::Text(_) => {
                if let Some(at) = slice(span.clone()).find("]]>") {
                    return Err((InvalidMarkup, span.start + at));
                }
                div.lines(slice(span));
            }
            Event::CData(_) => div.escaped(slice(span.start + "<![CDATA[".len()..span.end.saturating_sub("]]>".len()))),
            Event::Comment(_) => div.lines(slice(span)),
            Event::GeneralRef(_) => match lexical::reference(source, span.start)? {
                // XML has no other way to write it, and JSON has.
                ('\r', _) => div.text.push('\r'),
                _ => div.text.push_str(slice(span)),
            },
            Event::Decl(_) => return Err((InvalidDeclaration, span.start)),
            Event::PI(_) => return Err((ProcessingInstruction, span.start)),
            Event::DocType(_) => return Err((DocumentType, span.start)),
            Event::Eof => return Err((UnexpectedEnd, span.start)),
        }
    }
    Ok(div.text)
}

/// The XML of a narrative that [`read`] gives back as this text; none if there is none.
pub(super) fn written(text: &str) -> Option<String> {
    let xml = text.replace('\r', "&#xD;");
    lexical::forbidden(text).is_none().then_some(())?;
    let read = {
        let mut markup = markup(&xml);
        let (event, span) = next(&mut markup).ok()?;
        let is_empty = matches!(event, Event::Empty(_));
        (is_empty || matches!(event, Event::Start(_))).then_some(())?;
        let inside = xml.get(1..span.end.saturating_sub(1 + usize::from(is_empty)))?;
        let mut attributes = Vec::new();
        let mut scope = Scope::default();
        let name = lexical::tag(inside, &mut attributes).ok().filter(|name| *name == "div")?;
        scope.enter(0, &attributes).ok()?;
        let tag = Tag { inside, name, is_empty, start: 0 };
        let read = read(&mut markup, &xml, &tag, &attributes, &mut scope, 0).ok()?;
        matches!(next(&mut markup).ok()?.0, Event::Eof).then_some(read)?
    };
    (read == text).then_some(xml)
}

struct Div<'x> {
    text: String,
    /// The namespace of all elements.
    space: Space,
    /// Of the elements that are open, whether they have a prefix that is taken away.
    prefixes: Vec<Option<&'x str>>,
}

impl<'x> Div<'x> {
    fn start(&mut self, tag: &Tag<'x>, attributes: &[Attribute<'x>], scope: &Scope<'x>) -> Result<(), Fault> {
        let base = tag.start + 1;
        let (prefix, local) = lexical::split(tag.name);
        let space = scope.space(prefix).map_err(|kind| (kind, tag.start))?;
        // Within the text nothing but its own declaration would tell the namespaces apart.
        if space != self.space || prefix.is_some() && space != Space::Xhtml {
            return Err((WrongNamespace, tag.start));
        }
        for attribute in attributes {
            lexical::attribute_value(attribute.value).map_err(|(kind, at)| (kind, base + attribute.value_at + at))?;
            if let (Some(prefix), _) = lexical::split(attribute.name)
                && !is_declaration(attribute)
            {
                scope.space(Some(prefix)).map_err(|kind: XmlErrorKind| (kind, base + attribute.at))?;
            }
        }
        self.text.push('<');
        self.text.push_str(local);
        let is_root = self.prefixes.is_empty();
        let is_declared = prefix.is_none() && attributes.iter().any(|attribute| attribute.name == "xmlns");
        if is_root && space == Space::Xhtml && !is_declared {
            self.text.push_str(" xmlns=\"");
            self.text.push_str(XHTML);
            self.text.push('"');
        }
        if prefix.is_none() {
            self.lines(tag.inside.get(local.len()..).unwrap_or_default());
        } else {
            for attribute in attributes.iter().filter(|attribute| !is_declaration(attribute)) {
                self.text.push(' ');
                // With its quotes.
                let end = attribute.value_at + attribute.value.len() + 1;
                self.lines(tag.inside.get(attribute.at..end).unwrap_or_default());
            }
        }
        self.text.push_str(if tag.is_empty { "/>" } else { ">" });
        if !tag.is_empty {
            self.prefixes.push(prefix);
        }
        Ok(())
    }

    /// The reader has held the name against the start tag.
    fn end(&mut self, inside: &str) {
        let prefix = self.prefixes.pop().flatten();
        let cut = prefix.map_or(0, |prefix| prefix.len() + 1);
        self.text.push_str("</");
        self.lines(inside.get(cut..).unwrap_or_default());
        self.text.push('>');
    }

    /// Text with every line end made a line feed (XML 1.0 §2.11).
    fn lines(&mut self, text: &str) {
        let mut rest = text;
        while let Some((line, after)) = rest.split_once('\r') {
            self.text.push_str(line);
            self.text.push('\n');
            rest = after.strip_prefix('\n').unwrap_or(after);
        }
        self.text.push_str(rest);
    }

    fn escaped(&mut self, text: &str) {
        for piece in text.split_inclusive(['&', '<', '>']) {
            let plain = piece.strip_suffix(['&', '<', '>']).unwrap_or(piece);
            self.lines(plain);
            self.text.push_str(match piece.get(plain.len()..) {
                Some("&") => "&amp;",
                Some("<") => "&lt;",
                Some(">") => "&gt;",
                _ => "",
            });
        }
    }
}
