"""What to call a person. Needs nothing of LS Login, so that a hub with another login need not load it."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

LONGEST = 100
# Signs that take room and show nothing: a name of them alone would be no name, and one with them looks like another.
_EMPTY = dict.fromkeys(map(ord, "\u115f\u1160\u2800\u3164\uffa0"), " ")
_AT = frozenset("@\uff20\ufe6b")
_MARK = r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
# More signs upon one letter than any language writes run over the lines above and below.
_PILED = re.compile(f"({_MARK}{{3}}){_MARK}+")


def is_plain(text: str) -> bool:
    """Whether all of a name's signs can be seen; see :func:`plain`."""
    return text.isprintable() and not any(ord(sign) in _EMPTY for sign in text)


def plain(text: str) -> str:
    """A name as it can be shown: one line, without signs that are not seen or that turn the rest around.

    Those are control signs, marks of direction, and signs without width: with them one name looks like another, or moves
    what stands beside it.
    """
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text.translate(_EMPTY)).split())


def readable(value: object, longest: int = LONGEST) -> str:
    """A text that somebody chose, fit to be shown to others: one line, and in the order in which it was written.

    Signs that change the direction of what follows, and others that cannot be seen, go.

    Args:
        value: the text; anything else is "".
        longest: how many characters it may have.
    """
    if not isinstance(value, str):
        return ""
    return plain(_PILED.sub(r"\1", unicodedata.normalize("NFC", value[: 20 * longest])))[:longest]


def display_name(auth_state: dict[str, Any] | None) -> str:
    """Return what to call a person: their name, else the name they chose, else their address; "" if unknown.

    Args:
        auth_state: as `user.get_auth_state()` returns it, or the claims of userinfo.
    """
    source = auth_state or {}
    claims = source.get("account") or source.get("oauth_user") or source
    for claim in ("name", "preferred_username", "email", "sub"):
        shown = readable(claims.get(claim))
        # A name is freely chosen: it must not look like somebody's account or address.
        if shown and (claim in ("email", "sub") or _AT.isdisjoint(shown)):
            return shown
    return ""
