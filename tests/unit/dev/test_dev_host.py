"""Debian packages of this machine."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dev import host
from dev.console import Problem

# Like apt, it fails where another one is at work.
APT = """#!/bin/sh
mkdir "$APT_LOCK" || { echo "E: Could not get lock"; exit 100; }
sleep 0.2
echo "$*" >> "$APT_LOG"
rmdir "$APT_LOCK"
"""


@pytest.fixture
def apt_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get of our own before the machine's; the file has its command lines."""
    program = tmp_path / "bin" / "apt-get"
    program.parent.mkdir()
    program.write_text(APT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CYTOMINE_SPAWNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("APT_LOCK", str(tmp_path / "lock"))
    monkeypatch.setenv("APT_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path / "log"


def test_builds_side_by_side_install_one_after_the_other(apt_log: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(host.install, [name], lambda _: None) for name in ("first", "second")]:
            job.result()
    installs = [line.split()[-1] for line in apt_log.read_text().splitlines() if " install " in f" {line} "]
    assert sorted(installs) == ["first", "second"]


def test_only_what_is_missing_is_named(tmp_path: Path) -> None:
    assert host.missing({"sh": "dash", str(tmp_path): "here", str(tmp_path / "no"): "gone"}) == ["gone"]


def test_without_root_the_command_to_run_is_said(apt_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Problem, match="Run apt-get install buildah as root"):
        host.install(["buildah"], lambda _: None)
    assert not apt_log.exists()
