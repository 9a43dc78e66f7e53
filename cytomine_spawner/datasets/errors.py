"""What can be wrong with a dataset, or with the stack that it goes to."""

from __future__ import annotations

from pathlib import Path


class DatasetError(Exception):
    """A dataset that cannot be read, or that Cytomine did not take; the message names the cause and the cure."""


class Interrupted(DatasetError):
    """No fault of a dataset: the stack does not answer, or lets nobody in. A later try may find it well."""


def unreadable(error: OSError, path: Path) -> DatasetError:
    """What is said of a file or folder that the system does not let us read."""
    return DatasetError(
        f"{error.filename or path} cannot be read ({error.strerror}). Let everybody read it and try again."
    )
