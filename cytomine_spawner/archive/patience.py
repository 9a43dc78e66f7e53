"""How long a request that fails for a moment is repeated, and what is said meanwhile."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from .errors import Temporary, Unreachable

log = logging.getLogger(__name__)


class Patience:
    """Pauses between tries, until nothing came for so long.

    Args:
        seconds: how long.
        what: what is tried, for the sentence.
        tell: hears before each pause why, what to do about it, and how long it goes on; "" once something came.
    """

    def __init__(self, seconds: float, what: str, tell: Callable[[str], object] = lambda _: None) -> None:
        self.seconds, self.what = seconds, what
        self._tell, self._tries, self._row, self._most = tell, 0, 0, 0
        self.progress()

    def progress(self) -> None:
        """Something came: the time starts anew."""
        if self._tries:
            self._tell("")
        self._end, self._until = time.monotonic() + self.seconds, time.time() + self.seconds
        self._tries = self._row = 0

    async def pause(self, failure: Temporary) -> None:
        """Wait before the next try.

        Args:
            failure: what happened.

        Raises:
            Unreachable: there is no next try.
        """
        self._tries += 1
        # What is worth few tries may come after many others: one that starts anew answers 503 for long, and then 500 once.
        self._row = self._row + 1 if failure.tries == self._most else 1
        self._most = failure.tries
        pause = random.uniform(0.5, 1) * min(20.0, 0.1 * 2 ** min(self._tries, 10))  # noqa: S311
        if failure.retry_after is not None:
            # All tries would be over in no time, were they not kept apart.
            pause = max(failure.retry_after, min(pause, 1.0))
        if self._row >= failure.tries or time.monotonic() + pause > self._end:
            times = f"{self._tries} tries" if self._tries > 1 else "one try"
            wait = f", and asks to wait {pause:.0f} s" if failure.retry_after else ""
            raise Unreachable(
                f"{self.what} failed: {failure.sentence}{wait} ({times}). Try again later, and {failure.cure}."
            ) from None
        log.debug("%s: %s; next try in %.1f s", self.what, failure.sentence, pause)
        until = time.strftime("%H:%M", time.gmtime(self._until))
        self._tell(f"{failure.sentence}; {failure.cure}; goes on trying until {until} UTC")
        await asyncio.sleep(pause)
