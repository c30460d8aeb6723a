//! HL7's validator suite, its R4 cases in JSON and XML: their base pass, and their second pass against a profile. A case agrees if the
//! verdict of each of its passes is that of HL7's validator; `tests/conformance/known.json` lists every pass that differs, with a
//! reason, and may only shrink. Three figures are floors that may only rise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use bytes::Bytes;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::outcome::Issue;
use sluice_fhir::package::{Limits as PackageLimits, Package};
use sluice_fhir::profile::Library;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::validate::{Policy, Validator};
use sluice_fhir::xml;

use super::{archive, bless, is_error, issues, path};

const KNOWN: &str = "tests/conformance/known.json";
const SUITE: &str = "tests/data/validator/r4-cases.tar.gz";
const EXTENSIONS: &str = "hl7.fhir.uv.extensions.r4#5.3.0-ballot-tc1";

/// Cases of 209 that need nothing from outside, whose verdicts agree.
const ALONE_FLOOR: usize = 202;
/// The same of all 301.
const ALL_FLOOR: usize = 280;
/// Passes of the 209 whose errors are at the same places, all of them.
const PLACED_FLOOR: usize = 242;

/// One pass of a case.
struct Pass {
    name: String,
    /// An extension that is not part of the core.
    has_unknown_extension: bool,
    agrees: bool,
    /// The errors are at the same places.
    is_placed: bool,
    /// Errors that HL7's validator reports, and how many of them we report at the same place.
    expected: usize,
    placed: usize,
    report: Value,
}

#[test]
fn verdicts_agree_but_for_the_known_differences() {
    let files = documents();
    let cases: Value = serde_json::from_slice(&files["cases.json"]).unwrap();
    let known: Value = serde_json::from_slice(&std::fs::read(path(KNOWN)).unwrap()).unwrap();
    let known: BTreeMap<String, String> = known["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            (format!("{} {}", text("case"), text("pass")), text("reason"))
        })
        .collect();
    let (mut alone, mut alone_agree, mut all_agree) = (0, 0, 0);
    let (mut passes, mut placed_passes, mut expected, mut placed) = (0, 0, 0, 0);
    let mut differ = BTreeSet::new();
    let mut report = Vec::new();
    for case in cases.as_array().unwrap() {
        let is_alone = needs_nothing(case);
        let run = run(case, &files);
        let agrees = run.iter().all(|pass| pass.agrees);
        all_agree += usize::from(agrees);
        if is_alone {
            alone += 1;
            alone_agree += usize::from(agrees);
        }
        for pass in run {
            if is_alone {
                passes += 1;
                placed_passes += usize::from(pass.is_placed);
                expected += pass.expected;
                placed += pass.placed;
            }
            if !pass.agrees {
                differ.insert(pass.name);
            }
            report.push(pass.report);
        }
    }
    if bless() {
        let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/hl7-suite.json");
        std::fs::write(file, serde_json::to_vec_pretty(&report).unwrap()).unwrap();
        eprintln!("every pass: {file}");
    }
    let count = cases.as_array().unwrap().len();
    eprintln!(
        "verdicts agree: {alone_agree} of the {alone} cases that need nothing from outside, {all_agree} of all {count}; errors at the same \
         places, all of them: {placed_passes} of {passes} passes; {placed} of {expected} expected errors"
    );
    let unlisted: Vec<_> = differ.iter().filter(|name| !known.contains_key(*name)).collect();
    let agreeing: Vec<_> = known.keys().filter(|name| !differ.contains(*name)).collect();
    assert!(unlisted.is_empty(), "differ and are not listed in {}: {unlisted:?}", path(KNOWN).display());
    assert!(agreeing.is_empty(), "listed, but agree by now: {agreeing:?}");
    assert!(known.values().all(|reason| reason.len() > 5), "every difference has a reason");
    assert_eq!((alone, count), (209, 301));
    assert!(alone_agree >= ALONE_FLOOR && all_agree >= ALL_FLOOR && placed_passes >= PLACED_FLOOR, "a figure fell");
}

/// Neither a terminology server, nor packages, nor a format of its own.
fn needs_nothing(case: &Value) -> bool {
    let module = case["module"].as_str().unwrap();
    let is_apart = ["cda", "cdshooks", "shc", "dsig", "json5", "tx", "tx-advanced"].contains(&module);
    !is_apart
        && case.get("logical").is_none()
        && case.get("packages").is_none()
        && case["profile"].get("packages").is_none()
        && case["expected"]["usesTerminologyServer"] != true
}

fn run(case: &Value, files: &BTreeMap<String, Bytes>) -> Vec<Pass> {
    let (name, file) = (case["name"].as_str().unwrap(), case["file"].as_str().unwrap());
    let content = &files[file];
    let profile = &case["profile"];
    let all = |validator: Validator| {
        let mut passes = vec![pass(name, "base", &validator, content, &case["expected"])];
        if let Some(source) = profile["source"].as_str().filter(|_| profile["expected"]["valid"].is_boolean()) {
            let url = files.get(source).and_then(url_of).unwrap_or_else(|| source.to_owned());
            passes.push(pass(name, "profile", &validator.with_profiles([url]), content, &profile["expected"]));
        }
        passes
    };
    let passes = all(validator(case, files, false));
    // HL7's validator always loads its package of extensions; here only where one is not part of the core, which saves time.
    if passes.iter().any(|pass| pass.has_unknown_extension) { all(validator(case, files, true)) } else { passes }
}

