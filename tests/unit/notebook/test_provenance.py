"""A run is kept in Cytomine: what, with which parameters, by whom, with which results, and how it ended."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from cytomine import models

from cytomine_spawner.notebook import safe
from cytomine_spawner.notebook.annotations import frame, read_annotations
from cytomine_spawner.notebook.errors import CytomineError
from cytomine_spawner.notebook.provenance import code_version, run, runs, table
from cytomine_spawner.notebook.reviews import stop_review

from .conftest import Stack

SQUARES = frame(
    [{"geometry": shapely.box(x, 20, x + 10, 30), "term_name": ["tumour"]} for x in range(10, 90, 20)]
)


def test_a_run_is_found_with_all_that_belongs_to_it(empty: Any) -> None:
    project = models.Project().fetch(empty.project)
    with run(
        "nuclei", {"sigma": np.float64(2.5), "path": Path("/data"), "n": (1, 2)}, project=project
    ) as this:
        (during,) = runs(project)
        assert (during.status, during.end) == ("running", None)
        ids = this.upload(SQUARES, empty, progress=False)
        this.note(count=np.int64(len(ids)))
        this.attach("counts.csv", "term,count\ntumour,4\n")
        logging.getLogger("mine").warning("something odd")
    (found,) = runs(project.id)
    assert (found.name, found.status, found.user, found.project) == ("nuclei", "done", "alice", project.id)
    assert found.parameters == {"sigma": 2.5, "path": "/data", "n": [1, 2]}
    assert found.values == {"count": 4}
    assert found.annotations == ids
    assert found.start < (found.end or "")
    assert "WARNING mine: something odd" in found.log
    assert "cytomine.client" not in found.log
    assert found.read("counts.csv") == b"term,count\ntumour,4\n"
    with pytest.raises(CytomineError, match=r"no file 'x'; it has: counts\.csv"):
        found.read("x")
    assert found.code["packages"]["cytomine-python-client"] == "4.3.0"
    assert safe.tags(project) == ["run: nuclei"]
    assert safe.tags(models.Annotation().fetch(ids[0])) == ["run: nuclei"]
    (line,) = models.PropertyCollection(project).fetch()
    assert line.value.startswith("nuclei: done, alice, ")
    row = table([found]).iloc[0]
    assert (row["annotations"], row["sigma"], row["count"]) == (4, 2.5, 4)
    assert row["seconds"] > 0


def test_a_run_that_fails_keeps_its_results_and_the_reason(empty: Any) -> None:
    def fail() -> None:
        with run("broken", project=empty.project) as this:
            this.upload(SQUARES, empty, progress=False)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail()
    (found,) = runs(empty.project)
    assert (found.status, found.error) == ("failed", "ZeroDivisionError: division by zero")
    assert "Traceback" in found.log
    assert len(found.annotations) == 4


def test_results_of_a_run_go_together_and_leave_the_others(stack: Stack, empty: Any) -> None:
    for name in ("first", "second"):
        with run(name, project=empty.project) as this:
            this.upload(SQUARES, empty, progress=False)
            this.attach(f"{name}.txt", name)
    second, first = runs(empty.project)
    assert (first.name, second.name) == ("first", "second")
    assert len(read_annotations(empty)) == 8
    models.Annotation(id=first.annotations[0]).delete()
    first.remove(progress=False)
    assert sorted(read_annotations(empty)["id"]) == sorted(second.annotations)
    assert [r.name for r in runs(empty.project)] == ["second"]
    project = models.Project().fetch(empty.project)
    assert sorted(f.filename for f in safe.attached(project)) == sorted([second.file, "second.txt"])
    second.review(progress=False)
    assert read_annotations(empty)["reviewed"].all()
    second.review(accept=False, progress=False)
    assert not read_annotations(empty)["reviewed"].any()
    assert runs(project, "first") == []


def test_a_run_that_is_removed_leaves_no_accepted_copies_but_those_of_others(
    stack: Stack, empty: Any
) -> None:
    with run("first", project=empty.project) as first:
        first.upload(SQUARES, empty, progress=False)
    with run("second", project=empty.project) as second:
        second.upload(SQUARES, empty, progress=False)
    first.review(progress=False)
    second.review(progress=False)
    first.remove(progress=False)
    assert len(read_annotations(empty, reviewed=True)) == 4
    stop_review(empty, cancel=True)
    stack.connect("carla", "ADMIN")
    second.remove(progress=False)
    assert len(read_annotations(empty)) == 0
    assert len(read_annotations(empty, reviewed=True)) == 4


def test_a_member_who_may_not_change_the_project_still_keeps_runs(stack: Stack, empty: Any) -> None:
    bob = stack.connect("bob", "USER").current_user.id
    stack.connect()
    models.Project().fetch(empty.project).add_user(bob)
    stack.connect("bob", "USER")
    with run("bobs", project=empty.project) as this:
        this.upload(SQUARES, empty, terms=[], progress=False)
    (found,) = runs(empty.project)
    assert (found.user, found.status, len(found.annotations)) == ("bob", "done", 4)


def test_a_lost_stack_costs_neither_the_results_nor_the_record(
    stack: Stack,
    empty: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    with run("lost", project=empty.project) as this:
        this.upload(SQUARES, empty, progress=False)
        stack.way.lose = lambda method, path: "request"
    assert "could not be stored in Cytomine" in caplog.text
    assert this.annotations[0] in json.loads((tmp_path / this.file).read_text())["annotations"]
    stack.way.lose = lambda method, path: ""
    (found,) = runs(empty.project)
    assert (found.status, found.end) == ("running", None)


def test_the_code_is_named_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/jovyan/work/01 first.ipynb")
    assert "commit" not in code_version()
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@x"]
    for rest in (
        ["init", "-q"],
        ["commit", "-q", "--allow-empty", "-m", "x"],
        ["remote", "add", "origin", "https://me:secret@git.example.org/a.git"],
    ):
        subprocess.run([*git, *rest], check=True, timeout=10)
    found = code_version()
    assert found["notebook"] == "01 first.ipynb"
    assert len(found["commit"]) == 40
    assert found["changed"] is False
    assert found["origin"] == "https://git.example.org/a.git"
    (tmp_path / "new").touch()
    assert code_version()["changed"] is True
