//! The generated tables are what the definitions say.

use crate::{definitions::Definitions, shared};

#[test]
fn the_tables_are_in_step_with_the_definitions() {
    let definitions = Definitions::read(&shared("definitions/hl7.fhir.r4.core-4.0.1.tgz")).unwrap();
    assert_eq!(definitions.names(), include_str!("../../src/tree/names.txt"));
    assert!(
        definitions.compartment_table() == include_str!("../../src/resource_type/table.rs"),
        "run `cargo run --release -p sluice-fhir --example generate_tables -- PACKAGE`"
    );
}
