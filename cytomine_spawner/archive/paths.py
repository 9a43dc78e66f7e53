"""How the archive's names become paths.

A path is ``<dataset>/<file's path>``. A dataset's id is one component, percent-encoded where it has other signs than
letters, digits and ``-._~``: ``https://doi.org/10.1/x`` is ``https%3A%2F%2Fdoi.org%2F10.1%2Fx``. So fsspec, which splits at
slashes and chains at ``::``, leaves it whole.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from .api import RemoteFile

ENDING = ".c4gh"
# The uploader's name as the inbox writes it: an identifier with the at sign replaced, such as 28f7..._lifescience-ri.eu.
UPLOADER = re.compile(r"[^/]+_[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+/")


def component(dataset: str) -> str:
    """A dataset's id as a component of a path, and of one on disk."""
    return _dots(quote(dataset, safe=""))


def split(path: str) -> tuple[str, str]:
    """The dataset's id and the path within, either may be empty.

    Args:
        path: without ``sda://``.
    """
    first, _, rest = path.strip("/").partition("/")
    return unquote(first), rest


def _dots(part: str) -> str:
    """A component that leads to no other folder."""
    return part.replace(".", "%2E") if part in {".", ".."} else part


def _plain(path: str) -> str:
    """A path that stays below its folder, whatever the archive says, and has no signs that move a terminal's cursor."""
    parts = [_dots(part) for part in path.split("/") if part not in {"", "."}]
    whole = "/".join(parts) or path.replace(".", "%2E").replace("/", "%2F")
    return "".join(
        sign if sign.isprintable() else quote(sign, safe="", errors="surrogatepass") for sign in whole
    )


def _told_apart(path: str, plain: str) -> str:
    """A path that no other one is shown as: others may be alike without the signs that are left out or replaced."""
    return f"{plain}~{hashlib.sha256(path.encode(errors='surrogatepass')).hexdigest()[:16]}"


def visible(paths: Iterable[str]) -> dict[str, str]:
    """The path that is shown for each path of the archive: without the uploader's folder and ``.c4gh``.

    Where two would be shown alike, they keep as much of their own as tells them apart. None leads out of its folder.

    Args:
        paths: the paths as the archive has them.
    """
    steps = []
    for path in paths:
        plain = _plain(path)
        bare = UPLOADER.sub("", plain, count=1) if UPLOADER.match(plain) else plain
        names = [bare.removesuffix(ENDING), plain.removesuffix(ENDING), plain]
        # A file that is called .c4gh alone keeps its name.
        names = [plain if name.endswith("/") or not name else name for name in names]
        steps.append((path, [*names, _told_apart(path, plain)]))
    level = dict.fromkeys((path for path, _ in steps), 0)
    while True:
        shown = {path: names[level[path]] for path, names in steps}
        taken = Counter(shown.values())
        double = [path for path, name in shown.items() if taken[name] > 1 and level[path] < 3]
        if not double:
            return shown
        for path in double:
            level[path] += 1


@dataclass
class Tree:
    """A dataset's folders and files.

    Attributes:
        root: the dataset's path.
        files: the archive's file by its path.
        folders: what is in each folder, by its path: paths of folders and files.
    """

    root: str
    files: dict[str, RemoteFile] = field(default_factory=dict)
    folders: dict[str, dict[str, None]] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: str, files: Iterable[RemoteFile]) -> Tree:
        """The tree of a dataset.

        Args:
            dataset: its id.
            files: its files.
        """
        tree = cls(component(dataset))
        tree.folders[tree.root] = {}
        found = list(files)
        shown = visible(file.path for file in found)
        for file in found:
            path = f"{tree.root}/{shown[file.path]}"
            tree.files[path] = file
            while path != tree.root:
                parent = path.rpartition("/")[0]
                tree.folders.setdefault(parent, {})[path] = None
                path = parent
        return tree

    def entry(self, path: str) -> dict[str, Any] | None:
        """What ``info`` gives for a path; None where there is nothing.

        Args:
            path: a path, without ``sda://``.
        """
        file = self.files.get(path)
        if file is not None:
            return {
                "name": path,
                "size": file.plain_size,
                "type": "file",
                "checksum": file.checksum,
                "file_id": file.id,
                "encrypted_size": file.body_size,
            }
        return folder(path) if path in self.folders else None

    def listing(self, path: str) -> list[dict[str, Any]] | None:
        """What ``ls`` gives for a path; None where there is nothing.

        Args:
            path: a path, without ``sda://``.
        """
        if path in self.folders:
            return [entry for name in sorted(self.folders[path]) if (entry := self.entry(name))]
        one = self.entry(path)
        return None if one is None else [one]


def folder(path: str) -> dict[str, Any]:
    """The entry of a folder."""
    return {"name": path, "size": 0, "type": "directory"}
