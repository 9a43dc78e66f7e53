// A stand-in for LS Login in development and tests; never for production.
//
// ISSUER                public address, with the trailing slash (default http://login.localhost:8000/oidc/)
// CLIENTS_FILE          JSON file: {"clients": [{client_id, client_secret, redirect_uris, post_logout_redirect_uris, name, refresh}],
//                       "users": further users, as in users.json}
// DATA_DIR              folder for keys and sessions; without it a restart forgets them
// PORT, HOST            where to listen (default 8080 on all addresses)
// VISA_ISSUER           issuer of the visas (default /ga4gh-broker/ beside the issuer)
// ACCESS_TOKEN_SECONDS  life of an access token (default 3600)
import { readFileSync } from 'node:fs';
import http from 'node:http';
import * as pages from './pages.js';
import { createProvider } from './provider.js';
import { createStore, loadKeys } from './store.js';
import { addUsers, byHint, createBroker, users } from './users.js';

const CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'";

function settings(env) {
  const issuer = env.ISSUER ?? 'http://login.localhost:8000/oidc/';
  if (!/^https?:\/\/[^/]+\/oidc\/$/.test(issuer)) {
    throw new Error(`ISSUER must look like http://host/oidc/, with the trailing slash, not ${issuer}`);
  }
  if (!env.CLIENTS_FILE) throw new Error('CLIENTS_FILE is not set: name the JSON file that lists the clients');
  const { clients, users: further = [] } = JSON.parse(readFileSync(env.CLIENTS_FILE, 'utf8'));
  if (!Array.isArray(clients) || !clients.length) throw new Error(`${env.CLIENTS_FILE} lists no clients`);
  const accessTokenSeconds = Number(env.ACCESS_TOKEN_SECONDS ?? 3600);
  if (!(accessTokenSeconds > 0)) throw new Error('ACCESS_TOKEN_SECONDS must be a number of seconds above 0');
  return {
    issuer,
    clients,
    further,
    accessTokenSeconds,
    data: env.DATA_DIR,
    port: Number(env.PORT ?? 8080),
    host: env.HOST,
    visaIssuer: env.VISA_ISSUER ?? new URL('/ga4gh-broker/', issuer).href,
  };
}

function send(res, status, type, body) {
  res.writeHead(status, { 'content-type': `${type}; charset=utf-8`, 'cache-control': 'no-store', ...(type === 'text/html' && { 'content-security-policy': CSP }) });
  res.end(body);
}

async function form(req) {
  let text = '';
  for await (const part of req) {
    text += part;
    if (text.length > 10_000) throw Object.assign(new Error('the form is too long'), { status: 413 });
  }
  return new URLSearchParams(text);
}

async function interaction(provider, req, res) {
  const { params, prompt, uid } = await provider.interactionDetails(req, res);
  const finish = (result) => provider.interactionFinished(req, res, result, { mergeWithLastSubmission: false });
  if (prompt.name !== 'login') {
    await finish({ error: 'access_denied', error_description: 'this stand-in never asks for consent' });
    return;
  }
  const login = async (user) => {
    if (user.refusedInTestPhase) {
      res.writeHead(303, { location: `/oidc/unauthorizedEnvVosGroups?user=${user.key}` });
      res.end();
      return;
    }
    await finish({ login: { accountId: user.sub } });
  };
  if (req.method === 'POST') {
    const chosen = (await form(req)).get('user');
    const user = byHint(chosen);
    if (user) await login(user);
    else if (chosen === '') await finish({ error: 'access_denied', error_description: 'the user cancelled the login' });
    else send(res, 400, 'text/html', pages.failure('Unknown user', 'The field user names nobody on the list. Go back and choose again.'));
    return;
  }
  const hinted = params.username_hint && byHint(params.username_hint);
  if (hinted) {
    await login(hinted);
    return;
  }
  const client = await provider.Client.find(params.client_id);
  send(res, 200, 'text/html', pages.choose(users, client.clientName, `/oidc/interaction/${uid}`));
}

export async function start(env) {
  const { issuer, clients, further, accessTokenSeconds, data, port, host, visaIssuer } = settings(env);
  addUsers(further);
  const keys = loadKeys(data);
  const store = createStore(data);
  const broker = await createBroker(visaIssuer, keys.visas);
  const provider = createProvider({ issuer, clients, store, keys, broker, accessTokenSeconds });
  const callback = provider.callback();
  const publicUrl = new URL(issuer);

  const handle = async (req, res) => {
    const { pathname, searchParams } = new URL(req.url, issuer);
    if (pathname === '/healthz') return send(res, 200, 'text/plain', 'ok\n');
    if (pathname === '/') return send(res, 200, 'text/html', pages.welcome(issuer));
    if (pathname === '/ga4gh-broker/jwk') return send(res, 200, 'application/json', JSON.stringify(broker.jwks));
    if (pathname === '/oidc/unauthorizedEnvVosGroups') {
      return send(res, 403, 'text/html', pages.testPhase(byHint(searchParams.get('user'))));
    }
    if (!pathname.startsWith('/oidc/')) return send(res, 404, 'text/plain', 'There is nothing here.\n');
    // The hub calls the Service's address, browsers call the ingress: both must read the public issuer's URLs.
    req.headers.host = publicUrl.host;
    req.headers['x-forwarded-proto'] = publicUrl.protocol.slice(0, -1);
    delete req.headers['x-forwarded-host'];
    if (pathname.startsWith('/oidc/interaction/')) return interaction(provider, req, res);
    req.originalUrl = req.url;
    req.url = req.url.slice('/oidc'.length);
    return callback(req, res);
  };

  const server = http.createServer(async (req, res) => {
    try {
      await handle(req, res);
    } catch (error) {
      const expired = error.name === 'SessionNotFound';
      if (!expired && !error.status) console.error(error);
      if (res.headersSent) return res.destroy();
      const text = expired ? 'This login was ended or took too long. Go back to the service and log in again.' : 'The server could not answer. Its log says why.';
      send(res, expired ? 400 : error.status ?? 500, 'text/html', pages.failure(expired ? 'Login expired' : 'Something failed', text));
    }
  });
  await new Promise((resolve, reject) => server.once('error', reject).listen(port, host, resolve));
  console.log(`stand-in for LS Login: issuer ${issuer}, listening on port ${server.address().port}`);

  const stop = () => {
    store.save();
    server.close(() => process.exit(0));
    server.closeAllConnections();
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
  return server;
}

start(process.env).catch((error) => {
  console.error(`The stand-in for LS Login cannot start: ${error.message}`);
  process.exit(1);
});
