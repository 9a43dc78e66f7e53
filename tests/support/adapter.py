"""A login to a stack as its page (keycloak-js) or its gateway (oauth2-proxy) does it, and tokens made wrong on purpose."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from cytomine_spawner.stack.model import ENDPOINTS


@dataclass
class Pkce:
    """A verifier and its challenge."""

    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    @property
    def challenge(self) -> str:
        return segment(hashlib.sha256(self.verifier.encode()).digest())


@dataclass
class Adapter:
    """Whoever asks the login of a stack for tokens.

    Attributes:
        issuer: the stack's.
        origin: of the stack's pages.
        browser: is led to the login.
        program: changes codes for tokens; it has no cookies.
        secret: the gateway's.
    """

    issuer: str
    origin: str
    browser: httpx.Client
    program: httpx.Client
    secret: str = ""

    def query(self, client: str = "core", **changes: str) -> dict[str, str]:
        """What keycloak-js or oauth2-proxy ask for."""
        path = "/" if client == "core" else "/oauth2/callback"
        usual = {
            "client_id": client,
            "redirect_uri": self.origin + path,
            "response_type": "code",
            "response_mode": "fragment" if client == "core" else "query",
            "scope": "openid",
            "state": "a state",
            "nonce": "a nonce",
            "code_challenge_method": "S256",
        }
        return {k: v for k, v in {**usual, **changes}.items() if v}

    def ask(self, **query: str) -> httpx.Response:
        """Open the login; follows the redirects within the service and the hub."""
        page = self.browser.get(f"{self.issuer}{ENDPOINTS}/auth", params=query, follow_redirects=False)
        while page.is_redirect:
            target = page.url.join(page.headers["Location"])
            here, there = urlsplit(self.issuer).netloc, urlsplit(str(target)).netloc
            # The hub's host is the service's, or the one that the service's is below.
            if here != there and not here.endswith(f".{there}"):
                break
            page = self.browser.get(target, follow_redirects=False)
        return page

    def code(self, pkce: Pkce, client: str = "core", **changes: str) -> str:
        """Log in as far as the code."""
        return answer(self.ask(**self.query(client, code_challenge=pkce.challenge, **changes)))["code"]

    def post(self, endpoint: str = "token", origin: str = "", **form: str) -> httpx.Response:
        headers = {"Origin": origin} if origin else {}
        return self.program.post(f"{self.issuer}{ENDPOINTS}/{endpoint}", data=form, headers=headers)

    def exchange(self, code: str, pkce: Pkce, client: str = "core", **changes: str) -> httpx.Response:
        """Change a code for tokens."""
        usual = {
            "grant_type": "authorization_code",
            "client_id": client,
            "code": code,
            "redirect_uri": self.query(client)["redirect_uri"],
            "code_verifier": pkce.verifier,
            "client_secret": self.secret if client == "gateway" else "",
        }
        return self.post(**{k: v for k, v in {**usual, **changes}.items() if v})

    def refresh(self, token: str, client: str = "core", **changes: str) -> httpx.Response:
        """Change a refresh token for new tokens."""
        secret = {"client_secret": self.secret} if client == "gateway" else {}
        form = {"grant_type": "refresh_token", "client_id": client, "refresh_token": token}
        return self.post(**{**form, **secret, **changes})

    def log_in(self, client: str = "core") -> dict[str, Any]:
        """The whole login; the token endpoint's answer."""
        pkce = Pkce()
        response = self.exchange(self.code(pkce, client), pkce, client)
        assert response.status_code == 200, response.text
        tokens: dict[str, Any] = response.json()
        return tokens


def answer(page: httpx.Response) -> dict[str, str]:
    """The parameters with which a browser is sent back to its stack."""
    assert page.status_code == 302, page.text
    parts = urlsplit(page.headers["Location"])
    found = parse_qs(parts.fragment or parts.query, strict_parsing=True)
    assert all(len(values) == 1 for values in found.values())
    return {name: values[0] for name, values in found.items()}


def segment(raw: bytes) -> str:
    """Bytes as a part of a token."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def part(values: dict[str, Any]) -> str:
    """A header or claims as a part of a token."""
    return segment(json.dumps(values).encode())


def confused(kid: str, payload: str, secret: bytes) -> str:
    """A token signed by HS256 with what is no secret, such as a public key."""
    head = part({"alg": "HS256", "typ": "JWT", "kid": kid})
    mac = hmac.new(secret, f"{head}.{payload}".encode(), hashlib.sha256).digest()
    return f"{head}.{payload}.{segment(mac)}"
