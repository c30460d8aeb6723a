//! A decision as one line of JSON: {id, consents, request, resource} in, {id, decision, obligations, reason} out.
//!
//! Total: whatever the line holds, there is an answer. What can't be read is undecidable or denied.

use std::fmt;

use bytes::Bytes;
use sluice_fhir::datetime::DateTime;
use sluice_fhir::tree::{Limits, Node, Tree};

use super::decide::{Ask, Decision, Outcome, PolicySet, Request, Settings, decide, rule};
use super::facets::{Facets, Surroundings};
use super::policy::Policy;

/// Bundles within Bundles that are looked into.
const BUNDLE_DEPTH_MAX: usize = 4;

/// Decides on one line and answers with one, without a newline.
pub fn answer(settings: Settings, line: Bytes) -> Vec<u8> {
    let (id, decision) =
        asked(line, &|_, _, question, facets| decide(settings, &question.policies, &question.request, facets));
    to_json(id.as_deref(), &decision)
}

/// Decides on a resource as it stands. A Bundle is decided entry by entry, and permitted only if every entry is; an
/// empty one, and an entry that shows no resource, is not.
pub fn decide_resource(settings: Settings, policies: &PolicySet, request: &Request, resource: Node<'_>) -> Decision {
    let each = |_: &Place<'_>, _: Node<'_>, facets: &Facets| decide(settings, policies, request, facets);
    within(resource, None, &Surroundings::none(), &Place::Root, &each)
}

/// What a line asks about its resource.
pub(super) struct Question {
    /// The Consents as they were given.
    pub(super) given: Vec<Policy>,
    /// Those of them that count.
    pub(super) policies: PolicySet,
    pub(super) request: Request,
}

/// Where a record stands in what was asked about.
pub(super) enum Place<'p> {
    /// It is the resource itself.
    Root,
    /// It is the resource of an entry of the Bundle there.
    Entry(&'p Place<'p>, usize),
}

impl Place<'_> {
    fn depth(&self) -> usize {
        match self {
            Self::Root => 0,
            Self::Entry(bundle, _) => bundle.depth() + 1,
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("resource"),
            Self::Entry(bundle, entry) => write!(f, "{bundle}.entry[{entry}].resource"),
        }
    }
}

/// Reads a line and has `each` decide on its records. Gives the line's id as it stands, and what was decided of all.
pub(super) fn asked(
    line: Bytes,
    each: &dyn Fn(&Place<'_>, Node<'_>, &Question, &Facets) -> Decision,
) -> (Option<Vec<u8>>, Decision) {
    // A line wraps its Consents and its resource in two levels of its own.
    let limits = Limits::default();
    let limits = Limits { depth_max: limits.depth_max + 2, ..limits };
    let Ok(tree) = Tree::parse(line, &limits) else {
        return (None, Decision::plain(Outcome::Undecidable, rule::REQUEST));
    };
    let root = tree.root();
    let id = root.member("id").map(|id| id.raw().to_vec());
    let Some(request) = root.member("request").and_then(request) else {
        return (id, Decision::plain(Outcome::Undecidable, rule::REQUEST));
    };
    let given: Vec<Policy> = match root.member("consents") {
        None => Vec::new(),
        Some(consents) if consents.is_array() => consents.items().map(Policy::compile).collect(),
        Some(_) => vec![Policy::unreadable()],
    };
    let Some(resource) = root.member("resource") else {
        return (id, Decision::plain(Outcome::Deny, rule::NO_RESOURCE));
    };
    let question = Question { policies: PolicySet::new(given.iter().cloned()), given, request };
    let each = |place: &Place<'_>, resource: Node<'_>, facets: &Facets| each(place, resource, &question, facets);
    (id, within(resource, None, &Surroundings::none(), &Place::Root, &each))
}

fn within(
    resource: Node<'_>,
    full_url: Option<&str>,
    surroundings: &Surroundings<'_>,
    place: &Place<'_>,
    each: &dyn Fn(&Place<'_>, Node<'_>, &Facets) -> Decision,
) -> Decision {
    if resource.resource_type() != Some("Bundle") {
        if resource.resource_type().is_none() {
            return Decision::plain(Outcome::Deny, rule::NO_RESOURCE);
        }
        return each(place, resource, &Facets::within(resource, full_url, surroundings));
    }
    if place.depth() == BUNDLE_DEPTH_MAX {
        return Decision::plain(Outcome::Deny, rule::NO_RESOURCE);
    }
    let inside = Surroundings::of_bundle(resource);
    let entries = resource.member("entry").filter(|entries| entries.is_array());
    let decisions = entries.into_iter().flat_map(Node::items).enumerate().map(|(at, entry)| {
        let full_url = entry.member("fullUrl").and_then(Node::as_str);
        match entry.member("resource") {
            Some(resource) => within(resource, full_url.as_deref(), &inside, &Place::Entry(place, at), each),
            None => Decision::plain(Outcome::Undecidable, rule::NO_RESOURCE),
        }
    });
    decisions.reduce(Decision::and).unwrap_or_else(|| Decision::plain(Outcome::Deny, rule::NO_RESOURCE))
}

/// Reads a request. A member of another kind than expected makes it unreadable, since it might have asked for less.
fn request(node: Node<'_>) -> Option<Request> {
    if !node.is_object() {
        return None;
    }
    // A reference may stand as text or as a Reference.
    let reference = |node: Node<'_>| -> Option<String> {
        let node = node.member("reference").unwrap_or(node);
        node.as_str().filter(|text| !text.is_empty()).map(Into::into)
    };
    let given = |name| node.member(name).filter(|member| member.raw() != b"null");
    let text = |name| given(name).map(|member| member.as_str().map(String::from).ok_or(())).transpose();
    let actor = given("actor").map(|actor| reference(actor).ok_or(())).transpose().ok()?;
    let member_of: Vec<String> = match given("memberOf") {
        None => Vec::new(),
        Some(list) if list.is_array() => list.items().map(reference).collect::<Option<_>>()?,
        Some(_) => return None,
    };
    let (role, purpose, action) = (text("role").ok()?, text("purpose").ok()?, text("action").ok()?);
    let time = text("time").ok()?.map(|time| DateTime::parse(&time)).transpose().ok()?;
    let member_of: Vec<&str> = member_of.iter().map(String::as_str).collect();
    Some(Request::new(&Ask {
        actor: actor.as_deref(),
        member_of: &member_of,
        role: role.as_deref(),
        purpose: purpose.as_deref(),
        action: action.as_deref(),
        time,
    }))
}

/// The answer. Nothing of the record is in it: ids of rules, an index, a path of member names.
fn to_json(id: Option<&[u8]>, decision: &Decision) -> Vec<u8> {
    let mut out = b"{\"id\":".to_vec();
    out.extend_from_slice(id.unwrap_or(b"null"));
    let obligations: Vec<_> =
        decision.obligations.iter().map(|obligation| format!("\"{}\"", obligation.code())).collect();
    let reason = &decision.reason;
    let consent = reason.consent.map_or_else(|| "null".to_owned(), |index| index.to_string());
    let provision = reason.provision.as_ref().map_or_else(|| "null".to_owned(), |path| format!("\"{path}\""));
    let rest = format!(
        ",\"decision\":\"{}\",\"obligations\":[{}],\"reason\":{{\"rule\":\"{}\",\"consent\":{consent},\"provision\":{provision}}}}}",
        decision.outcome.code(),
        obligations.join(","),
        reason.rule,
    );
    out.extend_from_slice(rest.as_bytes());
    out
}
