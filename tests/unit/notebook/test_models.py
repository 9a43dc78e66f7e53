"""A stored model comes back as it was; a file that somebody forged does not."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, ExtraTreeRegressor

from cytomine_spawner.notebook import landmarks, subwindows
from cytomine_spawner.notebook.models import UnsafeModel, pack, unpack
from tests.support.examples import examples
from tests.support.forging import ROOT, campaign, joined, nodes_of, parts_of, saved


def forest(features: int = 5) -> ExtraTreesClassifier:
    random = np.random.default_rng(0)
    data = random.random((80, features))
    told = (data > 0.5).astype(int)[:, :2]
    return ExtraTreesClassifier(4, random_state=0).fit(data, told)


def test_a_model_and_what_belongs_to_it_come_back_as_they_were() -> None:
    model = {"forest": forest(), "terms": ["a", "b"], "size": 24, "mean": np.arange(4.0), "µm": None}
    again = unpack(pack(model))
    assert (again["terms"], again["size"], again["µm"]) == (["a", "b"], 24, None)
    assert (again["mean"] == model["mean"]).all()
    some = np.random.default_rng(1).random((30, 5))
    for one, two in zip(
        again["forest"].predict_proba(some), model["forest"].predict_proba(some), strict=True
    ):
        assert (one == two).all()


class Evil:
    """What a pickle runs when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_a_file_that_would_run_a_program_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for content in (pickle.dumps(Evil(mark)), skops.io.dumps({"forest": forest(), "more": Evil(mark)})):
        with pytest.raises(UnsafeModel):
            unpack(content)
    assert not mark.exists()
    # The same bytes are dangerous to who trusts them.
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()


@pytest.mark.parametrize("content", [b"", b"no archive", json.dumps({}).encode()])
def test_what_is_no_model_is_refused_in_a_sentence(content: bytes) -> None:
    with pytest.raises(UnsafeModel, match="train anew"):
        unpack(content)


def test_an_archive_without_a_model_is_refused() -> None:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("schema.json", "{}")
    with pytest.raises(UnsafeModel):
        unpack(file.getvalue())


def forged(**changes: Any) -> bytes:
    """A forest whose first tree's nodes were changed: ``left_child``, ``right_child`` or ``feature`` of the root."""
    model = forest()
    tree = model.estimators_[0].tree_
    state = tree.__getstate__()
    for name, value in changes.items():
        state["nodes"][name][0] = value
    tree.__setstate__(state)
    return pack(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"left_child": 1_000_000},
        {"right_child": 1_000_000},
        {"right_child": -7},
        {"left_child": 0},
        {"feature": 1_000_000},
        {"feature": -3},
    ],
    ids=str,
)
def test_a_tree_that_leads_out_of_the_memory_is_refused(changes: dict[str, int]) -> None:
    unpack(forged())
    with pytest.raises(UnsafeModel, match="damaged or forged"):
        unpack(forged(**changes))


def test_a_forest_of_trees_for_other_pictures_is_refused() -> None:
    model = forest()
    # Only the first tree is asked how many features it wants.
    model.estimators_[2] = forest(9).estimators_[0]
    with pytest.raises(UnsafeModel, match="damaged or forged"):
        unpack(pack(model))


def test_something_else_in_the_place_of_a_model_is_refused_by_its_name() -> None:
    with pytest.raises(UnsafeModel, match="slice"):
        unpack(skops.io.dumps({"forest": forest(), "more": slice(1, 2)}))


# -- forged files -----------------------------------------------------------------------------------------


