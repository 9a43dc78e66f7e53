"""The notebooks that teach come into the home, and what a user changed there stays."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cytomine_spawner.notebook.lab import examples

FOLDER = Path(__file__).parents[3] / "notebooks"
LOG = logging.getLogger("examples")


def paths() -> list[Path]:
    found = sorted(FOLDER.glob("*.ipynb"))
    assert len(found) > 1
    return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(examples.VARIABLE, str(FOLDER))
    return tmp_path


def test_all_notebooks_come_into_the_home_and_can_be_changed(home: Path) -> None:
    examples.copy(LOG)
    found = sorted((home / "cytomine-notebooks").iterdir())
    assert [p.name for p in found] == [p.name for p in paths()]
    assert all(p.read_bytes() == (FOLDER / p.name).read_bytes() for p in found)
    assert all(p.stat().st_mode & 0o200 for p in found)


def test_what_is_there_stays_and_what_was_deleted_comes_back(home: Path) -> None:
    examples.copy(LOG)
    kept, gone = (home / "cytomine-notebooks" / p.name for p in paths()[:2])
    kept.write_text("mine")
    gone.unlink()
    examples.copy(LOG)
    assert kept.read_text() == "mine"
    assert gone.exists()


def test_an_image_without_notebooks_makes_no_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(examples.VARIABLE)
    examples.copy(LOG)
    assert not list(home.iterdir())


def test_a_home_that_takes_nothing_is_said_and_stops_nothing(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (home / "cytomine-notebooks").write_text("a file in its place")
    examples.copy(LOG)
    assert "could not be put into" in caplog.text


def test_a_copy_that_is_cut_leaves_no_half_notebook(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_source: Path, target: Path) -> None:
        target.write_text("half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfile", full)
        examples.copy(LOG)
    assert not list((home / "cytomine-notebooks").iterdir())
