//! What a site allows beyond the letter of FHIR, or forbids within it. Settings of a [`super::Validator`]; the default is what FHIR itself says.

/// Switches of the validator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Policy {
    /// URLs of example.org and its like are taken, and extensions that are defined there pass for known.
    pub example_urls: bool,
    /// Markdown holds HTML tags.
    pub html_in_markdown: bool,
    /// Strings hold what looks like HTML tags.
    pub html_in_strings: bool,
    /// What a resource contains is checked as well.
    pub contained: bool,
    /// References within a Parameters or a Bundle name what is not in it.
    pub references_elsewhere: bool,
}

impl Default for Policy {
    /// What FHIR allows is allowed, and all is checked.
    fn default() -> Self {
        Self {
            example_urls: true,
            html_in_markdown: true,
            html_in_strings: true,
            contained: true,
            references_elsewhere: true,
        }
    }
}

/// Whether a URL is one that stands in documentation alone (RFC 2606, RFC 6761, and what HL7 uses).
pub(super) fn is_example(url: &str) -> bool {
    const HOSTS: [&str; 5] = ["example.org", "acme.com", "acme.org", "example.com", "example.net"];
    let names = |host: &str| {
        url.match_indices(host).any(|(at, found)| {
            let rest = &url[at + found.len()..];
            rest.is_empty() || rest.starts_with('/')
        })
    };
    HOSTS.iter().any(|host| names(host))
        || url.starts_with("urn:oid:1.3.6.1.4.1.32473.")
        || url.starts_with("urn:oid:2.999.")
}

/// Whether a text holds what looks like a tag of HTML: `<name>` or `<name …>`.
pub(super) fn has_tag(text: &str) -> bool {
    text.match_indices('<').any(|(at, _)| {
        let inside = &text[at + 1..];
        let Some(end) = inside.find(['<', '>']) else { return false };
        let name = inside.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        inside.as_bytes()[end] == b'>'
            && inside.starts_with(|first: char| first.is_ascii_alphabetic())
            && (name == end || inside[name..].starts_with(char::is_whitespace))
    })
}

/// Whether Markdown holds HTML: a tag, opening or closing, a comment, a declaration or an instruction, not escaped.
pub(super) fn has_markup(text: &str) -> bool {
    text.match_indices('<').any(|(at, _)| {
        if text[..at].ends_with('\\') {
            return false;
        }
        let inside = &text[at + 1..];
        if inside.starts_with(['!', '?']) {
            return true;
        }
        let inside = inside.strip_prefix('/').unwrap_or(inside);
        let name = inside.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'-').count();
        inside.starts_with(|first: char| first.is_ascii_alphabetic())
            && inside[name..].starts_with(|next: char| next == '>' || next.is_whitespace())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_example_and_what_is_a_tag() {
        assert!(
            is_example("http://example.org/x") && is_example("https://a.acme.com") && is_example("urn:oid:2.999.1")
        );
        assert!(!is_example("http://example.organic/x") && !is_example("http://hl7.org/fhir"));
        assert!(has_tag("a <b> c") && has_tag("<script src='x'>"));
        assert!(!has_tag("1 < 2 > 1") && !has_tag("a <b") && !has_tag("<b<c") && !has_tag("</b>"));
        assert!(has_markup("<br>") && has_markup("a </p>") && has_markup("<!-- x -->"));
        assert!(!has_markup("\\<br>") && !has_markup("a < b") && !has_markup("<https://a.b>"));
    }
}
