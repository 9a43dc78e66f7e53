"""Stands in for the Bigpicture archive in development and tests; never what production runs.

What a passport grants: the rules by which each version of the real server reads GA4GH visas.
"""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import jwt

from .settings import Settings

SKEW = 30
LONGEST = 255
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
Fetch = Callable[[str], Awaitable[list[jwt.PyJWK]]]


class Refused(Exception):
    """A token or visa that does not count; the message says why."""


@dataclass
class Granted:
    """What a passport grants.

    Attributes:
        datasets: ids, in the passport's order.
        expires: when the first of the visas that counted ends, seconds since the epoch; None where none did.
        refused: why each of the others does not count.
    """

    datasets: list[str] = field(default_factory=list)
    expires: float | None = None
    refused: list[str] = field(default_factory=list)


def verified(token: str, keys: list[jwt.PyJWK], now: float) -> dict[str, Any]:
    """The claims of a signed token whose signature is one of the keys' and whose times are good.

    The header's ``kid`` is not asked for, and its algorithm must be one of the key's kind.

    Raises:
        Refused: it is not.
    """
    try:
        algorithm = jwt.get_unverified_header(token).get("alg")
    except jwt.PyJWTError as error:
        raise Refused(f"cannot be read: {error}") from None
    # Never what the token says alone: "none" and shared secrets are no signatures of a key.
    if algorithm not in ALGORITHMS:
        raise Refused(f"the algorithm {algorithm} is not taken")
    no_times = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
    for key in keys:
        try:
            claims = jwt.decode(token, key.key, algorithms=[algorithm], options=no_times)  # type: ignore[arg-type]
        except (jwt.PyJWTError, TypeError, ValueError):
            continue
        break
    else:
        raise Refused("the signature is of none of the keys")
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if not all(isinstance(at, int | float) for at in times.values()):
        raise Refused("its times are no numbers")
    if times.get("exp", now + 1) <= now:
        raise Refused("it has expired")
    if max(times.get("nbf", now), times.get("iat", now)) > now:
        raise Refused("it is not valid yet")
    return claims


