"""Every byte that is read is the original's, whatever happens on the way."""

from __future__ import annotations

import itertools
import random
import threading
import time
from dataclasses import replace

import fsspec
import numpy
import pytest
import tifffile
from fsspec.asyn import sync
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytomine_spawner.archive import Damaged, FileToken, NotGranted, TokenRefused
from dev.archive import Bytes, Fault, Issuer, Noise, running
from dev.archive.slides import Pyramid

DATASET = "aa-Dataset-reading-slides1"
SLIDE = f"{DATASET}/IMAGES/slide.tif"
FILES = [
    SLIDE,
    f"{DATASET}/IMAGES/keys.tif",
    f"{DATASET}/IMAGES/small.dcm",
    f"{DATASET}/IMAGES/empty",
    f"{DATASET}/EDITED/kept",
    f"{DATASET}/EDITED/cut",
    f"{DATASET}/EDITED/nothing",
]
BODY = r"/content|/s3/"
READS = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@READS
@given(data=st.data())
def test_every_range_equals_the_plain_original(server, reach, local, data):
    fs = reach(server, cache_size=data.draw(st.sampled_from([0, 1 << 30])), memory_size=1 << 19)
    path = data.draw(st.sampled_from(FILES))
    plain = local.plain[path]
    with fs.open(path) as file:
        assert file.size == len(plain)
        for _ in range(4):
            start = data.draw(st.integers(0, len(plain) + 10))
            length = data.draw(st.integers(0, 300_000))
            file.seek(start)
            assert file.read(length) == plain[start : start + length]


def test_visas_that_did_not_come_once_do_not_end_a_read(v2, reach, local):
    """The archive asks the issuer twice, and takes no second answer for no visas."""
    fs = reach(v2, cache_size=0)
    fs.info(SLIDE)
    v2.faults.append(Fault("status", path="/content|/header", status=403, times=1))
    assert fs.cat_file(SLIDE, 5, 10) == local.plain[SLIDE][5:10]
    assert not [fault for fault in v2.faults if fault.times > 0], "it was never refused"
    v2.faults[:] = [Fault("status", path="/content|/header", status=403, times=100)]
    with pytest.raises(NotGranted):
        reach(v2, cache_size=0).cat_file(SLIDE, 5, 10)
    assert v2.faults[0]._left >= 95, "it is asked for again and again"
    v2.faults.clear()


FAULTS = st.lists(
    st.builds(
        Fault,
        st.sampled_from(["slow", "cut", "status", "shift", "lie", "whole", "flip", "forget"]),
        path=st.just(BODY),
        method=st.just("GET"),
        skip=st.integers(0, 2),
        seconds=st.just(0.05),
        after=st.integers(0, 200_000).filter(lambda n: n == 0 or n % 65_564),
        status=st.sampled_from([429, 500, 502, 503, 504]),
        at=st.integers(0, 200_000),
    ),
    min_size=1,
    max_size=3,
)


@READS
@given(faults=FAULTS, start=st.integers(0, 2_900_000), length=st.integers(1, 400_000))
def test_faults_on_the_way_change_no_byte(server, reach, local, faults, start, length):
    # Bytes from elsewhere under the right name, in whole segments, are the one thing that nothing in the format tells.
    fs = reach(server, cache_size=0)
    server.faults[:] = [f for f in faults if not (f.kind in {"shift", "lie"} and not f.after)]
    try:
        assert fs.cat_file(SLIDE, start, start + length) == local.plain[SLIDE][start : start + length]
    finally:
        server.faults.clear()


