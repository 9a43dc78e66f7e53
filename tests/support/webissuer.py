"""An issuer for the browser: it says at once who comes, by a cookie of its own, as keycloak-js expects it."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import secrets
import threading
import time
import uuid
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from dev.standin.local import free_port
from tests.support.standin import NAMESPACE

STEP1 = '<!doctype html><script>parent.postMessage("unsupported", "*")</script>'


class WebIssuer:
    """Code flow with PKCE, refresh, logout and the page of the cookie check, below ``/realms/cytomine``."""

    def __init__(self, roles: dict[str, str]) -> None:
        self.roles, self.codes = roles, dict[str, dict[str, str]]()
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        self.keys = {"keys": [{**public, "kid": "web", "alg": "RS256", "use": "sig"}]}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.issuer = f"{self.url}/realms/cytomine"
        self.jwks = f"{self.issuer}/protocol/openid-connect/certs"
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.get(self)

            def do_POST(self) -> None:
                owner.post(self)

            def do_OPTIONS(self) -> None:
                owner._answer(self, 204, "text/plain", b"")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def get(self, request: http.server.BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        if parts.path.endswith("/account"):
            return self._account(request)
        end = parts.path.rpartition("/openid-connect")[2]
        if end == "/auth":
            who = SimpleCookie(request.headers.get("Cookie", "")).get("who")
            if who is None or query.get("code_challenge_method") != "S256":
                return self._answer(request, 403, "text/plain", b"Nobody is logged in.")
            code = secrets.token_urlsafe(16)
            self.codes[code] = {**query, "who": who.value}
            back = {"state": query["state"], "session_state": "s", "iss": self.issuer, "code": code}
            request.send_response(302)
            # The page's own fragment stays, as with Keycloak.
            joint = "&" if "#" in query["redirect_uri"] else "#"
            request.send_header("Location", f"{query['redirect_uri']}{joint}{urlencode(back)}")
            request.end_headers()
            return None
        if end == "/certs":
            return self._answer(request, 200, "application/json", json.dumps(self.keys).encode())
        if end == "/logout":
            request.send_response(302)
            request.send_header("Set-Cookie", "who=; Max-Age=0; Path=/")
            request.send_header("Location", f"{self.url}/gone")
            request.end_headers()
            return None
        if end == "/3p-cookies/step1.html":
            return self._answer(request, 200, "text/html", STEP1.encode())
        return self._answer(request, 200, "text/plain", b"ok")

    def post(self, request: http.server.BaseHTTPRequestHandler) -> None:
        form = parse_qs(request.rfile.read(int(request.headers["Content-Length"])).decode())
        data = {k: v[0] for k, v in form.items()}
        if data["grant_type"] == "refresh_token":
            claims = jwt.decode(
                data["refresh_token"], self.key.public_key(), ["RS256"], options={"verify_aud": False}
            )
            asked = {"who": claims["preferred_username"]}
        else:
            asked = self.codes.pop(data["code"])
            digest = hashlib.sha256(data["code_verifier"].encode()).digest()
            assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
        names = ("access_token", "refresh_token", "id_token")
        tokens = {name: self.token(asked["who"], asked.get("nonce")) for name in names}
        body = {
            **tokens,
            "expires_in": 300,
            "refresh_expires_in": 1800,
            "token_type": "Bearer",
            "session_state": "s",
        }
        return self._answer(request, 200, "application/json", json.dumps(body).encode())

    def _account(self, request: http.server.BaseHTTPRequestHandler) -> None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        claims = jwt.decode(token, self.key.public_key(), ["RS256"], options={"verify_aud": False})
        body = {"username": claims["preferred_username"], "attributes": {"locale": ["en"]}}
        self._answer(request, 200, "application/json", json.dumps(body).encode())

    def token(self, who: str, nonce: str | None = None) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": str(uuid.uuid5(NAMESPACE, who)),
            "aud": "core",
            "azp": "core",
            "typ": "Bearer",
            "nonce": nonce,
            "session_state": "s",
            "iat": now,
            "exp": now + 300,
            "preferred_username": who,
            "name": who.title(),
            "email": f"{who}@x",
            "resource_access": {"core": {"roles": [self.roles.get(who, "USER")]}},
        }
        return jwt.encode(
            {k: v for k, v in claims.items() if v is not None}, self.key, "RS256", {"kid": "web"}
        )

    def _answer(
        self, request: http.server.BaseHTTPRequestHandler, status: int, kind: str, body: bytes
    ) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Access-Control-Allow-Origin", request.headers.get("Origin", "*"))
        request.send_header("Access-Control-Allow-Credentials", "true")
        request.send_header("Access-Control-Allow-Headers", "Authorization")
        request.end_headers()
        request.wfile.write(body)
