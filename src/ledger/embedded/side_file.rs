//! The file `checkpoint` beside the log: the newest signed checkpoint, for monitors and for the next start.
//!
//! Takes: a note's text. Gives: it back, whole or not at all. Never: decides; the log itself is what counts.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

const NAME: &str = "checkpoint";
const NAME_NEW: &str = "checkpoint.new";

/// Replaces the file. A crash at any point leaves the old or the new text: the new one is durable before its name is.
pub(super) fn write(dir: &Path, text: &str) -> io::Result<()> {
    let new = dir.join(NAME_NEW);
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    fs::rename(new, dir.join(NAME))
}

/// The text, if there is one.
pub(super) fn read(dir: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(dir.join(NAME)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
