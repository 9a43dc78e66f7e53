"""What the tests do at an API server of their own."""

from __future__ import annotations

import subprocess

from tests.support.apiserver import define_stacks


def test_a_definition_of_this_very_moment_is_waited_for() -> None:
    codes = {"apply": iter([0]), "wait": iter([1, 1, 0])}
    asked: list[str] = []

    def kubectl(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        asked.append(args[0])
        code = next(codes[args[0]])
        assert code == 0 or not check
        return subprocess.CompletedProcess(args, code, "", "accessor error: <nil>")

    define_stacks(kubectl)
    assert asked == ["apply", "wait", "wait", "wait"]
