"""Stands in for LS Login and for those who sign visas, in unit tests that need no Node; never what production runs.

Keys, discovery, userinfo, access tokens of both kinds, and visas that are good or wrong in one way at a time. No
logins: ``dev/lslogin`` has those, with the same claims.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm


class Key:
    """A key that signs, made when it is first used.

    Args:
        algorithm: ``ES256`` or ``RS256``.
    """

    def __init__(self, algorithm: str = "ES256") -> None:
        self.algorithm = algorithm
        self.id = secrets.token_hex(8)
        self.secret: Any = (
            ec.generate_private_key(ec.SECP256R1())
            if algorithm == "ES256"
            else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )

    def public(self) -> dict[str, Any]:
        """Its half for a set of keys."""
        maker = ECAlgorithm if self.algorithm == "ES256" else RSAAlgorithm
        found: dict[str, Any] = json.loads(maker.to_jwk(self.secret.public_key()))
        return {**found, "kid": self.id, "alg": self.algorithm, "use": "sig"}

    def sign(self, claims: dict[str, Any], headers: dict[str, Any]) -> str:
        """A token with these claims; its header has the key's id."""
        return jwt.encode(claims, self.secret, self.algorithm, headers={"kid": self.id, **headers})


@dataclass
class Someone:
    """A person whom the provider knows.

    Attributes:
        subject: who.
        visas: what userinfo shows as passport.
    """

    subject: str
    visas: list[Any] = field(default_factory=list)


class Issuer:
    """The provider and its broker; a second broker is there that nobody need trust.

    Args:
        algorithm: how tokens and visas are signed.
        clock: seconds since the epoch, so that tests move it.

    Attributes:
        url: the issuer, with its trailing slash, once it was started.
        signed_at_userinfo: whether userinfo takes signed tokens, too; ``dev/lslogin`` takes opaque ones alone.
        down: whether userinfo answers 503.
        asked: how often userinfo was asked.
    """

    def __init__(self, algorithm: str = "ES256", clock: Callable[[], float] = time.time) -> None:
        self.url = ""
        self.clock = clock
        self.key, self.broker_key, self.other_key = Key(algorithm), Key(algorithm), Key("ES256")
        self.signed_at_userinfo, self.down, self.asked = True, False, 0
        self._tokens: dict[str, tuple[Someone, float]] = {}
        self._runner: web.AppRunner | None = None

    @property
    def broker(self) -> str:
        """The issuer of good visas."""
        return self.url.replace("/oidc/", "/ga4gh-broker/")

    @property
    def jku(self) -> str:
        """Where the keys of good visas are."""
        return f"{self.broker}jwk"

    @property
    def other_jku(self) -> str:
        """Where the keys of a broker are whom nobody need trust."""
        return self.url.replace("/oidc/", "/other/jwk")

    @property
    def trusted(self) -> list[tuple[str, str]]:
        """What an archive's settings name."""
        return [(self.broker, self.jku)]

    def token(
        self,
        person: Someone,
        kind: str = "opaque",
        seconds: float = 3600,
        *,
        key: Key | None = None,
        **claims: Any,
    ) -> str:
        """An access token.

        Args:
            person: whose.
            kind: ``opaque``, or the ``typ`` of a signed one: ``at+jwt`` as LS Login's, ``JWT`` as a portal's.
            seconds: its life.
            key: who signs, if not the issuer.
            claims: further or other claims.
        """
        now = self.clock()
        if kind == "opaque":
            made = secrets.token_urlsafe(32)
        else:
            base = {"iss": self.url, "sub": person.subject, "iat": int(now), "exp": int(now + seconds)}
            made = (key or self.key).sign({**base, "jti": str(uuid.uuid4()), **claims}, {"typ": kind})
        self._tokens[made] = (person, now + seconds)
        return made

    def revoke(self, token: str) -> None:
        """Userinfo does not know a token any more."""
        self._tokens.pop(token, None)

    def visa(
        self,
        person: Someone,
        dataset: str,
        *,
        key: Key | None = None,
        headers: dict[str, Any] | None = None,
        **given: Any,
    ) -> str:
        """A visa, good unless something is given otherwise; shown to nobody until it is in ``person.visas``.

        Args:
            person: whose.
            dataset: what it grants.
            key: who signs, if not the broker.
            headers: further or other fields of its header, such as ``jku``.
            given: claims (``iss``, ``exp``, ``sub``, ...) and fields of the visa (``by``, ``conditions``, ``type``,
                ``asserted``, ``source``, ``value``); None leaves a claim or field out.
        """
        now = int(self.clock())
        claims = {
            "iss": self.broker,
            "sub": person.subject,
            "iat": now,
            "exp": now + 3600,
            "jti": str(uuid.uuid4()),
        }
        fields: dict[str, Any] = {
            "type": "ControlledAccessGrants",
            "value": dataset,
            "source": "https://example.org/data-access-committee",
            "by": "dac",
            "asserted": now - 86400,
        }
        names = {*claims, "nbf", "aud"}
        claims |= {name: value for name, value in given.items() if name in names}
        fields |= {name: value for name, value in given.items() if name not in names}
        whole = {n: v for n, v in claims.items() if v is not None}
        whole["ga4gh_visa_v1"] = {n: v for n, v in fields.items() if v is not None}
        return (key or self.broker_key).sign(whole, {"typ": "JWT", "jku": self.jku, **(headers or {})})

    def grant(self, person: Someone, *datasets: str) -> None:
        """Put good visas into somebody's passport."""
        person.visas += [self.visa(person, dataset) for dataset in datasets]

    def app(self) -> web.Application:
        """The application."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/oidc/.well-known/openid-configuration", self._discovery),
                web.get("/oidc/jwk", self._keys([self.key])),
                web.get("/oidc/userinfo", self._userinfo),
                web.get("/ga4gh-broker/jwk", self._keys([self.broker_key])),
                web.get("/other/jwk", self._keys([self.other_key])),
            ]
        )
        return app

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Serve in the running loop; a free port is taken if none is named."""
        self._runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.url = f"http://{host}:{self._runner.addresses[0][1]}/oidc/"
        return self.url

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _keys(self, keys: Sequence[Key]) -> Any:
        async def handler(_request: web.Request) -> web.Response:
            return web.json_response({"keys": [key.public() for key in keys]})

        return handler

    async def _discovery(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {"issuer": self.url, "userinfo_endpoint": f"{self.url}userinfo", "jwks_uri": f"{self.url}jwk"}
        )

    async def _userinfo(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.down:
            return web.Response(status=503)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        person, ends = self._tokens.get(token, (None, 0.0))
        if person is None or ends <= self.clock() or ("." in token and not self.signed_at_userinfo):
            return web.json_response({"error": "invalid_token"}, status=401)
        return web.json_response({"sub": person.subject, "ga4gh_passport_v1": person.visas})
