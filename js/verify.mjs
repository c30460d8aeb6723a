// Verification of Sluice's events: whether an event is what a gateway decided to send, offline.
//
// Takes: the bytes of an event, and whom to trust. Gives: a verdict that names the first link which broke, by the names
// that `sluice verify` uses. Never: trusts a key that came with the event; asks the network; needs anything but WebCrypto,
// so that a browser can run it as it stands.
//
// The chain: body -> commitment -> leaf -> inclusion -> checkpoint -> receipt, and the delivery beside it. `traceparent`
// and `tracestate` alone stand outside: whoever passes an event on may set them.

const OUTSIDE = new Set(['proof', 'delivery', 'traceparent', 'tracestate']);
const U64_MAX = (1n << 64n) - 1n;
const SIZE_MAX = (1n << 63n) - 1n;
const DEPTH_MAX = 64;
const BYTES_MAX = 64 << 20;
const NOTE_BYTES_MAX = 512 * 1024;
const CHECKPOINT_BYTES_MAX = 16 * 1024;
const SIGNATURES_MAX = 64;
const INCLUSION_MAX = 63;

/** Why there is nobody to trust. Nothing was verified. */
export class TrustError extends Error {}

/** The link that broke; thrown within this module alone. */
class Broken extends Error {
  constructor(link) {
    super(link);
    this.link = link;
  }
}

/**
 * Verifies an event in CloudEvents' JSON format.
 * @param {Uint8Array} bytes the event as it was published
 * @param {object} trust what `parseTrust` gave
 * @returns {Promise<{verified: boolean, assurance: ?string, broken_link: ?string}>}
 */
export async function verify(bytes, trust) {
  try {
    return { verified: true, assurance: await links(bytes, trust), broken_link: null };
  } catch (error) {
    if (error instanceof Broken) return { verified: false, assurance: null, broken_link: error.link };
    throw error;
  }
}

/**
 * Reads a trust file: {logs: [{origin, key}], events: [{source, key}], ledger: {origin, key}}.
 * @param {string} text
 * @throws {TrustError} if there is nobody to trust
 */
export async function parseTrust(text) {
  const members = (value, names, optional = []) => {
    const is = value !== null && typeof value === 'object' && !Array.isArray(value);
    const known = is && Object.keys(value).every((name) => names.includes(name) || optional.includes(name));
    if (!known || !names.every((name) => name in value)) {
      throw new TrustError('expected {logs: [{origin, key}], events: [{source, key}], ledger: {origin, key}}');
    }
    return value;
  };
  const named = async (entry) => {
    const { origin, key } = members(entry, ['origin', 'key']);
    const read = await verifierKey(key);
    if (read.name !== origin) throw new TrustError('expected a verifier key of its origin');
    return read;
  };
  let parsed;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw new TrustError('expected JSON');
  }
  const file = members(parsed, ['logs', 'events'], ['ledger']);
  if (!Array.isArray(file.logs) || !Array.isArray(file.events)) throw new TrustError('expected lists of logs and events');
  const events = file.events.map((entry) => {
    const { source, key } = members(entry, ['source', 'key']);
    const bytes = base64(key);
    if (bytes?.length !== 32) throw new TrustError('expected 32 bytes in base64');
    return { source, key: bytes };
  });
  const logs = await Promise.all(file.logs.map(named));
  const ledger = file.ledger == null ? null : await named(file.ledger);
  if (logs.length === 0 || events.length === 0) {
    throw new TrustError('expected at least one log and one source of events');
  }
  return { logs, events, ledger };
}

