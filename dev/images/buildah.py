"""One image store of our own for buildah, kept below the cache."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from dev import cache, host, pip
from dev.cluster import cleanup
from dev.console import Problem, Step
from dev.images import bases
from dev.proc import run

PREFIX = "localhost/cytomine-spawner"
# Each rebuild adds layers that nothing needs any more. Over this size, start afresh.
MOST_BYTES = 6 * 2**30
_CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
_PIP_KEYS = ("index-url", "extra-index-url", "proxy", "timeout", "default-timeout", "retries", "trusted-host")
_NPM_KEYS = ("registry", "proxy", "https-proxy", "noproxy")


def _store() -> Path:
    return cache.home() / "buildah"


@functools.cache
def _driver() -> str:
    """The overlay driver where the file system carries it: vfs copies every layer."""
    command = ["buildah", *_folders(), "--storage-driver", "overlay", "info"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return "overlay" if done.returncode == 0 else "vfs"


def _folders() -> list[str]:
    return ["--root", str(_store() / "root"), "--runroot", str(_store() / "run")]


def buildah(
    arguments: Sequence[str | Path],
    what: str,
    timeout: float = 120,
    each_line: Callable[[str], None] | None = None,
) -> str:
    """Run buildah on our store and return what it printed.

    Raises:
        Problem: it failed, is not installed or took too long.
    """
    command = ["buildah", *_folders(), "--storage-driver", _driver(), *arguments]
    return run(command, what, log="buildah", timeout=timeout, each_line=each_line)


def prepare(step: Step) -> None:
    """Install what is missing, remove what a cut run left and keep the store bounded.

    Raises:
        Problem: not root, or a package cannot be installed.
    """
    if os.geteuid() != 0:
        raise Problem("Building images needs root", "Run the command as root")
    if names := host.missing({"buildah": "buildah", "debootstrap": "debootstrap"}):
        host.install(names, step.detail)
    # A build that failed or was cut off leaves mounts, and nothing below a mount can be removed.
    cleanup.unmount(_store())
    if _size(_store()) > MOST_BYTES:
        empty(step, "had grown too large")
        return
    try:
        buildah(["rm", "--all"], "Removing what an earlier build left")
    except Problem:
        empty(step, "an earlier run left damaged")


def empty(step: Step, why: str) -> None:
    """Make the image store anew: it is a cache, and what a power cut damaged in it fails in ways that do not say so.

    Args:
        step: the running step, told what is done.
        why: what the store "which" is like.
    """
    step.detail(f"emptying the image store, which {why}")
    cleanup.unmount(_store())
    for folder in ("root", "run"):
        shutil.rmtree(_store() / folder, ignore_errors=True)


def _size(folder: Path) -> int:
    if not folder.is_dir():  # the first build on this machine
        return 0
    # A file may go while du counts, which then only complains.
    done = subprocess.run(["du", "-skx", folder], capture_output=True, text=True, timeout=300, check=False)
    return int(done.stdout.split()[0]) * 1024


def has(image: str) -> bool:
    """Whether the store holds an image."""
    listed = json.loads(buildah(["images", "--json"], "Listing images") or "null") or []
    return any(image in (row.get("names") or []) for row in listed)


def base_image(base: str, step: Step) -> str:
    """The name of a base image in our store, made if it is not there.

    Args:
        base: ``debian`` or ``node``.
        step: the running step, told what is done.
    """
    image = f"{PREFIX}/base-{base}:{bases.key(base)}"
    if has(image):
        return image
    parent = "scratch" if base == "debian" else base_image("debian", step)
    tree = bases.tarball(base, step)
    step.detail(f"base image {base}")
    container = buildah(["from", parent], "Starting a base image").split()[-1]
    buildah(["add", "--quiet", container, tree, "/"], "Filling a base image", timeout=300)
    buildah(["config", "--cmd", "bash" if base == "debian" else "node", container], "Describing a base image")
    buildah(["commit", "--quiet", "--rm", container, image], "Keeping a base image", timeout=300)
    return image


def machine_settings(folder: Path) -> list[str]:
    """Volume flags that lend this machine's certificates and package settings to a build.

    They are mounted on files that the base images have, so nothing of them stays in an image.

    Args:
        folder: a private folder for the files; the caller removes it.
    """
    flags = []
    bundle = next(
        (b for b in (os.environ.get("SSL_CERT_FILE"), *_CA_BUNDLES) if b and Path(b).is_file()), None
    )
    if bundle:
        flags += ["-v", f"{Path(bundle).resolve()}:/etc/ssl/certs/ca-certificates.crt:ro"]
    pip_config = folder / "pip.conf"
    pip_config.write_text("[global]\n" + "".join(f"{k} = {v}\n" for k, v in _pip_settings().items()))
    npm = folder / "npmrc"
    lines = [f"{k}={v}\n" for k, v in _npm_settings().items()]
    npm.write_text("cafile=/etc/ssl/certs/ca-certificates.crt\nupdate-notifier=false\n" + "".join(lines))
    for file, target in ((pip_config, bases.PIP_CONFIG), (npm, bases.NPM_CONFIG)):
        file.chmod(0o600)
        flags += ["-v", f"{file}:/{target}:ro"]
    return flags


def _pip_settings() -> dict[str, str]:
    told = {option: value for option, value in pip.settings().items() if option in _PIP_KEYS}
    return {("timeout" if o == "default-timeout" else o): value for o, value in told.items()}


def _npm_settings() -> dict[str, str]:
    if not shutil.which("npm"):
        return {}
    command = ["npm", "config", "list", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    known = json.loads(done.stdout) if done.returncode == 0 else {}
    return {k: known[k] for k in _NPM_KEYS if isinstance(known.get(k), str) and known[k]}
