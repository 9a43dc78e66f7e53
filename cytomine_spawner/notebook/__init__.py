"""What a notebook imports to work with Cytomine. Needs neither JupyterHub's server nor Kubernetes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .connection import connect, environment, stacks, token
from .connection_service import StackInfo
from .errors import (
    CytomineError,
    CytomineUnreachable,
    KeysRefused,
    NoStack,
    ServiceUnreachable,
    StackFailed,
    StackHibernated,
    StackNotReady,
)

if TYPE_CHECKING:
    from .annotations import from_geojson, read_annotations, statistics, to_cytomine, to_geojson, to_image
    from .figures import figure
    from .images import preview, slices, thumb
    from .provenance import Run, run, runs
    from .regions import Level, channels, crop, level_for, levels, region
    from .reviews import NotYourReview, review, start_review, stop_review
    from .safe import add_term, attach, download, fetch_all, remove_term, tag, term_ids, terms
    from .shapes import InvalidGeometry
    from .slides import NotASlide, Slide, open_slide
    from .tiling import Tile, lazy, tiles
    from .transport import RequestFailed, guard
    from .uploads import UploadIncomplete, upload
    from .viewer import Viewer, view

__all__ = [
    "CytomineError",
    "CytomineUnreachable",
    "InvalidGeometry",
    "KeysRefused",
    "Level",
    "NoStack",
    "NotASlide",
    "NotYourReview",
    "RequestFailed",
    "Run",
    "ServiceUnreachable",
    "Slide",
    "StackFailed",
    "StackHibernated",
    "StackInfo",
    "StackNotReady",
    "Tile",
    "UploadIncomplete",
    "Viewer",
    "add_term",
    "attach",
    "channels",
    "connect",
    "crop",
    "download",
    "environment",
    "fetch_all",
    "figure",
    "from_geojson",
    "guard",
    "lazy",
    "level_for",
    "levels",
    "open_slide",
    "preview",
    "read_annotations",
    "region",
    "remove_term",
    "review",
    "run",
    "runs",
    "slices",
    "stacks",
    "start_review",
    "statistics",
    "stop_review",
    "tag",
    "term_ids",
    "terms",
    "thumb",
    "tiles",
    "to_cytomine",
    "to_geojson",
    "to_image",
    "token",
    "upload",
    "view",
]

# Read when they are first used: connect() needs neither GeoPandas nor a widget.
_MODULES = {
    "annotations": (
        "from_geojson",
        "read_annotations",
        "statistics",
        "to_cytomine",
        "to_geojson",
        "to_image",
    ),
    "figures": ("figure",),
    "images": ("preview", "slices", "thumb"),
    "provenance": ("Run", "run", "runs"),
    "regions": ("Level", "channels", "crop", "level_for", "levels", "region"),
    "reviews": ("NotYourReview", "review", "start_review", "stop_review"),
    "safe": (
        "add_term",
        "attach",
        "download",
        "fetch_all",
        "remove_term",
        "tag",
        "term_ids",
        "terms",
    ),
    "shapes": ("InvalidGeometry",),
    "slides": ("NotASlide", "Slide", "open_slide"),
    "tiling": ("Tile", "lazy", "tiles"),
    "transport": ("RequestFailed", "guard"),
    "uploads": ("UploadIncomplete", "upload"),
    "viewer": ("Viewer", "view"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
