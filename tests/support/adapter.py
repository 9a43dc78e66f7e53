"""A login to a stack of the tests' hub, as the page's adapter does it, and the keys that the service signs with."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlsplit

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cytomine_spawner.stacks.identity.keyring import Key
from cytomine_spawner.stacks.model import ENDPOINTS, REALM
from tests.support.identity import Pkce, answer
from tests.support.lab import Lab


class Adapter:
    """What a page of a stack, or somebody who pretends to be one, asks of the login.

    Args:
        lab: whose browser asks.
        stack: the stack's name.
    """

    def __init__(self, lab: Lab, stack: str) -> None:
        self.lab = lab
        self.url = lab.hub.place.stack_url(lab.hub.target.port).replace("{stack}", stack)
        self.issuer = f"{lab.hub.url}/services/cytomine/{stack}{REALM}"

    def query(self, pkce: Pkce, **changes: str) -> dict[str, str]:
        """What keycloak-js asks for."""
        usual = {
            "client_id": "core",
            "redirect_uri": f"{self.url}/",
            "response_type": "code",
            "scope": "openid",
            "state": "a state",
            "nonce": "a nonce",
            "code_challenge": pkce.challenge,
            "code_challenge_method": "S256",
        }
        return {k: v for k, v in {**usual, **changes}.items() if v}

    def ask(self, pkce: Pkce, **changes: str) -> httpx.Response:
        """Open the login; follows the redirects within the hub."""
        client = self.lab.person.client
        query = self.query(pkce, **changes)
        page = client.get(f"{self.issuer}{ENDPOINTS}/auth", params=query, follow_redirects=False)
        while page.is_redirect:
            target = page.url.join(page.headers["Location"])
            if urlsplit(str(target)).netloc != urlsplit(self.lab.hub.url).netloc:
                return page
            page = client.get(target, follow_redirects=False)
        return page

    def code(self, pkce: Pkce) -> str:
        """Log in as far as the code."""
        return answer(self.ask(pkce))["code"]

    def exchange(self, code: str, pkce: Pkce, **changes: str) -> httpx.Response:
        """Change a code for tokens."""
        usual = {
            "grant_type": "authorization_code",
            "client_id": "core",
            "code": code,
            "redirect_uri": f"{self.url}/",
            "code_verifier": pkce.verifier,
        }
        form = {k: v for k, v in {**usual, **changes}.items() if v}
        return self.lab.person.client.post(f"{self.issuer}{ENDPOINTS}/token", data=form)

    def refresh(self, token: str) -> httpx.Response:
        """Change a refresh token for new tokens."""
        form = {"grant_type": "refresh_token", "client_id": "core", "refresh_token": token}
        return self.lab.person.client.post(f"{self.issuer}{ENDPOINTS}/token", data=form)

    def log_in(self) -> dict[str, Any]:
        """The whole login; the token endpoint's answer."""
        pkce = Pkce()
        response = self.exchange(self.code(pkce), pkce)
        assert response.status_code == 200, response.text
        tokens: dict[str, Any] = response.json()
        return tokens


def signing_key(lab: Lab) -> Key:
    """The key that the running service signs with: only the cluster's administrator can read it."""
    secret = lab.kube.get("-n", lab.namespace, "secret", "cytomine-identity-keys")
    assert secret
    oldest = json.loads(base64.b64decode(secret["data"]["keys.json"]))[-1]
    private = serialization.load_pem_private_key(oldest["private"].encode(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return Key.of(private, oldest["created"])
