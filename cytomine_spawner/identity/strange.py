"""What stands in for a stack that is not there, so that strangers cannot tell it from one that is not theirs.

It has an owner whom no hub can have, no members, no sessions and no secret: all that is asked of it is refused as by any
other stack, in the same words and by the same code.
"""

from __future__ import annotations

from ..stack.model import Stack, StackSpec

# No hub's user can be called so.
_NOBODY = "\0"


def nobodys(name: str) -> Stack:
    """The stack that stands in for one of this name."""
    return Stack(name=name, namespace="", spec=StackSpec(owner=_NOBODY))


def is_nobodys(stack: Stack) -> bool:
    """Whether a stack only stands in for one."""
    return stack.spec.owner == _NOBODY
