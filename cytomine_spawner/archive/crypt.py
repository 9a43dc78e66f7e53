"""Crypt4GH: the key pair, the header, the segments and the edit list."""

from __future__ import annotations

import base64
import io
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import crypt4gh.header
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .errors import Damaged

SEGMENT = 65536
NONCE, TAG = 12, 16
CIPHER_SEGMENT = NONCE + SEGMENT + TAG
# The archive's own headers have a packet or two, of some hundred bytes. Each packet is tried with the key, and each number
# of an edit list is kept: a header of 64 MiB would take minutes, and gigabytes.
HEADER_BYTES, HEADER_PACKETS = 1024 * 1024, 1000
_INTO = hasattr(ChaCha20Poly1305, "decrypt_into")

# It writes keys into its log at the level DEBUG, and an error for each packet that is somebody else's.
logging.getLogger("crypt4gh.header").addFilter(lambda record: record.levelno > logging.ERROR)


@dataclass(frozen=True)
class KeyPair:
    """A key pair for this process's life.

    Attributes:
        secret: the secret key, 32 bytes.
        public: the public key, 32 bytes.
    """

    secret: bytes = field(repr=False)
    public: bytes

    @classmethod
    def new(cls) -> KeyPair:
        """A fresh pair."""
        key = X25519PrivateKey.generate()
        raw = serialization.Encoding.Raw
        secret = key.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
        return cls(secret, key.public_key().public_bytes(raw, serialization.PublicFormat.Raw))

    @property
    def header(self) -> str:
        """The public key as the archive wants it in a header: base64 of the file's text."""
        text = base64.b64encode(self.public).decode()
        pem = f"-----BEGIN CRYPT4GH PUBLIC KEY-----\n{text}\n-----END CRYPT4GH PUBLIC KEY-----\n"
        return base64.b64encode(pem.encode()).decode()


_LOCK = threading.Lock()
_PAIRS: dict[int, KeyPair] = {}


def key_pair() -> KeyPair:
    """The pair of this process; a child process has its own."""
    with _LOCK:
        pid = os.getpid()
        if pid not in _PAIRS:
            _PAIRS.clear()
            _PAIRS[pid] = KeyPair.new()
        return _PAIRS[pid]


class BadSegment(Damaged):
    """A segment does not fit its key.

    Attributes:
        good: the plain texts of those before it.
    """

    def __init__(self, sentence: str, good: Sequence[bytes] = ()) -> None:
        super().__init__(sentence)
        self.good = list(good)


class Keys:
    """What opens a file's segments.

    Args:
        session_keys: the keys of the header, 32 bytes each.
    """

    def __init__(self, session_keys: Sequence[bytes]) -> None:
        self._raw = tuple(bytes(key) for key in session_keys)
        self._ciphers = [ChaCha20Poly1305(key) for key in self._raw]

    def __repr__(self) -> str:
        return f"Keys({len(self._raw)})"

    @property
    def secret(self) -> bytes:
        """All keys, sorted: the same content has the same."""
        return b"".join(sorted(self._raw))

    def open(self, segment: bytes | memoryview) -> bytes:
        """The plain text of one segment, up to 65536 bytes.

        Args:
            segment: nonce, cipher text and tag.

        Raises:
            BadSegment: it was not encrypted by any of the keys, or was changed.
        """
        nonce, sealed = segment[:NONCE], segment[NONCE:]
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(nonce, sealed, None)
            except InvalidTag:  # noqa: PERF203
                continue
        raise BadSegment("a segment does not fit its key")

    def open_all(self, body: bytes | memoryview) -> list[bytes]:
        """The plain texts of segments that follow each other; the last may be short.

        Raises:
            BadSegment: with those before it.
        """
        found: list[bytes] = []
        view = memoryview(body)
        try:
            for at in range(0, len(view), CIPHER_SEGMENT):
                found.append(self.open(view[at : at + CIPHER_SEGMENT]))  # noqa: PERF401
        except BadSegment as error:
            error.good = found
            raise
        return found

    def open_into(self, body: memoryview, out: memoryview) -> int:
        """Open segments that follow each other into memory that is there: new memory costs more time than the cipher.

        Args:
            body: the segments; the last may be short.
            out: where the plain texts go; as long as they are, or longer.

        Returns:
            how many bytes they are.

        Raises:
            BadSegment: with the plain texts of those before it.
        """
        end = 0
        try:
            for at in range(0, len(body), CIPHER_SEGMENT):
                end += self._open_one(body[at : at + CIPHER_SEGMENT], out[end : end + SEGMENT])
        except BadSegment as error:
            error.good = [bytes(out[at : at + SEGMENT]) for at in range(0, end, SEGMENT)]
            raise
        return end

    def _open_one(self, segment: memoryview, out: memoryview) -> int:
        length = len(segment) - NONCE - TAG
        # Releases of cryptography before 47 always make new memory.
        if not _INTO or length <= 0:
            plain = self.open(segment)
            out[: len(plain)] = plain
            return len(plain)
        for cipher in self._ciphers:
            try:
                cipher.decrypt_into(segment[:NONCE], segment[NONCE:], None, out[:length])
            except InvalidTag:
                continue
            return length
        raise BadSegment("a segment does not fit its key")


