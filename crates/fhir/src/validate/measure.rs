//! Measures, whose criteria are defined in their libraries, and MeasureReports, whose groups, populations, stratifiers and scores are
//! those of their Measure (FHIR R4 measurereport.html). A Measure or Library that is not at hand is not checked against.

use super::reference::Scope;
use super::rules::{self, Rule};
use super::walk::Walk;
use crate::package::{items, text};
use crate::profile::value::decimal;
use crate::tree::{Node, Tree};

/// What a measure observes in its populations is no population of a report.
const OBSERVATION: (&str, &str) = ("http://terminology.hl7.org/CodeSystem/measure-population", "measure-observation");

impl<'t> Walk<'_, 't> {
    /// The criteria of stratifiers in CQL are defined by one of the measure's libraries.
    pub(super) fn measure(&mut self, measure: Node<'t>) {
        let Some(library) = self.profiles.as_ref().map(|profiles| profiles.library) else { return };
        let libraries: Vec<_> = items(measure, "library")
            .filter_map(Node::as_str)
            .filter_map(|canonical| library.document("Library", &canonical))
            .collect();
        // Without any of them there is nothing to hold it against.
        if libraries.is_empty() && measure.member("library").is_some() {
            return;
        }
        let trees: Vec<&Tree> = libraries.iter().map(AsRef::as_ref).collect();
        for stratifier in items(measure, "group").flat_map(|group| items(group, "stratifier")) {
            let components = items(stratifier, "component").filter_map(|component| component.member("criteria"));
            for criteria in stratifier.member("criteria").into_iter().chain(components) {
                if matches!(text(criteria, "language").as_deref(), Some("text/cql" | "text/cql.identifier")) {
                    if self.is_full() {
                        return;
                    }
                    self.cql(criteria, &trees);
                }
            }
        }
    }

    fn cql(&mut self, criteria: Node<'t>, libraries: &[&Tree]) {
        let Some(expression) = text(criteria, "expression") else { return };
        let mut wrong = |expected: &str| self.issue(&rules::MEASURE_CQL, criteria, expected);
        let (found, name) = match expression.split_once('.') {
            _ if libraries.is_empty() => {
                return wrong("Expected a library that the measure names: it has criteria in CQL");
            }
            Some((library, name)) => {
                let named = |tree: &&&Tree| tree.root().member("name").is_some_and(|own| own.is_str(library));
                (libraries.iter().find(named), name)
            }
            None if libraries.len() == 1 => (libraries.first(), &*expression),
            None => return wrong("Expected the name of the library before the name of the expression"),
        };
        let Some(library) = found else { return wrong("Expected the name of one of the measure's libraries") };
        let elm = items(library.root(), "content")
            .find(|content| content.member("contentType").is_some_and(|at| at.is_str("application/elm+xml")));
        let Some(data) = elm.and_then(|content| text(content, "data")) else {
            return wrong("Expected a library with its compiled form (ELM in XML)");
        };
        if !defines(&data, name) {
            wrong("Expected an expression that the library defines");
        }
    }

    /// A report against its Measure, which is contained or one of the packages'.
    pub(super) fn measure_report(&mut self, report: Node<'t>, scope: Scope<'t>) {
        let Some(canonical) = report.member("measure").and_then(Node::as_str) else { return };
        if let Some(id) = canonical.strip_prefix('#') {
            let found =
                items(scope.container, "contained").find(|one| one.member("id").is_some_and(|own| own.is_str(id)));
            if let Some(measure) = found.filter(|found| found.resource_type() == Some("Measure")) {
                self.groups(report, measure);
            }
            return;
        }
        let found = self.profiles.as_ref().and_then(|profiles| profiles.library.document("Measure", &canonical));
        if let Some(tree) = found {
            self.groups(report, tree.root());
        }
    }

    fn groups(&mut self, report: Node<'t>, measure: Node<'_>) {
        let defined: Vec<Node<'_>> = items(measure, "group").collect();
        let given: Vec<Node<'t>> = items(report, "group").collect();
        // What is not ready yet, or has failed, has none.
        let is_open = report.member("status").is_some_and(|at| at.is_str("pending") || at.is_str("error"));
        if defined.is_empty() || is_open {
            return;
        }
        if let ([group], [of]) = (&*given, &*defined) {
            // The only group needs no code; if it has one, it is that of the measure.
            if let (Some(own), Some(code)) = (group.member("code"), of.member("code"))
                && !is_same(own, code)
            {
                self.differs_from_measure(*group, "Expected the code that the measure's group has");
            }
            return self.group_of(report, measure, *group, *of);
        }
        let mut done = vec![false; defined.len()];
        for group in given {
            if self.is_full() {
                return;
            }
            let found = group.member("code").and_then(|own| find(own, &defined));
            match found {
                Some(place) if done[place] => {
                    self.differs_from_measure(group, "Expected each group of the measure once");
                }
                Some(place) => {
                    done[place] = true;
                    self.group_of(report, measure, group, defined[place]);
                }
                None => self.differs_from_measure(group, "Expected the code of one of the measure's groups"),
            }
        }
        let collects = report.member("type").is_some_and(|at| at.is_str("data-collection"));
        if done.contains(&false) && !collects {
            self.differs_from_measure(report, "Expected a group for each group of the measure");
        }
    }

    fn group_of(&mut self, report: Node<'t>, measure: Node<'_>, group: Node<'t>, of: Node<'_>) {
        let lists = report.member("type").is_some_and(|at| at.is_str("subject-list"));
        self.measured(group, of, "population", |walk, population| {
            if population.member("subjectResults").is_some() && !lists {
                let text = "Expected no lists of subjects: the report is not of the type subject-list";
                walk.differs_from_measure(population, text);
            }
            let count = population.member("count").and_then(Node::number).and_then(|count| count.parse::<usize>().ok());
            if let (true, Some(count), Some(listed)) = (lists, count, listed(population))
                && count != listed
            {
                walk.differs_from_measure(population, "Expected as many subjects as the count says");
            }
        });
        self.score(report, measure, group);
        self.measured(group, of, "stratifier", |_, _| {});
    }

    /// The populations or stratifiers of a group: each is one of the measure's, and all of those are there.
    fn measured(&mut self, group: Node<'t>, of: Node<'_>, name: &str, mut each: impl FnMut(&mut Self, Node<'t>)) {
        let defined: Vec<Node<'_>> = items(of, name).collect();
        let mut done = vec![false; defined.len()];
        for part in items(group, name) {
            if self.is_full() {
                return;
            }
            let code = if name == "stratifier" {
                items(part, "code").next().or(part.member("code"))
            } else {
                part.member("code")
            };
            match code.and_then(|own| find(own, &defined)) {
                Some(place) if done[place] => {
                    self.differs_from_measure(part, format!("Expected each {name} of the measure's group once"));
                }
                Some(place) => {
                    done[place] = true;
                    each(self, part);
                }
                None => self
                    .differs_from_measure(part, format!("Expected the code of a {name} that the measure's group has")),
            }
        }
        let is_missing = |(of, done): (&Node<'_>, &bool)| {
            let observes = of.member("code").is_some_and(|code| {
                items(code, "coding").any(|coding| {
                    coding.member("system").is_some_and(|at| at.is_str(OBSERVATION.0))
                        && coding.member("code").is_some_and(|at| at.is_str(OBSERVATION.1))
                })
            });
            !done && !observes
        };
        if defined.iter().zip(&done).any(is_missing) {
            self.differs_from_measure(group, format!("Expected a {name} for each {name} of the measure's group"));
        }
    }

    /// The score is of the kind that the measure's scoring has.
    fn score(&mut self, report: Node<'t>, measure: Node<'_>, group: Node<'t>) {
        let score = group.member("measureScore");
        let scoring = measure.member("scoring").and_then(|scoring| text(items(scoring, "coding").next()?, "code"));
        let collects = report.member("type").is_some_and(|at| at.is_str("data-collection"));
        match (scoring.as_deref(), score) {
            (scoring, Some(score)) if collects || scoring == Some("cohort") => {
                self.differs_from_measure(score, "Expected no score in a report of this type");
            }
            (Some("proportion" | "ratio" | "continuous-variable"), None) if !collects => {
                self.differs_from_measure(group, "Expected a score, since the measure has one");
            }
            (Some(scoring @ ("proportion" | "ratio" | "continuous-variable")), Some(score)) => {
                let value = score.member("value").and_then(decimal);
                if value.is_none() && score.member("extension").is_none() {
                    self.differs_from_measure(score, "Expected a score with a value");
                }
                if scoring == "proportion" {
                    for name in ["unit", "system", "code"] {
                        if let Some(member) = score.member(name) {
                            self.differs_from_measure(member, "Expected no unit: a proportion has none");
                        }
                    }
                    let (zero, one) = (0.into(), 1.into());
                    if let (Some(value), Some(at)) = (value, score.member("value"))
                        && !(zero..=one).contains(&value)
                    {
                        self.differs_from_measure(at, "Expected a proportion: a value from 0 to 1");
                    }
                }
            }
            _ => {}
        }
    }

    fn differs_from_measure(&mut self, node: Node<'t>, text: impl Into<String>) {
        const RULE: &Rule = &rules::MEASURE_REPORT;
        self.issue(RULE, node, text);
    }
}

