#!/usr/bin/env python3
"""Writes members.tsv: by which members and types (nested ones too) a FHIR release can be told.

usage: build.py STU3.tgz R4.tgz R4B-schema.json.gz R5.tgz > members.tsv
The tgz are FHIR packages, R4B is HL7's JSON Schema. DSTU2 has no package: its lines are in DSTU2 below, from hl7.org/fhir/DSTU2.
"""
import gzip, json, sys, tarfile

RELEASES = ["DSTU2", "STU3", "R4", "R4B", "R5"]
# type.member and shape, as DSTU2 has them where STU3 differs; a leading minus: STU3 has it, DSTU2 has not.
DSTU2 = """
Conformance DiagnosticOrder ImagingObjectSelection MedicationOrder Order OrderResponse
Patient.careProvider:a -Patient.generalPractitioner:a
Practitioner.name:o -Practitioner.name:a Practitioner.practitionerRole:a
Condition.patient:o Condition.encounter:o Condition.dateRecorded:p Condition.category:o Condition.notes:p
-Condition.subject:o -Condition.context:o -Condition.category:a -Condition.assertedDate:p
Observation.comments:p -Observation.comment:p -Observation.category:a Observation.category:o -Observation.basedOn:a -Observation.context:o
Observation.encounter:o
Encounter.patient:o Encounter.class:p Encounter.indication:a Encounter.reason:a
-Encounter.subject:o -Encounter.class:o -Encounter.diagnosis:a
MedicationStatement.patient:o MedicationStatement.wasNotTaken:p -MedicationStatement.subject:o -MedicationStatement.taken:p
MedicationAdministration.patient:o MedicationAdministration.wasNotGiven:p -MedicationAdministration.subject:o
MedicationDispense.patient:o -MedicationDispense.subject:o
Immunization.wasNotGiven:p Immunization.reported:p -Immunization.notGiven:p -Immunization.primarySource:p
AllergyIntolerance.substance:o AllergyIntolerance.recordedDate:p AllergyIntolerance.onset:p AllergyIntolerance.status:p
-AllergyIntolerance.code:o -AllergyIntolerance.clinicalStatus:p -AllergyIntolerance.verificationStatus:p -AllergyIntolerance.assertedDate:p
Procedure.notPerformed:p -Procedure.notDone:p -Procedure.context:o Procedure.encounter:o
DiagnosticReport.performer:o -DiagnosticReport.performer:a DiagnosticReport.encounter:o -DiagnosticReport.context:o
CarePlan.note:o -CarePlan.note:a CarePlan.participant:a
Composition.class:o
Device.owner:o Device.manufactureDate:p
Patient.name.family:a -Patient.name.family:p Practitioner.name.family:a
"""
ABSTRACT = {"Resource", "DomainResource"}
# Data types are followed this deep below a resource; what differs deeper tells nothing more.
DEPTH = 2
# In every element, or told differently by a schema than by a package.
SKIPPED = {"id", "extension", "modifierExtension"}

def shape(repeats, primitive):
    return "a" if repeats else ("p" if primitive else "o")

def package(path):
    """{type: {member: (shape, type of its own members or None)}}, nested elements as types of their own."""
    defs = []
    tar = tarfile.open(path)
    for m in tar:
        if m.name.startswith("package/") and m.name.endswith(".json") and "StructureDefinition" in m.name:
            j = json.load(tar.extractfile(m))
            if j.get("resourceType") == "StructureDefinition" and j.get("derivation") != "constraint":
                defs.append(j)
    primitives = {j["id"] for j in defs if j["kind"] == "primitive-type"}
    resources = {j.get("type", j["id"]) for j in defs if j["kind"] == "resource"} - ABSTRACT
    out = {}
    for j in defs:
        elements = j.get("snapshot", {}).get("element", [])
        parents = {e["path"].rpartition(".")[0] for e in elements}
        for e in elements:
            parent, _, name = e["path"].rpartition(".")
            if not parent:
                continue
            repeats = e.get("base", e).get("max", e["max"]) not in ("0", "1")
            members = out.setdefault(parent, {})
            if "contentReference" in e:
                members[name] = (shape(repeats, False), e["contentReference"].rpartition("#")[2])
                continue
            for t in e.get("type", []):
                code = t.get("code", "")
                primitive = code in primitives or code == "" or code.startswith("http")
                n = name[:-3] + code[:1].upper() + code[1:] if name.endswith("[x]") else name
                inner = e["path"] if e["path"] in parents else (None if primitive else code)
                members[n] = (shape(repeats, primitive), inner)
    return resources, out

def schema(path):
    defs = json.loads(gzip.open(path).read())["definitions"]
    resources, out = set(), {}
    for name, d in defs.items():
        if "resourceType" in d.get("properties", {}):
            resources.add(name)
        members = out.setdefault(name, {})
        for n, p in d.get("properties", {}).items():
            if n == "resourceType" or n.startswith("_"):
                continue
            repeats = p.get("type") == "array"
            ref = (p.get("items", {}) if repeats else p).get("$ref", "").rsplit("/", 1)[-1]
            primitive = not ref or ref[:1].islower()
            members[n] = (shape(repeats, primitive), None if primitive else ref)
    return resources - ABSTRACT, out

def paths(table, name):
    """Every path below a resource type, with its shape."""
    out = set()
    open_ = [(name, name, 0)]
    while open_:
        path, of, depth = open_.pop()
        for member, (form, inner) in table.get(of, {}).items():
            if member in SKIPPED:
                continue
            out.add(f"{path}.{member}:{form}")
            if inner and depth < DEPTH and member not in ("contained", "resource", "meta"):
                open_.append((f"{path}.{member}", inner, depth + 1))
    return out

def main():
    sources = [package(sys.argv[1]), package(sys.argv[2]), schema(sys.argv[3]), package(sys.argv[4])]
    tables = [{name: paths(table, name) for name in resources} for resources, table in sources]
    dstu2 = {k: set(v) for k, v in tables[0].items()}
    for word in DSTU2.split():
        minus = word.startswith("-")
        name, _, member = word.lstrip("-").partition(".")
        members = dstu2.setdefault(name, set())
        if minus:
            members.discard(f"{name}.{member}")
        elif member:
            members.add(f"{name}.{member}")
    tables.insert(0, dstu2)
    print("# Which FHIR releases have a resource type, or a member below it in this shape (a: array, o: object, p: one primitive).")
    print("# One bit per release, from the lowest: " + ", ".join(RELEASES) + ". A member that all releases of its parent have is left out.")
    print("# Written by build.py from HL7's packages (CC0).")
    for name in sorted(set().union(*tables)):
        bits = {name: sum(1 << i for i, t in enumerate(tables) if name in t)}
        for i, t in enumerate(tables):
            for path in t.get(name, ()):
                for key in (path, path.rpartition(":")[0]):
                    bits[key] = bits.get(key, 0) | 1 << i
        print(f"{name}\t{bits[name]}")
        for path in sorted(p for p in bits if ":" in p):
            parent = path.rpartition(":")[0].rpartition(".")[0]
            if bits[path] != bits[parent]:
                print(f"{path}\t{bits[path]}")

main()
