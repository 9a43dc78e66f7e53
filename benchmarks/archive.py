"""Reading slides out of the archive's stand-in: random reads, a slide's thumbnail and tiles, a copy.

python3 -m benchmarks.archive                       all three servers; a slide of 2 GB, a copy of 500 MB
python3 -m benchmarks.archive --slide-gb 0.3 --copy-mb 100 --turns 1

Four ways. "raw" asks the server for ranges of the encrypted file and decrypts nothing: what HTTP can do here at best,
one connection, one request after the other. "sda://" is the library, with an empty cache. "mount" reads a
folder that `sda mount` shows, in a process of its own whose memory and processor time it is told with. "get first" copies
the file with the library and then reads the copy. The slide is a pyramidal TIFF, read by tiffslide: a thumbnail of 1,000 pixels,
then 20 tiles of 512 pixels at random, half of them side by side. Version 1 reads the small slide and half as often,
because it reads all that is before a range.

The servers run in a process of their own on this machine; their files are on its disk. "over S3" is not S3: before each
storage read it waits (--delay), and pulls at a speed (--rate), in blocks of 50 MiB as upstream does. Every measurement is
a fresh process; its memory is how far its peak rose. Requests, bytes moved and bytes pulled are the server's own counts.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes.util
import importlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import in_test_environment, keep, spread, table
from dev import host
from dev.cache import ROOT

MB = 1e6
SEALED, SEGMENT = 65564, 65536
READ = 65536
LATE = (
    "cryptography.hazmat.primitives.asymmetric.x25519",
    "cytomine_spawner.archive",
    "dev.archive",
    "httpx",
    "tiffslide",
)


class Job:
    """One measurement, in a process that was forked for it.

    Args:
        told: what the servers' process said.
        server: name of the server.
        seed: the same for each way of a turn, so that all read the same places.
        folder: its own, for cache and copies.
    """

    def __init__(self, told: dict[str, Any], server: str, seed: int, folder: Path) -> None:
        self.told, self.server, self.folder = told, told["servers"][server], folder
        self.old = self.server["version"] == 1
        self.random = random.Random(seed)
        self.slide = told["files"]["small" if self.old else "slide"]
        self.reads = 20 if self.old else 40

    def http(self) -> Any:
        """A client that keeps its connection."""
        import httpx

        headers = {"Authorization": f"Bearer {self.told['token']}", "SDA-Client-Version": "0.3.0"}
        if self.old:
            from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

            from dev.archive import key_header

            public = X25519PrivateKey.generate().public_key().public_bytes_raw()
            headers["Client-Public-Key"] = key_header(public)
        return httpx.Client(base_url=self.server["url"], headers=headers, timeout=600, verify=False)

    def address(self, file: dict[str, Any]) -> str:
        """Where a file's encrypted bytes are."""
        return f"/s3/{self.told['dataset']}/{file['path']}" if self.old else f"/files/{file['id']}/content"

    def filesystem(self) -> Any:
        """The library, with a cache of its own."""
        from cytomine_spawner.archive import SdaFileSystem

        return SdaFileSystem(
            endpoint=self.server["url"],
            token=lambda: self.told["token"],
            cache_folder=str(self.folder / "cache"),
            skip_instance_cache=True,
        )

    def name(self, file: dict[str, Any]) -> str:
        """A file's path in the library."""
        return f"{self.told['dataset']}/{file['path']}"

    @contextlib.contextmanager
    def mounted(self) -> Iterator[tuple[Path, dict[str, float]]]:
        """The dataset as a folder, while the block runs; then also what its process took."""
        folder, token, found = self.folder / "mounted", self.folder / "token", {}
        token.write_text(self.told["token"])
        token.chmod(0o600)
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cytomine_spawner.archive.cli",
                "mount",
                self.told["dataset"],
                folder,
                "--foreground",
            ],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "SDA_URL": self.server["url"],
                "SDA_TOKEN_FILE": str(token),
                "XDG_CACHE_HOME": str(self.folder / "cache"),
            },
            stderr=subprocess.DEVNULL,
        )
        try:
            while not os.path.ismount(folder):
                if child.poll() is not None:
                    raise ValueError("the archive could not be mounted")
                time.sleep(0.01)
            Path(f"/proc/{child.pid}/clear_refs").write_text("5")
            before, cpu = peak(child.pid), spent(child.pid)
            yield folder, found
            found |= {"memory": peak(child.pid) - before, "cpu": spent(child.pid) - cpu}
        finally:
            child.terminate()
            child.wait(60)

    def places(self) -> list[int]:
        """Where random reads begin, plain bytes."""
        return [self.random.randrange(self.slide["size"] - READ) for _ in range(self.reads)]

    def random_raw(self) -> dict[str, Any]:
        """Random reads: the segments around each place, encrypted."""
        times = []
        with self.http() as http:
            http.get(self.address(self.slide), headers={"Range": "bytes=0-0"})
            for at in self.places():
                first, last = at // SEGMENT * SEALED, ((at + READ - 1) // SEGMENT + 1) * SEALED - 1
                start = time.perf_counter()
                answer = http.get(self.address(self.slide), headers={"Range": f"bytes={first}-{last}"})
                times.append(time.perf_counter() - start)
                answer.raise_for_status()
        return {"times": times}

    def random_sda(self) -> dict[str, Any]:
        """Random reads: the library."""
        with self.filesystem().open(self.name(self.slide)) as file:
            return self._random(file)

    def _random(self, file: Any) -> dict[str, Any]:
        times = []
        file.read(1)
        for at in self.places():
            start = time.perf_counter()
            file.seek(at)
            got = file.read(READ)
            times.append(time.perf_counter() - start)
            if len(got) != READ:
                raise ValueError("a read came short")
        return {"times": times}

    def random_mount(self) -> dict[str, Any]:
        """Random reads: a folder that is mounted."""
        with self.mounted() as (folder, took), (folder / self.slide["path"]).open("rb", buffering=0) as file:
            found = self._random(file)
        return {**found, **took}

    def random_get(self) -> dict[str, Any]:
        """Random reads: the whole file is copied first."""
        path, start = self.folder / "slide.tif", time.perf_counter()
        self.filesystem().get_file(self.name(self.slide), str(path))
        took = time.perf_counter() - start
        with path.open("rb", buffering=0) as file:
            return {**self._random(file), "first": took}

    def _look(self, opened: Any) -> dict[str, Any]:
        """A thumbnail, then tiles."""
        import httpx
        import tiffslide

        start = time.perf_counter()
        with tiffslide.TiffSlide(opened) as slide:
            slide.get_thumbnail((1000, 1000))
            thumbnail = time.perf_counter() - start
            counted = httpx.get(f"{self.server['admin']}/counters", timeout=60).json()["total"]
            width, height = slide.dimensions
            tiles = []
            for number in range(20):
                if number % 2 == 0:
                    x, y = self.random.randrange(width - 1024), self.random.randrange(height - 512)
                else:
                    x += 512
                start = time.perf_counter()
                slide.read_region((x, y), 0, (512, 512))
                tiles.append(time.perf_counter() - start)
        asked = {"first_requests": counted["requests"], "first_reads": counted["reads"]}
        return {"first": thumbnail, "times": tiles, **asked}

    def slide_sda(self) -> dict[str, Any]:
        """A thumbnail and tiles: the library."""
        with self.filesystem().open(self.name(self.slide)) as file:
            return self._look(file)

    def slide_mount(self) -> dict[str, Any]:
        """A thumbnail and tiles: a folder that is mounted."""
        with self.mounted() as (folder, took):
            found = self._look(str(folder / self.slide["path"]))
        return {**found, **took}

    def slide_get(self) -> dict[str, Any]:
        """A thumbnail and tiles: the whole file is copied first."""
        path, start = self.folder / "slide.tif", time.perf_counter()
        self.filesystem().get_file(self.name(self.slide), str(path))
        took = time.perf_counter() - start
        found = self._look(str(path))
        return {**found, "first": found["first"] + took}

    def copy_raw(self) -> dict[str, Any]:
        """A copy: the encrypted file in one request, to the disk."""
        file, start = self.told["files"]["copy"], time.perf_counter()
        with self.http() as http, http.stream("GET", self.address(file)) as answer:
            answer.raise_for_status()
            with (self.folder / "copy").open("wb") as out:
                for piece in answer.iter_raw(1 << 20):
                    out.write(piece)
        return {"rate": file["size"] / MB / (time.perf_counter() - start)}

    def copy_sda(self) -> dict[str, Any]:
        """A copy: the library."""
        file, start = self.told["files"]["copy"], time.perf_counter()
        self.filesystem().get_file(self.name(file), str(self.folder / "copy"))
        took = time.perf_counter() - start
        if (self.folder / "copy").stat().st_size != file["size"]:
            raise ValueError("the copy came short")
        return {"rate": file["size"] / MB / took}

    def copy_mount(self) -> dict[str, Any]:
        """A copy: out of a folder that is mounted."""
        file = self.told["files"]["copy"]
        with self.mounted() as (folder, took):
            start = time.perf_counter()
            with (
                (folder / file["path"]).open("rb", buffering=0) as there,
                (self.folder / "copy").open("wb") as out,
            ):
                shutil.copyfileobj(there, out, 1 << 20)
            rate = file["size"] / MB / (time.perf_counter() - start)
        if (self.folder / "copy").stat().st_size != file["size"]:
            raise ValueError("the copy came short")
        return {"rate": rate, **took}


