"""Stand-in for Cytomine's mongo: a port that accepts connections. Core's stand-in stores nothing there.

It speaks no protocol, so a probe must be a TCP one.
"""

from __future__ import annotations

import asyncio


async def serve(host: str, port: int) -> asyncio.Server:
    """Accept and hold connections until their other end closes them."""

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(4096):
                pass
        except OSError:
            pass
        finally:
            writer.close()

    return await asyncio.start_server(hold, host, port)
