"""What was computed, with which code and parameters, by whom, and what came out: stored in Cytomine itself.

A run is one JSON file attached to the project (``run-<id>.json``): it is there from the start of the run, and replaced
at its end. The project also gets a property ``run <id>`` with one line about it and the tag ``run: <name>``, where
your role allows it; a few annotations are tagged, too. Cytomine's own jobs are gone since its client 3.1.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import subprocess
import sys
import traceback
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import geopandas
import pandas
from cytomine.models import Annotation, AttachedFile, Project, Property, PropertyCollection
from requests import RequestException
from tqdm.auto import tqdm

from . import safe
from .errors import CytomineError
from .images import user_id
from .reviews import review as review_one
from .transport import RequestFailed, current
from .uploads import UploadIncomplete
from .uploads import upload as upload_all

LOG = logging.getLogger(__name__)
ANNOTATION_CLASS = "be.cytomine.domain.ontology.UserAnnotation"
PREFIX, SUFFIX = "run-", ".json"
# A tag costs two requests for every annotation.
TAG_UP_TO = 50
PACKAGES = ("cytomine-python-client", "numpy", "scipy", "scikit-image", "scikit-learn", "shapely", "torch")
LOG_LIMIT = 1_000_000


@dataclass
class Run:
    """One run.

    Attributes:
        id: unique.
        name: what it does.
        project: the project's id.
        parameters: as given.
        status: ``running``, ``done`` or ``failed``.
        user: who ran it.
        start: UTC, ISO 8601.
        end: UTC, ISO 8601; None while it runs, or where the kernel died.
        code: git commit and whether there were changes to it, notebook, Python and package versions.
        annotations: ids of the annotations that it stored.
        files: names of the files that it attached to the project, by their ids.
        values: small results, by name.
        error: the last line of what went wrong.
        log: what the loggers said while it ran.
    """

    name: str
    project: int
    parameters: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    status: str = "running"
    user: str = ""
    start: str = ""
    end: str | None = None
    code: dict[str, Any] = field(default_factory=dict)
    annotations: list[int] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    log: str = ""

    @property
    def file(self) -> str:
        """The name of the attached file that holds the run."""
        return f"{PREFIX}{self.id}{SUFFIX}"

    @property
    def tag(self) -> str:
        """The tag of what belongs to runs of this name."""
        return f"run: {self.name}"

    def upload(self, data: geopandas.GeoDataFrame, image: Any = None, **options: Any) -> list[int]:
        """Store annotations (see `uploads.upload`) as results of this run, always as new ones.

        What was stored is noted also where not everything could be.
        """
        try:
            ids = upload_all(data, image, **{"existing": "add", **options})
        except UploadIncomplete as failure:
            self.annotations += [i for i in failure.ids if i is not None]
            raise
        self.annotations += ids
        return ids

    def attach(self, name: str, content: bytes | str | Path) -> AttachedFile:
        """Attach a file (bytes, text or a path) to the project as a result of this run."""
        made = safe.attach(_project(self.project), name, content)
        self.files[str(made.id)] = name
        return made

    def note(self, **values: Any) -> None:
        """Keep small results, such as a count or a score."""
        self.values.update(_plain(values))

    def read(self, name: str) -> bytes:
        """The content of a file that the run attached."""
        number = next((i for i, n in self.files.items() if n == name), None)
        if number is None:
            have = ", ".join(self.files.values()) or "none"
            raise CytomineError(f"The run attached no file {name!r}; it has: {have}.")
        return safe.read_attached(int(number))

    def review(self, accept: bool = True, *, workers: int = 4, progress: bool = True) -> None:
        """Accept all annotations of the run, or take the acceptance back; see `reviews.review`."""
        self._each(lambda i: review_one(i, accept), "review", self.annotations, progress, workers)

    def remove(self, *, progress: bool = True) -> None:
        """Delete all that the run stored, its copies that you accepted, and the run itself.

        What is gone already is no failure. Annotations go one after the other: Cytomine refuses most that are deleted at
        the same time in one project.
        """
        project = _project(self.project)
        params = {"project": self.project, "reviewed": "true", "showBasic": "true", "showMeta": "true"}
        mine, me = set(self.annotations), user_id()
        copies = [a for a in safe.pages("annotation.json", params) if a["parentIdent"] in mine]
        # An accepted copy outlives its annotation, and would be left over.
        accepted = [int(a["parentIdent"]) for a in copies if a["reviewUser"] == me]
        self._each(lambda i: review_one(i, accept=False), "take back", accepted, progress)
        self._each(safe.delete_annotation, "remove", self.annotations, progress)
        for file in safe.attached(project):
            if str(file.id) in self.files or file.filename == self.file:
                _quietly(file.delete)
        with contextlib.suppress(RequestFailed):
            for item in safe.fetch_all(PropertyCollection(project)):
                if item.key == _key(self):
                    item.delete()
        self.annotations, self.files = [], {}

    def _each(self, action: Any, what: str, ids: list[int], progress: bool, workers: int = 1) -> None:
        with (
            ThreadPoolExecutor(workers) as pool,
            tqdm(total=len(ids), unit="annotation", desc=what, disable=not (progress and ids)) as bar,
        ):
            for _ in pool.map(action, ids):
                bar.update()


class _Log(logging.Handler):
    """Keeps what was logged; the first million characters."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.lines: list[str] = []
        self.size = 0

    def emit(self, record: logging.LogRecord) -> None:
        # Each request of the client is a line; they would drown the rest.
        if record.name.startswith(("cytomine.client", "urllib3")) or self.size > LOG_LIMIT:
            return
        line = self.format(record)
        self.size += len(line)
        self.lines.append(line)


