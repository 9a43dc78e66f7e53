"""The content of a file of skops as plain values; nothing that the file names is imported, made or called.

skops' own reader makes the objects of all of scikit-learn that it trusts, with whatever numbers the file brings. Here a
file is only read: containers, numbers, texts and arrays become what they are, and every other object stays a `Described`,
a name with the values that belong to it. `model_trees` makes the models from these.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy

from .errors import CytomineError

SCHEMA = "schema.json"
SCHEMA_BYTES = 128 << 20
MEMBERS = 500_000
UNREADABLE = "The file is no model that this version can read: train anew."
TREE = "sklearn.tree._tree.Tree"
# The names of the keys' types, and what a key's text in JSON is then.
KEYS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: {"true": True, "false": False}[text],
    "NoneType": lambda text: {"null": None}[text],
}
NUMBERS = {1: "biu", 2: "iuf", 4: "iuf", 8: "iufcmM", 16: "c"}
CODE_POINTS = 0x110000


class UnsafeModel(CytomineError):
    """A file is no model, or holds what could run code or harm the notebook; nothing of it is used."""


@dataclass(frozen=True)
class Described:
    """An object as a file describes it.

    Attributes:
        kind: its class by its full name.
        state: its attributes.
        arguments: what it would be made with.
    """

    kind: str
    state: dict[str, Any]
    arguments: tuple[Any, ...] = ()


def read(content: bytes, limit: int) -> Any:
    """What a file holds.

    Args:
        content: of the file.
        limit: bytes that it may take when it is unpacked.

    Returns:
        None, numbers, texts, arrays, and lists, tuples and dictionaries of them and of `Described`.

    Raises:
        UnsafeModel: it is no such file, is larger, or holds something else.
    """
    try:
        # Each entry of the archive's list takes a hundred times of its bytes.
        if content.count(b"PK\x01\x02") > MEMBERS:
            raise UnsafeModel(UNREADABLE)
        with zipfile.ZipFile(BytesIO(content)) as archive:
            return _Reader(archive, limit).whole()
    except UnsafeModel:
        raise
    except Exception as error:  # whatever a damaged archive, array or text makes its parser raise
        raise UnsafeModel(UNREADABLE) from error


class _Reader:
    def __init__(self, archive: zipfile.ZipFile, limit: int) -> None:
        members = archive.infolist()
        plain = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if any(m.compress_type not in plain or m.flag_bits & 1 for m in members):
            raise UnsafeModel(UNREADABLE)
        # No more of a member is unpacked than the archive says here.
        size = sum(m.file_size for m in members)
        if size > limit:
            raise UnsafeModel(
                f"The file takes {size:,} bytes when it is unpacked, and {limit:,} are allowed: "
                "if you know who stored it, pass a larger limit."
            )
        self.archive = archive
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}

    def whole(self) -> Any:
        if self.archive.getinfo(SCHEMA).file_size > SCHEMA_BYTES:
            raise UnsafeModel(UNREADABLE)
        return self.value(json.loads(self.archive.read(SCHEMA)))

    def value(self, node: dict[str, Any]) -> Any:
        kind = f"{node['__module__']}.{node['__class__']}"
        loader = node["__loader__"]
        if loader == "JsonNode":
            return _scalar(json.loads(node["content"]))
        if loader == "NdArrayNode":
            return self.array(node, kind)
        if loader == "DictNode" and kind == "builtins.dict":
            return self.dictionary(node)
        if loader == "ListNode" and kind == "builtins.list":
            return [self.value(item) for item in node["content"]]
        if loader == "TupleNode" and kind == "builtins.tuple":
            return tuple(self.value(item) for item in node["content"])
        if loader == "ObjectNode":
            return Described(kind, self.state(node))
        if loader == "TreeNode" and kind == TREE:
            arguments = self.value(node["__reduce__"]["args"])
            return Described(kind, self.state(node), tuple(arguments))
        if loader == "RandomStateNode":
            # The source of chance of a training that is over.
            return None
        raise unknown(kind)

    def state(self, node: dict[str, Any]) -> dict[str, Any]:
        found = self.value(node["content"])
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            raise UnsafeModel(UNREADABLE)
        return found

    def dictionary(self, node: dict[str, Any]) -> dict[Any, Any]:
        kinds = [one["__class__"] for one in node["key_types"]["content"]]
        # NumPy's numbers are stored as those of Python.
        names = [k if k in KEYS else k.rstrip("0123456789_").removeprefix("u") for k in kinds]
        items = node["content"].items()
        return {KEYS[name](text): self.value(item) for name, (text, item) in zip(names, items, strict=True)}

    def array(self, node: dict[str, Any], kind: str) -> Any:
        if node["type"] == "json":
            (count,) = self.value(node["shape"])
            made = np.empty(len(node["content"]), object)
            # One after the other: NumPy would take a list of lists for a table.
            for number, item in enumerate(node["content"]):
                made[number] = self.value(item)
            if kind != "numpy.ndarray" or count != len(made):
                raise UnsafeModel(UNREADABLE)
            return made
        name = str(node["file"])
        if node["type"] != "numpy" or not name.endswith(".npy"):
            raise UnsafeModel(UNREADABLE)
        if name not in self.arrays:
            self.arrays[name] = parse_array(self.archive.read(name))
        found = self.arrays[name]
        if kind == "numpy.ndarray":
            return found
        if found.ndim or kind != f"numpy.{type(found[()]).__name__}":
            raise UnsafeModel(UNREADABLE)
        return found[()]


def parse_array(content: bytes) -> np.ndarray[Any, Any]:
    """The array in a file of NumPy's format, of this machine's byte order.

    Raises:
        UnsafeModel: its bytes are not those that its shape needs, or no numbers, texts or nodes of trees.
        ValueError: it is no such file.
    """
    file = BytesIO(content)
    heads = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    shape, by_column, dtype = heads[npy.read_magic(file)](file)
    start = file.tell()
    count = prod(shape)
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(content) - start:
        raise UnsafeModel(UNREADABLE)
    if not _known(dtype):
        raise UnsafeModel(UNREADABLE)
    flat = np.frombuffer(content, dtype, count, start) if count else np.empty(0, dtype)
    # Bytes that are no value of their type would show only where they are used.
    if dtype.kind == "b" and (flat.view(np.uint8) > 1).any():
        raise UnsafeModel(UNREADABLE)
    flat = flat.astype(dtype.newbyteorder("=")) if dtype.names is None else flat.copy()
    if dtype.kind == "U" and (flat.view(np.uint32) >= CODE_POINTS).any():
        raise UnsafeModel(UNREADABLE)
    return flat.reshape(shape, order="F" if by_column else "C")


def _known(dtype: np.dtype[Any]) -> bool:
    if dtype.names is not None:
        from sklearn.tree._tree import NODE_DTYPE

        return bool(dtype == NODE_DTYPE)
    if dtype.kind in "US":
        return dtype.itemsize > 0
    return dtype.subdtype is None and dtype.kind in NUMBERS.get(dtype.itemsize, "")


def _scalar(value: Any) -> Any:
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise UnsafeModel(UNREADABLE)
    return value


def unknown(kind: str) -> UnsafeModel:
    """That something of a kind is in the place of a model."""
    shown = "".join(sign if sign.isprintable() else " " for sign in kind.rpartition(".")[2])[:60]
    return UnsafeModel(
        f"The file holds a {shown} where no model has one: ask who stored it, or train anew by a kind that `pack` takes."
    )
