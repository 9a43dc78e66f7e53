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
