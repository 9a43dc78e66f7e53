"""The command `sda`."""

from __future__ import annotations

import hashlib
import io
import sys
from dataclasses import replace

import pytest

from cytomine_spawner.archive import api, cli, download, http, reader
from cytomine_spawner.archive.cli import main
from dev.archive import Fault

DATASET = "aa-Dataset-reading-slides1"
SLIDE = f"{DATASET}/IMAGES/slide.tif"
BODY = r"/content|/s3/"


@pytest.fixture
def sda(server, local, tmp_path, monkeypatch, capsys):
    """Runs the command: its exit status, output and error output."""
    place = tmp_path / "s3cmd.conf"
    place.write_text(f"[default]\naccess_token = {local.issuer.token(local.petra)}\n")
    monkeypatch.setenv("SDA_URL", server.url)
    monkeypatch.setenv("SDA_TOKEN_FILE", str(place))

    def run(*words):
        status = main([str(word) for word in words])
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def small(monkeypatch):
    """Little of a part is thought unsure or is still in a buffer when it is cut, as the test's files are small."""
    monkeypatch.setattr(download, "UNSURE", 70_000)
    monkeypatch.setattr(http, "BUFFER", 65_536)
    monkeypatch.setattr(reader, "PIECE", 1)


def test_datasets_and_files_are_listed(sda):
    assert sda("datasets") == (0, f"{DATASET}\nhttps://doi.org/10.17044/slides\n", "")
    status, out, _ = sda("ls", f"sda://{DATASET}")
    assert (status, out.split()) == (0, [f"{DATASET}/{name}/" for name in ("EDITED", "IMAGES", "METADATA")])
    _, out, _ = sda("ls", "-lr", DATASET)
    assert f"3000001 {SLIDE}" in out
    status, out, error = sda("ls", f"{DATASET}/none")
    assert (status, out) == (1, "")
    assert error.startswith("sda: There is no ")


def test_who_is_granted_nothing_is_told_why(sda, local, server, tmp_path, monkeypatch):
    (tmp_path / "t").write_text(local.issuer.token(local.someone("paul")))
    status, out, error = sda("datasets", "--token-file", tmp_path / "t", "--issuer", local.issuer.url)
    assert (status, out) == (1, "")
    assert error == (
        "sda: The list is empty as you have no visa: apply for access to a dataset, and log in again once it was given.\n"
    )
    monkeypatch.delenv("SDA_TOKEN_FILE")
    assert "There is no token" in sda("datasets")[2]


def test_stat_shows_what_the_archive_knows(sda, local, server):
    status, out, _ = sda("stat", SLIDE)
    assert status == 0
    assert f"checksum: sha256:{hashlib.sha256(local.plain[SLIDE]).hexdigest()}" in out
    assert ("encrypted checksum: sha256:" in out) == (server.settings.version == 2)


def test_cat_writes_the_plain_bytes(sda, local, monkeypatch, server):
    class Out(io.StringIO):
        buffer = io.BytesIO()

    for words, expected in (
        ([], local.plain[SLIDE]),
        (["--offset", 1_000_000, "--length", 100], local.plain[SLIDE][1_000_000:1_000_100]),
        (["--offset", -5], local.plain[SLIDE][-5:]),
    ):
        out = Out()
        out.buffer = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            assert main(["cat", SLIDE, *map(str, words)]) == 0
        assert out.buffer.getvalue() == expected


def test_get_copies_a_dataset_and_verify_finds_it_good(sda, local, tmp_path):
    status, _, error = sda("get", f"sda://{DATASET}/IMAGES", tmp_path / "to")
    assert (status, error) == (0, "")
    for name in ("slide.tif", "keys.tif", "small.dcm", "empty"):
        assert (tmp_path / "to/IMAGES" / name).read_bytes() == local.plain[f"{DATASET}/IMAGES/{name}"]
    assert not list(tmp_path.rglob("*.sda-part*"))
    status, out, _ = sda("verify", f"{DATASET}/IMAGES", tmp_path / "to")
    assert status == 0
    assert f"good {SLIDE}" in out
    with (tmp_path / "to/IMAGES/slide.tif").open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"changed")
    status, out, error = sda("verify", f"{DATASET}/IMAGES", tmp_path / "to")
    assert status == 1
    assert f"BAD {SLIDE}" in out
    assert "1 of" in error


