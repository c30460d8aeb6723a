//! The walk over one resource: members against the shape of their type, cardinalities, arrays, choices and the
//! underscore members of primitives. Depth is bounded; each node is visited once.

mod found;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use self::found::Found;
use super::claims::Profiles;
use super::invariants::{Asked, Content, Invariants};
use super::policy::{self, Policy};
use super::reference::{References, Scope};
use super::rules;
use super::undecided::Collected;
use super::{Report, Resolve, lexical};
use crate::definitions::primitive::Primitive;
use crate::definitions::program::{Constraint, Field, Kind, Program, Seen, Shape, Slot};
use crate::definitions::{Definitions, Role, Strength, TypeId};
use crate::outcome::Severity;
use crate::path::{Document, Type, Verdict};
use crate::profile::Library;
use crate::tree::{self, Node};
use crate::xhtml;

/// Objects within objects. The tree's own limit comes first; this one keeps the stack bounded whatever that is.
const DEPTH_MAX: u32 = 256;
/// Elements between two questions about the caller's patience.
const ASK_EVERY: u32 = 64;

/// The state of one check.
pub(super) struct Walk<'w, 't> {
    pub(super) definitions: &'w Definitions,
    invariants: &'w Invariants,
    pub(super) document: &'t Document<'t>,
    pub(super) references: References<'w>,
    pub(super) profiles: Option<Profiles<'w>>,
    pub(super) policy: Policy,
    /// Value sets that were reported as not checked.
    pub(super) unchecked: Vec<(u32, Strength)>,
    /// What links of narratives may point to, in the whole document; collected for the first link.
    pub(super) anchors: Option<HashSet<String>>,
    /// Ids of elements in the resource that is walked.
    element_ids: HashSet<String>,
    /// Codes of UCUM by now, and whether they are.
    pub(super) units: HashMap<String, bool>,
    /// Codes for the caller to decide; None if there is none who does.
    pub(super) collected: Option<Collected>,
    found: Vec<Found<'t>>,
    errors: usize,
    minor: usize,
    minor_dropped: bool,
    issues_max: usize,
    good_practice: bool,
    /// Whether the caller's patience has ended, what it last said, and after how many elements it is asked again.
    is_over: Option<&'w dyn Fn() -> bool>,
    over: Cell<bool>,
    until_asked: Cell<u32>,
    /// Profiles that the caller names, until the first resource has taken them.
    asked: Vec<String>,
}

/// The type whose members are walked.
#[derive(Clone, Copy)]
struct Within<'w> {
    id: TypeId,
    place: u16,
    program: &'w Program,
    shape: &'w Shape,
    role: Role,
}

impl<'w, 't> Walk<'w, 't> {
    pub(super) fn new(
        definitions: &'w Definitions,
        invariants: &'w Invariants,
        document: &'t Document<'t>,
        resolve: Option<&'w Resolve<'w>>,
        issues_max: usize,
    ) -> Self {
        Self {
            definitions,
            invariants,
            document,
            references: References::new(definitions, resolve),
            profiles: None,
            policy: Policy::default(),
            unchecked: Vec::new(),
            anchors: None,
            element_ids: HashSet::new(),
            units: HashMap::new(),
            collected: None,
            found: Vec::new(),
            errors: 0,
            minor: 0,
            minor_dropped: false,
            issues_max,
            good_practice: false,
            is_over: None,
            over: Cell::new(false),
            until_asked: Cell::new(0),
            asked: Vec::new(),
        }
    }

    /// Under the policy of a site.
    pub(super) fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Ends when the caller's patience does, and leaves to the caller what it decides.
    pub(super) fn around(mut self, is_over: Option<&'w dyn Fn() -> bool>, collects: bool) -> Self {
        self.is_over = is_over;
        self.collected = collects.then(Collected::default);
        self
    }

    /// Holds everything against the profiles of a library too.
    pub(super) fn with_library(mut self, library: Option<&'w Library>, tells_expectations: bool) -> Self {
        self.profiles = library.map(|library| Profiles::new(library, tells_expectations));
        self
    }

    /// Warns of what is recommended too.
    pub(super) fn with_good_practice(mut self, good_practice: bool) -> Self {
        self.good_practice = good_practice;
        self
    }

