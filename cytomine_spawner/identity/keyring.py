"""The keys that sign the stacks' tokens: RSA, two at a time, in one Secret.

A new key is published before it signs, so that whoever keeps the public keys for a while has it in time; the one
before it is published until the next rotation, so that nothing it signed is refused before its own end.
Signing and checking is PyJWT's on top of ``cryptography``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..cluster.secretstore import Vault

log = logging.getLogger(__name__)

InvalidToken = jwt.InvalidTokenError

ALGORITHM = "RS256"
# Of what only this service reads. It never goes into a set of public keys, so nobody else accepts it.
PRIVATE_ALGORITHM = "HS256"
BITS = 2048
KEPT = 2
_ENTRY = "keys.json"


class KeyringError(Exception):
    """The Secret of the keys cannot be used."""


@dataclass(frozen=True)
class Key:
    """One pair of keys.

    Attributes:
        kid: names it in a token's header; the thumbprint of the public half.
        created: seconds since 1970.
        private: the private half; never logged.
    """

    kid: str
    created: float
    private: rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def generate(cls, now: float) -> Key:
        """A new pair; takes a fraction of a second of computing."""
        return cls.of(rsa.generate_private_key(public_exponent=65537, key_size=BITS), now)

    @classmethod
    def of(cls, private: rsa.RSAPrivateKey, created: float) -> Key:
        """A pair from its private half."""
        jwk = _jwk(private.public_key())
        required = json.dumps({k: jwk[k] for k in ("e", "kty", "n")}, separators=(",", ":"), sort_keys=True)
        return cls(_base64url(hashlib.sha256(required.encode()).digest()), created, private)

    def public(self) -> dict[str, Any]:
        """The public half as a JSON Web Key."""
        return {**_jwk(self.private.public_key()), "kid": self.kid, "use": "sig", "alg": ALGORITHM}

    def derive(self, purpose: str) -> bytes:
        """A secret of 32 bytes for another purpose, as good as the key."""
        der = self.private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return HKDF(hashes.SHA256(), 32, salt=None, info=f"cytomine-identity {purpose}".encode()).derive(der)

    def entry(self) -> dict[str, Any]:
        """As it is kept in the Secret."""
        pem = self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {"created": self.created, "private": pem.decode()}


class Keyring:
    """Signs, checks and seals.

    Args:
        vault: where the Secret is.
        name: the Secret's name.
        age: seconds after which a key is followed by a new one.
        overlap: seconds for which a new key is published before it signs.
        clock: the time in seconds since 1970.
    """

    def __init__(
        self,
        vault: Vault,
        name: str,
        *,
        age: float,
        overlap: float = 600,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name, self.age, self.overlap = name, age, overlap
        self._vault, self._clock = vault, clock
        self._keys: dict[str, Key] = {}
        self._derived: dict[tuple[str, str], bytes] = {}

    # -- the keys -----------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether there are keys."""
        return bool(self._keys)

    async def load(self) -> None:
        """Read the keys; make and change them where it is time.

        Raises:
            KubeError: the API server refused or did not answer.
            KeyringError: what is in the Secret are no keys.
        """
        while True:
            found = await self._vault.read(self.name)
            if found is None:
                key = await asyncio.to_thread(Key.generate, self._clock())
                # Of several processes that find none, one wins and all read its key.
                await self._vault.create(self.name, {_ENTRY: _text([key])})
                continue
            keys = _keys(found.data.get(_ENTRY, ""), self.name)
            if self._clock() - keys[0].created < self.age:
                break
            new = await asyncio.to_thread(Key.generate, self._clock())
            log.info("The keys in the Secret %s rotate: %s follows %s", self.name, new.kid, keys[0].kid)
            await self._vault.replace(self.name, {_ENTRY: _text([new, *keys][:KEPT])}, found.version)
        self._keys = {key.kid: key for key in keys}
        self._derived = {k: v for k, v in self._derived.items() if k[0] in self._keys}

    def due(self) -> float:
        """Seconds until the next rotation."""
        return max(0.0, next(iter(self._keys.values())).created + self.age - self._clock())

    @property
    def current(self) -> Key:
        """The key that signs: the newest that has been published for long enough.

        Raises:
            KeyringError: nothing was loaded yet.
        """
        if not self._keys:
            raise KeyringError("The keys have not been read yet.")
        keys = list(self._keys.values())
        return next((k for k in keys if self._clock() - k.created >= self.overlap), keys[-1])

    def jwks(self) -> dict[str, Any]:
        """The public halves, as a JSON Web Key Set."""
        return {"keys": [key.public() for key in self._keys.values()]}

    # -- tokens for others --------------------------------------------------------------------------------

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A signed token."""
        key = self.current
        return jwt.encode(dict(claims), key.private, ALGORITHM, headers={"kid": key.kid})

    def verify(
        self, token: str, *, issuer: str, audience: str | Sequence[str] | None, expired: bool = False
    ) -> dict[str, Any]:
        """The claims of a token of ours.

        Args:
            token: what came from outside.
            issuer: must be exactly the token's.
            audience: one of them must be the token's; None for whoever it is meant for.
            expired: whether one that has expired will do.

        Raises:
            InvalidToken: for whatever reason it is not to be trusted.
        """
        key = self._named(token, ALGORITHM)
        options: Any = {
            "require": ["iss", "aud", "sub", "iat", "exp"],
            "verify_exp": not expired,
            "verify_aud": audience is not None,
        }
        claims: dict[str, Any] = jwt.decode(
            token,
            key.private.public_key(),
            algorithms=[ALGORITHM],
            issuer=issuer,
            audience=audience,
            options=options,
        )
        return claims

    def _named(self, token: str, algorithm: str) -> Key:
        header = jwt.get_unverified_header(token)
        key = self._keys.get(str(header.get("kid")))
        if header.get("alg") != algorithm or key is None:
            raise InvalidToken("The token is not signed by a key of this service.")
        return key

    # -- what only this service reads ---------------------------------------------------------------------

    def sign_private(self, claims: Mapping[str, Any], purpose: str) -> str:
        """A token that nobody but this service accepts, and only for this purpose."""
        key = self.current
        secret = self._derive(key, purpose)
        return jwt.encode(dict(claims), secret, PRIVATE_ALGORITHM, headers={"kid": key.kid})

    def verify_private(self, token: str, purpose: str, *, issuer: str) -> dict[str, Any]:
        """The claims of a token from :meth:`sign_private`.

        Raises:
            InvalidToken: for whatever reason it is not to be trusted.
        """
        secret = self._derive(self._named(token, PRIVATE_ALGORITHM), purpose)
        claims: dict[str, Any] = jwt.decode(
            token,
            secret,
            algorithms=[PRIVATE_ALGORITHM],
            issuer=issuer,
            audience=issuer,
            options={"require": ["iss", "aud", "sub", "iat", "exp"]},
        )
        return claims

    def seal(self, text: str, context: str) -> str:
        """Encrypt; only :meth:`unseal` with the same context reads it."""
        key, nonce = self.current, secrets.token_bytes(12)
        box = AESGCM(self._derive(key, "seal")).encrypt(nonce, text.encode(), context.encode())
        return f"{key.kid}.{_base64url(nonce + box)}"

    def unseal(self, sealed: str, context: str) -> str | None:
        """What was sealed; None if it was not, or with a key that is gone."""
        kid, _, box = sealed.partition(".")
        key = self._keys.get(kid)
        try:
            raw = base64.urlsafe_b64decode(box + "=" * (-len(box) % 4))
            return (
                AESGCM(self._derive(key, "seal")).decrypt(raw[:12], raw[12:], context.encode()).decode()
                if key
                else None
            )
        except (InvalidTag, ValueError):
            return None

    def _derive(self, key: Key, purpose: str) -> bytes:
        if (key.kid, purpose) not in self._derived:
            self._derived[key.kid, purpose] = key.derive(purpose)
        return self._derived[key.kid, purpose]


def _keys(text: str, name: str) -> list[Key]:
    """The keys in a Secret, the newest first."""
    try:
        found = []
        for entry in json.loads(text):
            private = serialization.load_pem_private_key(entry["private"].encode(), None)
            if not isinstance(private, rsa.RSAPrivateKey):
                raise TypeError
            found.append(Key.of(private, float(entry["created"])))
    except (ValueError, TypeError, KeyError, AttributeError):
        found = []
    if not found:
        # Without the cause: it might quote what was read.
        raise KeyringError(
            f"The Secret {name} holds no keys that can be read. Delete it: new ones are made then, and everybody "
            "logs in to their stacks anew."
        ) from None
    return sorted(found, key=lambda key: -key.created)[:KEPT]


def _text(keys: list[Key]) -> str:
    return json.dumps([key.entry() for key in keys])


def _jwk(public: rsa.RSAPublicKey) -> dict[str, str]:
    numbers = public.public_numbers()
    return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}


def _number(number: int) -> str:
    return _base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
