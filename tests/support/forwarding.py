"""Services of a cluster on this machine's loopback, by ``kubectl port-forward``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

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
            name: "http://" + ends.enter_context(_forward(lab, f"svc/{lab.name}-{name}", port))
            for name, port in components.items()
        }


def _forward(lab: Lab, service: str, port: int) -> AbstractContextManager[str]:
    return proc.serving(
        [lab.kube.kubectl_path, "-n", lab.namespace, "port-forward", service, f":{port}"],
        f"The way to {service}",
        r"Forwarding from (127\.0\.0\.1:\d+)",
        timeout=30,
        env={**os.environ, **lab.kube.env},
    )
