"""Stands in for the Bigpicture archive in development and tests; never what production runs.

What is in the archive: datasets and their files, from folders or from sources of any kind.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from . import sources
from .crypt import Sealed, Vault
from .sources import Source
from .storage import Storage

# Sums of larger files are left out: reading fifty gigabytes of noise for them helps nobody.
SUMMED = 256 * 1024 * 1024
UPLOADER = "user@lifescience-ri.eu"
_CREATED = datetime(2026, 1, 15, 12, 0, 0, tzinfo=timezone.utc)


@dataclass
class Entry:
    """A file of the archive.

    Attributes:
        id: its stable id.
        dataset: the id of its dataset.
        path: the path it was submitted with; begins with the uploader's folder and ends in ``.c4gh``.
        plain: its bytes before encryption.
        edits: lengths to skip and to keep, in turn, that its header asks readers to apply.
        header: as stored, for the archive's own key.
        size: bytes of the body, which is stored without the header.
        sum: SHA-256 of the plain bytes after the edits; empty where the file is too large to be read for it.
        body_sum: SHA-256 of the body, likewise.
        modified: when it was last changed.
    """

    id: str
    dataset: str
    path: str
    plain: Source
    edits: tuple[int, ...]
    header: bytes
    size: int
    sum: str = ""
    body_sum: str = ""
    modified: datetime = _CREATED

    @property
    def decrypted_size(self) -> int:
        """Plain bytes that a reader gets."""
        return sum(length for _, length in kept(self.edits, self.plain.size))

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    def read(self, offset: int, length: int) -> bytes:
        """Plain bytes as a reader must get them: what tests compare with."""
        found, at = [], 0
        for start, size in kept(self.edits, self.plain.size):
            low, high = max(offset, at), min(offset + length, at + size)
            if low < high:
                found.append(self.plain.read(start + low - at, high - low))
            at += size
        return b"".join(found)


def kept(edits: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that an edit list keeps, as offset and length.

    After an even number of lengths the rest of the file is left out, after an odd number it is kept.
    """
    if not edits:
        yield 0, size
        return
    at = 0
    for number, length in enumerate(edits):
        if number % 2 and at < size:
            yield at, min(length, size - at)
        at += length
    if len(edits) % 2 and at < size:
        yield at, size - at


@dataclass
class Dataset:
    """A dataset of the archive.

    Attributes:
        id: its stable id; may be a URL.
        owner: the subject of who submitted it.
        created: when.
        files: its files.
    """

    id: str
    owner: str = UPLOADER
    created: datetime = _CREATED
    files: list[Entry] = field(default_factory=list)


class Content:
    """Datasets and files, and the storage that has their bodies.

    Args:
        storage: where bodies go.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.vault = Vault()
        self.datasets: dict[str, Dataset] = {}
        self.files: dict[str, Entry] = {}

    def dataset(self, dataset_id: str, owner: str = UPLOADER) -> Dataset:
        """A dataset, made unless it is there."""
        return self.datasets.setdefault(dataset_id, Dataset(dataset_id, owner))

    async def add(
        self, dataset_id: str, path: str, plain: Source, *, edits: Sequence[int] = (), keys: int = 1
    ) -> Entry:
        """Encrypt and store a file.

        Args:
            dataset_id: its dataset, made unless it is there.
            path: as it was submitted but without the uploader's folder and ``.c4gh``.
            plain: its bytes.
            edits: an edit list for its header.
            keys: how many session keys its body has.
        """
        dataset = self.dataset(dataset_id)
        full = f"{dataset.owner.replace('@', '_')}/{path}.c4gh"
        unique = uuid.uuid5(uuid.NAMESPACE_URL, f"{dataset_id}\n{full}").hex
        file_id = f"aa-File-{unique[:6]}-{unique[6:12]}"
        secrets = [hashlib.sha256(f"{unique} {n}".encode()).digest() for n in range(keys)]
        body = Sealed(plain, secrets)
        await self.storage.put(file_id, body)
        entry = Entry(
            file_id, dataset_id, full, plain, tuple(edits), self.vault.header(secrets, edits), body.size
        )
        if plain.size <= SUMMED:
            entry.sum, entry.body_sum = await asyncio.to_thread(_sums, entry, body)
        dataset.files.append(entry)
        dataset.files.sort(key=lambda file: (file.path, file.id))
        self.files[file_id] = entry
        return entry

    async def add_folder(self, dataset_id: str, folder: Path) -> Dataset:
        """All files below a folder, by their paths from it; ``PRIVATE`` folders are left out, as at ingestion."""
        dataset = self.dataset(dataset_id)
        for path in await asyncio.to_thread(_files, folder):
            relative = path.relative_to(folder)
            if "PRIVATE" not in relative.parts:
                await self.add(dataset_id, relative.as_posix(), sources.File(path))
        return dataset

    def find(self, dataset_id: str, path: str) -> Entry | None:
        """A file by dataset and whole submitted path."""
        dataset = self.datasets.get(dataset_id)
        return next((file for file in dataset.files if file.path == path), None) if dataset else None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sums(entry: Entry, body: Source) -> tuple[str, str]:
    plain, sealed = hashlib.sha256(), hashlib.sha256()
    for at in range(0, entry.decrypted_size, 1 << 20):
        plain.update(entry.read(at, 1 << 20))
    for at in range(0, body.size, 1 << 20):
        sealed.update(body.read(at, 1 << 20))
    return plain.hexdigest(), sealed.hexdigest()
