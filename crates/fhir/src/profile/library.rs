//! The definitions of a set of packages, by canonical. Takes packages and the core; gives profiles, extensions and value sets.
//!
//! Every file of a package is read once at the start, so that a broken one is refused by name before anything relies on it. A
//! profile is compiled when it is first asked for. What is compiled goes by the digest of its definition and its bases',
//! so a library made of other packages takes it over where nothing changed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::compile::{canonicals, compile};
use super::element::Profile;
use super::layer::Layer;
use super::releases;
use super::terminology::{Concepts, Set};
use crate::definitions::valueset::Membership;
use crate::definitions::{Definitions, TypeId, TypeKind};
use crate::package::{Package, PackageError, items, text, unversioned};
use crate::tree::{Limits, Node, Tree};

/// Definitions on top of each other; a chain that is longer goes in circles.
const CHAIN_MAX: usize = 64;
const CORE: &str = "http://hl7.org/fhir/StructureDefinition/";

/// Why packages were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// A file of a package is not JSON.
    #[error("package {package}: {error}")]
    File {
        /// `name#version`.
        package: String,
        /// The file and what is wrong with it.
        error: PackageError,
    },
    /// A definition says what can't be.
    #[error("{canonical}: {expected}")]
    Definition {
        /// The definition's url.
        canonical: String,
        /// What is wrong with it.
        expected: String,
    },
}

/// The definitions of packages, on top of those of the core. Shared between threads.
#[derive(Debug)]
pub struct Library {
    core: Arc<Definitions>,
    packages: Vec<Described>,
    missing: BTreeSet<String>,
    entries: Vec<Entry>,
    /// By url without version; the newest version first.
    by_url: HashMap<Box<str>, Vec<usize>>,
    /// Extensions that stand for elements of other releases, as far as they were met.
    releases: Mutex<HashMap<Box<str>, Arc<Profile>>>,
    /// By resource type: the profiles that an ImplementationGuide has for every resource of it.
    globals: HashMap<Box<str>, Vec<Box<str>>>,
    compiled: Arc<Compiled>,
}

/// Compiled profiles by the digest of their definitions.
type Compiled = Mutex<HashMap<[u8; 32], Arc<Profile>>>;

#[derive(Debug)]
struct Described {
    id: String,
    /// The packages that it names, by their ids.
    dependencies: Vec<String>,
}

#[derive(Debug)]
struct Entry {
    url: Box<str>,
    version: Option<Box<str>>,
    package: usize,
    content: Bytes,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Structure(OnceLock<Result<Arc<Profile>, Fault>>),
    Set(OnceLock<Option<Arc<Set>>>),
    System {
        concepts: OnceLock<Option<Arc<Concepts>>>,
        is_supplement: bool,
    },
    /// What is read as it stands, by its type.
    Document(&'static str, OnceLock<Option<Arc<Tree>>>),
}

/// Types of [`Kind::Document`].
const DOCUMENTS: [&str; 4] = ["Library", "Measure", "Questionnaire", "SearchParameter"];

/// What a code system of the packages says of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InSystem {
    In,
    Out,
    /// It only adds to another system, and has no codes of its own.
    Supplement,
}

/// Why a profile is not to be had.
#[derive(Debug, Clone)]
enum Fault {
    /// It rests on a definition that no package has.
    Missing,
    Broken(String),
}

impl From<String> for Fault {
    fn from(expected: String) -> Self {
        Self::Broken(expected)
    }
}

impl From<&str> for Fault {
    fn from(expected: &str) -> Self {
        Self::Broken(expected.to_owned())
    }
}

/// What a canonical names.
#[derive(Debug, Clone)]
pub(crate) enum Named {
    Profile(Arc<Profile>),
    /// A type of the core itself.
    Type(TypeId),
    /// A definition that can't be compiled, with the reason.
    Broken(String),
    /// It, or what it rests on, is not among the packages.
    Unknown,
}

