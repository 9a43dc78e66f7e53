"""The annotations of a dataset in a stack: those that are missing are stored, in chunks, and then their file.

Each carries a property of ours, a key that follows from what it is in its file. By that alone it is known again: Cytomine
simplifies what it stores, and people move it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from ..common.importmarks import KEY
from .client import Connection, Refused
from .errors import DatasetError
from .marks import IMAGE
from .progress import Pace
from .shapes import Piece, Shape, Unfit

# Upstream computes a crop for each new annotation, one after the other in the whole of core: on two processors 78 ms each,
# and 75 ms with eight requests at the same time, so that nothing is gained by them.
CHUNK = 20
CHUNK_SECONDS = 120.0


@dataclass
class Stored:
    """What is stored of a file.

    Attributes:
        count: annotations of the file that are in Cytomine.
        skipped: of each that is not, where it is and why: "feature 3: it lies outside of the image".
    """

    count: int = 0
    skipped: list[str] = field(default_factory=list)


class Annotations:
    """Puts annotations onto images.

    Args:
        connection: to the stack, with the owner's keys.
        user: the owner's number in Cytomine.
        say: hears what is done, which part of the file is, and how many of its annotations are in.
        alone: held by whoever changes a project.
        pace: is told of each call that stores.
    """

    def __init__(
        self,
        connection: Connection,
        user: int,
        say: Callable[[str, float, int], None],
        alone: asyncio.Lock,
        pace: Pace,
    ) -> None:
        self._stack, self._user, self._say = connection, user, say
        self._alone, self._pace = alone, pace

    async def put(
        self,
        path: Path,
        name: str,
        wanted: Sequence[Shape],
        instance: dict[str, Any],
        terms: dict[str, int],
    ) -> Stored:
        """Store those of a file that are missing, and then the file itself.

        Args:
            path: the file.
            name: by which it is attached to the image.
            wanted: the annotations in it.
            instance: the image, as Cytomine gives it.
            terms: the terms' numbers by name.

        Returns:
            What is stored, now or before; what cannot be costs nothing but itself.

        Raises:
            DatasetError: nothing of the file is on the image.
        """
        stored = Stored()
        pieces = await asyncio.to_thread(_pieces, wanted, instance, stored)
        if wanted and not pieces:
            raise DatasetError(
                f"Nothing of {name} can be put onto {instance['instanceFilename']} ({stored.skipped[0]}). See that it is "
                "this image's, and in its pixels, and try again."
            )
        image = int(instance["id"])
        attached = f"/api/domain/{IMAGE}/{image}/attachedfile.json"
        done = any(f["filename"] == name for f in await self._stack.listed(attached))
        there = set(await self._keys(image))
        if done:
            # An earlier version stored them without keys.
            stored.count = sum(1 for _, piece in pieces if piece.key in there) or len(pieces)
            return stored
        missing = [item for item in pieces if item[1].key not in there]
        before = len(pieces) - len(missing)
        for start in range(0, len(missing), CHUNK):
            what = f"annotating {instance['instanceFilename']} from {name}"
            self._say(what, (before + start) / len(pieces), before + start)
            await self._bulk([_body(*item, instance, terms) for item in missing[start : start + CHUNK]])
        if missing:
            # A bulk call with a geometry that Cytomine does not like stores the others and answers 200.
            there = set(await self._keys(image))
            left = [item for item in missing if item[1].key not in there]
            stored.skipped += await self._singly(left, instance, terms, alone=len(left) == len(missing))
        there = await self._only_once(image)
        stored.count = sum(1 for _, piece in pieces if piece.key in there)
        if pieces and not stored.count:
            why = stored.skipped[0] if stored.skipped else "it takes them and does not show them"
            raise DatasetError(
                f"Cytomine stores nothing of {name} on {instance['instanceFilename']} ({why}). Mend the dataset and try again."
            )
        await self._attach(path, name, image)
        return stored

    async def _store(self, body: Any) -> None:
        async with self._alone:
            with self._pace.stored(len(body) if isinstance(body, list) else 1):
                await self._stack.call("POST", "/api/annotation.json", body, seconds=CHUNK_SECONDS)

    async def _bulk(self, body: list[dict[str, Any]]) -> None:
        try:
            await self._store(body)
        except Refused as error:
            # One that Cytomine fails at takes all of its chunk with it: which one shows when they come singly.
            if error.status in (401, 403):
                raise

    async def _singly(
        self,
        left: list[tuple[Shape, Piece]],
        instance: dict[str, Any],
        terms: dict[str, int],
        *,
        alone: bool,
    ) -> list[str]:
        """Store one by one what did not come in a chunk; of each that Cytomine does not take, where it is and why.

        Args:
            left: what is missing.
            instance: the image.
            terms: the terms' numbers by name.
            alone: nothing else was stored just now.
        """
        skipped, failed = [], []
        works = not alone
        for shape, piece in left:
            error = await self._one(_body(shape, piece, instance, terms))
            if error is None:
                works = True
            elif error.status == 400:
                skipped.append(f"{shape.place}: Cytomine says {error}")
            else:
                failed.append((shape, piece))
        for shape, piece in failed:
            error = await self._one(_body(shape, piece, instance, terms))
            # Its fault only if others are taken: else it is Cytomine's.
            if error is not None and not works:
                raise error
            if error is not None:
                skipped.append(f"{shape.place}: Cytomine fails at it ({error.status})")
        return skipped

    async def _one(self, body: dict[str, Any]) -> Refused | None:
        """Store one annotation; how Cytomine refused it, if it is the annotation that it refused."""
        try:
            await self._store(body)
        except Refused as error:
            if error.status != 400 and error.status < 500:
                raise
            return error
        return None

    async def _only_once(self, image: int) -> set[str]:
        """Take back what was stored twice; the keys that are on the image.

        An answer may have been lost, or the run that asked for it may have ended: what was asked for may be stored after all,
        and once more by the next try.
        """
        found = await self._keys(image)
        for numbers in found.values():
            for number in sorted(numbers)[1:]:
                async with self._alone:
                    await self._stack.call("DELETE", f"/api/annotation/{number}.json")
        return set(found)

    async def _keys(self, image: int) -> dict[str, list[int]]:
        """The keys of ours that are on an image, with the numbers of the annotations that have them."""
        path = f"/api/user/{self._user}/imageinstance/{image}/annotationposition.json"
        found: dict[str, list[int]] = {}
        for item in await self._stack.listed(path, key=KEY):
            found.setdefault(str(item["value"]), []).append(int(item["idAnnotation"]))
        return found

    async def _attach(self, path: Path, name: str, image: int) -> None:
        """Attach the file itself: the exact truth for scripts, and the sign that all of it is stored."""
        content = await asyncio.to_thread(path.read_bytes)
        form = aiohttp.MultipartWriter("form-data", boundary=secrets.token_hex(16))
        part = form.append(content, {"Content-Type": "application/geo+json"})
        # Its name is in the query: in a form's head each server reads it in its own way.
        part.set_content_disposition("form-data", name="files[]", filename="annotations.geojson")
        await self._stack.call(
            "POST",
            "/api/attachedfile.json",
            content=form,
            domainClassName=IMAGE,
            domainIdent=image,
            filename=name,
        )


def _pieces(wanted: Sequence[Shape], instance: dict[str, Any], stored: Stored) -> list[tuple[Shape, Piece]]:
    """What is to be stored; what cannot be is noted."""
    width, height = instance.get("width"), float(instance["height"])
    found = []
    for shape in wanted:
        pieces = _cut(shape, float(width) if width else None, height)
        if isinstance(pieces, str):
            stored.skipped.append(f"{shape.place}: {pieces}")
        else:
            found += [(shape, piece) for piece in pieces]
    return found


def _cut(shape: Shape, width: float | None, height: float) -> list[Piece] | str:
    """What is stored of a shape, or why nothing is."""
    try:
        return shape.pieces(width, height)
    except Unfit as error:
        return str(error)


def _body(shape: Shape, piece: Piece, instance: dict[str, Any], terms: dict[str, int]) -> dict[str, Any]:
    return {
        "location": piece.wkt,
        "image": int(instance["id"]),
        "project": int(instance["project"]),
        "properties": {KEY: piece.key},
        **({"term": [terms[shape.term]]} if shape.term else {}),
    }
