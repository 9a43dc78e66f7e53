"""A Jupyter server with this package's extension as an installed package has it, and the service that it asks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from dev.standin.local import free_port
from tests.support.person import wait

ROOT = Path(__file__).parents[2]
TOKEN = "the-notebook-server's-own"
HUB_TOKEN = "the-notebook's-token-at-the-hub"
BASE = "/user/ann/"
NAME = "cm-ann"


def project() -> dict[str, Any]:
    """What pyproject.toml says."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        from pip._vendor import tomli as tomllib
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return found


def stack(phase: str = "Ready", **more: Any) -> dict[str, Any]:
    """A stack as the service describes it."""
    return {
        "name": NAME,
        "title": "Cytomine",
        "owner": "ann",
        "role": "owner",
        "phase": phase,
        "desiredState": "Hibernated" if phase.startswith("Hibernat") else "Running",
        "message": f"A sentence on {phase}.",
        "ready": "7/7",
        "components": [{"name": "core", "title": "Core"}],
        **more,
    }


class Stacks:
    """The service's REST API with the stacks that a test wants, and its pages."""

    def __init__(self) -> None:
        self.stacks: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not self.path.startswith("/services/cytomine/api/"):
                    self.say(200, f"<title>{self.path}</title>".encode(), "text/html")
                    return
                outer.asked.append(self.path)
                outer.goes_on.wait(60)
                if self.headers["Authorization"] != f"token {HUB_TOKEN}":
                    self.say(403, b'{"message": "Who is this?"}')
                    return
                path = self.path.removeprefix("/services/cytomine/api/")
                found = {f"stacks/{s['name']}": s for s in outer.stacks}
                answer = {"stacks": outer.stacks} if path == "stacks" else found.get(path)
                code = 200 if answer else 404
                self.say(code, json.dumps(answer or {"message": "There is no such stack."}).encode())

            def say(self, code: int, body: bytes, kind: str = "application/json") -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.root}/services/cytomine/"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def environment(self) -> dict[str, str]:
        """What the hub gives the notebook."""
        return {
            "CYTOMINE_SERVICE_URL": self.url,
            "CYTOMINE_STACK": NAME,
            "JUPYTERHUB_API_TOKEN": HUB_TOKEN,
            "JUPYTERHUB_PUBLIC_HUB_URL": f"{self.root}/hub/",
        }

    def close(self) -> None:
        self.goes_on.set()
        self._server.shutdown()
        self._server.server_close()


def put_files(prefix: Path) -> None:
    """Put the files that do not belong to Python where the wheel puts them."""
    for folder, files in project()["tool"]["setuptools"]["data-files"].items():
        (prefix / folder).mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(ROOT / file, prefix / folder)


@contextmanager
def server(folder: Path, environment: dict[str, str], module: str = "jupyter_server") -> Iterator[str]:
    """A server of its own on loopback; its address with the base URL.

    Args:
        folder: for its files.
        environment: beside this process's.
        module: ``jupyter_server`` or ``jupyterlab``.
    """
    put_files(folder / "prefix")
    home = folder / "home"
    home.mkdir()
    port = free_port()
    own = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "CYTOMINE_"))}
    own |= {
        "HOME": str(home),
        "JUPYTER_CONFIG_PATH": str(folder / "prefix" / "etc" / "jupyter"),
        "JUPYTER_PATH": str(folder / "prefix" / "share" / "jupyter"),
        "JUPYTER_TOKEN": TOKEN,
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    command = [sys.executable, "-m", module, "--no-browser", "--allow-root", f"--ServerApp.base_url={BASE}"]
    command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if module == "jupyterlab":
        # It would look outside of this machine for a newer version.
        command += [
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "--LabApp.news_url=None",
        ]
    url = f"http://127.0.0.1:{port}{BASE}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=home, env=own, stdout=log, stderr=subprocess.STDOUT)
    try:

        def serves() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                return httpx.get(f"{url}api", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        wait(serves, "the Jupyter server")
        yield url
    finally:
        process.terminate()
        try:
            # Sometimes it waits for a thread of its own; nothing here is to be kept.
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