impl Library {
    /// The definitions of these packages, with the core's own profiles and extensions.
    ///
    /// # Errors
    /// The first file that is not JSON, by package and name.
    pub fn new(core: Arc<Definitions>, packages: &[Package]) -> Result<Self, LibraryError> {
        let mut library = Self {
            core,
            packages: Vec::new(),
            missing: BTreeSet::new(),
            entries: Vec::new(),
            by_url: HashMap::new(),
            releases: Mutex::default(),
            globals: HashMap::new(),
            compiled: Arc::default(),
        };
        let known: HashSet<String> = packages.iter().map(Package::id).chain([library.core.id().to_owned()]).collect();
        let own = library
            .core
            .profiles()
            .enumerate()
            .map(|(number, profile)| (format!("{number:05}.json"), Bytes::copy_from_slice(profile)));
        let own = Package::of_definitions(library.core.id(), own.collect::<Vec<_>>());
        library.add(&own)?;
        for package in packages {
            library.add(package)?;
            let lacks = |id: &&String| !known.iter().any(|known| satisfies(known, id));
            library.missing.extend(package.dependencies().iter().filter(lacks).cloned());
        }
        for (place, entry) in library.entries.iter().enumerate() {
            library.by_url.entry(entry.url.clone()).or_default().push(place);
        }
        let (entries, packages) = (&library.entries, &library.packages);
        for places in library.by_url.values_mut() {
            let version = |place: usize| {
                let entry = &entries[place];
                let own = packages[entry.package].id.rsplit_once('#').map_or("", |(_, version)| version);
                version_key(entry.version.as_deref().unwrap_or(own))
            };
            places.sort_by_key(|&place| std::cmp::Reverse(version(place)));
        }
        Ok(library)
    }

    /// Takes over what another library has compiled, where the definitions are the same.
    #[must_use]
    pub fn sharing(mut self, other: &Self) -> Self {
        self.compiled = Arc::clone(&other.compiled);
        self
    }

    fn add(&mut self, package: &Package) -> Result<(), LibraryError> {
        let number = self.packages.len();
        for (file, content) in package.files() {
            let tree = Tree::parse(content.clone(), &Limits::default()).map_err(|error| LibraryError::File {
                package: package.id(),
                error: PackageError::Syntax { file: file.to_owned(), error },
            })?;
            let root = tree.root();
            let kind = match root.resource_type() {
                Some("StructureDefinition") => Kind::Structure(OnceLock::new()),
                Some("ValueSet") => Kind::Set(OnceLock::new()),
                Some("CodeSystem") => {
                    let is_supplement = root.member("content").is_some_and(|content| content.is_str("supplement"))
                        || root.member("supplements").is_some();
                    Kind::System { concepts: OnceLock::new(), is_supplement }
                }
                Some("ImplementationGuide") => {
                    for global in items(root, "global") {
                        if let (Some(ty), Some(profile)) = (text(global, "type"), text(global, "profile")) {
                            self.globals.entry(ty.into()).or_default().push(profile.into());
                        }
                    }
                    continue;
                }
                Some(name) => match DOCUMENTS.iter().find(|known| **known == name) {
                    Some(name) => Kind::Document(name, OnceLock::new()),
                    None => continue,
                },
                None => continue,
            };
            let Some(url) = text(root, "url") else { continue };
            let version = text(root, "version").map(Into::into);
            self.entries.push(Entry { url: url.into(), version, package: number, content: content.clone(), kind });
        }
        self.packages.push(Described { id: package.id(), dependencies: package.dependencies().to_vec() });
        Ok(())
    }

    /// The packages, as `name#version`.
    pub fn packages(&self) -> impl Iterator<Item = &str> {
        self.packages.iter().map(|package| &*package.id)
    }

