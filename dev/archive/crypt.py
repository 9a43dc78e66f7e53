"""Stands in for the Bigpicture archive in development and tests; never what production runs.

Crypt4GH as the archive keeps it: a body without its header, and a header for the archive's own key that is written
anew for each client's. Headers are made by the ``crypt4gh`` package.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from collections.abc import Sequence

from crypt4gh import header
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from .sources import Source

SEGMENT = 65536
SEALED = SEGMENT + 28  # nonce of 12 bytes, tag of 16


class KeyRefused(Exception):
    """A client's public key cannot be used; the message says why."""


def sealed_size(size: int) -> int:
    """Bytes of a body that holds ``size`` plain bytes."""
    whole, rest = divmod(size, SEGMENT)
    return whole * SEALED + (rest + 28 if rest else 0)


class Sealed:
    """The Crypt4GH body of a source, encrypted as it is read and the same each time.

    Args:
        plain: what is encrypted.
        keys: session keys; with several the segments take turns, which the format allows.
    """

    def __init__(self, plain: Source, keys: Sequence[bytes]) -> None:
        self.plain = plain
        self.size = sealed_size(plain.size)
        self._seed = hashlib.sha256(b"".join(keys)).digest()
        self._ciphers = [ChaCha20Poly1305(key) for key in keys]

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at an offset."""
        length = max(0, min(length, self.size - offset))
        if not length:
            return b""
        first, last = offset // SEALED, (offset + length - 1) // SEALED
        text = memoryview(self.plain.read(first * SEGMENT, (last - first + 1) * SEGMENT))
        parts = []
        for number in range(first, last + 1):
            at = (number - first) * SEGMENT
            nonce = hashlib.blake2b(number.to_bytes(8, "big"), digest_size=12, key=self._seed).digest()
            cipher = self._ciphers[number % len(self._ciphers)]
            parts += [nonce, cipher.encrypt(nonce, text[at : at + SEGMENT], None)]
        skip = offset - first * SEALED
        return b"".join(parts)[skip : skip + length]


class Vault:
    """The archive's key pair, and the headers that it makes."""

    def __init__(self) -> None:
        pair = X25519PrivateKey.generate()
        self._secret = pair.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        self.public = pair.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def header(self, keys: Sequence[bytes], edits: Sequence[int] = ()) -> bytes:
        """The header as it is stored.

        Args:
            keys: the body's session keys.
            edits: lengths to skip and to keep, in turn, or none.
        """
        packets = [header.make_packet_data_enc(0, key) for key in keys]
        if edits:
            packets.append(header.make_packet_data_edit_list(list(edits)))
        own = [(0, self._secret, self.public)]
        return bytes(
            header.serialize([sealed for packet in packets for sealed in header.encrypt(packet, own)])
        )

    def reencrypted(self, stored: bytes, client: str) -> bytes:
        """A header that only the client can read; its bytes differ each time, its length does not.

        Args:
            stored: what :meth:`header` returned.
            client: the client's public key: base64 of its 32 bytes or of the text of its PEM file.

        Raises:
            KeyRefused: that is no such key.
        """
        public = public_key(client)
        packets, _ = header.decrypt(list(header.parse(io.BytesIO(stored))), [(0, self._secret, None)])
        # A sender's key of this request alone, as upstream's re-encryption service makes one.
        secret = X25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        mine = [(0, secret, public)]
        return bytes(
            header.serialize([sealed for packet in packets for sealed in header.encrypt(packet, mine)])
        )


def public_key(text: str) -> bytes:
    """The 32 bytes of a public key, from base64 of them or of the text of a PEM file.

    Raises:
        KeyRefused: it is not base64, or what is in it is no Crypt4GH key.
    """
    try:
        given = base64.b64decode(text, validate=True)
        if len(given) == 32:
            return given
        lines = given.decode("ascii").strip().splitlines()
        raw = base64.b64decode("".join(lines[1:-1]), validate=True)
    except (binascii.Error, UnicodeDecodeError) as error:
        raise KeyRefused(f"the public key is not base64 of a PEM file: {error}") from None
    if len(lines) < 3 or "CRYPT4GH PUBLIC KEY" not in lines[0] or len(raw) != 32:
        raise KeyRefused("the public key is no Crypt4GH key")
    return raw


def key_header(public: bytes) -> str:
    """What a client sends as its public key: base64 of the text of its PEM file."""
    body = base64.b64encode(public).decode()
    text = f"-----BEGIN CRYPT4GH PUBLIC KEY-----\n{body}\n-----END CRYPT4GH PUBLIC KEY-----\n"
    return base64.b64encode(text.encode()).decode()
