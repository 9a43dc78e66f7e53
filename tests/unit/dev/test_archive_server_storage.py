"""The archive's stand-in: what each kind of server pulls from its storage, and that all kinds serve the same bytes."""

from __future__ import annotations

import pytest

from dev import archive
from dev.archive import s3
from tests.support.archiveclient import SEALED, client, decrypted

DATASET = "aa-Dataset-demo01-slides"
MIB = archive.MIB
BLOCK = MIB


@pytest.fixture(scope="module")
def local():
    with archive.running() as found:
        found.slide = found.add(DATASET, "slide.tif", archive.Noise(5 * MIB, "slide"))
        found.large = found.add(DATASET, "large.tif", archive.Noise(50 * 1024 * MIB, "large"))
        found.petra = found.someone("petra", DATASET)
        yield found


@pytest.fixture(scope="module")
def posix(local):
    with local.archive() as found:
        yield found


@pytest.fixture(scope="module")
def blocks(local):
    with local.archive(block=BLOCK) as found:
        yield found


@pytest.fixture(scope="module")
def old(local):
    with local.archive(version=1) as found:
        yield found


@pytest.fixture
def ask(local):
    def asked(server, file, first, last):
        with client(local, server, local.petra) as made:
            path = f"/files/{file.id}/content"
            if server.settings.version == 1:
                path = f"/s3/{DATASET}/{file.path.partition('/')[2]}"
            before = server.counters.files[file.id]
            pulled, reads = before.pulled, before.reads
            key = {"Client-Public-Key": made.key}
            answer = made.range(path, f"bytes={first}-{last}", **key)
            assert answer.status_code in (200, 206)
            after = server.counters.files[file.id]
            return answer.content, after.pulled - pulled, after.reads - reads

    return asked


def test_a_server_on_a_disk_pulls_what_it_sends(local, posix, ask):
    content, pulled, reads = ask(posix, local.slide, 3 * MIB, 3 * MIB + 65_535)
    assert (len(content), pulled, reads) == (65_536, 65_536, 1)


def test_version_1_pulls_all_that_is_before_the_range(local, old, ask):
    content, pulled, reads = ask(old, local.slide, 3 * MIB, 3 * MIB + 65_535)
    assert (len(content), reads) == (65_536, 1)
    assert pulled == 3 * MIB + 65_536 - 124


def test_a_server_on_an_object_store_pulls_whole_blocks_from_where_the_range_starts(local, blocks, ask):
    content, pulled, reads = ask(blocks, local.slide, 2 * MIB, 2 * MIB + 99)
    assert (len(content), pulled, reads) == (100, BLOCK, 1)
    content, pulled, reads = ask(blocks, local.slide, 2 * MIB, 4 * MIB - 1)
    assert (len(content), pulled, reads) == (2 * MIB, 2 * BLOCK, 2)
    content, pulled, reads = ask(blocks, local.slide, local.slide.size - 10, local.slide.size)
    assert (len(content), pulled, reads) == (10, 10, 1)


def test_a_range_from_the_start_streams_even_there(local, blocks, ask):
    content, pulled, reads = ask(blocks, local.slide, 0, 99)
    assert (len(content), pulled, reads) == (100, 100, 1)


def test_a_block_is_pulled_to_its_end_before_its_first_byte_leaves(local):
    """Cut behind the first byte: what was pulled by then tells the order."""
    for start, wanted in ((MIB, BLOCK), (0, MIB)):
        with local.archive(block=BLOCK) as server, client(local, server, local.petra) as made:
            server.faults.append(archive.Fault("cut", after=1))
            with pytest.raises(Exception, match="peer closed"):
                made.range(f"/files/{local.slide.id}/content", f"bytes={start}-{start + 3 * MIB}")
            assert server.counters.files[local.slide.id].pulled == wanted


def test_a_block_is_forgotten_with_its_request(local, blocks, ask):
    assert [ask(blocks, local.slide, MIB, MIB + 9)[1] for _ in range(2)] == [BLOCK, BLOCK]


def test_all_kinds_of_servers_send_the_same_bytes(local, posix, blocks, old, ask):
    for first, length in ((1, 10), (BLOCK - 5, 10), (2 * MIB + 7, 2 * MIB)):
        expected, *_ = ask(posix, local.slide, first, first + length - 1)
        assert ask(blocks, local.slide, first, first + length - 1)[0] == expected
        assert ask(old, local.slide, first + 124, first + length - 1 + 124)[0] == expected


