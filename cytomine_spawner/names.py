"""What to call a person. Needs nothing of LS Login, so that a hub with another login need not load it."""

from __future__ import annotations

from typing import Any


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
            shown = " ".join("".join(sign if sign.isprintable() else " " for sign in value).split())[:100]
            if shown:
                return shown
    return ""
