"""What can go wrong on the way from a notebook to Cytomine, each with a sentence that names the cure.

The exceptions form one tree::

    CytomineError
    ├── NoStack               there is no such stack that one may use
    ├── StackHibernated       the stack sleeps; connect(..., resume=True) wakes it
    ├── StackFailed           the stack could not start; ``reason`` says why
    ├── StackNotReady         the stack did not start in the time given
    ├── KeysRefused           Cytomine does not accept the keys
    ├── CytomineUnreachable   Cytomine does not answer
    └── ServiceUnreachable    the hub's service of the stacks does not answer, or does not accept the notebook
"""

from __future__ import annotations


class CytomineError(Exception):
    """Something between the notebook and Cytomine failed; the message is one sentence for people."""


class NoStack(CytomineError):
    """There is no such stack that this user may use."""


class StackHibernated(CytomineError):
    """The stack sleeps.

    Attributes:
        stack: the stack's name.
    """

    def __init__(self, sentence: str, stack: str = "") -> None:
        super().__init__(sentence)
        self.stack = stack


class StackFailed(CytomineError):
    """The stack could not start.

    Attributes:
        stack: the stack's name.
        reason: one word for programs, such as ``ImagePullFailed``; empty if none is known.
    """

    def __init__(self, sentence: str, stack: str = "", reason: str = "") -> None:
        super().__init__(sentence)
        self.stack, self.reason = stack, reason


class StackNotReady(CytomineError):
    """The stack did not become ready in the time given; it may still be on its way."""


class KeysRefused(CytomineError):
    """Cytomine does not accept the keys."""


class CytomineUnreachable(CytomineError):
    """Cytomine does not answer.

    Attributes:
        passing: whether it is there and slow or failing, so that waiting may help.
    """

    def __init__(self, sentence: str, passing: bool = False) -> None:
        super().__init__(sentence)
        self.passing = passing


class ServiceUnreachable(CytomineError):
    """The service that knows the stacks does not answer, or does not accept the notebook's token."""
