"""From the bytes of a container's log to the lines that people see: whole, bounded, and without secrets."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from ..common.redact import Redactor

LINE_LENGTH = 8192
# How far behind its limit a line is read, so that what goes over the limit is seen as what it is.
MARGIN = 4096


async def lines(chunks: AsyncIterator[bytes], redactor: Callable[[], Redactor]) -> AsyncGenerator[str, None]:
    """The lines of a log without their ends, each cut at a bounded length.

    Args:
        chunks: the log as it comes.
        redactor: takes the secrets out of the next line; asked for each.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest, cut, first = "", False, True

    def shown(line: str, *, torn: bool = False) -> str:
        nonlocal first
        # The last so many lines are counted in the runtime's pieces of long lines: the first may begin anywhere.
        first, start = False, first
        return _shown(line, redactor(), torn_start=start, torn_end=torn)

    async for chunk in chunks:
        rest += decoder.decode(chunk)
        *whole, rest = rest.split("\n")
        for line in whole:
            if not cut:
                yield shown(line)
            cut = False
        if cut:
            rest = ""
        elif len(rest) > LINE_LENGTH + max(MARGIN, redactor().longest):
            # A line without an end must not fill the memory.
            yield shown(rest)
            rest, cut = "", True
    rest += decoder.decode(b"", final=True)
    if rest and not cut:
        yield shown(rest, torn=True)


def _shown(line: str, redactor: Redactor, *, torn_start: bool, torn_end: bool) -> str:
    line = line.rstrip("\r")
    bound = LINE_LENGTH + max(MARGIN, redactor.longest)
    text = redactor(line[:bound], LINE_LENGTH, torn_start=torn_start, torn_end=torn_end)
    return text if len(line) <= LINE_LENGTH else text + " … (cut)"