async function links(bytes, trust) {
  const root = parse(bytes);
  const id = string(member(root, 'id')) ?? broken('form');
  const source = string(member(root, 'source')) ?? broken('form');
  if (root.kind !== 'object' || string(member(root, 'specversion')) !== '1.0') broken('form');
  const proof = readProof(member(root, 'proof'));
  const delivery = fields(member(root, 'delivery'), { sequence: u64, signature: string });
  const decided = (name) => string(member(proof.decision, name));

  // The decision is about this body, and lets it go.
  const body = { ...root, members: new Map([...root.members].filter(([name]) => !OUTSIDE.has(name))) };
  const hash = hex(await sha256(utf8(canonical(body))));
  if (decided('kind') !== 'decision' || decided('event') !== hash) broken('body');

  const r = unhex(proof.r) ?? broken('form');
  const commitment = unhex(proof.commitment) ?? broken('form');
  const mac = await hmac(r, utf8(canonical(proof.decision)));
  if (proof.scheme !== 1n || !same(mac, commitment)) broken('commitment');

  const checkpoint = await parseCheckpoint(utf8(proof.checkpoint)) ?? broken('checkpoint');
  if (proof.leafIndex >= checkpoint.size) broken('leaf');
  // A log speaks for its own institution alone.
  const tenant = decided('tenant') ?? broken('form');
  if (checkpoint.origin.split('/')[0] !== tenant) broken('checkpoint');
  const logs = trust.logs.filter((key) => key.name === checkpoint.origin);
  const sources = trust.events.filter((entry) => entry.source === source);
  if (logs.length === 0 || sources.length === 0) broken('trust');
  // A signature that nobody can check could be changed unnoticed: every line has to be one of a trusted key.
  if (await signers(checkpoint, logs) !== checkpoint.signatures.length) broken('checkpoint');

  const path = proof.inclusion.map(base64);
  if (!path.every((it) => it?.length === 32)) broken('inclusion');
  const leaf = await sha256(concat([0], [1], commitment));
  if (!await isIncluded(leaf, proof.leafIndex, checkpoint.size, path, checkpoint.root)) broken('inclusion');

  // What the event waited for is part of the decision, so a receipt can't be taken away.
  const wait = decided('wait');
  if (!(wait === 'log' && !proof.receipt) && !(wait === 'ledger' && proof.receipt)) broken('receipt');
  const assurance = proof.receipt ? await onLedger(proof.receipt, proof.checkpoint, checkpoint, trust) : 'self';

  const signature = base64(delivery.signature);
  if (signature?.length !== 64) broken('delivery');
  const message = utf8(`sluice-delivery-1\n${id}\n${delivery.sequence}`);
  for (const entry of sources) if (await ed25519(entry.key, message, signature)) return assurance;
  return broken('delivery');
}

/** The receipt is the ledger's, about this checkpoint, and says nothing that the ledger did not. */
async function onLedger(receipt, checkpointText, checkpoint, trust) {
  if (!trust.ledger) broken('trust');
  if (!isOrigin(checkpoint.origin)) broken('receipt');
  const proof = await parseTlogProof(receipt.text) ?? broken('receipt');
  const { checkpoint: head } = proof;
  if (proof.extra === null || head.origin !== trust.ledger.name || head.signatures.length !== 1) broken('receipt');
  if (await signers(head, [trust.ledger]) !== 1) broken('receipt');
  const leaf = await sha256(concat([0], proof.extra));
  if (!await isIncluded(leaf, proof.index, head.size, proof.path, head.root)) broken('receipt');
  const origin = utf8(checkpoint.origin);
  const anchor = concat(
    [1, 4, origin.length], origin, big64(receipt.beat), big64(checkpoint.size), checkpoint.root,
    await sha256(utf8(checkpointText)),
  );
  const time = anchoredAt(proof.extra, anchor) ?? broken('receipt');
  const says = receipt.position === proof.index && receipt.time === time && receipt.assurance === 'self';
  return says ? 'self' : broken('receipt');
}

/** The ledger's time of an entry that is this operation, in its one byte form; null if it is another. */
function anchoredAt(entry, operation) {
  const view = new DataView(entry.buffer, entry.byteOffset, entry.length);
  const start = 12;
  if (entry.length < start || entry[0] !== 1 || entry[1] !== 2 || view.getUint16(10) !== operation.length) return null;
  let at = start + operation.length;
  if (!same(entry.subarray(start, at), operation)) return null;
  const count = entry[at++];
  if (!(count >= 1 && count <= 4)) return null;
  for (let n = 0; n < count; n++) {
    const length = { 1: 32, 2: 33 }[entry[at]];
    if (length === undefined) return null;
    at += 1 + length + 64;
  }
  return at === entry.length ? view.getBigUint64(2) : null;
}

