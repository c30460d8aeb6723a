//! FHIR packages. Takes the bytes of a `.tgz` (or the files of an unpacked folder) and gives its definitions, or one
//! packed file of them; reads leniently what it needs and ignores the rest. Never touches a disk or a network: who
//! calls brings the bytes. FHIR package specification, `package/package.json` and `package/*.json`.

mod constraints;
mod profiles;
mod structures;
mod terminology;
mod write;

use std::io::Read as _;

use bytes::Bytes;

use crate::tree::{self, Node, SyntaxError, Tree};

pub use write::pack;

/// What a package may hold; a package is configuration, yet it comes from outside.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Files in the archive.
    pub files_max: usize,
    /// Bytes of all files together, unpacked.
    pub bytes_max: u64,
}

impl Default for Limits {
    /// 50,000 files and 1 GiB: about ten times the largest package in use.
    fn default() -> Self {
        Self { files_max: 50_000, bytes_max: 1 << 30 }
    }
}

/// Why a package was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// Not a gzipped tar archive, or cut short.
    #[error("the package is not a readable .tgz: {0}")]
    Archive(#[from] std::io::Error),
    /// More files or bytes than [`Limits`] allow.
    #[error("the package is larger than its limits allow")]
    TooLarge,
    /// `package.json` is absent or lacks a name and a version.
    #[error("package.json with a name and a version is missing")]
    Manifest,
    /// A definition is not JSON.
    #[error("{file}: {error}")]
    Syntax {
        /// The file inside the package.
        file: String,
        /// What its parser said.
        error: SyntaxError,
    },
}

/// A package: its name, version and JSON files, in the order of their names.
#[derive(Debug)]
pub struct Package {
    name: String,
    version: String,
    dependencies: Vec<String>,
    files: Vec<(String, Bytes)>,
}

impl Package {
    /// Reads a `.tgz`. Only JSON files directly under `package/` count; examples and other folders are skipped.
    pub fn from_tgz(tgz: &[u8], limits: &Limits) -> Result<Self, PackageError> {
        let mut files = Vec::new();
        let mut bytes_left = limits.bytes_max;
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(tgz));
        for (count, entry) in archive.entries()?.enumerate() {
            let entry = entry?;
            if count >= limits.files_max || entry.size() > bytes_left {
                return Err(PackageError::TooLarge);
            }
            let path = entry.path()?.to_string_lossy().into_owned();
            let Some(name) = path.strip_prefix("package/").or_else(|| path.strip_prefix("./package/")) else {
                continue;
            };
            let name = name.to_owned();
            if name.contains('/') {
                continue;
            }
            let mut content = Vec::new();
            let limit = bytes_left;
            entry.take(limit).read_to_end(&mut content)?;
            bytes_left -= content.len() as u64;
            files.push((name, Bytes::from(content)));
        }
        Self::from_files(files)
    }

    /// Takes files as (name, content), in any order; what is not `*.json` is ignored.
    pub fn from_files(files: impl IntoIterator<Item = (String, Bytes)>) -> Result<Self, PackageError> {
        let mut files: Vec<_> = files
            .into_iter()
            // `.index.json` is derived; `._name` is what macOS packs beside a file.
            .filter(|(name, _)| {
                std::path::Path::new(name).extension().is_some_and(|e| e == "json") && !name.starts_with('.')
            })
            .collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let manifest = files.iter().find(|(name, _)| name == "package.json").ok_or(PackageError::Manifest)?;
        let tree = parse(&manifest.0, manifest.1.clone())?;
        let name = text(tree.root(), "name").ok_or(PackageError::Manifest)?;
        let version = text(tree.root(), "version").ok_or(PackageError::Manifest)?;
        let dependencies = tree.root().member("dependencies").into_iter().flat_map(Node::members);
        let dependencies = dependencies.filter_map(|named| Some(format!("{}#{}", named.name()?, named.as_str()?)));
        let dependencies = dependencies.collect();
        files.retain(|(name, _)| name != "package.json");
        Ok(Self { name, version, dependencies, files })
    }

    /// Definitions that come without a `package.json`, under a name for messages: the files of a folder, or a single one.
    pub fn of_definitions(name: &str, files: impl IntoIterator<Item = (String, Bytes)>) -> Self {
        let is_json = |name: &str| std::path::Path::new(name).extension().is_some_and(|e| e == "json");
        let mut files: Vec<_> = files
            .into_iter()
            .filter(|(name, _)| is_json(name) && !name.starts_with('.') && name != "package.json")
            .collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Self { name: name.to_owned(), version: String::new(), dependencies: Vec::new(), files }
    }

    /// The packages that it rests on, as `name#version`; a version may be a pattern: `1.0.x`, `latest`.
    pub fn dependencies(&self) -> &[String] {
        &self.dependencies
    }

    /// `name#version`, as FHIR tools write it; the name alone of definitions without a version.
    pub fn id(&self) -> String {
        if self.version.is_empty() { self.name.clone() } else { format!("{}#{}", self.name, self.version) }
    }

    /// Each file's name and content, by name.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&str, &Bytes)> {
        self.files.iter().map(|(name, content)| (name.as_str(), content))
    }
}

fn parse(file: &str, content: Bytes) -> Result<Tree, PackageError> {
    Tree::parse(content, &tree::Limits::default())
        .map_err(|error| PackageError::Syntax { file: file.to_owned(), error })
}

/// The text of a member, if it is a string.
pub(crate) fn text(node: Node<'_>, name: &str) -> Option<String> {
    node.member(name)?.as_str().map(std::borrow::Cow::into_owned)
}

/// The items of a member that is an array; none if it is anything else.
pub(crate) fn items<'t>(node: Node<'t>, name: &str) -> impl Iterator<Item = Node<'t>> {
    node.member(name).into_iter().flat_map(Node::items)
}

/// The value of an extension by url, as a member of it.
pub(crate) fn extension<'t>(node: Node<'t>, url: &str, value: &str) -> Option<Node<'t>> {
    items(node, "extension")
        .find(|extension| extension.member("url").and_then(Node::as_str).is_some_and(|u| u == url))
        .and_then(|extension| extension.member(value))
}

/// A canonical without its version.
pub(crate) fn unversioned(canonical: &str) -> &str {
    canonical.split_once('|').map_or(canonical, |(url, _)| url)
}
