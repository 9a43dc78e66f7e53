"""What the hub keeps of a login, written only in the place of what was read.

A renewal talks with LS Login for seconds; meanwhile its user may sign out, or in anew, and JupyterHub writes without another
look. There is one hub process for a database, so what happens between two awaits happens at once.
"""

from __future__ import annotations

from typing import Any

from jupyterhub.crypto import decrypt, encrypt


async def replaced(user: Any, before: dict[str, Any], state: dict[str, Any]) -> bool:
    """Write an auth state, unless other tokens, or none, were written since it was read.

    Args:
        user: the hub's user.
        before: what was read; an empty one where nothing was kept.
        state: what is to be kept.

    Returns:
        Whether it was written.
    """
    sealed = await encrypt(state)
    while True:
        there = user.encrypted_auth_state
        # Not by the user's own method: with several keys that one writes what it read, whatever is there by then.
        if _tokens(await decrypt(there) if there else {}) != _tokens(before):
            return False
        # The same may have been encrypted anew.
        if user.encrypted_auth_state == there:
            user.encrypted_auth_state = sealed
            user.db.commit()
            return True


def _tokens(state: dict[str, Any]) -> tuple[Any, ...]:
    return state.get("access_token"), state.get("refresh_token")
