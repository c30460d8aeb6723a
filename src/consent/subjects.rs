//! Whom a resource is about.
//!
//! Takes: the resources of a unit, what came in the same stream, and what this tenant has recorded before. Gives: for
//! each resource its subjects as pseudonyms. Never: guesses. A reference that leads to no known patient makes an
//! outage, or, where the settings say so, an unattributed resource: collected, and never disclosed; so is a resource of
//! a type that should name a patient and names none.
//!
//! A Patient that stands here keeps its subjects. Where what is written over it is, by its identifiers, somebody else as
//! well, the record is about both from then on, and needs the permit of both: an identifier that was left out or added
//! later leaves no Consent behind, and a mistaken id shows nobody's record by another's leave.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sluice_fhir::bundle::{self, Target};
use sluice_fhir::compartment::{self, Membership};
use sluice_fhir::reference::is_id;
use sluice_fhir::tree::{Node, Tree};

use super::identify::{Named, Pseudonyms, identifiers, parts};
use super::names::{Bearers, Name, searched};
use super::pseudonym::{Pseudonym, each_once};
use crate::config::UnknownSubject;
use crate::error::{Error, Peer, Refusal, Result};
use crate::ingest::neighbours::Neighbours;
use crate::ingest::unit::Interaction;
use crate::keys::Keys;
use crate::normalize::{Normalized, Resource};
use crate::store::{Store, Table};

/// Whom one resource is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subjects {
    /// Nobody: its type is not about a patient (Organization, Practitioner), or it need not be and is not.
    Nobody,
    /// These patients; sorted, at least one, none twice.
    Of(Vec<Pseudonym>),
    /// It should name a patient and names none that is known. Recorded, and never disclosed.
    Unattributed,
}

impl Subjects {
    /// The patients.
    pub fn pseudonyms(&self) -> &[Pseudonym] {
        match self {
            Self::Of(pseudonyms) => pseudonyms,
            Self::Nobody | Self::Unattributed => &[],
        }
    }
}

/// Where a patient can be looked up whom this tenant has never recorded: the hospital's own FHIR server.
pub trait PatientSource: Send + Sync {
    /// Reads `Patient/[id]`; none if there is none.
    fn patient<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Tree>>>;

    /// Searches by `Patient?identifier=[system]|[value]`; none unless exactly one is found.
    fn by_identifier<'a>(&'a self, system: &'a str, value: &'a str) -> BoxFuture<'a, Result<Option<Tree>>>;
}

/// Resolves subjects.
pub struct Resolver<'a> {
    /// What was recorded before.
    pub store: &'a dyn Store,
    /// For the keys of the index.
    pub keys: &'a Keys,
    /// How identifiers become pseudonyms.
    pub pseudonyms: &'a Pseudonyms,
    /// The hospital's FHIR server, if there is one.
    pub upstream: Option<&'a dyn PatientSource>,
    /// What to do with the unknown.
    pub unknown: UnknownSubject,
    /// `[base]` of this server: an absolute URL under it means what stands here.
    pub base_url: &'a str,
    /// The institution that sent the unit: what its own names mean.
    pub caller: &'a str,
}

/// What was found out about the patients of a unit.
struct Known {
    /// By the number of their entry.
    patients: Vec<Option<Vec<Pseudonym>>>,
    /// By the reference that leads out of the unit, or by its identifier.
    references: HashMap<String, Meant>,
}

/// Whom a Reference means.
#[derive(Clone)]
enum Meant {
    /// These patients.
    Patients(Vec<Pseudonym>),
    /// No patient: a practitioner, a device.
    Another,
    /// Nobody that could be known.
    Unknown,
}

/// What a Reference out of its unit names.
enum Outside<'r> {
    /// `Patient/[id]`; `own` where its sender may mean one of its own by that.
    Here { id: Cow<'r, str>, own: bool },
    /// A URL that its sender has given a patient.
    Theirs(&'r str),
    /// An identifier.
    Identified { system: String, value: String },
}

/// A unit, or a Bundle in it, within which references are resolved.
struct Scope<'u> {
    index: &'u bundle::Index,
    entries: Vec<(Option<Node<'u>>, Option<&'u Resource>)>,
    neighbours: Option<&'u Neighbours>,
}

