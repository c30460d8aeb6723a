//! The XHTML of a narrative: well formed, of the elements and attributes that FHIR allows, with some content (FHIR R4
//! narrative.html, txt-1 and txt-2). Takes the text of a `div`, says yes or no; builds nothing, resolves no entity, and
//! refuses whatever could run or be fetched unasked: scripts, forms, frames, processing instructions, document types.

mod parts;

pub(crate) use parts::parts;

/// Elements within each other.
const DEPTH_MAX: usize = 128;
const NAMESPACE: &str = "http://www.w3.org/1999/xhtml";

/// HTML 4.0, chapters 7 to 11 (without section 4 of chapter 9) and 15, `a` and `img`.
const ELEMENTS: [&str; 52] = [
    "a",
    "abbr",
    "acronym",
    "address",
    "area",
    "b",
    "bdo",
    "big",
    "blockquote",
    "br",
    "caption",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "del",
    "dfn",
    "div",
    "dl",
    "dt",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "img",
    "ins",
    "kbd",
    "li",
    "map",
    "ol",
    "p",
    "pre",
    "q",
    "samp",
    "small",
    "span",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
];
const MORE_ELEMENTS: [&str; 4] = ["tt", "u", "ul", "var"];

/// Attributes of any element.
const ATTRIBUTES: [&str; 23] = [
    "abbr",
    "accesskey",
    "align",
    "axis",
    "char",
    "charoff",
    "class",
    "colspan",
    "dir",
    "headers",
    "id",
    "lang",
    "rowspan",
    "scope",
    "span",
    "style",
    "tabindex",
    "title",
    "valign",
    "width",
    "xml:lang",
    // Said again, and the same: `attributes` sees to that.
    "xmlns",
    "xml:space",
];

/// Attributes of one element.
const OWN_ATTRIBUTES: [(&str, &[&str]); 12] = [
    ("a", &["charset", "coords", "href", "hreflang", "name", "rel", "rev", "shape", "type"]),
    ("area", &["alt", "coords", "href", "nohref", "shape"]),
    ("blockquote", &["cite"]),
    ("del", &["cite", "datetime"]),
    ("img", &["alt", "border", "height", "ismap", "longdesc", "src", "usemap", "vspace", "hspace"]),
    ("ins", &["cite", "datetime"]),
    ("map", &["name"]),
    ("ol", &["start", "type"]),
    ("q", &["cite"]),
    ("table", &["border", "cellpadding", "cellspacing", "frame", "rules", "summary"]),
    ("td", &["height", "nowrap"]),
    ("th", &["height", "nowrap"]),
];

/// Whether a text is a narrative's `div` as FHIR allows it.
pub fn is_allowed(text: &str) -> bool {
    read(text).is_some()
}

/// What a narrative points to, and what in it may be pointed to.
#[derive(Debug, Default)]
pub(crate) struct Anchors<'x> {
    /// Links within the resource (`href="#…"`, `src="#…"`), without the `#`; and whole those that no browser opens.
    pub(crate) links: Vec<&'x str>,
    /// Ids of elements, and names of `a`.
    pub(crate) ids: Vec<&'x str>,
}

/// Reads a narrative's `div`; None if it is not as FHIR allows it.
pub(crate) fn read(text: &str) -> Option<Anchors<'_>> {
    let mut reader = Reader { text: text.trim(), at: 0, anchors: Anchors::default() };
    reader.document()?;
    Some(reader.anchors)
}

struct Reader<'x> {
    text: &'x str,
    at: usize,
    anchors: Anchors<'x>,
}

/// A tag, after its name and attributes were found to be allowed.
struct Tag<'x> {
    name: &'x str,
    is_empty: bool,
}

