"""The archive's stand-in: a slide of two gigabytes that takes no disk is a slide to those who read slides."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import httpx
import openslide
import pytest
from PIL import Image

from dev.archive.__main__ import main
from dev.archive.slides import TILE, Pyramid
from dev.cache import ROOT


@pytest.mark.parametrize("spread", [True, False])
def test_a_virtual_slide_is_read_by_openslide(tmp_path, spread):
    slide = Pyramid(3000, 2500, stride=20_000, spread=spread)
    path = tmp_path / "slide.tif"
    path.write_bytes(slide.read(0, slide.size))
    assert path.stat().st_size == slide.size
    with openslide.OpenSlide(path) as opened:
        assert opened.level_dimensions == ((3000, 2500), (750, 625), (188, 157))
        for level, column, row in ((0, 11, 9), (0, 0, 0), (0, 5, 3), (1, 1, 2), (2, 0, 0)):
            factor = 4**level
            got = opened.read_region((column * TILE * factor, row * TILE * factor), level, (100, 100))
            with Image.open(io.BytesIO(slide.tile(level, column, row))) as tile:
                expected = tile.convert("RGB").crop((0, 0, 100, 100))
            assert similar(got.convert("RGB"), expected), (level, column, row)


def similar(one, other):
    """Two decoders of JPEG may differ by little; neighbours among the pool's tiles differ by 8 in green."""
    return all(
        abs(a - b) < 2
        for a, b in zip(
            one.resize((1, 1)).getpixel((0, 0)), other.resize((1, 1)).getpixel((0, 0)), strict=True
        )
    )


def test_it_is_the_same_however_it_is_read():
    slide = Pyramid(1500, 1100)
    whole = slide.read(0, slide.size)
    for step in (999, 16_384, 70_001):
        assert b"".join(slide.read(at, step) for at in range(0, slide.size, step)) == whole
    assert slide.read(slide.size, 10) == b""


def test_two_gigabytes_are_made_in_no_time():
    slide = Pyramid(100_000, 82_000)
    assert slide.size > 2 * 10**9
    at = slide.levels[0].start + 70_000 * 16_384
    assert slide.read(at, 2) == b"\xff\xd8"


def test_the_command_serves_folders_and_prints_a_token(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    command = [sys.executable, "-m", "dev.archive", "--own-issuer", "--port", "0", "--admin-port", "0"]
    child = subprocess.Popen(
        [*command, "--dataset", f"aa-Dataset-mine={tmp_path}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        lines = [child.stdout.readline() for _ in range(4)]
        url, token = lines[0].split()[-1], lines[2].split()[-1]
        assert lines[1] == "  aa-Dataset-mine: 1 files\n"
        assert re.search(r"http://127\.0\.0\.1:\d+$", lines[3])
        answer = httpx.get(f"{url}/datasets", headers={"Authorization": f"Bearer {token}"}, timeout=30)
        assert answer.json()["datasets"] == ["aa-Dataset-mine"]
    finally:
        child.terminate()
        child.wait(30)
        child.stdout.close()
    assert child.returncode == 0


def test_the_command_says_in_a_sentence_what_is_wrong(tmp_path, capsys):
    assert main(["--dataset", f"x={tmp_path / 'nowhere'}"]) == 1
    said = capsys.readouterr()
    assert "nowhere is no folder" in said.out + said.err
