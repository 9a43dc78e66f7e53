"""What became of the copies of datasets that the archive grants no more, and how it is said. No input or output here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Fate(str, Enum):
    """What was done with a copy, or was begun: whatever was begun is done again until it is done."""

    KEPT = "kept"
    HIDING = "hiding"
    HIDDEN = "hidden"
    DELETING = "deleting"
    DELETED = "deleted"


@dataclass
class Copy:
    """The copy of a dataset that is not granted any more.

    Attributes:
        noticed: when that was found.
        fate: what was done with it.
        project: its project's number in Cytomine.
        people: who was taken out of the project, by their numbers, and what they were there.
        uploads: the files of the slides that are to be deleted.
        images: these slides in the project.
        stays: why its project was left when the slides were deleted, as a sentence; empty if it was not.
        back: the run in which a deleted one was found to be granted again.
    """

    noticed: str
    fate: Fate = Fate.KEPT
    project: int = 0
    people: dict[int, str] = field(default_factory=dict)
    uploads: set[int] = field(default_factory=set)
    back: str = ""
    images: set[int] = field(default_factory=set)
    stays: str = ""

    @property
    def is_gone(self) -> bool:
        """Whether nobody sees it in Cytomine any more, or is about to."""
        return self.fate is not Fate.KEPT

    @property
    def is_lost(self) -> bool:
        """Whether its slides were deleted, or some of them may have been."""
        return self.fate in (Fate.DELETING, Fate.DELETED)


Record = dict[str, Copy]


def write(record: Record) -> str:
    """A record as text."""
    texts = {
        name: {
            "noticed": copy.noticed,
            "fate": copy.fate.value,
            "project": copy.project,
            "people": {str(number): role for number, role in sorted(copy.people.items())},
            "uploads": sorted(copy.uploads),
            "back": copy.back,
            "images": sorted(copy.images),
            "stays": copy.stays,
        }
        for name, copy in sorted(record.items())
    }
    return json.dumps(texts, ensure_ascii=False, separators=(",", ":"))


def read(text: str) -> Record:
    """The record in a text.

    Raises:
        ValueError: if it is none.
    """
    try:
        return {str(name): _copy(one) for name, one in json.loads(text).items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("this is no record of copies") from error


def _copy(one: dict[str, Any]) -> Copy:
    people = {int(number): str(role) for number, role in one["people"].items()}
    uploads = set(map(int, one["uploads"]))
    noticed, back = str(one["noticed"]), str(one["back"])
    images, stays = set(map(int, one.get("images", ()))), str(one.get("stays", ""))
    fate = Fate(one["fate"])
    if "images" not in one:
        # The version before was to delete all slides of the project, also those that its owner had put there.
        uploads = set()
        if fate is Fate.DELETING:
            fate = Fate.HIDDEN if people else Fate.KEPT
    return Copy(noticed, fate, int(one["project"]), people, uploads, back, images, stays)
