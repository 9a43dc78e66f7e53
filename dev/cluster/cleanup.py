"""Ends and removes exactly what this cluster made: processes, cgroups, mounts, links, tables."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dev.cluster import network
from dev.cluster.layout import CGROUP, RUNTIME, SOCKET
from dev.cluster.parts import Parts
from dev.console import Problem

# First what starts pods, then what may write, then the store; containerd goes after the pods.
_CONTROL = (
    "kubelet",
    "ingress",
    "hostpath-provisioner",
    "netpol",
    "kube-proxy",
    "kube-scheduler",
    "kube-controller-manager",
)
# The pods' weight where processors are short, in processes.
WEIGHT = 2


def cgroups() -> list[Path]:
    """The cluster's own folder below each cgroup hierarchy (one on cgroup v2)."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top / CGROUP]
    return [p / CGROUP for p in top.iterdir() if p.is_dir() and (p / "cgroup.procs").exists()]


def make_cgroups() -> None:
    """The kubelet wants its root to exist in each hierarchy."""
    for folder in cgroups():
        folder.mkdir(exist_ok=True)
        # As it is, all pods together weigh as much as one process beside them: those of a busy machine starve.
        for name, usual in (("cpu.shares", 1024), ("cpu.weight", 100)):
            if (folder / name).exists():
                (folder / name).write_text(str(WEIGHT * usual))


def pod_processes() -> set[int]:
    """The processes in the pods, by the cluster's cgroups."""
    pids: set[int] = set()
    for folder in cgroups():
        for here, _, _ in os.walk(folder):  # unlike glob, it bears folders that vanish meanwhile
            with contextlib.suppress(OSError):
                pids |= {int(p) for p in Path(here, "cgroup.procs").read_text().split()}
    return pids - {0}


def shims() -> set[int]:
    """The processes that stand between the cluster's containerd and its containers."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"containerd-shim-runc-v2") and str(SOCKET).encode() in words:
                found.add(int(folder.name))
    return found


def _end(pids: Callable[[], set[int]], sig: int, patience: float) -> None:
    for pid in pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sig)
    deadline = time.monotonic() + patience
    while pids() and time.monotonic() < deadline:
        time.sleep(0.02)


def mounts(*folders: Path) -> list[str]:
    """Mount points at or below some folders, the deepest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if any(point == str(f) or point.startswith(f"{f}/") for f in folders):
            found.append(point)
    return sorted(found, reverse=True)


def unmount(*folders: Path) -> None:
    """Take away all that is mounted at or below some folders.

    Raises:
        Problem: something stays.
    """
    for point in mounts(*folders):
        subprocess.run(["umount", "-l", point], capture_output=True, timeout=30, check=False)
    left = mounts(*folders)
    if left:
        raise Problem(f"{left[0]} cannot be unmounted", f"Run `umount -l {left[0]}` and try again")


def _remove_cgroups() -> None:
    for top in cgroups():
        for _ in range(50):
            folders: Iterator[str] = (f for f, _, _ in os.walk(top, topdown=False))
            for folder in folders:
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            if not top.exists():
                break
            time.sleep(0.02)  # a process that was killed leaves its cgroup a moment later


def clean(parts: Parts, state: Path, *, wipe: bool = False) -> None:
    """End the cluster whatever state it is in, and remove what a start makes anew.

    Args:
        parts: its processes.
        state: its state folder.
        wipe: also delete the state; nothing needs a graceful end then.
    """
    sig = signal.SIGKILL if wipe else signal.SIGTERM
    parts.stop(_CONTROL, sig=sig)
    if not wipe:
        _end(pod_processes, signal.SIGTERM, 8)  # a database closes its files
    parts.stop(["kube-apiserver"], sig=sig)
    parts.stop(["etcd"], sig=sig)
    _end(pod_processes, signal.SIGKILL, 5)
    _end(shims, signal.SIGKILL, 5)
    parts.stop(["containerd"], sig=sig)
    _remove_cgroups()
    unmount(RUNTIME, state)  # all of them, before anything is deleted: a mount may hold another's files
    network.down()
    shutil.rmtree(RUNTIME, ignore_errors=True)
    if wipe:
        shutil.rmtree(state, ignore_errors=True)
