//! Extensions that stand for elements of other FHIR releases: `http://hl7.org/fhir/5.0/StructureDefinition/extension-Patient.x`
//! (FHIR versions.html#extensions). Takes such a url, gives the definition that the element of that release amounts to; knows
//! STU3 and R5, by a table of their elements that is unpacked at its first use.

use std::fmt::Write as _;
use std::io::Read as _;
use std::sync::LazyLock;

use crate::definitions::Definitions;

/// Each element of STU3 and R5, ascending: release and path, what it is, and its types.
static PACKED: &[u8] = include_bytes!("../../../../mappings/definitions/elements-of-releases.gz");
static ELEMENTS: LazyLock<String> = LazyLock::new(|| {
    let mut text = String::new();
    // A test reads it.
    let _ = flate2::read::GzDecoder::new(PACKED).read_to_string(&mut text);
    text
});
const CORE: &str = "http://hl7.org/fhir/StructureDefinition/";
/// Elements within elements, of which the definition of one extension is made.
const NESTING_MAX: u32 = 8;

/// One element of a release.
struct Element<'t> {
    is_modifier: bool,
    /// Each `code` or `code(Target,Target)`; none for an element with members of its own.
    types: &'t str,
}

/// Whether a url has the form of such an extension, of a release that is known.
pub(crate) fn is_one(url: &str) -> bool {
    parts(url).is_some_and(|(release, _)| matches!(release, "3.0" | "5.0"))
}

/// The release and the path of the element.
fn parts(url: &str) -> Option<(&str, &str)> {
    url.strip_prefix("http://hl7.org/fhir/")?.split_once("/StructureDefinition/extension-")
}

