//! Files of the repository, for all tests of this crate.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use bytes::Bytes;

/// A path from the root of the repository.
pub(crate) fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(relative)
}

/// The regular files of a packed folder, by name.
pub(crate) fn archive(relative: &str) -> BTreeMap<String, Bytes> {
    let file = std::fs::read(path(relative)).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&*file));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let name = entry.path().unwrap().to_string_lossy().trim_start_matches("./").to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(name, Bytes::from(content));
        }
    }
    files
}
