"""The archive's stand-in, version 1 of the API: the oddities that were measured or read in the real server."""

from __future__ import annotations

import hashlib

import pytest

from dev import archive
from tests.support.archiveclient import Client, client

SLIDES, ADDRESS, OTHER = "aa-Dataset-demo01-slides", "https://example.org/datasets/1", "aa-Dataset-other"
SIZE = 200_000 + 4 * 28
HEADER = 124


@pytest.fixture(scope="module")
def local():
    with archive.running() as found:
        found.slide = found.add(SLIDES, "DATASET_x/IMAGES/a b.tif", archive.Noise(200_000, "slide"))
        found.add(ADDRESS, "DATASET_y/b.tif", archive.Noise(10, "b"))
        found.add(OTHER, "c.tif", archive.Noise(10, "c"))
        found.petra = found.someone("petra", SLIDES, ADDRESS)
        yield found


@pytest.fixture(scope="module")
def server(local):
    with local.archive(version=1) as found:
        yield found


@pytest.fixture
def petra(local, server):
    with client(local, server, local.petra) as made:
        made.headers["Client-Public-Key"] = made.key
        yield made


PATH = f"/s3/{SLIDES}/DATASET_x/IMAGES/a%20b.tif"


def said(answer, status, text):
    assert (answer.status_code, answer.text) == (status, text)


def test_there_is_no_service_info(petra):
    assert petra.get("/service-info").status_code == 404
    assert petra.get("/health").status_code == 200
    assert petra.post("/metadata/datasets").status_code == 405


def test_errors_are_plain_text(local, server, petra):
    with Client(server) as nobody:
        said(nobody.get("/metadata/datasets"), 401, "access token must be provided")
        basic = {"Authorization": "Basic x"}
        said(nobody.get("/metadata/datasets", headers=basic), 400, "authorization scheme must be bearer")
        unknown = {"Authorization": "Bearer unknown"}
        answer = nobody.get("/metadata/datasets", headers=unknown)
        said(answer, 401, "get visas failed")
        assert answer.headers["Content-Type"].startswith("text/plain")
    said(petra.get(f"/metadata/datasets/{SLIDES}"), 404, "API path not found, maybe /files is missing")


@pytest.mark.parametrize("given", ["", "0.2.9", "newest", "0.3.0-rc1"])
def test_a_client_without_a_good_version_is_412(local, server, given):
    with client(local, server, local.petra, **{"SDA-Client-Version": given}) as made:
        assert made.get("/metadata/datasets").status_code == 412


@pytest.mark.parametrize("given", ["0.3.0", "v0.3.0", "1", "2.0.0+x"])
def test_a_newer_client_is_let_in(local, server, given):
    with client(local, server, local.petra, **{"SDA-Client-Version": given}) as made:
        assert made.get("/metadata/datasets").status_code == 200


def test_datasets_are_a_list_of_ids(petra):
    assert petra.get("/metadata/datasets").json() == [SLIDES, ADDRESS]


def test_files_are_listed_without_the_uploaders_folder(local, petra):
    assert petra.get(f"/metadata/datasets/{SLIDES}/files").json() == [
        {
            "fileId": local.slide.id,
            "displayFileName": "a b.tif.c4gh",
            "filePath": "DATASET_x/IMAGES/a b.tif.c4gh",
            "decryptedFileSize": 200_000,
            "decryptedFileChecksum": hashlib.sha256(local.slide.plain.read(0, 200_000)).hexdigest(),
            "decryptedFileChecksumType": "SHA256",
        }
    ]


def test_the_scheme_of_a_dataset_that_is_a_url_may_stand_apart(petra):
    apart = petra.get("/metadata/datasets/example.org/datasets/1/files", params={"scheme": "https"})
    assert [file["displayFileName"] for file in apart.json()] == ["b.tif.c4gh"]


@pytest.mark.parametrize("start", ["https://", "https:/", "https%3A%2F%2F"])
def test_files_of_a_dataset_that_is_a_url_are_found_with_one_slash_or_two(petra, start):
    answer = petra.get(f"/s3/{start}example.org/datasets/1/DATASET_y/b.tif")
    assert petra.plain(answer.content) == archive.Noise(10, "b").read(0, 10)


@pytest.mark.parametrize("dataset", [OTHER, "aa-Dataset-nowhere"])
def test_a_dataset_that_is_not_granted_is_not_found(petra, dataset):
    said(petra.get(f"/metadata/datasets/{dataset}/files"), 404, "dataset not found")
    said(petra.get(f"/s3/{dataset}/c.tif"), 403, "")


def test_a_file_that_is_not_there_is_not_found(petra):
    said(petra.get(f"/s3/{SLIDES}/nowhere.tif"), 404, "")


def test_a_path_is_a_pattern_open_at_its_end(local, petra):
    assert petra.head(f"/s3/{SLIDES}/DATASET_x/IMAGES/a.b.tif").status_code == 200
    said(petra.get(f"/s3/{SLIDES}/DATASET_x/IMAGES/a(b.tif"), 500, "")


