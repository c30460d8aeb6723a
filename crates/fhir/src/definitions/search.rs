//! The SearchParameters of R4 core, by their canonicals: the type of each, and the resource types that it is for. A table that
//! is read at its first use; only definitions ask for it.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Lines of id, type and bases, as `tests/check/package.rs` writes them from the package.
static TABLE: &str = include_str!("../../../../mappings/definitions/r4-search-parameters.tsv");
const PREFIX: &str = "http://hl7.org/fhir/SearchParameter/";

/// The type (`token`, `date`, ...) of a SearchParameter of the core, and its resource types with commas between.
pub(crate) fn named(canonical: &str) -> Option<(&'static str, &'static str)> {
    static BY_ID: LazyLock<HashMap<&'static str, (&'static str, &'static str)>> = LazyLock::new(|| {
        let row = |line: &'static str| {
            let (id, rest) = line.split_once('\t')?;
            Some((id, rest.split_once('\t')?))
        };
        TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect()
    });
    let url = canonical.split_once('|').map_or(canonical, |(url, _)| url);
    BY_ID.get(url.strip_prefix(PREFIX)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_their_canonicals() {
        let name = Some(("string", "Patient"));
        assert_eq!(named("http://hl7.org/fhir/SearchParameter/Patient-name"), name);
        assert_eq!(named("http://hl7.org/fhir/SearchParameter/Patient-name|4.0.1"), name);
        assert_eq!(named("http://hl7.org/fhir/SearchParameter/nothing"), None);
        assert_eq!(named("Patient-name"), None);
    }
}
