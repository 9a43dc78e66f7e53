"""Stands in for the object store behind the Bigpicture archive in development and tests; never what production runs.

It is moto's S3 server, in a virtual environment of its own: what it needs does not fit beside what the tests need. Its
objects are in memory and go with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Iterator

from dev import venv
from dev.console import Problem, Step

REQUIREMENTS = ["moto[s3,server]==5.2.5"]


@contextlib.contextmanager
def running(step: Step | None = None, timeout: float = 60) -> Iterator[str]:
    """Run it on a free port of this machine, and yield its address.

    Args:
        step: told what is installed.
        timeout: seconds that it may take to start.

    Raises:
        Problem: it did not start.
    """
    python = venv.ensure("s3", REQUIREMENTS, [], step)
    # Nothing of this environment may lead it to a real store.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHONPATH"))}
    child = subprocess.Popen(
        [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        env={**env, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    late = threading.Timer(timeout, child.kill)
    late.start()
    lines: list[str] = []
    reader = None
    assert child.stdout
    try:
        for line in child.stdout:
            lines.append(line)
            if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", line):
                break
        else:
            said = lines[-1].strip() if lines else f"it did not start within {timeout:.0f} s"
            raise Problem(f"The S3 server did not start: {said}", "Mend the cause and run the command again")
        late.cancel()
        # Somebody must read on, or a full pipe stops the server.
        reader = threading.Thread(target=child.stdout.read, daemon=True)
        reader.start()
        yield found[1]
    finally:
        late.cancel()
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if reader:
            reader.join()
        child.stdout.close()
