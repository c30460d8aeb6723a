//! A resource against a profile: the second walk, which goes by the elements that the profile speaks of. The first has
//! held everything against the base types; this one adds what the profile demands beyond.

use std::collections::HashSet;

use super::claims::Answer;
use super::invariants::Invariants;
use super::reference::Scope;
use super::rules::{self, Rule};
use super::walk::Walk;
use crate::definitions::valueset::Membership;
use crate::definitions::{Role, Strength};
use crate::outcome::Severity;
use crate::path::{
    Budget, Conformance, Document, Element as Item, Environment, Host, Invariant, Type, Verdict, compare_quantities,
    elements_at, locate, resource as resource_item,
};
use crate::profile::Library;
use crate::profile::element::{Element, Place, Profile, Rule as Constraint, TypeRule};
use crate::profile::library::Named;
use crate::profile::value;
use crate::tree::{self, Node, Tree};

/// Profiles within profiles: types, extensions and targets that name further ones.
const NESTING_MAX: u32 = 24;
/// Steps of one invariant on one element.
const STEPS_MAX: u64 = 20_000_000;

/// One place of the second walk: an element of the record, and the profile it is held against.
#[derive(Clone, Copy)]
pub(super) struct At<'p, 't> {
    pub(super) item: Item,
    pub(super) profile: &'p Profile,
    pub(super) scope: Scope<'t>,
}