def test_a_whole_file_comes_through_cuts(server, reach, local, tmp_path):
    fs = reach(server)
    server.faults += [Fault("cut", BODY, "GET", after=300_001, times=4), Fault("status", BODY, "GET", skip=3)]
    fs.get(SLIDE, str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == local.plain[SLIDE]
    assert not server.faults


def test_a_flipped_bit_in_the_archive_is_an_error_and_never_data(server, reach):
    fs = reach(server, block_size=65536)
    at = 10 * 65_564 + 4000
    server.faults.append(Fault("flip", BODY, "GET", times=0, at=at))
    with pytest.raises(Damaged, match=r"slide\.tif\S* is damaged.*tell the archive's operators"):
        fs.cat_file(SLIDE, 10 * 65_536 + 5, 10 * 65_536 + 6)
    with pytest.raises(Damaged):
        fs.cat_file(SLIDE)
    # Nothing of that segment was kept, on disk neither.
    server.faults.clear()
    before = server.counters.total.sent
    fs.cat_file(SLIDE, 10 * 65_536, 11 * 65_536)
    assert server.counters.total.sent >= before + 65_564


def test_what_is_beside_a_flipped_bit_can_be_read(v2, reach, local):
    fs = reach(v2, block_size=65536)
    v2.faults.append(Fault("flip", BODY, "GET", times=0, at=10 * 65_564 + 4000))
    assert fs.cat_file(SLIDE, 0, 65_536) == local.plain[SLIDE][:65_536]


def test_a_token_that_is_swapped_while_a_file_is_open_is_used(server, reach, local, tmp_path):
    place = tmp_path / "token"
    first = local.issuer.token(local.petra)
    place.write_text(first)
    fs = reach(server, token_file=str(place), block_size=65536, cache_size=0)
    with fs.open(SLIDE) as file:
        assert file.read(10) == local.plain[SLIDE][:10]
        place.write_text(local.issuer.token(local.petra))
        server.faults.append(Fault("expired", BODY, "GET"))
        file.seek(2_000_000)
        assert file.read(10) == local.plain[SLIDE][2_000_000:2_000_010]
    assert server.counters.statuses[401] >= 1


def test_a_token_that_expires_while_a_file_is_open_is_asked_for_anew(server, reach, local):
    given = []

    def hub():
        given.append(local.issuer.token(local.petra))
        return given[-1]

    fs = reach(server, hub, block_size=65536, cache_size=0)
    with fs.open(SLIDE) as file:
        for number in range(20):
            server.faults.append(Fault("expired", BODY, "GET"))
            file.seek(number * 140_000)
            assert file.read(1000) == local.plain[SLIDE][number * 140_000 :][:1000]
    assert len(given) == 21


def test_a_token_that_is_not_renewed_is_said_so(server, reach):
    fs = reach(server, block_size=65536, cache_size=0)
    with fs.open(SLIDE) as file:
        file.read(10)
        server.faults.append(Fault("expired", BODY, "GET"))
        file.seek(2_000_000)
        with pytest.raises(TokenRefused, match="does not accept your token"):
            file.read(10)


def test_a_grant_that_is_revoked_while_a_file_is_open_ends_new_reads(server, reach, local):
    fs = reach(server, block_size=65536, cache_size=0)
    with fs.open(SLIDE) as file:
        assert file.read(10) == local.plain[SLIDE][:10]
        server.faults.append(Fault("revoke", BODY, "GET", dataset=DATASET))
        file.seek(2_000_000)
        with pytest.raises(PermissionError, match="your visas do not grant it") as caught:
            file.read(10)
    assert isinstance(caught.value, NotGranted)


def test_a_visa_that_expires_while_a_file_is_open_ends_new_reads(reach):
    ahead = [0.0]
    with running(issuer=Issuer(clock=lambda: time.time() + ahead[0])) as local:
        local.add("aa-Dataset-y", "a.tif", Bytes(random.Random(3).randbytes(1_000_000)))
        anna = local.someone("anna", "aa-Dataset-y")
        token = local.issuer.token(anna, seconds=1e6)
        with local.archive(version=2) as server:
            fs = reach(server, lambda: token, block_size=65536, cache_size=0)
            with fs.open("aa-Dataset-y/a.tif") as file:
                file.read(10)
                ahead[0] = 4000.0  # visas live for an hour
                file.seek(900_000)
                with pytest.raises(NotGranted):
                    file.read(10)


def test_a_slow_archive_counts_as_cut_and_is_asked_again(v2, reach, local):
    fs = reach(v2, stall=0.3, cache_size=0)
    v2.faults.append(Fault("slow", BODY, "GET", seconds=2))
    assert fs.cat_file(SLIDE, 5, 50) == local.plain[SLIDE][5:50]


def test_an_archive_that_stays_down_is_given_up_in_the_time_given(v2, reach):
    fs = reach(v2, patience=0.5)
    fs.info(SLIDE)
    v2.faults.append(Fault("status", BODY, times=0, status=503))
    with pytest.raises(OSError, match=r"Reading .* failed: the archive answers 503.*Try again later"):
        fs.cat_file(SLIDE, 0, 10)


def test_adjacent_ranges_are_one_request(v2, reach, local):
    fs = reach(v2, block_size=65536, cache_size=0)
    fs.info(SLIDE)
    with fs.open(SLIDE):
        before = v2.counters.total.requests
        starts = [n * 65_536 for n in range(2, 12)]
        found = fs.cat_ranges([SLIDE] * 10, starts, [s + 100 for s in starts])
        assert found == [local.plain[SLIDE][s : s + 100] for s in starts]
        assert v2.counters.total.requests == before + 1


def test_a_block_that_many_threads_want_is_fetched_once(v2, reach, local):
    fs = reach(v2, block_size=1 << 20, cache_size=0)
    fs.info(SLIDE)
    v2.faults.append(Fault("slow", BODY, "GET", seconds=0.3))
    wrong = []

    def read(number):
        with fs.open(SLIDE) as file:
            file.seek(number * 1000)
            if file.read(100) != local.plain[SLIDE][number * 1000 :][:100]:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum("/content" in line["path"] for line in v2.counters.audit) == 1


def test_requests_for_content_are_bounded(v2, reach):
    fs = reach(v2, block_size=65536, parallel=2, cache_size=0)
    running_now, most = [0], [0]
    real = fs._http.respond

    def counted(method, path, *rest, **more):
        inner = real(method, path, *rest, **more)

        class Around:
            async def __aenter__(self):
                if "/content" in path:
                    running_now[0] += 1
                    most[0] = max(most[0], running_now[0])
                return await inner.__aenter__()

            async def __aexit__(self, *error):
                if "/content" in path:
                    running_now[0] -= 1
                return await inner.__aexit__(*error)

        return Around()

    fs._http.respond = counted
    starts = list(range(0, 2_900_000, 4 * 65_536))
    fs.cat_ranges([SLIDE] * len(starts), starts, [s + 10 for s in starts])
    assert most[0] == 2


def test_a_server_that_pulls_whole_blocks_is_found_out(local, reach):
    plain = Noise(40 << 20, "large")
    local.add(DATASET, "IMAGES/large.tif", plain)
    with local.archive(version=2, block=16 << 20, storage_delay=0.15) as server:
        fs = reach(server, cache_size=1 << 30)
        with fs.open(f"{DATASET}/IMAGES/large.tif") as file:
            for at in (0, 20 << 20, *range(24 << 20, (24 << 20) + 20 * 100_000, 100_000)):
                file.seek(at)
                assert file.read(1000) == plain.read(at, 1000)
        # The first tells; the twenty that follow lie in one block of 8 MiB.
        assert sum("/content" in line["path"] for line in server.counters.audit) <= 4


@pytest.mark.parametrize(("spread", "most"), [(True, 3), (False, 3)])
def test_a_thumbnail_of_a_large_slide_costs_few_reads_where_each_is_dear(local, reach, spread, most):
    slide = Pyramid(338 * 256, 338 * 256, spread=spread)
    path = f"IMAGES/pyramid-{spread}.tif"
    local.add(DATASET, path, slide)
    with local.archive(version=2, block=50 << 20, storage_delay=0.15) as server:
        fs = reach(server, cache_size=1 << 30)
        with fs.open(f"{DATASET}/{path}") as file, tifffile.TiffFile(file) as found:
            levels = found.series[0].levels
            assert levels[3].asarray().shape == (1352, 1352, 3)
        assert server.counters.total.reads <= most
        assert server.counters.total.requests <= 20
        assert server.counters.total.sent < 60e6


@pytest.mark.parametrize("block", [None, 50 << 20])
def test_a_read_costs_the_same_wherever_it_is_in_a_file(local, reach, block):
    plain = Noise(50_000_000_000, "far")
    path = f"{DATASET}/IMAGES/far-{block}.bin"
    local.add(DATASET, path.partition("/")[2], plain)
    with local.archive(version=2, block=block, storage_delay=0.15 if block else 0) as server:
        fs = reach(server, cache_size=32 << 20, block_size=256 * 1024)
        costs = []
        with fs.open(path) as file:
            for at in (10**6, 10**9, 25 * 10**9, 49_900_000_000):
                before = replace(server.counters.total)
                file.seek(at)
                assert file.read(1000) == plain.read(at, 1000)
                now = server.counters.total
                costs.append(
                    [getattr(now, n) - getattr(before, n) for n in ("requests", "reads", "pulled", "sent")]
                )
        assert costs[0][:2] == [1, 1]
        assert costs == [costs[0]] * 4


def test_a_whole_file_goes_through_two_buffers(server, reach, local):
    fs = reach(server)
    seen, pieces = [], []

    async def read():
        reader = await fs._reader(SLIDE)
        async for piece in reader.stream(77):
            seen.append(id(piece.obj))
            pieces.append(bytes(piece))

    sync(fs.loop, read)
    assert b"".join(pieces) == local.plain[SLIDE][77:]
    # While one is written the other is filled.
    assert len(set(seen)) == 2
    assert all(one != other for one, other in itertools.pairwise(seen))


def test_version_1_is_asked_for_a_small_file_once(local, reach):
    with local.archive(version=1) as server:
        fs = reach(server)
        with fs.open(SLIDE) as file:
            for at in range(0, 2_900_000, 100_000):
                file.seek(at)
                assert file.read(100) == local.plain[SLIDE][at : at + 100]
        gets = [
            line
            for line in server.counters.audit
            if line["path"].startswith("/s3/") and line["method"] == "GET"
        ]
        assert len(gets) == 2  # its header, and all of it


def test_a_file_that_was_changed_is_said_so(v2, reach, local):
    entry = local.put(DATASET, "IMAGES/changing", random.Random(4).randbytes(1_000_000))
    fs = reach(v2, block_size=65536, cache_size=0)
    with fs.open(f"{DATASET}/IMAGES/changing") as file:
        file.read(10)
        size, entry.size = entry.size, entry.size - 65_564
        try:
            file.seek(800_000)
            with pytest.raises(OSError, match=r"was changed in the archive|where the archive's list says"):
                file.read(10)
        finally:
            entry.size = size


def test_a_file_that_was_cut_at_a_segments_border_is_not_opened(v2, reach, local):
    entry = local.put(DATASET, "IMAGES/short", random.Random(4).randbytes(3 * 65_536))
    entry.size -= 65_564
    entry.__class__.decrypted_size, kept = property(lambda self: 3 * 65_536), entry.__class__.decrypted_size
    try:
        with pytest.raises(Damaged, match="where the archive's list says"):
            reach(v2).open(f"{DATASET}/IMAGES/short")
    finally:
        entry.__class__.decrypted_size = kept
        entry.size += 65_564


def test_readers_of_images_read_slides_where_they_lie(server, reach, local, tmp_path):
    picture = numpy.random.default_rng(1).integers(0, 255, (700, 900, 3), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", picture, tile=(256, 256), photometric="rgb")
    name = f"IMAGES/picture-{server.settings.version}.tif"
    local.add(DATASET, name, Bytes((tmp_path / "a.tif").read_bytes()))
    file_token = tmp_path / "token"
    file_token.write_text(local.issuer.token(local.petra))
    options = {"endpoint": server.url, "token_file": str(file_token), "cache_folder": str(tmp_path / "c")}
    with fsspec.open(f"sda://{DATASET}/{name}", **options) as file, tifffile.TiffFile(file) as tiff:
        assert (tiff.asarray() == picture).all()
    assert repr(FileToken(file_token)) == f"FileToken({str(file_token)!r})"
