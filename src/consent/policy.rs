//! A FHIR R4 Consent, compiled.
//!
//! Takes a Consent as a tree, gives a [`Policy`]: the provision tree as it was given, and the rules that follow from
//! it. Compiling never fails. What can't be read stays in place as unreadable, and a decision that would have to rely on
//! it is undecidable: an unknown modifierExtension or implicitRules, a member that R4 does not know, a type, period or
//! code that is not one. A policy prints back as a Consent ([`Policy::to_json`]) that compiles to an equal policy; these
//! bytes are its canonical form. Narrative, names and attachments are not part of a policy and do not survive.

mod print;
mod read;
mod rules;

use std::sync::Arc;

use sluice_fhir::datetime::{DateTime, Span};
use sluice_fhir::tree::Node;

use super::codes::Key;
pub(super) use rules::{Actors, Alternatives, Labels, Named, Rule};
pub use rules::{DataMeaning, ProvisionPath};

/// What a provision does when it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Permits.
    Permit,
    /// Denies.
    Deny,
    /// Its type can't be read, or something in it could change its meaning: undecidable where it may match.
    Unreadable,
}

/// A code with its system; `None` where either is missing or not understood.
pub type Coding = Option<(Box<str>, Box<str>)>;

/// What an actor is named as, by all codings of its role; and who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Codings of the role.
    pub role: Vec<Coding>,
    /// The reference as written.
    pub reference: Option<Box<str>>,
}

/// A named record and how the rule reaches out from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// instance, related, dependents or authoredby.
    pub meaning: Option<DataMeaning>,
    /// The reference as written.
    pub reference: Option<Box<str>>,
}

/// A FHIR Period, by its texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    /// First moment inside.
    pub start: Option<(Box<str>, DateTime)>,
    /// Last moment inside: all that the text covers is.
    pub end: Option<(Box<str>, DateTime)>,
}

impl Period {
    /// The span covered, the end included by the precision given.
    pub fn span(&self) -> Span {
        Span { start: self.start.as_ref().map(|(_, at)| at.start), end: self.end.as_ref().map(|(_, at)| at.end) }
    }
}

/// A provision as it was given. An absent kind of criterion is `None`: nested provisions inherit it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provision {
    /// `None` for a root without a type, where the base rule speaks.
    pub effect: Option<Effect>,
    /// Something in it can't be read and could change its meaning.
    pub unreadable: bool,
    /// When the rule is in force.
    pub period: Option<Period>,
    /// Who.
    pub actors: Option<Vec<Actor>>,
    /// What is done: each a CodeableConcept.
    pub actions: Option<Vec<Vec<Coding>>>,
    /// Labels of the record.
    pub labels: Option<Vec<Coding>>,
    /// Purposes of use.
    pub purposes: Option<Vec<Coding>>,
    /// Types of record.
    pub classes: Option<Vec<Coding>>,
    /// What the record is: each a CodeableConcept.
    pub codes: Option<Vec<Vec<Coding>>>,
    /// When the record happened.
    pub data_period: Option<Period>,
    /// Named records.
    pub data: Option<Vec<Data>>,
    /// Exceptions.
    pub nested: Vec<Provision>,
}

/// `policyRule`, where it says what goes without saying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Base {
    /// OPTIN: what the root provision describes is permitted.
    OptIn,
    /// OPTOUT: what the root provision describes is denied.
    OptOut,
}

/// Whether a Consent counts at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Active, and about privacy.
    Active,
    /// Draft, proposed, rejected, inactive, entered in error, or about something other than privacy: says nothing.
    Silent,
    /// It can't be told, or the Consent as a whole can't be relied on: undecidable.
    Unreadable,
}

/// What tells the versions of one Consent apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// `meta.versionId`, where it is a number.
    pub number: Option<u64>,
    /// `meta.lastUpdated`
    pub updated: Option<(Box<str>, DateTime)>,
}

/// A Consent, compiled. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Policy {
    form: Arc<Form>,
    rules: Arc<[Rule]>,
}

/// What a policy is equal by, and prints.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Form {
    id: Option<Box<str>>,
    version: Version,
    standing: Standing,
    patient: Option<Box<str>>,
    date: Option<(Box<str>, DateTime)>,
    base: Option<Base>,
    root: Provision,
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.form == other.form
    }
}

impl Eq for Policy {}

impl Policy {
    /// Compiles a Consent. Never fails: what is no readable Consent is a policy that decides nothing.
    pub fn compile(consent: Node<'_>) -> Self {
        Self::of(read::consent(consent))
    }

    /// A policy that can't be read and whose patient is not known: it makes every decision undecidable.
    pub fn unreadable() -> Self {
        Self::of(Form::unreadable())
    }

    /// The logical id of the Consent.
    pub fn id(&self) -> Option<&str> {
        self.form.id.as_deref()
    }

    /// What tells its versions apart.
    pub fn version(&self) -> &Version {
        &self.form.version
    }

    /// Whether it counts.
    pub fn standing(&self) -> Standing {
        self.form.standing
    }

    /// The patient's reference as written. `None` means that it may be about anyone.
    pub fn patient(&self) -> Option<&str> {
        self.form.patient.as_deref()
    }

    /// The patient's reference as a key.
    pub fn patient_key(&self) -> Option<Key> {
        self.patient().map(Key::reference)
    }

    /// `Consent.dateTime`
    pub fn date(&self) -> Option<DateTime> {
        self.form.date.as_ref().map(|(_, date)| *date)
    }

    /// The root provision as it was given.
    pub fn root(&self) -> &Provision {
        &self.form.root
    }

    /// The Consent, printed from the policy: members sorted, no white space (`sluice-canonical-1`).
    pub fn to_json(&self) -> Vec<u8> {
        print::consent(&self.form)
    }

    /// The rules, the deepest first.
    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Where in the Consent the rule stands that is at this index of [`Policy::rules`].
    pub(super) fn provision_path(&self, rule: usize) -> ProvisionPath {
        ProvisionPath::new(&self.rules, rule)
    }

    fn of(form: Form) -> Self {
        let rules = rules::compile(&form.root, form.base);
        Self { form: Arc::new(form), rules: rules.into() }
    }
}

impl Form {
    fn unreadable() -> Self {
        Self {
            id: None,
            version: Version::default(),
            standing: Standing::Unreadable,
            patient: None,
            date: None,
            base: None,
            root: Provision::empty(),
        }
    }
}

impl Provision {
    fn empty() -> Self {
        Self {
            effect: None,
            unreadable: false,
            period: None,
            actors: None,
            actions: None,
            labels: None,
            purposes: None,
            classes: None,
            codes: None,
            data_period: None,
            data: None,
            nested: Vec::new(),
        }
    }
}
