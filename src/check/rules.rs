//! The rules that a resource is held against: FHIR R4's own and those of packages, by the validator, and the site's.
//!
//! Takes a resource, gives every issue, with the severities that the site has set, and the codes that somebody else must
//! decide. A set of rules never changes once it is made; another takes its place. Never: lets a site turn off what keeps the
//! check itself whole (its limits, and resources that cannot be checked at all).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use sluice_fhir::definitions::Definitions;
use sluice_fhir::outcome::{Issue, IssueType, Severity};
use sluice_fhir::profile::Library;
use sluice_fhir::tree::Node;
use sluice_fhir::validate::{self, Report, Resolve, Validator, rules};

use super::error::RulesError;
use super::packages::{self, Digester};
use super::site::{self, Site};
use crate::config;

/// Rules whose severity is fixed: with any of these unsaid, a resource could pass without being looked at.
const FIXED: [&str; 6] = [
    "limit.budget",
    "limit.depth",
    "limit.issues",
    "structure.object-expected",
    "structure.resource-type-missing",
    "structure.resource-type-unknown",
];

/// Where a severity differs from the rule's own; None: the issue is not told.
type Severities = HashMap<String, Option<Severity>>;

/// The rules of FHIR R4, of packages and of the site. Shared between threads.
#[derive(Debug)]
pub struct Rules {
    id: Arc<str>,
    validator: Validator,
    library: Option<Arc<Library>>,
    /// The core's own profiles, for who names one where there are no packages.
    core: OnceLock<Option<Arc<Library>>>,
    site: Site,
    severities: Severities,
    /// For senders of whose resources packs say something else: all of it, in place of the others.
    by_sender: HashMap<String, Severities>,
    unknown: config::UnknownTerminology,
    budget: config::Budget,
}

/// Where rules come from, beside the settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'a> {
    /// Whose gateway it is: rules for other tenants are left out.
    pub tenant: &'a str,
    /// Further packages: archives, folders, definitions.
    pub packages: &'a [PathBuf],
    /// Profiles that every document is held against beside those that it claims.
    pub profiles: &'a [String],
    /// Whether must-support elements that are absent, and obligations, are told as information.
    pub expectations: bool,
    /// A set of which what is compiled is taken over, where nothing changed.
    pub before: Option<&'a Rules>,
}

/// What is told along with a resource.
#[derive(Clone, Copy, Default)]
pub struct Asking<'a> {
    /// The institution that has sent it.
    pub sender: Option<&'a str>,
    /// The time for rules that ask for it: RFC 3339.
    pub now: Option<&'a str>,
    /// Tells the type of what its references point to.
    pub resolve: Option<&'a Resolve<'a>>,
    /// A profile that it is held against too.
    pub profile: Option<&'a str>,
    /// Whether somebody decides on codes that the packages cannot tell.
    pub decides: bool,
}

impl Default for Rules {
    /// FHIR R4's own rules alone.
    fn default() -> Self {
        Self {
            id: "r4".into(),
            validator: Validator::r4(),
            library: None,
            core: OnceLock::new(),
            site: Site::default(),
            severities: Severities::new(),
            by_sender: HashMap::new(),
            unknown: config::UnknownTerminology::default(),
            budget: config::Budget::default(),
        }
    }
}

