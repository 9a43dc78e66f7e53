"""Where the token comes from: a file that is read anew when it changes, or a function.

A token is in no message, ``repr`` or pickle: what is pickled is where to find it.
"""

from __future__ import annotations

import asyncio
import configparser
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from .errors import TokenRefused
from .jwt import MARGIN, checked, expiry

# A file's time is looked at this often at most, in seconds.
LOOK = 1.0


class Source(Protocol):
    """Where tokens come from. The methods may block: they are called in threads."""

    def current(self) -> str | Awaitable[str]:
        """The token to use now."""

    def renew(self, refused: str) -> str | Awaitable[str]:
        """Another token, as the archive does not accept ``refused``; the same where there is none."""


async def called(function: Callable[[], Any]) -> Any:
    """What a function gives, or a coroutine of it; in a thread, where it may block."""
    if inspect.iscoroutinefunction(function):
        return await function()
    found = await asyncio.to_thread(function)
    return await found if inspect.isawaitable(found) else found


class FileToken:
    """A file that holds a token, or an ini with ``access_token`` as the login portal gives it (``s3cmd.conf``).

    It is read anew when it changes. While the new token is unusable, or the archive refuses it, the former one stays.

    Args:
        path: the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()
        self._token = ""
        self._former = ""
        self._stamp: tuple[int, int, int] | None = None
        self._looked = 0.0

    def __repr__(self) -> str:
        return f"FileToken({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileToken) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return FileToken, (str(self.path),)

    def current(self) -> str:
        """The token, as the file has it.

        Raises:
            TokenRefused: there is no file, or no token in it, and there never was one.
        """
        with self._lock:
            now = time.monotonic()
            if not self._token or now - self._looked >= LOOK:
                self._looked = now
                self._look()
            return self._token

    def renew(self, refused: str) -> str:
        """The token that the file has now; the former one where the archive refuses the newer.

        Args:
            refused: the token that the archive refused.
        """
        with self._lock:
            self._look()
            if self._token == refused and self._former:
                self._token, self._former = self._former, ""
            return self._token

    def _look(self) -> None:
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp == self._stamp:
                return
            token = checked(_in(self.path.read_text("utf-8")), str(self.path))
            end = expiry(token)
            if self._token and end is not None and end < time.time():
                return  # a file that was written long ago, or is written right now
        except (OSError, UnicodeDecodeError) as error:
            if self._token:
                return  # it is being replaced; the token that is known may still be good
            if isinstance(error, TokenRefused):
                raise
            raise TokenRefused(
                f"There is no token in {self.path} ({getattr(error, 'strerror', None) or 'it is no text'}): "
                "save the token, or the portal's s3cmd.conf, there."
            ) from None
        self._stamp = stamp
        if token != self._token:
            self._token, self._former = token, self._token


class CallableToken:
    """A function that gives a token, for instance the hub's: asked at first, before the token ends, and when it is refused.

    Args:
        function: takes nothing and returns the token, or an awaitable of it.
    """

    def __init__(self, function: Callable[[], str | Awaitable[str]]) -> None:
        self.function = function
        self._token = ""

    def __repr__(self) -> str:
        return f"CallableToken({getattr(self.function, '__qualname__', type(self.function).__name__)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return CallableToken, (self.function,)

    async def current(self) -> str:
        """The token."""
        end = expiry(self._token)
        if self._token and (end is None or end - MARGIN > time.time()):
            return self._token
        return await self.renew(self._token)

    async def renew(self, refused: str) -> str:  # noqa: ARG002
        """A token, asked anew.

        Args:
            refused: the token that was used last.

        Raises:
            TokenRefused: the function failed or gave none.
        """
        try:
            found = await called(self.function)
        except TokenRefused:
            raise
        except Exception as error:
            # Its text stays out: nobody knows whether a token is in it.
            raise TokenRefused(
                f"The function that gives the token failed ({type(error).__name__}): log in again."
            ) from None
        self._token = checked(found, "the function that gives the token")
        return self._token


class FixedToken:
    """A token that is not renewed. It cannot be pickled.

    Args:
        token: the token.
    """

    def __init__(self, token: str) -> None:
        self._token = checked(token, "FixedToken")

    def __repr__(self) -> str:
        return f"FixedToken(at {id(self):#x})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "A token is not pickled: give token_file= or a function, so that the other process finds its own."
        )

    def current(self) -> str:
        """The token."""
        return self._token

    def renew(self, refused: str) -> str:  # noqa: ARG002
        """The same token."""
        return self._token


def source(token: object, token_file: str | None) -> Source:
    """Where tokens come from, as the file system's options say; without any, from the hub that this notebook belongs to.

    Args:
        token: a source, or a function that gives a token.
        token_file: a file.

    Raises:
        ValueError: neither, or a token itself.
    """
    if isinstance(token, str):
        raise ValueError(
            "token= takes a function, as options are printed, stored and pickled: name a file by token_file=, "
            "or say token=cytomine_spawner.archive.FixedToken(...)."
        )
    if token is not None:
        if hasattr(token, "current") and hasattr(token, "renew"):
            return token
        if callable(token):
            return CallableToken(token)
        raise ValueError("token= takes a function that gives a token.")
    name = token_file or os.environ.get("SDA_TOKEN_FILE", "")
    if not name:
        from .hubtoken import HubToken, is_at_a_hub

        if is_at_a_hub():
            return HubToken()
        raise ValueError(
            "There is no token: name a file with it, or the portal's s3cmd.conf, by token_file= or SDA_TOKEN_FILE."
        )
    return FileToken(name)


def _in(text: str) -> str:
    """The token in a file's text."""
    if "access_token" not in text:
        return text
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text if text.lstrip().startswith("[") else f"[default]\n{text}")
    except configparser.Error:
        return ""
    found = [parser[name]["access_token"] for name in parser.sections() if "access_token" in parser[name]]
    return found[0].strip().strip("\"'") if found else ""
