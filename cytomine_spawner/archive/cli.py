"""The command ``sda``: what is in the archive, and copies of it."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

from fsspec.asyn import sync

from .download import checksum_of, digest_of, download
from .errors import ArchiveError, EmptyArchive, TokenRefused
from .filesystem import CACHE, SdaFileSystem

HOUR = 3600.0
STEP = 5.0  # between two looks for another token, in seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; say on the error output what went wrong.

    Returns:
        0, or 1 if something failed.
    """
    options = _parser().parse_args(argv)
    options.arguments = sys.argv[1:] if argv is None else list(argv)
    warnings.simplefilter("ignore", EmptyArchive)  # said as this command's own words
    try:
        fs = SdaFileSystem(
            options.url,
            token_file=options.token_file,
            allow_http=options.allow_http,
            patience=options.patience,
            issuer=options.issuer,
            skip_instance_cache=True,
            # What is copied whole is read once.
            cache_size=CACHE if options.cached else 0,
        )
        return int(options.run(fs, options))
    except BrokenPipeError:
        return 1  # whoever read the output has enough
    except (OSError, ValueError) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        _say("stopped. What came stays: the same command goes on from there.")
        return 130


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", help="the archive's address; else SDA_URL, else Bigpicture's")
    common.add_argument(
        "--token-file", help="file with the token, or the login portal's s3cmd.conf; else SDA_TOKEN_FILE"
    )
    common.add_argument(
        "--allow-http", action="store_true", help="let the token travel unencrypted to another machine"
    )
    common.add_argument("--issuer", help="who issues tokens, to explain an empty list; else LS Login")
    common.add_argument(
        "--patience", type=float, default=120, help="seconds to go on trying while nothing comes"
    )
    parser = argparse.ArgumentParser(
        prog="sda",
        description="Reads a sensitive data archive, such as Bigpicture's. Paths are sda://DATASET/PATH.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str, run: Callable[[SdaFileSystem, Any], int]) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=[common])
        made.set_defaults(run=run, cached=False)
        return made

    add("datasets", "list the datasets that your visas grant", _datasets)
    made = add("ls", "list a dataset or a folder", _ls)
    made.add_argument("path", nargs="?", default="")
    made.add_argument("-l", "--long", action="store_true", help="with sizes in bytes")
    made.add_argument("-r", "--recursive", action="store_true", help="with all that is below")
    add("stat", "show what the archive knows of a file", _stat).add_argument("path")
    made = add("cat", "write a file to the output, decrypted", _cat)
    made.add_argument("path")
    made.add_argument("--offset", type=int, default=0, help="first byte; negative counts from the end")
    made.add_argument("--length", type=int, help="how many bytes; all if left out")
    made = add("get", "copy a file, a folder or a dataset; goes on where it was cut", _get)
    made.add_argument("path")
    made.add_argument("target", nargs="?", type=Path, default=Path(), help="a folder, or a file's new name")
    made.set_defaults(patience=HOUR)
    made = add("verify", "compare checksums with the archive's", _verify)
    made.add_argument("path")
    made.add_argument("local", nargs="?", type=Path, help="the copy; what is in the archive if left out")
    made.add_argument(
        "--encrypted", action="store_true", help="what is in the archive, as it is encrypted there"
    )
    made = add("mount", "show a dataset, or all, as a folder to read from", _mount)
    made.add_argument("path", help="a dataset or a folder in it; / for all datasets")
    made.add_argument("folder", type=Path, help="an empty folder, or a new one")
    made.add_argument(
        "--foreground", action="store_true", help="stay until Ctrl-C or a signal, and unmount then"
    )
    made.add_argument(
        "--allow-other", action="store_true", help="let other users of this machine read it, too"
    )
    made.set_defaults(cached=True)
    return parser


def _datasets(fs: SdaFileSystem, options: Any) -> int:  # noqa: ARG001
    found = fs.datasets()
    for name in found:
        _print(name)
    if not found:
        _say(fs.explain())
        return 1
    return 0


def _ls(fs: SdaFileSystem, options: Any) -> int:
    path = fs._strip_protocol(options.path)
    entries = list(fs.find(path, detail=True).values()) if options.recursive else fs.ls(path)
    for entry in sorted(entries, key=lambda e: str(e["name"])):
        name = entry["name"] + ("/" if entry["type"] == "directory" else "")
        _print(f"{entry['size'] or 0:>15} {name}" if options.long else name)
    if not entries:
        _say(fs.explain() if not path else f"{path} has no files.")
        return 1
    return 0


def _stat(fs: SdaFileSystem, options: Any) -> int:
    entry = dict(fs.info(options.path))
    if entry["type"] == "file":
        entry["encrypted_checksum"] = sync(fs.loop, fs._encrypted_checksum, options.path)
    for key, value in entry.items():
        if value is not None:
            _print(f"{key.replace('_', ' ')}: {value}")
    return 0


def _cat(fs: SdaFileSystem, options: Any) -> int:
    out = sys.stdout.buffer
    reader = sync(fs.loop, fs._reader_for, options.path)
    size = reader.size
    start = max(0, size + options.offset) if options.offset < 0 else min(options.offset, size)
    left = size - start if options.length is None else max(0, min(options.length, size - start))

    async def copy() -> None:
        nonlocal left
        async with aclosing(reader.stream(start)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(out.write, piece[:left])
                left -= min(left, len(piece))
                if not left:
                    return

    if left:
        sync(fs.loop, copy)
    out.flush()
    return 0


def _get(fs: SdaFileSystem, options: Any) -> int:
    path = fs._strip_protocol(options.path)
    pairs = _pairs(fs, path, options.target)
    total = sum(int(entry["size"] or 0) for entry, _ in pairs)
    failed = []
    with _bar(total, len(pairs)) as (tell, name):
        for entry, target in pairs:
            name(target.name)
            try:
                _with_a_token(lambda: _get_one(fs, entry, target, tell), options.patience)  # noqa: B023 - called here
            except TokenRefused:
                raise  # of no use to the others either
            except (OSError, ValueError) as error:
                failed.append(str(error))
                _say(str(error))
    if failed:
        _say(f"{len(failed)} of {len(pairs)} files did not come: the same command tries them again.")
    return 1 if failed else 0


def _with_a_token(work: Callable[[], None], patience: float) -> None:
    """Do something; where the token ended, wait for another in its file."""
    end: float | None = None
    while True:
        try:
            work()
        except TokenRefused as error:  # noqa: PERF203 - the loop is the wait
            now = time.monotonic()
            if end is None:
                end = now + patience
                _say(f"{error} Waiting for another token, for {patience:.0f} s at most.")
            if now + STEP > end:
                raise
            time.sleep(STEP)
        else:
            return


def _get_one(fs: SdaFileSystem, entry: dict[str, Any], target: Path, tell: Callable[[int], object]) -> None:
    reader = sync(fs.loop, fs._reader_for, entry["name"])
    if target.exists():
        if target.stat().st_size != reader.size:
            raise ArchiveError(
                f"{target} is there already and has another size: move it away, and get the file again."
            )
        tell(reader.size)
        return
    sync(fs.loop, download, reader, target, tell)


def _pairs(fs: SdaFileSystem, path: str, target: Path) -> list[tuple[dict[str, Any], Path]]:
    """What to copy, and where to."""
    entry = fs.info(path)
    # As lists have it: what was typed may have been encoded otherwise.
    path = str(entry["name"])
    name = path.rpartition("/")[2]
    if entry["type"] == "file":
        return [(entry, target / name if target.is_dir() else target)]
    if not path:
        raise ArchiveError("Name a dataset: 'sda datasets' lists them.")
    found = fs.find(path, detail=True)
    return [(one, target / name / one["name"].removeprefix(f"{path}/")) for one in found.values()]


def _mount(fs: SdaFileSystem, options: Any) -> int:
    from .mount import detach, serve

    path, folder = fs._strip_protocol(options.path).strip("/"), options.folder.absolute()
    if options.foreground:
        serve(fs, path, folder, _say, options.allow_other)
        return 0
    detach([*options.arguments, "--foreground"], folder)
    _print(f"{folder} shows {path or 'your datasets'}. End it by: fusermount3 -u {folder}")
    return 0


def _verify(fs: SdaFileSystem, options: Any) -> int:
    path = fs._strip_protocol(options.path)
    pairs: Sequence[tuple[dict[str, Any], Path | None]]
    if options.local is None:
        entry = fs.info(path)
        found = [entry] if entry["type"] == "file" else list(fs.find(path, detail=True).values())
        pairs = [(one, None) for one in found]
    else:
        pairs = _pairs(fs, path, options.local)
    bad = unknown = 0
    with _bar(sum(int(one["size"] or 0) for one, _ in pairs), len(pairs)) as (tell, name):
        for one, local in pairs:
            name(one["name"].rpartition("/")[2])
            wanted = (
                sync(fs.loop, fs._encrypted_checksum, one["name"]) if options.encrypted else one["checksum"]
            )
            if wanted is None:
                unknown += 1
                _print(f"unknown {one['name']}")
                continue
            try:
                if local is None:
                    seen = sync(fs.loop, _streamed, fs, one["name"], wanted, options.encrypted, tell)
                else:
                    seen = checksum_of(local, wanted, tell)
            except OSError as error:
                seen = ""
                _say(str(error))
            bad += seen != wanted
            _print(f"{'good' if seen == wanted else 'BAD'} {one['name']}")
    if bad:
        _say(f"{bad} of {len(pairs)} files are not what the archive says: get them again.")
    if unknown:
        _say(f"For {unknown} of {len(pairs)} files the archive has no such checksum.")
    return 1 if bad or unknown else 0


async def _streamed(
    fs: SdaFileSystem, path: str, wanted: str, encrypted: bool, tell: Callable[[int], object]
) -> str:
    """The checksum of what is in the archive."""
    reader = await fs._reader_for(path)
    digest = digest_of(wanted)
    async with aclosing(await reader.encrypted() if encrypted else reader.stream()) as pieces:
        async for piece in pieces:
            await asyncio.to_thread(digest.update, piece)
            tell(len(piece))
    return f"{digest.name}:{digest.hexdigest()}"


@contextmanager
def _bar(total: int, files: int) -> Iterator[tuple[Callable[[int], object], Callable[[str], object]]]:
    """A progress bar where somebody looks: what to call with bytes, and with the file's name."""
    from tqdm import tqdm

    with tqdm(
        total=total, unit="B", unit_scale=True, unit_divisor=1024, disable=None, file=sys.stderr
    ) as bar:
        done = 0

        def name(text: str) -> None:
            nonlocal done
            done += 1
            bar.set_description(f"{done}/{files} {text[:40]}")

        yield bar.update, name


def _print(line: str) -> None:
    sys.stdout.write(f"{_one_line(line)}\n")


def _say(line: str) -> None:
    sys.stderr.write(f"sda: {_one_line(line)}\n")


def _one_line(text: str) -> str:
    """A text that a terminal shows as it is: what an archive says could else move its cursor, or look like another line."""
    return "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in text)


if __name__ == "__main__":
    sys.exit(main())