@contextlib.contextmanager
def run(
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    project: Project | int,
    tag_up_to: int = TAG_UP_TO,
) -> Iterator[Run]:
    """Keep a record of what is computed inside the ``with``.

    ::

        with run("nuclei", {"sigma": 2.0}, project=project) as this:
            this.upload(found, image)
            this.note(count=len(found))
            this.attach("counts.csv", table.to_csv())

    Args:
        name: what it does; runs of one name share a tag.
        parameters: what it depends on, as JSON can hold it (NumPy's numbers and paths, too).
        project: the project, or its id, that keeps the record.
        tag_up_to: the annotations are tagged, too, if there are at most so many.

    Yields:
        The `Run`, to store results by. At the end its status is ``done``, or ``failed`` if an exception left the ``with``;
        the exception goes on.
    """
    this = Run(
        name, int(project.id if isinstance(project, Project) else project), _plain(dict(parameters or {}))
    )
    this.start, this.user, this.code = _now(), _user(), code_version()
    handler = _Log()
    root = logging.getLogger()
    stored = _store(this, None)
    root.addHandler(handler)
    try:
        yield this
        this.status = "done"
    except BaseException as error:
        this.status, this.error = "failed", "".join(traceback.format_exception_only(error)).strip()[:2000]
        handler.lines.append(traceback.format_exc())
        raise
    finally:
        root.removeHandler(handler)
        this.end, this.log = _now(), "\n".join(handler.lines)
        _finish(this, stored, tag_up_to)


def _finish(this: Run, stored: int | None, tag_up_to: int) -> None:
    """Store the end. A failure here must hide neither the results nor the exception of the run itself."""
    try:
        _store(this, stored)
    except (CytomineError, RequestException) as error:
        place = Path(this.file).resolve()
        place.write_text(json.dumps(asdict(this), indent=1), encoding="utf-8")
        LOG.warning(
            "The record of run %s could not be stored in Cytomine (%s); it is in %s.", this.id, error, place
        )
    with contextlib.suppress(CytomineError, RequestException):
        _mark(this, tag_up_to)