def lying(changes: dict[str, Any]) -> bytes:
    """A stored forest in whose file the first tree says something else of itself."""
    parts = parts_of(pack(forest()))
    schema = json.loads(parts["schema.json"])
    tree = next(node for _, node in nodes_of(schema) if node["__loader__"] == "TreeNode")
    state, arguments = tree["content"]["content"], tree["__reduce__"]["args"]["content"]
    for key, value in changes.items():
        if key == "n_features":
            arguments[0]["content"] = json.dumps(value)
        elif key == "n_outputs":
            arguments[2]["content"] = json.dumps(value)
        elif key == "n_classes":
            parts[arguments[1]["file"]] = saved(np.array(value))
        elif key in ("max_depth", "node_count"):
            state[key]["content"] = json.dumps(value)
        elif key == "values":
            parts[state["values"]["file"]] = saved(value)
        else:
            nodes = np.load(BytesIO(parts[state["nodes"]["file"]])).copy()
            nodes[key][0] = value
            parts[state["nodes"]["file"]] = saved(nodes)
    parts["schema.json"] = json.dumps(schema).encode()
    return joined(parts)


LIES: list[dict[str, Any]] = [
    {"n_features": 1},
    {"n_features": 2**31 - 1},
    {"n_outputs": 1_000_000},
    {"n_outputs": 0},
    {"n_classes": [2, 1_000_000]},
    {"n_classes": [2, 0]},
    {"max_depth": -1},
    {"max_depth": 0},
    {"node_count": 1_000_000},
    {"node_count": -1},
    {"node_count": 1},
    {"left_child": 2},
    {"left_child": -1},
    {"n_node_samples": -5},
    {"weighted_n_node_samples": float("nan")},
    {"impurity": float("inf")},
    {"threshold": float("nan")},
    {"missing_go_to_left": 7},
    {"values": np.zeros((1, 2, 2))},
]


@pytest.mark.parametrize("lies", LIES, ids=lambda lies: str(lies)[:40])
def test_a_tree_that_lies_about_any_of_its_numbers_is_refused(lies: dict[str, Any]) -> None:
    unpack(lying({}))
    with pytest.raises(UnsafeModel, match="damaged or forged"):
        unpack(lying(lies))