def test_verify_compares_what_is_in_the_archive(sda, server):
    assert sda("verify", SLIDE)[:2] == (0, f"good {SLIDE}\n")
    status, out, error = sda("verify", "--encrypted", SLIDE)
    if server.settings.version == 2:
        assert (status, out) == (0, f"good {SLIDE}\n")
    else:
        assert (status, out) == (1, f"unknown {SLIDE}\n")
        assert "has no such checksum" in error
    server.faults.append(Fault("flip", BODY, "GET", times=0, at=4000))
    assert sda("verify", SLIDE)[:2] == (1, f"BAD {SLIDE}\n")


def test_get_goes_on_where_it_was_cut(sda, server, local, tmp_path, small):
    server.faults += [Fault("cut", BODY, "GET", after=2_500_000, skip=server.settings.version == 1)]
    server.faults += [Fault("status", BODY, "GET", times=0, status=503)]
    # The first request of version 1 is the header's, so the faults' order is that of the content's requests.
    server.faults[1].skip = 2 if server.settings.version == 1 else 1
    status, _, error = sda("get", SLIDE, tmp_path / "a.tif", "--patience", 1)
    assert status == 1
    assert "the same command tries them again" in error
    part = tmp_path / "a.tif.sda-part"
    assert part.stat().st_size > 1_500_000
    assert part.stat().st_mode & 0o077 == 0
    server.faults.clear()
    server.counters.reset()
    assert sda("get", SLIDE, tmp_path / "a.tif")[0] == 0
    assert (tmp_path / "a.tif").read_bytes() == local.plain[SLIDE]
    assert server.counters.total.sent < 1_600_000
    assert not part.exists()


def test_get_waits_for_another_token_in_the_file(sda, server, local, tmp_path, monkeypatch):
    server.faults.append(Fault("expired", BODY, "GET"))
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        (tmp_path / "s3cmd.conf").write_text(f"access_token = {local.issuer.token(local.petra)}\n")

    monkeypatch.setattr("cytomine_spawner.archive.cli.time.sleep", pause)
    status, _, error = sda("get", SLIDE, tmp_path / "a.tif")
    assert (status, len(pauses)) == (0, 1)
    assert "Waiting for another token" in error
    assert (tmp_path / "a.tif").read_bytes() == local.plain[SLIDE]
    # Who may wait for nothing is told at once.
    (tmp_path / "a.tif").unlink()
    server.faults.append(Fault("expired", BODY, "GET"))
    status, _, error = sda("get", SLIDE, tmp_path / "a.tif", "--patience", 1)
    assert (status, len(pauses)) == (1, 1)
    assert "does not accept your token" in error


def test_a_part_of_another_content_is_not_gone_on_with(sda, local, tmp_path, small):
    (tmp_path / "a.tif.sda-part").write_bytes(b"x" * 1_000_000)
    (tmp_path / "a.tif.sda-part.json").write_text('{"content": "other"}')
    assert sda("get", SLIDE, tmp_path / "a.tif")[0] == 0
    assert (tmp_path / "a.tif").read_bytes() == local.plain[SLIDE]


def test_a_part_that_was_changed_on_disk_is_found_by_the_checksum(
    sda, server, local, tmp_path, small, monkeypatch
):
    server.faults += [
        Fault("status", BODY, "GET", times=0, status=503, skip=1 + (server.settings.version == 1))
    ]
    server.faults += [Fault("cut", BODY, "GET", after=2_500_000, skip=server.settings.version == 1)]
    sda("get", SLIDE, tmp_path / "a.tif", "--patience", 1)
    with (tmp_path / "a.tif.sda-part").open("r+b") as file:
        file.write(b"changed")
    server.faults.clear()
    status, _, error = sda("get", SLIDE, tmp_path / "a.tif")
    assert status == 1
    assert "has another checksum" in error
    assert not (tmp_path / "a.tif").exists()
    assert sda("get", SLIDE, tmp_path / "a.tif")[0] == 0
    assert (tmp_path / "a.tif").read_bytes() == local.plain[SLIDE]


