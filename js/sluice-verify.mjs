#!/usr/bin/env node
// `node sluice-verify.mjs --trust trust.json event.json…`: the lines and exit codes of `sluice verify --format json`.

import { readFile } from 'node:fs/promises';
import { webcrypto } from 'node:crypto';
import process from 'node:process';

import { parseTrust, verify } from './verify.mjs';

// Node 18 has it under another name only.
globalThis.crypto ??= webcrypto;

const args = process.argv.slice(2);
const at = args.indexOf('--trust');
const [trustFile] = at < 0 ? [] : args.splice(at, 2).slice(1);
if (!trustFile || args.length === 0) {
  console.error('usage: node sluice-verify.mjs --trust TRUST EVENT...');
  process.exit(64);
}
try {
  const trust = await parseTrust(await readFile(trustFile, 'utf8'));
  for (const event of args) {
    const verdict = await verify(await readFile(event), trust);
    if (!verdict.verified) process.exitCode = 1;
    console.log(JSON.stringify({ event, ...verdict }));
  }
} catch (error) {
  console.error(`sluice-verify: ${error.message}`);
  process.exitCode = 2;
}
