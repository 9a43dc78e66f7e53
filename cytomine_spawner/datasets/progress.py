"""How far an import is, and how fast it went.

Two things go on at a time, annotations and the next upload; what is said has both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How far an import is.

    Attributes:
        done: finished steps.
        total: all steps: one for each dataset, image and annotation file.
        what: what was done last, as a phrase: "uploading skin.svs".
        fraction: of that step, 0 to 1.
        images: how many are in Cytomine.
        of_images: how many there are to be.
        annotations: how many are in Cytomine, as far as they were looked at.
        lanes: all that is done now: phrases with their fractions.
        waits: what is waited for, why, what to do about it, and until when; empty while nothing is.
    """

    done: int
    total: int
    what: str
    fraction: float = 0.0
    images: int = 0
    of_images: int = 0
    annotations: int = 0
    lanes: tuple[tuple[str, float], ...] = ()
    waits: str = ""

    def __str__(self) -> str:
        """A line for people."""
        now = " and ".join(
            f"{what} ({part:.0%})" if part else what for what, part in self.lanes or ((self.what, 0.0),)
        )
        if self.waits:
            now = f"{now}, waiting for {self.waits}"
        if not self.total:
            return now
        have = f"{self.images} of {self.of_images} images and {self.annotations} annotations are in"
        return f"{have}, {now}"


@dataclass
class Pace:
    """What was sent, and how long it took, to be compared with what Cytomine can do at best.

    Attributes:
        images: how many were uploaded.
        image_seconds: in which Cytomine worked on them, or they were on their way.
        annotations: how many were stored.
        annotation_seconds: in which Cytomine stored them.
        seconds: of the whole import.
        clock: seconds that only go forward.
    """

    images: int = 0
    image_seconds: float = 0.0
    annotations: int = 0
    annotation_seconds: float = 0.0
    seconds: float = 0.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def uploaded(self, seconds: float) -> None:
        """An image was uploaded, and it took so long."""
        self.images += 1
        self.image_seconds += seconds

    @contextmanager
    def stored(self, count: int) -> Iterator[None]:
        """A call that stores so many annotations, which count once it went well."""
        began = self.clock()
        yield
        self.annotations += count
        self.annotation_seconds += self.clock() - began

    def __str__(self) -> str:
        """A phrase; empty if nothing was sent."""
        parts = []
        if self.images:
            parts.append(f"{self.images} images at {self.image_seconds / self.images:.1f} s each")
        if self.annotations:
            # A clock may stand still between two calls.
            rate = self.annotations / max(self.annotation_seconds, 1e-9)
            each = 1000 * self.annotation_seconds / self.annotations
            parts.append(f"{self.annotations} annotations at {each:.0f} ms each ({rate:.1f} a second)")
        return f"sent {' and '.join(parts)} in {self.seconds:.0f} s" if parts else ""


class Board:
    """What is under way in an import of several datasets.

    Args:
        tell: hears of each change; must not block.
    """

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self._tell = tell
        self._done = self._total = self._images = self._of_images = 0
        self._annotations = self._in_file = 0
        self._annotating: tuple[str, float] | None = None
        self._uploading: tuple[str, float] | None = None

    def begin(self, steps: int, images: int) -> None:
        """Begin anew, with so many steps and images before us."""
        self._done = self._images = self._annotations = self._in_file = 0
        self._total, self._of_images = steps, images
        self._annotating = self._uploading = None

    def finish(self, steps: int = 1) -> None:
        """So many steps are done, or given up."""
        self._done += steps

    def has_image(self) -> None:
        """One more image is in, and no upload is under way."""
        self._images += 1

    def has_annotations(self, count: int) -> None:
        """A file is done, of which so many are in."""
        self._annotations += count
        self._in_file = 0

    def say(self, what: str) -> None:
        """Something that goes on alone."""
        self._annotating = self._uploading = None
        self._told(what, 0.0)

    def uploading(self, what: str, fraction: float = 0.0) -> None:
        """What is done about the next image; nothing if empty."""
        self._uploading = (what, fraction) if what else None
        if what:
            self._told(what, fraction)

    def annotating(self, what: str, fraction: float = 0.0, count: int = 0) -> None:
        """What is done about annotations; nothing if empty.

        Args:
            what: a phrase.
            fraction: of the file.
            count: annotations of the file that are in.
        """
        self._annotating, self._in_file = (what, fraction) if what else None, count
        if what:
            self._told(what, fraction)

    def _told(self, what: str, fraction: float) -> None:
        lanes = tuple(lane for lane in (self._annotating, self._uploading) if lane)
        count = self._annotations + self._in_file
        self._tell(
            Progress(self._done, self._total, what, fraction, self._images, self._of_images, count, lanes)
        )
