"""Room on the node for a second stack of Cytomine's own servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dev.demo.install import Installed
from tests.support.lab import Lab


@contextmanager
def room(hub: Installed) -> Iterator[None]:
    """Have the kept stack sleep meanwhile: a small node has no room for two."""
    kept = Lab(hub, "petra")
    if not kept.is_ready():
        yield
        return
    kept.person.stop()
    kept.hibernate()
    try:
        yield
    finally:
        kept.start(cytomine=True)
        kept.wait_ready()
