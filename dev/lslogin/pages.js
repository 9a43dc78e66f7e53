// A stand-in for LS Login in development and tests; never for production.
// Its pages: no script but the one that goes on after a logout, readable and usable by keyboard.
import { fullName } from './users.js';

const ESCAPES = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escape = (text) => String(text).replace(/[&<>"']/g, (c) => ESCAPES[c]);

const STYLE = `
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0; background: #f3f5f7; color: #1b2733; }
header { background: #1d4d3b; color: #fff; padding: .75rem 1.5rem; font-weight: 600; }
main { max-width: 40rem; margin: 2rem auto; padding: 1.5rem 2rem 2rem; background: #fff; border: 1px solid #c9d2da; border-radius: .4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
.note { background: #fff6dd; border-left: .3rem solid #b47b00; padding: .5rem .9rem; }
ul { list-style: none; margin: 1rem 0; padding: 0; }
li { margin: 1rem 0; }
button { font: inherit; cursor: pointer; border-radius: .3rem; padding: .6rem .9rem; border: 1px solid #5b6b79; background: #fff; color: inherit; }
button:hover { background: #e8f3ee; }
button:focus-visible, a:focus-visible { outline: .2rem solid #0b5fff; outline-offset: .1rem; }
.user { width: 100%; text-align: left; margin-bottom: .2rem; }
li small { color: #44525f; }
.main { background: #1d4d3b; border-color: #1d4d3b; color: #fff; }
.main:hover { background: #16392c; }
code { overflow-wrap: anywhere; }`;

function page(title, body) {
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)} – LS Login stand-in</title>
<link rel="icon" href="data:,">
<style>${STYLE}</style>
</head>
<body>
<header>LS Login (stand-in)</header>
<main>
<h1>${escape(title)}</h1>
${body}
</main>
</body>
</html>
`;
}

// cytomine:users, or cytomine:users (aai.example.net) of an authority other than LS Login's
function shortGroup(urn) {
  const [name, authority] = urn.split('#');
  const short = decodeURIComponent(name.replace(/^.*?:group:(lifescience:communities_and_projects:)?/, ''));
  return authority === 'aai.lifescience-ri.eu' ? short : `${short} (${authority})`;
}

export function choose(users, client, action) {
  const buttons = users.map((user) => {
    const groups = user.entitlements.map(shortGroup).join(', ') || 'none';
    const id = `about-${escape(user.key)}`;
    return `<li><button class="user" name="user" value="${escape(user.key)}" aria-describedby="${id}">
<strong>${escape(fullName(user))}</strong></button>
<small id="${id}">${escape(user.purpose)}. Groups: ${escape(groups)}</small></li>`;
  });
  return page('Log in', `<p class="note">This page stands in for LS Login in development and tests. None of these people exists, and there is no password.</p>
<p><strong>${escape(client)}</strong> asks who you are. Log in as:</p>
<form method="post" action="${escape(action)}">
<ul>
${buttons.join('\n')}
</ul>
<button name="user" value="">Cancel</button>
</form>`);
}

export function testPhase(user) {
  const who = user ? `, ${escape(fullName(user))}` : '';
  return page('Access denied', `<p>You logged in${who}, but you may not use this service yet.</p>
<p>The service is registered with LS Login in its <strong>test phase</strong>: only members of the test organisation
<code>lifescience_test</code> can log in to it.</p>
<p>What to do: ask to join <code>lifescience_test</code> (LS Login's own page links to its sign-up form), wait some minutes until the
membership is known everywhere, and log in again. The service's operators can end the test phase by having the service moved to production.</p>`);
}

export function logout(form, automatic) {
  if (automatic) {
    return page('Logging out', `${form}
<p>You are being logged out.</p>
<button class="main" type="submit" form="op.logoutForm" name="logout" value="yes" id="go">Continue</button>
<script>document.getElementById('go').click()</script>`);
  }
  return page('Log out of LS Login?', `${form}
<p>Other services that you opened with this login stay open until you leave them.</p>
<button class="main" type="submit" form="op.logoutForm" name="logout" value="yes" autofocus>Log out</button>
<button type="submit" form="op.logoutForm">Stay logged in</button>`);
}

export const loggedOut = () => page('Logged out', '<p>You are logged out of LS Login.</p>');

export const failure = (title, text) => page(title, `<p>${escape(text)}</p>`);

export const welcome = (issuer) => page('LS Login stand-in', `<p class="note">This server stands in for LS Login in development and tests.</p>
<p>Issuer: <code>${escape(issuer)}</code></p>
<p><a href="${escape(issuer)}.well-known/openid-configuration">Discovery document</a></p>`);