impl Rules {
    /// Reads the rules.
    ///
    /// # Errors
    /// The first file that is no rule or no package, by its name and place; severities for rules that do not exist; the first
    /// profile that no package has.
    pub fn read(settings: &config::Check, sources: &Sources<'_>) -> Result<Self, RulesError> {
        let mut digester = Digester::default();
        let config::Check { severity, unknown_terminology, budget, .. } = settings;
        let version = env!("CARGO_PKG_VERSION");
        let (tenant, profiles) = (sources.tenant, sources.profiles);
        let own = format!("{version} {tenant:?} {severity:?} {unknown_terminology:?} {budget:?} {profiles:?}");
        digester.add(Path::new("settings"), own.as_bytes());
        let mut paths = settings.packages_dir.as_deref().map(packages::in_folder).transpose()?.unwrap_or_default();
        paths.extend_from_slice(sources.packages);
        let mut validator = Validator::r4().with_expectations(sources.expectations);
        let mut library = None;
        // Without packages nothing is said of profiles and extensions: a site that wants them brings them.
        if !paths.is_empty() || !sources.profiles.is_empty() {
            let mut read = packages::library(&paths, &mut digester)?;
            if let Some(before) = sources.before.and_then(|rules| rules.library.as_deref()) {
                read = read.sharing(before);
            }
            if let Some(unknown) = sources.profiles.iter().find(|profile| !read.has(profile)) {
                return Err(RulesError::Profile(unknown.clone()));
            }
            let read = Arc::new(read);
            validator = validator.with_library(Arc::clone(&read)).with_profiles(sources.profiles.iter().cloned());
            library = Some(read);
        } else if let Some(folder) = &settings.packages_dir
            && sources.before.is_some_and(|before| before.library.is_some())
        {
            return Err(emptied(folder));
        }
        let site = match &settings.rules_dir {
            None => Site::default(),
            Some(folder) => Site::read(folder, sources.tenant, &Definitions::r4(), &mut digester)?,
        };
        if let (Some(folder), Some(before)) = (&settings.rules_dir, sources.before)
            && site.is_empty()
            && !before.site.is_empty()
        {
            return Err(emptied(folder));
        }
        let (unknown, budget) = (settings.unknown_terminology, settings.budget);
        let id = digester.id();
        let mut rules = Self { id, validator, library, site, unknown, budget, ..Self::default() };
        rules.set_severities(settings)?;
        Ok(rules)
    }

    fn set_severities(&mut self, settings: &config::Check) -> Result<(), RulesError> {
        let unknown = settings.unknown_terminology;
        for (id, unknown) in
            [("binding.required-not-checked", unknown.required), ("binding.extensible-not-checked", unknown.extensible)]
        {
            if unknown != config::Unknown::Issue {
                self.severities.insert(id.to_owned(), Some(Severity::Error));
            }
        }
        for (id, &set) in &settings.severity {
            if FIXED.contains(&id.as_str()) {
                return Err(RulesError::Fixed(id.clone()));
            }
            if rules::named(id).is_none() && !self.site.has(id) {
                return Err(RulesError::Unknown(id.clone()));
            }
            self.severities.insert(id.clone(), severity(set));
        }
        let said = self.site.severities(|id| FIXED.contains(&id))?;
        // Those for some are read on top of all that is said to everybody before them.
        let (mut to_all, mut by_sender) = (std::mem::take(&mut self.severities), HashMap::new());
        for site::Said { rule, severity: set, senders, .. } in said {
            let set = severity(*set);
            let Some(senders) = senders else {
                to_all.insert(rule.clone(), set);
                for severities in by_sender.values_mut() {
                    let severities: &mut Severities = severities;
                    severities.insert(rule.clone(), set);
                }
                continue;
            };
            for sender in senders.iter() {
                let severities = by_sender.entry(sender.clone()).or_insert_with(|| to_all.clone());
                severities.insert(rule.clone(), set);
            }
        }
        (self.severities, self.by_sender) = (to_all, by_sender);
        Ok(())
    }

    /// Which set it is: the same for the same rules, packages, settings and version of the software. Hexadecimal, of no length
    /// that counts.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// What becomes of codes that nobody can tell.
    pub(super) fn unknown(&self) -> config::UnknownTerminology {
        self.unknown
    }

