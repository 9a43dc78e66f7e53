"""Stand-in for Cytomine: the zoom levels of a slide, as core counts and the image server cuts them."""

from __future__ import annotations

import math


def levels(width: int, height: int, tile: int = 256) -> int:
    """The number of the highest zoom level; level 0 fits one tile."""
    return max(0, math.ceil(math.log2(max(width, height) / tile)))
