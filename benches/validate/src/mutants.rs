//! Faults put into one Bundle, a file each: a validator that is quick because it overlooks them is not quick.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

/// Members of a Patient that are wrong: the name of the fault, the member, its value.
fn faults() -> [(&'static str, &'static str, Value); 10] {
    [
        ("unknown member", "nonsense", json!(1)),
        ("boolean given as a string", "active", json!("true")),
        ("id with a space", "id", json!("a b")),
        ("code outside of a required value set", "gender", json!("xmale")),
        ("day that does not exist", "birthDate", json!("1970-02-30")),
        ("object in the place of an array", "name", json!({"family": "x"})),
        ("reference to a type that is not allowed", "managingOrganization", json!({"reference": "Patient/1"})),
        ("two types of one choice", "multipleBirthInteger", json!(2)),
        ("invariant pat-1", "contact", json!([{"gender": "male"}])),
        ("empty array", "telecom", json!([])),
    ]
}

/// Writes the Bundle as it is, and once with each fault in its first entry, a Patient.
pub fn write(bundle: &str, folder: &Path) {
    let good: Value = serde_json::from_str(bundle).expect("JSON");
    assert_eq!(good["entry"][0]["resource"]["resourceType"], "Patient");
    std::fs::write(folder.join("good.json"), good.to_string()).expect("a file of the cache");
    for (number, (_, member, value)) in faults().into_iter().enumerate() {
        let mut bad = good.clone();
        let patient = &mut bad["entry"][0]["resource"];
        if member == "multipleBirthInteger" {
            patient["multipleBirthBoolean"] = json!(true);
        }
        patient[member] = value;
        std::fs::write(folder.join(format!("{number:02}.json")), bad.to_string()).expect("a file of the cache");
    }
}

/// Prints who finds which; gives those that ours overlooks.
pub fn compare(sides: [(&str, Vec<String>); 3]) -> Vec<String> {
    let caught = sides.map(|(name, findings)| {
        let mut errors: BTreeMap<String, usize> = BTreeMap::new();
        for line in findings {
            let (file, rest) = line.split_once('\t').expect("a file");
            let is_error = rest.starts_with("error") || rest.starts_with("fatal");
            *errors.entry(file.to_owned()).or_default() += usize::from(is_error);
        }
        let of = |file: &str| errors.get(file).copied().unwrap_or_default();
        let caught: Vec<bool> =
            (0..faults().len()).map(|number| of(&format!("{number:02}.json")) > of("good.json")).collect();
        (name, caught)
    });
    println!("\n| fault | {} |\n|---|---|---|---|", caught.each_ref().map(|(name, _)| *name).join(" | "));
    for (number, (fault, ..)) in faults().iter().enumerate() {
        let told = caught.each_ref().map(|(_, caught)| if caught[number] { "found" } else { "**overlooked**" });
        println!("| {fault} | {} |", told.join(" | "));
    }
    println!();
    let [(_, ours), ..] = &caught;
    let overlooked = faults().into_iter().zip(ours).filter(|(_, found)| !**found);
    overlooked.map(|((fault, ..), _)| format!("overlooked: {fault}")).collect()
}