def test_a_bucket_is_listed_with_plain_sizes_and_without_the_first_folder(petra):
    answer = petra.get(f"/s3/{SLIDES}")
    assert answer.headers["Content-Type"].startswith("text/xml")
    assert "<Key>IMAGES/a b.tif</Key>" in answer.text
    assert "<Size>200000</Size>" in answer.text
    assert "<Key>" in petra.get(f"/s3/{SLIDES}/", params={"prefix": "IMAGES/a"}).text
    assert "<Key>" not in petra.get(f"/s3/{SLIDES}/", params={"prefix": "DATASET_x"}).text
    assert "us-west-2" in petra.get(f"/s3/{SLIDES}?location").text


def test_plain_data_by_file_id_is_refused(local, petra):
    said(petra.get(f"/files/{local.slide.id}"), 400, "downloading unencrypted data is not supported")


def test_a_file_is_a_new_header_and_the_body_without_a_length(local, petra):
    first, second = petra.get(PATH), petra.get(PATH)
    assert petra.plain(first.content) == petra.plain(second.content) == local.slide.plain.read(0, 200_000)
    assert first.content[:HEADER] != second.content[:HEADER]
    assert first.content[HEADER:] == second.content[HEADER:]
    assert "Content-Length" not in first.headers
    assert first.headers["ETag"] == local.slide.sum


def test_head_tells_the_size_with_the_header_and_what_the_header_takes(local, petra):
    answer = petra.head(PATH)
    told = [
        answer.headers[n] for n in ("Content-Length", "Server-Additional-Bytes", "Client-Additional-Bytes")
    ]
    assert told == [str(SIZE + HEADER), str(HEADER), str(HEADER)]


@pytest.mark.parametrize(
    ("first", "last"),
    [(0, 0), (HEADER, HEADER + 9), (65_000, 70_000), (SIZE, SIZE + 10_000), (SIZE + HEADER, SIZE * 2)],
)
def test_a_range_counts_from_the_header_and_is_200_without_a_word_of_it(petra, first, last):
    answer = petra.range(PATH, f"bytes={first}-{last}")
    assert answer.status_code == 200
    assert not {"content-range", "accept-ranges"} & set(answer.headers)
    # What is small enough to be held back until its end has a length.
    assert ("content-length" in answer.headers) == (len(answer.content) <= 2048)
    body = petra.get(PATH).content[max(first, HEADER) : last + 1]
    assert answer.content[max(0, HEADER - first) :] == body
    assert len(answer.content) == max(0, min(last + 1, SIZE + HEADER) - first)


@pytest.mark.parametrize("asked", ["bytes=5-", "bytes=-5", "bytes=9-5", "bytes=0-1,5-6", "bytes=a-b"])
def test_open_ranges_and_nonsense_are_400(petra, asked):
    said(petra.range(PATH, asked), 400, "Range header byte coordinates invalid")


def test_a_range_that_starts_behind_the_end_is_500(petra):
    said(petra.range(PATH, f"bytes={SIZE + HEADER + 1}-{SIZE * 2}"), 500, "file decoding error")


def test_coordinates_are_moved_to_the_end_of_a_segment(petra):
    whole = petra.get(PATH).content
    answer = petra.get(PATH, params={"startCoordinate": 0, "endCoordinate": 65_000})
    assert answer.content[HEADER:] == whole[HEADER : HEADER + 65_564]
    assert petra.get(PATH, params={"startCoordinate": 5, "endCoordinate": 2}).status_code == 400
    assert petra.get(PATH, params={"startCoordinate": "x"}).status_code == 400


def test_the_key_has_one_name_and_is_a_key(petra):
    both = {"Htsget-Context-Public-Key": petra.key}
    assert petra.get(PATH, headers=both).status_code == 400
    assert petra.get(PATH, headers={"Client-Public-Key": "not base64"}).status_code == 400
    said(petra.get(PATH, headers={"Client-Public-Key": "bm9uc2Vuc2U="}), 500, "file re-encryption error")
    del petra.headers["Client-Public-Key"]
    said(petra.get(PATH), 400, "c4gh public key is missing from the header")
    assert petra.get(PATH, headers=both).status_code == 200


def test_without_a_life_of_sessions_userinfo_is_asked_each_time(local, server, petra):
    before = local.issuer.asked
    answers = [petra.get("/metadata/datasets") for _ in range(3)]
    assert local.issuer.asked == before + 3
    assert all("sda_session_key" in answer.headers["Set-Cookie"] for answer in answers)
    assert "Max-Age=0" in answers[0].headers["Set-Cookie"]
    assert not petra.cookies


def test_with_a_life_of_sessions_the_cookie_is_enough(local):
    kept = {"session_ttl": 600, "secure_cookies": False}
    with local.archive(version=1, **kept) as server, client(local, server, local.petra) as petra:
        petra.get("/metadata/datasets")
        asked = local.issuer.asked
        del petra.headers["Authorization"]
        assert petra.get("/metadata/datasets").json() == [SLIDES, ADDRESS]
        assert local.issuer.asked == asked
