// A stand-in for LS Login in development and tests; never for production.
// Sessions, grants, tokens and keys: in memory, and in DATA_DIR if it is set, so that a restart is not noticed.
import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const GRANTABLE = new Set(['AccessToken', 'AuthorizationCode', 'RefreshToken', 'DeviceCode']);

function writeWhole(file, value) {
  writeFileSync(`${file}.new`, JSON.stringify(value), { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

function readJson(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT') return undefined;
    throw new Error(`${file} cannot be read (${error.message}); remove it to start afresh`);
  }
}

function newKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };
}

// The keys for tokens and for visas, and the secret that signs cookies.
export function loadKeys(folder) {
  const file = folder && path.join(folder, 'keys.json');
  if (folder) mkdirSync(folder, { recursive: true });
  const known = file && readJson(file);
  if (known) return known;
  const keys = { tokens: newKey(), visas: newKey(), cookies: randomBytes(32).toString('base64url') };
  if (file) writeWhole(file, keys);
  return keys;
}

// What oidc-provider calls an adapter, one for all its models.
export function createStore(folder) {
  const file = folder && path.join(folder, 'state.json');
  const entries = new Map(Object.entries((file && readJson(file)) || {}));
  let timer;

  const save = () => {
    clearTimeout(timer);
    timer = undefined;
    if (!file) return;
    const now = Date.now();
    for (const [key, { expires }] of entries) if (expires && expires < now) entries.delete(key);
    writeWhole(file, Object.fromEntries(entries));
  };
  const changed = () => {
    if (file && !timer) timer = setTimeout(save, 50);
  };
  const get = (key) => {
    const entry = entries.get(key);
    if (entry?.expires && entry.expires < Date.now()) {
      entries.delete(key);
      return undefined;
    }
    return entry?.payload;
  };

  class Adapter {
    constructor(model) {
      this.model = model;
    }

    key(id) {
      return `${this.model}:${id}`;
    }

    async upsert(id, payload, seconds) {
      entries.set(this.key(id), { payload, expires: seconds ? Date.now() + seconds * 1000 : undefined });
      changed();
    }

    async find(id) {
      return get(this.key(id));
    }

    async findByUid(uid) {
      for (const key of entries.keys()) {
        if (key.startsWith('Session:') && get(key)?.uid === uid) return get(key);
      }
      return undefined;
    }

    async findByUserCode() {
      return undefined; // no device flow
    }

    async consume(id) {
      const payload = get(this.key(id));
      if (payload) payload.consumed = Math.floor(Date.now() / 1000);
      changed();
    }

    async destroy(id) {
      entries.delete(this.key(id));
      changed();
    }

    async revokeByGrantId(grantId) {
      for (const [key, { payload }] of entries) {
        if (GRANTABLE.has(key.slice(0, key.indexOf(':'))) && payload.grantId === grantId) entries.delete(key);
      }
      changed();
    }
  }

  return { Adapter, save };
}
