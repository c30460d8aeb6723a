//! Who asks, what for, to do what, and when: as keys, made once.

use sluice_fhir::datetime::{DateTime, Span};

use crate::consent::codes::{ACT_REASON, CONSENT_ACTION, Key, is_other_participation, purpose_and_broader};

/// A request as it was asked. What is not known is absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Reference of who asks.
    pub actor: Option<&'a str>,
    /// References of the organizations and groups that the actor belongs to.
    pub member_of: &'a [&'a str],
    /// Code of v3-ParticipationType, or the role of an institution.
    pub role: Option<&'a str>,
    /// Purpose of use: a code of v3-ActReason, or `system|code`.
    pub purpose: Option<&'a str>,
    /// Code of consentaction, or `system|code`.
    pub action: Option<&'a str>,
    /// When.
    pub time: Option<DateTime>,
}

/// A request, ready to be decided on.
#[derive(Clone, Debug)]
pub struct Request {
    names: Vec<Key>,
    has_actor: bool,
    role: Option<Box<str>>,
    is_recipient: bool,
    /// The purpose and all that are broader; empty if it is not known.
    purposes: Vec<Key>,
    action: Option<Key>,
    time: Option<Span>,
}

impl Request {
    /// Makes a request ready.
    pub fn new(ask: &Ask<'_>) -> Self {
        Self {
            names: ask.actor.iter().chain(ask.member_of).map(|name| Key::reference(name)).collect(),
            has_actor: ask.actor.is_some(),
            role: ask.role.map(Into::into),
            is_recipient: !ask.role.is_some_and(is_other_participation),
            purposes: ask.purpose.map(purposes).unwrap_or_default(),
            action: ask
                .action
                .map(|action| token(action, CONSENT_ACTION))
                .map(|(system, code)| Key::code(system, code)),
            time: ask.time.map(|time| time.span()),
        }
    }

    pub(super) fn is(&self, actor: Key) -> bool {
        self.names.contains(&actor)
    }

    pub(super) fn has_actor(&self) -> bool {
        self.has_actor
    }

    pub(super) fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }

    pub(super) fn is_recipient(&self) -> bool {
        self.is_recipient
    }

    /// The purpose and all that are broader; empty if it is not known.
    pub(super) fn purposes(&self) -> &[Key] {
        &self.purposes
    }

    pub(super) fn action(&self) -> Option<Key> {
        self.action
    }

    pub(super) fn time(&self) -> Option<Span> {
        self.time
    }
}

fn purposes(text: &str) -> Vec<Key> {
    let (system, code) = token(text, ACT_REASON);
    purpose_and_broader(system, code)
}

/// `code`, or `system|code`.
fn token<'t>(text: &'t str, system: &'t str) -> (&'t str, &'t str) {
    text.rsplit_once('|').unwrap_or((system, text))
}
