"""What was computed, with which code and parameters, by whom, and what came out: stored in Cytomine itself.

A run is one JSON file attached to the project (``run-<id>.json``): it is there from the start of the run, and replaced
at its end. The project also gets a property ``run <id>`` with one line about it and the tag ``run: <name>``, where
your role allows it; a few annotations are tagged, too. Cytomine's own jobs are gone since its client 3.1.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
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
from .plain import dumps, plain
from .reviews import review as review_one
from .run_code import code_version
from .run_logs import logged, within
from .run_records import LIMIT, PREFIX, SUFFIX, BadRecord, bad, is_record, parse
from .transport import RequestFailed, current, get_json
from .uploads import UploadIncomplete
from .uploads import upload as upload_all

LOG = logging.getLogger(__name__)
ANNOTATION_CLASS = "be.cytomine.domain.ontology.UserAnnotation"
# A tag costs two requests for every annotation.
TAG_UP_TO = 50
# Of what a record names and its project does not have, so many are looked up to say whose they are.
LOOKED_UP = 20
OWN = ("id", "name", "status", "user", "start", "seconds", "annotations", "commit")


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
        self.values.update(plain(values))

    def read(self, name: str) -> bytes:
        """The content of a file that the run attached; of several of one name the newest."""
        numbers = [int(i) for i, n in self.files.items() if n == name]
        if not numbers:
            have = ", ".join(dict.fromkeys(self.files.values())) or "none"
            raise CytomineError(f"The run attached no file {name!r}; it has: {have}.")
        # A record names any file; only those of its own project are meant.
        there = {int(f.id) for f in safe.attached(_project(self.project)) if f.filename == name}
        if max(numbers) not in there:
            raise CytomineError(f"The file {name!r} of the run is not attached to its project (any more).")
        return safe.read_attached(max(numbers))

    def review(self, accept: bool = True, *, workers: int = 4, progress: bool = True) -> None:
        """Accept all annotations of the run, or take the acceptance back; see `reviews.review`.

        Annotations of another project or user, which a record that somebody wrote may name, are left as they are.
        """
        self._each(lambda i: review_one(i, accept), "review", self._own(), progress, workers)

    def remove(self, *, progress: bool = True) -> None:
        """Delete all that the run stored, its copies that you accepted, and the run itself.

        What is gone already is no failure. Annotations of another project or user, which a record that somebody wrote may
        name, stay. Annotations go one after the other: Cytomine refuses most that are deleted at the same time in one
        project.
        """
        project = _project(self.project)
        mine, me = set(self.annotations), user_id()
        own = self._own()
        copies = [a for a in self._listed(reviewed="true") if a["parentIdent"] in mine]
        # An accepted copy outlives its annotation, and would be left over.
        accepted = [int(a["parentIdent"]) for a in copies if a["reviewUser"] == me]
        self._each(lambda i: review_one(i, accept=False), "take back", accepted, progress)
        self._each(safe.delete_annotation, "remove", own, progress)
        for file in safe.attached(project):
            # The record of another run is no result of this one, whatever is written here.
            result = self.files.get(str(file.id)) == file.filename and not is_record(file.filename)
            if result or file.filename == self.file:
                _quietly(file.delete)
        with contextlib.suppress(RequestFailed):
            for item in safe.fetch_all(PropertyCollection(project)):
                if item.key == _key(self):
                    item.delete()
        self.annotations, self.files = [], {}

    def _listed(self, **more: str) -> Iterator[dict[str, Any]]:
        """The annotations of the run's user in its project, as Cytomine has them."""
        params = {
            "project": self.project,
            "showBasic": "true",
            "showMeta": "true",
            "showUser": "true",
            **more,
        }
        for one in safe.pages("annotation.json", params, 2000):
            if int(one["project"]) == self.project and one.get("creator") == self.user:
                yield one

    def _own(self) -> list[int]:
        """Of its annotations those that are there, of its project and its user; says where it names others."""
        there = {int(one["id"]) for one in self._listed()} if self.annotations else set()
        others = [i for i in self.annotations if i not in there]
        strange = 0
        for number in others[:LOOKED_UP]:
            with contextlib.suppress(RequestFailed):  # gone, or not to be seen
                get_json(f"annotation/{number}.json")
                strange += 1
        if strange:
            LOG.warning(
                "The record of run %s names annotations of another project or user (%s%d of %d): they are left as they are.",
                self.id,
                "at least " if len(others) > LOOKED_UP else "",
                strange,
                len(self.annotations),
            )
        return [i for i in self.annotations if i in there]

    def _each(self, action: Any, what: str, ids: list[int], progress: bool, workers: int = 1) -> None:
        with (
            ThreadPoolExecutor(workers) as pool,
            tqdm(total=len(ids), unit="annotation", desc=what, disable=not (progress and ids)) as bar,
        ):
            for _ in pool.map(within(action), ids):
                bar.update()


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
        name, int(project.id if isinstance(project, Project) else project), plain(dict(parameters or {}))
    )
    this.start, this.user, this.code = _now(), _user(), code_version()
    stored = _store(this, None)
    with logged() as log:
        try:
            yield this
            this.status = "done"
        except BaseException as error:
            this.status, this.error = "failed", "".join(traceback.format_exception_only(error)).strip()[:2000]
            log.add(traceback.format_exc())
            raise
        finally:
            this.end, this.log = _now(), log.text()
            _finish(this, stored, tag_up_to)


