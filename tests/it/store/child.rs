//! A test of this binary run as a process of its own, so that it can be killed or measured.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const DIR: &str = "SLUICE_TEST_STORE_DIR";

/// Starts the test of this name, which finds `dir` by [`directory`]; its output is piped.
pub(crate) fn start(test: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The directory that a child is to work in; `None` in a test run, where the child's test has nothing to do.
#[expect(clippy::disallowed_methods, reason = "the variable is how the parent speaks to its child")]
pub(crate) fn directory() -> Option<OsString> {
    std::env::var_os(DIR)
}
