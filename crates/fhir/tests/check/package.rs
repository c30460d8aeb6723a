//! The pack of R4 core is what the builder makes of the package: the same bytes each time.

use sluice_fhir::definitions::Definitions;
use sluice_fhir::package::{Limits, Package, PackageError, pack};

use super::{bless, path};

const PACK: &str = "mappings/definitions/r4-core-4.0.1.pack";

#[test]
fn rebuilding_gives_the_committed_bytes() {
    let tgz = std::fs::read(path("tests/data/definitions/hl7.fhir.r4.core-4.0.1.tgz")).unwrap();
    let package = Package::from_tgz(&tgz, &Limits::default()).unwrap();
    assert_eq!(package.id(), "hl7.fhir.r4.core#4.0.1");
    let built = pack(&package).unwrap();
    assert_eq!(built, pack(&package).unwrap());
    if bless() {
        std::fs::write(path(PACK), &built).unwrap();
    }
    assert!(built == std::fs::read(path(PACK)).unwrap(), "rebuild with SLUICE_BLESS=1");
    assert!(built.len() < 1 << 20, "{} bytes", built.len());
    Definitions::read(&built).unwrap();
    // The order of files in the archive does not matter.
    let mut files: Vec<_> = package.files().map(|(name, content)| (name.to_owned(), content.clone())).collect();
    files.reverse();
    let manifest = r#"{"name":"hl7.fhir.r4.core","version":"4.0.1"}"#;
    files.push(("package.json".to_owned(), manifest.into()));
    assert!(pack(&Package::from_files(files).unwrap()).unwrap() == built);
}

/// The table of SearchParameters is what the package has.
#[test]
fn the_search_parameters_are_those_of_the_package() {
    const TABLE: &str = "mappings/definitions/r4-search-parameters.tsv";
    let tgz = std::fs::read(path("tests/data/definitions/hl7.fhir.r4.core-4.0.1.tgz")).unwrap();
    let package = Package::from_tgz(&tgz, &Limits::default()).unwrap();
    let mut rows = std::collections::BTreeSet::new();
    for (_, content) in package.files() {
        let value: serde_json::Value = serde_json::from_slice(content).unwrap();
        let bases: Vec<_> = value["base"].as_array().into_iter().flatten().filter_map(|base| base.as_str()).collect();
        let id = value["url"].as_str().and_then(|url| url.strip_prefix("http://hl7.org/fhir/SearchParameter/"));
        if let ("SearchParameter", Some(id), Some(ty), false) =
            (value["resourceType"].as_str().unwrap_or_default(), id, value["type"].as_str(), bases.is_empty())
        {
            rows.insert(format!("{id}\t{ty}\t{}\n", bases.join(",")));
        }
    }
    assert!(rows.len() > 1300, "{}", rows.len());
    let table =
        format!("# SearchParameters of hl7.fhir.r4.core 4.0.1: id, type, resource types.\n{}", String::from_iter(rows));
    if bless() {
        std::fs::write(path(TABLE), &table).unwrap();
    }
    assert!(table == std::fs::read_to_string(path(TABLE)).unwrap(), "rebuild with SLUICE_BLESS=1");
}

#[test]
fn what_is_no_package_is_refused() {
    let limits = Limits::default();
    assert!(matches!(Package::from_tgz(b"not gzip", &limits), Err(PackageError::Archive(_))));
    assert!(matches!(Package::from_files([]), Err(PackageError::Manifest)));
    let tgz = std::fs::read(path("tests/data/definitions/hl7.fhir.r4.core-4.0.1.tgz")).unwrap();
    for limits in [Limits { files_max: 10, ..limits }, Limits { bytes_max: 100_000, ..limits }] {
        assert!(matches!(Package::from_tgz(&tgz, &limits), Err(PackageError::TooLarge)));
    }
    let broken =
        [("package.json".to_owned(), "{\"name\":\"a\",\"version\":\"1\"}".into()), ("a.json".to_owned(), "{".into())];
    assert!(
        matches!(pack(&Package::from_files(broken).unwrap()), Err(PackageError::Syntax { file, .. }) if file == "a.json")
    );
}
