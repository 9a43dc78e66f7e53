"""Models of scikit-learn made anew from the values in a file, each of which is checked against the others.

A tree's compiled code goes where the numbers of its nodes lead, and writes as far as its counts say: a single wrong one
ends the process, or worse. So nothing of a file gets into an estimator but its settings and the numbers below, and no
other kind of estimator is made: of those that are, all but trees compute in NumPy alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .model_files import TREE, Described, UnsafeModel, unknown

FORGED = "The numbers of a model lead out of it or contradict each other: the file is damaged or forged. Train anew."
TREES = ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor")
# Forests, and the trees that each consists of.
FORESTS = {
    "ExtraTreesClassifier": "ExtraTreeClassifier",
    "ExtraTreesRegressor": "ExtraTreeRegressor",
    "RandomForestClassifier": "DecisionTreeClassifier",
    "RandomForestRegressor": "DecisionTreeRegressor",
}
# Of others the arrays, each with a letter for the length of every side: F features, C classes, K rows of coefficients.
OTHERS: dict[str, dict[str, str]] = {
    "LogisticRegression": {"classes_": "C", "coef_": "KF", "intercept_": "K"},
    "StandardScaler": {"mean_": "F", "var_": "F", "scale_": "F"},
}
OPTIONAL = ("mean_", "var_", "scale_")
MODULES = {
    **{f"sklearn.tree._classes.{name}": name for name in TREES},
    **{f"sklearn.ensemble._forest.{name}": name for name in FORESTS},
    "sklearn.linear_model._logistic.LogisticRegression": "LogisticRegression",
    "sklearn.preprocessing._data.StandardScaler": "StandardScaler",
    "sklearn.pipeline.Pipeline": "Pipeline",
}
LEAF, NO_FEATURE = -1, -2
# What predicting takes grows with these, whatever the file's size.
FEATURES, ANSWERS, DEPTH, SAMPLES = 1_000_000, 1_000_000, 10_000, 1 << 53
VERSION = re.compile(r"[0-9A-Za-z.+-]{1,40}")


def build(thing: Any, limit: int) -> Any:
    """A value of a file with its models made.

    Args:
        thing: from `model_files.read`.
        limit: bytes that the importances of a forest's features may take.

    Raises:
        UnsafeModel: it holds something else than models, or one whose numbers do not fit each other.
    """
    if isinstance(thing, Described):
        return _estimator(thing, limit)
    if isinstance(thing, dict):
        return {key: build(value, limit) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(build(value, limit) for value in thing)
    if isinstance(thing, np.ndarray):
        _plain(thing)
        # An array may be in several places of a file, and whoever changes one means that one.
        return thing.copy()
    return thing


def _estimator(thing: Described, limit: int) -> Any:
    name = MODULES.get(thing.kind)
    if name is None:
        raise unknown(thing.kind)
    if name == "Pipeline":
        return _pipeline(thing.state, limit)
    if name in TREES:
        return _tree_estimator(name, thing.state)
    if name in FORESTS:
        return _forest(name, thing.state, limit)
    return _other(name, thing.state)


def _made(name: str, state: dict[str, Any], fitted: dict[str, Any]) -> Any:
    """An estimator with the settings of a file, and what it learnt."""
    import sklearn.ensemble
    import sklearn.linear_model
    import sklearn.preprocessing
    import sklearn.tree

    places = (sklearn.tree, sklearn.ensemble, sklearn.linear_model, sklearn.preprocessing)
    kind = next(getattr(place, name) for place in places if hasattr(place, name))
    known = kind._get_param_names()
    settings = {key: _plain(value) for key, value in state.items() if key in known}
    if "n_jobs" in settings:
        settings["n_jobs"] = _jobs(settings["n_jobs"])
    if "verbose" in settings:
        # What a training wrote on its way would be written at each prediction.
        settings["verbose"] = 0
    made = kind(**settings)
    names = state.get("feature_names_in_")
    if names is not None:
        _need(isinstance(names, np.ndarray) and names.shape == (fitted["n_features_in_"],))
        _need(all(isinstance(one, str) for one in names.tolist()))
        fitted["feature_names_in_"] = names.copy()
    version = state.get("_sklearn_version")
    _need(isinstance(version, str) and bool(VERSION.fullmatch(version)))
    # Warns where the file is of another version, as scikit-learn does.
    made.__setstate__({**vars(made), **fitted, "_sklearn_version": version})
    return made


def _jobs(wanted: Any) -> int | None:
    """Not more threads than there are processors, whatever the file says."""
    if wanted is None:
        return None
    number = _whole(wanted, -(1 << 20), 1 << 20)
    return min(number, os.cpu_count() or 1)


# -- trees ------------------------------------------------------------------------------------------------


def _tree_estimator(name: str, state: dict[str, Any]) -> Any:
    features = _whole(state["n_features_in_"], 1, FEATURES)
    outputs = _whole(state["n_outputs_"], 1, ANSWERS)
    fitted: dict[str, Any] = {"n_features_in_": features, "n_outputs_": outputs}
    if name.endswith("Classifier"):
        classes = _classes(state["classes_"], outputs)
        counts = np.array([len(one) for one in classes], np.intp)
        _need(np.array_equal(np.atleast_1d(np.asarray(state["n_classes_"])), counts))
        fitted["classes_"] = classes if outputs > 1 else classes[0]
        fitted["n_classes_"] = counts if outputs > 1 else counts[0]
    else:
        counts = np.ones(outputs, np.intp)
    if "max_features_" in state:
        fitted["max_features_"] = _whole(state["max_features_"], 1, features)
    fitted["tree_"] = _tree(state["tree_"], features, counts, name.endswith("Classifier"))
    return _made(name, state, fitted)


def _tree(thing: Any, features: int, counts: np.ndarray[Any, Any], classifies: bool) -> Any:
    from sklearn.tree._tree import Tree

    _need(isinstance(thing, Described) and thing.kind == TREE and len(thing.arguments) == 3)
    wide, classes, outputs = thing.arguments
    _need(_whole(wide, 1, FEATURES) == features and _whole(outputs, 1, ANSWERS) == len(counts))
    _need(isinstance(classes, np.ndarray) and classes.dtype.kind in "iu" and np.array_equal(classes, counts))
    largest = int(counts.max())
    _need(largest * len(counts) <= ANSWERS)
    nodes, values = thing.state["nodes"], thing.state["values"]
    depth = _depth(nodes, features)
    _need(_whole(thing.state["node_count"], 1, 1 << 40) == len(nodes))
    _need(_whole(thing.state["max_depth"], 0, DEPTH) == depth)
    _need(isinstance(values, np.ndarray) and values.dtype == np.float64)
    _need(values.shape == (len(nodes), len(counts), largest) and bool(np.isfinite(values).all()))
    if classifies:
        _need(np.allclose(values.sum(axis=2), 1, rtol=0, atol=1e-6))
        beyond = np.arange(largest) >= counts[:, None]
        _need(not values[:, beyond].any())
    made = Tree(features, counts, len(counts))
    # Copied by the tree itself; a table that is not in C's order would be taken for one that is.
    parts = {"nodes": np.ascontiguousarray(nodes), "values": np.ascontiguousarray(values)}
    made.__setstate__({"max_depth": depth, "node_count": len(nodes), **parts})
    return made


def _depth(nodes: Any, features: int) -> int:
    """How many steps lead to the last leaf.

    Raises:
        UnsafeModel: the nodes are no tree, or ask for features that there are not.
    """
    from sklearn.tree._tree import NODE_DTYPE

    _need(isinstance(nodes, np.ndarray) and nodes.dtype == NODE_DTYPE and nodes.ndim == 1 and len(nodes) > 0)
    left, right, feature = (nodes[key] for key in ("left_child", "right_child", "feature"))
    inner = left != LEAF
    at = np.flatnonzero(inner)
    children = np.concatenate([left[inner], right[inner]])
    # Each node but the first has one parent, which comes before it: that is a tree, and all of it is reached.
    _need(np.array_equal(np.sort(children), np.arange(1, len(nodes))))
    _need(bool((left[inner] > at).all() and (right[inner] > at).all() and (right[~inner] == LEAF).all()))
    _need(bool(((feature[inner] >= 0) & (feature[inner] < features)).all()))
    _need(bool((feature[~inner] == NO_FEATURE).all()))
    samples, weights = nodes["n_node_samples"], nodes["weighted_n_node_samples"]
    _need(bool(((samples >= 1) & (samples <= SAMPLES)).all()))
    _need(bool((samples[inner] == samples[left[inner]] + samples[right[inner]]).all()))
    _need(bool(np.isfinite(weights).all() and np.isfinite(nodes["impurity"]).all()))
    # A threshold is infinite where all that is known goes one way.
    _need(not np.isnan(nodes["threshold"]).any() and bool((nodes["missing_go_to_left"] <= 1).all()))
    depth, level = 0, np.zeros(1, np.intp)
    while len(level := level[inner[level]]):
        level = np.concatenate([left[level], right[level]])
        depth += 1
        _need(depth <= DEPTH)
    return depth


def _forest(name: str, state: dict[str, Any], limit: int) -> Any:
    features = _whole(state["n_features_in_"], 1, FEATURES)
    outputs = _whole(state["n_outputs_"], 1, ANSWERS)
    members = state["estimators_"]
    _need(isinstance(members, list) and len(members) > 0)
    _need(8 * features * len(members) <= limit)
    _need(_whole(state["n_estimators"], 1, len(members)) == len(members))
    trees = []
    for member in members:
        _need(isinstance(member, Described) and MODULES.get(member.kind) == FORESTS[name])
        tree = _tree_estimator(FORESTS[name], member.state)
        _need(tree.n_features_in_ == features and tree.n_outputs_ == outputs)
        trees.append(tree)
    fitted: dict[str, Any] = {"n_features_in_": features, "n_outputs_": outputs, "estimators_": trees}
    if name.endswith("Classifier"):
        classes = _classes(state["classes_"], outputs)
        counts = [len(one) for one in classes]
        _need(np.array_equal(np.atleast_1d(np.asarray(state["n_classes_"])), counts))
        _need(all(np.array_equal(np.atleast_1d(tree.n_classes_), counts) for tree in trees))
        fitted["classes_"] = classes if outputs > 1 else classes[0]
        fitted["n_classes_"] = counts if outputs > 1 else counts[0]
    return _made(name, state, fitted)


def _classes(found: Any, outputs: int) -> list[np.ndarray[Any, Any]]:
    """The classes of each output, of which none is twice."""
    listed = found if isinstance(found, list) else [found]
    _need(len(listed) == outputs)
    for one in listed:
        _need(isinstance(one, np.ndarray) and one.ndim == 1 and len(one) > 0)
        _plain(one)
        _need(len({*one.tolist()}) == len(one))
    return [one.copy() for one in listed]


# -- others -----------------------------------------------------------------------------------------------


def _other(name: str, state: dict[str, Any]) -> Any:
    lengths = {"F": _whole(state["n_features_in_"], 1, FEATURES)}
    fitted: dict[str, Any] = {"n_features_in_": lengths["F"]}
    for key, letters in OTHERS[name].items():
        value = state[key]
        if value is None and key in OPTIONAL:
            fitted[key] = None
            continue
        _need(isinstance(value, np.ndarray) and value.ndim == len(letters) and value.size > 0)
        _need(all(lengths.setdefault(x, n) == n for x, n in zip(letters, value.shape, strict=True)))
        _plain(value)
        _need(key == "classes_" or (value.dtype.kind == "f" and bool(np.isfinite(value).all())))
        fitted[key] = value.copy()
    if name == "LogisticRegression":
        _classes(fitted["classes_"], 1)
        _need(lengths["K"] == (1 if lengths["C"] == 2 else lengths["C"]))
    return _made(name, state, fitted)


def _pipeline(state: dict[str, Any], limit: int) -> Any:
    from sklearn.pipeline import Pipeline

    steps = state["steps"]
    _need(isinstance(steps, list) and len(steps) > 0)
    made = []
    for step in steps:
        _need(isinstance(step, tuple) and len(step) == 2 and isinstance(step[0], str))
        _need(isinstance(step[1], Described) or step[1] == "passthrough")
        made.append((step[0], build(step[1], limit)))
    return Pipeline(made)


# -- values -----------------------------------------------------------------------------------------------


def _need(good: Any) -> None:
    if not good:
        raise UnsafeModel(FORGED)


def _whole(value: Any, least: int, most: int) -> int:
    """A whole number in its bounds."""
    _need(isinstance(value, (int, np.integer)) and not isinstance(value, bool) and least <= value <= most)
    return int(value)


def _plain(value: Any) -> Any:
    """A value without any object in it."""
    if isinstance(value, dict):
        parts: Sequence[Any] = [*value, *value.values()]
    elif isinstance(value, (list, tuple)):
        parts = value
    elif isinstance(value, np.ndarray):
        parts = value.tolist() if value.dtype == object else []
        _need(not any(isinstance(part, (list, tuple, dict, np.ndarray)) for part in parts))
    else:
        if isinstance(value, Described):
            raise unknown(value.kind)
        return value
    for part in parts:
        _plain(part)
    return value