/// Whether two concepts have a coding in common, or, both without codings, a text.
fn is_same(own: Node<'_>, code: Node<'_>) -> bool {
    let mut codings = items(own, "coding").peekable();
    if codings.peek().is_none() && items(code, "coding").next().is_none() {
        return text(own, "text").is_some_and(|own| text(code, "text").as_ref() == Some(&own));
    }
    codings.any(|own| {
        items(code, "coding").any(|of| {
            text(own, "code").is_some() && ["system", "code"].iter().all(|name| text(own, name) == text(of, name))
        })
    })
}

/// The one of a measure's parts that has a code.
fn find(own: Node<'_>, defined: &[Node<'_>]) -> Option<usize> {
    defined.iter().position(|of| of.member("code").is_some_and(|code| is_same(own, code)))
}

/// How many subjects a population lists, where its references tell.
fn listed(population: Node<'_>) -> Option<usize> {
    let lists: Vec<Node<'_>> = match population.member("subjectResults") {
        Some(one) if one.is_object() => vec![one],
        _ => items(population, "subjectResults").collect(),
    };
    let mut count = 0;
    for list in lists {
        let reference = text(list, "reference")?;
        if let Some(id) = reference.strip_prefix('#') {
            let resource = population.resource()?;
            let contained =
                items(resource, "contained").find(|one| one.member("id").is_some_and(|own| own.is_str(id)))?;
            count += match contained.resource_type()? {
                "List" => items(contained, "entry").count(),
                _ => return None,
            };
        } else {
            let name = reference.split_once('/').map(|(name, _)| name)?;
            matches!(name, "Patient" | "Practitioner" | "Person" | "PractitionerRole" | "RelatedPerson")
                .then_some(())?;
            count += 1;
        }
    }
    (population.member("subjectResults").is_some()).then_some(count)
}

