//! Reads what `$validate` is asked (FHIR R4 resource-operation-validate.html).
//!
//! Takes: a body that can be held whole, a resource or Parameters with one, and what the URL says. Gives: the resource with
//! its place in the body, or the issue for which it is none: that a body can't be read is what was to be found out. Never:
//! makes a unit of it, so that nothing of it can be recorded.

use sluice_fhir::outcome::Issue;
use sluice_fhir::tree::{self, Node, Tree};

use super::entry::{self, malformed};
pub use super::limits::Limits;
use super::source::Source;
use super::unit::{Caller, Place};
use super::units::Format;
use crate::error::{Error, Kind, Refusal, Result};
use crate::store::spool::Spool;

/// What the resource is to be checked for (<http://hl7.org/fhir/R4/valueset-resource-validation-mode.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Whether it could be created.
    Create,
    /// Whether it could be updated to.
    Update,
    /// Whether it could be deleted.
    Delete,
    /// Whether it conforms to the profile.
    Profile,
}

impl Mode {
    fn of(code: &str) -> Option<Self> {
        match code {
            "create" => Some(Self::Create),
            "update" => Some(Self::Update),
            "delete" => Some(Self::Delete),
            "profile" => Some(Self::Profile),
            _ => None,
        }
    }
}

/// What the URL says.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// `[base]/[type]/$validate`
    pub resource_type: Option<String>,
    /// `[base]/[type]/[id]/$validate`
    pub id: Option<String>,
    /// `?mode=`
    pub mode: Option<String>,
    /// `?profile=`
    pub profile: Option<String>,
}

/// What was asked.
pub struct Asked {
    /// The resource; none if it can't be read, or if only a mode is asked about.
    pub resource: Option<Tree>,
    /// Where it stood in the body.
    pub place: Place,
    /// What is wrong before any rule is held.
    pub issues: Vec<Issue>,
    /// What it is to be checked for, beside the rules of its type.
    pub mode: Option<Mode>,
    /// The canonical of the profile that is named.
    pub profile: Option<String>,
}

/// Reads a body.
///
/// # Errors
/// 400 for parameters that the operation does not have, 413 or 415 for a body that is longer than one unit may be.
pub fn read(spool: Spool, format: Format, target: Target, limits: &Limits) -> Result<Asked> {
    let bytes_max = limits.transaction_bytes_max;
    // Parameters, a parameter and its resource stand around what was meant.
    let bounds = tree::Limits { bytes_max, depth_max: limits.depth_max.saturating_add(3), ..limits.tree() };
    let Target { resource_type, id, mode, profile } = target;
    let mut asked = Asked { resource: None, place: Place::body(), issues: Vec::new(), mode: None, profile };
    let mut mode = mode;
    let tree = match format {
        Format::Json => entry::parse(Source::new(spool)?.whole(bytes_max)?, &asked.place, &bounds).map(|it| it.0),
        Format::Xml => super::xml::read(spool, bytes_max, &bounds),
    };
    let tree = match tree {
        Ok(tree) => tree,
        Err(error) if error.kind() == Kind::Refusal(Refusal::Malformed) => {
            asked.issues = error.issues().to_vec();
            asked.mode = known_mode(mode.as_deref())?;
            return Ok(asked);
        }
        Err(error) => return Err(error),
    };
    if is_input(tree.root()) {
        for parameter in parameters(tree.root()) {
            asked.parameter(parameter, &mut mode, format, &bounds)?;
        }
    } else {
        asked.resource = Some(tree);
    }
    asked.mode = known_mode(mode.as_deref())?;
    match (&asked.resource, asked.mode) {
        (None, Some(Mode::Delete)) => {}
        (None, _) => return Err(no("validate.resource", "a resource, alone or as the parameter `resource`")),
        (Some(_), Some(Mode::Profile)) if asked.profile.is_none() => {
            return Err(no("validate.profile", "with the mode `profile`, the canonical of a profile"));
        }
        (Some(_), _) => asked.meant(resource_type.as_deref(), id.as_deref()),
    }
    Ok(asked)
}

