"""The notebooks that teach: their files, and running them against a stack of stand-ins on loopback.

Without a cluster, in an environment that has the package's extras ``notebook``, ``analysis``, ``stacks`` and ``test``::

    python -m tests.support.notebooks --dataset FOLDER --out FOLDER [NAME...]

runs notebooks whose names begin so, or all of them, in one fresh stack, and writes the executed copies. FOLDER of the
dataset is made by ``python -m dev.dataset FOLDER``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import requests

from tests.support.standin import local_stack

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
RESULT = "RESULT "
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
MEMORY_MIB = 1536


def paths() -> list[Path]:
    """The notebooks, in their order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def clean(path: Path) -> str:
    """A notebook as it is kept: no outputs, no counts, nothing that depends on who ran it."""
    book = nbformat.read(path, 4)
    for cell in book.cells:
        kept = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    book.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    return nbformat.writes(book, 4) + "\n"


def result(output: str | list[dict[str, Any]]) -> dict[str, Any]:
    """The key results that a notebook printed last.

    Args:
        output: the cells of an executed notebook, or what was printed.

    Raises:
        AssertionError: there is no such line.
    """
    if not isinstance(output, str):
        output = "\n".join(
            "".join(o.get("text", ""))
            for c in output
            for o in c.get("outputs", [])
            if o.get("name") == "stdout"
        )
    lines = [line for line in output.splitlines() if line.startswith(RESULT)]
    assert lines, "the notebook printed no line with its results"
    found: dict[str, Any] = json.loads(lines[-1].removeprefix(RESULT))
    return found


@contextlib.contextmanager
def stack(folder: Path, dataset: Path | None) -> Iterator[Path]:
    """A stack on loopback with the mock dataset in it; gives the folder of its connection."""
    from cytomine_spawner.datasets.importer import import_datasets

    with local_stack(folder) as (local, issuer):
        head = {"Authorization": f"Bearer {issuer.token('alice', 'ADMIN')}"}
        keys = requests.get(f"{local.url}/api/user/current/keys", headers=head, timeout=10).json()
        connection = folder / "connection"
        connection.mkdir()
        for name, text in (
            ("host", local.url),
            ("public-key", keys["primaryKey"]),
            ("private-key", keys["secondaryKey"]),
            ("user", "alice"),
        ):
            (connection / name).write_text(text)
        if dataset:
            asyncio.run(import_datasets(local.url, keys["primaryKey"], keys["secondaryKey"], dataset))
        yield connection


def execute(
    path: Path, out: Path, connection: Path, parameters: dict[str, Any], timeout: float = 900
) -> None:
    """Run one notebook with papermill in a process of its own.

    Raises:
        AssertionError: a cell failed; with the last lines that papermill said.
    """
    variables = {
        **os.environ,
        "CYTOMINE_CONNECTION_DIR": str(connection),
        "CYTOMINE_STACK": "loopback",
        "PYTHONPATH": str(ROOT),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    command = [sys.executable, "-m", "papermill", str(path), str(out), "--no-progress-bar", "-k", "python3"]
    command += ["--cwd", str(out.parent)]
    command += [text for name, value in parameters.items() for text in ("-p", name, str(value))]
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{path.name}: {done.stderr[-3000:]}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, help="as made by python -m dev.dataset")
    parser.add_argument("--out", type=Path, required=True, help="for the executed copies")
    parser.add_argument("--connection", type=Path, help="of a stack that runs already")
    parser.add_argument(
        "--serve", action="store_true", help="keep the stack running and print its connection"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="beginnings of names; all if none is given")
    args = parser.parse_args(argv)
    chosen = [p for p in paths() if not args.names or p.name.startswith(tuple(args.names))]
    args.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as ends:
        connection = args.connection
        if connection is None:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
            connection = ends.enter_context(stack(folder, args.dataset))
        if args.serve:
            sys.stdout.write(f"{connection}\n")
            sys.stdout.flush()
            sys.stdin.read()
            return 0
        failed = 0
        for path in chosen:
            start = time.monotonic()
            out = args.out / path.name
            try:
                execute(path, out, connection, {})
                said = json.dumps(result(nbformat.read(out, 4).cells))
            except (AssertionError, subprocess.TimeoutExpired) as failure:
                failed, said = failed + 1, str(failure)
            # Of the largest process so far; the kernels are by far the largest.
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            sys.stdout.write(f"{path.name}: {time.monotonic() - start:.0f} s, ≤ {peak:.0f} MiB: {said}\n")
            sys.stdout.flush()
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
