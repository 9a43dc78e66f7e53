"""What to call a person. Needs nothing of LS Login, so that a hub with another login need not load it."""

from __future__ import annotations

from typing import Any

# They look like nothing, and are letters to Unicode.
_BLANK = dict.fromkeys((0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0), " ")


def is_plain(text: str) -> bool:
    """Whether all of a name's signs can be seen; see :func:`plain`."""
    return text.isprintable() and not any(ord(sign) in _BLANK for sign in text)


def plain(text: str) -> str:
    """A name as it can be shown: one line, without signs that are not seen or that turn the rest around.

    Those are control signs, marks of direction, and signs without width: with them one name looks like another, or moves
    what stands beside it.
    """
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text.translate(_BLANK)).split())


def display_name(auth_state: dict[str, Any] | None) -> str:
    """Return what to call a person: their name, else the name they chose, else their address; "" if unknown.

    Args:
        auth_state: as `user.get_auth_state()` returns it, or the claims of userinfo.
    """
    source = auth_state or {}
    claims = source.get("account") or source.get("oauth_user") or source
    for claim in ("name", "preferred_username", "email", "sub"):
        value = claims.get(claim)
        if isinstance(value, str):
            shown = plain(value)[:100].strip()
            if shown:
                return shown
    return ""
