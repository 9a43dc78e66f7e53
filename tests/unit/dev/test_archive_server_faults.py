"""The archive's stand-in: what goes wrong on request does so, as often as was asked for, and nowhere else."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from dev import archive
from dev.archive import admin
from tests.support.archiveclient import client

DATASET = "aa-Dataset-demo01-slides"
SIZE = 1_000_000


@pytest.fixture(scope="module")
def local():
    with archive.running() as found:
        found.slide = found.add(DATASET, "slide.tif", archive.Noise(SIZE, "slide"))
        found.petra = found.someone("petra", DATASET)
        yield found


@pytest.fixture(params=[1, 2])
def server(local, request):
    with local.archive(version=request.param) as found:
        yield found


@pytest.fixture
def two(local):
    with local.archive() as found:
        yield found


@pytest.fixture
def petra(local, server):
    with client(local, server, local.petra) as made:
        yield made


def read(local, server, made, first=200, last=1199):
    """Some bytes of the body; version 1 counts them behind its header."""
    if server.settings.version == 1:
        asked, path = f"bytes={first + 124}-{last + 124}", f"/s3/{DATASET}/slide.tif"
    else:
        asked, path = f"bytes={first}-{last}", f"/files/{local.slide.id}/content"
    return made.range(path, asked, **{"Client-Public-Key": made.key})


def body(local, server, made, first, last):
    faults, server.faults[:] = list(server.faults), []
    try:
        return read(local, server, made, first, last).content
    finally:
        server.faults[:] = faults


def test_an_error_comes_as_often_as_was_asked_for_where_it_was_asked_for(local, server, petra):
    where = "/s3/" if server.settings.version == 1 else "/content"
    server.faults.append(archive.Fault("status", path=where, status=503, times=2, skip=1))
    assert petra.granted() == [DATASET]
    statuses = [read(local, server, petra).status_code for _ in range(4)]
    assert statuses == [statuses[0], 503, 503, statuses[0]]
    assert statuses[0] in (200, 206)
    assert server.faults == []


def test_a_body_is_cut_behind_so_many_bytes(local, server, petra):
    expected = body(local, server, petra, 200, 1199)
    server.faults.append(archive.Fault("cut", path="slide|content", after=300))
    got = b""
    path = f"/s3/{DATASET}/slide.tif" if server.settings.version == 1 else f"/files/{local.slide.id}/content"
    start = 324 if server.settings.version == 1 else 200
    headers = {"Range": f"bytes={start}-{start + 999}", "Client-Public-Key": petra.key}
    with petra.stream("GET", path, headers=headers) as answer:
        pieces = answer.iter_raw()
        while len(got) < 300:
            got += next(pieces)
        with pytest.raises(httpx.RemoteProtocolError):
            next(pieces)
    assert got == expected[:300]
    assert read(local, server, petra).content == expected
    assert [record["sent"] for record in server.counters.audit] == [1000, 300, 1000]


def test_a_slow_answer_is_slow(local, server, petra):
    server.faults.append(archive.Fault("slow", seconds=0.1, rate=10_000))
    assert len(read(local, server, petra).content) == 1000
    assert petra.get("/health").elapsed.total_seconds() < 60
    server.faults.append(archive.Fault("slow", seconds=0.1))
    assert read(local, server, petra).elapsed.total_seconds() > 0.1


def test_a_flipped_bit_is_one_bit_of_the_body_as_it_is_stored(local, server, petra):
    expected = body(local, server, petra, 200, 1199)
    server.faults.append(archive.Fault("flip", at=700))
    got = read(local, server, petra).content
    assert [n for n in range(1000) if got[n] != expected[n]] == [500]
    assert got[500] ^ expected[500] == 1


def test_a_shifted_range_says_so_and_a_lie_does_not(local, two):
    with client(local, two, local.petra) as petra:
        expected = body(local, two, petra, 500, 1499)
        for kind, first in (("shift", 500), ("lie", 200)):
            two.faults.append(archive.Fault(kind, after=300))
            answer = read(local, two, petra)
            assert answer.content == expected
            assert answer.headers["Content-Range"].startswith(f"bytes {first}-{first + 999}/")


def test_a_range_may_be_ignored(local, server, petra):
    server.faults.append(archive.Fault("whole"))
    answer = read(local, server, petra)
    assert answer.status_code == 200
    assert len(answer.content) >= local.slide.size


def test_a_token_expires_in_mid_session_and_another_one_helps(local, server, petra):
    assert read(local, server, petra).status_code < 300
    server.faults.append(archive.Fault("expired"))
    assert read(local, server, petra).status_code == 401
    assert read(local, server, petra).status_code == 401
    petra.headers["Authorization"] = f"Bearer {local.issuer.token(local.petra)}"
    assert read(local, server, petra).status_code < 300


def test_a_grant_is_taken_away_in_mid_session(local, server, petra):
    assert read(local, server, petra).status_code < 300
    server.faults.append(archive.Fault("revoke", dataset=DATASET))
    assert read(local, server, petra).status_code == 403
    assert petra.granted() == []


def test_a_grant_that_was_taken_away_at_the_issuer_lasts_as_long_as_the_session(local, two):
    person = local.someone("nora", DATASET)
    with client(local, two, person) as nora:
        assert nora.granted() == [DATASET]
        person.visas.clear()
        assert nora.granted() == [DATASET]
        two.faults.append(archive.Fault("forget"))
        assert nora.granted() == []


def test_a_page_token_gets_stale(local, two):
    for number in range(3):
        local.add(DATASET, f"{number}.txt", archive.Bytes(b""))
    with client(local, two, local.petra) as petra:
        files = f"/datasets/{DATASET}/files"
        token = petra.get(files, params={"pageSize": 2}).json()["nextPageToken"]
        two.faults.append(archive.Fault("stale"))
        assert petra.get(files, params={"pageSize": 2, "pageToken": token}).status_code == 400
        token = petra.get(files, params={"pageSize": 2}).json()["nextPageToken"]
        assert petra.get(files, params={"pageSize": 2, "pageToken": token}).status_code == 200


def test_what_no_fault_is_called_is_refused():
    with pytest.raises(ValueError, match="kind must be one of slow, cut"):
        archive.Fault("earthquake")


def test_everything_is_counted_by_file_and_in_all(local, two):
    other = local.add(DATASET, "other.tif", archive.Noise(5000, "other"))
    with client(local, two, local.petra) as petra:
        read(local, two, petra)
        petra.get(f"/files/{other.id}/content")
        petra.get("/health/live")
    counted = two.counters.told()
    assert counted["files"][local.slide.id] == {"requests": 1, "sent": 1000, "reads": 1, "pulled": 1000}
    assert counted["files"][other.id] == {"requests": 1, "sent": 5028, "reads": 1, "pulled": 5028}
    assert counted["total"] == {"requests": 3, "sent": 6028, "reads": 2, "pulled": 6028}
    assert counted["statuses"] == {"206": 1, "200": 2}


async def test_another_process_steers_it_through_the_second_port():
    issuer = archive.Issuer()
    await issuer.start()
    async with archive.Archive(archive.Settings(issuer=issuer.url, trusted=issuer.trusted)) as server:
        await server.content.add(DATASET, "a.txt", archive.Bytes(b"abc"))
        server.content.dataset(DATASET)
        steering = admin.Admin(server)
        await steering.start()
        async with httpx.AsyncClient(base_url=steering.url, timeout=30) as control:
            assert [f["size"] for f in (await control.get("/files")).json()] == [3]
            assert (await control.post("/faults", json={"kind": "earthquake"})).status_code == 400
            assert (await control.post("/faults", json={"kind": "status", "status": 502})).status_code == 201
            assert len((await control.get("/faults")).json()["faults"]) == 1
            async with httpx.AsyncClient(base_url=server.url, timeout=30) as plain:
                got = [(await plain.get("/health/live")).status_code for _ in range(2)]
            assert got == [502, 200]
            assert (await control.get("/counters")).json()["total"]["requests"] == 2
            await control.delete("/counters")
            assert (await control.get("/counters")).json()["total"]["requests"] == 0
            assert (await control.post("/forget")).status_code == 200
            await control.post("/faults", json={"kind": "status"})
            await control.delete("/faults")
            assert server.faults == []
        await steering.stop()
    await issuer.stop()
    assert len(asyncio.all_tasks()) == 1
