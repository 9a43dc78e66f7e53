"""Services of a cluster on this machine's loopback, by ``kubectl port-forward``."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from dev import proc
from tests.support.lab import Lab


@contextmanager
def forwarded(lab: Lab, components: dict[str, int]) -> Iterator[dict[str, str]]:
    """The addresses of a stack's components, until the block ends.

    Args:
        lab: whose stack it is.
        components: each one's port.
    """
    with ExitStack() as ends:
        yield {
            name: ends.enter_context(_forward(lab, ["port-forward", f"svc/{lab.name}-{name}", f":{port}"]))
            for name, port in components.items()
        }


@contextmanager
def _forward(lab: Lab, arguments: Sequence[str]) -> Iterator[str]:
    process = subprocess.Popen(
        [lab.kube.kubectl_path, "-n", lab.namespace, *arguments],
        env={**proc.os.environ, **lab.kube.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    try:
        said = process.stdout.readline()
        found = re.search(r"Forwarding from (127\.0\.0\.1:\d+)", said)
        assert found, said
        # It says a line for each connection, and waits for somebody to read them.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield f"http://{found[1]}"
    finally:
        process.terminate()
        process.wait(30)
