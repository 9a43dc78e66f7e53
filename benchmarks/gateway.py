"""What the gateway costs: tiles and uploads direct, through the gateway, and through the hub's proxy.

python3 -m benchmarks.gateway --user petra                  the running demo; the user's stack must run, with its login
python3 -m benchmarks.gateway --user petra --upload 0       without the uploads
python3 -m benchmarks.gateway --user petra --upload-gb 10   one large upload through the ingress, and nothing else

Tiles come from two servers. "image server" is the stack's own (core asks the image server, which reads and encodes);
"ready tile" is an nginx that always answers with the same tile, so that no slow server hides what stands before it;
before it stands a copy of the stack's gateway, with its login and limits. The ways take turns, and each turn begins
with another one; a ratio is that of one turn, and of the turns the median, the least and the most are told.

Everything runs on this machine, the clients too: they share the processors with what they measure. The hub's proxy is
a pod of its own with the hub's image and limits, whose only target is the server; it checks nobody, which the gateway
does. Somebody must check, so the ready tile is also fetched through that proxy with a gateway behind it, as a stack
under the hub's own address would be. What the benchmark makes is removed at the end, but for one project with one slide.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from benchmarks.common import in_test_environment, keep, spread, table
from benchmarks.gateway_parts import NAMESPACE, Meter, Person, addresses, pods, signed, slide
from benchmarks.load import FORM, Way, tiles, upload
from dev.kube import Kube

PROXY = "through the hub's proxy"
CHECKED = "through the hub's proxy and the gateway"
DIRECT = "direct to the Service"
LOGIN = "through the gateway, as a browser"
KEYS = "through the gateway, as a notebook"
FILE = "gateway-benchmark.bin"


class Bench:
    """One person's stack, measured."""

    def __init__(self, args: argparse.Namespace) -> None:
        from dev import cluster

        self.args = args
        self.kube = Kube(cluster.kubeconfig(), str(cluster.bin() / "kubectl"))
        self.person = Person(args.user, args.port)
        self.services = addresses(self.kube, self.person.stack)
        self.keys = self.person.keys()
        self.paths, self.storage = slide(self.services["internal"], self.keys)

    @contextmanager
    def meter(self) -> Iterator[dict[str, Any]]:
        """The gateway's memory and processor time in the block."""
        meter = Meter(self.kube, self.person.stack)
        meter.read()
        found: dict[str, Any] = {"before": dict(meter.memory)}
        meter.start()
        try:
            yield found
        finally:
            meter.ended.set()
            meter.join()
        found |= {"most": meter.memory, "readings": len(meter.times)}
        found["cpu"] = {name: end - start for name, (start, end) in meter.cpu.items()}

    def turns(self, backend: str, ways: Callable[[], list[Way]]) -> list[dict[str, Any]]:
        """The tiles of all ways; ``ways`` makes them anew, for a session does not last long."""
        found = []
        for clients in self.args.clients:
            made = ways()
            for way in made:  # what is slow at the first time alone
                asyncio.run(tiles(way, self.paths, clients, 1))
            for turn in range(self.args.turns):
                for way in made[turn % len(made) :] + made[: turn % len(made)]:
                    print(
                        f"\r{backend}, {clients} clients, turn {turn + 1}, {way.name:40}", end="", flush=True
                    )
                    load = asyncio.run(tiles(way, self.paths, clients, self.args.seconds))
                    row = {"backend": backend, "clients": clients, "turn": turn, "way": way.name}
                    row |= {"rate": load.rate, "p95": load.p95, "tiles": len(load.seconds)}
                    found.append({**row, "failed": load.failed})
        return found

    def upload(self, way: Way, size: int) -> float:
        """Megabytes per second of one upload; the file is removed again."""
        way = replace(way, headers={**way.headers, **signed(self.keys, "POST", FORM)})
        shown = 0.0

        def told(sent: int) -> None:
            nonlocal shown
            if time.monotonic() - shown > 0.2:
                shown = time.monotonic()
                print(f"\rupload {way.name}: {sent // 10**6} of {size // 10**6} MB   ", end="", flush=True)

        try:
            took = asyncio.run(upload(way, self.storage, size, FILE, told))
        finally:
            self._forget()
            find = ("find", "/data/images", "-name", FILE, "-delete")
            self.kube.kubectl(
                "-n", NAMESPACE, "exec", f"deploy/{self.person.stack}-pims", "-c", "pims", "--", *find
            )
        return size / 1e6 / took

    def _forget(self) -> None:
        import httpx

        host, port = self.services["internal"]
        url = f"http://{host}:{port}/api/uploadedfile"
        files = httpx.get(f"{url}.json", headers=signed(self.keys, "GET"), timeout=60).json()["collection"]
        for file in files:
            if file["originalFilename"] == FILE:
                httpx.delete(f"{url}/{file['id']}.json", headers=signed(self.keys, "DELETE"), timeout=60)

    def all(self) -> dict[str, Any]:
        """Tiles of both servers, and uploads, by all ways."""
        core, pims, public, internal = (self.services[n] for n in ("core", "pims", "public", "internal"))
        with self.meter() as used, pods(self.kube, self.person.stack) as made:
            proxies = {n: made.hub_proxy(n, *self.services[n]) for n in ("core", "pims")}

            def real() -> list[Way]:
                key = signed(self.keys, "GET")
                return [
                    Way(DIRECT, core, (*pims, "/ims/upload"), key),
                    Way(KEYS, internal, (*internal, "/upload"), key),
                    Way(LOGIN, public, (*public, "/upload"), self.person.session()),
                    Way(PROXY, (proxies["core"], 9000), (proxies["pims"], 9000, "/ims/upload"), key),
                ]

            rows = self.turns("image server", real)
            size = self.args.upload * 10**6
            uploads = {way.name: self.upload(way, size) for way in real()} if size else {}
            static = made.static(self._tile())
            (copy, port), proxy = made.copy(static), made.hub_proxy("static", static, 8080)
            before = made.hub_proxy("copy", copy, port)

            def ready() -> list[Way]:
                targets = ((static, 8080), (copy, 8081), (copy, port), (proxy, 9000))
                found = [replace(way, tiles=at) for way, at in zip(real(), targets, strict=True)]
                browser = next(way for way in found if way.name == LOGIN)
                return [*found, replace(browser, name=CHECKED, tiles=(before, 9000))]

            rows += self.turns("ready tile", ready)
        print("\r" + " " * 90 + "\r", end="")
        return {"tiles": rows, "uploads": uploads, "gateway": used}

    def _tile(self) -> bytes:
        import httpx

        host, port = self.services["core"]
        url = f"http://{host}:{port}{self.paths[len(self.paths) // 2]}"
        return httpx.get(url, headers=signed(self.keys, "GET"), timeout=60).content

    def large(self) -> dict[str, Any]:
        """One large upload as a browser sends it, through the ingress."""
        session = self.person.session()
        way = Way("through ingress and gateway", ("", 0), ("127.0.0.1", self.args.port, "/upload"), session)
        with self.meter() as used:
            rate = self.upload(way, int(self.args.upload_gb * 1e9))
        print("\r" + " " * 90 + "\r", end="")
        return {"uploads": {way.name: rate}, "gateway": used}


