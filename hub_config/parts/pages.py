"""Pages: the package's templates, and the administrator's before them."""

from __future__ import annotations

from importlib import resources
from typing import Any

from parts import hub
from parts.values import Values


def configure(c: Any, values: Values) -> None:
    """Let the hub find the templates of this package."""
    paths = [str(resources.files("cytomine_spawner").joinpath("templates"))]
    own = values.folder / "templates"
    if own.is_dir():
        paths.insert(0, str(own))
    c.JupyterHub.template_paths = paths
    variables = {"announcement": values.get("hub.announcement", str, "")}
    if not hub.per_user_hosts(values):
        variables["warning_for_administrators"] = hub.ONE_HOST
    c.JupyterHub.template_vars = {name: text for name, text in variables.items() if text}
