"""LS Login (the Life Science Login) as a JupyterHub authenticator."""

from typing import Any

__all__ = ["LSLoginAuthenticator", "display_name"]


def __getattr__(name: str) -> Any:
    # On demand: what needs a part of this package need not load JupyterHub's handlers.
    if name in __all__:
        from . import authenticator

        return getattr(authenticator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
