"""The genuine keycloak-js and vue-router from npm, in the cache, and a page that logs in with them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from dev.images import node

HERE = Path(__file__).parent / "keycloak"


# The page's name for each library, and its place below node_modules.
LIBRARIES = {
    "/keycloak.js": "keycloak-js/dist/keycloak.js",
    "/vue.js": "vue/dist/vue.js",
    "/vue-router.js": "vue-router/dist/vue-router.js",
}


def libraries() -> Path:
    """The folder of the libraries, fetched unless it is there already.

    Raises:
        Problem: the package registry did not answer.
    """
    found = node.packages(sorted(HERE.glob("*.json")), "keycloak-js", "Fetching keycloak-js and vue-router")
    return found / "node_modules"


PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>A stack</title><link rel="icon" href="data:,">
<base href="/"></head><body data-state="starting"><div id="app"></div><script src="/keycloak.js"></script>
<script src="/vue.js"></script><script src="/vue-router.js"></script><script src="/page.js"></script></body></html>"""
# As upstream's user interface goes about it: the router is made when the script is read, and writes the page's
# fragment at once; the adapter comes after it, and the page only after the login. Then it asks for the account, by a
# call that sends cookies, and shows nothing if there is none.
SCRIPT = """
const IAM = URL_OF_IAM, asked = new URLSearchParams(location.search), mode = asked.get("router");
Vue.config.productionTip = Vue.config.devtools = false;
const Place = { render(h) { return h("p", { attrs: { id: "place" } }, this.$route.fullPath); } };
const router = mode && new VueRouter({ mode, routes: [{ path: "*", component: Place }] });
const kc = window.kc = new Keycloak({url: IAM, realm: "cytomine", clientId: "core"});
const state = (name, error) => Object.assign(document.body.dataset, { state: name, ...(error && { error }) });
window.account = async (path = "", options = {}) => {
  const answer = await fetch(`${IAM}/realms/cytomine/account${path}`, { credentials: "include", ...options,
    headers: { Authorization: `Bearer ${kc.token}`, Accept: "application/json", "Content-Type": "application/json" } });
  return [answer.status, answer.status === 204 ? null : await answer.json()];
};
kc.init({onLoad: asked.get("how") || "login-required"}).then(async inside => {
  if (!inside) return state("out");
  window.mine = await window.account();
  if (router) new Vue({ router, render: h => h("router-view") }).$mount("#app");
  state("in");
}).catch(error => state("failed", String(error && error.error || error)));
"""


@contextmanager
def page(iam: str) -> Iterator[int]:
    """Serve the page on loopback, for whatever host; its port."""
    folder = libraries()
    found = {
        **{name: ("text/javascript", (folder / path).read_bytes()) for name, path in LIBRARIES.items()},
        "/page.js": ("text/javascript", SCRIPT.replace("URL_OF_IAM", json.dumps(iam)).encode()),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = found.get(self.path.partition("?")[0], ("text/html", PAGE.encode()))
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