    /// Dependencies that packages name and that are not among them, as `name#version`.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.missing.iter().map(String::as_str)
    }

    /// Whether a canonical names a profile, an extension or a type that is known.
    pub fn has(&self, canonical: &str) -> bool {
        !matches!(self.named(canonical), Named::Unknown)
    }

    /// The canonicals of all profiles and extensions.
    pub fn profiles(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|entry| matches!(entry.kind, Kind::Structure(_))).map(|entry| &*entry.url)
    }

    /// Compiles every profile now, but for those that rest on what no package has: these are not checked.
    ///
    /// # Errors
    /// The first that can't be, by its canonical.
    pub fn compile_all(&self) -> Result<(), LibraryError> {
        for entry in &self.entries {
            if let Kind::Structure(_) = entry.kind
                && let Named::Broken(expected) = self.structure(entry)
            {
                return Err(LibraryError::Definition { canonical: entry.url.to_string(), expected });
            }
        }
        Ok(())
    }

    /// The definitions below.
    pub(crate) fn core(&self) -> &Definitions {
        &self.core
    }

    /// What a canonical, with or without a version, names.
    pub(crate) fn named(&self, canonical: &str) -> Named {
        // Behind a `#` stands the id of an element of the profile.
        let canonical = canonical.split_once('#').map_or(canonical, |(canonical, _)| canonical);
        let url = unversioned(canonical);
        if let Some(entry) = self.find(canonical, None, |kind| matches!(kind, Kind::Structure(_))) {
            return self.structure(entry);
        }
        if let Some(name) = url.strip_prefix(CORE) {
            return self.core.type_named(name).map_or(Named::Unknown, Named::Type);
        }
        self.of_release(url).map_or(Named::Unknown, Named::Profile)
    }

    /// The definition of an extension that stands for an element of another release.
    fn of_release(&self, url: &str) -> Option<Arc<Profile>> {
        if !releases::is_one(url) {
            return None;
        }
        let lock = || self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(url) {
            return Some(Arc::clone(known));
        }
        let definition = releases::definition(url, &self.core)?;
        let tree = Tree::parse(definition.into(), &Limits::default()).ok()?;
        let layer = Layer { tree: Arc::new(tree), versions: BTreeMap::new() };
        let profile = Arc::new(compile(&self.core, &[layer], self.core.type_named("Extension")?).ok()?);
        // There are as many as the releases have elements.
        lock().insert(url.into(), Arc::clone(&profile));
        Some(profile)
    }

    /// The value set that a canonical names, in what package it stands, as seen from the package `from`.
    pub(super) fn set(&self, canonical: &str, from: Option<usize>) -> Option<(Arc<Set>, usize)> {
        let entry = self.find(canonical, from, |kind| matches!(kind, Kind::Set(_)))?;
        let Kind::Set(content) = &entry.kind else { return None };
        let set = content.get_or_init(|| entry.tree().ok().map(|tree| Arc::new(Set::read(tree.root())))).clone()?;
        Some((set, entry.package))
    }

    /// The code system of that url, with or without a version, as seen from the package `from`.
    pub(super) fn system(&self, canonical: &str, from: Option<usize>) -> Option<Arc<Concepts>> {
        let entry = self.find(canonical, from, |kind| matches!(kind, Kind::System { .. }))?;
        let Kind::System { concepts, .. } = &entry.kind else { return None };
        concepts.get_or_init(|| entry.tree().ok().and_then(|tree| Concepts::read(tree.root())).map(Arc::new)).clone()
    }

    /// What a canonical names among the Libraries, Measures, Questionnaires and SearchParameters.
    pub(crate) fn document(&self, name: &str, canonical: &str) -> Option<Arc<Tree>> {
        let entry = self.find(canonical, None, |kind| matches!(kind, Kind::Document(known, _) if *known == name))?;
        let Kind::Document(_, content) = &entry.kind else { return None };
        content.get_or_init(|| entry.tree().ok().map(Arc::new)).clone()
    }

    /// The definition that a canonical names, as it is written; read anew each time.
    pub(crate) fn written(&self, canonical: &str, resource_type: &str) -> Option<Tree> {
        let is = |kind: &Kind| match kind {
            Kind::Structure(_) => resource_type == "StructureDefinition",
            Kind::Set(_) => resource_type == "ValueSet",
            Kind::System { .. } => resource_type == "CodeSystem",
            Kind::Document(name, _) => resource_type == *name,
        };
        self.find(canonical, None, is)?.tree().ok()
    }

    /// Whether a canonical names a value set of the packages.
    pub(crate) fn has_set(&self, canonical: &str) -> bool {
        self.find(canonical, None, |kind| matches!(kind, Kind::Set(_))).is_some()
    }

    /// What the code system of that url, of the packages, says of a code; None if it is not known or can't tell.
    pub(crate) fn code_in(&self, url: &str, code: Option<&str>) -> Option<InSystem> {
        if !self.by_url.contains_key(url) {
            return None;
        }
        let entry = self.find(url, None, |kind| matches!(kind, Kind::System { .. }))?;
        if matches!(entry.kind, Kind::System { is_supplement: true, .. }) {
            return Some(InSystem::Supplement);
        }
        match self.system(url, None)?.contains(code?) {
            Membership::In => Some(InSystem::In),
            Membership::Out => Some(InSystem::Out),
            Membership::Unknown => None,
        }
    }

    /// The profiles that an ImplementationGuide of the packages has for every resource of a type.
    pub(crate) fn globals(&self, resource_type: &str) -> impl Iterator<Item = &str> {
        self.globals.get(resource_type).into_iter().flatten().map(|profile| &**profile)
    }

    /// The definition with that canonical: of the version that it names; else that of the package `from` or of what it
    /// depends on; else the newest.
    fn find(&self, canonical: &str, from: Option<usize>, is_kind: impl Fn(&Kind) -> bool) -> Option<&Entry> {
        let (url, version) = canonical.split_once('|').map_or((canonical, None), |(url, version)| (url, Some(version)));
        let found: Vec<&Entry> = self
            .by_url
            .get(url)?
            .iter()
            .map(|&place| &self.entries[place])
            .filter(|entry| is_kind(&entry.kind))
            .collect();
        if let Some(version) = version
            && let Some(exact) = found.iter().find(|entry| entry.version.as_deref() == Some(version))
        {
            return Some(exact);
        }
        let near = from.and_then(|from| {
            let dependencies = &self.packages[from].dependencies;
            let own = found.iter().find(|entry| entry.package == from);
            own.or_else(|| {
                let named =
                    |entry: &&&Entry| dependencies.iter().any(|id| satisfies(&self.packages[entry.package].id, id));
                found.iter().find(named)
            })
        });
        near.or(found.first()).copied()
    }

    fn structure(&self, entry: &Entry) -> Named {
        let Kind::Structure(content) = &entry.kind else { return Named::Unknown };
        match content.get_or_init(|| self.compile(entry)) {
            Ok(profile) if profile.elements.is_empty() => Named::Type(profile.of),
            Ok(profile) => Named::Profile(Arc::clone(profile)),
            Err(Fault::Broken(expected)) => Named::Broken(expected.clone()),
            Err(Fault::Missing) => Named::Unknown,
        }
    }

    /// Compiles an entry with all that it rests on. Holds no lock meanwhile.
    fn compile(&self, entry: &Entry) -> Result<Arc<Profile>, Fault> {
        let mut chain = Vec::new();
        let mut hasher = Sha256::new();
        let mut at = entry;
        let of = loop {
            if chain.len() >= CHAIN_MAX {
                return Err("its base definitions go in circles".into());
            }
            let tree = at.tree()?;
            let root = tree.root();
            let name = text(root, "type").ok_or("it has no type")?;
            // Of a logical model, or of another release.
            let of = self.core.type_named(&name).ok_or(Fault::Missing)?;
            if at.url.strip_prefix(CORE) == Some(&*name) {
                // The definition of a type itself: the core's own stands for it.
                break of;
            }
            let versions = self.versions(root, at.package);
            hasher.update(Sha256::digest(&at.content));
            for version in versions.values() {
                hasher.update(Sha256::digest(version));
            }
            let base = text(root, "baseDefinition").ok_or("it has no base definition")?;
            chain.push(Layer { tree: Arc::new(tree), versions });
            let core = unversioned(&base).strip_prefix(CORE).and_then(|name| self.core.type_named(name));
            match self.find(&base, Some(at.package), |kind| matches!(kind, Kind::Structure(_))) {
                Some(next) if core.is_none() => at = next,
                _ => match core {
                    Some(_) => break of,
                    None => return Err(Fault::Missing),
                },
            }
        };
        if chain.is_empty() {
            return Ok(Arc::new(Profile {
                url: entry.url.clone(),
                of,
                elements: Vec::new(),
                contexts: Vec::new(),
                context_invariants: Vec::new(),
                is_modifier: false,
                imposed: Box::default(),
            }));
        }
        let digest: [u8; 32] = hasher.finalize().into();
        let lock = || self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&digest) {
            return Ok(Arc::clone(known));
        }
        chain.reverse();
        let profile = Arc::new(compile(&self.core, &chain, of)?);
        lock().insert(digest, Arc::clone(&profile));
        Ok(profile)
    }

    /// Of the canonicals that a definition names without a version and that are there in several: those that its package means.
    fn versions(&self, definition: Node<'_>, package: usize) -> BTreeMap<String, String> {
        let mut meant = BTreeMap::new();
        canonicals(definition, |canonical| {
            if self.by_url.get(canonical).is_none_or(|places| places.len() < 2) || meant.contains_key(canonical) {
                return;
            }
            let is_named = |kind: &Kind| matches!(kind, Kind::Structure(_) | Kind::Set(_));
            let version = self.find(canonical, Some(package), is_named).and_then(|entry| entry.version.as_deref());
            if let Some(version) = version {
                meant.insert(canonical.to_owned(), format!("{canonical}|{version}"));
            }
        });
        meant
    }

    /// Whether a type is what another is, or specializes it.
    pub(crate) fn is_type(&self, id: TypeId, asked: TypeId) -> bool {
        let name = self.core.type_name(asked);
        id == asked
            || match self.core.type_kind(id) {
                TypeKind::Resource => matches!(name, "Resource" | "DomainResource"),
                TypeKind::Complex | TypeKind::Primitive => name == "Element",
            }
            || (name == "Quantity" && matches!(self.core.type_name(id), "Age" | "Count" | "Distance" | "Duration"))
    }
}

