"""Datasets to import, and a stack of stand-ins to import them into."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import requests
from PIL import Image

from cytomine_spawner.datasets import files, importer
from cytomine_spawner.datasets.client import Connection
from cytomine_spawner.datasets.importer import Importer, Progress
from dev.standin.local import Local
from tests.support.standin import Issuer

WIDTH, HEIGHT, COUNT = 640, 360, 64


def feature(geometry: dict[str, Any], name: str) -> dict[str, Any]:
    """A feature of GeoJSON with a term."""
    properties = {"classification": {"name": name, "color": [255, 0, 0]}}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def square(x: float, y: float, side: float) -> dict[str, Any]:
    """A square from its upper left corner, in pixels."""
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {"type": "Polygon", "coordinates": [ring]}


def picture(path: Path) -> None:
    """A small image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (250, 240, 245)).save(path)


def make(root: Path, name: str, features: list[dict[str, Any]] | None = None, *, count: int = COUNT) -> Path:
    """A dataset of two images, the first with annotations: squares, one at each corner among them, and others."""
    folder = root / f"uuid-{name}" / f"DATASET_{name}"
    for number in (1, 2):
        picture(folder / "IMAGES" / f"IMAGE_{number}" / f"{name}-{number}.png")
    if features is None:
        features = [
            feature(square(x, y, 10), "corner")
            for x, y in ((0, 0), (WIDTH - 10, 0), (WIDTH - 10, HEIGHT - 10), (0, HEIGHT - 10))
        ]
        features += [
            feature(square(40 + 14 * (n % 30), 40 + 14 * (n // 30), 12), "cell") for n in range(count - 7)
        ]
        features.append(feature({"type": "Point", "coordinates": [300.5, 200.25]}, "mark"))
        features.append(feature({"type": "LineString", "coordinates": [[10, 300], [90, 320]]}, "mark"))
        hole = [[520, 220], [540, 220], [540, 240], [520, 220]]
        holed = square(500, 200, 100)
        holed["coordinates"].append(hole)
        features.append({"type": "Feature", "geometry": holed, "properties": {}})
    (folder / "ANNOTATIONS").mkdir()
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (folder / "ANNOTATIONS" / f"{name}-1-all.geojson").write_text(text)
    return root


class Stack:
    """A running stack with its owner's keys."""

    def __init__(self, local: Local, issuer: Issuer) -> None:
        self.local, self.issuer = local, issuer
        self.head = {"Authorization": f"Bearer {issuer.token('alice', 'ADMIN')}"}
        self.keys = self.get("/api/user/current/keys")

    def get(self, path: str) -> Any:
        """What core answers its owner."""
        answer = requests.get(self.local.url + path, headers=self.head, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def put(self, path: str, body: dict[str, Any]) -> None:
        """Change something as its owner."""
        requests.put(self.local.url + path, json=body, headers=self.head, timeout=30).raise_for_status()

    def send(self, path: str, body: dict[str, Any]) -> Any:
        """Make something as its owner."""
        answer = requests.post(self.local.url + path, json=body, headers=self.head, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def delete(self, path: str) -> None:
        """Delete something as its owner."""
        requests.delete(self.local.url + path, headers=self.head, timeout=30).raise_for_status()

    def attach(self, path: Path, kind: str, number: int) -> None:
        """Attach a file to an object as its owner."""
        query = {"domainClassName": kind, "domainIdent": number, "filename": path.name}
        requests.post(
            f"{self.local.url}/api/attachedfile.json",
            params=query,
            files={"files[]": path.read_bytes()},
            headers=self.head,
            timeout=30,
        ).raise_for_status()

    def upload(self, path: Path, project: int) -> None:
        """Upload a slide into a project as its owner, as the web interface does it."""
        me = self.get("/api/user/current.json")["id"]
        storages = self.get("/api/storage.json?max=0")["collection"]
        storage = min(s["id"] for s in storages if s.get("userId", s.get("user")) == me)
        query = {"idStorage": storage, "storage": storage, "idProject": project, "projects": project}
        content = path.read_bytes()

        async def send(connection: Connection) -> None:
            form = aiohttp.MultipartWriter("form-data")
            part = form.append(content, {"Content-Type": "image/png"})
            part.set_content_disposition("form-data", name="files[]", filename=path.name)
            await connection.call("POST", "/upload", content=form, seconds=60, sync="true", **query)

        self._connected(send)

    def connection(self, folder: Path) -> Path:
        """A folder with what the program needs, as the stack's Secret is mounted."""
        folder.mkdir()
        secret = {"public-key": self.keys["primaryKey"], "private-key": self.keys["secondaryKey"]}
        for name, text in {"host": self.local.url, **secret}.items():
            (folder / name).write_text(text)
        return folder

    def run(
        self, root: Path, *names: str, say: Callable[[Progress], None] = lambda _: None, **changes: Any
    ) -> Any:
        """Import the datasets of a folder, all or those that are named."""
        keys = {"public_key": self.keys["primaryKey"], "private_key": self.keys["secondaryKey"], **changes}
        return asyncio.run(
            importer.import_datasets(self.local.url, root=root, names=names, progress=say, **keys)
        )

    def start(
        self,
        root: Path,
        say: Callable[[Progress], None] = lambda _: None,
        pauses: tuple[float, ...] = importer.PAUSES,
        marked: str = "",
    ) -> Any:
        """An import with pauses, or marks, of its own."""
        return self._connected(
            lambda connection: Importer(connection, say, pauses, marked).run(files.find(root))
        )

    def listed(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """What the connection lists."""

        return list(self._connected(lambda connection: connection.listed(path, **query)))

    def _connected(self, act: Callable[[Connection], Coroutine[Any, Any, Any]]) -> Any:
        async def run() -> Any:
            async with aiohttp.ClientSession() as session:
                keys = (self.keys["primaryKey"], self.keys["secondaryKey"])
                return await act(Connection(self.local.url, *keys, session))

        return asyncio.run(run())

    def inside(self, name: str) -> dict[str, Any]:
        """What the stack holds of a dataset."""
        projects = [p for p in self.get("/api/project.json?max=0")["collection"] if p["name"] == name]
        if not projects:
            return {"projects": 0}
        number, ontology = projects[0]["id"], projects[0]["ontology"]
        images = self.get(f"/api/project/{number}/imageinstance.json?max=0")["collection"]
        query = f"project={number}&max=0&showWKT=true&showTerm=true&showMeta=true"
        terms = self.get(f"/api/ontology/{ontology}/term.json?size=100")["collection"]
        found = self.get("/api/ontology.json?size=1000")["collection"]
        return {
            "projects": len(projects),
            "ontologies": len([o for o in found if o["name"] == name]),
            "images": sorted(i["instanceFilename"] for i in images),
            "terms": sorted(t["name"] for t in terms),
            "term_names": {t["id"]: t["name"] for t in terms},
            "annotations": self.get(f"/api/annotation.json?{query}")["collection"],
        }


def whole(stack: Stack, name: str, count: int = COUNT) -> dict[str, Any]:
    """What the stack holds of a dataset that is in it once and with all that belongs to it."""
    found = stack.inside(name)
    assert (found["projects"], found["ontologies"]) == (1, 1)
    assert found["images"] == [f"{name}-1.png", f"{name}-2.png"]
    assert found["terms"] == ["cell", "corner", "mark"]
    assert len(found["annotations"]) == count
    return found
