//! AuditEvent: who used what, for what purpose, in the shape of IHE's Basic Audit Log Patterns (BALP 1.1).

use fhir_sdk::r4b::codes::{AuditEventAction, AuditEventAgentNetworkType, AuditEventOutcome};
use fhir_sdk::r4b::resources::{
    AuditEvent as Typed, AuditEventAgent, AuditEventAgentNetwork, AuditEventEntity, AuditEventSource, Resource,
};
use fhir_sdk::r4b::types::{Coding, Reference};

use crate::{AuthorError, DEVICE_SYSTEM, INSTITUTION_SYSTEM, coding, concept, json, literal, logical, missing};

const ENTITY_TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
const ENTITY_ROLE: &str = "http://terminology.hl7.org/CodeSystem/object-role";

/// What an AuditEvent says.
#[derive(Debug, Clone, Copy)]
pub struct AuditEvent<'a> {
    /// What was done.
    pub interaction: Interaction,
    /// When it was recorded: RFC 3339.
    pub recorded: &'a str,
    /// How it ended.
    pub outcome: Outcome,
    /// Who asked.
    pub client: Agent<'a>,
    /// The institution whose gateway answered.
    pub institution: &'a str,
    /// The purpose of use (v3 PurposeOfUse), if it was given.
    pub purpose: Option<&'a str>,
    /// References to the resources that were used.
    pub resources: &'a [String],
    /// A reference to the patient whom they are about, or none.
    pub patient: Option<&'a str>,
    /// What the caller named the request.
    pub request_id: Option<&'a str>,
}

/// Who asked.
#[derive(Debug, Clone, Copy)]
pub struct Agent<'a> {
    /// The institution's id, as on the ledger.
    pub institution: &'a str,
    /// The device or client within it.
    pub device: Option<&'a str>,
    /// Its IP address.
    pub address: Option<&'a str>,
}

/// What was done (FHIR R4 restful-interaction).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interaction {
    /// A resource was created.
    Create,
    /// A resource was changed.
    Update,
    /// A resource was read.
    Read,
    /// Resources were searched for.
    Search,
    /// A transaction was processed.
    Transaction,
}

/// How it ended (FHIR R4 audit-event-outcome).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Success,
    /// Refused to the caller.
    MinorFailure,
    /// Not answered by a peer.
    SeriousFailure,
}

/// The JSON of an AuditEvent without `id`, which whoever stores it assigns.
///
/// # Errors
/// If `recorded` is no instant.
pub fn audit_event(about: &AuditEvent<'_>) -> Result<Vec<u8>, AuthorError> {
    let outcome = match about.outcome {
        Outcome::Success => AuditEventOutcome::N0,
        Outcome::MinorFailure => AuditEventOutcome::N4,
        Outcome::SeriousFailure => AuditEventOutcome::N8,
    };
    let observer = || logical("Organization", INSTITUTION_SYSTEM, about.institution);
    let mut event = Typed::builder()
        .r#type(coding("http://terminology.hl7.org/CodeSystem/audit-event-type", "rest", "RESTful Operation")?)
        .subtype(vec![Some(about.interaction.subtype()?)])
        .action(about.interaction.action())
        .recorded(about.recorded.parse().map_err(|_| AuthorError("`recorded` is no instant"))?)
        .outcome(outcome)
        .agent(vec![Some(client(about)?), Some(server(about, observer()?)?)])
        .source(AuditEventSource::builder().observer(observer()?).build().map_err(missing)?)
        .entity(entities(about)?);
    if let Some(purpose) = about.purpose {
        // The code's display is in its code system; here its code says it all.
        let system = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
        let coding = Coding::builder().system(system.to_owned()).code(purpose.to_owned()).build().map_err(missing)?;
        let concept = fhir_sdk::r4b::types::CodeableConcept::builder().coding(vec![Some(coding)]);
        event = event.purpose_of_event(vec![Some(concept.build().map_err(missing)?)]);
    }
    json(&Resource::AuditEvent(event.build().map_err(missing)?))
}

impl Interaction {
    fn subtype(self) -> Result<Coding, AuthorError> {
        let (code, display) = match self {
            Self::Create => ("create", "create"),
            Self::Update => ("update", "update"),
            Self::Read => ("read", "read"),
            Self::Search => ("search", "search"),
            Self::Transaction => ("transaction", "transaction"),
        };
        coding("http://hl7.org/fhir/restful-interaction", code, display)
    }

    fn action(self) -> AuditEventAction {
        match self {
            Self::Create => AuditEventAction::C,
            Self::Update => AuditEventAction::U,
            Self::Read => AuditEventAction::R,
            Self::Search | Self::Transaction => AuditEventAction::E,
        }
    }

    /// Whether data flows from the client to us.
    fn inward(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Transaction)
    }
}

/// BALP: the client is the source of what it writes, and the destination of what it reads.
fn role(source: bool) -> Result<fhir_sdk::r4b::types::CodeableConcept, AuthorError> {
    let (code, display) = if source { ("110153", "Source Role ID") } else { ("110152", "Destination Role ID") };
    concept("http://dicom.nema.org/resources/ontology/DCM", code, display)
}

fn client(about: &AuditEvent<'_>) -> Result<AuditEventAgent, AuthorError> {
    let who = match about.client.device {
        Some(device) => logical("Device", DEVICE_SYSTEM, &format!("{}/{device}", about.client.institution))?,
        None => logical("Organization", INSTITUTION_SYSTEM, about.client.institution)?,
    };
    let mut agent = AuditEventAgent::builder().r#type(role(about.interaction.inward())?).who(who).requestor(true);
    if let Some(address) = about.client.address {
        let network = AuditEventAgentNetwork::builder()
            .address(address.to_owned())
            .r#type(AuditEventAgentNetworkType::N2)
            .build()
            .map_err(missing)?;
        agent = agent.network(network);
    }
    agent.build().map_err(missing)
}

fn server(about: &AuditEvent<'_>, who: Reference) -> Result<AuditEventAgent, AuthorError> {
    let agent = AuditEventAgent::builder().r#type(role(!about.interaction.inward())?).who(who).requestor(false);
    agent.build().map_err(missing)
}

fn entities(about: &AuditEvent<'_>) -> Result<Vec<Option<AuditEventEntity>>, AuthorError> {
    let mut entities = Vec::with_capacity(about.resources.len() + 2);
    for resource in about.resources {
        let entity = AuditEventEntity::builder()
            .what(literal(resource)?)
            .r#type(coding(ENTITY_TYPE, "2", "System Object")?)
            .role(coding(ENTITY_ROLE, "4", "Domain Resource")?);
        entities.push(Some(entity.build().map_err(missing)?));
    }
    if let Some(patient) = about.patient {
        let entity = AuditEventEntity::builder()
            .what(literal(patient)?)
            .r#type(coding(ENTITY_TYPE, "1", "Person")?)
            .role(coding(ENTITY_ROLE, "1", "Patient")?);
        entities.push(Some(entity.build().map_err(missing)?));
    }
    if let Some(request_id) = about.request_id {
        let identifier = fhir_sdk::r4b::types::Identifier::builder().value(request_id.to_owned());
        let what = Reference::builder().identifier(identifier.build().map_err(missing)?).build().map_err(missing)?;
        let system = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType";
        let entity = AuditEventEntity::builder().what(what).r#type(coding(system, "XrequestId", "X-Request-Id")?);
        entities.push(Some(entity.build().map_err(missing)?));
    }
    Ok(entities)
}
