//! Writes the tables that come from the definitions of FHIR R4.
//!
//!     cargo run --release -p sluice-fhir --example generate_tables -- hl7.fhir.r4.core-4.0.1.tgz
//!
//! The tables: `src/tree/names.txt` (every element name, sorted by bytes) and `src/resource_type/table.rs` (by which
//! elements a resource is in a Patient compartment). A test compares them with what this writes.
//!
//!     cargo run --release -p sluice-fhir --example generate_tables -- hl7.fhir.r4.core-4.0.1.tgz STU3.tgz R5.tgz
//!
//! With the core packages of STU3 and R5 too, it writes the table of their elements that cross-version extensions go by,
//! `mappings/definitions/elements-of-releases.gz`.

use std::error::Error;
use std::path::{Path, PathBuf};

mod releases;
mod tables;

fn main() -> Result<(), Box<dyn Error>> {
    let package = std::env::args_os().nth(1).ok_or("expected the path of hl7.fhir.r4.core-4.0.1.tgz")?;
    let definitions = tables::Definitions::read(&PathBuf::from(package))?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    std::fs::write(source.join("tree/names.txt"), definitions.names())?;
    std::fs::write(source.join("resource_type/table.rs"), definitions.compartment_table())?;
    if let (Some(stu3), Some(r5)) = (std::env::args_os().nth(2), std::env::args_os().nth(3)) {
        let table = releases::table(&[("3.0", Path::new(&stu3)), ("5.0", Path::new(&r5))])?;
        std::fs::write(source.join("../../../mappings/definitions/elements-of-releases.gz"), table)?;
    }
    Ok(())
}
