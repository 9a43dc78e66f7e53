"""Launch a Cytomine stack beside a JupyterHub notebook on Kubernetes."""

from typing import Any

from .common import version

__all__ = ["CytomineSpawner", "LSLoginAuthenticator", "__version__"]
__version__ = version.VERSION


def __getattr__(name: str) -> Any:
    # On demand: a notebook imports this package, too, and has neither KubeSpawner nor oauthenticator.
    if name == "CytomineSpawner":
        from .hub.spawner import CytomineSpawner

        return CytomineSpawner
    if name == "LSLoginAuthenticator":
        from .lslogin.authenticator import LSLoginAuthenticator

        return LSLoginAuthenticator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
