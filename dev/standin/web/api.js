// The login with keycloak-js as upstream's page does it, and calls with its token.
let keycloak;

async function configuration() {
  const answer = await fetch("/configuration.json");
  if (!answer.ok) throw new Error(`The configuration cannot be read (${answer.status}). Is the stack running?`);
  return answer.json();
}

export async function login() {
  const config = await configuration();
  const issuer = config.IAM_URL || "";
  if (!issuer) throw new Error("This stack names no login (IAM_URL is empty), so nobody can log in. Ask its administrator.");
  const found = /^(.*)\/realms\/([^/]+)\/?$/.exec(issuer);
  if (!found) throw new Error(`The login's address ${issuer} names no realm. Ask the stack's administrator.`);
  if (!window.Keycloak || !window.ol) throw new Error("This page's libraries are missing. Build the image, or see dev/standin/README.md.");
  // As the router of upstream's page, which is made before the adapter: a fragment begins with a slash.
  if (!location.hash.startsWith("#/")) history.replaceState(history.state, "", `#/${location.hash.slice(1)}`);
  try {
    // Without an answer the redirect would lead nowhere.
    await fetch(`${issuer}/.well-known/openid-configuration`);
  } catch {
    throw new Error(`The login at ${issuer} does not answer. Try again in a minute.`);
  }
  keycloak = new window.Keycloak({ url: found[1], realm: found[2], clientId: "core" });
  try {
    await keycloak.init({ onLoad: "login-required" });
  } catch (error) {
    throw new Error(`The login failed (${(error && (error.error_description || error.error)) || error}). Reload the page to try again.`);
  }
  return config;
}

// Keycloak's account of who is logged in. Upstream's page asks for it with cookies at each start and shows nothing without.
export async function account() {
  const { authServerUrl, realm } = keycloak;
  try {
    const answer = await fetch(`${authServerUrl}/realms/${realm}/account`, {
      credentials: "include",
      headers: { Authorization: `Bearer ${keycloak.token}`, Accept: "application/json" },
    });
    if (!answer.ok) throw new Error(String(answer.status));
    const found = await answer.json();
    if (!found.username || !found.attributes?.locale?.length) throw new Error("no account");
    return found;
  } catch (error) {
    throw new Error(`Communication error: the login does not say whose account this is (${error.message}).`);
  }
}

export function logout() {
  return keycloak.logout();
}

async function send(method, path, body, accept) {
  try {
    await keycloak.updateToken(70);
  } catch {
    throw new Error("Your session has ended. Reload the page to log in again.");
  }
  const head = { Authorization: `Bearer ${keycloak.token}`, Accept: accept };
  if (body !== undefined) head["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(`/api/${path}`, { method, headers: head, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Error("The stack does not answer. Is it running?");
  }
  if (answer.ok) return answer;
  let text = "";
  try {
    const data = await answer.json();
    text = data.errors?.message || data.errors || data.detail || "";
  } catch { /* a page of HTML says nothing more */ }
  throw new Error(`Cytomine refused (${answer.status})${text ? `: ${text}` : ""}`);
}

export async function call(method, path, body) {
  return (await send(method, path, body, "application/json")).json();
}

export async function list(path) {
  return (await call("GET", path)).collection;
}

export async function picture(path) {
  return (await send("GET", path, undefined, "image/*")).blob();
}