impl<'x> Reader<'x> {
    /// None as soon as something is not allowed.
    fn document(&mut self) -> Option<()> {
        let mut open: Vec<&'x str> = Vec::new();
        let mut has_content = false;
        loop {
            let rest = self.rest();
            let next = rest.find(['<', '&']).unwrap_or(rest.len());
            let plain = rest.get(..next)?;
            if plain.contains("]]>") || open.is_empty() && !plain.trim().is_empty() {
                return None;
            }
            has_content |= !plain.trim().is_empty();
            self.at += next;
            let rest = self.rest();
            if rest.is_empty() {
                return None;
            }
            if rest.starts_with('&') {
                self.entity()?;
                has_content = true;
            } else if let Some(comment) = rest.strip_prefix("<!--") {
                let end = comment.find("--")?;
                comment.get(end..)?.strip_prefix("-->")?;
                self.at += "<!--".len() + end + "-->".len();
            } else if rest.starts_with("</") {
                self.at += 2;
                let name = self.name()?;
                self.space();
                self.take(">")?;
                (open.pop()? == name).then_some(())?;
            } else {
                let tag = self.tag(open.is_empty())?;
                has_content |= tag.name == "img";
                if !tag.is_empty {
                    (open.len() < DEPTH_MAX).then(|| open.push(tag.name))?;
                }
            }
            if open.is_empty() && !rest.starts_with("<!--") {
                // The one div is closed; only comments may follow.
                return (has_content && self.trailing()).then_some(());
            }
        }
    }

    fn rest(&self) -> &'x str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, token: &str) -> Option<()> {
        self.rest().starts_with(token).then(|| self.at += token.len())
    }

    fn space(&mut self) -> bool {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        self.at += rest.len() - trimmed.len();
        rest.len() != trimmed.len()
    }

    fn name(&mut self) -> Option<&'x str> {
        let rest = self.rest();
        let length = rest.bytes().take_while(|&byte| byte.is_ascii_alphanumeric() || byte == b':').count();
        self.at += length;
        rest.get(..length).filter(|name| !name.is_empty())
    }

    /// `&name;` or a character by number.
    fn entity(&mut self) -> Option<()> {
        let end = self.rest().get(..12.min(self.rest().len())).or_else(|| self.rest().get(..8))?.find(';')?;
        let name = self.rest().get(1..end)?;
        let is_number = |digits: &str, radix: u32| {
            u32::from_str_radix(digits, radix).ok().and_then(char::from_u32).is_some_and(|char| char != '\0')
        };
        let known = match name.strip_prefix('#') {
            Some(number) => number.strip_prefix('x').map_or_else(|| is_number(number, 10), |hex| is_number(hex, 16)),
            None => !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        };
        self.at += end + 1;
        known.then_some(())
    }

    fn tag(&mut self, is_root: bool) -> Option<Tag<'x>> {
        self.take("<")?;
        let name = self.name()?;
        let is_known = ELEMENTS.contains(&name) || MORE_ELEMENTS.contains(&name);
        (is_known && (!is_root || name == "div")).then_some(())?;
        let own = OWN_ATTRIBUTES.iter().find(|(element, _)| *element == name).map_or(&[][..], |(_, own)| own);
        let mut has_namespace = false;
        let mut seen: Vec<&str> = Vec::new();
        loop {
            let spaced = self.space();
            if self.take("/>").is_some() {
                return (has_namespace || !is_root).then_some(Tag { name, is_empty: true });
            }
            if self.take(">").is_some() {
                return (has_namespace || !is_root).then_some(Tag { name, is_empty: false });
            }
            let attribute = self.name().filter(|_| spaced)?;
            if seen.contains(&attribute) || seen.len() > 32 {
                return None;
            }
            seen.push(attribute);
            self.space();
            self.take("=")?;
            self.space();
            let value = self.value()?;
            match attribute {
                "xmlns" => has_namespace = (value == NAMESPACE).then_some(true)?,
                "href" | "src" | "cite" | "longdesc" | "usemap" => {
                    is_harmless(value).then_some(())?;
                    // Names that nothing opens lead nowhere.
                    if attribute == "href" && ["urn:", "cid:"].iter().any(|scheme| value.starts_with(scheme)) {
                        self.anchors.links.push(value);
                    } else if let Some(link) = value.strip_prefix('#').filter(|link| !link.is_empty())
                        && matches!(attribute, "href" | "src")
                    {
                        self.anchors.links.push(link);
                    }
                }
                "id" | "name" => self.anchors.ids.push(value),
                _ => {}
            }
            (ATTRIBUTES.contains(&attribute) || own.contains(&attribute)).then_some(())?;
        }
    }

    /// Between quotes.
    fn value(&mut self) -> Option<&'x str> {
        let rest = self.rest();
        let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let inside = rest.get(1..)?;
        let end = inside.find(quote)?;
        self.at += end + 2;
        inside.get(..end).filter(|value| !value.contains('<'))
    }

    /// Whether only comments and white space are left.
    fn trailing(&mut self) -> bool {
        loop {
            self.space();
            let rest = self.rest();
            let Some(comment) = rest.strip_prefix("<!--") else { return rest.is_empty() };
            let Some(end) = comment.find("-->") else { return false };
            self.at += "<!---->".len() + end;
        }
    }
}