impl Asked {
    /// Takes one parameter of the operation.
    fn parameter(
        &mut self,
        parameter: Node<'_>,
        mode: &mut Option<String>,
        format: Format,
        bounds: &tree::Limits,
    ) -> Result<()> {
        let name = parameter.member("name").and_then(Node::as_str).unwrap_or_default();
        let value = |kinds: &[&str]| kinds.iter().find_map(|kind| parameter.member(kind)).and_then(Node::as_str);
        let once = |is_first: bool| {
            if is_first {
                Ok(())
            } else {
                Err(no("validate.parameter", "each parameter once, in the URL or in the body"))
            }
        };
        match &*name {
            "resource" => {
                once(self.resource.is_none())?;
                let resource = parameter.member("resource").filter(|it| it.is_object());
                let resource =
                    resource.ok_or_else(|| no("validate.resource", "a resource in the parameter `resource`"))?;
                if format == Format::Json {
                    self.place.start = resource.position();
                }
                let part = resource.tree().part(resource.id(), bounds);
                self.resource = Some(part.map_err(|error| entry::syntax(&error, &self.place))?);
            }
            "mode" => {
                once(mode.is_none())?;
                let code = value(&["valueCode", "valueString"]);
                *mode = Some(code.ok_or_else(|| no("validate.mode", MODES))?.into_owned());
            }
            "profile" => {
                once(self.profile.is_none())?;
                let canonical = value(&["valueUri", "valueCanonical", "valueString"]);
                let canonical =
                    canonical.ok_or_else(|| no("validate.profile", "the canonical of a profile, as valueUri"))?;
                self.profile = Some(canonical.into_owned());
            }
            _ => return Err(no("validate.parameter", "the parameters `resource`, `mode` and `profile` only")),
        }
        Ok(())
    }

    /// Notes where the resource is not the one that the URL and the mode mean.
    fn meant(&mut self, resource_type: Option<&str>, id: Option<&str>) {
        let Some(tree) = &self.resource else { return };
        let found = tree.resource_type().unwrap_or("Resource");
        if resource_type.is_some_and(|wanted| wanted != found) {
            let path = "Resource.resourceType".to_owned();
            self.issues.extend(issues(&malformed(
                "http.type",
                "a resource of the type in the URL",
                path,
                self.place.start,
            )));
        }
        let own = tree.root().member("id").and_then(Node::as_str);
        let is_other = id.is_some_and(|id| own.as_deref() != Some(id));
        // FHIR R4 http.html#update: the resource SHALL contain an id that is the one in the URL.
        if is_other || (self.mode == Some(Mode::Update) && own.is_none()) {
            let text = if id.is_some() { "the id in the URL" } else { "an id, since an update names what it updates" };
            self.issues.extend(issues(&malformed("http.id", text, format!("{found}.id"), self.place.start)));
        }
    }

    /// Notes what its caller may not do, where that is what the mode asks.
    pub fn of_caller(&mut self, caller: &Caller) {
        let Some(resource_type) = self.resource.as_ref().and_then(Tree::resource_type) else { return };
        if matches!(self.mode, Some(Mode::Create | Mode::Update))
            && let Err(error) = caller.sends_there(resource_type, &self.place)
        {
            self.issues.extend(issues(&error));
        }
    }
}

const MODES: &str = "one of the modes `create`, `update`, `delete` and `profile`";

fn known_mode(code: Option<&str>) -> Result<Option<Mode>> {
    code.map(|code| Mode::of(code).ok_or_else(|| no("validate.mode", MODES))).transpose()
}

/// Whether Parameters are those of the operation, and not what is to be checked: one of them has the name of one of these.
fn is_input(root: Node<'_>) -> bool {
    let names = |name: &str| matches!(name, "resource" | "mode" | "profile");
    root.resource_type() == Some("Parameters")
        && parameters(root).any(|it| it.member("name").and_then(Node::as_str).is_some_and(|name| names(&name)))
}

fn parameters(root: Node<'_>) -> impl Iterator<Item = Node<'_>> {
    root.member("parameter").into_iter().flat_map(Node::items)
}

fn no(rule: &'static str, text: &'static str) -> Error {
    Error::refusal(Refusal::Malformed, rule, text)
}

fn issues(error: &Error) -> Vec<Issue> {
    error.issues().to_vec()
}
