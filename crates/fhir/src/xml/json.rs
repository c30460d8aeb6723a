//! Elements to JSON: siblings of one name are one member, an array if the definition says so or if there are several;
//! primitives have their ids and extensions beside them under `_name` (FHIR R4 json.html).

use std::collections::HashMap;

use super::read::{Element, Elements, What};
use crate::definitions::primitive::Primitive;
use crate::tree::{self, Position};
use crate::validate::lexical::{Written, written};

/// Where in the XML the values of the JSON stand that start at these offsets; ascending.
pub(super) type Places = Vec<(u32, Position)>;

/// Writes the root with all that is in it.
pub(super) fn write(elements: &Elements<'_>) -> (Vec<u8>, Places) {
    let mut writer = Writer { elements, out: Vec::new(), places: Vec::new() };
    writer.item(0);
    (writer.out, writer.places)
}

struct Writer<'e, 'x> {
    elements: &'e Elements<'x>,
    out: Vec<u8>,
    places: Places,
}

impl<'x> Writer<'_, 'x> {
    /// An element as the JSON value that it is.
    fn item(&mut self, id: u32) {
        let elements = self.elements;
        let Some(element) = elements.get(id) else { return };
        match element.what {
            What::Primitive(primitive) => self.value(element, Some(primitive)),
            What::Unknown if element.value.is_some() => self.value(element, None),
            What::Holder => match elements.children(id).next() {
                Some((resource, _)) => self.item(resource),
                None => self.object(id, element),
            },
            What::Object | What::Resource | What::Unknown => self.object(id, element),
        }
    }

    fn value(&mut self, element: &Element<'_>, primitive: Option<Primitive>) {
        self.place(element.position);
        let Some(text) = &element.value else { return self.out.extend_from_slice(b"null") };
        let is_bare = match primitive.map(written) {
            Some(Written::Boolean) => matches!(&**text, "true" | "false"),
            Some(Written::Number) => is_number(text.as_bytes()),
            Some(Written::Text) | None => false,
        };
        if is_bare {
            self.out.extend_from_slice(text.as_bytes());
        } else {
            // A number that is none stays as it is, so that checking can say so.
            tree::text::write_string(text, |bytes| self.out.extend_from_slice(bytes));
        }
    }

    fn object(&mut self, id: u32, element: &Element<'x>) {
        self.place(element.position);
        self.out.push(b'{');
        let mut is_first = true;
        if element.what == What::Resource {
            self.name("", "resourceType", &mut is_first);
            self.place(element.position);
            // A name of letters and digits.
            self.out.push(b'"');
            self.out.extend_from_slice(element.name.as_bytes());
            self.out.push(b'"');
        }
        for (name, members) in self.groups(id) {
            self.member(name, &members, &mut is_first);
        }
        self.out.push(b'}');
    }

    /// The children by name, in the order in which the names come first.
    fn groups(&self, id: u32) -> Vec<(&'x str, Vec<u32>)> {
        let mut groups: Vec<(&'x str, Vec<u32>)> = Vec::new();
        // Equal names stand beside each other but for unknown ones; those may be as many as the sender likes.
        let mut places: HashMap<&'x str, usize> = HashMap::new();
        for (child, element) in self.elements.children(id) {
            let place = match groups.last() {
                Some((name, _)) if *name == element.name => Some(groups.len() - 1),
                _ => places.get(element.name).copied(),
            };
            if let Some((_, members)) = place.and_then(|place| groups.get_mut(place)) {
                members.push(child);
            } else {
                places.insert(element.name, groups.len());
                groups.push((element.name, vec![child]));
            }
        }
        groups
    }

    fn member(&mut self, name: &str, members: &[u32], is_first: &mut bool) {
        let elements = self.elements;
        let is_array = members.len() > 1
            || members.first().and_then(|id| elements.get(*id)).is_some_and(|element| element.repeats);
        let companion = |id: u32| {
            elements.get(id).is_some_and(|element| {
                element.first.is_some()
                    && (matches!(element.what, What::Primitive(_))
                        || element.what == What::Unknown && element.value.is_some())
            })
        };
        // A value may be missing where an extension stands for it; where nothing does, the null shows the empty element.
        let is_value = |id: u32| !companion(id) || elements.get(id).is_some_and(|element| element.value.is_some());
        let has_companions = members.iter().any(|id| companion(*id));
        if members.iter().any(|id| is_value(*id)) {
            self.name("", name, is_first);
            self.array(members, is_array, Self::item);
        }
        if has_companions {
            self.name("_", name, is_first);
            self.array(members, is_array, |writer, id| match elements.get(id) {
                Some(element) if companion(id) => writer.object(id, element),
                _ => writer.out.extend_from_slice(b"null"),
            });
        }
    }

    fn array(&mut self, members: &[u32], is_array: bool, write: impl Fn(&mut Self, u32)) {
        if is_array {
            if let Some(first) = members.first().and_then(|id| self.elements.get(*id)) {
                self.place(first.position);
            }
            self.out.push(b'[');
        }
        for (place, id) in members.iter().enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            write(self, *id);
        }
        if is_array {
            self.out.push(b']');
        }
    }

    fn name(&mut self, prefix: &str, name: &str, is_first: &mut bool) {
        if !std::mem::take(is_first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(prefix.as_bytes());
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// The next value stands at this position of the XML.
    fn place(&mut self, position: Position) {
        // The parser refuses more than 4 GiB.
        self.places.push((u32::try_from(self.out.len()).unwrap_or(u32::MAX), position));
    }
}

/// Whether a text is a number of JSON (RFC 8259 §6).
fn is_number(text: &[u8]) -> bool {
    let digits = |from: usize| from + text.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    let start = usize::from(text.first() == Some(&b'-'));
    let mut at = digits(start);
    if at == start || at > start + 1 && text.get(start) == Some(&b'0') {
        return false;
    }
    if text.get(at) == Some(&b'.') {
        let end = digits(at + 1);
        if end == at + 1 {
            return false;
        }
        at = end;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let start = at + 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        at = digits(start);
        if at == start {
            return false;
        }
    }
    at == text.len()
}

#[cfg(test)]
mod tests {
    use super::is_number;

    #[test]
    fn numbers_are_those_of_json() {
        for text in ["0", "-0", "1.00", "10", "-1.5e10", "1E+2", "0.0e-0"] {
            assert!(is_number(text.as_bytes()), "{text}");
        }
        for text in ["", "-", "+1", "01", ".5", "1.", "1e", "1e+", " 1", "1 ", "1x", "NaN", "--1", "1.5.5"] {
            assert!(!is_number(text.as_bytes()), "{text}");
        }
    }
}