impl<'t> Walk<'_, 't> {
    /// Holds a resource against the profiles that it claims, and against those that the caller names.
    pub(super) fn claimed(&mut self, node: Node<'t>, name: &str, mut asked: Vec<String>, scope: Scope<'t>) {
        let Some(profiles) = &self.profiles else { return };
        let library = profiles.library;
        asked.extend(library.globals(name).map(str::to_owned));
        let claims = node.member("meta").and_then(|meta| meta.member("profile")).into_iter().flat_map(Node::items);
        let claims = claims.filter_map(|claim| Some((claim, claim.as_str()?.into_owned())));
        let mut done: HashSet<String> = HashSet::new();
        for (at, canonical) in asked.into_iter().map(|asked| (node, asked)).chain(claims) {
            if done.contains(&canonical) {
                continue;
            }
            if self.is_full() {
                return;
            }
            let item = resource_item(self.definitions, node);
            match library.named(&canonical) {
                Named::Profile(profile) => self.whole(At { item, profile: &profile, scope }, 0, at),
                Named::Type(id) => {
                    if !matches!(item.ty, Type::Object(own, 0) if library.is_type(own, id)) {
                        self.issue_about(&rules::PROFILE_TYPE, at, rules::PROFILE_TYPE.about, Some(canonical.clone()));
                    }
                }
                Named::Broken(reason) => {
                    let text = format!("Expected a profile that can be compiled: {reason}");
                    self.issue_about(&rules::PROFILE_BROKEN, at, text, Some(canonical.clone()));
                }
                Named::Unknown => {
                    let text = "Not checked: this profile, or what it rests on, is not among the packages";
                    self.issue_about(&rules::PROFILE_UNKNOWN, at, text, Some(canonical.clone()));
                }
            }
            done.insert(canonical);
        }
    }

    /// Holds an element against a profile, or one element of it; `claim` is what claims it.
    fn whole(&mut self, at: At<'_, 't>, place: Place, claim: Node<'t>) {
        let Some(profiles) = &mut self.profiles else { return };
        let fits = match at.item.ty {
            _ if place > 0 => true,
            Type::Object(own, 0) => profiles.library.is_type(own, at.profile.of),
            Type::Primitive(primitive) => primitive.name() == profiles.library.core().type_name(at.profile.of),
            _ => true,
        };
        if !fits {
            let text = format!("Expected {}, which this profile is for", self.definitions.type_name(at.profile.of));
            return self.issue_about(&rules::PROFILE_TYPE, claim, text, Some(at.profile.url.to_string()));
        }
        if profiles.nesting >= NESTING_MAX {
            return self.issue(&rules::DEPTH, claim, "Expected profiles that nest less deeply");
        }
        profiles.nesting += 1;
        let library = profiles.library;
        self.element(at, place);
        for imposed in at.profile.imposed.iter().filter(|_| place == 0) {
            match library.named(imposed) {
                Named::Profile(profile) => self.whole(At { profile: &profile, ..at }, 0, claim),
                Named::Type(_) => {}
                Named::Broken(_) | Named::Unknown => self.unknown_profile(imposed, claim),
            }
        }
        if let Some(profiles) = &mut self.profiles {
            profiles.nesting -= 1;
        }
    }

    /// Whether an element conforms to a profile, without reporting why not.
    pub(super) fn conforms(&mut self, at: At<'_, 't>, place: Place) -> Answer {
        let Some(node) = at.item.node(self.tree()) else { return Answer::No };
        let key = (node.id(), std::ptr::from_ref(at.profile) as usize, place);
        let Some(profiles) = &mut self.profiles else { return Answer::Open };
        if let Some(&known) = profiles.known.get(&key) {
            return known;
        }
        // Resources that refer to each other in a long row are followed only so far; each is checked by its own claims.
        if profiles.nesting >= NESTING_MAX {
            return Answer::Open;
        }
        // An element that leads back to itself conforms as far as that way goes.
        profiles.known.insert(key, Answer::Yes);
        profiles.asking += 1;
        let kept = self.set_aside();
        self.whole(at, place, node);
        let conforms = (!self.take_back(kept)).into();
        if let Some(profiles) = &mut self.profiles {
            profiles.asking -= 1;
            profiles.known.insert(key, conforms);
        }
        conforms
    }

    /// Whether an element conforms; for a walk that does nothing else.
    fn asks(&mut self, nesting: u32, at: At<'_, 't>) -> Answer {
        if let Some(profiles) = &mut self.profiles {
            profiles.nesting = nesting;
        }
        self.conforms(at, 0)
    }

    pub(super) fn tree(&self) -> &'t Tree {
        self.document.tree()
    }

    pub(super) fn is_asking(&self) -> bool {
        self.profiles.as_ref().is_some_and(|profiles| profiles.asking > 0)
    }

    /// Reports an issue of a profile, once.
    pub(super) fn differs(&mut self, rule: &'static Rule, node: Node<'t>, text: String, profile: &Profile) {
        if !self.has(rule, node, &text) {
            self.issue_about(rule, node, text, Some(profile.url.to_string()));
        }
    }

    /// One element against an element of the profile, with all below it.
    pub(super) fn element(&mut self, at: At<'_, 't>, place: Place) {
        let (Some(element), Some(node)) = (at.profile.elements.get(place), at.item.node(self.tree())) else { return };
        if self.is_full() {
            return;
        }
        self.value_rules(at, element, node);
        let resource = at.scope.resource;
        for binding in element.bindings.iter().filter(|one| one.uses.iter().all(|used| used.is_of(resource))) {
            self.binding(at, binding.strength, &binding.value_set, node);
        }
        for constraint in &element.constraints {
            self.constraint(at, constraint, node);
        }
        if !element.types.is_empty() {
            self.types(at, element, node);
        }
        if let Some(more) = &element.more {
            self.demands(at, element, more, node);
        }
        // An invariant of the element that holds a resource speaks of the resource around it; what is within, of that one.
        let scope = Self::scope_of(at.item, node, at.scope);
        for &child in &element.children {
            self.members(At { scope, ..at }, child, node);
        }
    }

    /// Fixed values, patterns and limits.
    fn value_rules(&mut self, at: At<'_, 't>, element: &Element, node: Node<'t>) {
        let found = at.item.value(self.tree());
        if let Some(fixed) = &element.fixed
            && !found.is_some_and(|found| value::equals(found, fixed.node()))
        {
            self.differs(&rules::FIXED, node, format!("Expected the value that {} fixes", element.id), at.profile);
        }
        for pattern in &element.patterns {
            if !found.is_some_and(|found| value::contains(found, pattern.node())) {
                let text = format!("Expected a value with all that the pattern of {} has", element.id);
                self.differs(&rules::PATTERN, node, text, at.profile);
            }
        }
        if let (Some(max), Some(text)) = (element.length_max, found.and_then(Node::as_str))
            && text.chars().count() > max as usize
        {
            self.differs(&rules::LENGTH, node, format!("Expected at most {max} characters"), at.profile);
        }
        for (limit, below) in [(&element.value_min, true), (&element.value_max, false)] {
            let (Some(limit), Some(found)) = (limit, found) else { continue };
            // A limit that is a duration from now needs a clock, and is left alone.
            let order = match (value::decimal(found), value::decimal(limit.node())) {
                (Some(found), Some(limit)) => Some(found.cmp(&limit)),
                _ if found.is_object() => compare_quantities(found, limit.node()),
                _ => found
                    .as_str()
                    .zip(limit.node().as_str())
                    .filter(|(a, b)| a.len() == b.len())
                    .map(|(a, b)| a.cmp(&b)),
            };
            let broken = if below { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater };
            if order == Some(broken) {
                let which = if below { "below the least" } else { "above the greatest" };
                self.differs(&rules::RANGE, node, format!("Expected no value {which} of {}", element.id), at.profile);
            }
        }
    }

    /// Membership of a coded element, by any of its codings.
    pub(super) fn membership(&self, item: Item, value_set: &str) -> Option<Membership> {
        let library = self.profiles.as_ref()?.library;
        let node = item.value(self.tree())?;
        let of = |node: Node<'_>| {
            let code = node.member("code")?.as_str()?;
            let system = node.member("system").and_then(Node::as_str).unwrap_or_default();
            Some(library.member_of(value_set, Some(&system), &code))
        };
        if !node.is_object() {
            return node.as_str().map(|code| library.member_of(value_set, None, &code));
        }
        let role = if let Type::Object(id, 0) = item.ty { self.definitions.role(id) } else { Role::Plain };
        match role {
            Role::CodeableConcept => {
                let mut answer = None;
                for member in node.member("coding").into_iter().flat_map(Node::items).filter_map(of) {
                    match (member, answer) {
                        (Membership::In, _) => return Some(Membership::In),
                        (Membership::Unknown, _) | (Membership::Out, None) => answer = Some(member),
                        (Membership::Out, Some(_)) => {}
                    }
                }
                answer
            }
            Role::Coding | Role::Quantity => of(node),
            Role::Attachment | Role::Extension | Role::Plain | Role::Reference => None,
        }
    }

    fn binding(&mut self, at: At<'_, 't>, strength: Strength, value_set: &str, node: Node<'t>) {
        let is_coded = |item: Item| match item.ty {
            Type::Primitive(_) => item.value(self.tree()).is_some_and(|node| node.kind() == tree::Kind::String),
            Type::Object(id, 0) => matches!(self.definitions.role(id), Role::CodeableConcept | Role::Coding),
            _ => false,
        };
        let member = match self.membership(at.item, value_set) {
            Some(member) => member,
            // No code at all: an extension may say why.
            None if strength == Strength::Required && is_coded(at.item) && node.member("extension").is_none() => {
                Membership::Out
            }
            None => return,
        };
        let (broken, not_checked) = match strength {
            Strength::Required => (&rules::REQUIRED, &rules::REQUIRED_NOT_CHECKED),
            Strength::Extensible => (&rules::EXTENSIBLE, &rules::EXTENSIBLE_NOT_CHECKED),
            Strength::Preferred | Strength::Example => return,
        };
        let set = crate::package::unversioned(value_set).to_owned();
        match member {
            Membership::In => {}
            Membership::Out => {
                let text = format!("Expected a code of the value set {set}");
                if !self.has(broken, node, &text) {
                    self.issue_about(broken, node, text, Some(set));
                }
            }
            Membership::Unknown => {
                if !self.is_asking()
                    && let Some(collected) = &mut self.collected
                    && collected.add(node, value_set, strength, (broken, not_checked))
                {
                    return;
                }
                // Of each strength, since a site may have them mean different things.
                if self.first_of(&format!("{} {set}", not_checked.id)) {
                    let text = format!("Not checked, here and further on: the value set {set} cannot be expanded");
                    self.issue_about(not_checked, node, text, Some(set));
                }
            }
        }
    }

    /// Whether this was not reported before; never while only asking.
    fn first_of(&mut self, name: &str) -> bool {
        let asking = self.is_asking();
        let Some(profiles) = &mut self.profiles else { return false };
        let new = !asking && !profiles.reported.iter().any(|known| known == name);
        if new {
            profiles.reported.push(name.to_owned());
        }
        new
    }

    fn constraint(&mut self, at: At<'_, 't>, constraint: &Constraint, node: Node<'t>) {
        let Some(profiles) = &self.profiles else { return };
        let (library, nesting) = (profiles.library, profiles.nesting);
        let compile = |ty: Type| Invariant::compile(&constraint.expression, self.definitions, ty).ok();
        let (compiled_for, invariant) = constraint.invariant.get_or_init(|| (at.item.ty, compile(at.item.ty)));
        let own;
        let invariant = if *compiled_for == at.item.ty {
            invariant
        } else {
            // The element of a choice: compiled for another of its types.
            own = compile(at.item.ty);
            &own
        };
        let verdict = invariant.as_ref().map_or(Verdict::Open, |invariant| {
            let host = Within { library, nesting };
            let budget = Budget { steps_max: STEPS_MAX, ..Budget::default() };
            let environment = Environment { budget, ..Environment::new(&host) };
            let around = (at.scope.resource, at.scope.container);
            invariant.ask_item(self.definitions, self.document, &environment, at.item, around)
        });
        match verdict {
            Verdict::Holds => {}
            Verdict::Broken => {
                let severity = if constraint.is_error { Severity::Error } else { Severity::Warning };
                let text = format!("Expected {} to hold: {}", constraint.key, constraint.human);
                let id = format!("invariant.{}", constraint.key.to_ascii_lowercase());
                self.invariant_broken(severity, id, node, text, Some(at.profile.url.to_string()));
            }
            Verdict::Open => {
                let text = format!("Could not tell whether {} holds: {}", constraint.key, constraint.human);
                self.differs(&rules::INVARIANT_NOT_CHECKED, node, text, at.profile);
            }
        }
    }

    /// The type of an element is one that the profile allows; its profiles, and those of what it refers to, hold.
    fn types(&mut self, at: At<'_, 't>, element: &Element, node: Node<'t>) {
        let Some(library) = self.profiles.as_ref().map(|profiles| profiles.library) else { return };
        let is_of = |rule: &TypeRule| match at.item.ty {
            Type::Object(id, 0) => {
                self.definitions.type_named(&rule.code).is_some_and(|asked| library.is_type(id, asked))
            }
            Type::Primitive(primitive) => *rule.code == *primitive.name(),
            // Nested elements, and what the definitions do not know.
            _ => true,
        };
        let matching: Vec<&TypeRule> = element.types.iter().filter(|rule| is_of(rule)).collect();
        if matching.is_empty() {
            let names: Vec<&str> = element.types.iter().map(|rule| &*rule.code).collect();
            let text = format!("Expected one of the types that {} allows: {}", element.id, names.join(", "));
            // An extension is of one piece with its value.
            if &*element.id == "Extension.value[x]"
                && let Some(extension) = node.parent()
            {
                if !self.has(&rules::TYPE_NARROWED, node, &text) {
                    self.issue_of(&rules::TYPE_NARROWED, extension, node, text);
                }
                return;
            }
            return self.differs(&rules::TYPE_NARROWED, node, text, at.profile);
        }
        let role = if let Type::Object(id, 0) = at.item.ty { self.definitions.role(id) } else { Role::Plain };
        if matching.iter().all(|rule| !rule.profiles.is_empty()) {
            // The first walk has held extensions against the definitions that they name.
            let is_done = role == Role::Extension && !self.is_asking();
            let profiles: Vec<&str> = matching.iter().flat_map(|rule| rule.profiles.iter().map(|p| &**p)).collect();
            if !is_done {
                self.any_profile(at, &profiles, node);
            }
        }
        if role == Role::Reference && matching.iter().all(|rule| rule.aggregation.is_some()) {
            self.aggregation(at, &matching, node);
        }
        if role == Role::Reference && matching.iter().all(|rule| !rule.targets.is_empty()) {
            let targets: Vec<&str> = matching.iter().flat_map(|rule| rule.targets.iter().map(|t| &**t)).collect();
            self.target(at, &targets, node);
        }
    }

    /// The scope of an element: a resource within is one of its own.
    pub(super) fn scope_of(item: Item, node: Node<'t>, outer: Scope<'t>) -> Scope<'t> {
        let is_resource = matches!(item.ty, Type::Object(_, 0)) && node.resource_type().is_some();
        if !is_resource || node.id() == outer.resource.id() {
            return outer;
        }
        let list = if node.name().is_none() { node.parent() } else { Some(node) };
        let is_contained = list.and_then(Node::name) == Some("contained");
        Scope { container: if is_contained { outer.container } else { node }, resource: node, is_contained }
    }

    /// The scope of any node: the resource that holds it, and what contains that.
    pub(super) fn scope_around(node: Node<'t>) -> Option<Scope<'t>> {
        let resource = node.resource()?;
        let holder = resource.parent().filter(|parent| parent.name() == Some("contained")).and_then(Node::parent);
        Some(Scope { container: holder.unwrap_or(resource), resource, is_contained: holder.is_some() })
    }

    /// At least one of the profiles holds. Of a single one it is told what is wrong.
    fn any_profile(&mut self, at: At<'_, 't>, canonicals: &[&str], node: Node<'t>) {
        let Some(library) = self.profiles.as_ref().map(|profiles| profiles.library) else { return };
        let scope = Self::scope_of(at.item, node, at.scope);
        if let [only] = canonicals {
            return match library.named(only) {
                Named::Profile(profile) => match profile.place(only) {
                    Some(place) => self.whole(At { profile: &profile, scope, ..at }, place, node),
                    None => self.unknown_profile(only, node),
                },
                Named::Type(_) => {}
                Named::Broken(_) | Named::Unknown => self.unknown_profile(only, node),
            };
        }
        match self.fits_any(At { scope, ..at }, canonicals) {
            Answer::Yes => {}
            Answer::No => {
                let text = "Expected conformance to one of the profiles of its type".to_owned();
                self.differs(&rules::PROFILE_NONE, node, text, at.profile);
            }
            Answer::Open => {
                for canonical in canonicals {
                    if let Named::Broken(_) | Named::Unknown = library.named(canonical) {
                        self.unknown_profile(canonical, node);
                    }
                }
            }
        }
    }

    /// Whether an element conforms to one of these profiles.
    pub(super) fn fits_any(&mut self, at: At<'_, 't>, canonicals: &[impl AsRef<str>]) -> Answer {
        let Some(library) = self.profiles.as_ref().map(|profiles| profiles.library) else { return Answer::Open };
        let mut answer = Answer::No;
        for canonical in canonicals {
            let fits = match library.named(canonical.as_ref()) {
                Named::Profile(profile) => match profile.place(canonical.as_ref()) {
                    Some(place) => self.conforms(At { profile: &profile, ..at }, place),
                    None => Answer::Open,
                },
                Named::Type(id) => match at.item.ty {
                    Type::Object(own, 0) => library.is_type(own, id).into(),
                    _ => Answer::Open,
                },
                Named::Broken(_) | Named::Unknown => Answer::Open,
            };
            match fits {
                Answer::Yes => return Answer::Yes,
                Answer::Open => answer = Answer::Open,
                Answer::No => {}
            }
        }
        answer
    }

    fn unknown_profile(&mut self, canonical: &str, node: Node<'t>) {
        if self.first_of(canonical) {
            let text = "Not checked, here and further on: this profile, or what it rests on, is not among the packages";
            self.issue_about(&rules::PROFILE_UNKNOWN, node, text, Some(canonical.to_owned()));
        }
    }

    /// What a reference points to is of one of the target profiles, as far as it is at hand.
    fn target(&mut self, at: At<'_, 't>, targets: &[&str], node: Node<'t>) {
        let Some(text) = node.member("reference").and_then(Node::as_str) else { return };
        let Some(library) = self.profiles.as_ref().map(|profiles| profiles.library) else { return };
        let answer = if let Some(found) = self.document.resource_at(&text, node) {
            let item = resource_item(self.definitions, found);
            let scope = Self::scope_of(item, found, at.scope);
            self.fits_any(At { item, scope, ..at }, targets)
        } else if let Some(own) = self.references.type_of(&text, at.scope) {
            let mut answer = Answer::No;
            for target in targets {
                match library.named(target) {
                    Named::Type(id) if library.is_type(own, id) => answer = Answer::Yes,
                    Named::Profile(profile) if library.is_type(own, profile.of) && answer == Answer::No => {
                        answer = Answer::Open;
                    }
                    Named::Broken(_) | Named::Unknown if answer == Answer::No => answer = Answer::Open,
                    _ => {}
                }
            }
            answer
        } else {
            Answer::Open
        };
        if answer == Answer::No {
            let text = format!("Expected a reference to one of {}", targets.join(", "));
            self.differs(&rules::TARGET_PROFILE, node, text, at.profile);
        }
    }

    /// The members of an element's object that a child of the profile's element is about.
    fn members(&mut self, at: At<'_, 't>, place: Place, object: Node<'t>) {
        let Some(element) = at.profile.elements.get(place) else { return };
        let items = self.items_at(at.item, &element.name);
        let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
        if count < element.min {
            self.too_few(at.profile, element, (element.min, ""), object);
        }
        if let Some(max) = element.max.filter(|&max| count > max) {
            let text = format!("Expected at most {max} of {}", element.id);
            self.differs(&rules::MAX, object, text, at.profile);
        }
        self.expected(at, element, items.is_empty(), object);
        for &item in &items {
            self.element(At { item, ..at }, place);
        }
        if !element.slices.is_empty() {
            self.slices(at, place, &items, object);
        }
    }

    pub(super) fn too_few(
        &mut self,
        profile: &Profile,
        element: &Element,
        (min, nearest): (u32, &str),
        object: Node<'t>,
    ) {
        // The first walk may have said so.
        let of_base = format!("Expected at least {min} of {}", element.name);
        if !self.has(&rules::MIN, object, &of_base) && !self.has(&rules::MIN, object, &format!("{of_base}[x]")) {
            let text = format!("Expected at least {min} of {}{nearest}", element.id);
            self.differs(&rules::MIN, object, text, profile);
        }
    }

    /// The elements of that name within one.
    pub(super) fn items_at(&self, item: Item, name: &str) -> Vec<Item> {
        let mut items = Vec::new();
        elements_at(self.definitions, self.tree(), item, name, &mut |found| items.push(found));
        items
    }
}