WORK: dict[str, dict[str, Callable[[Job], dict[str, Any]]]] = {
    "random reads of 64 KiB": {
        "raw": Job.random_raw,
        "sda://": Job.random_sda,
        "mount": Job.random_mount,
        "get first": Job.random_get,
    },
    "thumbnail and 20 tiles": {"sda://": Job.slide_sda, "mount": Job.slide_mount, "get first": Job.slide_get},
    "sequential copy": {"raw": Job.copy_raw, "sda://": Job.copy_sda, "mount": Job.copy_mount},
}


def peak(process: int | str = "self") -> float:
    """The most memory that a process had since the last reset, MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def spent(process: int) -> float:
    """The processor time that a process took, seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def can_mount() -> str:
    """Why nothing can be mounted here; empty where it can, with libfuse found."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened ({error.strerror})"
    if not ctypes.util.find_library("fuse3"):
        found = next(host.unpacked("libfuse3-3", lambda _: None).glob("**/libfuse3.so.3"), None)
        if found is None:
            return "libfuse is missing"
        os.environ["FUSE_LIBRARY_PATH"] = str(found)
    return ""


def forked(work: Callable[[Job], dict[str, Any]], job: Job) -> dict[str, Any]:
    """What the work found in a process of its own, with its memory and processor time."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            Path("/proc/self/clear_refs").write_text("5")
            before, cpu = peak(), time.process_time()
            found = work(job)
            own = {"memory": peak() - before, "cpu": time.process_time() - cpu}
            # Through a mount, the other process's counts: this one is any program.
            found = {**own, **found}
        except BaseException as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        with os.fdopen(write, "w") as out:
            json.dump(found, out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    found = json.loads(text or '{"error": "the process ended"}')
    if "error" in found:
        raise SystemExit(f"\n{found['error']}")
    return dict(found)


@contextlib.contextmanager
def servers(wanted: dict[str, float]) -> Iterator[dict[str, Any]]:
    """The servers, while the block runs."""
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.archive_server", json.dumps(wanted)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdin
    assert child.stdout
    try:
        line = child.stdout.readline()
        if not line:
            raise SystemExit("The servers did not start")
        yield json.loads(line)
    finally:
        child.stdin.close()
        child.wait(60)
        child.stdout.close()


def measure(args: argparse.Namespace, told: dict[str, Any]) -> list[dict[str, Any]]:
    """Every way of every work on every server; the ways take turns, and each turn begins with another one."""
    import httpx

    rows = []
    for server, address in told["servers"].items():
        for work, ways in WORK.items():
            if args.only and args.only not in work:
                continue
            names = [name for name in ways if name != "mount" or not args.without_mount]
            for turn in range(args.turns):
                for way in names[turn % len(names) :] + names[: turn % len(names)]:
                    print(
                        f"\r{server}, {work}, turn {turn + 1}, {way:12}", end="", flush=True, file=sys.stderr
                    )
                    httpx.delete(f"{address['admin']}/counters", timeout=60)
                    folder = Path(tempfile.mkdtemp(prefix="archive-benchmark-"))
                    try:
                        found = forked(ways[way], Job(told, server, turn, folder))
                    finally:
                        shutil.rmtree(folder)
                    counted = httpx.get(f"{address['admin']}/counters", timeout=60).json()["total"]
                    rows.append(
                        {"server": server, "work": work, "way": way, "turn": turn, **found, **counted}
                    )
    print("\r" + " " * 79 + "\r", end="", file=sys.stderr)
    return rows


def line(rows: list[dict[str, Any]], raw: list[dict[str, Any]]) -> list[str]:
    """One row of the table: all turns of one way."""

    def median(name: str) -> float:
        return statistics.median(row[name] for row in rows)

    times = [1000 * t for row in rows for t in row.get("times", [])]
    first = [row["first"] for row in rows if "first" in row]
    each = speed = asked = ""
    if "first_requests" in rows[0]:
        asked = f", {median('first_requests'):.0f} requests, {median('first_reads'):.0f} reads"
    if times:
        each = f"{statistics.median(times):.1f}, p95 {statistics.quantiles(times, n=20)[-1]:.1f}"
    if "rate" in rows[0]:
        speed = spread([row["rate"] for row in rows], ".0f")
    elif "64 KiB" in rows[0]["work"]:
        speed = f"{READ / MB / statistics.mean(times) * 1000:.0f}"
    part = ""
    if raw and rows is not raw:
        if times:
            part = f"{statistics.median(times) / statistics.median([1000 * t for r in raw for t in r['times']]):.2f} x"
        else:
            part = f"{statistics.median(r['rate'] for r in rows) / statistics.median(r['rate'] for r in raw):.2f} x"

    return [
        f"{rows[0]['server']}: {rows[0]['work']}, {rows[0]['way']}",
        f"{spread(first)} s{asked}" if first else "",
        each,
        speed,
        part,
        f"{median('sent') / MB:.1f} MB",
        f"{median('pulled') / MB:.1f} MB",
        f"{median('requests'):.0f}",
        f"{median('reads'):.0f}",
        f"{median('memory'):.0f} MiB",
        f"{median('cpu'):.2f} s",
    ]


def main() -> None:
    """Measure and print."""
    in_test_environment(["-m", "benchmarks.archive", *sys.argv[1:]])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slide-gb", type=float, default=2, help="size of the slide (default 2)")
    parser.add_argument("--copy-mb", type=float, default=500, help="size of the copied file (default 500)")
    parser.add_argument("--turns", type=int, default=3, help="how often each way is measured (default 3)")
    parser.add_argument(
        "--delay", type=float, default=20, help="ms before a storage read over S3 (default 20)"
    )
    parser.add_argument(
        "--rate", type=float, default=400, help="MB/s of a storage read over S3 (default 400)"
    )
    parser.add_argument("--without-mount", action="store_true", help="leave out what needs /dev/fuse")
    parser.add_argument("--only", default="", help="a word of the work to do")
    args = parser.parse_args()
    if not args.without_mount and (why := can_mount()):
        args.without_mount = True
        print(f"Without mounts, as {why}.", file=sys.stderr)
    wanted = {"slide": args.slide_gb * 1e9, "copy": args.copy_mb * MB, "delay": args.delay / 1000}
    with servers({**wanted, "rate": args.rate * MB}) as told:
        # What is imported late would count as a measurement's own time and memory.
        for name in LATE:
            importlib.import_module(name)
        rows = measure(args, told)
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["server"], row["work"], row["way"]), []).append(row)
    lines = [
        line(found, groups.get((server, work, "raw"), [])) for (server, work, _), found in groups.items()
    ]
    sizes = ", ".join(f"{name} {file['size'] / MB:.0f} MB" for name, file in told["files"].items())
    head = [
        "what",
        "first",
        "ms each",
        "MB/s",
        "of raw",
        "moved",
        "pulled",
        "requests",
        "reads",
        "memory",
        "CPU",
    ]
    table(
        f"Reading out of the archive ({sizes}; over S3: {args.delay:.0f} ms, {args.rate:.0f} MB/s)",
        head,
        lines,
    )
    print(
        "\nmoved: bytes of bodies that the server sent; pulled, reads: what it took from its storage for them."
    )
    print("first: until the thumbnail is there; with get first, the copy included.")
    print(f"Raw numbers: {keep('archive', rows)}")


if __name__ == "__main__":
    main()
