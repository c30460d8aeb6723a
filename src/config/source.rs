//! The text of the settings and where each key of it stands.
//!
//! Takes TOML text; gives a value of the asked type with every error of form, each at its line. serde stops at its first
//! error: the key at fault is then taken out and the rest is read again, until nothing is left to complain about.
//! Never: repeats a value in an error, since it may be a secret put in the wrong place.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// Errors of form told at a time; whoever has more has handed in the wrong file.
const ERRORS_MAX: usize = 100;

/// The text of the settings, its keys, and what was found wrong so far.
pub(super) struct Source<'t> {
    text: &'t str,
    file: PathBuf,
    table: DeTable<'t>,
    /// Keys that were taken out because their value was in error: not to be reported as missing as well.
    removed: BTreeSet<String>,
    errors: Vec<ConfigError>,
}

/// A TOML value with its place.
type Placed<'t> = toml::Spanned<DeValue<'t>>;

impl<'t> Source<'t> {
    /// Reads `text` as a `T`; errors of form stay in the source, errors of syntax end the reading.
    pub(super) fn read<T: DeserializeOwned + Default>(
        text: &'t str,
        file: &Path,
    ) -> Result<(Self, T), Vec<ConfigError>> {
        let (table, syntax) = DeTable::parse_recoverable(text);
        let mut source = Self {
            text,
            file: file.to_owned(),
            table: table.into_inner(),
            removed: BTreeSet::new(),
            errors: Vec::new(),
        };
        if !syntax.is_empty() {
            for error in syntax.iter().take(ERRORS_MAX) {
                source.fail("-", error.span(), &expected(error.message()));
            }
            return Err(source.into_errors());
        }
        while source.errors.len() < ERRORS_MAX {
            let whole = toml::Spanned::new(0..text.len(), source.table.clone());
            match T::deserialize(toml::de::Deserializer::from(whole)) {
                Ok(value) => return Ok((source, value)),
                Err(error) => {
                    let taken = error.span().and_then(|span| take_out(&mut source.table, &span, ""));
                    let Some(key) = taken else {
                        source.fail("-", error.span(), &expected(error.message()));
                        break;
                    };
                    source.fail(&key, error.span(), &expected(error.message()));
                    source.removed.insert(key);
                }
            }
        }
        Err(source.into_errors())
    }

    /// The folder that relative paths start from.
    pub(super) fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }

    /// Was `key`, or what holds it, taken out because of an error that is already told?
    pub(super) fn is_removed(&self, key: &str) -> bool {
        self.removed.iter().any(|removed| {
            key.strip_prefix(removed.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// Is an error at `key`, or at what holds it, told already?
    pub(super) fn is_told(&self, key: &str) -> bool {
        self.is_removed(key) || self.errors.iter().any(|error| error.key == key)
    }

    /// Adds an error at `key`, or at the nearest table around it that is written down.
    pub(super) fn error(&mut self, key: &str, expected: &str) {
        let span = self.place(key);
        self.fail(key, span, expected);
    }

    /// All errors in the order of their places.
    pub(super) fn into_errors(mut self) -> Vec<ConfigError> {
        self.errors.sort_by(|a, b| (a.line, a.column, &a.key).cmp(&(b.line, b.column, &b.key)));
        self.errors
    }

    /// `Ok` if nothing was found wrong.
    pub(super) fn finish(self) -> Result<(), Vec<ConfigError>> {
        if self.errors.is_empty() { Ok(()) } else { Err(self.into_errors()) }
    }

    fn fail(&mut self, key: &str, span: Option<Range<usize>>, expected: &str) {
        let (line, column) = position(self.text, span.map_or(0, |span| span.start));
        self.errors.push(ConfigError {
            file: self.file.clone(),
            line,
            column,
            key: key.to_owned(),
            expected: expected.to_owned(),
        });
    }

    /// Where the key stands, or else the deepest part of its path that does.
    fn place(&self, key: &str) -> Option<Range<usize>> {
        let mut span = None;
        let mut table = &self.table;
        for part in key.split('.') {
            let (name, index) = match part.split_once('[') {
                Some((name, index)) => (name, index.trim_end_matches(']').parse::<usize>().ok()),
                None => (part, None),
            };
            let Some((name, value)) = table.get_key_value(name) else { break };
            let mut value = value;
            span = Some(name.span());
            if let Some(index) = index {
                let Some(item) = value.get_ref().as_array().and_then(|array| array.get(index)) else { break };
                span = Some(item.span());
                value = item;
            }
            let Some(inner) = value.get_ref().as_table() else { break };
            table = inner;
        }
        span
    }
}

/// Takes the innermost key out of `table` whose name or value stands at `span`, and gives its dotted name.
fn take_out(table: &mut DeTable<'_>, span: &Range<usize>, prefix: &str) -> Option<String> {
    let mut found = None;
    for (key, value) in table.iter_mut() {
        let path = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        if key.span() == *span {
            found = Some((key.clone(), path));
            break;
        }
        if let Some(inner) = take_out_of(value, span, &path) {
            return Some(inner);
        }
        if value.span() == *span || holds_scalar(value, span) {
            found = Some((key.clone(), path));
            break;
        }
    }
    let (key, path) = found?;
    table.remove(&key)?;
    Some(path)
}

/// The same below a value: in its table, or in the tables of its array.
fn take_out_of(value: &mut Placed<'_>, span: &Range<usize>, path: &str) -> Option<String> {
    match value.get_mut() {
        DeValue::Table(table) => take_out(table, span, path),
        DeValue::Array(items) => {
            items.iter_mut().enumerate().find_map(|(index, item)| take_out_of(item, span, &format!("{path}[{index}]")))
        }
        _ => None,
    }
}

/// Is one of the array's items at `span`? Its whole key is at fault then.
fn holds_scalar(value: &Placed<'_>, span: &Range<usize>) -> bool {
    value.get_ref().as_array().is_some_and(|items| items.iter().any(|item| item.span() == *span))
}

/// What serde or the parser expected, without what it found.
fn expected(message: &str) -> String {
    let message = message.trim();
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (name, known) = rest.split_once(", ").unwrap_or((rest, ""));
        let nearest = nearest(name.trim_matches('`'), known);
        let known = known.trim_start_matches("expected ").trim_start_matches("one of ").replace('`', "");
        return format!("no such key; {nearest}expected one of: {known}");
    }
    if message.starts_with("unknown variant")
        && let Some((_, known)) = message.split_once(", expected ")
    {
        return format!("expected {}", known.replace('`', "\""));
    }
    if message.starts_with("invalid ")
        && let Some((_, wanted)) = message.rsplit_once(", expected ")
    {
        let wanted = match wanted {
            "u32" => "a whole number, not negative",
            "a nonzero u32" => "a whole number from 1",
            other => other,
        };
        return format!("expected {wanted}");
    }
    match message {
        "invalid socket address syntax" => r#"expected an address and a port, as in "127.0.0.1:8443""#.to_owned(),
        "wanted string or table" => "expected a string".to_owned(),
        other => other.to_owned(),
    }
}

/// "did you mean `x`? " for the known name that is at most two changes away.
fn nearest(name: &str, known: &str) -> String {
    let nearest = known.split('`').skip(1).step_by(2).min_by_key(|candidate| distance(name, candidate));
    match nearest {
        Some(candidate) if distance(name, candidate) <= 2 => format!("did you mean {candidate}? "),
        _ => String::new(),
    }
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Line and column of a byte offset, both from 1, the column in characters.
fn position(text: &str, offset: usize) -> (u32, u32) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}