function readProof(node) {
  const inclusion = (list) => {
    const texts = list?.kind === 'array' ? list.items.map(string) : [null];
    return texts.includes(null) ? null : texts;
  };
  const proof = fields(node, {
    scheme: (it) => bounded(it, 255n), r: string, commitment: string, leafIndex: u64, inclusion, checkpoint: string,
    decision: (it) => it,
  }, ['receipt']);
  // Named even where there is none: an event has one form.
  const receipt = member(node, 'receipt') ?? broken('form');
  proof.receipt = receipt.kind === 'null' ? null
    : fields(receipt, { assurance: string, beat: u64, position: u64, time: u64, text: string });
  return proof;
}

/** The members of an object, each by its reader; another member, or one that is missing, breaks the form. */
function fields(node, readers, optional = []) {
  if (node?.kind !== 'object') broken('form');
  const names = Object.keys(readers);
  for (const name of node.members.keys()) if (!names.includes(name) && !optional.includes(name)) broken('form');
  const read = {};
  for (const name of names) {
    const found = member(node, name) ?? broken('form');
    read[name] = readers[name](found) ?? broken('form');
  }
  return read;
}

function broken(link) {
  throw new Broken(link);
}

// ---- JSON: strict (RFC 8259, no duplicate members, no lone surrogates), with the text of each number -----------------

function parse(bytes) {
  if (bytes.length > BYTES_MAX) broken('form');
  let text;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    broken('form');
  }
  let at = 0;
  const space = () => {
    while (' \t\n\r'.includes(text[at] ?? 'x')) at++;
  };
  const token = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0] ?? broken('form');
    at += found.length;
    return found;
  };
  const quoted = () => {
    // eslint-disable-next-line no-control-regex
    const value = JSON.parse(token(/"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y));
    if (/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(value)) broken('form');
    return value;
  };
  const value = (depth) => {
    space();
    const first = text[at];
    if ((first === '{' || first === '[') && depth === DEPTH_MAX) broken('form');
    if (first === '{') return object(depth);
    if (first === '[') return array(depth);
    if (first === '"') return { kind: 'string', value: quoted() };
    if (first === 't' || first === 'f' || first === 'n') {
      const word = token(/true|false|null/y);
      return { kind: word === 'null' ? 'null' : 'bool', text: word };
    }
    return { kind: 'number', text: token(/-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y) };
  };
  const object = (depth) => {
    at++;
    const members = new Map();
    for (space(); text[at] !== '}' || members.size > 0;) {
      space();
      const name = quoted();
      space();
      token(/:/y);
      if (members.has(name)) broken('form');
      members.set(name, value(depth + 1));
      space();
      if (token(/[,}]/y) === '}') return { kind: 'object', members };
    }
    at++;
    return { kind: 'object', members };
  };
  const array = (depth) => {
    at++;
    const items = [];
    for (space(); text[at] !== ']' || items.length > 0;) {
      items.push(value(depth + 1));
      space();
      if (token(/[,\]]/y) === ']') return { kind: 'array', items };
    }
    at++;
    return { kind: 'array', items };
  };
  const root = value(0);
  space();
  return at === text.length ? root : broken('form');
}

function member(node, name) {
  return node?.kind === 'object' ? node.members.get(name) ?? null : null;
}

function string(node) {
  return node?.kind === 'string' ? node.value : null;
}

function bounded(node, max) {
  if (node?.kind !== 'number' || !/^(?:0|[1-9][0-9]{0,19})$/.test(node.text)) return null;
  const number = BigInt(node.text);
  return number <= max ? number : null;
}

function u64(node) {
  return bounded(node, U64_MAX);
}