/// The definition of such an extension, a StructureDefinition in JSON; None if the release has no such element.
pub(super) fn definition(url: &str, own: &Definitions) -> Option<String> {
    let (release, path) = parts(url)?;
    let path = path.replace("%5Bx%5D", "[x]");
    let (path, element) = [path.clone(), format!("{path}[x]")]
        .into_iter()
        .find_map(|path| find(release, &path).map(|element| (path, element)))?;
    let mut out = format!(
        r#"{{"resourceType":"StructureDefinition","url":"http://hl7.org/fhir/{release}/StructureDefinition/extension-{}","type":"Extension","derivation":"constraint","baseDefinition":"{CORE}Extension""#,
        path.trim_end_matches("[x]")
    );
    // It stands where the element would, or at an element of that name whose value is another release's.
    let holder = path.rsplit_once('.').map_or(&*path, |(holder, _)| holder);
    let name = holder.split('.').next().unwrap_or_default();
    if own.type_named(name).is_some() {
        let contexts =
            [holder, path.trim_end_matches("[x]")].map(|at| format!(r#"{{"type":"element","expression":"{at}"}}"#));
        // Writing to a String cannot fail.
        let _ = write!(out, r#","context":[{}]"#, contexts.join(","));
    }
    let _ = write!(out, r#","differential":{{"element":[{{"path":"Extension","isModifier":{}}}"#, element.is_modifier);
    content(&mut out, own, release, (&path, &element), ("Extension", url), 0);
    out.push_str("]}}");
    Some(out)
}

/// The elements of an extension for one element: its value, or an extension for each of its members.
fn content(
    out: &mut String,
    own: &Definitions,
    release: &str,
    (path, element): (&str, &Element<'_>),
    (at, url): (&str, &str),
    nesting: u32,
) {
    if element.types.is_empty() {
        for (child, element) in members(release, path).filter(|_| nesting < NESTING_MAX) {
            let name = child.rsplit_once('.').map_or(child, |(_, name)| name).trim_end_matches("[x]");
            let _ = write!(out, r#",{{"path":"{at}.extension","sliceName":"{name}"}}"#);
            // A member that is like another element says nothing more here.
            if element.types.starts_with('#') {
                let _ = write!(out, r#",{{"path":"{at}.extension.url","fixedUri":"{name}"}}"#);
            } else {
                content(out, own, release, (child, &element), (&format!("{at}.extension"), name), nesting + 1);
            }
        }
        let _ = write!(out, r#",{{"path":"{at}.url","fixedUri":"{url}"}},{{"path":"{at}.value[x]","max":"0"}}"#);
        return;
    }
    let codes = element.types.split(';').map(|text| text.split('(').next().unwrap_or_default());
    if codes.into_iter().any(|code| own.type_named(code).is_none()) {
        // A type that R4 does not have is written as the extensions that it amounts to, which nothing is said of.
        let _ = write!(out, r#",{{"path":"{at}.url","fixedUri":"{url}"}}"#);
        return;
    }
    let types: Vec<String> = element.types.split(';').map(type_rule).collect();
    let _ = write!(
        out,
        r#",{{"path":"{at}.extension","max":"0"}},{{"path":"{at}.url","fixedUri":"{url}"}},{{"path":"{at}.value[x]","min":1,"type":[{}]}}"#,
        types.join(",")
    );
}

fn type_rule(text: &str) -> String {
    match text.split_once('(') {
        Some((code, targets)) => {
            let targets: Vec<String> =
                targets.trim_end_matches(')').split(',').map(|target| format!("\"{CORE}{target}\"")).collect();
            format!(r#"{{"code":"{code}","targetProfile":[{}]}}"#, targets.join(","))
        }
        None => format!(r#"{{"code":"{text}"}}"#),
    }
}

/// A line: release and path, `m` of a modifier, types.
fn read(line: &str) -> Option<(&str, Element<'_>)> {
    let mut columns = line.split('\t');
    let path = columns.next()?;
    let is_modifier = columns.next()? == "m";
    Some((path, Element { is_modifier, types: columns.next()? }))
}

fn find(release: &str, path: &str) -> Option<Element<'static>> {
    let key = format!("{release} {path}");
    let (found, element) = read(from(&key).next()?)?;
    (found == key).then_some(element)
}

/// The members of an element, by their paths.
fn members(release: &str, path: &str) -> impl Iterator<Item = (&'static str, Element<'static>)> {
    let prefix = format!("{release} {path}.");
    from(&prefix).map_while(read_in(prefix.clone())).filter_map(move |(line, element)| {
        let name = line.get(prefix.len()..)?;
        (!name.contains('.')).then_some((line.get(release_length(&prefix)..)?, element))
    })
}

fn release_length(prefix: &str) -> usize {
    prefix.find(' ').map_or(0, |at| at + 1)
}

fn read_in(prefix: String) -> impl FnMut(&'static str) -> Option<(&'static str, Element<'static>)> {
    move |line| read(line).filter(|(path, _)| path.starts_with(&prefix))
}

/// The lines from the first that is not below a key.
fn from(key: &str) -> impl Iterator<Item = &'static str> + use<> {
    let text: &'static str = &ELEMENTS;
    // By halves; a line starts behind a line feed.
    let line_start = |at: usize| text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let (mut low, mut high) = (0, text.len());
    while low < high {
        let start = line_start(low.midpoint(high));
        let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        if line.split('\t').next().unwrap_or_default() < key {
            low = start + line.len() + 1;
        } else {
            high = start;
        }
    }
    text.get(low..).unwrap_or_default().lines()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_found_and_each_element_has_a_definition() {
        let r4 = Definitions::r4();
        let mut count = 0;
        let mut last = "";
        for line in ELEMENTS.lines() {
            let (key, _) = read(line).unwrap();
            assert!(last < key, "{key}");
            last = key;
            let (release, path) = key.split_once(' ').unwrap();
            assert!(find(release, path).is_some(), "{key}");
            let url = format!("http://hl7.org/fhir/{release}/StructureDefinition/extension-{path}");
            assert!(is_one(&url));
            let definition = definition(&url, &r4).unwrap();
            crate::tree::Tree::parse(definition.into(), &crate::tree::Limits::default()).unwrap();
            count += 1;
        }
        assert!(count > 5000, "{count}");
        assert!(definition("http://hl7.org/fhir/5.0/StructureDefinition/extension-Patient.nothing", &r4).is_none());
        assert!(!is_one("http://hl7.org/fhir/9.0/StructureDefinition/extension-Patient.name"));
    }
}
