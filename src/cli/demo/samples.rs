//! What the demo sends: synthetic patients that ship with Sluice, and a story about four of them.
//!
//! Takes: nothing. Gives: files in a folder. The patients are Synthea's (`demo/README.md` has source and licence); the
//! story is our own.

use std::io;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

/// Six transaction Bundles of Synthea: its hospitals, its practitioners, four patients.
const SYNTHEA: &[u8] = include_bytes!("../../../demo/synthea.tar.gz");

/// A Bundle of the story.
pub(super) struct Chapter {
    /// Its file.
    pub(super) name: &'static str,
    text: &'static str,
    /// Who sends it: the common name of a client certificate.
    pub(super) sender: &'static str,
    /// What it is about.
    pub(super) title: &'static str,
}

macro_rules! chapter {
    ($name:literal, $sender:literal, $title:literal) => {
        Chapter {
            name: $name,
            text: include_str!(concat!("../../../demo/story/", $name)),
            sender: $sender,
            title: $title,
        }
    };
}

/// Before the patients' records come: what they have decided.
pub(super) const CONSENTS: [Chapter; 3] = [
    chapter!("10-consent-permits.json", "north", "patient 1 permits the insurer and the monitor"),
    chapter!("11-consent-denies.json", "north", "patient 2 permits nobody"),
    chapter!("12-consent-permits-for-now.json", "north", "patient 3 permits both, for now"),
];

/// After the records.
pub(super) const EVENTS: Chapter =
    chapter!("30-adverse-events.json", "south", "adverse events of patients 1, 2 and 3; to south, patient 1 is s-1001");

/// Half-way: the next version of a Consent, and what happens after it.
pub(super) const REVOCATION: Chapter = chapter!("40-consent-revoked.json", "north", "patient 3 takes it back");
/// See [`REVOCATION`].
pub(super) const AFTER: Chapter =
    chapter!("41-adverse-event-after-revocation.json", "south", "one more adverse event of patient 3");

/// What is refused.
pub(super) const BAD: [Chapter; 2] = [
    chapter!("50-bad-values.json", "south", "values that FHIR does not have"),
    chapter!("51-bad-twice.json", "south", "a member that stands twice"),
];

/// The Patients that the story is about, in order; their names in it are numbers.
pub(super) const PATIENTS: [&str; 3] = [
    "Patient/1484a42d-0eaf-4654-9cbf-6b050a5cd73b",
    "Patient/281f4a03-57e9-4b22-a322-68890ff22172",
    "Patient/68f6dc04-4ae2-41c5-a534-df8f9ea1c00e",
];

/// Unpacks Synthea's Bundles. Gives their files in the order in which they are sent.
pub(super) fn unpack(dir: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir)?;
    let mut files = Vec::new();
    for entry in tar::Archive::new(GzDecoder::new(SYNTHEA)).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.file_name().map(PathBuf::from).unwrap_or_default();
        let file = dir.join(name);
        io::copy(&mut entry, &mut std::fs::File::create(&file)?)?;
        files.push(file);
    }
    Ok(files)
}

impl Chapter {
    /// Writes it.
    pub(super) fn write(&self, dir: &Path) -> io::Result<PathBuf> {
        let file = dir.join(self.name);
        std::fs::write(&file, self.text)?;
        Ok(file)
    }
}
