//! Makes units of a body.
//!
//! Takes: a body in its spool. Gives: one [`Received`], or a [`Stream`] of them that is read twice: first to see that
//! all of it is well formed and who is in it, then, Patients first, to process it. Never: holds more of a stream than
//! one entry and what [`Neighbours`] keeps; gives a single unit of a stream that is not well formed to its end.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use sluice_fhir::tree::{self, Node, Position, Tree};

use super::entry::{self, Requests, malformed};
use super::limits::too_large;
pub use super::limits::{Limits, unreadable};
use super::neighbours::Neighbours;
use super::source::Source;
use super::split::{Piece, SplitError, Splitter};
use super::unit::{Context, Entry, Interaction, Place, Received, Shape};
use crate::error::{Error, Refusal, Result};
use crate::store::spool::Spool;

/// Bytes of the security labels of a Bundle.
const LABELS_BYTES_MAX: usize = 8 << 10;

/// A body as units.
pub enum Units {
    /// One unit.
    One(Box<Received>),
    /// Many, each accepted or refused for itself.
    Many(Box<Stream>),
}

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// FHIR's JSON.
    Json,
    /// FHIR's XML.
    Xml,
}

/// Reads a resource that was sent alone to `[base]/[type]` or `[base]/[type]/[id]`.
///
/// # Errors
/// 400 for what is not one resource of this type; 403 for what the caller may not send; 413 beyond the limits.
pub fn resource(
    spool: Spool,
    format: Format,
    resource_type: &str,
    interaction: Interaction,
    context: Context,
    limits: &Limits,
) -> Result<Received> {
    let place = Place::body();
    let (tree, found) = match format {
        Format::Json => {
            let text = Source::new(spool)?.whole(limits.resource_bytes_max)?;
            entry::parse(text, &place, &limits.tree())?
        }
        Format::Xml => {
            let tree = super::xml::read(spool, limits.resource_bytes_max, &limits.tree())?;
            let found = entry::resource_type(&tree, &place)?;
            (tree, found)
        }
    };
    if &*found != resource_type {
        let text = "a resource of the type in the URL";
        return Err(malformed("http.type", text, "Resource.resourceType".to_owned(), place.start));
    }
    if let Interaction::Update { id, .. } = &interaction {
        // FHIR R4 http.html#update: the resource SHALL contain an id that is the one in the URL.
        if tree.root().member("id").and_then(Node::as_str).as_deref() != Some(id) {
            return Err(malformed("http.id", "the id in the URL", format!("{found}.id"), place.start));
        }
    }
    let shape = if is_sealed_bundle(&tree) { Shape::Sealed } else { Shape::Single };
    let entry = Entry { tree, resource_type: found, interaction, full_url: None, place };
    Received::new(context, shape, vec![entry])
}

fn is_sealed_bundle(tree: &Tree) -> bool {
    let kind = tree.root().member("type").and_then(Node::as_str);
    tree.resource_type() == Some("Bundle") && matches!(kind.as_deref(), Some("document" | "message"))
}

/// Reads a Bundle that was sent to `[base]`.
///
/// # Errors
/// 400 for what is not such a Bundle, at its first fault; 403 for a unit that the caller may not send; 413 beyond the
/// limits.
pub fn bundle(spool: Spool, format: Format, context: Context, limits: Limits) -> Result<Units> {
    if format == Format::Xml {
        return whole_bundle(spool, context, limits);
    }
    let source = Source::new(spool)?;
    let mut scan = Scan::default();
    let mut splitter = Splitter::new(limits.split());
    let mut pieces = Vec::new();
    for chunk in source.chunks() {
        splitter.feed(&chunk?, &mut pieces).map_err(|error| unsplit(&error))?;
        for piece in pieces.drain(..) {
            scan.piece(&source, piece, &limits)?;
        }
    }
    splitter.finish().map_err(|error| unsplit(&error))?;
    scan.units(source, context, limits)
}

/// Reads a Bundle in XML, which is held whole whatever its type.
fn whole_bundle(spool: Spool, context: Context, limits: Limits) -> Result<Units> {
    let bounds = tree::Limits { depth_max: limits.depth_max.saturating_add(3), ..limits.tree() };
    let tree = super::xml::read(spool, limits.transaction_bytes_max, &bounds)?;
    let mut scan = Scan::default();
    for member in tree.root().members() {
        let name = member.name().unwrap_or_default();
        if name == "entry" {
            scan.entries = member.items().count();
            if scan.entries > limits.entries_max {
                let text = format!("a Bundle of at most {} entries", limits.entries_max);
                return Err(entry::refusal(
                    Refusal::TooLarge,
                    "limits.entries",
                    text,
                    "Bundle".to_owned(),
                    member.position(),
                ));
            }
        } else {
            scan.value(name, member, member.position())?;
        }
    }
    scan.units(Source::Tree(Box::new(tree)), context, limits)
}

