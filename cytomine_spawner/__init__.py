"""Launch a Cytomine stack beside a JupyterHub notebook on Kubernetes."""

__version__ = "0.1.0"

from typing import Any

__all__ = ["CytomineSpawner", "__version__"]


def __getattr__(name: str) -> Any:
    # On demand: a notebook imports this package, too, and has no KubeSpawner.
    if name == "CytomineSpawner":
        from .hub.spawner import CytomineSpawner

        return CytomineSpawner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