@pytest.mark.parametrize("number", [0, 1, 400_000, 819_199])
def test_fifty_gigabytes_take_no_room_and_are_true_at_every_offset(local, posix, ask, number):
    content, pulled, _ = ask(posix, local.large, number * SEALED, (number + 1) * SEALED - 1)
    with client(local, posix, local.petra) as made:
        header = made.get(f"/files/{local.large.id}/header", headers={"X-C4GH-Public-Key": made.key})
        keys, _ = made.opened(header.content)
    assert decrypted(keys, content) == local.large.plain.read(number * 65_536, 65_536)
    assert pulled == SEALED


def test_noise_is_nowhere_alike_and_the_same_however_it_is_read():
    noise = archive.Noise(10**12, "seed")
    whole = noise.read(10**11, 100_000)
    assert b"".join(noise.read(10**11 + at, 777) for at in range(0, 100_000, 777))[:100_000] == whole
    assert len({whole[at : at + 16] for at in range(0, 96_000, 16)}) == 6_000
    assert noise.read(10**12 - 3, 10) == noise.read(10**12 - 3, 3) != b""
    assert archive.Noise(100, "other").read(0, 100) != archive.Noise(100, "seed").read(0, 100)


def test_a_large_virtual_file_has_other_bytes_where_they_are_put():
    file = archive.Patched(archive.Noise(1000, "x"), {0: b"II*\0", 500: b"directory"})
    plain = archive.Noise(1000, "x").read(0, 1000)
    assert file.read(0, 1000) == b"II*\0" + plain[4:500] + b"directory" + plain[509:]
    assert file.read(502, 4) == b"rect"
    assert file.read(2, 10) == b"*\0" + plain[4:12]


def test_a_slow_store_is_slow(local):
    with local.archive(block=BLOCK, storage_delay=0.05, storage_rate=20 * MIB) as server:
        with client(local, server, local.petra) as made:
            answer = made.range(f"/files/{local.slide.id}/content", f"bytes={MIB}-{MIB}")
        assert answer.elapsed.total_seconds() > 0.05 + 0.05


@pytest.fixture(scope="module", params=["folder", "bucket"])
def stored(request, tmp_path_factory):
    """The same content where bodies are really kept."""
    if request.param == "folder":
        with archive.running(archive.Folder(tmp_path_factory.mktemp("bodies"))) as found:
            yield found
        return
    with s3.running() as endpoint, archive.running(archive.Bucket(endpoint)) as found:
        yield found


def test_bodies_in_a_folder_and_in_a_bucket_are_served_as_others_are(stored, tmp_path):
    (tmp_path / "DATASET_x" / "PRIVATE").mkdir(parents=True)
    (tmp_path / "DATASET_x" / "slide.tif").write_bytes(archive.Noise(3 * MIB, "slide").read(0, 3 * MIB))
    (tmp_path / "DATASET_x" / "empty.txt").touch()
    (tmp_path / "DATASET_x" / "PRIVATE" / "rems.xml").write_bytes(b"<private/>")
    dataset = stored.loop.run(stored.content.add_folder(DATASET, tmp_path))
    assert [file.path for file in dataset.files] == [
        "user_lifescience-ri.eu/DATASET_x/empty.txt.c4gh",
        "user_lifescience-ri.eu/DATASET_x/slide.tif.c4gh",
    ]
    empty, slide = dataset.files
    petra = stored.someone("petra", DATASET)
    for settings in ({}, {"block": BLOCK}):
        with stored.archive(**settings) as server, client(stored, server, petra) as made:
            key = {"X-C4GH-Public-Key": made.key}
            assert made.plain(made.get(f"/files/{slide.id}", headers=key).content) == slide.read(0, 3 * MIB)
            assert made.get(f"/files/{empty.id}/content").content == b""
            part = made.range(f"/files/{slide.id}/content", "bytes=1500000-1500099")
            assert part.content == made.get(f"/files/{slide.id}/content").content[1_500_000:1_500_100]
            if settings:
                assert server.counters.files[slide.id].pulled == 2 * slide.size + BLOCK
