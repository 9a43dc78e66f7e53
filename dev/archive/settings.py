"""Stands in for the Bigpicture archive in development and tests; never what production runs.

How a stand-in behaves: names, defaults and meaning are those of the real servers' configuration where they have one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

MIB = 1024 * 1024
PERMISSION_MODELS = ("ownership", "visa", "combined")


@dataclass
class Settings:
    """Settings of one server.

    Attributes:
        version: the download API it speaks, 1 or 2.
        issuer: the OpenID provider's issuer, with its trailing slash.
        userinfo: the provider's userinfo endpoint; empty finds it by discovery when the server starts.
        jwks: where the keys for signed access tokens are (version 2); empty treats every token as opaque.
        instead: begins of addresses that are reached elsewhere, as in a cluster where a public name leads nowhere.
        trusted: pairs of issuer and JWKS address whose visas count; None accepts any in version 1, as upstream does.
        allow_insecure_jku: take keys from addresses without TLS, as the stand-ins of a laptop have them.
        permission_model: ``ownership``, ``visa`` or ``combined`` (version 2).
        visa_source: ``userinfo``, or ``token`` for the claim of a signed token (version 2).
        identity_mode: ``broker-bound``, ``strict-sub`` or ``strict-iss-sub`` (version 2).
        dataset_id_mode: ``raw``, or ``suffix`` for the last segment of a visa's value (version 2).
        max_visas: visas read of a passport.
        max_visa_size: longest visa, characters.
        max_jwks: addresses of keys that one request may make the server ask.
        allow_opaque: take opaque tokens (version 2).
        session_ttl: seconds that a session lives at most, 3600 with version 2; version 1 keeps none unless it is set, and
            with 0 each of them without end.
        userinfo_ttl: seconds that userinfo is kept by token.
        visa_ttl: seconds that a good visa is kept.
        jwks_ttl: seconds that a set of keys is kept.
        secure_cookies: mark cookies ``Secure``, as upstream does; clients send those over TLS alone.
        client_version: least ``SDA-Client-Version`` (version 1); empty asks for none.
        block: bytes that an S3-backed server pulls for a range that does not start at 0; None is a server on a disk.
        storage_delay: seconds that a storage read takes before its first byte.
        storage_rate: bytes a second that one storage read delivers; 0 is as fast as can be.
        page_secret: signs page tokens.
        page_ttl: seconds that a page token is good.
        clock: seconds since the epoch, so that tests move it.
    """

    version: int = 2
    issuer: str = ""
    userinfo: str = ""
    jwks: str = ""
    instead: dict[str, str] = field(default_factory=dict)
    trusted: list[tuple[str, str]] | None = field(default_factory=list)
    allow_insecure_jku: bool = True
    permission_model: str = "combined"
    visa_source: str = "userinfo"
    identity_mode: str = "broker-bound"
    dataset_id_mode: str = "raw"
    max_visas: int = 200
    max_visa_size: int = 16384
    max_jwks: int = 10
    allow_opaque: bool = True
    session_ttl: float = -1
    userinfo_ttl: float = 60
    visa_ttl: float = 120
    jwks_ttl: float = 300
    secure_cookies: bool = True
    client_version: str = "0.3.0"
    block: int | None = None
    storage_delay: float = 0
    storage_rate: float = 0
    page_secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    page_ttl: float = 3600
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if self.version not in (1, 2):
            raise ValueError(f"version must be 1 or 2, not {self.version}")
        if self.version == 2 and self.session_ttl < 0:
            self.session_ttl = 3600
        if self.permission_model not in PERMISSION_MODELS:
            raise ValueError(f"permission_model must be one of {', '.join(PERMISSION_MODELS)}")
