"""How much is tried where something holds for whatever comes: a little in each run, all with ``./test --thorough``."""

from __future__ import annotations

import os

# Set by ``./test --thorough``.
THOROUGH = os.environ.get("CYTOMINE_TEST_THOROUGH") == "1"


def examples(many: int) -> int:
    """How many examples are tried.

    Args:
        many: as many as a thorough run tries.
    """
    return many if THOROUGH else max(10, many // 6)
