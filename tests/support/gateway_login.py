"""The login before a stack's gateway: oauth2-proxy with the rendered options, and an issuer that says yes at once.

The program comes from ``OAUTH2_PROXY_PROGRAM`` or the PATH.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from dev.standin.local import free_port
from tests.support.gateway import MISSING as NO_NGINX
from tests.support.gateway import Answer, Door, running, wait_for

PROGRAM = os.environ.get("OAUTH2_PROXY_PROGRAM") or shutil.which("oauth2-proxy")
MISSING = NO_NGINX or not PROGRAM
REASON = "nginx with its JavaScript module or oauth2-proxy is not installed (./test unit builds it)"
SECRET = "client-secret"
REALM = "/services/cytomine/cm-ada/iam/realms/cytomine"
ENDPOINT = f"{REALM}/protocol/openid-connect"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        issuer: Issuer = self.server.issuer  # type: ignore[attr-defined]
        if urlsplit(self.path).path == f"{ENDPOINT}/certs":
            self._send(200, issuer.jwks())
        else:
            self._send(404, {})

    def do_POST(self) -> None:
        issuer: Issuer = self.server.issuer  # type: ignore[attr-defined]
        length = int(self.headers.get("content-length", 0))
        form = {k: v[0] for k, v in parse_qs(self.rfile.read(length).decode()).items()}
        self._send(*issuer.token(self.path, form, self.headers.get("authorization", "")))

    def _send(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


class Issuer:
    """What the stack service is to the gateway. ``claims`` and ``sign`` make its tokens wrong on purpose."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.issuer = self  # type: ignore[attr-defined]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.service = f"http://127.0.0.1:{self.server.server_port}/services/cytomine"
        self.issuer = f"http://127.0.0.1:{self.server.server_port}{REALM}"
        self.codes: dict[str, dict[str, str]] = {}
        self.claims: dict[str, Any] = {}
        self.sign = self._sign
        self.refused = False
        self.refreshed = 0
        self.asked: list[dict[str, str]] = []

    def jwks(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**public, "kid": "k", "alg": "RS256", "use": "sig"}]}

    def _sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": "k"})

    def authorize(self, location: str) -> str:
        """What the browser does at the login address of a user whom the hub knows: the way back."""
        query = {k: v[0] for k, v in parse_qs(urlsplit(location).query).items()}
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        self.asked.append(form)
        basic = base64.b64decode(authorization.removeprefix("Basic ")).decode() if authorization else ""
        if path != f"{ENDPOINT}/token" or SECRET not in (form.get("client_secret"), basic.partition(":")[2]):
            return 401, {"error": "invalid_client"}
        if form["grant_type"] == "refresh_token":
            if self.refused or form["refresh_token"] != f"refresh-{self.refreshed}":
                return 400, {"error": "invalid_grant"}
            self.refreshed += 1
            return 200, self._tokens("")
        query = self.codes.pop(form["code"], None)
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).rstrip(b"=").decode()
        if not query or query["code_challenge"] != challenge or form["redirect_uri"] != query["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        return 200, self._tokens(query["nonce"])

    def _tokens(self, nonce: str) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": "6d0c4e39-9d3c-5d5a-8f2b-7c116f9d0f64",
            "exp": now + 300,
            "iat": now,
        }
        # as long as real ones: the session does not fit into one cookie
        access = {
            **claims,
            "azp": "gateway",
            "name": "ä" * 400,
            "n": self.refreshed,
            "jti": os.urandom(900).hex(),
        }
        found = {"token_type": "Bearer", "expires_in": 300, "refresh_token": f"refresh-{self.refreshed}"}
        id_token = self.sign(
            {**claims, "aud": "gateway", **({"nonce": nonce} if nonce else {}), **self.claims}
        )
        return {**found, "access_token": self._sign(access), "id_token": id_token}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@dataclass
class Browser:
    """Asks through the login and keeps cookies."""

    port: int
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        names = {k.replace("_", "-"): v for k, v in headers.items()}
        names.setdefault("Host", f"cm-ada.stacks.localhost:{self.port}")
        if self.cookies and "Cookie" not in names:
            names["Cookie"] = self.header()
        connection.request(method, path, body, names)
        response = connection.getresponse()
        content = response.read()
        self.set_cookies = response.headers.get_all("set-cookie") or []
        connection.close()
        for cookie in self.set_cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            if value:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, content)

    def header(self) -> str:
        return "; ".join(f"{k}={v}" for k, v in self.cookies.items())

    def log_in(self, issuer: Issuer, path: str = "/") -> Answer:
        """From a page without a session to the page, by the issuer."""
        start = self.ask(path)
        assert start.status == 302, start
        back = urlsplit(issuer.authorize(start.headers["location"]))
        return self.ask(f"{back.path}?{back.query}")


@dataclass
class Login:
    """A gateway with its login.

    Attributes:
        port: of the gateway, for browsers.
        own: the login's port.
        pid: of the login.
    """

    port: int
    own: int
    pid: int
    door: Door
    issuer: Any
    log: Path

    @property
    def url(self) -> str:
        return f"http://cm-ada.stacks.localhost:{self.port}"

    def browser(self) -> Browser:
        return Browser(self.port)


@contextlib.contextmanager
def logging_in(folder: Path, **options: str) -> Iterator[Login]:
    """Run both of the gateway's programs with the rendered options; ``options`` replace some of the login's."""
    issuer = Issuer()
    try:
        with before(issuer.service, folder, SECRET, issuer, **options) as login:
            yield login
    finally:
        issuer.close()


@contextlib.contextmanager
def before(
    service: str,
    folder: Path,
    secret: str,
    issuer: Any = None,
    port: int = 0,
    *,
    script: bool = False,
    **options: str,
) -> Iterator[Login]:
    """The gateway before an issuer that runs already; with ``script`` started as the pod starts it."""
    port, own = port or free_port(), free_port()
    given = {"service_url": service, "service_internal_url": service}
    url = f"http://cm-ada.stacks.localhost:{port}"
    (folder / "oidc-client-secret").write_text(secret)
    (folder / "oauth2-cookie-secret").write_text(os.urandom(16).hex())
    gateway = running(folder, url=url, public=port, login=own, script=script, **given)
    with gateway as door, _program(folder, door, own, options) as process:
        yield Login(port, own, process.pid, door, issuer, folder / "login.log")


@contextlib.contextmanager
def _program(
    folder: Path, door: Door, port: int, options: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    container = next(
        c
        for o in door.objects
        if o["kind"] == "Deployment" and o["metadata"]["name"] == "cm-ada-gateway"
        for c in o["spec"]["template"]["spec"]["containers"]
        if c["name"] == "login"
    )
    args = []
    for argument in container["args"]:
        name = argument.lstrip("-").partition("=")[0]
        text = (
            f"--{name}={options[name.replace('-', '_')]}" if name.replace("-", "_") in options else argument
        )
        text = text.replace("=:4180", f"=127.0.0.1:{port}")
        args.append(text.replace("/etc/oauth2-proxy", str(folder)))
    log = folder / "login.log"
    with log.open("wb") as out:
        process = subprocess.Popen([str(PROGRAM), *args], stdout=out, stderr=out)
    try:
        wait_for(port, process, log)
        yield process
    finally:
        process.terminate()
        process.wait(10)
