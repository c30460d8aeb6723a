//! Who asks, what for, to do what, and when: as keys, made once.

use sluice_fhir::datetime::{DateTime, Span};

use crate::consent::codes::{ACT_REASON, CONSENT_ACTION, Key, is_other_participation};

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
    purpose: Option<Key>,
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
            purpose: ask.purpose.map(|purpose| token(purpose, ACT_REASON)),
            action: ask.action.map(|action| token(action, CONSENT_ACTION)),
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

    pub(super) fn purpose(&self) -> Option<Key> {
        self.purpose
    }

    pub(super) fn action(&self) -> Option<Key> {
        self.action
    }

    pub(super) fn time(&self) -> Option<Span> {
        self.time
    }
}

/// `code`, or `system|code`.
fn token(text: &str, system: &str) -> Key {
    let (system, code) = text.rsplit_once('|').unwrap_or((system, text));
    Key::code(system, code)
}