def normal(url: str) -> str:
    """A URL with a clean path, so that a trailing slash makes no difference."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    path = posixpath.normpath(parts.path).replace("//", "/") if parts.path else ""
    return urlunsplit(parts._replace(path="" if path in (".", "/") else path))


def trusted(settings: Settings, issuer: str, jku: str) -> bool:
    """Whether visas of this issuer, with keys from this address, count."""
    if settings.trusted is None:
        return settings.version == 1
    if not settings.allow_insecure_jku and not jku.startswith("https://"):
        return False
    return (normal(issuer), normal(jku)) in {(normal(i), normal(j)) for i, j in settings.trusted}


class Passports:
    """Reads passports by the rules of the settings' version.

    Args:
        settings: the server's.
        exists: whether the archive has a dataset.
        fetch: gets the keys at an address.
    """

    def __init__(self, settings: Settings, exists: Callable[[str], bool], fetch: Fetch) -> None:
        self._settings, self._exists, self._fetch = settings, exists, fetch
        self._keys: dict[str, tuple[float, list[jwt.PyJWK]]] = {}
        # A good visa is not looked at anew for a while: by its text and whom it was shown for.
        self._good: dict[tuple[str, str, str], tuple[float, str | None, float | None]] = {}

    def forget(self) -> None:
        """Drop all that is cached."""
        self._keys.clear()
        self._good.clear()

    async def granted(self, passport: list[Any], issuer: str, subject: str) -> Granted:
        """What a passport grants.

        Args:
            passport: the visas.
            issuer: the issuer of the person's token.
            subject: the person.
        """
        found, asked, now = Granted(), set[str](), self._settings.clock()
        for number, visa in enumerate(passport):
            if number >= self._settings.max_visas and self._settings.version == 2:
                found.refused.append(f"only the first {self._settings.max_visas} visas are read")
                break
            try:
                dataset, expires = await self._one(visa, issuer, subject, asked, now)
            except Refused as error:
                found.refused.append(f"visa {number}: {error}")
                continue
            if expires is not None:
                found.expires = min(expires, found.expires or expires)
            if dataset and dataset not in found.datasets:
                found.datasets.append(dataset)
        return found

    async def _one(
        self, visa: Any, issuer: str, subject: str, asked: set[str], now: float
    ) -> tuple[str | None, float | None]:
        if not isinstance(visa, str):
            raise Refused("it is no text")
        if self._settings.version == 1:
            return await self._version_1(visa, now), None
        if len(visa) > self._settings.max_visa_size:
            raise Refused(f"{len(visa)} characters are more than {self._settings.max_visa_size}")
        key = (visa, issuer, subject)
        known = self._good.get(key)
        if known and known[0] > now:
            return known[1], known[2]
        dataset, expires = await self._version_2(visa, issuer, subject, asked, now)
        until = now + self._settings.visa_ttl
        self._good[key] = (min(until, expires or until), dataset, expires)
        return dataset, expires

    async def _version_1(self, visa: str, now: float) -> str | None:
        """Type, trust, signature and times: version 1 asks neither who granted, nor for conditions."""
        claims, jku = _unverified(visa)
        claim = claims.get("ga4gh_visa_v1")
        if not isinstance(claim, dict) or claim.get("type") != "ControlledAccessGrants":
            raise Refused("it is no ControlledAccessGrants")
        if not trusted(self._settings, str(claims.get("iss", "")), jku):
            raise Refused(f"issuer {claims.get('iss')} with keys at {jku} is not trusted")
        verified(visa, await self._keys_at(jku, set(), now), now)
        value = claim.get("value")
        return value if isinstance(value, str) and self._exists(value) else None

    async def _version_2(
        self, visa: str, issuer: str, subject: str, asked: set[str], now: float
    ) -> tuple[str | None, float | None]:
        claims, jku = _unverified(visa)
        if not jku:
            raise Refused("it has no jku")
        by, whose = str(claims.get("iss", "")), claims.get("sub")
        if not trusted(self._settings, by, jku):
            raise Refused(f"issuer {by} with keys at {jku} is not trusted")
        # Upstream means to forgive half a minute, but has looked at the times before without forgiving any.
        claims = verified(visa, await self._keys_at(jku, asked, now), now)
        mode = self._settings.identity_mode
        if mode != "broker-bound" and whose != subject:
            raise Refused("it is another person's")
        if mode == "strict-iss-sub" and by != issuer:
            raise Refused("it is of another issuer than the token")
        claim = claims.get("ga4gh_visa_v1")
        if not isinstance(claim, dict):
            raise Refused("it has no ga4gh_visa_v1")
        if claim.get("type") != "ControlledAccessGrants":
            return None, None
        value = _grant(claim, now)
        dataset = suffix(value) if self._settings.dataset_id_mode == "suffix" else value
        return (dataset, claims.get("exp")) if self._exists(dataset) else (None, None)

    async def _keys_at(self, jku: str, asked: set[str], now: float) -> list[jwt.PyJWK]:
        address = normal(jku)
        until, keys = self._keys.get(address, (0.0, []))
        if until > now:
            return keys
        # A fetch that fails counts, too: a passport must not make the server ask without end.
        if address not in asked and len(asked) >= self._settings.max_jwks:
            raise Refused(f"keys at more than {self._settings.max_jwks} addresses")
        asked.add(address)
        keys = await self._fetch(address)
        self._keys[address] = (now + self._settings.jwks_ttl, keys)
        return keys


def _unverified(visa: str) -> tuple[dict[str, Any], str]:
    try:
        header = jwt.get_unverified_header(visa)
        claims = jwt.decode(visa, options={"verify_signature": False})
    except jwt.PyJWTError as error:
        raise Refused(f"it cannot be read: {error}") from None
    return claims, str(header.get("jku", ""))


def _grant(claim: dict[str, Any], now: float) -> str:
    """The value of a grant that keeps all rules."""
    for name in ("by", "value", "source"):
        text = claim.get(name)
        if not isinstance(text, str) or not text:
            raise Refused(f"it has no {name}")
        if name != "by" and len(text) > LONGEST:
            raise Refused(f"its {name} is longer than {LONGEST} characters")
    asserted = claim.get("asserted")
    if not isinstance(asserted, int | float) or asserted <= 0:
        raise Refused("it does not say when it was asserted")
    if asserted > now + SKEW:
        raise Refused("it was asserted in the future")
    conditions = claim.get("conditions")
    if conditions is not None and conditions != [] and conditions != {}:
        raise Refused("it has conditions")
    return str(claim["value"])


def suffix(value: str) -> str:
    """The last segment of a visa's value that is a URL or a URN."""
    value = value.removesuffix("/")
    if value.startswith(("http://", "https://")):
        return posixpath.basename(urlsplit(value).path.rstrip("/"))
    return value.rsplit("/", 1)[-1] if "/" in value else value.rsplit(":", 1)[-1]