def test_one_bad_file_does_not_keep_the_others_from_coming(sda, server, local, tmp_path):
    server.faults.append(
        Fault("flip", BODY, "GET", times=0, at=15 * 65_564 + 9)
    )  # only two files are so long
    status, _, error = sda("get", f"{DATASET}/IMAGES", tmp_path)
    assert status == 1
    assert "is damaged" in error
    assert (tmp_path / "IMAGES/small.dcm").read_bytes() == local.plain[f"{DATASET}/IMAGES/small.dcm"]
    assert not (tmp_path / "IMAGES/slide.tif").exists()


def test_what_is_there_is_not_fetched_again_and_nothing_else_is_overwritten(sda, server, local, tmp_path):
    assert sda("get", SLIDE, tmp_path)[0] == 0
    server.counters.reset()
    assert sda("get", SLIDE, tmp_path)[0] == 0
    assert server.counters.total.sent < 1000
    (tmp_path / "slide.tif").write_bytes(b"mine")
    status, _, error = sda("get", SLIDE, tmp_path)
    assert status == 1
    assert "is there already and has another size" in error
    assert (tmp_path / "slide.tif").read_bytes() == b"mine"


@pytest.mark.parametrize("outside", ["../../", "/"])
def test_nothing_is_copied_out_of_the_folder_whatever_the_archive_lists(
    outside, reach, v2, tmp_path, monkeypatch
):
    listed, count = api.V2.files, []

    async def files(self, dataset):
        first, second, *rest = await listed(self, dataset)
        count.append(2 + len(rest))
        # Alike but for what may not be in a path.
        plain = (outside.replace("..", "%2E%2E") + "left").lstrip("/")
        return [replace(first, path=f"{outside}left"), replace(second, path=plain), *rest]

    monkeypatch.setattr(api.V2, "files", files)
    place = tmp_path / "to"
    pairs = cli._pairs(reach(v2), DATASET, place)
    assert len({target for _, target in pairs}) == len(pairs) == count[0]
    for entry, target in pairs:
        assert entry["type"] == "file"
        assert place / DATASET in target.resolve().parents


def test_what_the_archive_says_moves_no_cursor_and_looks_like_no_other_line(capsys):
    cli._print("good a\nBAD b\x1b[2K")
    cli._say("it answers 500 (\x1b]0;title\x07)")
    said = capsys.readouterr()
    assert said.out == "good a\\x0aBAD b\\x1b[2K\n"
    assert said.err == "sda: it answers 500 (\\x1b]0;title\\x07)\n"


@pytest.mark.parametrize("place", ["somebody else's", "linked twice"])
def test_what_comes_is_written_to_no_file_that_others_hold(sda, tmp_path, monkeypatch, place):
    part = tmp_path / "a.tif.sda-part"
    part.write_bytes(b"")
    if place == "linked twice":
        (tmp_path / "elsewhere").hardlink_to(part)
    else:
        monkeypatch.setattr(download.os, "geteuid", lambda: part.stat().st_uid + 1)
    status, _, error = sda("get", SLIDE, tmp_path / "a.tif")
    assert status == 1
    assert "is not yours alone" in error
    assert part.read_bytes() == b""


def test_a_link_in_the_place_of_the_note_is_not_followed(sda, local, tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "a.tif.sda-part.json").symlink_to(tmp_path / "mine")
    assert sda("get", SLIDE, tmp_path / "a.tif")[0] == 0
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "a.tif").read_bytes() == local.plain[SLIDE]


def test_a_dataset_is_copied_alike_however_its_name_is_typed(reach, v2, tmp_path):
    typed = ("https%3A%2F%2Fdoi.org%2F10.17044%2Fslides", "https%3a%2f%2fdoi.org%2f10.17044%2fslides")
    plain, other = (cli._pairs(reach(v2), name, tmp_path) for name in typed)
    assert [target for _, target in plain] == [target for _, target in other]


def test_two_that_write_to_one_place_are_kept_apart(sda, tmp_path):
    with download._mine(tmp_path / "a.tif.sda-part"):
        status, _, error = sda("get", SLIDE, tmp_path / "a.tif")
    assert status == 1
    assert "Another download writes" in error
