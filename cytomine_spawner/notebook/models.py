"""Trained models as files that may be read back, also where others could have put them.

A pickle is a program: who loads it runs what its author wrote. skops' files hold only the data of types that one
trusts; of scikit-learn's forests it still trusts no tree, because a tree's numbers of nodes are used unchecked when it
predicts. `unpack` checks them. Needs the package's extra ``analysis``.
"""

from __future__ import annotations

import zipfile
from typing import Any

from .errors import CytomineError

TREE = "sklearn.tree._tree.Tree"
FORGED = "A tree in the file leads out of itself: the file is damaged or forged. Train anew."


class UnsafeModel(CytomineError):
    """A file is no model, or holds what could run code or harm the notebook; nothing of it is used."""


def pack(model: Any) -> bytes:
    """A model as the content of a file.

    Args:
        model: an estimator of scikit-learn; or a dictionary, list or tuple of estimators, arrays, numbers and texts.
    """
    import skops.io

    return bytes(skops.io.dumps(model, compression=zipfile.ZIP_DEFLATED))


def unpack(content: bytes) -> Any:
    """The model in a file that `pack` made, without running anything that it brings.

    Args:
        content: of the file, for instance from `Run.read`.

    Raises:
        UnsafeModel: it is no such file, holds types that are not trusted, or a tree whose nodes lead out of it.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        foreign = sorted(set(skops.io.get_untrusted_types(data=content)) - {TREE})
        if foreign:
            raise UnsafeModel(
                f"The file holds what is no trained model ({', '.join(foreign)}): ask who stored it, or train anew."
            )
        model = skops.io.loads(content, trusted=[TREE])
    except (UntrustedTypesFoundException, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        raise UnsafeModel("The file is no model that this version can read: train anew.") from error
    _check(model)
    return model


def _check(thing: Any) -> None:
    """Whether all parts are known, and the trees' nodes are all there.

    Raises:
        UnsafeModel: saying what is not.
    """
    import numpy as np

    if thing is None or isinstance(thing, (bool, int, float, str, np.generic)):
        return
    if isinstance(thing, np.ndarray):
        parts = thing.ravel().tolist() if thing.dtype == object else []
    elif isinstance(thing, dict):
        parts = [*thing, *thing.values()]
    elif isinstance(thing, (list, tuple)):
        parts = list(thing)
    elif type(thing).__module__.startswith("sklearn.") and hasattr(thing, "get_params"):
        parts = [value for name, value in vars(thing).items() if name != "tree_"]
        features = int(getattr(thing, "n_features_in_", 0))
        if hasattr(thing, "tree_"):
            _check_tree(thing.tree_, features)
        # A forest looks at the first tree only to see whether what it is given is wide enough.
        members = getattr(thing, "estimators_", ())
        if any(getattr(member, "n_features_in_", -1) != features for member in np.ravel(members)):
            raise UnsafeModel(FORGED)
    else:
        raise UnsafeModel(f"The file holds a {type(thing).__name__} where no model has one: train anew.")
    for part in parts:
        _check(part)


def _check_tree(tree: Any, features: int) -> None:
    """Whether each node leads to later ones, and asks for a feature that exists."""
    import numpy as np

    good = tree.node_count > 0
    if good:
        inner = tree.children_left != -1
        after = np.arange(tree.node_count)[inner]
        good = all(
            ((side[inner] > after) & (side[inner] < tree.node_count)).all()
            for side in (tree.children_left, tree.children_right)
        )
        good = good and bool(((tree.feature[inner] >= 0) & (tree.feature[inner] < features)).all())
    if not good:
        raise UnsafeModel(FORGED)
