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