def _finish(this: Run, stored: int | None, tag_up_to: int) -> None:
    """Store the end. A failure here must hide neither the results nor the exception of the run itself."""
    try:
        _store(this, stored)
    except (CytomineError, RequestException) as error:
        place = Path(this.file).resolve()
        place.write_text(dumps(asdict(this), indent=1), encoding="utf-8")
        LOG.warning(
            "The record of run %s could not be stored in Cytomine (%s); it is in %s.", this.id, error, place
        )
    with contextlib.suppress(CytomineError, RequestException):
        _mark(this, tag_up_to)


def _store(this: Run, earlier: int | None) -> int:
    project = _project(this.project)
    content = dumps(asdict(this), indent=1)
    if len(content) > LIMIT:
        raise CytomineError(
            f"it takes {len(content):,} bytes of at most {LIMIT:,}: attach large results as files"
        )
    made = safe.attach(project, this.file, content)
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

    What is no record of a run of this project, though its file is named like one, is left out and told by a line of the
    log.

    Raises:
        RequestFailed: Cytomine does not answer.
    """
    place = _project(project)
    files = sorted((f for f in safe.attached(place) if is_record(f.filename)), key=lambda f: int(f.id))
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(within(_content), files))
    found: dict[str, Run] = {}
    # The oldest first: where a run's end was stored but its start could not be removed, the end counts.
    for file, content in zip(files, contents, strict=True):
        try:
            if isinstance(content, CytomineError):
                raise bad(file.filename, str(content))
            if content is None:
                continue
            one = Run(**parse(file.filename, content, int(place.id)))
            before = found.setdefault(one.id, one)
            if (before.name, before.user, before.start) != (one.name, one.user, one.start):
                raise bad(file.filename, "another run has this id already")
        except BadRecord as why:
            LOG.warning("%s", why)
            continue
        found[one.id] = one
    chosen = [r for r in found.values() if name is None or r.name == name]
    return sorted(chosen, key=lambda r: r.start, reverse=True)


def _content(file: AttachedFile) -> bytes | CytomineError | None:
    """The content of an attached file; None where it is gone since it was listed, else why it cannot be read."""
    try:
        return safe.read_attached(file, limit=LIMIT)
    except safe.TooLarge as why:
        return why
    except RequestFailed as failure:
        if failure.status is None:
            raise
        return None if failure.status == 404 else failure


def table(found: list[Run]) -> pandas.DataFrame:
    """Runs as a table: id, name, status, user, start, seconds, number of annotations, commit, parameters and values.

    A parameter that is called like one of the run's own columns has the column ``parameters.NAME``, a value that is called
    like one of them or like a parameter ``values.NAME``.
    """
    taken = set(OWN)
    names: dict[str, dict[str, str]] = {"parameters": {}, "values": {}}
    for kind, of in names.items():
        for name in dict.fromkeys(name for one in found for name in getattr(one, kind)):
            column = name
            while column in taken:
                column = f"{kind}.{column}"
            of[name] = column
            taken.add(column)
    rows = []
    for one in found:
        start, end = pandas.Timestamp(one.start), pandas.Timestamp(one.end) if one.end else pandas.NaT
        row = {"id": one.id, "name": one.name, "status": one.status, "user": one.user, "start": start}
        row |= {"seconds": (end - start).total_seconds(), "annotations": len(one.annotations)}
        row["commit"] = one.code.get("commit", "")
        for kind, of in names.items():
            row |= {of[name]: value for name, value in getattr(one, kind).items()}
        rows.append(row)
    return pandas.DataFrame(rows, columns=None if rows else list(OWN))


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
