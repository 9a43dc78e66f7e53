"""The archive as a filesystem for fsspec: ``sda://<dataset>/<path>``, read-only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsspec.asyn import AsyncFileSystem, sync
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import isfilelike

from .api import Api, RemoteFile, detect
from .blocks import Policy
from .cache import DiskCache, MemoryCache
from .download import written
from .errors import EmptyArchive, NoSuchPath, NotGranted
from .explain import not_empty, why_empty
from .file import SdaFile, SdaStream
from .http import Http
from .paths import Tree, component, folder, split
from .reader import Reader, Shared
from .readonly import read_only, refuse_writes
from .tokens import source

URL = "https://download.bp.nbis.se"
MIB = 1024 * 1024
READERS = 256
CACHE = 2048 * MIB
# Those that fsspec has for all.
OPTIONS = {"add_aliases", "add_docs", "asynchronous", "batch_size", "loop", "max_paths", "use_listings_cache"}


def default_folder() -> Path:
    """Where the cache is unless somebody says otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cytomine-spawner" / "archive"


@refuse_writes
class SdaFileSystem(AsyncFileSystem):  # type: ignore[misc]
    """A sensitive data archive, such as Bigpicture's, as a filesystem.

    What is read is decrypted on the way and checked; nothing is fetched but what is needed. Each call that would write raises
    `ReadOnly` (``EROFS``).

    Args:
        endpoint: the archive's address; else SDA_URL, else Bigpicture's. (fsspec has the name ``url`` for itself.)
        token: a function that gives the token (or an awaitable of it); asked again when the token ends or is refused.
        token_file: a file with the token, or the login portal's ``s3cmd.conf``; else SDA_TOKEN_FILE. Read anew when it changes.
            Without a token and a file the hub is asked that this notebook belongs to.
        block_size: bytes to fetch around a read; measured where left out.
        cache_folder: where decrypted blocks are kept, for this user's processes alone; ``~/.cache/cytomine-spawner/archive``
            where left out.
        cache_size: how many bytes may be there at most; 0 for none.
        memory_size: how many bytes may be kept in memory at most.
        parallel: how many requests for content there are at a time.
        patience: how long to go on trying while nothing comes, in seconds.
        stall: how long the archive may say nothing before a request counts as cut, in seconds.
        allow_http: whether tokens may travel unencrypted to other machines; also where SDA_ALLOW_HTTP is 1.
        issuer: who issues the tokens, asked only to explain an empty list; else SDA_ISSUER, else LS Login.
        listings_expiry_time: how long a dataset's list is kept, in seconds.

    Raises:
        ValueError: there is no token, or the address is none.
        TypeError: there is no such option.
    """

    protocol = "sda"
    root_marker = ""

    def __init__(
        self,
        endpoint: str | None = None,
        token: Any = None,
        token_file: str | None = None,
        block_size: int | None = None,
        cache_folder: str | None = None,
        cache_size: int = CACHE,
        memory_size: int = 32 * MIB,
        parallel: int = 4,
        patience: float = 120.0,
        stall: float = 60.0,
        allow_http: bool = False,
        issuer: str | None = None,
        listings_expiry_time: float = 300.0,
        **options: Any,
    ) -> None:
        if unknown := sorted(options.keys() - OPTIONS):
            # Another archive would be asked than was meant, were the name of its option swallowed.
            raise TypeError(f"sda:// has no option {', '.join(unknown)}; the archive's address is endpoint=.")
        super().__init__(**options)
        address = endpoint or os.environ.get("SDA_URL") or URL
        allow_http = allow_http or os.environ.get("SDA_ALLOW_HTTP") == "1"
        self._http = Http(address, source(token, token_file), patience, stall, parallel, allow_http)
        issuer = issuer or os.environ.get("SDA_ISSUER") or None
        self._issuer, self._fixed, self._expiry = issuer, block_size, listings_expiry_time
        self._memory = MemoryCache(memory_size)
        self._disk = None
        if cache_size > 0:
            self._disk = DiskCache(
                Path(cache_folder).expanduser() if cache_folder else default_folder(), cache_size
            )
        self._room = cache_size or memory_size
        self._shared: Shared | None = None
        self._trees: dict[str, tuple[float, Tree]] = {}
        self._roots: tuple[float, list[str]] | None = None
        self._readers: OrderedDict[RemoteFile, Reader] = OrderedDict()
        self._connecting: asyncio.Lock | None = None
        if not self.asynchronous:
            weakref.finalize(self, _close, self._http, self.loop)

    def __repr__(self) -> str:
        return f"SdaFileSystem({self._http.base!r})"

    @property
    def fsid(self) -> str:
        """A name for this archive."""
        return f"sda_{self._http.base}"

    def on_wait(self, tell: Callable[[str], object]) -> None:
        """Have told what is waited for whenever a request is to be repeated, and "" once something came."""
        self._http.waits = tell

    async def _archive(self) -> Shared:
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._shared is None:
                api = await detect(self._http)
                policy = Policy(api.version == 1, self._room, self._fixed)
                self._shared = Shared(api, policy, self._memory, self._disk)
            return self._shared

    async def _api(self) -> Api:
        return (await self._archive()).api

    # -- what is there

    async def _datasets(self, refresh: bool = False) -> list[str]:
        """The ids of the datasets that the token grants, sorted."""
        now = time.monotonic()
        if refresh or self._roots is None or now - self._roots[0] > min(self._expiry, 60.0):
            found = await (await self._api()).datasets()
            self._roots = (now, found) if found else None
            if not found:
                warnings.warn(await self._explain(), EmptyArchive, stacklevel=2)
            return found
        return self._roots[1]

    async def _explain(self, dataset: str = "") -> str:
        """Why the list of datasets is empty, or why a dataset is not in it, as one sentence."""
        return await why_empty(self._http, self._issuer, dataset)

    def datasets(self, refresh: bool = False) -> list[str]:
        """The ids of the datasets that the token grants, sorted; an `EmptyArchive` warning says why there are none.

        Args:
            refresh: whether the archive is asked even if it was a moment ago.
        """
        return list(sync(self.loop, self._datasets, refresh))

    def explain(self, dataset: str = "") -> str:
        """Why the list of datasets is empty, or why a dataset is not in it, as one sentence; that it is not, if so.

        Args:
            dataset: its id.
        """
        return str(sync(self.loop, self._why, dataset))

    async def _why(self, dataset: str) -> str:
        with contextlib.suppress(OSError):  # of an archive that refuses the token the reason is looked for
            if said := not_empty(await (await self._api()).datasets(), dataset):
                return said
        return await self._explain(dataset)

    async def _tree(self, dataset: str, refresh: bool = False) -> Tree:
        now = time.monotonic()
        known = self._trees.get(dataset)
        if refresh or known is None or now - known[0] > self._expiry:
            files = await (await self._api()).files(dataset)
            known = (now, Tree.of(dataset, files))
            self._trees[dataset] = known
        return known[1]

    async def _ls(self, path: str, detail: bool = True, refresh: bool = False, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        dataset, _rest = split(path)
        found: list[dict[str, Any]] | None
        if not dataset:
            found = [folder(component(name)) for name in await self._datasets(refresh)]
        else:
            tree = await self._tree(dataset, refresh)
            found = tree.listing(_normal(path))
            if found is None:
                raise _missing(path)
        return found if detail else sorted(entry["name"] for entry in found)

    async def _info(self, path: str, refresh: bool = False, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        dataset, _rest = split(path)
        if not dataset:
            return folder("")
        tree = await self._tree(dataset, refresh)
        entry = tree.entry(_normal(path))
        if entry is None:
            raise _missing(path)
        if entry["type"] == "file":
            reader = self._readers.get(tree.files[entry["name"]])
            # With an edit list the file is shorter than its decrypted body; that is known once it was opened.
            if reader is not None and reader.size is not None:
                entry["size"] = reader.size
            elif entry["size"] is None:
                entry["size"] = (await self._reader(path)).size
        return entry

    async def _exists(self, path: str, **kwargs: Any) -> bool:
        try:
            await self._info(path, **kwargs)
        except (FileNotFoundError, NotGranted):
            return False
        return True

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget lists, of one dataset or of all; content that was fetched stays.

        Args:
            path: in the dataset.
        """
        dataset = split(self._strip_protocol(path))[0] if path else ""
        if dataset:
            self._trees.pop(dataset, None)
        else:
            self._trees.clear()
        self._roots = None

    # -- what is in it

    async def _reader(self, path: str, fresh: bool = False) -> Reader:
        """The reader of a file, opened."""
        path = self._strip_protocol(path)
        dataset, rest = split(path)
        if not rest:
            raise IsADirectoryError(f"{path or 'sda://'} is a folder: name a file in it.")
        tree = await self._tree(dataset)
        file = tree.files.get(_normal(path))
        if file is None:
            if tree.listing(_normal(path)) is not None:
                raise IsADirectoryError(f"{path} is a folder: name a file in it.")
            raise _missing(path)
        reader = self._readers.get(file)
        if reader is None:
            reader = self._readers[file] = Reader(file, await self._archive())
            while len(self._readers) > READERS:
                self._readers.popitem(last=False)
        self._readers.move_to_end(file)
        await reader.head(fresh)
        return reader

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        reader = await self._reader(path)
        return (await reader.read([_limits(reader, start, end)]))[0]

    async def _cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,  # noqa: ARG002
        batch_size: int | None = None,  # noqa: ARG002
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """Several ranges: those of one file that lie side by side become one request."""
        if not isinstance(paths, list):
            raise TypeError("paths is a list, with one path a range")
        starts = [starts] * len(paths) if isinstance(starts, int) or starts is None else list(starts)
        ends = [ends] * len(paths) if isinstance(ends, int) or ends is None else list(ends)
        if not len(paths) == len(starts) == len(ends):
            raise ValueError("paths, starts and ends are of different lengths")
        groups: dict[str, list[int]] = {}
        for number, path in enumerate(paths):
            groups.setdefault(self._strip_protocol(path), []).append(number)
        found: list[Any] = [None] * len(paths)

        async def one(path: str, numbers: list[int]) -> None:
            try:
                reader = await self._reader(path)
                parts = await reader.read([_limits(reader, starts[n], ends[n]) for n in numbers])
            except Exception as error:
                if on_error != "return":
                    raise
                parts = [error] * len(numbers)  # type: ignore[list-item]
            for number, part in zip(numbers, parts, strict=True):
                found[number] = part

        await asyncio.gather(*(one(path, numbers) for path, numbers in groups.items()))
        return found

    async def _get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **_: Any) -> None:
        if not isfilelike(lpath) and await self._isdir(rpath):
            await asyncio.to_thread(Path(lpath).mkdir, parents=True, exist_ok=True)
            return
        reader = await self._reader(rpath)
        callback.set_size(reader.size)
        out = lpath if isfilelike(lpath) else await asyncio.to_thread(Path(lpath).open, "wb")

        def write(piece: memoryview) -> None:
            out.write(piece)
            callback.relative_update(len(piece))

        try:
            await written(reader, 0, write)
        finally:
            if out is not lpath:
                await asyncio.to_thread(out.close)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: Any = None,
        autocommit: bool = True,  # noqa: ARG002
        cache_type: str = "none",
        cache_options: dict[str, Any] | None = None,
        size: int | None = None,  # noqa: ARG002
        **_: Any,
    ) -> SdaFile:
        if mode != "rb":
            raise read_only()
        reader = sync(self.loop, self._reader, path, True)
        return SdaFile(self, reader, path, block_size, cache_type, cache_options)

    async def open_async(self, path: str, mode: str = "rb", **_: Any) -> SdaStream:
        """A file whose ``read`` is a coroutine.

        Args:
            path: its path.
            mode: ``rb``.

        Raises:
            ArchiveError: it cannot be opened, or the mode writes.
        """
        if mode != "rb":
            raise read_only()
        return SdaStream(self, await self._reader(path, True), self._strip_protocol(path))

    def open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        """Open a file for reading.

        Args:
            path: its path.
            mode: ``rb``, or ``r`` for text.
            args: as in fsspec.
            kwargs: as in fsspec.

        Raises:
            ArchiveError: it cannot be opened, or the mode writes.
        """
        # fsspec takes other modes for text, and would ask for the file first.
        if set(mode) - set("rbt") or "r" not in mode:
            raise read_only()
        return super().open(path, mode, *args, **kwargs)

    async def _reader_for(self, path: str) -> Reader:
        """For the commands: the reader of a file, opened anew."""
        return await self._reader(path, True)

    async def _encrypted_checksum(self, path: str) -> str | None:
        reader = await self._reader(path)
        return await (await self._api()).encrypted_checksum(reader.file)


def _close(http: Http, loop: Any) -> None:
    """Close the connections of a filesystem that nobody has any more."""
    if loop is None or not loop.is_running():
        return
    closing = asyncio.run_coroutine_threadsafe(http.close(), loop)
    # At the interpreter's end the loop's thread ends with it; in that thread nothing can be waited for.
    if threading.get_ident() != getattr(loop, "_thread_id", None):
        with contextlib.suppress(Exception):
            closing.result(1)


def _limits(reader: Reader, start: int | None, end: int | None) -> tuple[int, int]:
    """Python's slice of a file: negative numbers count from its end."""
    low, high, _ = slice(start, end).indices(reader.size or 0)
    return low, max(low, high)


def _normal(path: str) -> str:
    """A path as lists have it: its dataset may be written with more or less percent-encoding."""
    dataset, rest = split(path)
    return f"{component(dataset)}/{rest}" if rest else component(dataset)


def _missing(path: str) -> NoSuchPath:
    return NoSuchPath(f"There is no {path} in the archive: see what is there by ls, or 'sda ls'.")