/// What the first pass over a Bundle has found.
#[derive(Default)]
struct Scan {
    is_bundle: bool,
    kind: Option<String>,
    /// The JSON of `meta.security`.
    labels: Option<Arc<str>>,
    /// The entries, while they may still be those of a transaction.
    texts: Vec<(Bytes, Position)>,
    dropped: bool,
    entries: usize,
}

impl Scan {
    fn piece(&mut self, source: &Source, piece: Piece, limits: &Limits) -> Result<()> {
        match piece {
            Piece::Member { name, text, at } => self.member(&name, &text, at, limits),
            Piece::Entry { text, at, .. } => {
                self.entries += 1;
                // What is in memory anyway costs nothing to keep; of what is on disk only a transaction is kept.
                let keep = match self.kind.as_deref() {
                    Some("transaction") => source.len() <= limits.transaction_bytes_max as u64,
                    Some(_) => false,
                    None => source.is_in_memory(),
                };
                if keep && !self.dropped {
                    self.texts.push((text, at));
                } else {
                    self.dropped = true;
                    self.texts = Vec::new();
                }
                Ok(())
            }
        }
    }

    fn member(&mut self, name: &str, text: &Bytes, at: Position, limits: &Limits) -> Result<()> {
        let place = Place { start: at, index: None, prefix: format!("Bundle.{name}") };
        let tree = Tree::parse(text.clone(), &limits.tree()).map_err(|error| entry::syntax(&error, &place))?;
        self.value(name, tree.root(), at)
    }

    fn value(&mut self, name: &str, value: Node<'_>, at: Position) -> Result<()> {
        match name {
            "resourceType" => self.is_bundle = value.as_str().as_deref() == Some("Bundle"),
            "type" => self.kind = value.as_str().map(std::borrow::Cow::into_owned),
            "implicitRules" | "_implicitRules" => {
                let text = "no implicitRules, since rules that are not known can't be kept";
                return Err(malformed("bundle.implicit-rules", text, format!("Bundle.{name}"), at));
            }
            "meta" if value.is_object() => self.labels = labels(value, at)?,
            "meta" => {
                // Labels that are not seen would be labels that do not hold.
                return Err(malformed("bundle.meta", "one meta, an object", "Bundle.meta".to_owned(), at));
            }
            "id" | "language" | "identifier" | "timestamp" | "total" | "link" | "signature" | "_id" | "_language"
            | "_timestamp" | "_total" | "_type" => {}
            _ => {
                let text = "a member that FHIR R4 gives a Bundle";
                return Err(malformed("structure.unknown-member", text, "Bundle".to_owned(), at));
            }
        }
        Ok(())
    }

    fn units(mut self, source: Source, mut context: Context, limits: Limits) -> Result<Units> {
        let start = Place::body().start;
        let no = |rule, text, path: &str| Err(malformed(rule, text, path.to_owned(), start));
        if !self.is_bundle {
            return no("http.bundle", "a Bundle; other resources go to [base]/[type]", "Resource.resourceType");
        }
        // Of a document or a message they are its own, since it is kept whole.
        if matches!(self.kind.as_deref(), Some("transaction" | "batch" | "collection")) {
            context.labels = self.labels.take();
        }
        match self.kind.as_deref() {
            Some("transaction") => self.transaction(&source, context, &limits),
            Some("batch") => {
                Stream::new(source, context, limits, Form::Bundle(Requests::Required)).map(Box::new).map(Units::Many)
            }
            Some("collection") => {
                Stream::new(source, context, limits, Form::Bundle(Requests::Absent)).map(Box::new).map(Units::Many)
            }
            Some("document" | "message") => {
                let place = Place::body();
                let (tree, resource_type) = if let Source::Tree(tree) = source {
                    let resource_type = entry::resource_type(&tree, &place)?;
                    (*tree, resource_type)
                } else {
                    let text = source.whole(limits.transaction_bytes_max)?;
                    let bounds = tree::Limits { bytes_max: limits.transaction_bytes_max, ..limits.tree() };
                    entry::parse(text, &place, &bounds)?
                };
                let interaction = Interaction::Keep;
                let entry = Entry { tree, resource_type, interaction, full_url: None, place };
                Received::new(context, Shape::Sealed, vec![entry]).map(Box::new).map(Units::One)
            }
            Some("history" | "searchset" | "batch-response" | "transaction-response") => no(
                "bundle.type",
                "a Bundle that is sent: transaction, batch, collection, document or message",
                "Bundle.type",
            ),
            Some(_) => no("bundle.type", "a code of http://hl7.org/fhir/ValueSet/bundle-type", "Bundle.type"),
            None => no("bundle.type", "a Bundle with a type", "Bundle"),
        }
    }

