"""Builds the project's images where none can be pulled, each under the hash of what it is made from."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dev import cache
from dev.console import Console, Problem, Step
from dev.images import bases
from dev.images.buildah import PREFIX, base_image, buildah, empty, machine_settings, prepare

# Name of the image → its Containerfile (from the repository's root) and the base that it stands on.
IMAGES = {
    "hub": ("images/hub/Containerfile", "debian"),
    "stacks": ("images/stacks/Containerfile", "debian"),
    "singleuser": ("images/singleuser/Containerfile", "debian"),
    "proxy": ("dev/images/proxy/Containerfile", "node"),
    "lslogin": ("dev/lslogin/Containerfile", "node"),
    "archive": ("dev/archive/Containerfile", "debian"),
    "standin": ("dev/standin/Containerfile", "debian"),
    "postgis": ("dev/postgis/Containerfile", "debian"),
    "nginx": ("dev/nginx/Containerfile", "debian"),
}
# buildah's words where a command of a Containerfile has failed, which it will again.
COMMAND_FAILED = "while running runtime"
_SKIP = shutil.ignore_patterns("__pycache__", "*.pyc", "node_modules")
# The layer cache compares times, too, and a checkout has its own: every file gets this one (1985).
_TIME = 486_000_000


@dataclass(frozen=True)
class Archive:
    """A built image.

    Attributes:
        name: its name without a tag, as the cluster knows it.
        tag: hash of what it is made from.
        path: the OCI archive.
    """

    name: str
    tag: str
    path: Path

    @property
    def reference(self) -> str:
        """Name and tag, as a pod's ``image`` has them."""
        return f"{self.name}:{self.tag}"


def sources(containerfile: Path, root: Path = cache.ROOT) -> list[Path]:
    """The files and folders of the build context that a Containerfile copies.

    Args:
        containerfile: the file to read.
        root: the build context's folder.
    """
    found: list[Path] = []
    text = re.sub(r"\\\n", " ", containerfile.read_text())
    for line in text.splitlines():
        words = line.split()
        if not words or words[0] != "COPY" or any(w.startswith("--from=") for w in words):
            continue
        for pattern in (w for w in words[1:-1] if not w.startswith("--")):
            found += sorted(root.glob(pattern)) if "*" in pattern else [root / pattern]
    return found


def tag(name: str, root: Path = cache.ROOT) -> str:
    """The image's tag: it changes when, and only when, the image would.

    Args:
        name: a key of ``IMAGES``.
        root: the build context's folder.
    """
    file, base = IMAGES[name]
    parts = sources(root / file, root)
    names = [str(p.relative_to(root)) for p in parts]
    return cache.digest(
        [root / file, *(p for p in parts if p.exists())], bases.key(base), bases.key("debian"), *names
    )


def reference(name: str) -> str:
    """The image's full name, as pods name it, without building it."""
    return f"{PREFIX}/{name}:{tag(name)}"


def build(console: Console, names: Iterable[str] = ()) -> dict[str, Archive]:
    """Build images that are not in the cache yet.

    Args:
        console: told of each image and how long it took.
        names: keys of ``IMAGES``; none means all.

    Returns:
        Each name with its archive.

    Raises:
        Problem: an image cannot be built.
    """
    return {name: _built(console, name) for name in (tuple(names) or IMAGES)}


def _built(console: Console, name: str) -> Archive:
    key = tag(name)
    shelf = cache.home() / f"image-{name}" / key
    archive = Archive(f"{PREFIX}/{name}", key, shelf / f"{name}.tar")
    if shelf.is_dir():
        os.utime(shelf)
        return archive
    with console.step(f"Image {name}") as step:
        cache.built(f"image-{name}", key, lambda folder: _build(folder, name, key, step), keep=2)
        step.note = f"{archive.path.stat().st_size / 1e6:.0f} MB"
    return archive


def _build(folder: Path, name: str, key: str, step: Step) -> None:
    file, base = IMAGES[name]
    image = f"{PREFIX}/{name}:{key}"

    def progress(line: str) -> None:
        if found := re.search(r"STEP \d+/\d+: .*", line):
            step.detail(found[0])

    with cache.lock("buildah"), tempfile.TemporaryDirectory(prefix="image-", dir=cache.home()) as work:
        prepare(step)
        context, settings = Path(work) / "context", Path(work) / "settings"
        settings.mkdir()
        stage(cache.ROOT / file, context)
        command = ["bud", "--layers", "--isolation", "chroot", "--format", "oci", "--pull-never"]
        command += [*machine_settings(settings), "-f", str(cache.ROOT / file), "-t", image]

        def bud() -> None:
            parent = ["--build-arg", f"BASE={base_image(base, step)}"]
            what = f"Building the image {name}"
            buildah([*command, *parent, str(context)], what, timeout=1800, each_line=progress)

        try:
            bud()
        except Problem as problem:
            if COMMAND_FAILED in str(problem):
                raise
            # Layers that a cut run left half written are missed only here.
            empty(step, "may be damaged")
            bud()
        step.detail("writing the archive")
        # Hardly compressed: the archive goes to a cluster on the same machine, which unpacks zstd faster than gzip.
        target = f"oci-archive:{folder / name}.tar:{image}"
        buildah(
            ["push", "--quiet", "--compression-format", "zstd", "--compression-level", "1", image, target],
            f"Writing the image {name}",
            timeout=600,
        )


def stage(containerfile: Path, context: Path, root: Path = cache.ROOT) -> None:
    """Copy what a Containerfile needs to a folder of its own, with equal times and modes everywhere.

    Args:
        containerfile: the file whose sources are copied.
        context: the folder to make.
        root: the repository's root.
    """
    context.mkdir()
    for source in sources(containerfile, root):
        target = context / source.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=_SKIP, dirs_exist_ok=True)
        elif source.exists():
            shutil.copyfile(source, target)
            shutil.copymode(source, target)
        else:
            target.mkdir()  # a folder without files is not in a checkout
    for path in (context, *context.rglob("*")):
        path.chmod(
            0o755 if path.is_dir() or (os.access(path, os.X_OK) and path.stat().st_mode & 0o100) else 0o644
        )
        os.utime(path, (_TIME, _TIME))