    /// Every issue of a resource, and the codes that are for somebody else to decide. A Bundle is checked with all that is in
    /// it.
    pub fn report(&self, resource: Node<'_>, asking: Asking<'_>) -> Report {
        let began = Instant::now();
        let is_over = || began.elapsed() > self.budget.time_max;
        let (mut validator, mut unknown) = (None, None);
        if let Some(profile) = asking.profile {
            match self.library_with(profile) {
                Some(library) => {
                    let against = self.validator.clone().with_library(library);
                    validator = Some(against.with_profiles([profile.to_owned()]));
                }
                None => unknown = Some(unknown_profile(resource, profile)),
            }
        }
        let validator = validator.as_ref().unwrap_or(&self.validator);
        // A closure of this place, since those of a caller may have to outlive more than this check.
        let resolve = |reference: &str| asking.resolve.and_then(|resolve| resolve(reference));
        let mut report = validator.check(
            resource,
            validate::Around {
                resolve: asking.resolve.is_some().then_some(&resolve as &Resolve<'_>),
                steps_max: self.budget.steps_max,
                is_over: Some(&is_over),
                collects: asking.decides,
            },
        );
        let around = site::Around {
            sender: asking.sender,
            now: asking.now,
            host: &*validator.host(),
            steps_max: self.budget.steps_max,
            is_over: &is_over,
        };
        self.site.check(resource, &around, &mut report.issues);
        report.issues.extend(unknown);
        let left_out = report.issues.iter().find(|issue| issue.rule == "limit.minor-issues").cloned();
        self.set(&mut report.issues, asking.sender);
        // Among the warnings that were left out may be one that is an error here.
        if let Some(left_out) = left_out
            && self.severities_for(asking.sender).values().any(|set| *set == Some(Severity::Error))
        {
            let text =
                "More warnings and notes than are listed, of which some may be errors by the settings here".to_owned();
            report.issues.push(Issue { severity: Severity::Error, text, ..left_out });
        }
        report
    }

    /// Gives issues the severities that they have here, for resources of this sender.
    pub(super) fn set(&self, issues: &mut Vec<Issue>, sender: Option<&str>) {
        let severities = self.severities_for(sender);
        if severities.is_empty() {
            return;
        }
        issues.retain_mut(|issue| match severities.get(&*issue.rule) {
            None => true,
            Some(None) => false,
            Some(Some(severity)) => {
                issue.severity = *severity;
                true
            }
        });
    }

    fn severities_for(&self, sender: Option<&str>) -> &Severities {
        sender.and_then(|sender| self.by_sender.get(sender)).unwrap_or(&self.severities)
    }

    /// The definitions that have a profile; none if no package has it, nor the core.
    fn library_with(&self, profile: &str) -> Option<Arc<Library>> {
        let core = || {
            let own = self.core.get_or_init(|| Library::new(Definitions::r4(), &[]).ok().map(Arc::new));
            own.clone()
        };
        self.library.clone().or_else(core).filter(|library| library.has(profile))
    }
}

/// A folder that is not mounted looks like one that was emptied: who means it starts the gateway anew.
fn emptied(folder: &Path) -> RulesError {
    RulesError::Package(format!("{}: what was in force is gone, and nothing has taken its place", folder.display()))
}

fn severity(set: config::Severity) -> Option<Severity> {
    match set {
        config::Severity::Error => Some(Severity::Error),
        config::Severity::Warning => Some(Severity::Warning),
        config::Severity::Information => Some(Severity::Information),
        config::Severity::Off => None,
    }
}

/// The issue of a profile that is asked for and not known here.
fn unknown_profile(root: Node<'_>, profile: &str) -> Issue {
    Issue {
        severity: Severity::Error,
        code: IssueType::NotFound,
        rule: "validate.profile-unknown".into(),
        expression: Some(root.path()),
        position: Some(root.position()),
        text: "Expected the canonical of a profile that is among the packages of this gateway".to_owned(),
        about: Some(profile.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_fhir::tree::{Limits, Tree};
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn settings(severity: &[(&str, config::Severity)]) -> config::Check {
        config::Check {
            severity: severity.iter().map(|(id, severity)| ((*id).to_owned(), *severity)).collect::<BTreeMap<_, _>>(),
            ..config::Check::default()
        }
    }

    fn read(settings: &config::Check) -> Result<Rules, RulesError> {
        Rules::read(settings, &Sources::default())
    }

    fn found_by(rules: &Rules, asking: Asking<'_>, text: &str) -> Vec<(String, Severity)> {
        let tree = Tree::parse(text.to_owned().into(), &Limits::default()).unwrap();
        let issues = rules.report(tree.root(), asking).issues;
        issues.into_iter().map(|issue| (issue.rule.into_owned(), issue.severity)).collect()
    }

    fn found(settings: &config::Check, text: &str) -> Vec<(String, Severity)> {
        found_by(&read(settings).unwrap(), Asking::default(), text)
    }

    fn rule(id: &str, severity: Severity) -> (String, Severity) {
        (id.to_owned(), severity)
    }

    #[test]
    fn a_severity_is_set_by_rule_and_off_is_silence() {
        let text = r#"{"resourceType":"Patient","nonsense":1,"birthDate":"x"}"#;
        assert_eq!(
            found(&settings(&[]), text),
            [rule("structure.unknown-member", Severity::Error), rule("value.date", Severity::Error)]
        );
        let set = [("structure.unknown-member", config::Severity::Off), ("value.date", config::Severity::Warning)];
        assert_eq!(found(&settings(&set), text), [rule("value.date", Severity::Warning)]);
    }

    #[test]
    fn warnings_beyond_the_bound_hide_no_error_of_the_site() {
        let given = vec![r#""a\u0001""#; 1_500].join(",");
        let text = format!(
            r#"{{"resourceType":"Patient","name":[{{"given":[{given}]}}],"photo":[{{"contentType":"image/png"}}]}}"#
        );
        let errors =
            |settings: &config::Check| found(settings, &text).iter().filter(|it| it.1 == Severity::Error).count();
        let mut settings = settings(&[]);
        assert_eq!(errors(&settings), 0);
        settings.unknown_terminology.required = config::Unknown::Refuse;
        assert!(errors(&settings) > 0);
    }

    #[test]
    fn what_cannot_be_expanded_is_refused_if_the_site_says_so() {
        let text = r#"{"resourceType":"Patient","photo":[{"contentType":"image/png"}]}"#;
        let id = "binding.required-not-checked";
        let mut settings = settings(&[]);
        assert_eq!(found(&settings, text), [rule(id, Severity::Warning)]);
        settings.unknown_terminology.required = config::Unknown::Refuse;
        assert_eq!(found(&settings, text), [rule(id, Severity::Error)]);
    }

    #[test]
    fn unknown_and_fixed_rules_are_named() {
        let of = |id| read(&settings(&[(id, config::Severity::Off)])).map(drop).unwrap_err().to_string();
        assert_eq!(of("nonsense"), "check.severity: there is no rule `nonsense`");
        assert_eq!(of("limit.issues"), "check.severity: the severity of `limit.issues` is fixed");
        assert_eq!(of("limit.budget"), "check.severity: the severity of `limit.budget` is fixed");
    }

    #[test]
    fn a_pack_sets_severities_for_its_senders_over_those_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let pack = |name: &str, senders: &str, severity: &str| {
            let text =
                format!(r#"{{"id":"{name}","description":"d",{senders}"severity":{{"value.date":"{severity}"}}}}"#);
            std::fs::write(folder.path().join(format!("{name}.json")), text).unwrap();
        };
        let mut settings = settings(&[("value.date", config::Severity::Warning)]);
        settings.rules_dir = Some(folder.path().to_owned());
        let text = r#"{"resourceType":"Patient","birthDate":"x"}"#;
        let by = |rules: &Rules, sender| found_by(rules, Asking { sender, ..Asking::default() }, text);
        pack("a", r#""senders":["insurer"],"#, "off");
        let rules = read(&settings).unwrap();
        assert_eq!(by(&rules, None), [rule("value.date", Severity::Warning)]);
        assert_eq!(by(&rules, Some("hospital")), [rule("value.date", Severity::Warning)]);
        assert_eq!(by(&rules, Some("insurer")), []);
        pack("b", "", "information");
        pack("c", r#""tenants":["hospital-b"],"#, "error");
        let after = read(&settings).unwrap();
        assert_eq!(by(&after, None), [rule("value.date", Severity::Information)]);
        assert_eq!(by(&after, Some("insurer")), [rule("value.date", Severity::Information)]);
        assert!(after.id() != rules.id() && after.id() == read(&settings).unwrap().id());
    }

    #[test]
    fn a_check_that_ends_at_its_bound_refuses() {
        let patient = format!(r#"{{"resourceType":"Patient","name":[{}]}}"#, vec![r#"{"family":"x"}"#; 500].join(","));
        let mut settings = settings(&[]);
        assert_eq!(found(&settings, &patient), []);
        settings.budget.steps_max = 100;
        assert_eq!(found(&settings, &patient), [rule("limit.budget", Severity::Error)]);
        settings.budget = config::Budget { time_max: Duration::ZERO, ..config::Budget::default() };
        assert_eq!(found(&settings, &patient), [rule("limit.budget", Severity::Error)]);
    }
}
