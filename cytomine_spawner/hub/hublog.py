"""What the hub's log shows of addresses: never the values of parameters that are credentials.

JupyterHub takes them out of the lines for requests, but not out of lines about what went wrong with one (Tornado
writes these, with the whole address), nor where an address is a parameter of another, as after `next=`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

# Each part is bounded, so that no line takes long.
_NAME = r"[\w.~-]{0,40}?(?:token|auth|key|code|state|_xsrf|secret|passw)[\w.~-]{0,40}"
_PLAIN = re.compile(rf"([?&]{_NAME}=)[^&\s\"'<>#]+", re.IGNORECASE)
# A parameter of an address within an address, encoded once or more.
_WITHIN = re.compile(
    rf"(%(?:25){{0,3}}(?:3F|26){_NAME}%(?:25){{0,3}}3D)(?:(?!%(?:25){{0,3}}26)[^&\s\"'<>#])+", re.IGNORECASE
)


def scrubbed(text: str) -> str:
    """A line without the values of such parameters."""
    return _WITHIN.sub(r"\1[secret]", _PLAIN.sub(r"\1[secret]", text))


def rewrite(record: logging.LogRecord, change: Callable[[str], str]) -> logging.LogRecord:
    """Change what a record says, whatever it was put together from.

    Args:
        record: is changed itself.
        change: gives the line for a line.
    """
    try:
        text = record.getMessage()
    except (TypeError, ValueError):
        return record  # the handler says what is wrong with it
    if (found := change(text)) != text:
        record.msg, record.args = found, None
    return record


class Addresses(logging.Filter):
    """A filter for a log's handlers that takes them out of each line, and passes every line on."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the line where it must be."""
        rewrite(record, scrubbed)
        return True
