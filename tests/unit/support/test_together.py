"""What the processes of one run of tests use together is started once and ended after the last, however that ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dev.wait import until
from tests.support.together import ROOT, together


def start(folder: Path) -> None:
    with (folder / "log").open("a") as log:
        log.write("started ")


def end(folder: Path) -> None:
    with (folder / "log").open("a") as log:
        log.write("ended ")


def said(folder: Path) -> str:
    return (folder / "log").read_text()


def test_the_first_starts_it_and_the_last_ends_it(tmp_path):
    with together(tmp_path, start, end):
        with together(tmp_path, start, end):
            assert said(tmp_path) == "started "
        assert said(tmp_path) == "started "
    assert said(tmp_path) == "started ended "
    with together(tmp_path, start, end):
        assert said(tmp_path) == "started ended started "
    assert said(tmp_path) == "started ended started ended "


def test_what_could_not_be_started_is_tried_by_the_next(tmp_path):
    def fail(_):
        raise OSError

    try:
        with together(tmp_path, fail, end):
            raise AssertionError("it was used")
    except OSError:
        pass
    with together(tmp_path, start, end):
        assert said(tmp_path).endswith("started ")


def test_processes_that_are_killed_leave_nothing_running(tmp_path):
    program = (
        "import sys; from pathlib import Path; from tests.unit.support.test_together import *\n"
        "with together(Path(sys.argv[1]), start, end): print('there', flush=True); sys.stdin.read()"
    )
    users = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        assert [user.stdout.readline() for user in users] == ["there\n", "there\n"]
        users[0].kill()
        users[0].wait()
        assert said(tmp_path) == "started "
    finally:
        for user in users:
            user.kill()
            user.communicate()
    until(lambda: said(tmp_path) == "started ended ", "the keeper to end it", 60, cure="Look at it")
