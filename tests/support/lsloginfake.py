"""A small OpenID provider on loopback, for tests of the login: it can rotate, hang, break and gossip."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
import time
import uuid
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlencode

import jwt
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

SECRET = "SECRET-client-secret"
CLIENT = "hub-under-test"
ROOT = "urn:geant:lifescience-ri.eu:group:lifescience:communities_and_projects"
BY = "#aai.lifescience-ri.eu"
USERS = f"{ROOT}:cytomine:users{BY}"
ADMINS = f"{ROOT}:cytomine:admins{BY}"
VISA = "SECRET-visa.eyJhbGciOiJSUzI1NiJ9.eyJnYTRnaF92aXNhX3YxIjp7fX0.c2lnbmF0dXJl"
# What must never be in a log: each token, code, visa and secret of this provider starts so, or is a JWT.
MARKS = ("SECRET-", "eyJ")
ADA = {
    "sub": "28f7bc3a" * 5 + "@lifescience-ri.eu",
    "preferred_username": "ada",
    "name": "Ada Lovelace",
    "email": "ada@example.org",
    "eduperson_entitlement": [USERS],
}


class Provider:
    """The provider; its attributes may be changed at any time.

    Attributes:
        person: the claims of whoever "logs in" next, without asking.
        broken: by path: a status to answer with, or "hang".
        refuse: OAuth error with which the next logins come back, or "".
        lifetime: seconds that access tokens are said to live.
        requests: how often each path was asked.
    """

    def __init__(self) -> None:
        self.person: dict[str, Any] = dict(ADA)
        self.broken: dict[str, int | str] = {}
        self.refuse = ""
        self.lifetime = 3600
        self.refresh_tokens = True
        self.rotate = True
        self.claims: dict[str, Any] = {}
        self.discovery: dict[str, Any] = {}
        self.sub_of_id_token: str | None = None
        self.requests: Counter[str] = Counter()
        self.scopes: list[str] = []
        self.codes: dict[str, dict[str, Any]] = {}
        self.access: dict[str, dict[str, Any]] = {}
        self.refresh: dict[str, dict[str, Any]] = {}
        self.spent: set[str] = set()
        self.revoked: list[str] = []
        self.ended: list[dict[str, str]] = []
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Provider:
        self._thread.start()
        self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}/oidc/"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        sock, self.port = bind_unused_port()
        app = web.Application(
            [(rf"/oidc/{path}", handler, {"provider": self}) for path, handler in HANDLERS.items()],
            log_function=lambda handler: None,
        )
        HTTPServer(app).add_socket(sock)
        self._loop.call_soon(self._started.set)
        self._loop.run_forever()

    def end_tokens(self) -> None:
        """Let all access tokens run out, without telling."""
        self.access.clear()

    def revoke_grants(self) -> None:
        self.access.clear()
        self.refresh.clear()

    def tokens(self, grant: dict[str, Any]) -> dict[str, Any]:
        access, refresh = f"SECRET-at-{uuid.uuid4().hex}", f"SECRET-rt-{uuid.uuid4().hex}"
        self.access[access] = grant
        answer = {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "scope": grant["scope"],
        }
        if self.refresh_tokens:
            self.refresh[refresh] = grant
            answer["refresh_token"] = refresh
        claims = {"iss": self.issuer, "sub": self.sub_of_id_token or grant["person"]["sub"], "aud": CLIENT}
        answer["id_token"] = jwt.encode(claims, "k" * 32, "HS256")
        return answer


class Handler(web.RequestHandler):
    provider: Provider

    def initialize(self, provider: Provider) -> None:
        self.provider = provider

    async def prepare(self) -> None:
        path = self.request.path.removeprefix("/oidc/")
        self.provider.requests[path] += 1
        broken = self.provider.broken.get(path)
        if broken == "hang":
            await asyncio.sleep(30)
        if broken == "garbage":
            self.finish("<html>maintenance SECRET-page</html>")
        elif isinstance(broken, int):
            self.gossip(broken, "server_error")

    def gossip(self, status: int, error: str) -> None:
        """Answer with an error that repeats all it was sent, as careless providers do."""
        sent = f"{self.request.body.decode()} {self.request.headers.get('Authorization', '')} {SECRET}"
        self.set_status(status, f"no {' '.join(self.request.headers.get_list('Authorization'))}")
        self.finish({"error": error, "error_description": f"I do not like {sent}"})

    def form(self) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(self.request.body.decode()).items()}

    def client_known(self) -> bool:
        expected = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        return self.request.headers.get("Authorization") == f"Basic {expected}"


class Discovery(Handler):
    def get(self) -> None:
        base = self.provider.issuer
        document = {
            "issuer": base,
            "authorization_endpoint": f"{base}authorize",
            "token_endpoint": f"{base}token",
            "userinfo_endpoint": f"{base}userinfo",
            "end_session_endpoint": f"{base}endsession",
            "revocation_endpoint": f"{base}revoke",
            "scopes_supported": [
                "openid",
                "profile",
                "email",
                "eduperson_entitlement",
                "offline_access",
                "ga4gh_passport_v1",
            ],
            "code_challenge_methods_supported": ["plain", "S256"],
        }
        self.finish({**document, **self.provider.discovery})


class Authorize(Handler):
    def get(self) -> None:
        back, state = self.get_argument("redirect_uri"), self.get_argument("state")
        self.provider.scopes = self.get_argument("scope").split()
        if self.provider.refuse:
            told = {
                "error": self.provider.refuse,
                "error_description": "told <b>x</b> 0123456789abcdefghij",
                "state": state,
            }
            self.redirect(f"{back}?{urlencode(told)}")
            return
        code = f"SECRET-code-{uuid.uuid4().hex}"
        self.provider.codes[code] = {
            "person": self.provider.person,
            "challenge": self.get_argument("code_challenge"),
            "scope": self.get_argument("scope"),
        }
        self.redirect(f"{back}?{urlencode({'code': code, 'state': state})}")


class Token(Handler):
    def post(self) -> None:
        provider, form = self.provider, self.form()
        if not self.client_known():
            self.gossip(401, "invalid_client")
            return
        if form["grant_type"] == "authorization_code":
            grant = provider.codes.pop(form["code"], None)
            digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            if grant and base64.urlsafe_b64encode(digest).decode().rstrip("=") == grant["challenge"]:
                self.finish(provider.tokens(grant))
                return
        else:
            old = form["refresh_token"]
            if old in provider.spent:
                provider.revoke_grants()  # reuse of a rotated token: all of the login goes
            grant = provider.refresh.get(old)
            if grant:
                answer = provider.tokens(grant)
                if provider.rotate:
                    del provider.refresh[old]
                    provider.spent.add(old)
                else:
                    del provider.refresh[answer.pop("refresh_token")]
                del answer["id_token"]
                self.finish(answer)
                return
        self.gossip(400, "invalid_grant")


class Userinfo(Handler):
    def get(self) -> None:
        grant = self.provider.access.get(
            self.request.headers.get("Authorization", "").removeprefix("Bearer ")
        )
        if grant is None:
            self.gossip(401, "invalid_token")
            return
        self.finish({**grant["person"], **self.provider.claims})


class Revoke(Handler):
    def post(self) -> None:
        if self.client_known():
            self.provider.revoked.append(self.form()["token"])
        self.finish()


class EndSession(Handler):
    def get(self) -> None:
        sent = {key: self.get_argument(key) for key in self.request.arguments}
        self.provider.ended.append(sent)
        self.redirect(f"{sent['post_logout_redirect_uri']}?{urlencode({'state': sent.get('state', '')})}")


HANDLERS: dict[str, type[Handler]] = {
    r"\.well-known/openid-configuration": Discovery,
    "authorize": Authorize,
    "token": Token,
    "userinfo": Userinfo,
    "revoke": Revoke,
    "endsession": EndSession,
}


def wait_until(condition: Any, what: str, seconds: float = 10) -> None:
    """Wait for a condition, and fail naming it."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain: {what}")
        threading.Event().wait(0.02)
