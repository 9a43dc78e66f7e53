"""Forges stored models, and uses what is accepted, in a process of its own: one that ends is seen, and what ended it.

``python -m tests.support.forging READER SEED FIRST END SECONDS`` is that process: for each file it writes a line with its number
before it opens it, and how that went behind. The same seed and number give the same file.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import os
import resource
import signal
import subprocess
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
MEMORY = 6 << 30
SECONDS = 60
WHOLE = [
    0,
    1,
    -1,
    -2,
    2,
    3,
    7,
    64,
    255,
    1000,
    10**6,
    -(10**6),
    2**31 - 1,
    2**31,
    -(2**31),
    2**62,
    2**63 - 1,
    -(2**63),
]
REAL = [0.0, -1.0, 1e-300, 1e300, -1e300, float("nan"), float("inf"), float("-inf"), 0.5, 2.0]
LOADERS = ["JsonNode", "NdArrayNode", "DictNode", "ListNode", "TupleNode", "ObjectNode", "TreeNode", "TypeNode", "CachedNode",
           "RandomStateNode", "FunctionNode", "PartialNode", "SetNode", "ReduceNode", "LossNode"]  # fmt: skip
CLASSES = ["ndarray", "dict", "list", "tuple", "str", "Tree", "ExtraTreesClassifier", "DecisionTreeRegressor", "float64", "int64",
           "RandomForestRegressor", "SVC", "system", "Pipeline", "void", "object_"]  # fmt: skip
HEADERS = [b"(1000000000000,)", b"(-1,)", b"(0,)", b"(2, 2, 2, 2)", b"()", b"(9223372036854775807, 2)"]


def parts_of(content: bytes) -> dict[str, bytes]:
    """The members of a stored model."""
    with zipfile.ZipFile(BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def joined(parts: dict[str, bytes]) -> bytes:
    """A stored model of members."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def saved(array: Any) -> bytes:
    """An array as NumPy stores it."""
    file = BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def nodes_of(schema: Any, key: str | None = None) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """All objects that a schema describes, with the name of the attribute that each is."""
    if isinstance(schema, dict):
        if "__loader__" in schema:
            yield key, schema
        for name, value in schema.items():
            inner = key if name in ("content", "__reduce__", "args") else name
            yield from nodes_of(value, inner)
    elif isinstance(schema, list):
        for value in schema:
            yield from nodes_of(value, key)


@functools.cache
def bases() -> tuple[dict[str, bytes], ...]:
    """Members of small models of each kind."""
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier, ExtraTreeRegressor

    from cytomine_spawner.notebook import landmarks
    from cytomine_spawner.notebook.models import pack

    random = np.random.default_rng(0)
    seen = random.random((60, 5))
    told = (seen > 0.5).astype(int)
    words = np.array(["stroma", "tumour", "none"])[told[:, 0] + told[:, 1]]
    pictures = [random.random((24, 30)) for _ in range(3)]
    places = random.uniform(8, 16, (3, 2, 2))
    models = [
        ExtraTreesClassifier(2, max_depth=3, random_state=0).fit(seen, told[:, :2]),
        RandomForestClassifier(2, max_depth=3, random_state=0).fit(seen, words),
        RandomForestRegressor(2, max_depth=3, random_state=0).fit(seen, seen[:, 0]),
        RandomForestRegressor(2, max_depth=2, random_state=0).fit(seen, seen[:, :2]),
        DecisionTreeClassifier(max_leaf_nodes=6, random_state=0).fit(seen, told[:, :3]),
        ExtraTreeRegressor(max_depth=3, random_state=0).fit(seen, seen[:, 1]),
        make_pipeline(StandardScaler(), LogisticRegression()).fit(seen, words),
        landmarks.fit(pictures, places, ["a", "b"], levels=2, window=2, trees=2, progress=False),
    ]  # fmt: skip
    for forest in models[-1]["forests"]:
        forest.n_jobs = None  # threads cost more than all of their work here
    return tuple(parts_of(pack(model)) for model in models)


def forge(number: int, seed: int) -> bytes:
    """A stored model with one to three lies in it."""
    random = np.random.default_rng([seed, number])
    parts = dict(bases()[random.integers(len(bases()))])
    for _ in range(random.integers(1, 4)):
        # A lie may leave nothing that the next can be told about.
        with contextlib.suppress(Exception):
            LIES[random.integers(len(LIES))](parts, random)
    content = joined(parts)
    if random.random() < 0.05:
        raw = bytearray(content)
        for at in random.integers(0, len(raw), random.integers(1, 6)):
            raw[at] = random.integers(256)
        content = bytes(raw[: random.integers(1, len(raw))] if random.random() < 0.2 else raw)
    return content


def _pick(random: np.random.Generator, some: Any) -> Any:
    return some[int(random.integers(len(some)))]


def _array(parts: dict[str, bytes], random: np.random.Generator) -> tuple[str, Any]:
    name = _pick(random, [n for n in parts if n.endswith(".npy")])
    return name, np.load(BytesIO(parts[name])).copy()


