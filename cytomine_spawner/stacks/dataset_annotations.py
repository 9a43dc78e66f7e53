"""The annotations of a dataset in a stack: those that are missing are stored, in chunks, and then their file."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from .dataset_files import DatasetError, Shape
from .dataset_stack import Connection

IMAGE = "be.cytomine.domain.image.ImageInstance"
# Upstream computes a crop for each new annotation, one after the other in the whole of core: on two processors 78 ms each,
# and 75 ms with eight requests at the same time, so that nothing is gained by them.
CHUNK = 20
CHUNK_SECONDS = 120.0


class Annotations:
    """Puts annotations onto images.

    Args:
        connection: to the stack, with the owner's keys.
        user: the owner's number in Cytomine.
        say: hears what is done, and which part of it is.
    """

    def __init__(self, connection: Connection, user: int, say: Callable[[str, float], None]) -> None:
        self._stack, self._user, self._say = connection, user, say

    async def put(
        self, path: Path, wanted: list[Shape], instance: dict[str, Any], terms: dict[str, int]
    ) -> None:
        """Store those of a file that are missing, and then the file itself.

        Args:
            path: the file.
            wanted: the annotations in it.
            instance: the image, as Cytomine gives it.
            terms: the terms' numbers by name.

        Raises:
            DatasetError: Cytomine did not store them all.
        """
        number, height = int(instance["id"]), int(instance["height"])
        attached = f"/api/domain/{IMAGE}/{number}/attachedfile.json"
        if any(f["filename"] == path.name for f in await self._stack.listed(attached)):
            return
        missing = await self._missing(wanted, instance, terms)
        left = len(missing)
        for start in range(0, left, CHUNK):
            self._say(f"annotating {instance['instanceFilename']} from {path.name}", start / left)
            body = [
                {
                    "location": shape.wkt(height),
                    "image": number,
                    "project": int(instance["project"]),
                    **({"term": [terms[shape.term]]} if shape.term else {}),
                }
                for shape in missing[start : start + CHUNK]
            ]
            await self._stack.call("POST", "/api/annotation.json", body, seconds=CHUNK_SECONDS)
        # A bulk call with a bad geometry stores the others and answers 200.
        if missing and (lost := await self._missing(wanted, instance, terms)):
            raise DatasetError(
                f"Cytomine did not store {len(lost)} of {len(wanted)} annotations of {path.name}, the first near "
                f"{lost[0].centroid[0]:.0f}, {lost[0].centroid[1]:.0f}. Mend their geometry and try again."
            )
        await self._attach(path, number)

    async def _missing(
        self, wanted: list[Shape], instance: dict[str, Any], terms: dict[str, int]
    ) -> list[Shape]:
        """Those that are not stored: Cytomine keeps the centre of what it simplifies within a pixel or so."""
        stored = await self._stack.listed(
            "/api/annotation.json",
            image=instance["id"],
            project=instance["project"],
            user=self._user,
            showBasic="true",
            showMeta="true",
            showGIS="true",
            showTerm="true",
        )
        height = int(instance["height"])
        grid: dict[tuple[tuple[int, ...], int, int], list[tuple[float, float]]] = {}
        for item in stored:
            x, y = float(item["centroid"]["x"]), height - float(item["centroid"]["y"])
            key = tuple(sorted(int(t) for t in item.get("term") or []))
            grid.setdefault((key, int(x // 64), int(y // 64)), []).append((x, y))
        missing = []
        for shape in wanted:
            x, y = shape.centroid
            key = (terms[shape.term],) if shape.term else ()
            reach = max(1.5, shape.extent / 100)
            cells = range(-1 - int(reach // 64), 2 + int(reach // 64))
            near = [
                (math.dist((x, y), place), spot, place)
                for i in cells
                for j in cells
                if (spot := grid.get((key, int(x // 64) + i, int(y // 64) + j)))
                for place in spot
            ]
            best = min(near, key=lambda n: n[0], default=None)
            if best is None or best[0] > reach:
                missing.append(shape)
            else:
                best[1].remove(best[2])
        return missing

    async def _attach(self, path: Path, image: int) -> None:
        """Attach the file itself: the exact truth for scripts, and the sign that all of it is stored."""
        content = await asyncio.to_thread(path.read_bytes)
        form = aiohttp.MultipartWriter("form-data", boundary=secrets.token_hex(16))
        part = form.append(content, {"Content-Type": "application/geo+json"})
        part.set_content_disposition("form-data", name="files[]", filename=path.name)
        await self._stack.call(
            "POST",
            "/api/attachedfile.json",
            content=form,
            domainClassName=IMAGE,
            domainIdent=image,
            filename=path.name,
        )
