"""What a token says of itself, unchecked."""

from __future__ import annotations

import base64
import json
from typing import Any

from .errors import TokenRefused

# How long before its end a token counts as over, in seconds: a request takes a while, and clocks differ.
MARGIN = 30.0


def claims(token: str) -> dict[str, Any]:
    """What a JWT says, unchecked; nothing for tokens of other kinds."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        found = json.loads(base64.urlsafe_b64decode(padded))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def expiry(token: str) -> float | None:
    """When a JWT ends, in seconds since 1970; None where it does not say."""
    end = claims(token).get("exp")
    return float(end) if isinstance(end, (int, float)) else None


def checked(token: object, place: str) -> str:
    """A token that can be sent.

    Args:
        token: what was found.
        place: where, for the sentence.

    Raises:
        TokenRefused: it is none.
    """
    if not isinstance(token, str) or not token.strip():
        raise TokenRefused(f"{place} gives no token: log in again, or download s3cmd.conf anew.")
    token = token.strip()
    if not token.isascii() or any(sign.isspace() or not sign.isprintable() for sign in token):
        raise TokenRefused(
            f"What {place} gives is no token, as it has spaces or other signs that no token has: download it anew."
        )
    return token
