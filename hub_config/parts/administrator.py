"""The administrator's own configuration, which comes last and wins."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from traitlets.config import Config

from parts.values import Problem, Values

log = logging.getLogger("jupyterhub.config")


def configure(c: Any, values: Values) -> None:
    """Apply ``hub.config`` (class, trait, value), then the snippets in the order of their names."""
    for name, traits in values.get("hub.config", dict, {}).items():
        if not isinstance(traits, dict):
            raise Problem(f"the value hub.config.{name} must be a mapping of traits to values.")
        if not name[:1].isupper():
            raise Problem(
                f"the value hub.config.{name} must be named after a class, such as JupyterHub or KubeSpawner."
            )
        c[name].merge(Config(traits))
    folder = values.folder / "extra.d"
    for path in sorted(folder.glob("*.py")) if folder.is_dir() else []:
        _run(path, c, values)


def _run(path: Path, c: Any, values: Values) -> None:
    """Run one snippet as JupyterHub runs a configuration file, with ``values`` beside ``c``."""
    name = f"hub.extraConfig.{path.stem}"
    try:
        code = compile(path.read_text(), str(path), "exec")
        exec(code, {"c": c, "get_config": lambda: c, "values": values, "__file__": str(path)})  # noqa: S102
    except Problem:
        raise
    except Exception as error:
        log.exception("%s failed", name)
        raise Problem(
            f"the snippet {name} failed with {type(error).__name__}: {error}; its traceback is above."
        ) from None