    pub(super) fn run(mut self, resource: Node<'t>, profiles: &[String]) -> Report {
        self.asked = profiles.to_vec();
        self.resource(resource, None, 0);
        if self.is_spent() {
            self.found.push(Found::of(&rules::BUDGET, resource));
        } else if self.errors >= self.issues_max {
            self.found.push(Found::of(&rules::ISSUES, resource));
        }
        if self.minor_dropped {
            self.found.push(Found::of(&rules::ISSUES_MINOR, resource));
        }
        let issues = self.found.into_iter().map(Found::into_issue).collect();
        Report { issues, undecided: self.collected.map(|collected| collected.found).unwrap_or_default() }
    }

    /// Enough errors, or enough work; nothing more is looked for. Asked at every element, so it costs a count.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        if self.errors >= self.issues_max || self.over.get() {
            return true;
        }
        let left = self.until_asked.get();
        if left == 0 {
            return self.ask();
        }
        self.until_asked.set(left - 1);
        false
    }

    /// Charges the elements since the last question, and asks whether that is enough.
    #[cold]
    fn ask(&self) -> bool {
        self.until_asked.set(ASK_EVERY);
        self.document.charge(u64::from(ASK_EVERY) + 1);
        self.over.set(self.is_spent() || self.is_over.is_some_and(|is_over| is_over()));
        self.over.get()
    }

    /// Whether the check ends before it has seen everything.
    fn is_spent(&self) -> bool {
        self.over.get() || self.document.steps_left() == 0
    }

    /// The invariants of an element, defined in the type `of`.
    fn invariants(
        &mut self,
        of: TypeId,
        constraints: &[Constraint],
        (node, ty): (Node<'t>, Type),
        scope: Scope<'t>,
        content: Option<Content<'_>>,
    ) {
        let document = self.document;
        for constraint in constraints {
            if self.is_full() {
                return;
            }
            let asked = Asked { node, ty, resource: scope.resource, container: scope.container };
            let key = self.definitions.strings().at(constraint.key);
            let human = self.definitions.strings().at(constraint.human);
            match self.invariants.ask(self.definitions, document, of, constraint, asked, content) {
                Verdict::Holds => {}
                Verdict::Broken => {
                    let severity = if constraint.is_error { Severity::Error } else { Severity::Warning };
                    let invariant = Some((severity, format!("invariant.{}", key.to_ascii_lowercase())));
                    let text = format!("Expected {key} to hold: {human}");
                    self.add(
                        severity,
                        Found { rule: &rules::INVARIANT, invariant, node, element: None, text, about: None },
                    );
                }
                Verdict::Open => {
                    self.issue(
                        &rules::INVARIANT_NOT_CHECKED,
                        node,
                        format!("Could not tell whether {key} holds: {human}"),
                    );
                }
            }
        }
    }

    /// A resource by itself, or (with a container) contained in another.
    fn resource(&mut self, node: Node<'t>, container: Option<Scope<'t>>, depth: u32) {
        if node.kind() != tree::Kind::Object {
            return self.issue(&rules::OBJECT_EXPECTED, node, "Expected a resource: a JSON object");
        }
        let named = node.member("resourceType").and_then(|name| Some((name, name.as_str()?)));
        let Some((name_node, name)) = named else {
            return self.issue(&rules::RESOURCE_TYPE_MISSING, node, "Expected the member resourceType, a string");
        };
        let Some(id) = self.definitions.resource_named(&name) else {
            let release = self.definitions.id();
            let text =
                format!("Expected the name of a resource type of {release}; other types and releases are not checked");
            return self.issue(&rules::RESOURCE_TYPE_UNKNOWN, name_node, text);
        };
        let scope = Scope {
            container: container.map_or(node, |scope| scope.container),
            resource: node,
            is_contained: container.is_some(),
        };
        if let Some(contained) = node.member("contained") {
            if scope.is_contained {
                self.issue(
                    &rules::CONTAINED_NESTED,
                    contained,
                    "Expected no contained resources inside of a contained resource",
                );
            } else if self.policy.contained {
                self.contained_ids(contained);
                self.contained_use(node, contained);
            }
        }
        // What the caller names is for the outermost.
        let asked = std::mem::take(&mut self.asked);
        let outer = matches!(&*name, "Bundle" | "Parameters").then(|| self.references.enter(node));
        let outer_ids = std::mem::take(&mut self.element_ids);
        let program = self.definitions.program(id);
        if let Some(shape) = program.shape(0) {
            self.object(node, Within { id, place: 0, program, shape, role: Role::Plain }, scope, depth);
            // Resources that are no DomainResource have no `text`.
            let has_narrative = || node.member("text").is_some_and(|text| text.member("div").is_some());
            if self.good_practice && !scope.is_contained && shape.slot("text").is_some() && !has_narrative() {
                self.issue(&rules::NARRATIVE_MISSING, node, "Expected a narrative, by which a person can read it");
            }
        }
        self.element_ids = outer_ids;
        self.special(&name, node, scope);
        if self.profiles.is_some() {
            self.claimed(node, &name, asked, scope);
        }
        if let Some(outer) = outer {
            self.references.leave(outer);
        }
    }

    /// The rules of single resource types that are no invariants.
    fn special(&mut self, name: &str, node: Node<'t>, scope: Scope<'t>) {
        match name {
            "Bundle" => self.bundle(node),
            "CapabilityStatement" => self.capabilities(node),
            "CodeSystem" => self.code_system(node),
            "ConceptMap" => self.concept_map(node),
            "Measure" => self.measure(node),
            "MeasureReport" => self.measure_report(node, scope),
            "Questionnaire" => self.conditions(node),
            "QuestionnaireResponse" if self.profiles.is_some() => self.answered(node, scope),
            "SearchParameter" => self.search_parameter(node),
            "StructureDefinition" => self.structure(node),
            "ValueSet" => self.value_set(node),
            _ => {}
        }
    }

    /// Each contained resource has an id of its own.
    fn contained_ids(&mut self, contained: Node<'t>) {
        let mut ids = HashSet::new();
        for resource in contained.items() {
            let id = resource.member("id").and_then(|id| Some((id, id.as_str()?)));
            if let Some((node, id)) = id {
                if !ids.insert(id) {
                    self.issue(
                        &rules::CONTAINED_DUPLICATE,
                        node,
                        "Expected an id that no other contained resource has",
                    );
                }
            } else if resource.is_object() {
                self.issue(&rules::CONTAINED_ID, resource, "Expected an id, by which the container refers to it");
            }
        }
    }

    /// A contained resource is referred to from its container, or refers to it (dom-3), and has no version or security of its
    /// own (dom-4, dom-5).
    fn contained_use(&mut self, container: Node<'t>, contained: Node<'t>) {
        // One pass over the container, however many it contains. Narratives have links too: of images, for one.
        let mut local: HashSet<String> = HashSet::new();
        let div = container.tree().name_id("div");
        for node in container.descendants() {
            if node.raw().starts_with(b"\"#") {
                local.extend(node.as_str().and_then(|text| text.strip_prefix('#').map(str::to_owned)));
            } else if node.name_id() == div && div.is_some() {
                let text = node.as_str().unwrap_or_default();
                local.extend(xhtml::read(&text).into_iter().flat_map(|found| found.links).map(str::to_owned));
            }
        }
        for resource in contained.items() {
            let id = resource.member("id").and_then(Node::as_str);
            let is_used = id.is_none_or(|id| local.contains(&*id));
            if !is_used && !resource.descendants().any(|node| node.is_str("#")) {
                let text = "Expected a reference to this contained resource from its container, or from it to that";
                self.issue(&rules::CONTAINED_UNUSED, resource, text);
            }
            let Some(meta) = resource.member("meta") else { continue };
            for name in ["versionId", "lastUpdated", "security"] {
                if let Some(member) = meta.member(name) {
                    self.issue(&rules::CONTAINED_META, member, "Expected no such member in a contained resource");
                }
            }
        }
    }

    /// The members of one object.
    fn object(&mut self, node: Node<'t>, within: Within<'w>, scope: Scope<'t>, depth: u32) {
        let Within { id, place, shape, role, .. } = within;
        if depth >= DEPTH_MAX {
            return self.issue(&rules::DEPTH, node, "Expected elements that nest less deeply");
        }
        let mut seen = Seen::default();
        let mut companions = false;
        let mut content = false;
        for member in node.members() {
            if self.is_full() {
                return;
            }
            if let Some(slot) = shape.slot_of(member) {
                content |= &*slot.name != "id";
                let field = shape.field(slot);
                if !seen.insert(slot.field) && field.is_choice {
                    self.issue(&rules::CHOICE_MANY, member, format!("Expected one type of {}[x] only", field.name));
                }
                self.value(member, node, within, (slot, field), scope, depth);
                continue;
            }
            let name = member.name().unwrap_or_default();
            if name.starts_with('_') {
                companions = true;
                content = true;
            } else if name == "resourceType" && shape.is_resource {
                // `resource` has looked at it.
            } else {
                content = true;
                self.unknown_member(node, member, name, shape);
            }
        }
        if companions {
            self.companions(node, shape, &mut seen, scope, depth);
        }
        if !content && !shape.is_resource {
            self.issue(&rules::EMPTY_OBJECT, node, "Expected content beside the id");
        }
        if !shape.required.is_subset(&seen) {
            for field in shape.required.without(&seen) {
                let Some(field) = shape.fields.get(field) else { continue };
                let choice = if field.is_choice { "[x]" } else { "" };
                self.issue(&rules::MIN, node, format!("Expected at least {} of {}{choice}", field.min, field.name));
            }
        }
        if role == Role::Extension {
            self.extension(node, shape, &seen);
        }
        if !shape.constraints.is_empty() {
            let content = Some((shape, &seen));
            self.invariants(id, &shape.constraints, (node, Type::Object(id, place)), scope, content);
        }
    }

    fn unknown_member(&mut self, object: Node<'t>, member: Node<'t>, name: &str, shape: &Shape) {
        if name == "resourceType" {
            return self.issue(
                &rules::RESOURCE_TYPE_MISPLACED,
                member,
                "Expected no resourceType here: this element is not a resource",
            );
        }
        let Some(suffix) = shape.choice_of(name) else {
            // A name that the definitions do not know leads nowhere in FHIRPath.
            return self.issue_of(
                &rules::UNKNOWN_MEMBER,
                object,
                member,
                "Expected only members that the definition of this element has",
            );
        };
        // `valueHumanName` is HumanName, `valueString` is string.
        let mut lower = suffix.to_owned();
        lower[..1].make_ascii_lowercase();
        if self.definitions.type_named(suffix).or_else(|| self.definitions.type_named(&lower)).is_some() {
            let text = "Expected one of the types that this choice allows";
            self.issue_of(&rules::CHOICE_FORBIDDEN, object, member, text);
        } else {
            self.issue_of(
                &rules::CHOICE_UNKNOWN,
                object,
                member,
                "Expected the name of a FHIR type at the end of the member's name",
            );
        }
    }

    /// What stands at a slot: an array of items where the element repeats, else one item.
    fn value(
        &mut self,
        member: Node<'t>,
        object: Node<'t>,
        within: Within<'w>,
        (slot, field): (&'w Slot, &'w Field),
        scope: Scope<'t>,
        depth: u32,
    ) {
        let is_array = member.kind() == tree::Kind::Array;
        if !is_array {
            if member.kind() == tree::Kind::Null {
                return self.issue(&rules::NULL, member, "Expected a value; a value that is not known is left out");
            }
            if field.repeats {
                self.issue(&rules::ARRAY_EXPECTED, member, "Expected an array, since the element may repeat");
            }
            return self.item(member, within, (slot, field), scope, depth);
        }
        if !field.repeats {
            self.issue(&rules::ARRAY_UNEXPECTED, member, "Expected a single value, since the element may not repeat");
        }
        let mut count = 0_u32;
        let mut nulls = false;
        for item in member.items() {
            if self.is_full() {
                return;
            }
            count = count.saturating_add(1);
            match item.kind() {
                tree::Kind::Array => self.issue(&rules::ARRAY_UNEXPECTED, item, "Expected no array inside of an array"),
                tree::Kind::Null if field.repeats && matches!(slot.kind, Kind::Primitive(_)) => nulls = true,
                tree::Kind::Null => self.issue(&rules::NULL, item, "Expected a value; null stands for primitives only"),
                _ => self.item(item, within, (slot, field), scope, depth),
            }
        }
        if count == 0 {
            return self.issue(&rules::EMPTY_ARRAY, member, "Expected at least one item; an empty element is left out");
        }
        if nulls {
            self.nulls(member, object, &slot.name);
        }
        if field.repeats && count < field.min {
            self.issue(&rules::MIN, member, format!("Expected at least {} items", field.min));
        }
        if let Some(max) = field.max.filter(|&max| field.repeats && count > max) {
            self.issue(&rules::MAX, member, format!("Expected at most {max} items"));
        }
    }

    fn item(
        &mut self,
        node: Node<'t>,
        within: Within<'w>,
        (slot, field): (&'w Slot, &'w Field),
        scope: Scope<'t>,
        depth: u32,
    ) {
        if !field.constraints.is_empty() {
            let ty = Type::Object(within.id, within.place).at(slot.kind).unwrap_or(Type::Unknown);
            self.invariants(within.id, &field.constraints, (node, ty), scope, None);
        }
        let (id, program, place, inner) = match slot.kind {
            Kind::Primitive(primitive) => return self.primitive(node, primitive, field),
            Kind::Resource => return self.resource(node, None, depth + 1),
            Kind::Contained if !self.policy.contained => return,
            Kind::Contained => return self.resource(node, Some(scope), depth + 1),
            Kind::Nested(place) => (within.id, within.program, place, Role::Plain),
            Kind::Complex(id) => (id, self.definitions.program(id), 0, self.definitions.role(id)),
        };
        if node.kind() != tree::Kind::Object {
            return self.issue(&rules::OBJECT_EXPECTED, node, "Expected a JSON object");
        }
        if let Some(shape) = program.shape(place) {
            self.object(node, Within { id, place, program, shape, role: inner }, scope, depth + 1);
        }
        match inner {
            Role::Plain => {}
            Role::Extension => {
                if within.role != Role::Extension {
                    self.extension_url(node);
                }
                if self.profiles.is_some() {
                    self.defined_extension(node, &slot.name, scope);
                }
            }
            Role::Reference => {
                let found = self.references.check(node, slot, scope, self.policy.references_elsewhere);
                for (rule, at, text) in found {
                    self.issue_of(rule, node, at, text);
                }
            }
            Role::Attachment => self.attachment(node),
            Role::Coding => {
                self.ucum(node);
                self.coding(node, field);
            }
            Role::CodeableConcept => self.concept(node, field),
            Role::Quantity => {
                self.ucum(node);
                self.quantity(node, field);
            }
        }
    }

    fn primitive(&mut self, node: Node<'t>, primitive: Primitive, field: &Field) {
        let kind = node.kind();
        if matches!(kind, tree::Kind::Object | tree::Kind::Array) {
            return self.issue(&rules::PRIMITIVE_EXPECTED, node, "Expected a single JSON value");
        }
        let (expected, name) = match lexical::written(primitive) {
            lexical::Written::Boolean => (tree::Kind::Bool, "true or false, without quotes"),
            lexical::Written::Number => (tree::Kind::Number, "a JSON number, without quotes"),
            lexical::Written::Text => (tree::Kind::String, "a JSON string"),
        };
        if kind != expected {
            return self.issue(&rules::TYPE, node, format!("Expected {name}"));
        }
        let text = if let Some(number) = node.number() { number.into() } else { node.as_str().unwrap_or_default() };
        if primitive == Primitive::Xhtml && !text.is_empty() {
            return self.xhtml(node, &text);
        }
        if kind != tree::Kind::Bool
            && let Some(rule) = lexical::broken_rule(primitive, &text)
        {
            self.issue(rule, node, rule.about);
            if rule.severity == Severity::Error {
                return;
            }
        }
        if !field.bindings.is_empty() {
            self.bound_text(node, &text, field);
        }
        if primitive == Primitive::ElementId {
            self.element_id(node, &text);
        }
        if self.policy != Policy::default() {
            self.allowed(node, primitive, &text);
        }
    }

    /// An id is that of one element of a resource only. A StructureDefinition has its elements twice.
    fn element_id(&mut self, node: Node<'t>, id: &str) {
        if self.element_ids.insert(id.to_owned()) {
            return;
        }
        if let Some(element) = node.parent()
            && node.resource().and_then(Node::resource_type) != Some("StructureDefinition")
        {
            self.issue_of(&rules::ELEMENT_ID_TWICE, element, node, "Expected an id that no other element has");
        }
    }

    /// What the site's policy forbids.
    fn allowed(&mut self, node: Node<'t>, primitive: Primitive, text: &str) {
        let is_markdown = primitive == Primitive::Markdown;
        if !self.policy.html_in_strings && policy::has_tag(text) {
            self.issue(&rules::POLICY_HTML, node, "Expected no HTML tags in a string");
        } else if is_markdown && !self.policy.html_in_markdown && policy::has_markup(text) {
            self.issue(&rules::POLICY_HTML, node, "Expected no HTML in Markdown");
        }
        let is_link = matches!(primitive, Primitive::Uri | Primitive::Url | Primitive::Canonical)
            && !matches!(node.name(), Some("system" | "fullUrl"));
        if is_link && !self.policy.example_urls && policy::is_example(text) {
            self.issue(&rules::POLICY_EXAMPLE, node, "Expected no URL that is kept for examples");
        }
    }

    /// A null in the array of a repeating primitive needs an extension at the same place.
    fn nulls(&mut self, values: Node<'t>, object: Node<'t>, name: &str) {
        let mut companions = object.member(&format!("_{name}")).into_iter().flat_map(Node::items);
        for value in values.items() {
            let companion = companions.next();
            if value.kind() == tree::Kind::Null && companion.is_none_or(|c| c.kind() == tree::Kind::Null) {
                self.issue(
                    &rules::NULL,
                    value,
                    "Expected a value, or an extension at the same place of the underscore member",
                );
            }
        }
    }

    /// The underscore members of an object: ids and extensions of its primitives.
    fn companions(&mut self, node: Node<'t>, shape: &'w Shape, seen: &mut Seen, scope: Scope<'t>, depth: u32) {
        for member in node.members() {
            if self.is_full() {
                return;
            }
            let Some(name) = member.name().and_then(|name| name.strip_prefix('_')) else { continue };
            let Some(slot) = shape.slot(name).filter(|slot| matches!(slot.kind, Kind::Primitive(_))) else {
                self.issue(&rules::COMPANION, member, "Expected the name of a primitive element after the underscore");
                continue;
            };
            let field = shape.field(slot);
            let value = node.member(name);
            if slot.kind == Kind::Primitive(Primitive::Xhtml) {
                // xhtml.extension has a maximum of 0 (narrative.html).
                if let Some(extension) = member.member("extension") {
                    self.issue(&rules::MAX, extension, "Expected no extensions of XHTML");
                }
            }
            // A choice that is given by another type already.
            if !seen.insert(slot.field) && field.is_choice && value.is_none() {
                self.issue(&rules::CHOICE_MANY, member, format!("Expected one type of {}[x] only", field.name));
            }
            if !field.repeats {
                if member.kind() == tree::Kind::Array {
                    self.issue(
                        &rules::ARRAY_UNEXPECTED,
                        member,
                        "Expected a single object, since the element may not repeat",
                    );
                } else {
                    self.companion(member, value.is_some(), scope, depth);
                    if value.is_none() && !field.bindings.is_empty() {
                        self.code_absent(member, field);
                    }
                }
                continue;
            }
            if member.kind() != tree::Kind::Array {
                self.issue(&rules::ARRAY_EXPECTED, member, "Expected an array, since the element may repeat");
                continue;
            }
            let values = value.map(Node::len);
            if values.is_some_and(|count| count != member.len()) {
                self.issue(&rules::COMPANION_LENGTH, member, "Expected as many items as the element has values");
            }
            if member.is_empty() {
                self.issue(&rules::EMPTY_ARRAY, member, "Expected at least one item");
            }
            let mut values = value.into_iter().flat_map(Node::items);
            for item in member.items() {
                let has_value = values.next().is_some_and(|value| value.kind() != tree::Kind::Null);
                if item.kind() != tree::Kind::Null {
                    self.companion(item, has_value, scope, depth);
                    if !has_value && !field.bindings.is_empty() {
                        self.code_absent(item, field);
                    }
                } else if value.is_none() {
                    self.issue(&rules::NULL, item, "Expected an extension, since there is no value at this place");
                }
            }
        }
    }

    fn companion(&mut self, node: Node<'t>, has_value: bool, scope: Scope<'t>, depth: u32) {
        if node.kind() != tree::Kind::Object {
            return self.issue(&rules::COMPANION, node, "Expected an object with an id or extensions");
        }
        let id = self.definitions.element();
        let program = self.definitions.program(id);
        if has_value && node.len() == 1 && node.member("id").is_some_and(|id| id.kind() == tree::Kind::String) {
            // An id beside a value is content enough (ele-1 holds by the value).
            return;
        }
        if let Some(shape) = program.shape(0) {
            self.object(node, Within { id, place: 0, program, shape, role: Role::Plain }, scope, depth + 1);
        }
    }

    /// ext-1: a value or extensions.
    fn extension(&mut self, node: Node<'t>, shape: &Shape, seen: &Seen) {
        let has = |name: &str| {
            let mut field = Seen::default();
            shape.slot(name).is_some_and(|slot| field.insert(slot.field) && field.is_subset(seen))
        };
        if has("valueString") == has("extension") {
            self.issue(&rules::EXTENSION_CONTENT, node, "Expected a value or extensions, and not both");
        }
    }

    /// Only inside of another extension may a url be relative.
    fn extension_url(&mut self, node: Node<'t>) {
        let Some(url) = node.member("url") else { return };
        if url.as_str().is_some_and(|text| !text.is_empty() && !text.contains(':')) {
            self.issue_of(&rules::EXTENSION_URL, node, url, "Expected an absolute URL");
        }
    }
}
