"""What others write into a record of a run harms nobody who reads, shows or removes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import shapely
from cytomine import models
from hypothesis import given
from hypothesis import strategies as st

from cytomine_spawner.notebook import provenance, safe
from cytomine_spawner.notebook.annotations import frame, read_annotations
from cytomine_spawner.notebook.errors import CytomineError
from cytomine_spawner.notebook.provenance import Run, run, runs, table
from cytomine_spawner.notebook.run_records import BadRecord, parse
from cytomine_spawner.notebook.transport import RequestFailed

from .conftest import Stack

SQUARES = frame([{"geometry": shapely.box(x, 20, x + 10, 30)} for x in (10, 40)])
START = "2026-01-02T03:04:05.000+00:00"


def record(project: int, number: str = "abc", **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "name": "forged",
        "project": project,
        "start": START,
        "status": "done",
        "user": "alice",
        **more,
    }


def put(project: int, content: Any, name: str = "run-abc.json") -> Any:
    text = content if isinstance(content, (str, bytes)) else json.dumps(content)
    return safe.attach(models.Project().fetch(project), name, text)


# -- records that are none --------------------------------------------------------------------------------

BROKEN: dict[str, Any] = {
    "start is a number": {"start": 5},
    "start is no time": {"start": "yesterday"},
    "start has no zone": {"start": "2026-01-02T03:04:05"},
    "start is out of all bounds": {"start": "0001-01-01T00:00:00+00:00"},
    "end is a list": {"end": []},
    "id is a list": {"id": ["abc"]},
    "id is another": {"id": "other"},
    "id leads elsewhere": {"id": "../abc"},
    "parameters are a list": {"parameters": [1]},
    "values are a word": {"values": "x"},
    "annotations are words": {"annotations": ["1"]},
    "annotations are lists": {"annotations": [[1]]},
    "annotations are below zero": {"annotations": [-1]},
    "annotations are no ids": {"annotations": [10**30]},
    "files are a list": {"files": ["a"]},
    "files are no ids": {"files": {"x": "a"}},
    "files have no names": {"files": {"1": 2}},
    "status is unknown": {"status": "won"},
    "name is a dictionary": {"name": {}},
    "code is a list": {"code": [1]},
    "log is a number": {"log": 1},
    "project is a word": {"project": "x"},
    "project is none": {"project": None},
}


@pytest.mark.parametrize("changes", BROKEN.values(), ids=BROKEN)
def test_a_record_with_a_wrong_field_is_named_in_one_line(changes: dict[str, Any]) -> None:
    assert parse("run-abc.json", json.dumps(record(7)).encode(), 7)["name"] == "forged"
    with pytest.raises(BadRecord, match=r"^run-abc\.json is no record .* left out \(.+\)\.$") as caught:
        parse("run-abc.json", json.dumps(record(7) | changes).encode(), 7)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(Run.__dataclass_fields__)), json_values))
def test_any_record_is_refused_in_a_line_or_shown_in_a_table(changes: dict[str, Any]) -> None:
    content = json.dumps(record(7) | changes).encode()
    try:
        fields = parse("run-abc.json", content, 7)
    except BadRecord as why:
        said = str(why)
    else:
        said = ""
    assert "\n" not in said
    if said:
        return
    one = Run(**fields)
    row = table([one]).iloc[0]
    assert (row["id"], row["user"], row["annotations"]) == (one.id, one.user, len(one.annotations))


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"id": ' + b"9" * 100_000 + b"}", b"null"], ids=lambda c: str(c[:8])
)  # fmt: skip
def test_what_is_no_json_or_too_deep_is_named_in_one_line(content: bytes) -> None:
    with pytest.raises(BadRecord):
        parse("run-abc.json", content, 7)


def test_broken_records_are_a_line_each_and_the_others_are_listed(
    stack: Stack, empty: Any, caplog: pytest.LogCaptureFixture
) -> None:
    project = int(empty.project)
    for number, changes in enumerate(({"start": 5}, {"id": [1]}, {"parameters": [1]}, {"values": None})):
        put(project, record(project, f"bad{number}") | changes, f"run-bad{number}.json")
    put(project, "my own notes", "run-notes.json")
    with run("good", project=project):
        pass
    found = runs(project)
    assert [r.name for r in found] == ["good"]
    assert len(table(found)) == 1
    told = [r.getMessage() for r in caplog.records if "is left out" in r.getMessage()]
    assert [line.split(" ")[0] for line in told] == [
        *(f"run-bad{n}.json" for n in range(4)),
        "run-notes.json",
    ]


def test_a_record_that_cannot_be_read_or_is_too_large_is_a_line(
    stack: Stack, empty: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    project = int(empty.project)
    gone, lost = (put(project, record(project, n), f"run-{n}.json").id for n in ("gone", "lost"))
    put(project, record(project, "large", log="x" * 5000), "run-large.json")
    put(project, record(project))
    monkeypatch.setattr(provenance, "LIMIT", 4000)
    read = safe.read_attached

    def reading(file: Any, limit: int | None = None) -> bytes:
        if file.id in (gone, lost):
            raise RequestFailed("no file", status=404 if file.id == gone else 500)
        return read(file, limit)

    monkeypatch.setattr(safe, "read_attached", reading)
    assert [r.id for r in runs(project)] == ["abc"]
    told = [r.getMessage() for r in caplog.records if "is left out" in r.getMessage()]
    assert [line.split(" ")[0] for line in told] == ["run-lost.json", "run-large.json"]
    assert "more than 4,000 bytes" in told[1]


def test_a_record_of_before_with_numbers_that_are_none_is_read() -> None:
    content = json.dumps(record(7, values={"score": float("nan")}, parameters={"x": [float("inf")]}))
    found = parse("run-abc.json", content.encode(), 7)
    assert (found["values"], found["parameters"]) == ({"score": None}, {"x": [None]})


# -- forged records ---------------------------------------------------------------------------------------


def test_a_forged_record_removes_nothing_of_another_project(
    stack: Stack, empty: Any, caplog: pytest.LogCaptureFixture
) -> None:
    other = stack.image(stack.project())
    with run("mine", project=other.project) as mine:
        mine.upload(SQUARES, other, progress=False)
        file = mine.attach("results.csv", "precious")
    here = int(empty.project)
    lies = {"annotations": mine.annotations, "files": {str(file.id): "results.csv"}}
    put(here, record(int(other.project)) | lies)
    assert runs(here) == []
    put(here, record(here, "def") | lies, "run-def.json")
    (forged,) = runs(here)
    with pytest.raises(CytomineError, match="not attached to its project"):
        forged.read("results.csv")
    forged.review(progress=False)
    forged.remove(progress=False)
    assert sorted(read_annotations(other)["id"]) == sorted(mine.annotations)
    assert not read_annotations(other)["reviewed"].any()
    assert runs(other.project)[0].read("results.csv") == b"precious"
    assert "names annotations of another project or user (2 of 2)" in caplog.text
    assert runs(here) == []


def test_a_forged_record_removes_nothing_of_another_user_and_no_other_record(
    stack: Stack, empty: Any
) -> None:
    project = int(empty.project)
    with run("mine", project=project) as mine:
        mine.upload(SQUARES, empty, progress=False)
    ours = next(f for f in safe.attached(models.Project().fetch(project)) if f.filename == mine.file)
    lies = {"user": "mallory", "annotations": mine.annotations, "files": {str(ours.id): mine.file}}
    put(project, record(project) | lies)
    next(r for r in runs(project) if r.id == "abc").remove(progress=False)
    assert sorted(read_annotations(empty)["id"]) == sorted(mine.annotations)
    assert [r.id for r in runs(project)] == [mine.id]


def test_a_record_does_not_take_the_place_of_a_run_that_is_there(
    stack: Stack, empty: Any, caplog: pytest.LogCaptureFixture
) -> None:
    project = int(empty.project)
    with run("mine", project=project) as mine:
        pass
    put(project, record(project, mine.id), mine.file)
    (found,) = runs(project)
    assert (found.name, found.user) == ("mine", "alice")
    assert "another run has this id already" in caplog.text


# -- what a run keeps -------------------------------------------------------------------------------------


def test_of_a_name_that_was_attached_twice_the_newest_is_read(stack: Stack, empty: Any) -> None:
    with run("twice", project=empty.project) as this:
        this.attach("model.bin", b"old")
        this.attach("model.bin", b"new")
        assert this.read("model.bin") == b"new"
    (found,) = runs(empty.project)
    assert found.read("model.bin") == b"new"
    # JSON promises no order.
    found.files = dict(reversed(found.files.items()))
    assert found.read("model.bin") == b"new"


def test_whatever_a_run_notes_its_record_is_json_and_is_read_back(
    stack: Stack, empty: Any, tmp_path: Path
) -> None:
    odd = {"when": pandas.NaT, "score": float("nan"), "ids": {np.int64(3)}, "path": tmp_path, "raw": b"a"}
    with run("odd", odd, project=empty.project) as this:
        this.note(**odd)
        this.values["later"] = np.array([np.inf, 1.0])
    expected = {"when": None, "score": None, "ids": [3], "path": str(tmp_path), "raw": "YQ=="}
    (found,) = runs(empty.project)
    assert found.parameters == expected
    assert found.values == {**expected, "later": [None, 1.0]}
    (file,) = safe.attached(models.Project().fetch(empty.project))
    assert b"NaN" not in safe.read_attached(file)


def test_a_record_that_is_too_large_to_be_read_again_is_kept_beside_the_notebook(
    stack: Stack,
    empty: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance, "LIMIT", 10_000)
    with run("large", project=empty.project) as this:
        this.note(text="x" * 20_000)
    assert "attach large results as files" in caplog.text
    assert len(json.loads((tmp_path / this.file).read_text())["values"]["text"]) == 20_000


def test_a_table_shows_the_runs_own_columns_whatever_parameters_and_values_are_called() -> None:
    names = {
        "user": "p",
        "status": "p",
        "start": "p",
        "id": "p",
        "sigma": 2,
        "count": 1,
        "parameters.user": 9,
    }
    one = Run(
        "a",
        1,
        names,
        id="1",
        user="alice",
        start=START,
        end=START,
        values={"count": 5, "name": "v", "area": 3},
    )
    two = Run("b", 1, {"sigma": 3}, id="2", user="bob", start=START, values={"count": 6})
    found = table([one, two])
    assert list(found["user"]) == ["alice", "bob"]
    assert list(found["status"]) == ["running", "running"]
    assert found["start"][0] == pandas.Timestamp(START)
    assert list(found["id"]) == ["1", "2"]
    assert list(found["name"]) == ["a", "b"]
    assert list(found["sigma"]) == [2, 3]
    assert found["area"][0] == 3
    assert found["count"][0] == 1
    assert list(found["values.count"]) == [5, 6]
    assert found["values.name"][0] == "v"
    assert sorted([found["parameters.user"][0], found["parameters.parameters.user"][0]], key=str) == [9, "p"]
    assert found["seconds"][0] == 0
    assert list(table([]).columns)[:3] == ["id", "name", "status"]


def test_a_column_for_one_run_is_there_for_no_other() -> None:
    found = table([Run("a", 1, {"x": 1}, start=START), Run("b", 1, {"y": 2}, start=START)])
    assert found["x"].isna().tolist() == [False, True]