impl Resolver<'_> {
    /// The subjects of each resource of a unit, in its order.
    ///
    /// # Errors
    /// An outage of the custodian if a patient is not known; of the store or of the upstream if they do not answer. 409
    /// for a Patient in whose place too many others have stood.
    pub async fn unit(&self, unit: &Normalized) -> Result<Vec<Subjects>> {
        let resources = unit.resources();
        let index = unit.index();
        let entries = resources.iter().map(|it| (Some(it.tree().root()), Some(it))).collect();
        let scope = Scope { index: &index, entries, neighbours: unit.neighbours() };
        let mut known = Known { patients: vec![None; resources.len()], references: HashMap::new() };
        let mut subjects = Vec::with_capacity(resources.len());
        for (at, resource) in resources.iter().enumerate() {
            let root = resource.tree().root();
            subjects.push(match &**resource.resource_type() {
                "Patient" => Subjects::Of(self.patient(at, &scope, &mut known).await?),
                "Bundle" => self.bundle(root).await?,
                _ => self.resource(at, root, &scope, &mut known).await?,
            });
        }
        Ok(subjects)
    }

    /// Everybody whom the entries of a document, a message or any other Bundle are about: it is kept as one, under the
    /// keys of all of them, and each is asked.
    async fn bundle(&self, bundle: Node<'_>) -> Result<Subjects> {
        let index = bundle::Index::new(bundle);
        let entries: Vec<_> = bundle.find(&["entry"]).map(|entry| (entry.member("resource"), None)).collect();
        let mut known = Known { patients: vec![None; entries.len()], references: HashMap::new() };
        let scope = Scope { index: &index, entries, neighbours: None };
        let mut found = Vec::new();
        for at in 0..scope.entries.len() {
            let Some((Some(root), _)) = scope.entries.get(at) else { continue };
            if root.resource_type() == Some("Patient") {
                found.extend(self.patient(at, &scope, &mut known).await?);
            } else if let Subjects::Of(pseudonyms) = self.resource(at, *root, &scope, &mut known).await? {
                found.extend(pseudonyms);
            }
        }
        let found = each_once(found);
        // What it holds of nobody known is never disclosed: no Bundle is.
        Ok(if found.is_empty() { Subjects::Unattributed } else { Subjects::Of(found) })
    }

    async fn resource(&self, at: usize, root: Node<'_>, scope: &Scope<'_>, known: &mut Known) -> Result<Subjects> {
        let (references, whole) = match compartment::patient(root) {
            Membership::NeverAboutPatient => (Vec::new(), true),
            Membership::Patients(references) => (references, true),
            // It is never disclosed; who can be made out is asked all the same, and it is kept under their keys.
            Membership::ShouldButDoesNot => (compartment::candidates(root), false),
        };
        let mut found = Vec::with_capacity(references.len());
        for reference in references {
            match self.reference(at, root.tree().node(reference), scope, known).await? {
                Meant::Patients(pseudonyms) => found.extend(pseudonyms),
                Meant::Another => {}
                Meant::Unknown if whole => return Ok(Subjects::Unattributed),
                Meant::Unknown => {}
            }
        }
        // What is contained may be about somebody else. Whom it does not name well enough keeps it from being disclosed.
        for reference in root.find(&["contained"]).flat_map(compartment::candidates) {
            if let Meant::Patients(pseudonyms) = self.reference(at, root.tree().node(reference), scope, known).await? {
                found.extend(pseudonyms);
            }
        }
        Ok(match (found.is_empty(), compartment::is_needed(root)) {
            (false, _) => Subjects::Of(each_once(found)),
            (true, true) => Subjects::Unattributed,
            (true, false) => Subjects::Nobody,
        })
    }

    /// Whom one Reference means. What leads out of the unit is looked up once.
    async fn reference(&self, at: usize, reference: Node<'_>, scope: &Scope<'_>, known: &mut Known) -> Result<Meant> {
        let text = reference.member("reference").and_then(Node::as_str);
        let Some(text) = text else {
            // A logical reference: an identifier of the patient, if it is one that names patients across references.
            let Some((system, value)) = reference.member("identifier").and_then(parts) else {
                return Ok(Meant::Unknown);
            };
            let name = format!("?{system}|{value}");
            return self.outside(name.into(), Outside::Identified { system, value }, known).await;
        };
        let target = scope.index.resolve(&text, at);
        let outside = if let Some(neighbour) = scope.neighbours.and_then(|it| it.meant(&text, target)) {
            if neighbour.resource_type != "Patient" {
                return Ok(Meant::Another);
            }
            // Patients of a stream come first: it is recorded by now, or was refused.
            Outside::Here { id: neighbour.id.to_string().into(), own: false }
        } else {
            match target {
                Target::Entry(entry) => {
                    return match scope.entries.get(entry) {
                        Some((Some(root), _)) if root.resource_type() == Some("Patient") => {
                            Ok(Meant::Patients(self.patient(entry, scope, known).await?))
                        }
                        Some((Some(_), _)) => Ok(Meant::Another),
                        _ => Ok(Meant::Unknown),
                    };
                }
                Target::Contained(node) => return Ok(self.contained(reference.tree().node(node))),
                Target::Local { resource_type: "Patient", id } => Outside::Here { id: id.into(), own: true },
                Target::Absolute(url) => {
                    let here = url.strip_prefix(self.base_url).and_then(|it| it.strip_prefix("/Patient/"));
                    match here.and_then(|it| it.split('/').next()).filter(|id| is_id(id)) {
                        Some(id) => Outside::Here { id: id.into(), own: true },
                        None => Outside::Theirs(url),
                    }
                }
                Target::Conditional { resource_type: "Patient", query } => {
                    let Some((system, value)) = searched(query) else { return Ok(Meant::Unknown) };
                    Outside::Identified { system, value }
                }
                Target::Local { .. } | Target::Conditional { .. } => return Ok(Meant::Another),
                Target::Logical | Target::Unresolvable(_) => return Ok(Meant::Unknown),
            }
        };
        self.outside(Cow::Borrowed(&*text), outside, known).await
    }

    fn contained(&self, contained: Node<'_>) -> Meant {
        if contained.resource_type().is_some_and(|it| it != "Patient") {
            return Meant::Another;
        }
        self.pseudonyms.contained(contained).map_or(Meant::Unknown, |it| Meant::Patients(vec![it]))
    }

    /// Whom this means, which the unit calls by that name.
    async fn outside(&self, name: Cow<'_, str>, outside: Outside<'_>, known: &mut Known) -> Result<Meant> {
        if let Some(meant) = known.references.get(&*name) {
            return Ok(meant.clone());
        }
        let meant = match outside {
            Outside::Here { id, own } => self.recorded(&id, own).await?,
            Outside::Theirs(url) => {
                self.met(self.bearers(Name::Theirs { caller: self.caller, reference: url }).await?)?
            }
            Outside::Identified { system, value } => self.identified(&system, &value).await?,
        };
        known.references.insert(name.into_owned(), meant.clone());
        Ok(meant)
    }

    /// The subjects of the Patient of an entry; most resources of a unit refer to the same one.
    async fn patient(&self, entry: usize, scope: &Scope<'_>, known: &mut Known) -> Result<Vec<Pseudonym>> {
        if let Some(Some(known)) = known.patients.get(entry) {
            return Ok(known.clone());
        }
        let Some((Some(root), resource)) = scope.entries.get(entry) else { return Ok(Vec::new()) };
        let named = self.pseudonyms.patient(*root);
        let mut subjects = match resource.map(Resource::interaction) {
            Some(Interaction::Update { id, .. }) => self.standing(id, *root, named).await?,
            Some(Interaction::Keep) => match root.member("id").and_then(Node::as_str).filter(|id| is_id(id)) {
                Some(id) => self.standing(&id, *root, named).await?,
                None => Vec::new(),
            },
            Some(Interaction::Create { if_none_exist: Some(query) }) => match searched(query) {
                // Where it finds a Patient, nothing of this copy is written.
                Some((system, value)) => self.bearers(Name::Identifier { system: &system, value: &value }).await?,
                None => Vec::new(),
            },
            Some(Interaction::Create { if_none_exist: None }) | None => Vec::new(),
        };
        if subjects.is_empty() {
            subjects.push(named.map_or_else(|| self.pseudonyms.fresh(), |named| named.pseudonym));
        }
        if let Some(known) = known.patients.get_mut(entry) {
            *known = Some(subjects.clone());
        }
        Ok(subjects)
    }

    /// Whom `Patient/[id]` is about once this copy stands there.
    async fn standing(&self, id: &str, copy: Node<'_>, named: Option<Named>) -> Result<Vec<Pseudonym>> {
        let mut subjects = self.bearers(Name::Here(id)).await?;
        if subjects.is_empty()
            && !named.is_some_and(|named| named.is_shared)
            && let Some(upstream) = self.upstream
            && let Some(there) = upstream.patient(id).await?
        {
            subjects.push(self.upstreams(id, &there));
        }
        let Some(named) = named else {
            return Ok(if subjects.is_empty() {
                vec![self.pseudonyms.local(&format!("Patient/{id}"))]
            } else {
                subjects
            });
        };
        if subjects.is_empty() || named.is_shared || !self.is_known_as(copy, &subjects).await? {
            subjects.push(named.pseudonym);
        }
        Ok(each_once(subjects))
    }

    /// Whether one of its identifiers is a name of one of these.
    async fn is_known_as(&self, copy: Node<'_>, subjects: &[Pseudonym]) -> Result<bool> {
        for (system, value) in identifiers(copy) {
            let bearers = self.bearers(Name::Identifier { system: &system, value: &value }).await?;
            if bearers.iter().any(|bearer| subjects.contains(bearer)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A patient by an identifier that a reference gives: whoever was recorded with it, or has it at the upstream; else the
    /// pseudonym that it makes, if its system is shared. A local number of nobody who is known names nobody.
    async fn identified(&self, system: &str, value: &str) -> Result<Meant> {
        let mut found = self.bearers(Name::Identifier { system, value }).await?;
        if found.is_empty()
            && let Some(upstream) = self.upstream
            && let Some(there) = upstream.by_identifier(system, value).await?
            && let Some(id) = there.root().member("id").and_then(Node::as_str)
        {
            found = self.bearers(Name::Here(&id)).await?;
            if found.is_empty() {
                found.push(self.upstreams(&id, &there));
            }
        }
        if found.is_empty() {
            found.extend(self.pseudonyms.shared(system, value));
        }
        Ok(if found.is_empty() { Meant::Unknown } else { Meant::Patients(found) })
    }

    /// The pseudonym of a Patient of the upstream that was never recorded here.
    fn upstreams(&self, id: &str, there: &Tree) -> Pseudonym {
        let named = self.pseudonyms.patient(there.root());
        named.map_or_else(|| self.pseudonyms.local(&format!("Patient/{id}")), |named| named.pseudonym)
    }

    /// `Patient/[id]`: who stands here, or at the upstream; and, where a sender may mean its own, who it calls so.
    async fn recorded(&self, id: &str, own: bool) -> Result<Meant> {
        let reference = format!("Patient/{id}");
        let names = [Name::Here(id), Name::Theirs { caller: self.caller, reference: &reference }];
        let mut borne = self.borne(if own { &names } else { &names[..1] }).await?.into_iter();
        let (mut here, theirs) = (borne.next().unwrap_or(Bearers::Nobody), borne.next().unwrap_or(Bearers::Nobody));
        if let (true, Bearers::Nobody, Some(upstream)) = (own, &here, self.upstream)
            && let Some(there) = upstream.patient(id).await?
        {
            here = Bearers::These(vec![self.upstreams(id, &there)]);
        }
        self.met(these(here.and(theirs))?)
    }

    /// These patients, or what follows from one whom nobody knows.
    fn met(&self, found: Vec<Pseudonym>) -> Result<Meant> {
        if !found.is_empty() {
            return Ok(Meant::Patients(each_once(found)));
        }
        match self.unknown {
            UnknownSubject::Collect => Ok(Meant::Unknown),
            UnknownSubject::Outage => {
                let text = "a reference leads to a patient who has not been recorded and whom no upstream knows";
                Err(Error::outage(Peer::Custodian, Duration::from_secs(30), text))
            }
        }
    }

    /// Who has borne this name.
    async fn bearers(&self, name: Name<'_>) -> Result<Vec<Pseudonym>> {
        these(self.borne(&[name]).await?.pop().unwrap_or(Bearers::Nobody))
    }

    /// Who has borne each of these names.
    async fn borne(&self, names: &[Name<'_>]) -> Result<Vec<Bearers>> {
        let keys = names.iter().map(|name| (Table::LocalId, name.key(self.keys))).collect();
        let rows = self.store.read_many(keys).await?;
        Ok(rows.iter().map(|row| Bearers::of(row.as_deref())).collect())
    }
}

/// Bearers whom one can ask.
fn these(bearers: Bearers) -> Result<Vec<Pseudonym>> {
    match bearers {
        Bearers::Nobody => Ok(Vec::new()),
        Bearers::These(pseudonyms) => Ok(pseudonyms),
        Bearers::TooMany => {
            let text = "a name that at most eight patients have borne";
            Err(Error::refusal(Refusal::Conflict, "consent.patient", text))
        }
    }
}
