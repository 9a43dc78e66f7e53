"""A real one-node Kubernetes, built from Debian's packages and Go modules.

For a machine that has no cluster and cannot pull images; a ``KUBECONFIG`` in the environment is
always the better choice (see README.md here). And an API server alone, for fast tests.
"""

from __future__ import annotations

from pathlib import Path

from dev.cluster.api import api_down, api_up
from dev.cluster.images import full_name, has_image, import_images, remove_outdated
from dev.cluster.layout import INGRESS_CLASS, PORT, kubeconfig, state
from dev.cluster.node import admin, down, healthy, ingress_port, memories, status, up
from dev.cluster.programs import Programs, build, build_kwok
from dev.console import Console


def bin(console: Console | None = None) -> Path:  # noqa: A001  what it is
    """The folder with kubectl and helm; builds them if need be."""
    return build(console or Console()).bin


__all__ = [
    "INGRESS_CLASS",
    "PORT",
    "Programs",
    "admin",
    "api_down",
    "api_up",
    "bin",
    "build",
    "build_kwok",
    "down",
    "full_name",
    "has_image",
    "healthy",
    "import_images",
    "ingress_port",
    "kubeconfig",
    "memories",
    "remove_outdated",
    "state",
    "status",
    "up",
]