/** `sluice-canonical-1`: members by the UTF-8 bytes of their names, no white space, numbers by their text. */
function canonical(node) {
  switch (node.kind) {
    case 'object': {
      const names = [...node.members.keys()].sort(byCodePoint);
      return `{${names.map((name) => `${escaped(name)}:${canonical(node.members.get(name))}`).join(',')}}`;
    }
    case 'array':
      return `[${node.items.map(canonical).join(',')}]`;
    case 'string':
      return escaped(node.value);
    default:
      return node.text;
  }
}

/** The order of UTF-8's bytes is that of code points; JavaScript's own is that of UTF-16's units. */
function byCodePoint(left, right) {
  const [a, b] = [[...left], [...right]];
  for (let at = 0; at < Math.min(a.length, b.length); at++) {
    const order = a[at].codePointAt(0) - b[at].codePointAt(0);
    if (order !== 0) return order;
  }
  return a.length - b.length;
}

function escaped(text) {
  // JSON.stringify escapes exactly `"`, `\`, \b \t \n \f \r and the other control characters as \u00xx in lower case;
  // lone surrogates, which it would escape as well, were refused.
  return JSON.stringify(text);
}

// ---- C2SP: notes, checkpoints, tlog-proofs -----------------------------------------------------------------------------

function isKeyName(name) {
  // White space as Unicode has it: what \s has, without U+FEFF and with U+0085.
  return name !== '' && utf8(name).length <= 1024 && !/[\s\u0085+\u0000-\u001f]/.test(name.replaceAll('\ufeff', ''));
}

/** `<name>+<id in hex>+<base64 of type and public key>` */
async function verifierKey(text) {
  const wrong = () => {
    throw new TrustError('expected a verifier key: name, plus, key id, plus, base64 of 0x01 and an Ed25519 key');
  };
  const [, name, id, material] = /^([^+]*)\+([0-9a-f]{8})\+(.*)$/s.exec(typeof text === 'string' ? text : '') ?? wrong();
  const bytes = base64(material);
  if (!isKeyName(name) || bytes?.length !== 33 || bytes[0] !== 1) wrong();
  const hash = await sha256(concat(utf8(name), [0x0a], bytes));
  if (hex(hash.subarray(0, 4)) !== id) wrong();
  return { name, id, key: bytes.subarray(1) };
}

/** A signed note whose text is a checkpoint; null if it is none. No signature has been checked. */
async function parseCheckpoint(bytes) {
  if (bytes.length > NOTE_BYTES_MAX) return null;
  const note = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  const blank = note.lastIndexOf('\n\n');
  if (blank < 0 || /[\u0000-\u0009\u000b-\u001f]/.test(note) || !note.endsWith('\n')) return null;
  const [text, rest] = [note.slice(0, blank + 1), note.slice(blank + 2)];
  if (rest === '' || utf8(text).length > CHECKPOINT_BYTES_MAX) return null;
  const signatures = [];
  for (const line of rest.slice(0, -1).split('\n')) {
    const [, name, signed] = /^\u2014 ([^ ]*) (.*)$/s.exec(line) ?? [];
    const bytes = signed === undefined ? null : base64(signed);
    if (!bytes || bytes.length < 5 || !isKeyName(name) || signatures.length === SIGNATURES_MAX) return null;
    signatures.push({ name, id: hex(bytes.subarray(0, 4)), bytes: bytes.subarray(4) });
  }
  const [origin, size, root, ...extensions] = text.slice(0, -1).split('\n');
  const [count, hash] = [decimal(size), root?.length === 44 ? base64(root) : null];
  if (origin === '' || count === null || count > SIZE_MAX || hash?.length !== 32) return null;
  if (extensions.includes('') || (count === 0n && hex(hash) !== hex(await sha256(new Uint8Array())))) return null;
  return { origin, size: count, root: hash, text, signatures };
}