    fn transaction(self, source: &Source, context: Context, limits: &Limits) -> Result<Units> {
        if source.len() > limits.transaction_bytes_max as u64 {
            return Err(too_large(limits.transaction_bytes_max));
        }
        let bounds = limits.tree();
        if let Source::Tree(tree) = source {
            let entries: Result<Vec<_>> =
                parts(tree).map(|(index, node)| entry::part(node, index, Requests::Required, &bounds)).collect();
            return Received::new(context, Shape::Transaction, entries?).map(Box::new).map(Units::One);
        }
        let mut texts = self.texts;
        if self.dropped {
            // `type` came after `entry`: once more, now that it is known.
            texts = Vec::with_capacity(self.entries);
            pieces(source, limits, |text, _, at| {
                texts.push((text, at));
                Ok(())
            })?;
        }
        let mut entries = Vec::with_capacity(texts.len());
        for (index, (text, at)) in texts.into_iter().enumerate() {
            entries.push(entry::read(&text, index, at, Requests::Required, &bounds)?);
        }
        Received::new(context, Shape::Transaction, entries).map(Box::new).map(Units::One)
    }
}

/// The security labels of a Bundle's `meta`, as they stand there: who decides by them reads them, and what can't be read
/// then is not relied on.
fn labels(meta: Node<'_>, at: Position) -> Result<Option<Arc<str>>> {
    let Some(security) = meta.member("security") else { return Ok(None) };
    let text = "meta.security of at most 8 KiB, since it is kept with every entry";
    let too_large =
        || entry::refusal(Refusal::TooLarge, "limits.labels", text.to_owned(), "Bundle.meta.security".to_owned(), at);
    let text = std::str::from_utf8(security.raw()).ok().filter(|text| text.len() <= LABELS_BYTES_MAX);
    text.map(|text| Some(text.into())).ok_or_else(too_large)
}

/// How a stream is cut.
#[derive(Debug, Clone, Copy)]
enum Form {
    Bundle(Requests),
    Lines,
}

/// A batch, a collection or NDJSON: known to be well formed to its end.
pub struct Stream {
    source: Source,
    context: Context,
    limits: Limits,
    form: Form,
    neighbours: Arc<Neighbours>,
    patients: Patients,
    len: usize,
}

/// Which of the entries are Patients: a bit each.
#[derive(Default)]
struct Patients(Vec<u64>);

impl Patients {
    fn push(&mut self, index: usize, is_patient: bool) {
        // Blank lines have numbers too, so the next one may be some words further on.
        while self.0.len() <= index / 64 {
            self.0.push(0);
        }
        if is_patient {
            self.0[index / 64] |= 1 << (index % 64);
        }
    }

    fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|bits| bits >> (index % 64) & 1 == 1)
    }
}

/// Which entries of a stream are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The Patients: first, so that whoever speaks about one later in the stream, or earlier, finds it known.
    Patients,
    /// All the others.
    Others,
}

/// Reads NDJSON that was sent to `[base]/$ingest`.
///
/// # Errors
/// 400 for the first line that is not a resource; 413 beyond the limits.
pub fn lines(spool: Spool, context: Context, limits: Limits) -> Result<Stream> {
    Stream::new(Source::new(spool)?, context, limits, Form::Lines)
}