def read_header(data: bytes, pair: KeyPair) -> tuple[Keys, tuple[int, ...] | None]:
    """The keys of a file and its edit list, None where it has none.

    Args:
        data: the header.
        pair: for whom it was encrypted.

    Raises:
        Damaged: it is no header, longer than any is, or for somebody else.
    """
    if len(data) > HEADER_BYTES or int.from_bytes(data[12:16], "little") > HEADER_PACKETS:
        raise Damaged("its Crypt4GH header cannot be read (it is far longer than those of other files)")
    try:
        keys, edits = crypt4gh.header.deconstruct(io.BytesIO(data), [(0, pair.secret, None)])
        lengths = None if edits is None else tuple(edits)
        opened = Keys(keys)
    except (ValueError, IndexError, OverflowError) as error:
        raise Damaged(f"its Crypt4GH header cannot be read ({error})") from None
    if not keys:
        raise Damaged("its Crypt4GH header has no key for its content")
    return opened, lengths


def plain_size(body: int) -> int:
    """How many plain bytes are in a body of so many bytes.

    Raises:
        Damaged: no body is so long.
    """
    full, rest = divmod(body, CIPHER_SEGMENT)
    if 0 < rest < NONCE + TAG:
        raise Damaged(f"its encrypted content cannot be {body} bytes long")
    return full * SEGMENT + max(0, rest - NONCE - TAG)


def segments(body: int) -> int:
    """How many segments a body of so many bytes has."""
    return -(-body // CIPHER_SEGMENT)


def cipher_range(first: int, last: int, body: int) -> tuple[int, int]:
    """Where segments lie in the body: the first byte, and the one behind the last.

    Args:
        first: the first segment.
        last: the last segment, included.
        body: the body's length in bytes.
    """
    return first * CIPHER_SEGMENT, min((last + 1) * CIPHER_SEGMENT, body)


@dataclass(frozen=True)
class Layout:
    """Which bytes of the decrypted body are the file.

    Attributes:
        pieces: (where it begins in the file, where in the body, its length), in order.
        size: the file's length in bytes.
    """

    pieces: tuple[tuple[int, int, int], ...]
    size: int

    @classmethod
    def of(cls, body: int, edits: Sequence[int] | None) -> Layout:
        """The layout of a body.

        Args:
            body: the length of the encrypted body in bytes.
            edits: how many bytes to skip, keep, skip, keep ...; after a last skip all is kept.
        """
        whole = plain_size(body)
        if edits is None:
            return cls(((0, 0, whole),) if whole else (), whole)
        pieces: list[tuple[int, int, int]] = []
        at = size = 0
        steps = list(edits)
        if len(steps) % 2:
            steps.append(whole)
        for skip, keep in zip(steps[::2], steps[1::2], strict=True):
            at += skip
            length = min(keep, whole - at)
            if length > 0:
                pieces.append((size, at, length))
                size += length
            at += keep
        return cls(tuple(pieces), size)

    def spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Where bytes of the file lie in the decrypted body: ranges in the file's order.

        Args:
            start: the first byte in the file.
            stop: the one behind the last.
        """
        found = []
        for begin, at, length in self.pieces:
            low, high = max(start, begin), min(stop, begin + length)
            if low < high:
                found.append((at + low - begin, at + high - begin))
        return found