def _store(this: Run, earlier: int | None) -> int:
    project = _project(this.project)
    made = safe.attach(project, this.file, json.dumps(asdict(this), indent=1))
    if earlier is not None:
        # Only now: at every moment one of the two is there.
        AttachedFile(project).populate({"id": earlier}).delete()
    return int(made.id)


def _mark(this: Run, tag_up_to: int) -> None:
    project = _project(this.project)
    line = f"{this.name}: {this.status}, {this.user}, {this.start}, {len(this.annotations)} annotations"
    # A member who is no manager may not; the client says so by False.
    Property(project, key=_key(this), value=line[:255]).save()
    number = safe.tag_id(this.tag)
    safe.tag(project, this.tag, number)
    if len(this.annotations) <= tag_up_to:
        for annotation in this.annotations:
            thing = Annotation().populate({"id": annotation, "class": ANNOTATION_CLASS})
            safe.tag(thing, this.tag, number)


def runs(project: Project | int, name: str | None = None) -> list[Run]:
    """The runs of a project, the newest first.

    Args:
        project: the project or its id.
        name: only runs of this name.
    """
    files = [f for f in safe.attached(_project(project)) if f.filename.startswith(PREFIX)]
    files = [f for f in files if f.filename.endswith(SUFFIX)]
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(safe.read_attached, [f.id for f in files]))
    found: dict[str, Run] = {}
    known = set(Run.__dataclass_fields__)
    # The oldest first: where a run's end was stored but its start could not be removed, the end counts.
    for _, content in sorted(zip([f.id for f in files], contents, strict=True)):
        try:
            data = json.loads(content)
            one = Run(**{k: v for k, v in data.items() if k in known})
        except (ValueError, TypeError):
            continue  # a file of the user's own that is named like ours
        found[one.id] = one
    chosen = [r for r in found.values() if name is None or r.name == name]
    return sorted(chosen, key=lambda r: r.start, reverse=True)


def table(found: list[Run]) -> pandas.DataFrame:
    """Runs as a table: name, status, user, start, seconds, number of annotations, parameters and values."""
    rows = []
    for one in found:
        start, end = pandas.Timestamp(one.start), pandas.Timestamp(one.end) if one.end else pandas.NaT
        row = {"id": one.id, "name": one.name, "status": one.status, "user": one.user, "start": start}
        row |= {"seconds": (end - start).total_seconds(), "annotations": len(one.annotations)}
        rows.append({**row, "commit": one.code.get("commit", ""), **one.parameters, **one.values})
    return pandas.DataFrame(rows)


def code_version() -> dict[str, Any]:
    """What code runs here: the notebook, its git commit if there is one, Python and the packages that matter."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    found: dict[str, Any] = {"python": platform.python_version(), "packages": versions}
    if notebook := os.environ.get("JPY_SESSION_NAME") or os.environ.get("PAPERMILL_INPUT_PATH"):
        found["notebook"] = Path(notebook).name
    elif sys.argv and sys.argv[0].endswith(".py"):
        found["notebook"] = Path(sys.argv[0]).name
    commit = _git("rev-parse", "HEAD")
    if commit:
        found["commit"], found["changed"] = commit, bool(_git("status", "--porcelain"))
        found["origin"] = _without_secret(_git("remote", "get-url", "origin"))
    return found


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", *arguments],  # noqa: S607 - wherever it is
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _without_secret(url: str) -> str:
    """A remote's address may hold a token."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else url


def _project(project: Project | int) -> Project:
    number = int(project.id if isinstance(project, Project) else project)
    if isinstance(project, Project) and getattr(project, "class_", None):
        return project
    made: Project = Project().populate({"id": number, "class": "be.cytomine.domain.project.Project"})
    return made


def _key(this: Run) -> str:
    return f"run {this.id}"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _user() -> str:
    user = current().current_user
    return str(user.username) if user else ""


def _quietly(action: Any) -> None:
    with contextlib.suppress(CytomineError, RequestException):
        action()


def _plain(value: Any) -> Any:
    """As JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
