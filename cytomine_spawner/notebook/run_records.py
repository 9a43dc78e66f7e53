"""Records of runs as they are read back: others may attach files to a project, and nothing in one is believed unseen."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from .errors import CytomineError
from .plain import plain

PREFIX, SUFFIX = "run-", ".json"
# Larger results are files of their own.
LIMIT = 64 << 20


class BadRecord(CytomineError):
    """A file is named like the record of a run, and is none of this project; the message says which and why."""


def _time(text: str) -> str:
    """A time in UTC, written as all are, so that they sort as texts."""
    when = datetime.fromisoformat(text.removesuffix("Z") + ("+00:00" if text.endswith("Z") else ""))
    if when.tzinfo is None or not 1970 <= when.year < 2200:
        raise ValueError("it is no time with its zone, of 1970 to 2199")
    return when.astimezone(timezone.utc).isoformat(timespec="milliseconds")


Number = Annotated[int, Field(gt=0, lt=1 << 63)]
Time = Annotated[str, AfterValidator(_time)]
Text = Annotated[str, Field(max_length=10_000)]


class Record(BaseModel):
    """The fields of a `provenance.Run`."""

    model_config = ConfigDict(strict=True, extra="ignore")

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    name: Text
    project: Number
    start: Time
    status: Literal["running", "done", "failed"]
    user: Text = ""
    end: Time | None = None
    parameters: dict[str, JsonValue] = {}
    code: dict[str, JsonValue] = {}
    annotations: list[Number] = []
    files: dict[Annotated[str, Field(pattern=r"^[1-9][0-9]{0,18}$")], Text] = {}
    values: dict[str, JsonValue] = {}
    error: Text = ""
    log: str = ""


def is_record(filename: Any) -> bool:
    """Whether a file is named like the record of a run."""
    name = str(filename or "")
    return name.startswith(PREFIX) and name.endswith(SUFFIX)


def parse(filename: str, content: bytes, project: int) -> dict[str, Any]:
    """The fields of the run in a record.

    Args:
        filename: of the attached file.
        content: of the attached file.
        project: the id of the project that it is attached to.

    Raises:
        BadRecord: it is no record, or one of another run or project.
    """
    try:
        found = Record.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise bad(filename, f"{place}: {first['msg']}" if place else str(first["msg"])) from None
    if filename != f"{PREFIX}{found.id}{SUFFIX}":
        raise bad(filename, f"it says that it is run {found.id}")
    if found.project != project:
        raise bad(filename, f"it says that it is of project {found.project}")
    # Records of before may hold numbers that are none.
    fields: dict[str, Any] = plain(found.model_dump())
    return fields


def bad(filename: str, why: str) -> BadRecord:
    """That a record is left out, in one line."""
    shown = ["".join(sign if sign.isprintable() else " " for sign in text)[:150] for text in (filename, why)]
    return BadRecord(f"{shown[0]} is no record of a run of this project and is left out ({shown[1]}).")
