"""Files of the archive, for programs that read with ``seek`` and ``read``."""

from __future__ import annotations

from typing import Any

from fsspec.asyn import AbstractAsyncStreamedFile, AsyncFileSystem, sync
from fsspec.spec import AbstractBufferedFile

from .reader import Reader


class SdaFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file of the archive that is read from any thread.

    The filesystem's own cache is behind it, so it needs none of its own (``cache_type="none"``); fsspec's others work, too.
    """

    def __init__(
        self,
        fs: AsyncFileSystem,
        reader: Reader,
        path: str,
        block_size: Any = None,
        cache_type: str = "none",
        cache_options: dict[str, Any] | None = None,
    ) -> None:
        self._reader, self._head = reader, reader.opened
        super().__init__(
            fs,
            fs._strip_protocol(path),
            "rb",
            block_size or 256 * 1024,
            cache_type=cache_type,
            cache_options=dict(cache_options or {}),
            size=self._head.layout.size,
        )

    def _fetch_range(self, start: int, end: int) -> bytes:
        # What is in memory needs no way through the loop's thread: readers of TIFF ask for a few bytes at a time.
        found = self._reader.peek(start, end, self._head)
        if found is None:
            found = sync(self.fs.loop, self._reader.read, [(start, end)], self._head)[0]
        return bytes(found)

    def __reduce__(self) -> Any:
        name = self.cache.name if self.cache else "none"
        return _reopen, (self.fs, self.path, self.blocksize, name or "none", self.loc)


class SdaStream(AbstractAsyncStreamedFile):  # type: ignore[misc]
    """A file of the archive whose ``read`` is a coroutine."""

    def __init__(self, fs: AsyncFileSystem, reader: Reader, path: str) -> None:
        self._reader, self._head = reader, reader.opened
        super().__init__(fs, path, "rb", cache_type="none", size=self._head.layout.size)

    async def _fetch_range(self, start: int, end: int) -> bytes:
        return (await self._reader.read([(start, end)], self._head))[0]


def _reopen(fs: AsyncFileSystem, path: str, block_size: int, cache_type: str, loc: int) -> SdaFile:
    file: SdaFile = fs._open(path, "rb", block_size, cache_type=cache_type)
    if loc > 0:
        file.seek(loc)
    return file