fn pass(case: &str, pass: &str, validator: &Validator, content: &Bytes, expected: &Value) -> Pass {
    let theirs: Vec<&Value> =
        expected["issues"].as_array().into_iter().flatten().filter(|issue| issue["severity"] == "error").collect();
    let theirs_at: BTreeSet<String> =
        theirs.iter().map(|issue| plain(issue["expression"][0].as_str().unwrap_or_default())).collect();
    let (ours, error) = match Tree::parse(content.clone(), &Limits::default()) {
        Ok(tree) => (validator.validate(tree.root()), None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let ours: Vec<&Issue> = ours.iter().filter(|issue| is_wrong(issue)).collect();
    let ours_at: BTreeSet<String> =
        ours.iter().map(|issue| plain(issue.expression.as_deref().unwrap_or_default())).collect();
    let has_unknown_extension =
        ours.iter().any(|issue| matches!(&*issue.rule, "extension.unknown" | "extension.modifier"));
    let valid = ours.is_empty() && error.is_none();
    let agrees = valid == expected["valid"].as_bool().unwrap();
    let is_placed = if error.is_some() { agrees } else { ours_at == theirs_at };
    let ours: Vec<Value> = ours
        .iter()
        .map(|issue| json!({"at": plain(issue.expression.as_deref().unwrap_or_default()), "rule": *issue.rule, "text": issue.text}))
        .collect();
    let shown: Vec<Value> = theirs
        .iter()
        .map(|issue| json!({"at": plain(issue["expression"][0].as_str().unwrap_or_default()), "text": issue["text"]}))
        .collect();
    Pass {
        has_unknown_extension,
        name: format!("{case} {pass}"),
        agrees,
        is_placed,
        expected: theirs_at.len(),
        placed: theirs_at.intersection(&ours_at).count(),
        report: json!({"case": case, "pass": pass, "valid": expected["valid"], "agrees": agrees, "placed": is_placed, "syntax": error,
            "ours": ours, "theirs": shown}),
    }
}

/// The files of the suite; what is XML as the JSON that it means, or as it stands where it means none.
fn documents() -> BTreeMap<String, Bytes> {
    let mut files = archive(SUITE);
    for (name, content) in &mut files {
        if name.ends_with(".xml")
            && let Ok(tree) = xml::read(content, &Limits::default(), &Definitions::r4())
        {
            *content = tree.bytes().clone();
        }
    }
    files
}

/// With the definitions that a case brings along, as far as they can be read, and the packages that are at hand.
fn validator(case: &Value, files: &BTreeMap<String, Bytes>, with_extensions: bool) -> Validator {
    let profile = &case["profile"];
    let list = |of: &Value, name: &str| -> Vec<String> {
        of[name].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut names: BTreeSet<String> = BTreeSet::new();
    for of in [case, profile] {
        names.extend(list(of, "supporting"));
        names.extend(list(of, "profiles"));
        names.extend(list(of, "supporting5"));
    }
    names.extend(profile["source"].as_str().map(str::to_owned));
    let readable = |content: &Bytes| Tree::parse(content.clone(), &Limits::default()).is_ok();
    let brought = names.into_iter().filter_map(|name| {
        Some((format!("{name}.json"), files.get(&name).filter(|content| readable(content))?.clone()))
    });
    let mut packages = vec![Package::of_definitions("case", brought.collect::<Vec<_>>())];
    let extensions = with_extensions.then(|| EXTENSIONS.to_owned());
    for name in list(case, "packages").into_iter().chain(list(profile, "packages")).chain(extensions) {
        let of_suite = files.get(&name).or_else(|| files.get(&format!("{name}.tgz"))).cloned();
        let file = path(&format!("tests/data/packages/{}.tgz", name.replace('#', "-")));
        let tgz = of_suite.or_else(|| std::fs::read(file).ok().map(Bytes::from));
        packages.extend(tgz.and_then(|tgz| Package::from_tgz(&tgz, &PackageLimits::default()).ok()));
    }
    let policy = Policy {
        example_urls: case["examples"] != false,
        html_in_markdown: case["noHtmlInMarkdown"] != true,
        html_in_strings: case["security-checks"] != true,
        contained: case["validateContains"] != "IGNORE",
        references_elsewhere: case["validateReference"] != "CHECK_EXISTS_AND_TYPE",
    };
    let library = Library::new(Definitions::r4(), &packages).unwrap();
    Validator::r4().with_library(Arc::new(library)).with_policy(policy)
}

/// HL7's validator takes an extension that nobody defines for an error.
fn is_wrong(issue: &Issue) -> bool {
    is_error(issue) || &*issue.rule == "extension.unknown"
}

fn url_of(definition: &Bytes) -> Option<String> {
    let tree = Tree::parse(definition.clone(), &Limits::default()).ok()?;
    Some(tree.root().member("url")?.as_str()?.into_owned())
}

/// HL7's locations write the type of a resource in a Bundle as a comment, and that of a choice as a call:
/// `Bundle.entry[0].resource/*Patient/1*/.deceased.ofType(boolean)`.
fn plain(expression: &str) -> String {
    let mut out = String::new();
    let mut rest = expression;
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

/// Whatever else a file of the suite is, it does not bring the validator down.
#[test]
fn no_file_of_the_suite_is_a_crash() {
    for (name, content) in archive(SUITE) {
        if name.ends_with(".json") {
            let _ = issues(&content);
        }
    }
}
