"""Reading the chart's values and secrets."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_KINDS = {str: "text", bool: "true or false", int: "a whole number", dict: "a mapping", list: "a list"}


class Problem(Exception):
    """A value or a secret is missing or wrong; the text is one sentence that says which and what to do."""


class Values:
    """What the chart mounts: one JSON file of values, one file a secret, the administrator's snippets.

    Args:
        folder: holds ``values/values.json``, ``secrets/`` and ``extra.d/``.
        tree: the parsed values.
    """

    def __init__(self, folder: Path, tree: dict[str, Any]) -> None:
        self.folder = folder
        self.tree = tree

    @classmethod
    def read(cls, default: Path) -> Values:
        """Read the values below ``CYTOMINE_HUB_DIR``, or else below ``default``.

        Raises:
            Problem: the file is missing or is not a JSON mapping.
        """
        folder = Path(os.environ.get("CYTOMINE_HUB_DIR") or default)
        path = folder / "values" / "values.json"
        try:
            tree = json.loads(path.read_text())
        except FileNotFoundError:
            raise Problem(f"{path} does not exist; mount the chart's values there.") from None
        except (OSError, ValueError) as error:
            raise Problem(f"{path} cannot be read as JSON ({error}); correct it.") from None
        if not isinstance(tree, dict):
            raise Problem(f"{path} holds no mapping; the chart writes it, do not replace it.")
        return cls(folder, tree)

    def get(self, path: str, kind: type[T], default: T) -> T:
        """The value at a dotted path, or ``default`` where it is absent or null.

        Raises:
            Problem: it is not of the given kind.
        """
        node: Any = self.tree
        for step in path.split("."):
            node = node.get(step) if isinstance(node, dict) else None
        if node is None:
            return default
        # JSON's true is an int in Python
        if not isinstance(node, kind) or (kind is int and isinstance(node, bool)):
            raise Problem(f"the value {path} must be {_KINDS[kind]}, not {json.dumps(node)[:60]}.")
        return node

    def need(self, path: str, kind: type[T], why: str) -> T:
        """The value at a dotted path, which must be there and not be empty.

        Args:
            path: where it is.
            kind: its type.
            why: what to do when it is missing, as the end of a sentence.

        Raises:
            Problem: it is missing, empty or of another kind.
        """
        value = self.get(path, kind, kind())
        if not value and value is not False:
            raise Problem(f"the value {path} is not set; {why}.")
        return value

    def secret_file(self, name: str) -> Path:
        """Where a secret is mounted, whether it is there or not."""
        return self.folder / "secrets" / name

    def secret(self, name: str, what: str) -> str:
        """The text of a secret, without white space around it.

        Args:
            name: the secret's key.
            what: what it is, for the sentence when it is missing.

        Raises:
            Problem: it is missing or empty.
        """
        path = self.secret_file(name)
        try:
            text = path.read_text().strip()
        except FileNotFoundError:
            text = ""
        except (OSError, UnicodeDecodeError) as error:
            raise Problem(f"{what} cannot be read from {path} ({type(error).__name__}).") from None
        if not text:
            secret = self.get("secrets.name", str, "") or "of the hub"
            where = (
                self.get("secrets.sources", dict, {}).get(name) or f"the key {name} of the Secret {secret}"
            )
            raise Problem(f"{what} is missing; put it under {where}.")
        return text

    def hex_secret(self, name: str, what: str, bytes_: int = 32) -> str:
        """A secret of hexadecimal digits.

        Raises:
            Problem: it is missing, or is not ``bytes_`` bytes of hexadecimal digits.
        """
        text = self.secret(name, what)
        if not re.fullmatch(f"[0-9a-fA-F]{{{2 * bytes_}}}", text):
            raise Problem(
                f"{what} (key {name}) must be {2 * bytes_} hexadecimal digits; make one with: openssl rand -hex {bytes_}."
            )
        return text
