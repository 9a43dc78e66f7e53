"""Running the notebooks that teach in somebody's notebook pod, as papermill does it there."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.lab import Lab
from tests.support.notebooks import result

# Where the executed copies are kept to be looked at.
OUT = "NOTEBOOKS_OUT"
FOLDER = "/tmp/notebooks"
PAPERMILL = """
import json, pathlib, resource, subprocess, sys, time
folder, name, timeout = pathlib.Path({folder!r}), {name!r}, {timeout}
(folder / "out").mkdir(parents=True, exist_ok=True)
(folder / name).write_text(sys.stdin.read())
command = [sys.executable, "-m", "papermill", str(folder / name), str(folder / "out" / name), "--no-progress-bar"]
command += ["-k", "python3", "--cwd", str(folder / "out"), "--execution-timeout", str(timeout)]
start = time.monotonic()
done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
# Of the largest process, which is the kernel.
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
said = {{"code": done.returncode, "said": done.stderr[-3000:], "seconds": time.monotonic() - start, "peak": peak}}
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Executed:
    """An executed notebook.

    Attributes:
        result: what it printed last.
        seconds: how long it took.
        peak_mib: the largest memory of its kernel.
    """

    result: dict[str, Any]
    seconds: float
    peak_mib: float


def snippets(page: Path, language: str) -> str:
    """What a page of the documentation shows in a language, one block after the other."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks, f"{page} shows no {language}"
    return "\n".join(blocks)


def execute(lab: Lab, path: Path, timeout: int = 420) -> Executed:
    """Run a notebook from top to bottom in the pod, with its own parameters.

    Args:
        lab: whose pod.
        path: the notebook.
        timeout: seconds.

    Raises:
        AssertionError: a cell failed, with the last lines that papermill said.
    """
    code = PAPERMILL.format(folder=FOLDER, name=path.name, timeout=timeout)
    said = lab.inside("python", "-c", code, stdin=path.read_text(), timeout=timeout + 30)
    done = json.loads(said.strip().splitlines()[-1])
    copy = lab.inside("cat", f"{FOLDER}/out/{path.name}", timeout=60)
    if kept := os.environ.get(OUT):
        folder = Path(kept)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_text(copy)
    assert done["code"] == 0, f"{path.name}: {done['said']}"
    return Executed(result(json.loads(copy)["cells"]), done["seconds"], done["peak"])
