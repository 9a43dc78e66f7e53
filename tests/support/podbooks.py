"""Running the notebooks that teach in somebody's notebook pod, as papermill does it there."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import recorder
from tests.support.lab import Lab
from tests.support.notebooks import result

# Where the executed copies are kept to be looked at.
OUT = "NOTEBOOKS_OUT"
FOLDER = "/tmp/notebooks"
PAPERMILL = """
import json, os, pathlib, resource, subprocess, sys, time
folder, name, timeout, recorder = pathlib.Path({folder!r}), {name!r}, {timeout}, {recorder!r}
(folder / "out").mkdir(parents=True, exist_ok=True)
env, seen = dict(os.environ), folder / "requests.txt"
if recorder:
    seen.write_text("")
    (folder / "recorder").mkdir(exist_ok=True)
    (folder / "recorder" / "sitecustomize.py").write_text(recorder)
    before = [env["PYTHONPATH"]] if env.get("PYTHONPATH") else []
    env |= {{"PYTHONPATH": os.pathsep.join([str(folder / "recorder"), *before]), "REQUESTS_SEEN": str(seen)}}
(folder / name).write_text(sys.stdin.read())
command = [sys.executable, "-m", "papermill", str(folder / name), str(folder / "out" / name), "--no-progress-bar"]
command += ["-k", "python3", "--cwd", str(folder / "out"), "--execution-timeout", str(timeout)]
start = time.monotonic()
done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env)
# Of the largest process, which is the kernel.
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
said = {{"code": done.returncode, "said": done.stderr[-3000:], "seconds": time.monotonic() - start, "peak": peak}}
said["requests"] = seen.read_text().splitlines() if recorder else []
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Executed:
    """An executed notebook.

    Attributes:
        result: what it printed last.
        seconds: how long it took.
        peak_mib: the largest memory of its kernel.
        requests: method, status and address of each kind of request that it made, where that was asked for.
    """

    result: dict[str, Any]
    seconds: float
    peak_mib: float
    requests: tuple[tuple[str, int, str], ...] = ()


def snippets(page: Path, language: str) -> str:
    """What a page of the documentation shows in a language, one block after the other."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks, f"{page} shows no {language}"
    return "\n".join(blocks)


def execute(lab: Lab, path: Path, timeout: int = 420, *, noted: bool = False) -> Executed:
    """Run a notebook from top to bottom in the pod, with its own parameters.

    Args:
        lab: whose pod.
        path: the notebook.
        timeout: seconds.
        noted: whether to note its requests.

    Raises:
        AssertionError: a cell failed, with the last lines that papermill said.
    """
    text = Path(recorder.__file__).read_text() if noted else ""
    code = PAPERMILL.format(folder=FOLDER, name=path.name, timeout=timeout, recorder=text)
    said = lab.inside("python", "-c", code, stdin=path.read_text(), timeout=timeout + 30)
    done = json.loads(said.strip().splitlines()[-1])
    copy = lab.inside("cat", f"{FOLDER}/out/{path.name}", timeout=60)
    if kept := os.environ.get(OUT):
        folder = Path(kept)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_text(copy)
    assert done["code"] == 0, f"{path.name}: {done['said']}"
    asked = tuple((m, int(s), url) for m, s, url in (line.split(" ", 2) for line in done["requests"]))
    return Executed(result(json.loads(copy)["cells"]), done["seconds"], done["peak"], asked)
