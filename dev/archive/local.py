"""Stands in for the Bigpicture archive in development and tests; never what production runs.

An archive and an issuer in a thread of this process, for tests and benchmarks whose own code is not asynchronous or
must not share its loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from .content import UPLOADER, Content, Entry
from .issuer import Issuer, Someone
from .server import Archive
from .settings import Settings
from .sources import Source
from .storage import Storage, Virtual

T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="archive", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 300) -> T:
        """The result of a coroutine, run there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def call(self, work: Callable[[], T]) -> T:
        """The result of a function, called there: between two requests, never within one."""

        async def called() -> T:
            return work()

        return self.run(called())

    def close(self) -> None:
        """Stop the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@dataclass
class Local:
    """An issuer, a content and archives over it, all on this machine.

    Attributes:
        loop: where they run.
        issuer: stands in for LS Login.
        content: what all archives have.
    """

    loop: Loop
    issuer: Issuer
    content: Content

    def add(
        self,
        dataset: str,
        path: str,
        plain: Source,
        *,
        edits: Sequence[int] = (),
        keys: int = 1,
        owner: str = UPLOADER,
    ) -> Entry:
        """Put a file into the content; see :meth:`Content.add`."""
        self.content.dataset(dataset, owner)
        return self.loop.run(self.content.add(dataset, path, plain, edits=edits, keys=keys))

    def settings(self, **given: Any) -> Settings:
        """Settings that trust the issuer, with signed tokens allowed."""
        known = {
            "issuer": self.issuer.url,
            "userinfo": f"{self.issuer.url}userinfo",
            "jwks": f"{self.issuer.url}jwk",
            "trusted": self.issuer.trusted,
            "clock": self.issuer.clock,
        }
        return Settings(**{**known, **given})

    @contextmanager
    def archive(self, **given: Any) -> Iterator[Archive]:
        """An archive that answers at ``archive.url`` in the block.

        Args:
            given: settings.
        """
        made = Archive(self.settings(**given), content=self.content)
        self.loop.run(made.start())
        try:
            yield made
        finally:
            self.loop.run(made.stop())

    def someone(self, name: str, *datasets: str) -> Someone:
        """A person with good visas for some datasets."""
        found = Someone(f"{name}@lifescience-ri.eu")
        self.issuer.grant(found, *datasets)
        return found


@contextmanager
def running(storage: Storage | None = None, issuer: Issuer | None = None) -> Iterator[Local]:
    """An issuer that answers, and an empty content.

    Args:
        storage: where bodies go; none encrypts them on the fly.
        issuer: another one than the usual.
    """
    loop, kept = Loop(), storage or Virtual()
    found = issuer or Issuer()
    try:
        loop.run(found.start())
        yield Local(loop, found, Content(kept))
    finally:
        loop.run(found.stop())
        loop.run(kept.close())
        loop.close()
