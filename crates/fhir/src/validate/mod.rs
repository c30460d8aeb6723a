//! Checks resources against the definitions of FHIR R4. Takes a node of a [`crate::tree::Tree`], gives every issue with its rule, its FHIRPath
//! location, line and column; one walk per resource, whose cost is linear in its size. Says what was expected, never what
//! was found. Never asks a network, a clock or a setting; what the packages cannot tell is reported as not checked.

mod attachment;
mod bundle;
mod claims;
mod code_system;
mod coded;
mod concept_map;
mod demands;
mod enabled;
mod extension;
mod invariants;
pub(crate) mod lexical;
mod measure;
mod narrative;
mod policy;
mod profile;
mod questionnaire;
mod reference;
pub mod rules;
mod search_parameter;
mod shortcut;
mod slices;
mod structure;
mod undecided;
mod units;
mod value_set;
mod walk;

pub use undecided::{Coding, Undecided};

use std::sync::Arc;

use crate::definitions::Definitions;
use crate::outcome::Issue;
use crate::path::{Document, Host, Offline};
use crate::profile::Library;
use crate::tree::Node;

pub use policy::Policy;

/// Finds the resource type that a reference (absolute URL or URN, as written) resolves to; None if the caller does not know.
pub type Resolve<'r> = dyn Fn(&str) -> Option<&'r str> + 'r;

/// What is given to a check beside the resource.
#[derive(Clone, Copy)]
pub struct Around<'r> {
    /// What references point to that lead out of the resource.
    pub resolve: Option<&'r Resolve<'r>>,
    /// Elements that are visited and operations of invariants, at most.
    pub steps_max: u64,
    /// Whether the caller's patience has ended; asked now and then, from the thread that checks.
    pub is_over: Option<&'r dyn Fn() -> bool>,
    /// Whether codes that the packages cannot tell are collected for the caller to decide, or reported as not checked.
    pub collects: bool,
}

impl Default for Around<'_> {
    /// Nothing around, no bound on the work, and nobody who decides.
    fn default() -> Self {
        Self { resolve: None, steps_max: u64::MAX, is_over: None, collects: false }
    }
}

/// What a check has found.
#[derive(Default)]
pub struct Report {
    /// Every issue; the last one says so if the check ended at a bound.
    pub issues: Vec<Issue>,
    /// Codes that are for the caller to decide.
    pub undecided: Vec<Undecided>,
}

/// Errors that are listed before a check gives up.
const ISSUES_MAX: usize = 1000;

/// A validator; cheap to clone, shared between threads.
#[derive(Debug, Clone)]
pub struct Validator {
    definitions: Arc<Definitions>,
    invariants: Arc<invariants::Invariants>,
    library: Option<Arc<Library>>,
    profiles: Arc<[String]>,
    tells_expectations: bool,
    policy: Policy,
    issues_max: usize,
    good_practice: bool,
}

impl Validator {
    /// For R4 core (4.0.1), which is part of the binary.
    pub fn r4() -> Self {
        Self::new(Definitions::r4())
    }

    /// For the definitions of a pack.
    pub fn new(definitions: Arc<Definitions>) -> Self {
        let invariants = Arc::new(invariants::Invariants::new(&definitions));
        Self {
            definitions,
            invariants,
            library: None,
            profiles: Arc::default(),
            tells_expectations: false,
            policy: Policy::default(),
            issues_max: ISSUES_MAX,
            good_practice: false,
        }
    }

    /// Holds resources against the profiles that they claim, and extensions against their definitions, as packages have them.
    #[must_use]
    pub fn with_library(mut self, library: Arc<Library>) -> Self {
        self.library = Some(library);
        self
    }

    /// Holds every resource that is checked against these profiles of the library too, whatever it claims.
    #[must_use]
    pub fn with_profiles(mut self, profiles: impl IntoIterator<Item = String>) -> Self {
        self.profiles = profiles.into_iter().collect();
        self
    }

    /// Tells too, as information, which elements that a profile calls must-support are absent, and what obligations it lays on who
    /// fills or reads a record.
    #[must_use]
    pub fn with_expectations(mut self, tells_expectations: bool) -> Self {
        self.tells_expectations = tells_expectations;
        self
    }

    /// Checks under the policy of a site.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Lists at most that many errors, and as many issues of lower severity. At the limit of errors the check stops with an
    /// error of its own; lower issues beyond theirs are dropped with a note, so that they can never hide an error.
    #[must_use]
    pub fn with_issues_max(mut self, issues_max: usize) -> Self {
        self.issues_max = issues_max.max(1);
        self
    }

    /// Warns of what FHIR recommends too: a narrative (dom-6). Most records that machines write have none.
    #[must_use]
    pub fn with_good_practice(mut self, good_practice: bool) -> Self {
        self.good_practice = good_practice;
        self
    }

    /// The definitions that are checked against.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// All issues of a resource. A Bundle is checked with every resource in it, and its entries' references to each other.
    pub fn validate(&self, resource: Node<'_>) -> Vec<Issue> {
        self.validate_in(resource, None)
    }

    /// The same for a resource that is part of something larger, by which `resolve` knows what its references point to.
    pub fn validate_in<'r>(&'r self, resource: Node<'_>, resolve: Option<&'r Resolve<'r>>) -> Vec<Issue> {
        self.check(resource, Around { resolve, ..Around::default() }).issues
    }

    /// The same within bounds of work, with what is left to the caller. A check that ended at a bound has an error that says so.
    pub fn check<'r>(&'r self, resource: Node<'_>, around: Around<'r>) -> Report {
        let document = Document::within(resource.tree(), around.steps_max);
        walk::Walk::new(&self.definitions, &self.invariants, &document, around.resolve, self.issues_max)
            .with_policy(self.policy)
            .with_library(self.library.as_deref(), self.tells_expectations)
            .with_good_practice(self.good_practice)
            .around(around.is_over, around.collects)
            .run(resource, &self.profiles)
    }

    /// Answers what expressions ask about terminology and profiles, by the same definitions.
    pub fn host(&self) -> Box<dyn Host + '_> {
        match &self.library {
            Some(library) => Box::new(profile::Within::new(library)),
            None => Box::new(Offline::new(&self.definitions)),
        }
    }
}
