"""The idle culler as the hub starts it: its token is in no line of the log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dev.cache import ROOT

CULLER = ROOT / "hub_config" / "culler.py"


def test_a_call_that_fails_is_logged_without_the_token(tmp_path: Path) -> None:
    # In the place of the real one: a call that fails, as Tornado logs it.
    (tmp_path / "jupyterhub_idle_culler.py").write_text(
        "import functools, logging, os\n"
        "def main():\n"
        "    logging.basicConfig()\n"
        "    call = functools.partial(print, url='http://hub/hub/api', api_token=os.environ['JUPYTERHUB_API_TOKEN'])\n"
        "    logging.getLogger('tornado.application').error('Exception in callback %r', call)\n"
        "    logging.error('%d', 'no number')\n"
    )
    env = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "JUPYTERHUB_API_TOKEN": "hunter2-of-the-culler",
    }
    ran = subprocess.run(
        [sys.executable, CULLER], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert "Exception in callback functools.partial(" in ran.stderr
    assert "api_token='[secret]'" in ran.stderr
    assert "hunter2" not in ran.stderr


def test_it_is_the_real_culler() -> None:
    env = {**os.environ, "JUPYTERHUB_API_TOKEN": "x"}
    said = subprocess.run(
        [sys.executable, CULLER, "--help"], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert "--cull-every" in said.stdout