@pytest.mark.timeout(500)
def test_what_is_refused_here_ends_a_process_that_believes_it(tmp_path: Path) -> None:
    # One process for each file, forked: to import what opens them takes much longer than to open them.
    program = """
import os, resource, sys
from pathlib import Path
from tests.support.forging import skops_alone
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for name in sys.argv[1:]:
    if not (child := os.fork()):
        model = skops_alone(Path(name).read_bytes())
        for tree in model.estimators_:
            tree.feature_importances_
            tree.decision_path([[0.5] * 5] * 1000)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    files = []
    for number, lies in enumerate(({"feature": 1_000_000_000}, {"left_child": 1_000_000_000})):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(lying(lies))
    command = [sys.executable, "-c", program, *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.split() == [str(-signal.SIGSEGV)] * 2


@pytest.mark.timeout(500)
def test_no_forged_file_ends_the_process_and_all_are_refused_in_a_sentence_or_work() -> None:
    count = examples(300)
    found = campaign(count, seed=7)
    assert (found.crashed, found.escaped) == ({}, [])
    assert found.refused + found.used == count
    assert min(found.refused, found.used) > count // 10


@pytest.mark.timeout(500)
def test_forging_finds_a_reader_that_believes_what_it_reads() -> None:
    # A seed that meets a process that ends before one that hangs, which would compute for all of its seconds.
    found = campaign(200, seed=3, reader="skops", first_crash=True, seconds=5)
    assert "SIGSEGV" in found.crashed.values()


def test_a_file_that_unpacks_to_more_than_is_allowed_is_refused_before_it_does() -> None:
    content = pack({"zeros": np.zeros(4_000_000)})
    assert len(content) < 100_000
    with pytest.raises(UnsafeModel, match="pass a larger limit"):
        unpack(content, limit=1_000_000)
    assert len(unpack(content)["zeros"]) == 4_000_000


def test_a_file_starts_no_more_threads_than_there_are_processors() -> None:
    model = forest().set_params(n_jobs=100_000)
    assert unpack(pack(model)).n_jobs == os.cpu_count()


# -- what works -------------------------------------------------------------------------------------------


@settings(max_examples=examples(60))
@given(
    st.sampled_from([ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor, DecisionTreeClassifier, ExtraTreeRegressor]),
    st.integers(1, 3),
    st.sampled_from([None, 0, 1, 4]),
    st.sampled_from([None, 2, 9]),
    st.sampled_from([0.0, 0.02]),
    st.booleans(),
)  # fmt: skip
def test_each_model_that_is_stored_answers_as_before(
    kind: Any, outputs: int, depth: int | None, leaves: int | None, pruned: float, unknown: bool
) -> None:
    random = np.random.default_rng(outputs)
    seen = random.random((50, 4))
    told = (seen[:, :outputs] * 3).astype(int)
    if unknown and "Random" in kind.__name__:
        seen[::7, 1] = np.nan
    options = {"n_estimators": 3} if "estimators" in str(kind._get_param_names()) else {}
    model = kind(max_depth=depth or None, max_leaf_nodes=leaves, ccp_alpha=pruned, random_state=0, **options)
    model.fit(seen, told if outputs > 1 else told[:, 0])
    again = unpack(pack(model))
    assert again.get_params() == model.get_params()
    assert np.array_equal(again.predict(seen), model.predict(seen))
    assert np.array_equal(again.apply(seen), model.apply(seen))
    assert np.array_equal(again.feature_importances_, model.feature_importances_, equal_nan=True)
    paths = [one.decision_path(seen) for one in (again, model)]
    one, two = (p[0] if isinstance(p, tuple) else p for p in paths)
    assert (one != two).nnz == 0


def test_a_pipeline_comes_back_and_words_for_classes_do() -> None:
    random = np.random.default_rng(0)
    seen = random.random((60, 3))
    told = np.array(["a", "b", "µ"], object)[(seen[:, 0] * 3).astype(int)]
    for model in (
        make_pipeline(StandardScaler(), LogisticRegression()),
        ExtraTreesClassifier(3, class_weight={"a": 2.0, "b": 1, "µ": 1}),
    ):
        model.fit(seen, told)
        again = unpack(pack(model))
        assert list(again.predict(seen)) == list(model.predict(seen))
        assert np.array_equal(again.predict_proba(seen), model.predict_proba(seen))


def test_what_could_not_be_read_back_is_refused_when_it_is_stored() -> None:
    model = SVC().fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(UnsafeModel, match="SVC"):
        pack(model)


# -- models of this package -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"reach": np.full((1, 2), 1e12)}, {"reach": np.full((1, 2), np.nan)}, {"mean": np.zeros((2, 2))}, {"window": 10**9},
     {"levels": -1}, {"names": ["a", "b"]}, {"forests": []}, {"levels": True}, {"forests": [3]}, {"near": None, "names": 1}],
    ids=str,
)  # fmt: skip
def test_landmarks_whose_numbers_do_not_fit_are_refused_before_they_are_looked_for(
    change: dict[str, Any],
) -> None:
    random = np.random.default_rng(0)
    pictures = [random.random((24, 30)) for _ in range(3)]
    places = random.uniform(8, 16, (3, 1, 2))
    model = landmarks.fit(pictures, places, ["a"], levels=2, window=2, trees=2, progress=False)
    landmarks.predict(unpack(pack(model)), pictures[0])
    with pytest.raises(UnsafeModel, match="no model of landmarks"):
        landmarks.predict(unpack(pack({**model, **change})), pictures[0])
    with pytest.raises(UnsafeModel, match="no model of landmarks"):
        landmarks.predict({}, pictures[0])


def test_a_pixel_classifier_with_answers_for_other_pixels_is_refused() -> None:
    random = np.random.default_rng(0)
    model = ExtraTreesClassifier(2, random_state=0).fit(
        random.random((30, 48)), random.integers(0, 2, (30, 3))
    )
    pixels = random.integers(0, 255, (12, 12, 3)).astype(np.uint8)
    with pytest.raises(ValueError, match="does not answer for 2 x 2 px"):
        subwindows.predict(unpack(pack(model)), pixels, size=4, answer=2, step=1, classes=2)
