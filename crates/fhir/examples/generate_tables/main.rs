//! Writes the tables that come from the definitions of FHIR R4.
//!
//!     cargo run --release -p sluice-fhir --example generate_tables -- hl7.fhir.r4.core-4.0.1.tgz
//!
//! The tables: `src/tree/names.txt` (every element name, sorted by bytes) and `src/resource_type/table.rs` (by which
//! elements a resource is in a Patient compartment). A test compares them with what this writes.

use std::error::Error;
use std::path::{Path, PathBuf};

mod tables;

fn main() -> Result<(), Box<dyn Error>> {
    let package = std::env::args_os().nth(1).ok_or("expected the path of hl7.fhir.r4.core-4.0.1.tgz")?;
    let definitions = tables::Definitions::read(&PathBuf::from(package))?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    std::fs::write(source.join("tree/names.txt"), definitions.names())?;
    std::fs::write(source.join("resource_type/table.rs"), definitions.compartment_table())?;
    Ok(())
}
