"""Thousands of annotations into Cytomine: in parts, in parallel, none lost and none doubled.

Cytomine answers a list of annotations with their ids, in the list's order. Where that answer is cut off, nobody
knows what was stored: then what is there is read back and recognised by image, user, geometry and terms; only what
is missing is sent again, and what turns up twice afterwards is deleted. The same reading back makes a second run
of the same upload harmless, also in a new kernel.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Literal

import geopandas
from cytomine.models import ImageInstance
from tqdm.auto import tqdm

from .errors import CytomineError, CytomineUnreachable
from .images import image_of, user_id
from .origins import Origin, origin_of
from .run_logs import within
from .safe import delete_annotation, pages, term_ids
from .shapes import Item, Stored, prepare
from .transport import RequestFailed, call, current
from .values import marks, whole

LOG = logging.getLogger(__name__)
CHUNK = 50
WORKERS = 8
PATIENCE = 120.0
ADDED = re.compile(r"^userannotations ([\d,]+) added$")


class UploadIncomplete(CytomineError):
    """Not everything could be stored. Running the same upload again sends only what is missing.

    Attributes:
        ids: the ids in the order of the rows; None for those that are not stored.
        failures: why, by row number (from 0), where Cytomine said so.
    """

    def __init__(self, ids: list[int | None], failures: dict[int, str]) -> None:
        self.ids, self.failures = ids, failures
        missing = sum(i is None for i in ids)
        why = f" The first reason: row {min(failures)}: {failures[min(failures)]}" if failures else ""
        super().__init__(
            f"{len(ids) - missing} of {len(ids)} annotations are stored, {missing} are not. "
            f"Run the upload again: what is stored is not sent twice.{why}"
        )


def upload(
    data: geopandas.GeoDataFrame,
    image: ImageInstance | int | None = None,
    *,
    terms: Sequence[int | str] | int | str | None = None,
    origin: Origin | None = None,
    existing: Literal["reuse", "add"] = "reuse",
    repair: bool = False,
    chunk: int = CHUNK,
    workers: int = WORKERS,
    patience: float = PATIENCE,
    progress: bool = True,
) -> list[int]:
    """Store annotations, in the order of the rows.

    All geometries and terms are checked before anything is sent. What reaches over the image's border is cut there.

    Args:
        data: rows with a geometry (px), and optionally ``term_name`` (names) or, without that column, ``term`` (ids), and
            ``image`` (id) where ``image`` is not given. A row's terms are one, several in a list or array, or none.
        image: the image or its id, for all rows.
        terms: terms (ids or names) for all rows, in the place of the columns.
        origin: ``top-left`` or ``bottom-left``; if not given, what the frame says (`read_annotations`, `from_geojson` and
            `frame` make frames that do). It is never guessed.
        existing: ``reuse`` gives the id of an annotation of yours with the same geometry and terms where there is one
            already; ``add`` stores all rows anew.
        repair: make invalid polygons valid instead of refusing them: parts are united, what an outline goes around twice
            is inside, and holes are taken out once.
        chunk: annotations per request at most. Cytomine takes about 0.1 s for each.
        workers: requests at the same time.
        patience: seconds without any success after which it gives up.
        progress: show a progress bar (annotations).

    Returns:
        The annotations' ids, one per row.

    Raises:
        InvalidGeometry: naming the rows; nothing was sent.
        ValueError: there is no image or no such term, or nobody says where the origin is; nothing was sent.
        UploadIncomplete: something could not be stored; its ``ids`` say what was.
    """
    if existing not in ("reuse", "add"):
        raise ValueError(f"existing must be reuse or add, not {existing!r}.")
    items = _items(data, image, terms, origin_of(data, origin), repair)
    job = _Upload(items, existing == "reuse", max(1, chunk), max(1, workers), patience)
    with tqdm(total=len(items), unit="annotation", desc="upload", disable=not progress) as bar:
        job.run(bar)
    ids = [item.id for item in items]
    if None in ids:
        raise UploadIncomplete(ids, {i.row: i.reason for i in items if i.id is None and i.reason})
    return [int(i) for i in ids if i is not None]


def _items(
    data: geopandas.GeoDataFrame,
    image: ImageInstance | int | None,
    terms: Any,
    origin: Origin,
    repair: bool,
) -> list[Item]:
    if not len(data):
        return []
    if image is None and "image" not in data:
        raise ValueError("The image is missing: pass image=…, or a frame with the column image.")
    where = (
        [image] * len(data)
        if image is not None
        else [whole(i, f"image in row {n}") for n, i in enumerate(data["image"])]
    )
    known = {key: image_of(key) for key in dict.fromkeys(where)}
    images = [known[key] for key in where]
    names: dict[int, dict[str, int]] = {}
    for one in known.values():
        if terms is not None or "term" in data or "term_name" in data:
            names.setdefault(int(one.project), term_ids(int(one.project)))
    shapes = prepare(list(data.geometry), [(int(i.width), int(i.height)) for i in images], origin, repair)
    wanted = _wanted(data, terms)
    return [
        Item(n, int(one.id), shape, _ids(mine, names.get(int(one.project), {})))
        for n, (one, shape, mine) in enumerate(zip(images, shapes, wanted, strict=True))
    ]


def _wanted(data: geopandas.GeoDataFrame, terms: Any) -> list[list[int | str]]:
    if terms is not None:
        return [marks(terms)] * len(data)
    column = next((c for c in ("term_name", "term") if c in data), None)
    if column is None:
        return [[]] * len(data)
    return [_read(n, column, value) for n, value in enumerate(data[column])]


def _read(row: int, column: str, value: Any) -> list[int | str]:
    try:
        return marks(value)
    except ValueError as error:
        raise ValueError(
            f"Row {row} has no terms that can be read in the column {column}: {error}"
        ) from error


def _ids(wanted: Sequence[int | str], known: dict[str, int]) -> tuple[int, ...]:
    found = []
    for mark in wanted:
        number = known.get(mark) if isinstance(mark, str) else mark
        # An unknown term among many annotations is a server error that says nothing.
        if number is None or number not in known.values():
            have = ", ".join(known) or "none"
            raise ValueError(f"The project's ontology has no term {mark!r}; it has: {have}.")
        found.append(number)
    return tuple(dict.fromkeys(found))


class _Upload:
    def __init__(self, items: list[Item], reuse: bool, chunk: int, workers: int, patience: float) -> None:
        self.items, self.reuse, self.chunk, self.workers = items, reuse, chunk, workers
        self.patience = patience
        self.client, self.user = current(), user_id()
        self.images = sorted({i.image for i in items})
        self.before: set[int] = set()
        self.doubtful: list[Item] = []
        self.cut = False
        self.again: set[int] = set()
        self.slowest = 0.5

    def run(self, bar: Any) -> None:
        if not self.items:
            return
        there = self._listed(outlines=self.reuse)
        self.before = {int(e["id"]) for e in there}
        if self.reuse:
            self._claim(there, self.items, bar)
        chunk, pause, last = self.chunk, 0.2, time.monotonic()
        while True:
            before = bar.n
            try:
                # What is in doubt is looked up before anything is sent again.
                self._settle(bar)
                todo = self._todo()
                if not todo:
                    break
                self._send(todo, chunk, bar)
            except RequestFailed as failure:
                if not failure.uncertain:
                    raise
                LOG.info("%s", failure)
            except CytomineUnreachable as error:
                LOG.info("%s", error)
            if bar.n > before:
                pause, last = 0.2, time.monotonic()
            elif time.monotonic() - last > self.patience:
                break
            else:
                time.sleep(pause)
                pause = min(5.0, 2 * pause)
            # Of several in one part that Cytomine does not take, it does not say which.
            chunk = max(1, min(self.chunk, len(self._todo()) // 2))
        self._verify(bar)

    def _todo(self) -> list[Item]:
        return [i for i in self.items if i.id is None and not i.reason]

    def _send(self, todo: list[Item], chunk: int, bar: Any) -> None:
        """Send what is missing once, in parts so small that all workers have as many, and none is left with the last."""
        rounds = math.ceil(len(todo) / (chunk * self.workers))
        chunk = math.ceil(len(todo) / (rounds * self.workers))
        parts = [p for i in self.images for p in _parts([t for t in todo if t.image == i], chunk)]
        with ThreadPoolExecutor(self.workers) as pool:
            futures = {pool.submit(within(self._post), part): part for part in parts}
            try:
                for future in as_completed(futures):
                    outcome = future.result()
                    if isinstance(outcome, str):
                        self.doubtful += futures[future]
                        self.cut = self.cut or outcome == "cut"
                        continue
                    for item, number in zip(futures[future], outcome, strict=False):
                        item.id = number
                        bar.update()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _post(self, part: list[Item]) -> list[int] | Literal["cut", "part"]:
        """The new ids, none where certainly nothing was stored; ``cut`` or ``part`` where that is not known."""
        start = time.monotonic()
        try:
            answer = call("POST", "annotation.json", body=[i.body for i in part], client=self.client)
        except CytomineUnreachable:
            return []
        except RequestFailed as failure:
            LOG.info("part of %d annotations: %s", len(part), failure)
            if failure.status in (401, 403):
                raise
            if failure.gave_way:
                return "part"
            if failure.uncertain:
                return "cut"
            if len(part) == 1:
                part[0].reason = str(failure)
            return "part"
        finally:
            self.slowest = max(self.slowest, time.monotonic() - start)
        try:
            match = ADDED.match(str(answer.json()["data"]["message"]))
        except (ValueError, KeyError, TypeError):
            match = None
        ids = [int(n) for n in match[1].split(",")] if match else []
        if len(ids) == len(part):
            return ids
        # A geometry among them was refused: Cytomine stores the others and does not say which.
        if len(part) == 1:
            part[0].reason = "Cytomine takes this geometry for invalid."
        return "part"

    def _settle(self, bar: Any) -> None:
        """Find what was stored all the same; where an answer was lost, Cytomine may still be at work on it."""
        if not self.doubtful:
            return
        self.again |= {i.row for i in self.doubtful}
        end = time.monotonic() + (min(60.0, 2 * self.slowest) if self.cut else 0.0)
        pause = 0.2
        while True:
            self._claim(self._unclaimed(self._listed()), [i for i in self.doubtful if i.id is None], bar)
            if all(i.id is not None for i in self.doubtful) or time.monotonic() > end:
                self.doubtful, self.cut = [], False
                return
            time.sleep(pause)
            pause = min(2.0, pause * 1.5)

    def _unclaimed(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What of Cytomine's list is new since the start and has no row yet."""
        claimed = {i.id for i in self.items}
        return [e for e in entries if e["id"] not in self.before and e["id"] not in claimed]

    def _claim(self, entries: list[dict[str, Any]], items: list[Item], bar: Any) -> None:
        for image in self.images:
            stored = Stored([e for e in entries if e["image"] == image])
            part = [i for i in items if i.image == image]
            for n, number in stored.take(part).items():
                part[n].id, part[n].reason = number, ""
                bar.update()

    def _verify(self, bar: Any) -> None:
        """Every id is there, and nothing twice."""
        again = [i for i in self.items if i.row in self.again | {d.row for d in self.doubtful}]
        there = self._listed(outlines=bool(again))
        ids = {int(e["id"]) for e in there}
        for item in self.items:
            if item.id is not None and item.id not in ids:
                item.id, item.reason = None, "It was stored, and someone deleted it again."
        if not again:
            return
        self._claim(self._unclaimed(there), [i for i in again if i.id is None], bar)
        extra = self._unclaimed(there)
        for image in self.images:
            stored = Stored([e for e in extra if e["image"] == image])
            part = [i for i in again if i.image == image]
            while doubles := stored.take(part):
                for number in doubles.values():
                    LOG.info("annotation %d was stored twice, deleting it", number)
                    delete_annotation(number)

    def _listed(self, outlines: bool = True) -> list[dict[str, Any]]:
        """My annotations on the images; their ids alone cost Cytomine far less."""
        found, shown = [], str(outlines).lower()
        for image in self.images:
            params = {"image": image, "user": self.user, "showBasic": "true", "showMeta": "false"}
            params |= {"showWKT": shown, "showTerm": shown}
            found += [{**e, "image": image} for e in pages("annotation.json", params, 5000)]
        return found


def _parts(items: list[Item], size: int) -> list[list[Item]]:
    return [items[n : n + size] for n in range(0, len(items), size)]
