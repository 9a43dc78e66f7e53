"""The servers of ``benchmarks.archive``: one content, an archive of each kind over it, in a process of their own.

Prints one line of JSON when all answer, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from dev import archive
from dev.archive.admin import Admin
from dev.archive.slides import Pyramid

DATASET = "aa-Dataset-benchmark"
KINDS = {
    "v1": {"version": 1, "session_ttl": 3600},
    "v2 on a disk": {},
    "v2 over S3": {"block": 50 * archive.MIB},
}


async def serve(wanted: dict[str, float]) -> None:
    """Make the files, serve them, and wait for the end of the standard input."""
    issuer = archive.Issuer()
    await issuer.start()
    with tempfile.TemporaryDirectory(prefix="archive-benchmark-") as folder:
        content = archive.Content(archive.Folder(Path(folder)))
        # A pyramid's tiles are a third more than its full image; each takes 16 KiB.
        side = int((wanted["slide"] / 16384 / 1.07) ** 0.5) * 256
        files = {
            "slide": await content.add(DATASET, "DATASET_b/IMAGES/slide.tif", Pyramid(side, side)),
            "small": await content.add(DATASET, "DATASET_b/IMAGES/small.tif", Pyramid(33 * 256, 33 * 256)),
            "copy": await content.add(
                DATASET, "DATASET_b/IMAGES/copy.bin", archive.Noise(int(wanted["copy"]))
            ),
        }
        petra = archive.Someone("petra@lifescience-ri.eu")
        issuer.grant(petra, DATASET)
        token, servers, parts = issuer.token(petra, seconds=86400), {}, []
        for name, given in KINDS.items():
            more = {"storage_delay": wanted["delay"], "storage_rate": wanted["rate"]} if "S3" in name else {}
            settings = archive.Settings(
                issuer=issuer.url, userinfo=f"{issuer.url}userinfo", trusted=issuer.trusted, **given, **more
            )
            server = archive.Archive(settings, content=content)
            admin = Admin(server)
            servers[name] = {
                "url": await server.start(),
                "admin": await admin.start(),
                "version": settings.version,
            }
            parts += [server, admin]
        told = {
            name: {
                "id": f.id,
                "path": f.path.partition("/")[2].removesuffix(".c4gh"),
                "size": f.decrypted_size,
            }
            for name, f in files.items()
        }
        print(json.dumps({"token": token, "servers": servers, "files": told, "dataset": DATASET}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for part in [*parts, issuer]:
            await part.stop()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
