"""The notebook on the archive runs from top to bottom, and says why where it cannot."""

from __future__ import annotations

import json

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import tifffile
from IPython.display import display

from tests.support import dicomslide
from tests.support.notebooks import FOLDER, result

from .conftest import SLIDES
from .test_archive_slides import picture

BOOK = FOLDER / "10_archive.ipynb"


def run(capsys, **parameters):
    """What the notebook's code says, run cell by cell as a kernel runs it."""
    capsys.readouterr()
    names = {"display": display}
    for cell in nbformat.read(BOOK, 4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, cell.id, "exec"), names)  # the project's own notebook
            if "parameters" in cell.metadata.get("tags", []):
                assert parameters.keys() <= names.keys()
                names.update(parameters)
    plt.close("all")
    return result(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def _no_screen():
    matplotlib.use("Agg")


def test_it_reads_slides_by_each_of_the_ways(local, v2, tmp_path, token_file, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    full = picture(1600, 900)
    with tifffile.TiffWriter(tmp_path / "slide.tif") as out:
        kind = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg"}
        out.write(full, subifds=1, resolution=(40000, 40000), resolutionunit="CENTIMETER", **kind)
        out.write(np.ascontiguousarray(full[::4, ::4]), subfiletype=1, **kind)
    local.put(SLIDES, "NOTEBOOK/IMAGE_2/slide.tif", (tmp_path / "slide.tif").read_bytes())
    dicomslide.write_pyramid(tmp_path / "IMAGE_1", {1: full, 4: full[::4, ::4]})
    for path in (tmp_path / "IMAGE_1").iterdir():
        local.put(SLIDES, f"NOTEBOOK/IMAGE_1/{path.name}", path.read_bytes())
    found = run(
        capsys,
        endpoint=v2.url,
        token_file=token_file,
        dataset=SLIDES,
        tiff_path="NOTEBOOK/IMAGE_2/slide.tif",
        dicom_path="NOTEBOOK/IMAGE_1",
        micron_per_px=1.0,
    )
    assert found["same_pixels"] == {
        "tiffslide and zarr": True,
        "ours and zarr": True,
        "ours and wsidicom": True,
    }
    assert (found["dataset"], found["levels"], found["thumb"]) == (SLIDES, 4, [144, 256, 3])
    assert (found["tiles"], 0 < found["dark"] <= 1) == (2, True)
    assert json.dumps(found).count("skipped") == 0


def test_without_a_token_that_counts_it_says_why(v2, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SDA_TOKEN_FILE", raising=False)
    assert "token" in run(capsys, endpoint=v2.url)["skipped"]
    token = tmp_path / "token"
    token.write_text("not-of-this-archive")
    token.chmod(0o600)
    assert "does not accept your token" in run(capsys, endpoint=v2.url, token_file=str(token))["skipped"]