def ratios(rows: list[dict[str, Any]], backend: str, clients: int, way: str, to: str) -> list[float]:
    """The rates of one way as parts of another's, turn by turn."""
    rate = {
        (r["turn"], r["way"]): r["rate"] for r in rows if (r["backend"], r["clients"]) == (backend, clients)
    }
    return [rate[turn, way] / rate[turn, to] for turn in sorted({turn for turn, _ in rate})]


def lines(numbers: dict[str, Any]) -> list[list[str]]:
    """The table's rows."""
    rows, found = numbers.get("tiles", []), []
    for backend, clients, way in dict.fromkeys((r["backend"], r["clients"], r["way"]) for r in rows):
        mine = [r for r in rows if (r["backend"], r["clients"], r["way"]) == (backend, clients, way)]
        failed = sum((Counter(r["failed"]) for r in mine), Counter[int]())
        found.append(
            [
                f"{backend}, {clients} clients, {way}",
                f"{spread([r['rate'] for r in mine], '.0f')} /s",
                f"{statistics.median(r['p95'] for r in mine):.1f} ms",
                spread(ratios(rows, backend, clients, way, DIRECT), ".0%"),
                ", ".join(f"{n} times {code or 'cut'}" for code, n in failed.items()) or "none",
            ]
        )
    direct = numbers["uploads"].get(DIRECT)
    for name, speed in numbers["uploads"].items():
        found.append(
            [f"upload, {name}", f"{speed:.0f} MB/s", "", f"{speed / direct:.0%}" if direct else "", "none"]
        )
    used = numbers["gateway"]
    for name, most in used["most"].items():
        words = (
            f"{used['before'][name]:.1f} MiB before, {most:.1f} MiB at most, {used['cpu'][name]:.1f} s of CPU"
        )
        found.append([f"container {name}", words, "", "", ""])
    return found


def main() -> None:
    """Measure and print."""
    in_test_environment(["-m", "benchmarks.gateway", *sys.argv[1:]])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--user", default="petra", help="test user whose stack runs (default petra)")
    parser.add_argument("--seconds", type=float, default=1, help="length of each run (default 1)")
    parser.add_argument("--turns", type=int, default=8, help="how often each way is measured (default 8)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64], help="at once (default 1 8 64)")
    parser.add_argument(
        "--upload", type=int, default=2000, help="megabytes of the uploads (default 2000; 0: none)"
    )
    parser.add_argument("--upload-gb", type=float, default=0, help="only one upload of so many gigabytes")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    bench = Bench(args)
    numbers = bench.large() if args.upload_gb else bench.all()
    table("The gateway", ["what", "measured", "p95", "of direct", "failed"], lines(numbers))
    rows = numbers.get("tiles", [])
    for backend in dict.fromkeys(r["backend"] for r in rows):
        at = 8 if 8 in args.clients else args.clients[0]
        direct, proxy = (ratios(rows, backend, at, LOGIN, to) for to in (DIRECT, PROXY))
        print(f"\n{backend}, {at} clients: {spread(direct, '.0%')} of direct (wanted 60% or more),", end=" ")
        print(f"{spread(proxy, '.1f')} times the hub's proxy (wanted 3 or more)")
        if any(r["way"] == CHECKED for r in rows if r["backend"] == backend):
            checked = spread(ratios(rows, backend, at, LOGIN, CHECKED), ".1f")
            print(f"{checked} times the hub's proxy where it has the gateway behind it, which checks")
    print(f"\nMemory is anonymous memory as the kubelet counted it, {numbers['gateway']['readings']} times.")
    print(f"Raw numbers: {keep('gateway', numbers)}")


if __name__ == "__main__":
    main()
