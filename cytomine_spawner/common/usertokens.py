"""Tokens of LS Login that the hub keeps for its users, for whoever asks it for one."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class AccessToken:
    """An access token.

    Attributes:
        value: what is sent.
        ends: when it ends, in seconds since 1970; None where LS Login did not say.
        life: how long it lives in all, in seconds; None where LS Login did not say.
    """

    value: str = field(repr=False)
    ends: float | None = None
    life: float | None = None

    @classmethod
    def of(cls, auth_state: dict[str, Any]) -> AccessToken | None:
        """The one in somebody's auth state, if there is one."""
        value = auth_state.get("access_token")
        if not isinstance(value, str) or not value:
            return None
        told = auth_state.get("token_response") or {}
        ends, life = told.get("expires_at"), told.get("expires_in")
        return cls(
            value,
            float(ends) if isinstance(ends, (int, float)) else None,
            float(life) if isinstance(life, (int, float)) and life > 0 else None,
        )

    @property
    def digest(self) -> str:
        """Names it without giving it away."""
        return hashlib.sha256(self.value.encode()).hexdigest()

    def is_over(self, within: float = 0.0) -> bool:
        """Whether it ends within so many seconds."""
        return self.ends is not None and self.ends - time.time() <= within


class NoToken(Exception):
    """There is no token to give; the text is one sentence for people.

    Attributes:
        passing: whether trying again later may help.
    """

    def __init__(self, sentence: str, *, passing: bool = False) -> None:
        super().__init__(sentence)
        self.passing = passing


@runtime_checkable
class TokenSource(Protocol):
    """Gives the tokens of the hub's users: an authenticator that keeps them has one as its ``archive``."""

    async def of(self, user: Any, refused: str = "") -> AccessToken:
        """A user's token, which holds for a while yet.

        Args:
            user: the hub's user.
            refused: the digest of a token that an archive refused.

        Raises:
            NoToken: there is none.
        """
        ...
