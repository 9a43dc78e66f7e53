"""The components of a stack: their names, and what people call them."""

from __future__ import annotations

from .model import Extra

BASE = ("postgis", "mongo", "repository", "pims-cache", "pims", "core", "web-ui", "gateway")
EXTRAS = {
    Extra.CBIR: ("cbir-redis", "cbir"),
    Extra.MEILISEARCH: ("meilisearch",),
    Extra.SAM: ("sam",),
    Extra.APP_ENGINE: ("app-engine-db", "registry", "app-engine"),
}
# In the gateway's pod: an image and a size of its own, but no component.
LOGIN = "oauth2-proxy"
# No component either: a Job while datasets are put into the stack.
DATASETS = "datasets"
ALL = BASE + tuple(name for names in EXTRAS.values() for name in names)
TITLES = {
    "postgis": "Database",
    "mongo": "Activity database",
    "repository": "Repository",
    "pims-cache": "Image cache",
    "pims": "Image server",
    "core": "Core",
    "web-ui": "Web interface",
    "gateway": "Gateway",
    "cbir-redis": "Similarity index",
    "cbir": "Similarity search",
    "meilisearch": "Text search",
    "sam": "Segmentation",
    "app-engine-db": "App engine's database",
    "registry": "App registry",
    "app-engine": "App engine",
    DATASETS: "Import of datasets",
}
