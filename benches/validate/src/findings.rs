//! Whether two sides find the same: the places of all errors, and of all resources that lack a narrative (dom-6). What else there is of
//! warnings is advice, of which each has its own.

use std::collections::{BTreeMap, BTreeSet};

/// Differences that have a reason: whose finding, its rule, its place within the resource, the reason.
const KNOWN: &str = include_str!("../differences.tsv");

/// What is found where: (file, place, whether it is an error), and by which rule.
type Found = BTreeMap<(String, String, bool), String>;

/// Prints what is the same and what is not; gives what differs without a reason, and reasons of what does not differ.
pub fn compare(ours: Vec<String>, theirs: Vec<String>) -> Vec<String> {
    let (ours, theirs) = (read(ours), read(theirs));
    let known: Vec<Vec<&str>> = KNOWN.lines().filter(|line| !line.starts_with('#')).map(columns).collect();
    let (mut used, mut surprises) = (BTreeSet::new(), Vec::new());
    let mut explained = 0;
    for (side, here, there) in [("ours", &ours, &theirs), ("HAPI's", &theirs, &ours)] {
        for ((file, place, is_error), rule) in here.iter().filter(|(key, _)| !there.contains_key(*key)) {
            let within = place.split_once(".resource").map_or(place.as_str(), |(_, rest)| rest);
            let reason = known.iter().position(|row| row[..3] == [side, rule.as_str(), within]);
            match reason {
                Some(row) => {
                    used.insert(row);
                    explained += 1;
                }
                None => surprises.push(format!("{side} alone: {file} {place} {rule}, error: {is_error}")),
            }
        }
    }
    let unused = known.iter().enumerate().filter(|(row, _)| !used.contains(row));
    surprises.extend(unused.map(|(_, row)| format!("listed, but no difference any more: {}", row.join(" "))));
    let count = |found: &Found, errors| found.keys().filter(|(_, _, is_error)| *is_error == errors).count();
    println!("ours: {} errors, {} times dom-6", count(&ours, true), count(&ours, false));
    println!("HAPI: {} errors, {} times dom-6", count(&theirs, true), count(&theirs, false));
    println!("{explained} differences with a reason, {} without", surprises.len());
    for surprise in surprises.iter().take(40) {
        println!("    {surprise}");
    }
    surprises
}

fn columns(line: &str) -> Vec<&str> {
    let columns: Vec<_> = line.split('\t').collect();
    assert_eq!(columns.len(), 4, "side, rule, place, reason: {line}");
    columns
}

fn read(lines: Vec<String>) -> Found {
    let findings = lines.iter().filter_map(|line| {
        let [file, severity, place, rule] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("a line: {line}") };
        let is_error = matches!(severity, "error" | "fatal");
        (is_error || rule.ends_with("dom-6")).then(|| ((file.to_owned(), plain(place), is_error), rule.to_owned()))
    });
    findings.collect()
}

/// HL7's locations write the type and id of a resource in a Bundle as a comment, and the type of a choice as a call:
/// `Bundle.entry[0].resource/*Patient/1*/.deceased.ofType(boolean)`.
fn plain(place: &str) -> String {
    let mut out = String::new();
    let mut rest = place;
    while let Some((before, after)) = rest.split_once("/*") {
        out += before;
        rest = after.split_once("*/").map_or("", |(_, rest)| rest);
    }
    out += rest;
    while let Some((before, after)) = out.split_once(".ofType(") {
        let (name, rest) = after.split_once(')').unwrap_or((after, ""));
        out = format!("{before}{}{}{rest}", name[..1].to_ascii_uppercase(), &name[1..]);
    }
    out
}
