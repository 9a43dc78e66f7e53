"""Stands in for the Bigpicture archive in development and tests; never what production runs.

Bytes by their offset: of a file, of memory, or computed on the fly so that fifty gigabytes take no disk.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


class Source(Protocol):
    """Bytes that are read by offset."""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """The bytes from ``offset``, fewer than ``length`` at the end. May be called by several threads at once."""
        ...


class Bytes:
    """A source in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = len(content)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at an offset."""
        return self.content[offset : offset + length]


class File:
    """A source on disk, opened when it is first read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at an offset."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)


class Noise:
    """A source of any size whose bytes are a function of seed and offset: no two places are alike, nothing is stored.

    Args:
        size: bytes.
        seed: two sources of one seed have the same bytes.
    """

    def __init__(self, size: int, seed: str = "") -> None:
        self.size = size
        self._key = hashlib.sha256(seed.encode()).digest()

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at an offset."""
        length = max(0, min(length, self.size - offset))
        first, skip = divmod(offset, 16)
        # The keystream of AES in counter mode begins at any block.
        counter = Cipher(algorithms.AES(self._key), modes.CTR(first.to_bytes(16, "big"))).encryptor()
        return counter.update(bytes(skip + length))[skip:]


class Patched:
    """A source with other bytes at some places: headers and directories of a large virtual file.

    Args:
        under: what is at all other places.
        patches: bytes by their offset; they may not overlap.
    """

    def __init__(self, under: Source, patches: dict[int, bytes]) -> None:
        self.under = under
        self.patches = sorted(patches.items())
        self.size = under.size

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at an offset."""
        found = self.under.read(offset, length)
        end = offset + len(found)
        hits = [(at, new) for at, new in self.patches if at < end and at + len(new) > offset]
        if not hits:
            return found
        changed = bytearray(found)
        for at, new in hits:
            low, high = max(at, offset), min(at + len(new), end)
            changed[low - offset : high - offset] = new[low - at : high - at]
        return bytes(changed)
