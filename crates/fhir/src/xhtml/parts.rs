//! The parts of a narrative: what stands directly in its `div`. Takes the text of the `div`, gives each part's language and class;
//! reads leniently, since whether the text is allowed is asked elsewhere.

/// A part: an element directly in the `div`, or text between two of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part<'x> {
    /// Empty for text.
    pub(crate) name: &'x str,
    /// `xml:lang`, or `lang`.
    pub(crate) language: Option<&'x str>,
    class: Option<&'x str>,
    /// Text that is not white space, or an image.
    pub(crate) has_content: bool,
}

impl Part<'_> {
    /// Whether its class says where it comes from (narrative-source-control).
    pub(crate) fn has_source(&self) -> bool {
        let classes = self.class.into_iter().flat_map(str::split_whitespace);
        classes.into_iter().any(|class| matches!(class, "generated" | "boilerplate" | "original"))
    }
}

/// The parts of a narrative's `div`, in their order.
pub(crate) fn parts(div: &str) -> Vec<Part<'_>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    let mut depth = 0_usize;
    let mut rest = div;
    while let Some((text, after)) = rest.split_once('<') {
        see(&mut parts, depth, text);
        if let Some(comment) = after.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
            continue;
        }
        let Some(end) = tag_end(after) else { return parts };
        let (tag, behind) = after.split_at(end);
        rest = behind.get(1..).unwrap_or_default();
        if tag.starts_with('/') {
            depth = depth.saturating_sub(1);
            continue;
        }
        let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, attributes) = tag.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((tag, ""));
        if depth == 1 {
            let language = attribute(attributes, "xml:lang").or_else(|| attribute(attributes, "lang"));
            let class = attribute(attributes, "class");
            parts.push(Part { name, language, class, has_content: false });
        }
        if name == "img"
            && let Some(part) = parts.last_mut()
        {
            part.has_content = true;
        }
        depth += usize::from(!is_empty);
    }
    parts
}

/// Text at that depth: a part of its own, or the content of one.
fn see(parts: &mut Vec<Part<'_>>, depth: usize, text: &str) {
    if text.trim().is_empty() {
        return;
    }
    match parts.last_mut() {
        Some(part) if depth > 1 => part.has_content = true,
        _ => parts.push(Part { name: "", language: None, class: None, has_content: true }),
    }
}

/// Where a tag ends, beyond what stands in quotes.
fn tag_end(text: &str) -> Option<usize> {
    let mut quote = None;
    text.bytes().position(|byte| {
        if quote.is_some() {
            quote = quote.filter(|&open| open != byte);
            return false;
        }
        quote = matches!(byte, b'"' | b'\'').then_some(byte);
        byte == b'>'
    })
}

fn attribute<'x>(attributes: &'x str, name: &str) -> Option<&'x str> {
    let mut rest = attributes;
    while let Some((before, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let quote = after.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let (value, behind) = after.get(1..)?.split_once(quote)?;
        if before.trim() == name {
            return Some(value);
        }
        rest = behind;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_with_their_languages_and_sources() {
        let text = r#"<div xmlns="x"> <div lang="en" xml:lang="de" class="a generated"><p>x</p></div><!-- <p> --><p/>
            <p title="a > b"><img src="y"/></p> between <hr/></div>"#;
        let found = parts(text);
        let names: Vec<_> =
            found.iter().map(|part| (part.name, part.language, part.has_content, part.has_source())).collect();
        let expected = [
            ("div", Some("de"), true, true),
            ("p", None, false, false),
            ("p", None, true, false),
            ("", None, true, false),
            ("hr", None, false, false),
        ];
        assert_eq!(names, expected);
        assert!(parts("").is_empty() && parts("<div").is_empty() && parts("</div></div>").is_empty());
    }
}