/// Whether a compiled library, in base64, has a statement of that name.
fn defines(data: &str, name: &str) -> bool {
    let bytes = decode(data);
    let mut reader = quick_xml::Reader::from_reader(&*bytes);
    let mut inside = false;
    loop {
        use quick_xml::events::Event;
        match reader.read_event() {
            Ok(Event::Start(tag) | Event::Empty(tag)) => {
                inside |= tag.local_name().as_ref() == b"statements";
                if inside && tag.local_name().as_ref() == b"def" {
                    let named = tag
                        .attributes()
                        .flatten()
                        .any(|attribute| attribute.key.as_ref() == b"name" && &*attribute.value == name.as_bytes());
                    if named {
                        return true;
                    }
                }
            }
            Ok(Event::Eof) | Err(_) => return false,
            Ok(_) => {}
        }
    }
}

/// The bytes of base64; what is none is passed over, since that is another issue.
fn decode(data: &str) -> Vec<u8> {
    let digits = data.bytes().filter_map(|byte| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    });
    let (mut bytes, mut held, mut bits) = (Vec::with_capacity(data.len() * 3 / 4), 0_u32, 0);
    for digit in digits {
        held = (held << 6 | u32::from(digit)) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).unwrap_or_default());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_and_statements_are_found() {
        assert_eq!(decode("aGVsbG8="), b"hello");
        assert_eq!(decode("aGVs\nbG8h"), b"hello!");
        // <library><statements><def name="A"/></statements></library>
        let data = "PGxpYnJhcnk+PHN0YXRlbWVudHM+PGRlZiBuYW1lPSJBIi8+PC9zdGF0ZW1lbnRzPjwvbGlicmFyeT4=";
        assert!(defines(data, "A") && !defines(data, "B") && !defines("AAAA", "A"));
    }
}
