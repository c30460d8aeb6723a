// The JavaScript verifier on the vectors that the Rust one is held to: `node --test js/verify.test.mjs`.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { webcrypto } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

import { TrustError, parseTrust, verify } from './verify.mjs';

globalThis.crypto ??= webcrypto;

const cases = fileURLToPath(new URL('../tests/cases/verify', import.meta.url));
const folders = readdirSync(cases, { withFileTypes: true }).filter((it) => it.isDirectory()).map((it) => it.name);
const bytes = (text) => new TextEncoder().encode(text);

for (const folder of folders) {
  const read = (name) => readFileSync(join(cases, folder, name), 'utf8');
  const [event, trustText] = [read('event.json'), read('trust.json')];

  test(`${folder}: every edit breaks its link`, async () => {
    for (const { name, find, replace, trust, broken_link: link } of JSON.parse(read('edits.json'))) {
      const text = trust ? trustText : event;
      assert.equal(text.split(find).length, 2, `${name}: ${find} stands once`);
      const edited = text.replace(find, () => replace);
      const verdict = await verify(bytes(trust ? event : edited), await parseTrust(trust ? edited : trustText));
      assert.equal(verdict.broken_link, link, name);
      assert.equal(verdict.verified, link === null, name);
      assert.equal(verdict.assurance, link === null ? 'self' : null, name);
    }
  });

  test(`${folder}: every changed byte is found, at the link where Rust finds it`, async () => {
    const trust = await parseTrust(trustText);
    const links = ['form', 'body', 'commitment', 'leaf', 'trust', 'checkpoint', 'inclusion', 'receipt', 'delivery'];
    for (const [line, text] of read('flips.txt').trim().split('\n').entries()) {
      const [mask, found] = text.split(' ');
      const original = bytes(event);
      assert.equal(found.length, original.length, `line ${line + 1}`);
      for (let at = 0; at < original.length; at++) {
        const changed = Uint8Array.from(original);
        changed[at] ^= parseInt(mask, 16);
        const { broken_link: link } = await verify(changed, trust);
        const expected = found[at] === '.' ? null : links[Number(found[at])];
        assert.equal(link, expected, `byte ${at} ^ ${mask} near ${event.slice(Math.max(0, at - 20), at + 20)}`);
      }
    }
  });
}

test('nobody to trust is no verdict', async () => {
  const { logs, events, ledger } = JSON.parse(readFileSync(join(cases, folders[0], 'trust.json'), 'utf8'));
  const files = [
    '', '[]', '{}', { logs: [], events, ledger }, { logs, events: [], ledger }, { logs, events, ledger, more: 1 },
    { logs: [{ ...logs[0], origin: 'another' }], events, ledger },
    { logs: [{ ...logs[0], key: logs[0].key.replace(/\+.{8}\+/, '+00000000+') }], events, ledger },
    { logs, events: [{ ...events[0], key: 'AA==' }], ledger },
  ];
  for (const file of files) {
    await assert.rejects(parseTrust(typeof file === 'string' ? file : JSON.stringify(file)), TrustError);
  }
  // A ledger need not be trusted by whoever reads events that do not wait for one.
  assert.equal((await parseTrust(JSON.stringify({ logs, events }))).ledger, null);
});

test('JSON that two parsers could read in two ways is refused', async () => {
  const trust = await parseTrust(readFileSync(join(cases, folders[0], 'trust.json'), 'utf8'));
  const texts = [
    '', '{', '[]', 'null', '{"id":1}', '{"a":1,"a":2}', '{"a":1,}', '[1,]', '{"a" 1}', '"\\ud800"', '01', '1.', '+1',
    '\ufeff{}', '{}{}', `${'['.repeat(100_000)}`, '\u0000',
  ];
  for (const text of texts) assert.equal((await verify(bytes(text), trust)).broken_link, 'form', text.slice(0, 20));
  assert.equal((await verify(Uint8Array.of(0x22, 0xff, 0x22), trust)).broken_link, 'form');
});

test('the command says what `sluice verify` says', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-verify-'));
  const script = fileURLToPath(new URL('sluice-verify.mjs', import.meta.url));
  const trust = join(cases, folders[0], 'trust.json');
  const event = join(cases, folders[0], 'event.json');
  const run = (...args) => spawnSync(process.execPath, ['--no-warnings', script, ...args], { encoding: 'utf8' });
  try {
    const line = execFileSync(process.execPath, ['--no-warnings', script, '--trust', trust, event], { encoding: 'utf8' });
    assert.deepEqual(JSON.parse(line), { event, verified: true, assurance: 'self', broken_link: null });
    const cut = join(folder, 'cut.json');
    writeFileSync(cut, readFileSync(event, 'utf8').slice(1));
    const found = run(event, cut, '--trust', trust);
    assert.equal(found.status, 1);
    assert.equal(JSON.parse(found.stdout.trim().split('\n')[1]).broken_link, 'form');
    assert.equal(run('--trust', join(folder, 'absent.json'), event).status, 2);
    assert.equal(run(event).status, 64);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
