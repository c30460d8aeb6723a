//! The table of the elements of other releases, from their packages.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{Read as _, Write as _};
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::Value;

/// Members of every type, which no extension stands for.
const EVERYWHERE: [&str; 7] = ["id", "extension", "modifierExtension", "contained", "implicitRules", "meta", "text"];

/// The elements of these releases, packed: `release path`, `m` of a modifier, types.
pub(crate) fn table(packages: &[(&str, &Path)]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    for (release, package) in packages {
        let mut archive = tar::Archive::new(GzDecoder::new(std::fs::File::open(package)?));
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.to_string_lossy().into_owned();
            if !path.rsplit('/').next().is_some_and(|file| file.starts_with("StructureDefinition")) {
                continue;
            }
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            let definition: Value = serde_json::from_str(&text)?;
            let is_type = matches!(definition["kind"].as_str(), Some("resource" | "complex-type"));
            if !is_type || definition["derivation"] == "constraint" {
                continue;
            }
            for element in definition["snapshot"]["element"].as_array().into_iter().flatten() {
                let path = element["path"].as_str().ok_or("an element has no path")?;
                let Some((_, name)) = path.rsplit_once('.') else { continue };
                if !EVERYWHERE.contains(&name) {
                    let modifier = if element["isModifier"] == true { "m" } else { "" };
                    rows.insert(format!("{release} {path}"), format!("{modifier}\t{}", types(element)));
                }
            }
        }
    }
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for (path, rest) in rows {
        writeln!(packed, "{path}\t{rest}")?;
    }
    Ok(packed.finish()?)
}

/// `code;code(Target,Target)`; `#` of an element that is like another; nothing of one with members of its own.
fn types(element: &Value) -> String {
    if element.get("contentReference").is_some() {
        return "#".to_owned();
    }
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for ty in element["type"].as_array().into_iter().flatten() {
        let Some(code) = ty["code"].as_str() else { continue };
        // FHIRPath's own types are those of ids and urls.
        let code = if code.starts_with("http://hl7.org/fhirpath/") { "string" } else { code };
        // STU3 has one target for each type, later releases a list.
        let targets = ty["targetProfile"].as_array().into_iter().flatten().chain([&ty["targetProfile"]]);
        let names = targets.filter_map(|target| target.as_str()?.rsplit('/').next());
        found.entry(code).or_default().extend(names);
    }
    if found.keys().all(|code| matches!(*code, "BackboneElement" | "Element")) {
        return String::new();
    }
    let written = |(code, targets): (&str, BTreeSet<&str>)| {
        let targets: Vec<&str> = targets.into_iter().collect();
        if targets.is_empty() { code.to_owned() } else { format!("{code}({})", targets.join(",")) }
    };
    found.into_iter().map(written).collect::<Vec<_>>().join(";")
}
