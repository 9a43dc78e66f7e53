"""A stored model comes back as it was; a file that somebody forged does not."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import ExtraTreesClassifier

from cytomine_spawner.notebook.models import UnsafeModel, pack, unpack


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
    with pytest.raises(UnsafeModel, match="leads out of itself"):
        unpack(forged(**changes))


def test_a_tree_that_says_it_has_more_nodes_than_it_brings_has_those_that_it_brings() -> None:
    file = BytesIO(pack(forest()))
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(parts["schema.json"])
    first = schema["content"]["content"]["estimators_"]["content"][0]
    count = first["content"]["content"]["tree_"]["content"]["content"]["node_count"]
    brought = int(count["content"])
    count["content"] = "1000000"
    parts["schema.json"] = json.dumps(schema).encode()
    changed = BytesIO()
    with zipfile.ZipFile(changed, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert unpack(changed.getvalue()).estimators_[0].tree_.node_count == brought


def test_a_forest_of_trees_for_other_pictures_is_refused() -> None:
    model = forest()
    # Only the first tree is asked how many features it wants.
    model.estimators_[2] = forest(9).estimators_[0]
    with pytest.raises(UnsafeModel, match="leads out of itself"):
        unpack(pack(model))


def test_something_else_in_the_place_of_a_model_is_refused_by_its_name() -> None:
    with pytest.raises(UnsafeModel, match="slice"):
        unpack(skops.io.dumps({"forest": forest(), "more": slice(1, 2)}))
