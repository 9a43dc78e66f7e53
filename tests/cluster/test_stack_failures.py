"""Each way in which a stack may fail, provoked on real pods: its reason is said while the notebook's start goes on."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from tests.support.failing import CASES


@pytest.mark.parametrize("cause", CASES)
def test_a_failure_says_its_cause_soon_after_kubernetes_knows_it(
    provoked: dict[str, Future[None]], cause: str
) -> None:
    provoked[cause].result()
