"""What a version of the API needs of the archive that it answers for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from .content import Content
from .settings import Settings
from .tokens import Door


class Served(Protocol):
    """An archive, as those see it who answer for it; see :class:`~.server.Archive`."""

    settings: Settings
    content: Content
    door: Door
    revoked: set[str]
    down: set[str]
    send: Callable[..., Awaitable[web.StreamResponse]]
