//! The set of rules that is in force, and the next one.
//!
//! Takes: the folders of the settings. Gives: the set in force, to whoever begins to check; who has it keeps it to the end.
//! Reads the folders again when told to: a set that is whole takes the place of the one before; one that is broken is refused
//! by the name and place of what is wrong, and the one before stays. Never: mixes two sets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use super::error::RulesError;
use super::rules::{Rules, Sources};
use crate::config;
use crate::terminology::Terminology;

/// Files and folders that are looked at.
const FILES_MAX: usize = 100_000;
/// Folders within folders: a package that is unpacked has its files two below.
const DEPTH_MAX: usize = 4;

/// The rules of a gateway.
pub struct Rulebook {
    current: ArcSwap<Rules>,
    settings: config::Check,
    tenant: String,
    terminology: Option<Arc<dyn Terminology>>,
    opened: Look,
}

/// What the folders hold, by name, length and time: whether it is worth while to read them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look(Vec<(PathBuf, u64, Option<SystemTime>)>);

impl Rulebook {
    /// Reads the first set; meant for the start, before a port is bound.
    ///
    /// # Errors
    /// Those of [`Rules::read`].
    pub fn open(
        settings: &config::Check,
        tenant: &str,
        terminology: Option<Arc<dyn Terminology>>,
    ) -> Result<Self, RulesError> {
        // Before they are read: what changes meanwhile is read again.
        let opened = look(settings);
        let rules = Rules::read(settings, &Sources { tenant, ..Sources::default() })?;
        let current = ArcSwap::from_pointee(rules);
        Ok(Self { current, settings: settings.clone(), tenant: tenant.to_owned(), terminology, opened })
    }

    /// The set in force.
    pub fn current(&self) -> Arc<Rules> {
        self.current.load_full()
    }

    /// Who decides on codes that the packages cannot tell.
    pub fn terminology(&self) -> Option<&dyn Terminology> {
        self.terminology.as_deref()
    }

    /// How often the folders are to be looked at; never, if None.
    pub fn poll(&self) -> Option<std::time::Duration> {
        let has_folder = self.settings.rules_dir.is_some() || self.settings.packages_dir.is_some();
        self.settings.poll.filter(|_| has_folder)
    }

    /// Reads the folders again. Whether another set is in force now. Takes as long as reading takes, so it is called where that
    /// holds up nobody.
    ///
    /// # Errors
    /// Those of [`Rules::read`]; the set that was in force still is.
    pub fn reload(&self) -> Result<bool, RulesError> {
        let before = self.current();
        let sources = Sources { tenant: &self.tenant, before: Some(&before), ..Sources::default() };
        let look = self.look();
        let rules = Rules::read(&self.settings, &sources)?;
        if self.look() != look {
            return Err(RulesError::Package("the folders changed while they were read".to_owned()));
        }
        let is_other = rules.id() != before.id();
        if is_other {
            self.current.store(Arc::new(rules));
        }
        Ok(is_other)
    }

    /// What the folders hold.
    pub fn look(&self) -> Look {
        look(&self.settings)
    }

    /// What they held when the first set was read.
    pub fn opened(&self) -> &Look {
        &self.opened
    }
}

fn look(settings: &config::Check) -> Look {
    let mut look = Look::default();
    for folder in [&settings.rules_dir, &settings.packages_dir].into_iter().flatten() {
        add(folder, DEPTH_MAX, &mut look);
    }
    look.0.sort();
    look
}

/// Notes what a folder holds. What can't be read is told when it is read for its content.
fn add(folder: &Path, depth: usize, look: &mut Look) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if look.0.len() >= FILES_MAX {
            return;
        }
        // Follows links, as reading does: on a volume of Kubernetes every file is one.
        let Ok(about) = std::fs::metadata(entry.path()) else { continue };
        if about.is_dir() && depth > 1 {
            add(&entry.path(), depth - 1, look);
        }
        look.0.push((entry.path(), about.len(), about.modified().ok()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str) -> String {
        format!(r#"{{"id":"{id}","description":"d","resourceType":"Patient","severity":"error","schema":true}}"#)
    }

    #[test]
    fn a_folder_that_holds_nothing_any_more_is_no_set() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.json");
        std::fs::write(&file, rule("a")).unwrap();
        let settings = config::Check { rules_dir: Some(folder.path().to_owned()), ..config::Check::default() };
        let book = Rulebook::open(&settings, "hospital-a", None).unwrap();
        let first = book.current();
        std::fs::remove_file(&file).unwrap();
        assert!(book.reload().is_err() && Arc::ptr_eq(&first, &book.current()));
        assert!(Rulebook::open(&settings, "hospital-a", None).is_ok(), "who starts anew means it");
    }

    #[test]
    fn a_whole_set_takes_the_place_of_the_one_before_and_a_broken_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.json", &rule("a"));
        let settings = config::Check { rules_dir: Some(folder.path().to_owned()), ..config::Check::default() };
        let book = Rulebook::open(&settings, "hospital-a", None).unwrap();
        let (first, look) = (book.current(), book.look());
        assert!(!book.reload().unwrap() && Arc::ptr_eq(&first, &book.current()));
        assert_eq!(look, book.look());

        write("b.json", "{\n  nonsense");
        assert_ne!(look, book.look());
        let error = book.reload().unwrap_err().to_string();
        assert!(error.contains("b.json:2:3: expected "), "{error}");
        assert!(Arc::ptr_eq(&first, &book.current()));

        write("b.json", &rule("b"));
        assert!(book.reload().unwrap());
        assert_ne!(book.current().id(), first.id());
        std::fs::remove_file(folder.path().join("b.json")).unwrap();
        assert!(book.reload().unwrap());
        assert_eq!(book.current().id(), first.id(), "the same rules are the same set");
    }

    #[test]
    fn what_is_compiled_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let name = "hl7.fhir.us.core-3.1.1.tgz";
        std::fs::copy(format!("tests/data/packages/{name}"), folder.path().join(name)).unwrap();
        let settings = config::Check { packages_dir: Some(folder.path().to_owned()), ..config::Check::default() };
        let book = Rulebook::open(&settings, "hospital-a", None).unwrap();
        std::fs::write(folder.path().join("broken.tgz"), "no archive").unwrap();
        let error = book.reload().unwrap_err().to_string();
        assert!(error.contains("broken.tgz"), "{error}");
        std::fs::remove_file(folder.path().join("broken.tgz")).unwrap();
        let definition = r#"{"resourceType":"StructureDefinition","url":"http://x.example/p","type":"Patient",
            "derivation":"constraint","baseDefinition":"http://hl7.org/fhir/StructureDefinition/Patient",
            "differential":{"element":[{"path":"Patient"}]}}"#;
        std::fs::write(folder.path().join("p.json"), definition).unwrap();
        assert!(book.reload().unwrap());
    }
}
