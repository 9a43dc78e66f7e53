"""The scopes' former place, which configurations name; they are in :mod:`cytomine_spawner.lslogin.token`."""

from .lslogin.token import IMPORT_SCOPE, SCOPE

__all__ = ["IMPORT_SCOPE", "SCOPE"]
