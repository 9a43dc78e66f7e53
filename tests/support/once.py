"""What the processes of one run of tests share: what is made once, by whoever comes first."""

from __future__ import annotations

import fcntl
import pickle
from collections.abc import Callable
from typing import TypeVar

import pytest

from tests.support.together import base

T = TypeVar("T")


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[], T]) -> T:
    """What ``make`` returns, called by one process of the run; the others wait and get the same.

    A failure is everybody's: who comes later does not try again what takes minutes to fail.

    Args:
        factory: pytest's.
        name: of what is made, for a file.
        make: makes it; it can be pickled.
    """
    place = base(factory) / name
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            try:
                found = (True, make())
            except Exception as error:
                found = (False, f"{type(error).__name__}: {error}")
                place.write_bytes(pickle.dumps(found))
                raise
            place.write_bytes(pickle.dumps(found))
    good, value = pickle.loads(place.read_bytes())
    if not good:
        pytest.fail(f"another process of this run could not make {name}: {value}", pytrace=False)
    return value  # type: ignore[no-any-return]
