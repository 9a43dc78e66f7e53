"""One line for people, of bounded length."""

from __future__ import annotations

# How the last line of an import begins that left something out.
LEFT_OUT = "Left out: "


def cut(text: str, length: int = 240) -> str:
    """One line of bounded length without a full stop at its end."""
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= length else text[: length - 1] + "…"


def last_line(text: str, length: int = 240) -> str:
    """The last line that is not empty, cut to this length, without signs that are not seen or turn the rest around."""
    # Names of files and answers of others are in it.
    text = "".join(sign if sign.isprintable() or sign.isspace() else " " for sign in text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return cut(lines[-1], length) if lines else ""
