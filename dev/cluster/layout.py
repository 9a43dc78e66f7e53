"""Addresses and folders of the one-node cluster."""

from __future__ import annotations

from pathlib import Path

from dev import cache
from dev.console import Problem

HERE = Path(__file__).resolve().parent

NODE = "node1"
NODE_IP = "10.250.0.1"  # on a bridge of our own, never on the machine's own interface
POD_CIDR = "10.244.0.0/24"
SVC_CIDR = "10.96.0.0/16"
API_SVC_IP = "10.96.0.1"
DNS_IP = "10.96.0.10"
API = f"https://{NODE_IP}:6443"
PORT = 8000
INGRESS_CLASS = "local"

POD_BRIDGE = "cni0"
NODE_BRIDGE = "kube-node"

# Sockets, process records and containerd's mounts: what means nothing after a restart of the machine.
# Short, because a socket's path may have 107 characters only.
RUNTIME = Path("/run/cytomine-spawner")
SOCKET = RUNTIME / "containerd.sock"
CGROUP = "cytomine-spawner"


def state() -> Path:
    """The cluster's state (objects, images, volumes, logs): kept over stop and start."""
    path = cache.home() / "cluster"
    if len(str(path)) > 70:
        raise Problem(
            f"the cache's path {cache.home()} is too long for the sockets below it",
            "Set CYTOMINE_SPAWNER_CACHE to a folder with a shorter path",
        )
    return path


def kubeconfig() -> Path:
    """The administrator's kubeconfig; it exists once the cluster was started."""
    return state() / "kubeconfig"
