"""Stand-in for Cytomine: one program that plays one of its services, named by its argument or by ROLE.

On a laptop it may play several, each with a port of its own in ``STANDIN_PORT_<ROLE>``: most of a start is imports.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys

from aiohttp import web

from .faults import Faults, install
from .settings import ROLES, Settings
from .web import LOG


async def _serve(settings: Settings, stop: asyncio.Event) -> int:
    # Only the role's own module is loaded: each pod pays for what it plays.
    part = importlib.import_module("." + settings.role.replace("-", ""), __package__)
    if settings.role == "mongo":
        server = await part.serve(settings.host, settings.port)
        LOG.info("mongo's stand-in accepts connections on port %s", settings.port)
        await stop.wait()
        server.close()
        return 0
    reason = None
    if settings.role == "repository":
        reason = await part.prepare(settings)
    elif settings.role == "pims":
        reason = part.prepare(settings)
    elif settings.role == "core" and not await part.ready(settings):
        await stop.wait()
        return 1
    if reason:
        LOG.error("%s cannot start: %s", settings.role, reason)
        return 1
    # Core signs and checks `Date` and paths as sent; nothing here may rewrite them.
    app = install(part.application(settings), settings)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=10)
    await runner.setup()
    await web.TCPSite(runner, settings.host, settings.port).start()
    LOG.info("%s's stand-in listens on port %s", settings.role, settings.port)
    await stop.wait()
    await runner.cleanup()
    return 0


async def run(parts: list[Settings]) -> int:
    """Start after the delay that tests may ask for, serve until SIGTERM or until one part ends; the exit status."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if delay := parts[0].start_delay:
        LOG.info("waiting %s s before the start", delay)
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait([waiting], timeout=delay)
        waiting.cancel()

    async def play(settings: Settings) -> int:
        try:
            return await _serve(settings, stop)
        finally:
            stop.set()

    return 0 if stop.is_set() else max(await asyncio.gather(*(play(part) for part in parts)))


def main() -> int:
    """The command."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    roles = sys.argv[1:] or [os.environ.get("ROLE", "")]
    for role in roles:
        if role not in ROLES:
            LOG.error("unknown role %r: name one of %s as argument or in ROLE", role, ", ".join(ROLES))
            return 2
    try:
        parts = [Settings(role) for role in roles]
        for part in parts:
            Faults.read(part)
    except ValueError as error:
        LOG.error("a setting cannot be read: %s", error)
        return 2
    return asyncio.run(run(parts))


if __name__ == "__main__":
    sys.exit(main())
