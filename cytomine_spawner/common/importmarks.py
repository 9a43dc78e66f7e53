"""By which properties in Cytomine the import and the service know what an import brought."""

from __future__ import annotations

# The web interface does not show properties whose keys begin so.
KEY = "@dataset-import"
PROJECT = "be.cytomine.domain.project.Project"
# On a project that an import made.
MADE = "made"


def brought(image: int, dataset: str) -> str:
    """The mark of an image that the import of a dataset brought.

    Args:
        image: its number.
        dataset: the dataset's name, with nothing percent-encoded; empty for one that no grant can be taken away of.
    """
    return f"brought {image} {dataset}".rstrip()


def is_of(mark: str, dataset: str) -> bool:
    """Whether a mark is of an image, there or not any more, that the import of a dataset brought."""
    word, _, rest = mark.partition(" ")
    return word == "brought" and rest.partition(" ")[2] == dataset
