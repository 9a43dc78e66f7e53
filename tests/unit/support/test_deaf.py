"""The launcher of the tests' browsers: it hears of no pod that comes or goes, and of all else."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import deaf

ASK = """
import errno, socket, sys
socket.socket().close()
socket.socket(socket.AF_UNIX).close()
refused = False
try:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()
except OSError as error:
    refused = error.errno == errno.EAFNOSUPPORT
print(refused, sys.argv[1:])
"""
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {ASK!r}, *sys.argv[1:]])"


@pytest.mark.parametrize("code", [ASK, CHILD], ids=["itself", "its children"])
def test_a_program_has_no_socket_that_tells_of_interfaces_and_has_all_others(
    tmp_path: Path, code: str
) -> None:
    script = deaf.launcher(tmp_path, sys.executable)
    command = [script, "-S", "-c", code, "two words", "$HOME"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    # Elsewhere the call's number is not known, and the program has all sockets.
    known = platform.machine() in ("x86_64", "aarch64")
    assert done.stdout == f"{known} ['two words', '$HOME']\n", done.stderr
