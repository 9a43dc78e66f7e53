"""Stands in for the Bigpicture archive in development and tests; never what production runs.

A second port to steer an archive that runs as a process of its own: faults, counters, sessions. It asks nobody who
they are, so it is only ever bound to this machine.
"""

from __future__ import annotations

from dataclasses import asdict

from aiohttp import web

from .faults import KINDS, Fault
from .server import Archive


def app(archive: Archive) -> web.Application:
    """The application.

    ``GET``, ``DELETE /counters``; ``GET``, ``POST``, ``DELETE /faults``; ``POST /forget``; ``GET /files`` lists all
    files with ids and sizes.
    """

    async def counters(_request: web.Request) -> web.Response:
        return web.json_response(archive.counters.told())

    async def reset(_request: web.Request) -> web.Response:
        archive.counters.reset()
        return web.json_response({})

    async def faults(_request: web.Request) -> web.Response:
        return web.json_response({"kinds": KINDS, "faults": [asdict(fault) for fault in archive.faults]})

    async def add(request: web.Request) -> web.Response:
        try:
            archive.faults.append(Fault(**await request.json()))
        except (TypeError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({}, status=201)

    async def clear(_request: web.Request) -> web.Response:
        archive.faults.clear()
        archive.revoked.clear()
        return web.json_response({})

    async def forget(_request: web.Request) -> web.Response:
        archive.forget()
        return web.json_response({})

    async def files(_request: web.Request) -> web.Response:
        told = [
            {"id": f.id, "dataset": f.dataset, "path": f.path, "size": f.decrypted_size}
            for f in archive.content.files.values()
        ]
        return web.json_response(told)

    made = web.Application()
    made.add_routes(
        [
            web.get("/counters", counters),
            web.delete("/counters", reset),
            web.get("/faults", faults),
            web.post("/faults", add),
            web.delete("/faults", clear),
            web.post("/forget", forget),
            web.get("/files", files),
        ]
    )
    return made


class Admin:
    """The second port of an archive.

    Args:
        archive: what it steers.

    Attributes:
        url: where it answers, once it was started.
    """

    def __init__(self, archive: Archive) -> None:
        self._app = app(archive)
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Serve in the running loop; a free port is taken if none is named."""
        self._runner = web.AppRunner(self._app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"
        return self.url

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
