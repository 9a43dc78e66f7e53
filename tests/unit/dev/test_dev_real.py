"""The command that tries Cytomine's own servers."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from dev import host
from dev.real import __main__ as command


def test_a_machine_that_never_had_a_browser_gets_one_before_the_tests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[Any] = []
    monkeypatch.setattr(host, "need", lambda console, packages, *_: done.append(packages))

    def run(argv: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        done.append(argv[1:3])
        return subprocess.CompletedProcess(argv, 0)

    monkeypatch.setattr(subprocess, "run", run)
    assert command.main(["/images"]) == 0
    assert done == [host.BROWSER, ["-m", "pytest"]]
