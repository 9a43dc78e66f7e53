"""Trained models as files that may be read back, also where others could have put them.

A pickle is a program: who loads it runs what its author wrote. skops' files hold data alone, and are written here; but
its reader believes the numbers in them, and scikit-learn's compiled code writes outside of its memory where those of a
tree lie. So `unpack` makes the models anew, from numbers that it has checked. Needs the package's extra ``analysis``.
"""

from __future__ import annotations

import zipfile
from typing import Any

from .model_files import UNREADABLE, UnsafeModel, read
from .model_trees import FORGED, build

__all__ = ["FORGED", "UnsafeModel", "pack", "unpack"]

# What a model may take when it is unpacked, unless the caller allows more.
LIMIT = 1 << 30


def pack(model: Any) -> bytes:
    """A model as the content of a file.

    Args:
        model: a decision tree, random forest or extremely randomised trees of scikit-learn, a LogisticRegression or a
            StandardScaler, or a Pipeline of them, fitted; or a dictionary, list or tuple of them, arrays, numbers and
            texts.

    Raises:
        UnsafeModel: it holds something else, which `unpack` would refuse.
    """
    import skops.io
    from skops.io.exceptions import UnsupportedTypeException

    try:
        content = bytes(skops.io.dumps(model, compression=zipfile.ZIP_DEFLATED))
    except (UnsupportedTypeException, TypeError) as error:
        raise UnsafeModel(f"The model cannot be stored: {error}") from error
    # Better now than when the training is forgotten.
    unpack(content, limit=1 << 62)
    return content


def unpack(content: bytes, *, limit: int = LIMIT) -> Any:
    """The model in a file that `pack` made, without running anything that it brings.

    Args:
        content: of the file, for instance from `Run.read`.
        limit: bytes that it may take when it is unpacked.

    Returns:
        As `pack` got it. Of a forest what was noted on its training samples (scores out of the bag) is left out.

    Raises:
        UnsafeModel: it is no such file, is larger, holds what is no model of those kinds, or one whose numbers do not fit
            each other.
    """
    found = read(content, limit)
    try:
        return build(found, limit)
    except UnsafeModel:
        raise
    except Exception as error:  # what is missing, or of another type than any model has
        raise UnsafeModel(UNREADABLE) from error
