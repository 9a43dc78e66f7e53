"""Forked processes of the tests: they are ended as often as somebody asks."""

import signal
import subprocess
import sys
from types import SimpleNamespace

from tests.support.prefork import Forked


def test_a_process_whose_end_was_not_said_yet_is_ended_in_silence() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    # What multiprocessing knows between the forkserver's reaping of a process and its message.
    forked = Forked(SimpleNamespace(pid=gone.pid, exitcode=None))

    forked.send_signal(signal.SIGTERM)
    forked.terminate()
    forked.kill()
