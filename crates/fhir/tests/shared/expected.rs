//! Expected results that stand in files, for the tests that compare with them.

use crate::files::path;

/// Whether expected results are to be written anew.
#[expect(clippy::disallowed_methods, reason = "a switch of the tests, not a setting")]
pub(crate) fn bless() -> bool {
    std::env::var_os("SLUICE_BLESS").is_some()
}

/// A table of tab-separated lines; `#` begins a comment line.
pub(crate) fn table(relative: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path(relative)).unwrap_or_default();
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}