def _nasty(random: np.random.Generator, dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        return _pick(
            random, [n for n in WHOLE if low <= n <= high] + [low, high, int(random.integers(0, 16))]
        )
    return _pick(random, REAL)


def one_number(parts: dict[str, bytes], random: np.random.Generator) -> None:
    """One number of one array, or all of one field of the nodes."""
    name, array = _array(parts, random)
    whole = random.random() < 0.15
    if array.dtype.names:
        field_name = _pick(random, array.dtype.names)
        at = slice(None) if whole else random.integers(len(array))
        array[field_name][at] = _nasty(random, array.dtype[field_name])
    else:
        at = slice(None) if whole else random.integers(array.size)
        array.reshape(-1)[at] = _nasty(random, array.dtype)
    parts[name] = saved(array)


def other_children(parts: dict[str, bytes], random: np.random.Generator) -> None:
    """Children in other places, all of which exist."""
    names = [n for n in parts if n.endswith(".npy") and b"left_child" in parts[n][:400]]
    name = _pick(random, names)
    array = np.load(BytesIO(parts[name])).copy()
    side = _pick(random, ["left_child", "right_child", "feature"])
    for _ in range(random.integers(1, 4)):
        array[side][random.integers(len(array))] = random.integers(-2, len(array))
    parts[name] = saved(array)


def other_shape(parts: dict[str, bytes], random: np.random.Generator) -> None:
    """An array of another length, order, type or number of sides."""
    name, array = _array(parts, random)
    ways: list[Callable[[], Any]] = [
        lambda: array[:-1],
        lambda: array[:0],
        lambda: np.concatenate([array, array]),
        lambda: array[None],
        lambda: array.reshape(-1),
        lambda: np.asfortranarray(array),
        lambda: array.T,
        lambda: array.astype(_pick(random, ["f4", ">f8", "i1", ">i8", "U3", "?", "c16", "M8[s]", "S2"])),
        lambda: np.zeros(int(random.integers(0, 2000)), array.dtype),
    ]
    parts[name] = saved(_pick(random, ways)())


def other_header(parts: dict[str, bytes], random: np.random.Generator) -> None:
    """A head that says something else than what follows."""
    name = _pick(random, [n for n in parts if n.endswith(".npy")])
    content = parts[name]
    start, end = content.index(b"'shape': ") + 9, content.index(b"}", content.index(b"'shape'"))
    new = _pick(random, HEADERS)
    if random.random() < 0.3:
        content = content.replace(b"<f8", b"|O8").replace(
            b"<i8", _pick(random, [b"|O8", b"<i4", b"|V8", b"<U2"])
        )
        new = content[start:end]
    parts[name] = (content[:start] + new.ljust(end - start)[: end - start] + content[end:])[
        : None if random.random() < 0.5 else -8
    ]


def one_word(parts: dict[str, bytes], random: np.random.Generator) -> None:
    """One setting, or the same one everywhere."""
    schema = json.loads(parts["schema.json"])
    every = list(nodes_of(schema))
    key, node = _pick(random, [(k, n) for k, n in every if n["__loader__"] == "JsonNode"])
    old = node["content"]
    new = json.dumps(_pick(random, [*WHOLE, *REAL, None, True, "x", "gini", [1], {}]))
    everywhere = random.random() < 0.5
    for other, one in every:
        if one is node or (everywhere and one.get("content") == old and other == key):
            one["content"] = new
    parts["schema.json"] = json.dumps(schema).encode()


def other_features(parts: dict[str, bytes], random: np.random.Generator) -> None:
    """All that say how many features or outputs there are agree upon another number."""
    schema = json.loads(parts["schema.json"])
    every = [n for k, n in nodes_of(schema) if n["__loader__"] == "JsonNode"]
    old = _pick(random, ["5", "8", "2", "3", "1"])
    new = json.dumps(_pick(random, WHOLE))
    for one in every:
        if one["content"] == old and random.random() < 0.95:
            one["content"] = new
    parts["schema.json"] = json.dumps(schema).encode()


def other_structure(parts: dict[str, bytes], random: np.random.Generator) -> None:
    """An object that is another one's, named otherwise, missing, doubled, or made by something else."""
    schema = json.loads(parts["schema.json"])
    every = [n for _, n in nodes_of(schema)]
    node, other = _pick(random, every), _pick(random, every)
    way = int(random.integers(7))
    if way == 0:
        node["__loader__"] = _pick(random, LOADERS)
    elif way == 1:
        node["__class__"] = _pick(random, CLASSES)
    elif way == 2:
        node.pop(_pick(random, list(node)))
    elif way == 3:
        new = copy.deepcopy(other)
        node.clear()
        node.update(new)
    elif way == 4:
        files = [n for n in every if "file" in n]
        _pick(random, files)["file"] = _pick(random, [n["file"] for n in files] + ["schema.json", "../x.npy"])
    elif way == 5:
        lists = [n["content"] for n in every if isinstance(n.get("content"), list) and n["content"]]
        some = _pick(random, lists)
        some[:] = _pick(random, [some[:-1], some * 2, some[::-1], []])
    else:
        tables = [n["content"] for n in every if isinstance(n.get("content"), dict) and n["content"]]
        some = _pick(random, tables)
        some.pop(_pick(random, list(some)))
    parts["schema.json"] = json.dumps(schema).encode()


LIES = (
    one_number,
    one_number,
    other_children,
    other_shape,
    other_header,
    one_word,
    one_word,
    other_features,
    other_structure,
)


# -- use --------------------------------------------------------------------------------------------------


def estimators(thing: Any) -> Iterator[Any]:
    """All estimators of a stored model."""
    if isinstance(thing, dict):
        thing = list(thing.values())
    if isinstance(thing, (list, tuple)):
        for one in thing:
            yield from estimators(one)
    elif hasattr(thing, "get_params"):
        yield thing


def use(model: Any, failures: Counter[str]) -> None:
    """Call all that a model can do, with tables and sparse ones; what it raises is counted."""
    from scipy.sparse import csr_matrix

    from cytomine_spawner.notebook import landmarks

    def tried(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            failures[type(error).__name__] += 1
            return None

    for one in estimators(model):
        width = min(int(getattr(one, "n_features_in_", 5)), 1 << 20)
        some = np.random.default_rng(1).normal(0.5, 1, (5, width))
        for seen in (some, csr_matrix(some, dtype=np.float32)):
            for name in ("predict", "predict_proba", "decision_path", "apply", "transform"):
                if hasattr(one, name):
                    tried(functools.partial(getattr(one, name), seen))
            if hasattr(one, "score"):
                tried(lambda one=one, seen=seen: one.score(seen, one.predict(seen)))
        tried(lambda one=one: getattr(one, "feature_importances_", None))
        for tree in (one, *(getattr(one, "estimators_", None) or ())):
            if hasattr(tree, "tree_"):
                tried(tree.get_depth)
                tried(lambda tree=tree: tree.tree_.value.sum())
    if isinstance(model, dict):
        tried(lambda: landmarks.predict(model, np.random.default_rng(2).random((24, 30))))


def skops_alone(content: bytes) -> Any:
    """skops' own reader, told to trust trees."""
    import skops.io

    return skops.io.loads(content, trusted=["sklearn.tree._tree.Tree"])


def _child(reader: str, seed: int, first: int, end: int, seconds: int) -> None:
    from cytomine_spawner.notebook.models import UnsafeModel, unpack

    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    opened = unpack if reader == "ours" else skops_alone
    bases()
    # What a model prints is no line of ours.
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(first, end):
        content = forge(number, seed)
        lines.write(f"{number} ")
        lines.flush()
        # What hangs is ended by the signal; the processor's time counts, so that a busy machine ends none.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        failures: Counter[str] = Counter()
        try:
            model = opened(content)
        except UnsafeModel:
            said = "refused"
        except Exception as error:
            said = f"escaped:{type(error).__name__}"
        else:
            use(model, failures)
            said = ",".join(["used", *failures])
        signal.setitimer(signal.ITIMER_PROF, 0)
        lines.write(f"{said}\n")
        lines.flush()


# -- seen from outside ------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What became of forged files.

    Attributes:
        refused: said to be no model.
        used: accepted; all methods were called.
        raised: of these, files of which a method raised an exception, by its name; one that a wrong call raises, too.
        escaped: files whose reading raised something else than a refusal, by its name and number.
        crashed: numbers of files that ended the process, with the signal.
    """

    refused: int = 0
    used: int = 0
    raised: Counter[str] = field(default_factory=Counter)
    escaped: list[str] = field(default_factory=list)
    crashed: dict[int, str] = field(default_factory=dict)


def campaign(
    count: int,
    seed: int,
    *,
    reader: str = "ours",
    first_crash: bool = False,
    seconds: int = SECONDS,
    told: Callable[[int], Any] = lambda n: None,
) -> Outcome:
    """Have files forged, opened and used in child processes.

    Args:
        count: of files.
        seed: of the chance.
        reader: ``ours``, or ``skops`` for skops' own.
        first_crash: stop at a file that ends the process.
        seconds: of the processor's time after which a file that is being read or used has hung.
        told: is told how many are done.
    """
    outcome, number = Outcome(), 0
    while number < count and not (first_crash and outcome.crashed):
        command = [sys.executable, "-m", "tests.support.forging", reader]
        command += [str(word) for word in (seed, number, count, seconds)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            line, started = "", False
            for line in child.stdout:
                started = True
                if not line.endswith("\n"):
                    break
                at, _, said = line.strip().partition(" ")
                number = int(at) + 1
                if said == "refused":
                    outcome.refused += 1
                elif said.startswith("escaped"):
                    outcome.escaped.append(f"{said} ({at})")
                else:
                    outcome.used += 1
                    outcome.raised.update(said.split(",")[1:])
                told(number)
        if child.returncode < 0 and (not line.endswith("\n") or not started):
            outcome.crashed[number] = signal.Signals(-child.returncode).name
            number += 1
        elif child.returncode:
            raise RuntimeError(f"The process that opens forged files failed ({child.returncode}).")
    return outcome


if __name__ == "__main__":
    _child(sys.argv[1], *map(int, sys.argv[2:6]))
