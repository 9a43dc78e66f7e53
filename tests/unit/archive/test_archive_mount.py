"""The archive as a folder: each byte is the archive's, nothing can be written, and it goes when its program ends."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from ctypes.util import find_library
from types import SimpleNamespace

import numpy as np
import openslide
import pytest

from cytomine_spawner.archive import mount
from cytomine_spawner.archive.cli import main
from dev import host
from dev.archive import Fault
from dev.cache import ROOT

from .conftest import DATASET, EDITS, SLIDES
from .test_archive_slides import write


@pytest.fixture(scope="module")
def libfuse():
    """Where libfuse is; nothing where the system has it."""
    try:
        os.close(os.open(mount.DEVICE, os.O_RDWR))
    except OSError as error:
        pytest.skip(f"{mount.DEVICE} cannot be opened here ({error.strerror}), so nothing can be mounted.")
    if os.geteuid():
        pytest.skip("Only root can mount here for certain: fusermount3 may be missing.")
    if find_library("fuse3"):
        return ""
    return str(next(host.unpacked("libfuse3-3", print).glob("**/libfuse3.so.3")))


@pytest.fixture
def environment(local, v2, tmp_path, libfuse):
    token = tmp_path / "petra"
    token.write_text(local.issuer.token(local.petra))
    token.chmod(0o600)
    return {
        **os.environ,
        "SDA_URL": v2.url,
        "SDA_TOKEN_FILE": str(token),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT),
        **({"FUSE_LIBRARY_PATH": libfuse} if libfuse else {}),
    }


def command(*words):
    return [sys.executable, "-m", "cytomine_spawner.archive.cli", "mount", *map(str, words)]


def wait_for(true, child=None):
    """Wait until something is so; a program that ends meanwhile says why."""
    end = time.monotonic() + 60
    while not true():
        if child is not None and child.poll() is not None:
            raise AssertionError(child.stderr.read().decode())
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def mounted(environment, folder, path=DATASET, end=signal.SIGTERM):
    """A dataset at a folder; the signal must end it cleanly."""
    child = subprocess.Popen(command(path, folder, "--foreground"), env=environment, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: os.path.ismount(folder), child)
        yield child
    finally:
        child.send_signal(end)
        _, said = child.communicate(timeout=60)
        still = os.path.ismount(folder)
        if still:
            subprocess.run(["umount", "-l", folder], check=True)
    assert (child.returncode, still) == (0, False), said.decode()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_every_byte_is_the_archives_and_nothing_can_be_written(local, environment, tmp_path, end):
    folder = tmp_path / "archive"
    with mounted(environment, folder, end=end) as child:
        assert sorted(p.name for p in folder.iterdir()) >= ["EDITED", "IMAGES", "METADATA"]
        plain = local.plain[f"{DATASET}/IMAGES/slide.tif"]
        slide = folder / "IMAGES" / "slide.tif"
        assert slide.stat().st_size == len(plain)
        draw = random.Random(5)
        with slide.open("rb", buffering=0) as file:
            for _ in range(30):
                at, length = draw.randrange(len(plain) + 10), draw.randrange(200_000)
                file.seek(at)
                got = b""
                while part := file.read(length - len(got)):
                    got += part
                assert got == plain[at : at + length]
        assert slide.read_bytes() == plain
        # The archive's list does not say what an edit list cuts off.
        for name in EDITS:
            assert (folder / "EDITED" / name).read_bytes() == local.plain[f"{DATASET}/EDITED/{name}"]
        for attempt in (
            lambda: slide.open("r+b"),
            lambda: (folder / "new").write_bytes(b"1"),
            lambda: (folder / "new").mkdir(),
            slide.unlink,
            lambda: slide.rename(folder / "other"),
            lambda: os.truncate(slide, 0),
        ):
            with pytest.raises(OSError, match="Read-only") as refused:
                attempt()
            assert refused.value.errno == errno.EROFS
        with pytest.raises(FileNotFoundError):
            (folder / "IMAGES" / "none").stat()
        assert child.poll() is None


def test_openslide_reads_a_slide_through_it(local, environment, tmp_path, token_file):
    levels = write(tmp_path / "slide.tif", compression="jpeg", photometric="ycbcr")
    local.put(SLIDES, "MOUNTED/slide.tif", (tmp_path / "slide.tif").read_bytes())
    environment = {**environment, "SDA_TOKEN_FILE": token_file}
    with mounted(environment, tmp_path / "archive", "/"):
        path = tmp_path / "archive" / SLIDES / "MOUNTED" / "slide.tif"
        with openslide.OpenSlide(path) as there, openslide.OpenSlide(tmp_path / "slide.tif") as here:
            assert there.dimensions == levels[0].shape[1::-1]
            part = ((500, 300), 0, (400, 300))
            assert np.array_equal(there.read_region(*part), here.read_region(*part))


def test_a_file_that_does_not_come_is_an_error_and_said_in_words(local, v2, environment, tmp_path):
    with mounted({**environment, "XDG_CACHE_HOME": str(tmp_path / "empty")}, tmp_path / "archive") as child:
        v2.faults.append(Fault("flip", path=r"/content|/s3/", times=1000))
        with pytest.raises(OSError, match="Input/output error") as failed:
            (tmp_path / "archive" / "IMAGES" / "keys.tif").read_bytes()
        v2.faults.clear()
        assert failed.value.errno == errno.EIO
        # libfuse has something to say, too.
        assert any(b"is damaged" in child.stderr.readline() for _ in range(3))


def test_in_the_background_it_is_there_when_the_command_ends(environment, tmp_path):
    folder = tmp_path / "archive"
    done = subprocess.run(
        command(f"sda://{DATASET}/IMAGES", folder),
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"End it by: fusermount3 -u {folder}\n")
    try:
        assert (folder / "small.dcm").stat().st_size == 1000
    finally:
        subprocess.run(["umount", folder], check=True)
    assert not os.path.ismount(folder)


@pytest.fixture
def words_of(local, v2, tmp_path, monkeypatch, capsys):
    """What the command says when it does not mount, in this process."""
    monkeypatch.setenv("SDA_URL", v2.url)
    monkeypatch.setenv("SDA_TOKEN_FILE", str(_file(tmp_path / "token", local.issuer.token(local.petra))))
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*words):
        assert main(["mount", *map(str, words)]) == 1
        said = capsys.readouterr().err
        assert said.startswith("sda: ")
        return said

    return run


def test_what_cannot_be_mounted_is_said_before_anything_is(words_of, tmp_path, monkeypatch, libfuse):
    monkeypatch.setattr(mount, "_library", lambda: SimpleNamespace(Operations=object))
    folder = tmp_path / "archive"
    assert "There is no aa-Dataset-reading-slides1/none" in words_of(
        f"{DATASET}/none", folder, "--foreground"
    )
    assert "is a file: name its dataset" in words_of(f"{DATASET}/IMAGES/slide.tif", folder, "--foreground")
    (folder / "mine").write_text("x")
    for more in ((), ("--foreground",)):
        assert "is not empty" in words_of(DATASET, folder, *more)
        assert "is no folder" in words_of(DATASET, folder / "mine", *more)
    monkeypatch.setenv("SDA_TOKEN_FILE", str(_file(tmp_path / "bad", "nothing")))
    assert "does not accept your token" in words_of("/", tmp_path / "new", "--foreground")


def _file(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("more", [(), ("--foreground",)], ids=["background", "foreground"])
def test_a_machine_that_does_not_let_it_is_said_with_what_works_all_the_same(
    words_of, tmp_path, monkeypatch, more
):
    words = (DATASET, tmp_path / "archive", *more)
    monkeypatch.setattr(mount, "DEVICE", tmp_path / "no-fuse")
    said = words_of(*words)
    assert "there is no " in said
    assert said.endswith("Without it sda:// in Python, and sda get, work all the same.\n")
    monkeypatch.setattr(mount, "DEVICE", _file(tmp_path / "fuse", ""))
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    assert "mfusepy is missing" in words_of(*words)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(mount, "is_root", lambda: False)
    assert "fusermount3 is missing" in words_of(*words)
