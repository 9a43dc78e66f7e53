// A stand-in for LS Login in development and tests; never for production.
// The test users, their claims and their signed visas.
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { SignJWT, importJWK } from 'jose';

const VISA_SECONDS = 24 * 3600;
const ASSERTED = Date.UTC(2025, 0, 15) / 1000;

export const users = JSON.parse(readFileSync(new URL('./users.json', import.meta.url), 'utf8')).users;

// Those of whoever started the stand-in, behind its own.
export const addUsers = (further) => users.push(...further.filter((user) => !bySub(user.sub)));

export const bySub = (sub) => users.find((user) => user.sub === sub);

// `username_hint` names a user by key, user name or subject.
export const byHint = (hint) => users.find((u) => [u.key, u.preferred_username, u.sub].includes(hint));

export const fullName = (user) => `${user.given_name} ${user.family_name}`;

// The broker that signs visas: an issuer of its own, with its own keys.
export async function createBroker(issuer, jwk) {
  const key = await importJWK(jwk, 'RS256');
  const { kty, n, e, kid, alg, use } = jwk;
  const jku = new URL('jwk', issuer).href;

  const sign = (user, visa) => new SignJWT({
    ga4gh_visa_v1: { source: 'https://example.org/data-access-committee', by: 'dac', asserted: ASSERTED, ...visa },
  })
    .setProtectedHeader({ alg: 'RS256', typ: 'JWT', kid, jku })
    .setIssuer(issuer)
    .setSubject(user.sub)
    .setIssuedAt()
    .setExpirationTime(`${VISA_SECONDS}s`)
    .setJti(randomUUID())
    .sign(key);

  return {
    issuer,
    jwks: { keys: [{ kty, n, e, kid, alg, use }] },
    passport: (user) => Promise.all(user.visas.map((visa) => sign(user, visa))),
  };
}

// oidc-provider's account: it hands out only the claims whose scopes were asked for.
export function account(user, broker) {
  return {
    accountId: user.sub,
    async claims(use, scope) {
      const asked = new Set(scope.split(' '));
      return {
        sub: user.sub,
        preferred_username: user.preferred_username,
        name: fullName(user),
        given_name: user.given_name,
        family_name: user.family_name,
        email: user.email,
        email_verified: true,
        eduperson_entitlement: user.entitlements,
        ...(asked.has('ga4gh_passport_v1') && { ga4gh_passport_v1: await broker.passport(user) }),
      };
    },
  };
}
