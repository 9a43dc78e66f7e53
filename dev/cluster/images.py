"""Images in the cluster's containerd: what is there, imports, removal of what is out of date."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from dev import cache, proc
from dev.cluster.kube import Api
from dev.cluster.layout import SOCKET, state
from dev.console import Console, Problem

# Below this name images are ours to remove.
OWN = "localhost/cytomine-spawner/"
_WORKLOADS = (
    "/api/v1/pods",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/statefulsets",
    "/apis/apps/v1/daemonsets",
    "/apis/batch/v1/jobs",
    "/apis/batch/v1/cronjobs",
)


class Archive(Protocol):
    """An OCI archive: ``name`` without registry and tag, ``tag`` and ``path``."""

    name: str
    tag: str
    path: Path


def _ctr(*args: str, timeout: float = 60) -> list[str]:
    return ["ctr", "-a", str(SOCKET), "-n", "k8s.io", "--timeout", f"{timeout:.0f}s", *args]


def alive() -> bool:
    """Whether containerd answers."""
    return subprocess.run(_ctr("version"), capture_output=True, timeout=10, check=False).returncode == 0


def present() -> dict[str, str]:
    """Names of the images in containerd and their digests."""
    text = proc.run(_ctr("images", "ls"), "listing the cluster's images", log="images", timeout=60)
    rows = [line.split() for line in text.splitlines()[1:]]
    return {row[0]: row[2] for row in rows if len(row) > 2}


def full_name(name: str, tag: str) -> str:
    """What pods of this cluster call an image: ``localhost/<name>:<tag>``."""
    return f"{name if name.startswith('localhost/') else f'localhost/{name}'}:{tag}"


def has_image(name: str, tag: str) -> bool:
    """Whether an image needs no import; ask before building an archive."""
    return full_name(name, tag) in present()


def _index(path: Path) -> dict[str, Any]:
    try:
        with tarfile.open(path) as tar:
            member = tar.extractfile("index.json")
            assert member
            return json.loads(member.read())["manifests"][0]
    except (OSError, KeyError, AssertionError, ValueError, IndexError, tarfile.TarError) as e:
        raise Problem(f"{path} is not an OCI archive ({e!r})", "Build it again") from None


def _described(archive: Archive | Path | str) -> tuple[str, Path]:
    if not isinstance(archive, (Path, str)):
        return full_name(archive.name, archive.tag), Path(archive.path)
    notes = _index(Path(archive)).get("annotations", {})
    name = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name", "")
    if ":" not in name:
        raise Problem(f"the archive {archive} does not say its image's name", "Give its name and tag")
    return full_name(*name.rsplit(":", 1)), Path(archive)


def import_images(console: Console, archives: Iterable[Archive | Path | str]) -> list[str]:
    """Import OCI archives; those whose name and tag are in the cluster already are not read.

    Args:
        console: progress.
        archives: paths of archives that carry their name, or things with ``name``, ``tag`` and ``path``.

    Returns:
        The names that pods use, in the archives' order.
    """
    wanted = [_described(a) for a in archives]
    have = present()

    def one(name: str, path: Path) -> None:
        with console.step(f"Importing {name.removeprefix(OWN)}") as step:
            step.note = f"{path.stat().st_size / 1e6:.0f} MB"
            # Another command may be importing it, too: containerd refuses whoever comes second.
            with cache.lock("import-" + re.sub(r"[^\w.-]", "-", name)):
                if name not in present():
                    _import(name, path)

    missing = [(name, path) for name, path in wanted if name not in have]
    # Unpacking one takes one processor; the largest begins, so that nobody waits for it alone.
    missing.sort(key=lambda found: -found[1].stat().st_size)
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(one, *found) for found in missing]:
            job.result()
    names = [name for name, _ in wanted]
    _remember(names)
    return names


def _import(name: str, path: Path) -> None:
    what = f"importing the image {name}"
    proc.run(
        _ctr("images", "import", "--digests", "--base-name", "imported", str(path), timeout=600),
        what,
        log="images",
        timeout=600,
    )
    have = present()
    digest = _index(path)["digest"]
    if name not in have:
        # the archive has another name, or none
        source = next((n for n, d in have.items() if d == digest), None)
        if source is None:
            raise Problem(f"{what} failed: containerd does not list it afterwards", f"Build {path} again")
        proc.run(_ctr("images", "tag", source, name), what, log="images", timeout=60)
    extra = [n for n, d in present().items() if d == digest and n.startswith("imported@")]
    if extra:
        proc.run(_ctr("images", "rm", *extra), what, log="images", timeout=60)


def _book() -> Path:
    return state() / "images.json"


def _remember(names: list[str]) -> None:
    try:
        book = json.loads(_book().read_text())
    except (OSError, ValueError):
        book = {}
    for name in names:
        book[name] = time.time()
    tmp = _book().with_suffix(".tmp")
    tmp.write_text(json.dumps(book))
    tmp.replace(_book())


def used(api: Api) -> set[str]:
    """Images that a pod or a workload (scaled to zero or not) names."""
    names = set()
    for path in _WORKLOADS:
        for item in api.get(path)["items"]:
            spec = item["spec"].get("jobTemplate", item)["spec"]
            pod = spec.get("template", item)["spec"]
            for key in ("containers", "initContainers", "ephemeralContainers"):
                names |= {c["image"] for c in pod.get(key) or []}
    return names


def outdated(have: Iterable[str], in_use: set[str], imported: dict[str, float]) -> list[str]:
    """Our images that nothing uses, but for the two of each name that were asked for last.

    The newest may not be deployed yet, and the hub may still start notebooks from the one before.
    """
    by_name: dict[str, list[str]] = {}
    for image in have:
        if image.startswith(OWN):
            by_name.setdefault(image.rsplit(":", 1)[0], []).append(image)
    old = []
    for group in by_name.values():
        group.sort(key=lambda i: imported.get(i, 0.0), reverse=True)
        old += [i for i in group[2:] if i not in in_use]
    return sorted(old)


def remove_outdated(api: Api) -> list[str]:
    """Remove our images of older content that no workload names; returns their names."""
    try:
        book = json.loads(_book().read_text())
    except (OSError, ValueError):
        return []
    names = outdated(present(), used(api), book)
    if names:
        proc.run(_ctr("images", "rm", *names), "removing old images", log="images", timeout=120)
    return names
