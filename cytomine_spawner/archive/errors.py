"""What can go wrong between a program and the archive, each with a sentence that names cause and cure.

Who knows ``OSError``, ``FileNotFoundError`` and ``PermissionError`` knows enough to catch them; the exceptions form one tree::

    ArchiveError (OSError)
    ├── NoSuchPath (FileNotFoundError)   there is no such dataset, folder or file
    ├── NotGranted (PermissionError)     the visas do not grant the dataset
    ├── TokenRefused (PermissionError)   there is no token, or the archive does not accept it
    │   └── NoToken                      the hub gives none, and will not before somebody does something
    ├── ReadOnly                         the archive cannot be written to
    ├── Damaged                          what came is not what was encrypted
    ├── Changed                          the file in the archive is another than when it was opened
    ├── Unreachable                      no answer within the time given
    └── Refused                          the archive answers what nobody expects

    EmptyArchive (UserWarning)           a list of datasets is empty, and why
"""

from __future__ import annotations

import errno

_OPERATORS = "tell the archive's operators if it stays so"


class ArchiveError(OSError):
    """Something between the program and the archive failed; the message is one sentence for people."""

    number = errno.EIO

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.errno = self.number


class NoSuchPath(ArchiveError, FileNotFoundError):
    """There is no such dataset, folder or file."""

    number = errno.ENOENT


class NotGranted(ArchiveError, PermissionError):
    """The visas do not grant what was asked for."""

    number = errno.EACCES

    @classmethod
    def or_not_there(cls, what: str) -> NotGranted:
        """Where the archive does not say which.

        Args:
            what: what was tried, such as "Listing the datasets".
        """
        return cls(
            f"{what} failed: your visas do not grant it, or the archive does not have it. Apply for access, and log in again "
            "once it was given."
        )


class TokenRefused(ArchiveError, PermissionError):
    """There is no token, or the archive does not accept it."""

    number = errno.EACCES


class NoToken(TokenRefused):
    """The hub gives no token, and will not before somebody does what the message says."""


class ReadOnly(ArchiveError):
    """The archive cannot be written to."""

    number = errno.EROFS


class Damaged(ArchiveError):
    """What came is not what was encrypted."""


class Changed(ArchiveError):
    """The file in the archive is another than when it was opened."""

    number = errno.ESTALE


class Unreachable(ArchiveError):
    """No answer within the time given."""

    number = errno.ETIMEDOUT


class Refused(ArchiveError):
    """The archive answers what nobody expects."""


class EmptyArchive(UserWarning):
    """A list of datasets is empty; the message says why."""


class Temporary(Exception):
    """A failure that may be over in a moment; never leaves this package.

    Attributes:
        sentence: what happened, without a full stop.
        retry_after: seconds that the archive asks to wait; None where it does not.
        tries: how often it is worth trying at most.
        cure: what to do if it lasts, as half a sentence.
    """

    def __init__(
        self, sentence: str, retry_after: float | None = None, tries: int = 1000, cure: str = _OPERATORS
    ) -> None:
        super().__init__(sentence)
        self.sentence, self.retry_after, self.tries, self.cure = sentence, retry_after, tries, cure