impl Stream {
    fn new(source: Source, context: Context, limits: Limits, form: Form) -> Result<Self> {
        let mut neighbours = Neighbours::default();
        let mut patients = Patients::default();
        let mut len = 0;
        let mut hasher = Sha256::new_with_prefix(b"sluice-stream-1\0");
        each(
            &source,
            &limits,
            form,
            |_| true,
            |index, entry| {
                patients.push(index, &*entry.resource_type == "Patient");
                if let Some(full_url) = entry.full_url.as_deref().filter(|url| url.starts_with("urn:")) {
                    neighbours.insert(full_url, &entry.resource_type, uuid::Uuid::new_v4());
                }
                if matches!(form, Form::Bundle(_)) {
                    let asked = format!("{:?} {:?}", entry.interaction, entry.full_url);
                    for part in [asked.as_bytes(), entry.tree.bytes()] {
                        hasher.update((part.len() as u64).to_be_bytes());
                        hasher.update(part);
                    }
                }
                len = index + 1;
                Ok(())
            },
        )?;
        // The lines of NDJSON have no names by which others could mean them.
        neighbours.set_digest(matches!(form, Form::Bundle(_)).then(|| hasher.finalize().into()));
        Ok(Self { source, context, limits, form, neighbours: Arc::new(neighbours), patients, len })
    }

    /// How many units it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The context that every unit of it gets.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Hands the units of one pass to `take`, in the order sent, with their number; or why the caller may not send it.
    ///
    /// # Errors
    /// What `take` gives, or an outage if the spool cannot be read.
    pub fn each(&self, pass: Pass, mut take: impl FnMut(usize, Result<Received>) -> Result<()>) -> Result<()> {
        let wanted = |index| self.patients.contains(index) == (pass == Pass::Patients);
        each(&self.source, &self.limits, self.form, wanted, |index, entry| {
            let mut context = self.context.clone();
            // Each unit of a stream has an answer of its own, so a key of its own.
            context.idempotency_key = context.idempotency_key.map(|key| format!("{key}/{index}").into());
            let unit = Received::new(context, Shape::Single, vec![entry]);
            take(index, unit.map(|unit| unit.among(Arc::clone(&self.neighbours))))
        })
    }
}

/// Reads the entries that are wanted, by their number.
fn each(
    source: &Source,
    limits: &Limits,
    form: Form,
    wanted: impl Fn(usize) -> bool,
    mut take: impl FnMut(usize, Entry) -> Result<()>,
) -> Result<()> {
    let bounds = limits.tree();
    match (form, source) {
        (Form::Bundle(requests), Source::Tree(tree)) => parts(tree).try_for_each(|(index, node)| {
            if wanted(index) { take(index, entry::part(node, index, requests, &bounds)?) } else { Ok(()) }
        }),
        (Form::Bundle(requests), _) => pieces(source, limits, |text, index, at| {
            if wanted(index) { take(index, entry::read(&text, index, at, requests, &bounds)?) } else { Ok(()) }
        }),
        (Form::Lines, _) => super::lines::each(source, limits, |index, text| {
            if !wanted(index) {
                return Ok(());
            }
            let place = Place::line(index);
            let (tree, resource_type) = entry::parse(text, &place, &bounds)?;
            take(index, Entry { tree, resource_type, interaction: Interaction::Keep, full_url: None, place })
        }),
    }
}

/// The elements of `entry` of a Bundle that was read whole.
fn parts(bundle: &Tree) -> impl Iterator<Item = (usize, Node<'_>)> {
    bundle.root().member("entry").into_iter().flat_map(Node::items).enumerate()
}

/// Hands each element of `entry` on with its number and place.
fn pieces(source: &Source, limits: &Limits, mut take: impl FnMut(Bytes, usize, Position) -> Result<()>) -> Result<()> {
    let mut splitter = Splitter::new(limits.split());
    let mut pieces = Vec::new();
    for chunk in source.chunks() {
        splitter.feed(&chunk?, &mut pieces).map_err(|error| unsplit(&error))?;
        for piece in pieces.drain(..) {
            if let Piece::Entry { index, text, at } = piece {
                take(text, index, at)?;
            }
        }
    }
    Ok(())
}

fn unsplit(error: &SplitError) -> Error {
    let at = error.at();
    let (refusal, rule) = match error {
        SplitError::TooDeep { .. } => (Refusal::Malformed, "limits.depth"),
        SplitError::TooLarge { .. } => (Refusal::TooLarge, "limits.resource"),
        SplitError::TooMany { .. } => (Refusal::TooLarge, "limits.entries"),
        SplitError::Expected { .. } | SplitError::Truncated { .. } => (Refusal::Malformed, "json"),
        SplitError::DuplicateMember { .. } => (Refusal::Malformed, "json"),
    };
    entry::refusal(refusal, rule, error.to_string(), "Bundle".to_owned(), at)
}
