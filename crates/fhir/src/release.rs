//! Guesses the FHIR release of a resource from its shape, since JSON does not name it. Takes a resource or a Bundle, gives the release that fits
//! best: by types and members that only some releases have, by `fhirVersion`, by profiles of a release. A guess serves to name
//! what is turned away or converted; it never makes anything valid.

use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;

use crate::tree::{Kind, Node};

/// A published release of FHIR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// 1.0.2
    Dstu2,
    /// 3.0.2
    Stu3,
    /// 4.0.1
    R4,
    /// 4.3.0
    R4b,
    /// 5.0.0
    R5,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dstu2 => "DSTU2 (1.0.2)",
            Self::Stu3 => "STU3 (3.0.2)",
            Self::R4 => "R4 (4.0.1)",
            Self::R4b => "R4B (4.3.0)",
            Self::R5 => "R5 (5.0.0)",
        })
    }
}

/// In the order of the bits in the table.
const RELEASES: [Release; 5] = [Release::Dstu2, Release::Stu3, Release::R4, Release::R4b, Release::R5];
/// Where several releases fit equally well.
const PREFERENCE: [Release; 5] = [Release::R4, Release::R4b, Release::Stu3, Release::R5, Release::Dstu2];
/// `{type}` or `{type}.{member}…:{shape}` and the releases that have it; a member that every release of its parent has is left out.
static MEMBERS: &str = include_str!("../../../mappings/releases/members.tsv");
/// Entries of a Bundle that are looked at. A Bundle has one release, so a part of it tells.
const ENTRIES_MAX: usize = 1000;
/// How deep the table goes below a resource, and how many items of an array are looked at.
const DEPTH_MAX: usize = 2;
const ITEMS_MAX: usize = 8;
/// How much a statement of the resource about itself counts against one member's shape.
const STATED: u32 = 10;

/// The release that fits best; None if the node is no resource of any.
pub fn guess(resource: Node<'_>) -> Option<Release> {
    guess_all([resource])
}

/// The release that fits best resources that came together; None if none of them is a resource of any.
pub fn guess_all<'t>(resources: impl IntoIterator<Item = Node<'t>>) -> Option<Release> {
    let mut against = [0_u32; RELEASES.len()];
    let mut known = false;
    for resource in resources {
        known |= weigh(resource, &mut against);
        if resource.member("resourceType").and_then(Node::as_str).as_deref() == Some("Bundle") {
            let entries = resource.member("entry").into_iter().flat_map(Node::items);
            for entry in entries.take(ENTRIES_MAX).filter_map(|entry| entry.member("resource")) {
                known |= weigh(entry, &mut against);
            }
        }
    }
    let weight = |release: &Release| against[RELEASES.iter().position(|r| r == release).unwrap_or(0)];
    known.then(|| PREFERENCE.into_iter().min_by_key(weight)).flatten()
}

/// Counts what speaks against each release; false if this is no resource of any.
fn weigh(resource: Node<'_>, against: &mut [u32; RELEASES.len()]) -> bool {
    let Some(name) = resource.member("resourceType").and_then(Node::as_str) else { return false };
    let table = table();
    let Some(&releases) = table.types.get(&*name) else { return false };
    count(releases, STATED, against);
    let mut key = String::with_capacity(96);
    key.push_str(&name);
    weigh_members(resource, &mut key, 0, against);
    stated(resource, against);
    true
}

/// Members of a node, and below; `key` is its path and is left as it was.
fn weigh_members(node: Node<'_>, key: &mut String, depth: usize, against: &mut [u32; RELEASES.len()]) {
    let length = key.len();
    for member in node.members() {
        let Some(name) = member.name() else { continue };
        key.push('.');
        key.push_str(name);
        let path = key.len();
        key.push_str(match member.kind() {
            Kind::Array => ":a",
            Kind::Object => ":o",
            _ => ":p",
        });
        if let Some(&releases) = table().members.get(&**key) {
            count(releases, 1, against);
        }
        key.truncate(path);
        if depth < DEPTH_MAX && member.kind() == Kind::Object {
            weigh_members(member, key, depth + 1, against);
        } else if depth < DEPTH_MAX {
            for item in member.items().take(ITEMS_MAX) {
                weigh_members(item, key, depth + 1, against);
            }
        }
        key.truncate(length);
    }
}

fn count(releases: u8, weight: u32, against: &mut [u32; RELEASES.len()]) {
    for (place, against) in against.iter_mut().enumerate() {
        if releases & (1 << place) == 0 {
            *against += weight;
        }
    }
}

/// What a resource says about its own release.
fn stated(resource: Node<'_>, against: &mut [u32; RELEASES.len()]) {
    if let Some(release) =
        resource.member("fhirVersion").and_then(Node::as_str).and_then(|version| by_version(&version))
    {
        count(release, STATED, against);
    }
    for profile in resource.find(&["meta", "profile"]) {
        let Some(profile) = profile.as_str() else { continue };
        for (mark, releases) in [("/DSTU2/", 1), ("/STU3/", 2), ("/R4/", 4), ("/R4B/", 8), ("/R5/", 16)] {
            if profile.contains(mark) {
                count(releases, STATED, against);
            }
        }
        let version = profile.strip_prefix("http://hl7.org/fhir/").and_then(|rest| rest.split('/').next());
        if let Some(release) = version.and_then(by_version) {
            count(release, STATED, against);
        }
    }
}

fn by_version(version: &str) -> Option<u8> {
    let marks = [("1.0", 1), ("3.0", 2), ("4.0", 4), ("4.3", 8), ("5.0", 16)];
    marks.into_iter().find(|(mark, _)| version.starts_with(mark)).map(|(_, bits)| bits)
}

struct Table {
    types: HashMap<&'static str, u8>,
    members: HashMap<&'static str, u8>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = Table { types: HashMap::new(), members: HashMap::new() };
        for line in MEMBERS.lines().filter(|line| !line.starts_with('#')) {
            let Some((key, bits)) = line.split_once('\t') else { continue };
            let bits = bits.parse().unwrap_or(0);
            if key.contains('.') {
                table.members.insert(key, bits)
            } else {
                table.types.insert(key, bits)
            };
        }
        table
    })
}