impl Entry {
    fn tree(&self) -> Result<Tree, String> {
        // It was read when the library was made.
        Tree::parse(self.content.clone(), &Limits::default()).map_err(|error| error.to_string())
    }
}

/// Whether the package `id` is what a dependency names: `1.0.x`, `latest` and `current` stand for more than one version.
fn satisfies(id: &str, dependency: &str) -> bool {
    let (name, version) = id.split_once('#').unwrap_or((id, ""));
    let (asked_name, asked) = dependency.split_once('#').unwrap_or((dependency, ""));
    name == asked_name
        && (asked == version
            || matches!(asked, "" | "latest" | "current" | "dev" | "*")
            || asked.strip_suffix('x').is_some_and(|prefix| version.starts_with(prefix)))
}

/// Orders versions: numbers by value, releases after what was before them.
fn version_key(version: &str) -> (Vec<u64>, bool, String) {
    let (numbers, label) = version.split_once('-').map_or((version, None), |(numbers, label)| (numbers, Some(label)));
    let numbers = numbers.split('.').map(|part| part.parse().unwrap_or(0)).collect();
    (numbers, label.is_none(), label.unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_and_dependencies_matched() {
        assert!(version_key("1.10.0") > version_key("1.9.0"));
        assert!(version_key("2.0.0") > version_key("2.0.0-ballot"));
        assert!(version_key("2.0.0-ballot") > version_key("1.9"));
        assert!(satisfies("a#1.0.2", "a#1.0.x") && satisfies("a#1", "a#latest") && satisfies("a#1", "a#1"));
        assert!(!satisfies("a#1.1.2", "a#1.0.x") && !satisfies("b#1", "a#1"));
    }
}
