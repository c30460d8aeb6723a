//! The rules that a resource is held against: FHIR R4's own, by the validator, and the site's, by JSON Schema.
//!
//! Takes a resource, gives every issue, with the severities that the site has set. Never: lets a site turn off what keeps
//! the check itself whole (its limits, and resources that cannot be checked at all).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use sluice_fhir::outcome::{Issue, Severity};
use sluice_fhir::tree::Node;
use sluice_fhir::validate::{Resolve, Validator, rules};

use super::error::RulesError;
use super::packages;
use super::site::Site;
use crate::config;

/// Rules whose severity is fixed: with any of these unsaid, a resource could pass without being looked at.
const FIXED: [&str; 5] = [
    "limit.depth",
    "limit.issues",
    "structure.object-expected",
    "structure.resource-type-missing",
    "structure.resource-type-unknown",
];

/// The rules of FHIR R4 and of the site. Shared between threads.
#[derive(Debug)]
pub struct Rules {
    validator: Validator,
    site: Site,
    /// Where a severity differs from the rule's own; None: the issue is not told.
    severity: HashMap<String, Option<Severity>>,
}

impl Default for Rules {
    /// FHIR R4's own rules alone.
    fn default() -> Self {
        Self { validator: Validator::r4(), site: Site::default(), severity: HashMap::new() }
    }
}

impl Rules {
    /// Reads the site's rules; meant for the start, before a port is bound.
    ///
    /// # Errors
    /// The first file that is no rule, and severities for rules that do not exist.
    pub fn new(settings: &config::Check) -> Result<Self, RulesError> {
        Self::with(settings, &[], &[])
    }

    /// Tells too, as information, which must-support elements of profiles are absent, and their obligations.
    #[must_use]
    pub fn with_expectations(self) -> Self {
        Self { validator: self.validator.with_expectations(true), ..self }
    }

    /// The same with further packages (archives, folders, definitions), and with profiles that every document is held
    /// against beside those that it claims.
    ///
    /// # Errors
    /// Those of [`Self::new`]; the first package that can't be read, and the first profile that no package has.
    pub fn with(settings: &config::Check, packages: &[PathBuf], profiles: &[String]) -> Result<Self, RulesError> {
        let mut paths = settings.packages_dir.as_deref().map(packages::in_folder).transpose()?.unwrap_or_default();
        paths.extend_from_slice(packages);
        let mut validator = Validator::r4();
        // Without packages nothing is said of profiles and extensions: a site that wants them brings them.
        if !paths.is_empty() || !profiles.is_empty() {
            let library = packages::library(&paths)?;
            if let Some(unknown) = profiles.iter().find(|profile| !library.has(profile)) {
                return Err(RulesError::Profile(unknown.clone()));
            }
            validator = validator.with_library(Arc::new(library)).with_profiles(profiles.iter().cloned());
        }
        let site = match &settings.rules_dir {
            None => Site::default(),
            Some(folder) => Site::read(folder, validator.definitions())?,
        };
        let mut severity = HashMap::new();
        if settings.unknown_terminology == config::Terminology::Refuse {
            severity.insert("binding.required-not-checked".to_owned(), Some(Severity::Error));
        }
        for (id, &set) in &settings.severity {
            if FIXED.contains(&id.as_str()) {
                return Err(RulesError::Fixed(id.clone()));
            }
            if rules::named(id).is_none() && !site.has(id) {
                return Err(RulesError::Unknown(id.clone()));
            }
            let set = match set {
                config::Severity::Error => Some(Severity::Error),
                config::Severity::Warning => Some(Severity::Warning),
                config::Severity::Information => Some(Severity::Information),
                config::Severity::Off => None,
            };
            severity.insert(id.clone(), set);
        }
        Ok(Self { validator, site, severity })
    }

    /// Every issue of a resource. A Bundle is checked with all that is in it.
    pub fn issues(&self, resource: Node<'_>) -> Vec<Issue> {
        self.issues_in(resource, None)
    }

    /// The same for a resource of a unit; `resolve` tells the type of what its references point to.
    pub fn issues_in<'r>(&'r self, resource: Node<'_>, resolve: Option<&'r Resolve<'r>>) -> Vec<Issue> {
        let mut issues = self.validator.validate_in(resource, resolve);
        self.site.check(resource, &mut issues);
        if !self.severity.is_empty() {
            issues.retain_mut(|issue| match self.severity.get(&*issue.rule) {
                None => true,
                Some(None) => false,
                Some(Some(severity)) => {
                    issue.severity = *severity;
                    true
                }
            });
        }
        issues
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_fhir::tree::{Limits, Tree};
    use std::collections::BTreeMap;

    fn settings(severity: &[(&str, config::Severity)]) -> config::Check {
        config::Check {
            rules_dir: None,
            packages_dir: None,
            severity: severity.iter().map(|(id, severity)| ((*id).to_owned(), *severity)).collect::<BTreeMap<_, _>>(),
            unknown_terminology: config::Terminology::Issue,
        }
    }

    fn found(settings: &config::Check, text: &str) -> Vec<(String, Severity)> {
        let tree = Tree::parse(text.to_owned().into(), &Limits::default()).unwrap();
        let issues = Rules::new(settings).unwrap().issues(tree.root());
        issues.into_iter().map(|issue| (issue.rule.into_owned(), issue.severity)).collect()
    }

    #[test]
    fn a_severity_is_set_by_rule_and_off_is_silence() {
        let text = r#"{"resourceType":"Patient","nonsense":1,"birthDate":"x"}"#;
        let rule = |id: &str, severity| (id.to_owned(), severity);
        assert_eq!(
            found(&settings(&[]), text),
            [rule("structure.unknown-member", Severity::Error), rule("value.date", Severity::Error)]
        );
        let set = [("structure.unknown-member", config::Severity::Off), ("value.date", config::Severity::Warning)];
        assert_eq!(found(&settings(&set), text), [rule("value.date", Severity::Warning)]);
    }

    #[test]
    fn what_cannot_be_expanded_is_refused_if_the_site_says_so() {
        let text = r#"{"resourceType":"Patient","photo":[{"contentType":"image/png"}]}"#;
        let rule = "binding.required-not-checked".to_owned();
        let mut settings = settings(&[]);
        assert_eq!(found(&settings, text), [(rule.clone(), Severity::Warning)]);
        settings.unknown_terminology = config::Terminology::Refuse;
        assert_eq!(found(&settings, text), [(rule, Severity::Error)]);
    }

    #[test]
    fn unknown_and_fixed_rules_are_named() {
        let of = |id| Rules::new(&settings(&[(id, config::Severity::Off)])).map(drop).unwrap_err().to_string();
        assert_eq!(of("nonsense"), "check.severity: there is no rule `nonsense`");
        assert_eq!(of("limit.issues"), "check.severity: the severity of `limit.issues` is fixed");
    }
}
