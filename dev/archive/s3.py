"""Stands in for the object store behind the Bigpicture archive in development and tests; never what production runs.

It is moto's S3 server, in a virtual environment of its own: what it needs does not fit beside what the tests need. Its
objects are in memory and go with it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from dev import proc, venv
from dev.console import Step

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
    command = [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    env["PYTHONUNBUFFERED"] = "1"
    says = r"Running on (http://127\.0\.0\.1:\d+)"
    with proc.serving(command, "The S3 server", says, timeout=timeout, env=env) as address:
        yield address
