"""Stands in for the Bigpicture archive in development and tests; never what production runs.

Who asks: tokens, the provider's userinfo, sessions.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt
from aiohttp import web

from .settings import Settings
from .visas import Granted, Passports, Refused, verified

_TIMEOUT = aiohttp.ClientTimeout(total=10)


class Unauthorized(Exception):
    """A request whose token does not count.

    Attributes:
        status: of the answer.
    """

    def __init__(self, message: str, status: int = 401) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Person:
    """Somebody whose token counts.

    Attributes:
        subject: who.
        issuer: of the token.
        source: ``jwt`` or ``userinfo``.
        datasets: ids that they may read.
    """

    subject: str
    issuer: str
    source: str
    datasets: list[str] = field(default_factory=list)


class Provider:
    """The OpenID provider, asked over HTTP; answers are kept for a while."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._userinfo: dict[str, tuple[float, dict[str, Any]]] = {}
        self._jwks: list[jwt.PyJWK] | None = None

    async def _json(self, url: str, token: str = "") -> dict[str, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        for public, inside in self._settings.instead.items():
            if url.startswith(public):
                url = inside + url[len(public) :]
                break
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            # Upstream follows redirects within one host only; here none are.
            async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise Refused(f"{url} answered {answer.status}")
                found = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Refused(f"{url} did not answer: {error}") from None
        if not isinstance(found, dict):
            raise Refused(f"{url} answered no object")
        return found

    async def keys(self, url: str) -> list[jwt.PyJWK]:
        """The keys at an address; those that cannot be used are left out.

        Raises:
            Refused: it does not answer, or has no key.
        """
        try:
            return jwt.PyJWKSet.from_dict(await self._json(url)).keys
        except jwt.PyJWTError as error:
            raise Refused(f"{url} has no keys: {error}") from None

    async def token_keys(self) -> list[jwt.PyJWK]:
        """The keys of signed access tokens, asked for once, as upstream does at its start."""
        if self._jwks is None:
            self._jwks = await self.keys(self._settings.jwks) if self._settings.jwks else []
        return self._jwks

    async def userinfo(self, token: str) -> dict[str, Any]:
        """What the provider says of the person with a token.

        Raises:
            Refused: it does not answer, or does not know the token.
        """
        digest, now = hashlib.sha256(token.encode()).hexdigest(), self._settings.clock()
        until, known = self._userinfo.get(digest, (0.0, {}))
        # Version 1 asks each time that it has no session.
        if until > now and self._settings.version == 2:
            return known
        if not self._settings.userinfo:
            document = f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration"
            self._settings.userinfo = str((await self._json(document)).get("userinfo_endpoint", ""))
        found = await self._json(self._settings.userinfo, token)
        if self._settings.version == 2 and not found.get("sub"):
            raise Refused("userinfo has no sub")
        self._userinfo[digest] = (now + self._settings.userinfo_ttl, found)
        return found

    def forget(self) -> None:
        """Drop all that is cached."""
        self._userinfo.clear()
        self._jwks = None

    async def close(self) -> None:
        """Give up the connections."""
        if self._session is not None:
            await self._session.close()


def looks_signed(token: str) -> bool:
    """Whether a token has the form of a JWT: three parts, of which the first two are JSON objects."""
    parts = token.split(".")
    if len(parts) != 3:
        return False
    try:
        found = [json.loads(base64.urlsafe_b64decode(p + "=" * (-len(p) % 4))) for p in parts[:2]]
    except (binascii.Error, ValueError):
        return False
    return all(isinstance(part, dict) for part in found)


class Door:
    """Lets requests in by token or session.

    Args:
        settings: the server's.
        passports: reads visas.
        provider: the OpenID provider.
        owned: the datasets that a person has submitted.
    """

    def __init__(self, settings: Settings, passports: Passports, provider: Provider, owned: Any) -> None:
        self._settings, self._passports, self._provider, self._owned = settings, passports, provider, owned
        self._sessions: dict[str, tuple[float, Person]] = {}
        # Tokens that the server takes for expired, whatever the provider says.
        self.dead: set[str] = set()

    def forget(self) -> None:
        """End all sessions and drop all caches: what is granted is asked for anew."""
        self._sessions.clear()
        self._passports.forget()
        self._provider.forget()

    async def person(self, request: web.Request) -> tuple[Person, tuple[str, int] | None]:
        """Who asks, and the cookie to set with its life in seconds, if any.

        Raises:
            Unauthorized: nobody whose token counts.
        """
        now = self._settings.clock()
        names = ["sda_session_key"] if self._settings.version == 1 else ["sda_session", "sda_session_key"]
        cookie = next((value for name in names if (value := request.cookies.get(name))), "")
        if cookie and (known := self._session(cookie, now)):
            return known, None
        token = _token(request, self._settings.version)
        if token in self.dead:
            raise Unauthorized("the token has expired")
        if self._settings.version == 1:
            return await self._version_1(token, now)
        digest = hashlib.sha256(token.encode()).hexdigest()
        if known := self._session(digest, now):
            return known, None
        person, ends = await self._version_2(token, now)
        if ends is None:
            return person, None
        life = min(self._settings.session_ttl, ends - now)
        if life <= 0:
            return person, None
        session = str(uuid.uuid4())
        self._sessions[session] = self._sessions[digest] = (now + life, person)
        return person, (session, int(life))

    def expire(self, request: web.Request) -> None:
        """Take the token of a request for expired, and end the sessions, which upstream would let live on."""
        self.dead.add(_token(request, self._settings.version))
        self._sessions.clear()

    def _session(self, key: str, now: float) -> Person | None:
        until, person = self._sessions.get(key, (0.0, None))
        return person if until > now else None

    async def _version_1(self, token: str, now: float) -> tuple[Person, tuple[str, int]]:
        """The token counts if userinfo answers; a session is kept only where a life is set."""
        try:
            found = await self._provider.userinfo(token)
        except Refused:
            raise Unauthorized("get visas failed") from None
        passport = found.get("ga4gh_passport_v1") or []
        granted = await self._passports.granted(passport, "", str(found.get("sub", "")))
        person = Person(str(found.get("sub", "")), "", "userinfo", granted.datasets)
        session, life = str(uuid.uuid4()), self._settings.session_ttl
        if life >= 0:
            self._sessions[session] = (now + life if life else float("inf"), person)
        return person, (session, int(life))

    async def _version_2(self, token: str, now: float) -> tuple[Person, float | None]:
        """The person, and when this must be found out anew; None where it must not be kept at all."""
        model, ends = self._settings.permission_model, float("inf")
        claims: dict[str, Any] = {}
        try:
            if looks_signed(token):
                claims = await self._signed(token, now)
                person = Person(str(claims.get("sub", "")), str(claims.get("iss", "")), "jwt")
                ends = claims.get("exp", ends)
            elif self._settings.allow_opaque:
                found = await self._provider.userinfo(token)
                person = Person(str(found["sub"]), self._settings.issuer, "userinfo")
            else:
                raise Refused("opaque tokens are not taken")
        except Refused as error:
            raise Unauthorized(str(error)) from None
        if model != "visa":
            person.datasets = list(self._owned(person.subject))
        if model != "ownership":
            try:
                granted = await self._visas(token, person, claims)
            except Refused as error:
                if model == "visa":
                    raise Unauthorized(f"Visa validation failed: {error}") from None
                # Upstream says nothing to the client: the list is just shorter, and is not kept.
                return person, None
            person.datasets += [d for d in granted.datasets if d not in person.datasets]
            ends = min(ends, granted.expires or ends)
        return person, ends

    async def _signed(self, token: str, now: float) -> dict[str, Any]:
        """The claims of a signed token, checked here alone: userinfo is not asked whether it is good."""
        claims = verified(token, await self._provider.token_keys(), now)
        issuer, ours = str(claims.get("iss", "")), self._settings.issuer
        if ours and issuer not in (ours, ours.removesuffix("/")):
            raise Refused(f"the issuer is {issuer}, not {ours}")
        if not urlsplit(issuer).hostname:
            raise Refused("the issuer is no address")
        return claims

    async def _visas(self, token: str, person: Person, claims: dict[str, Any]) -> Granted:
        if self._settings.visa_source == "token" and person.source == "jwt":
            passport = claims.get("ga4gh_passport_v1") or []
        else:
            passport = (await self._provider.userinfo(token)).get("ga4gh_passport_v1") or []
        return await self._passports.granted(passport, person.issuer, person.subject)


def _token(request: web.Request, version: int) -> str:
    """The token of a request."""
    if token := request.headers.get("X-Amz-Security-Token"):
        return token
    given = request.headers.get("Authorization", "")
    if not given:
        raise Unauthorized("access token must be provided")
    parts = given.split(" ")
    wrong = 400 if version == 1 else 401
    if parts[0] != "Bearer" if version == 1 else parts[0].lower() != "bearer":
        raise Unauthorized("authorization scheme must be bearer", wrong)
    if len(parts) != 2:
        raise Unauthorized("token string is missing from authorization header", wrong)
    return parts[1]
