"""Stands in for the Bigpicture archive in development and tests; never what production runs.

``python -m dev.archive.pod``: what the image runs, with datasets that are mounted and LS Login's stand-in beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

from .server import Archive
from .settings import Settings
from .storage import Virtual

PORT = 8100


def pair(text: str) -> tuple[str, str]:
    """NAME=VALUE as two."""
    left, equals, right = text.partition("=")
    if not (left and equals and right):
        raise argparse.ArgumentTypeError(f"{text} is not of the form NAME=VALUE")
    return left, right


async def serve(args: argparse.Namespace) -> None:
    """Serve until a signal comes."""
    broker = args.issuer.replace("/oidc/", "/ga4gh-broker/")
    settings = Settings(
        version=args.version,
        issuer=args.issuer,
        userinfo=f"{args.issuer}userinfo",
        jwks=f"{args.issuer}jwk",
        trusted=[(broker, f"{broker}jwk")],
        instead=dict(args.instead),
        # Who is granted something in LS Login's stand-in sees it at once.
        session_ttl=30,
        userinfo_ttl=5,
    )
    archive = Archive(settings, Virtual())
    for name, folder in args.dataset:
        await archive.content.add_folder(name, Path(folder))
    await archive.start("0.0.0.0", PORT)  # noqa: S104 - in a pod, behind a NetworkPolicy
    logging.info("A stand-in for the archive with %d datasets listens on port %d", len(args.dataset), PORT)
    ended = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    await ended.wait()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(archive.stop(), 5)


def main(argv: list[str]) -> int:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m dev.archive.pod", description=__doc__)
    made.add_argument("--version", type=int, choices=(1, 2), default=2, help="of the download API")
    made.add_argument("--issuer", required=True, help="of tokens, as browsers know it")
    made.add_argument("--instead", type=pair, action="append", default=[], metavar="PUBLIC=INSIDE")
    made.add_argument("--dataset", type=pair, action="append", default=[], metavar="ID=FOLDER")
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(serve(made.parse_args(argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
