"""What a command prints while it works."""

from __future__ import annotations

import io

import pytest

from dev.console import Console, Problem


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Problem("There is no room", "Make some"), "  There is no room. Make some.\n"),
        (IndexError("list index out of range"), "  IndexError: list index out of range\n"),
    ],
)
def test_a_step_that_fails_says_why_at_once(error, said):
    """Other steps may go on for minutes before the command ends with the sentence."""
    stream = io.StringIO()
    with pytest.raises(type(error)), Console(stream).step("Image hub"):
        raise error
    mark, why = stream.getvalue().splitlines(keepends=True)
    assert mark.startswith("✗ Image hub  ")
    assert why == said


def test_a_step_that_ends_well_prints_one_line():
    stream = io.StringIO()
    with Console(stream).step("Image hub") as step:
        step.note = "81 MB"
    assert stream.getvalue().startswith("✓ Image hub (81 MB)  ")
    assert stream.getvalue().count("\n") == 1
