"""The genuine keycloak-js from npm, in the cache, and a page that logs in with it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from dev.images import node

HERE = Path(__file__).parent / "keycloak"


def adapter() -> Path:
    """The adapter's script, fetched unless it is there already.

    Raises:
        Problem: the package registry did not answer.
    """
    found = node.packages(sorted(HERE.glob("*.json")), "keycloak-js", "Fetching keycloak-js")
    return found / "node_modules/keycloak-js/dist/keycloak.js"


PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>A stack</title><link rel="icon" href="data:,">
</head><body data-state="starting"><script src="/keycloak.js"></script><script src="/page.js"></script></body></html>"""
SCRIPT = """
const kc = window.kc = new Keycloak({url: URL_OF_IAM, realm: "cytomine", clientId: "core"});
const how = new URLSearchParams(location.search).get("how") || "login-required";
kc.init({onLoad: how}).then(
  inside => { document.body.dataset.state = inside ? "in" : "out"; },
  error => { document.body.dataset.state = "failed"; document.body.dataset.error = String(error && error.error || error); });
"""


@contextmanager
def page(iam: str) -> Iterator[int]:
    """Serve the page on loopback, for whatever host; its port."""
    found = {
        "/keycloak.js": ("text/javascript", adapter().read_bytes()),
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