/** How many of these keys have signed; 0 if a line under the name and id of one does not verify. */
async function signers(checkpoint, keys) {
  let signed = 0;
  for (const [at, key] of keys.entries()) {
    if (keys.slice(0, at).some((it) => it.name === key.name && same(it.key, key.key))) continue;
    const lines = checkpoint.signatures.filter((line) => line.name === key.name && line.id === key.id);
    for (const line of lines) {
      if (line.bytes.length !== 64 || !await ed25519(key.key, utf8(checkpoint.text), line.bytes)) return 0;
    }
    if (lines.length > 0) signed++;
  }
  return signed;
}

/** c2sp.org/tlog-proof@v1; null if it is none. */
async function parseTlogProof(text) {
  const header = 'c2sp.org/tlog-proof@v1\n';
  const blank = text.indexOf('\n\n', header.length);
  if (!text.startsWith(header) || blank < 0) return null;
  const lines = text.slice(header.length, blank).split('\n');
  const extra = lines[0].startsWith('extra ') ? base64(lines.shift().slice(6)) : null;
  const index = lines[0]?.startsWith('index ') ? decimal(lines.shift().slice(6)) : null;
  const path = lines.map((line) => (line.length === 44 ? base64(line) : null));
  const checkpoint = await parseCheckpoint(utf8(text.slice(blank + 2)));
  const fits = index !== null && index < SIZE_MAX && path.length <= INCLUSION_MAX && path.every((it) => it?.length === 32);
  return fits && checkpoint && extra?.length !== 0 ? { extra, index, path, checkpoint } : null;
}

/** RFC 6962 §2.1.1; the check is that of RFC 9162 §2.1.3.2. */
async function isIncluded(leaf, index, size, path, root) {
  if (index >= size) return false;
  let [hash, position, last, at] = [leaf, index, size - 1n, 0];
  while (last > 0n) {
    if ((position & 1n) === 1n || position !== last) {
      if (at === path.length) return false;
      const right = (position & 1n) === 1n;
      hash = await sha256(right ? concat([1], path[at], hash) : concat([1], hash, path[at]));
      at++;
    }
    position >>= 1n;
    last >>= 1n;
  }
  return at === path.length && same(hash, root);
}

/** An institution's id, alone or followed by `/` and a path: what a ledger takes for a log's name. */
function isOrigin(origin) {
  return origin.length <= 200 && /^[!-*,-~]+$/.test(origin) && /^[a-z0-9._-]{1,63}$/.test(origin.split('/')[0]);
}

function decimal(text) {
  if (!/^(?:0|[1-9][0-9]{0,19})$/.test(text ?? '')) return null;
  const number = BigInt(text);
  return number <= U64_MAX ? number : null;
}

// ---- Bytes -------------------------------------------------------------------------------------------------------------

function utf8(text) {
  return new TextEncoder().encode(text);
}

function concat(...parts) {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

function same(left, right) {
  return left.length === right.length && left.every((byte, at) => byte === right[at]);
}

function big64(number) {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, number);
  return bytes;
}

function hex(bytes) {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** 32 bytes in lower-case hexadecimal digits, or null. */
function unhex(text) {
  return /^[0-9a-f]{64}$/.test(text) ? Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16)) : null;
}

/** Strict base64 (RFC 4648 §4): padded, unused bits zero, nothing else; or null. */
function base64(text) {
  if (typeof text !== 'string' || !/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text)) return null;
  const raw = atob(text);
  return btoa(raw) === text ? Uint8Array.from(raw, (it) => it.charCodeAt(0)) : null;
}

async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
}

async function hmac(key, message) {
  const algorithm = { name: 'HMAC', hash: 'SHA-256' };
  const imported = await crypto.subtle.importKey('raw', key, algorithm, false, ['sign']);
  return new Uint8Array(await crypto.subtle.sign(algorithm, imported, message));
}

async function ed25519(key, message, signature) {
  try {
    const imported = await crypto.subtle.importKey('raw', key, { name: 'Ed25519' }, false, ['verify']);
    return await crypto.subtle.verify({ name: 'Ed25519' }, imported, signature, message);
  } catch (error) {
    // A key that is no point of the curve verifies nothing. A platform without Ed25519 must not look like that.
    if (error?.name === 'NotSupportedError') throw error;
    return false;
  }
}
