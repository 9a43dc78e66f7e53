"""A plugin of pytest: less looking for garbage, which took an eighth of what files of the unit ring computed.

Modules, tests and their reports are hundreds of thousands of objects that stay to the end; Python would look through them
again and again while more come. What the tests themselves leave in circles is still found, only later.
"""

from __future__ import annotations

import gc

# Objects that are new before Python looks through the new ones, and how often before it looks through older ones, too.
THRESHOLD = (50_000, 20, 100)

gc.set_threshold(*THRESHOLD)


def pytest_collection_finish() -> None:
    """Look no more at what there is: it stays as long as the tests run."""
    gc.freeze()
