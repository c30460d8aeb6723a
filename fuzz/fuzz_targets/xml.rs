//! Any bytes as FHIR's XML: refused, or a document that can be checked; and what can be written again is read as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_fhir::canonical;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::tree::Limits;
use sluice_fhir::validate::Validator;
use sluice_fhir::xml;

fuzz_target!(|bytes: &[u8]| {
    let definitions = Definitions::r4();
    let limits = Limits::default();
    let tree = match xml::read(bytes, &limits, &definitions) {
        Ok(tree) => tree,
        Err(error) => {
            assert!(error.position.line >= 1 && error.position.column >= 1 && !error.path.is_empty());
            return;
        }
    };
    Validator::r4().validate(tree.root());
    if let Ok(written) = xml::write(tree.root(), &definitions) {
        let again = xml::read(&written, &limits, &definitions).expect("what is written is XML");
        assert_eq!(canonical::to_vec(again.root()), canonical::to_vec(tree.root()));
    }
});
