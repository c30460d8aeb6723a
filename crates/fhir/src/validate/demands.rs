//! What few elements of profiles say: where the target of a reference may be, that a primitive has a value, in which languages a
//! narrative is, and what is expected of systems, which no record can break.

use super::profile::At;
use super::rules::{self, Rule};
use super::walk::Walk;
use crate::outcome::Severity;
use crate::profile::element::{Element, More, TypeRule};
use crate::tree::Node;
use crate::xhtml;

impl<'t> Walk<'_, 't> {
    /// What an element that is there must have.
    pub(super) fn demands(&mut self, at: At<'_, 't>, element: &Element, more: &More, node: Node<'t>) {
        let has_value = at.item.value(self.tree()).is_some();
        if more.has_value && !has_value {
            self.differs(&rules::VALUE, node, format!("Expected a value of {}", element.id), at.profile);
        }
        if !more.alternatives.is_empty() && !has_value {
            let stands = |url: &Node<'_>| more.alternatives.iter().any(|alternative| url.is_str(alternative));
            let extensions = node.member("extension").into_iter().flat_map(Node::items);
            if !extensions.filter_map(|extension| extension.member("url")).any(|url| stands(&url)) {
                let text =
                    format!("Expected a value of {}, or the extension {}", element.id, more.alternatives.join(" or "));
                self.differs(&rules::VALUE, node, text, at.profile);
            }
        }
        if !more.languages.is_empty() || more.source.is_some() {
            self.narrative(at, more, node);
        }
    }

    /// Languages and sources of the parts of a narrative.
    fn narrative(&mut self, at: At<'_, 't>, more: &More, node: Node<'t>) {
        let Some(div) = node.member("div").and_then(Node::as_str) else { return };
        let parts = xhtml::parts(&div);
        if let Some(severity) = more.source
            && parts.iter().any(|part| part.has_content && !part.has_source())
        {
            let text = "Expected each part to have a class: generated, boilerplate or original".to_owned();
            let about = Some(at.profile.url.to_string());
            self.add_as(severity, &rules::SOURCE, node, text, about);
        }
        let languages: Vec<&str> =
            parts.iter().filter(|part| part.name == "div").filter_map(|part| part.language).collect();
        for control in &more.languages {
            let (rule, text): (&'static Rule, String) = match &**control {
                "_no" if !languages.is_empty() => (&rules::LANGUAGE, "Expected no sections by language".into()),
                "_yes" if languages.is_empty() => (&rules::LANGUAGE, "Expected sections by language".into()),
                "_no" | "_yes" => continue,
                _ if languages.is_empty() => (&rules::LANGUAGE_UNTOLD, "Expected sections by language".into()),
                "_resource" => match at.scope.resource.member("language").and_then(Node::as_str) {
                    None => {
                        (&rules::LANGUAGE_UNTOLD, "Expected a language of the resource, which a section is in".into())
                    }
                    Some(own) if languages.contains(&&*own) => continue,
                    Some(_) => (&rules::LANGUAGE, "Expected a section in the language of the resource".into()),
                },
                language if languages.contains(&language) => continue,
                language => (&rules::LANGUAGE, format!("Expected a section in the language {language}")),
            };
            self.differs(rule, node, text, at.profile);
        }
    }

    /// Whether what a reference points to is where one of these types allows it to be.
    pub(super) fn aggregation(&mut self, at: At<'_, 't>, matching: &[&TypeRule], node: Node<'t>) {
        let Some(text) = node.member("reference").and_then(Node::as_str) else { return };
        let is_contained = text.starts_with('#');
        // Of a part of something larger the rest may have it.
        let is_bundled =
            !is_contained && (self.references.is_part() || self.document.resource_at(&text, node).is_some());
        let allowed = matching.iter().filter_map(|rule| rule.aggregation).any(|mode| {
            mode.contained && is_contained || mode.bundled && is_bundled || mode.referenced && !is_contained
        });
        if !allowed {
            let mut modes = Vec::new();
            for mode in matching.iter().filter_map(|rule| rule.aggregation) {
                let all = [
                    (mode.contained, "contained"),
                    (mode.bundled, "in the same Bundle"),
                    (mode.referenced, "elsewhere"),
                ];
                modes.extend(all.iter().filter(|(is_allowed, _)| *is_allowed).map(|(_, name)| *name));
            }
            modes.dedup();
            let text = format!("Expected a reference to what is {}", modes.join(" or "));
            self.differs(&rules::AGGREGATION, node, text, at.profile);
        }
    }

    /// Must-support elements that are absent, and obligations, where that is asked for.
    pub(super) fn expected(&mut self, at: At<'_, 't>, element: &Element, is_absent: bool, object: Node<'t>) {
        let is_asked = self.profiles.as_ref().is_some_and(|profiles| profiles.tells_expectations) && !self.is_asking();
        let Some(more) = element.more.as_ref().filter(|_| is_asked) else { return };
        if more.must_support && is_absent {
            let text = format!("Not there: {}, which systems must support", element.id);
            self.differs(&rules::MUST_SUPPORT, object, text, at.profile);
        }
        if !more.obligations.is_empty() {
            let text = format!("Obligations of {}: {}", element.id, more.obligations.join(", "));
            self.differs(&rules::OBLIGATION, object, text, at.profile);
        }
    }

    /// Reports an issue with the severity that a profile says.
    fn add_as(&mut self, severity: Severity, rule: &'static Rule, node: Node<'t>, text: String, about: Option<String>) {
        if !self.has(rule, node, &text) {
            self.issue_as(severity, rule, node, text, about);
        }
    }
}
