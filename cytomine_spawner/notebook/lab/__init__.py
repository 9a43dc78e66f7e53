"""Cytomine in JupyterLab: a card in the launcher and an item in the status bar, and the notebook server's part of them."""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: Any) -> None:
    from .handler import load

    load(server)
