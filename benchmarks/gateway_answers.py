"""What taking keys out of core's answers costs: time, processor, memory, and how long others wait meanwhile.

python3 -m benchmarks.gateway_answers          nginx on loopback (the tests', or NGINX_PROGRAM's), no cluster

The gateway's own configuration runs in a real nginx before a server that gives ready answers, in chunks as core does.
Each answer is fetched by a notebook, in a new nginx, while another client asks for ``/healthz`` all the time. "as it is" is
the same answer at an address of which nothing is taken out. The clients share the processors with nginx.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from benchmarks.common import in_test_environment, keep, table
from dev.console import Console
from dev.rings import environments

FILTERED, PLAIN = "/api/user.json", "/api/x.json"


def users(count: int) -> bytes:
    """As core lists a course."""
    return json.dumps(
        [
            {
                "id": n,
                "username": f"{uuid.uuid4().hex}@lifescience-ri.eu",
                "name": f"Zoë {n}",
                "privateKey": str(uuid.uuid4()),
                "publicKey": str(uuid.uuid4()),
            }
            for n in range(count)
        ],
        ensure_ascii=False,
    ).encode()


def outlines(size: int) -> bytes:
    """As core lists commands: long outlines, a key now and then."""
    one = json.dumps(
        {"data": "POLYGON ((" + "12345.5 6789.25, " * 600 + "))", "privateKey": str(uuid.uuid4())}
    )
    return ("[" + ",".join([one] * (size // len(one))) + "]").encode()


ANSWERS = {
    "a course: 500 users": lambda: users(500),
    "40,000 keys": lambda: users(20_000),
    "7.5 MiB of outlines": lambda: outlines(7_500 * 1024),
    "50 MiB of outlines": lambda: outlines(50 * 2**20),
}


def measure(data: bytes, path: str) -> dict[str, Any]:
    """One answer through a new nginx."""
    from tests.support.gateway import running, say

    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as door:
        door.servers["core"].reply = say(data, 200, ("Transfer-Encoding", "chunked"))
        door.internal("/server/ping")
        before, ended, longest = _processor(door.pid), threading.Event(), [0.0]

        def ask() -> None:
            while not ended.wait(0.01):
                began = time.monotonic()
                door.ask(8081, "/healthz")
                longest[0] = max(longest[0], time.monotonic() - began)

        others = threading.Thread(target=ask)
        others.start()
        began = time.monotonic()
        try:
            answer = door.internal(path)
            seconds = time.monotonic() - began
        finally:
            ended.set()
            others.join()
        peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{door.pid}/status").read_text())
        return {
            "refused": b"This answer is too long" in answer.content[-400:],
            "keys": answer.content.count(b'Key": "'),
            "seconds": seconds,
            "processor": _processor(door.pid) - before,
            "waited": longest[0],
            "peak": int(peak[1]) / 1024 if peak else 0.0,
        }


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure, print and keep."""
    in_test_environment(["-m", "benchmarks.gateway_answers", *sys.argv[1:]])
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if "NGINX_PROGRAM" not in os.environ:
        os.environ.update(environments.programs(Console(), {"unit"}))
    rows, kept = [], []
    for title, make in ANSWERS.items():
        data = make()
        for path, way in ((PLAIN, "as it is"), (FILTERED, "keys taken out")):
            found = measure(data, path)
            kept.append({"answer": title, "way": way, "bytes": len(data), **found})
            rows.append(
                (
                    title,
                    f"{len(data) / 2**20:.2f}",
                    "refused" if found["refused"] else way,
                    str(found["keys"]),
                    f"{found['seconds']:.2f}",
                    f"{found['processor']:.2f}",
                    f"{found['waited']:.2f}",
                    f"{found['peak']:.0f}",
                )
            )
    head = (
        "answer",
        "MiB",
        "way",
        "keys shown",
        "s",
        "s of nginx",
        "longest /healthz, s",
        "nginx's peak, MiB",
    )
    table("Answers of core through the gateway", head, rows)
    print(f"\nRaw numbers: {keep('gateway-answers', kept)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
