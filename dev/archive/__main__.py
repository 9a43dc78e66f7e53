"""Stands in for the Bigpicture archive in development and tests; never what production runs.

``python -m dev.archive``: one archive with the mock dataset, or with folders of yours, until Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dev import dataset
from dev.console import Console, Problem
from dev.rings import environments

if __name__ == "__main__":
    environments.enter(["-m", "dev.archive", *sys.argv[1:]], "aiohttp", "crypt4gh", "cryptography")

from . import Archive, Bucket, Folder, Issuer, Noise, Settings, Storage, Virtual, s3
from .admin import Admin
from .mock import MOCK
from .pod import pair
from .settings import MIB


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(prog="python -m dev.archive", description=__doc__.splitlines()[2])
    made.add_argument(
        "--version", type=int, choices=(1, 2), default=2, help="of the download API (default 2)"
    )
    made.add_argument(
        "--storage", choices=("virtual", "folder", "s3"), default="virtual", help="where bodies lie"
    )
    made.add_argument("--block", type=int, metavar="MIB", help="behave as over S3; 50 is upstream's default")
    made.add_argument("--host", default="127.0.0.1")
    made.add_argument("--port", type=int, default=8100)
    made.add_argument("--admin-port", type=int, help="faults and counters; on this machine alone")
    made.add_argument("--issuer", default="http://login.localhost:8000/oidc/", help="of tokens")
    made.add_argument("--own-issuer", action="store_true", help="run one, print a token for all datasets")
    made.add_argument(
        "--visas", metavar="ISSUER", help="trusted for visas (default: /ga4gh-broker/ beside the issuer)"
    )
    made.add_argument(
        "--instead",
        type=pair,
        action="append",
        default=[],
        metavar="PUBLIC=INSIDE",
        help="reach it elsewhere",
    )
    made.add_argument(
        "--dataset",
        type=pair,
        action="append",
        default=[],
        metavar="ID=FOLDER",
        help="one dataset; without any, the mock dataset",
    )
    made.add_argument(
        "--noise", type=int, metavar="GB", help="a further dataset with one virtual file of this size"
    )
    made.add_argument("--permission-model", default="combined", choices=("ownership", "visa", "combined"))
    return made


def _folders(args: argparse.Namespace, console: Console) -> dict[str, Path]:
    if args.dataset:
        return {name: Path(folder) for name, folder in args.dataset}
    made = dataset.build(console)
    return {name: made / part for name, part in MOCK.items()}


@contextlib.contextmanager
def _storage(args: argparse.Namespace) -> Iterator[Storage]:
    if args.storage == "folder":
        with tempfile.TemporaryDirectory(prefix="archive-") as folder:
            yield Folder(Path(folder))
    elif args.storage == "s3":
        with s3.running() as endpoint:
            yield Bucket(endpoint)
    else:
        yield Virtual()


async def serve(args: argparse.Namespace, folders: dict[str, Path], storage: Storage) -> None:
    """Serve until a signal comes."""
    issuer = Issuer() if args.own_issuer else None
    if issuer:
        args.issuer = await issuer.start()
    broker = args.visas or args.issuer.replace("/oidc/", "/ga4gh-broker/")
    block = args.block * MIB if args.block else 50 * MIB if args.storage == "s3" else None
    settings = Settings(
        version=args.version,
        issuer=args.issuer,
        userinfo=f"{args.issuer}userinfo",
        jwks=f"{args.issuer}jwk",
        trusted=[(broker, f"{broker}jwk")],
        instead=dict(args.instead),
        permission_model=args.permission_model,
        block=block,
    )
    archive = Archive(settings, storage)
    for name, folder in folders.items():
        await archive.content.add_folder(name, folder)
    if args.noise:
        await archive.content.add("aa-Dataset-noise", "noise.bin", Noise(args.noise * 10**9))
    await archive.start(args.host, args.port)
    print(f"A stand-in for the archive, version {args.version} of its API: {archive.url}", flush=True)
    for entry in archive.content.datasets.values():
        print(f"  {entry.id}: {len(entry.files)} files", flush=True)
    if issuer:
        from .issuer import Someone

        petra = Someone("petra@lifescience-ri.eu")
        issuer.grant(petra, *archive.content.datasets)
        print(f"A token that lasts a day: {issuer.token(petra, seconds=86400)}", flush=True)
    admin = Admin(archive)
    if args.admin_port is not None:
        print(f"Faults and counters: {await admin.start('127.0.0.1', args.admin_port)}", flush=True)
    ended = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    await ended.wait()
    for part in (admin, archive, issuer):
        if part:
            await part.stop()
    await storage.close()


def main(argv: list[str]) -> int:
    """Run the command; a failure is one sentence."""
    args = parser().parse_args(argv)
    console = Console()
    try:
        folders = _folders(args, console)
        if missing := [str(folder) for folder in folders.values() if not folder.is_dir()]:
            raise Problem(f"{', '.join(missing)} is no folder", "Name a folder behind each --dataset ID=")
        with _storage(args) as storage:
            asyncio.run(serve(args, folders, storage))
    except OSError as error:
        console.say(f"\nPort {args.port} cannot be used: {error.strerror}. Name another one with --port.")
        return 1
    except Problem as problem:
        console.say(f"\n{problem}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