/// Answers what an invariant of a profile asks, by the library.
pub(super) struct Within<'w> {
    library: &'w Library,
    nesting: u32,
}

impl<'w> Within<'w> {
    /// For an expression that is no part of a profile.
    pub(super) fn new(library: &'w Library) -> Self {
        Self { library, nesting: 0 }
    }
}

impl Host for Within<'_> {
    fn member_of(&self, value_set: &str, system: Option<&str>, code: &str) -> Membership {
        self.library.member_of(value_set, system, code)
    }

    fn subsumes(&self, system: &str, broader: &str, narrower: &str) -> Option<bool> {
        self.library.subsumes(system, broader, narrower)
    }

    fn conforms_to(&self, node: Node<'_>, _type_name: &str, profile: &str) -> Conformance {
        let core = self.library.core();
        let item = locate(core, node);
        match self.library.named(profile) {
            Named::Profile(profile) if self.nesting < NESTING_MAX => {
                let (document, invariants) = (Document::within(node.tree(), STEPS_MAX), Invariants::new(core));
                let mut walk = Walk::new(core, &invariants, &document, None, 1).with_library(Some(self.library), false);
                let resource = node.resource().unwrap_or(node);
                let scope = Scope { container: resource, resource, is_contained: false };
                match walk.asks(self.nesting + 1, At { item, profile: &profile, scope }) {
                    _ if document.steps_left() == 0 => Conformance::Unknown,
                    Answer::Yes => Conformance::Conforms,
                    Answer::No => Conformance::Differs,
                    Answer::Open => Conformance::Unknown,
                }
            }
            Named::Type(asked) => match item.ty {
                Type::Object(own, 0) if self.library.is_type(own, asked) => Conformance::Conforms,
                Type::Object(..) => Conformance::Differs,
                _ => Conformance::Unknown,
            },
            Named::Profile(_) | Named::Broken(_) | Named::Unknown => Conformance::Unknown,
        }
    }
}
