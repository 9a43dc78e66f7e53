"""The notebooks that teach, as they are kept: without outputs, with parameters, told of on the users' page."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tests.support.notebooks import RESULT, ROOT, clean, paths

EVERY = pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in paths()])
PAGE = ROOT / "docs" / "users" / "notebooks.md"


@EVERY
def test_a_notebook_is_kept_without_outputs_and_without_its_last_reader(path: Path) -> None:
    assert path.read_text() == clean(path)


@EVERY
def test_a_notebook_has_one_cell_of_parameters_and_ends_with_its_results(path: Path) -> None:
    code = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    assert ["parameters" in c.metadata.get("tags", []) for c in code].count(True) == 1
    assert f'print("{RESULT}"' in code[-1].source


@EVERY
def test_a_notebook_is_on_the_users_page(path: Path) -> None:
    assert f"\n| {path.name[:2]} " in PAGE.read_text()