/// Whether a link does nothing but point somewhere.
fn is_harmless(link: &str) -> bool {
    // A scheme may be hidden behind white space, control characters and entities.
    if link.contains('&') && link.split_once(':').is_some_and(|(scheme, _)| scheme.contains('&')) {
        return false;
    }
    let visible: String = link.chars().filter(|c| !c.is_whitespace() && !c.is_control()).take(16).collect();
    let lower = visible.to_ascii_lowercase();
    !["javascript:", "vbscript:", "data:text"].iter().any(|scheme| lower.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn div(inside: &str) -> String {
        format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{inside}</div>")
    }

    #[test]
    fn formatting_is_allowed() {
        for inside in [
            "x",
            "<p class='a' style=\"color: red\">a &amp; b &#160; &#xA0;&nbsp;</p>",
            "<img src=\"#a\" alt=''/>",
            "<table border=\"1\"><tr><td colspan=\"2\">1 &lt; 2</td></tr></table><br/><!-- why -->",
            "<a href=\"https://a.example/x?y=1\" name=\"n\">x</a>",
            "<p xmlns=\"http://www.w3.org/1999/xhtml\">x</p>",
        ] {
            assert!(is_allowed(&div(inside)), "{inside}");
        }
        assert!(is_allowed(&format!(" {} <!-- end -->\n", div("x"))));
    }

    #[test]
    fn all_else_is_not() {
        for inside in [
            "",
            " \n ",
            "<p/>",
            "<script>x</script>",
            "<p onclick=\"x\">x</p>",
            "<a href=\"javascript:x\">x</a>",
            "<a href=\" javascrip&#116;:x\">x</a>",
            "<p>x",
            "x</p>",
            "<p><b>x</p></b>",
            "<p class=a>x</p>",
            "<p class=\"a\" class=\"b\">x</p>",
            "a & b",
            "&;",
            "<?php x ?>",
            "<![CDATA[x]]>",
            "<iframe src=\"x\"/>x",
            "<!-- a -- b -->x",
        ] {
            assert!(!is_allowed(&div(inside)), "{inside}");
        }
        for text in
            ["", "x", "<p xmlns=\"http://www.w3.org/1999/xhtml\">x</p>", "<div>x</div>", "<div xmlns=\"x\">x</div>"]
        {
            assert!(!is_allowed(text), "{text}");
        }
        assert!(!is_allowed(&format!("{0}{0}", div("x"))));
        assert!(!is_allowed(&format!("<!DOCTYPE html>{}", div("x"))));
        let deep = "<b>".repeat(1000) + "x" + &"</b>".repeat(1000);
        assert!(!is_allowed(&div(&deep)));
    }
}
