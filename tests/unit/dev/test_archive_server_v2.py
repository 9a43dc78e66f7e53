"""The archive's stand-in, version 2 of the API: answers as the real server gives them."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from dev import archive
from tests.support.archiveclient import Client, client, decrypted, segment_of

SLIDES, ADDRESS, OTHER = "aa-Dataset-demo01-slides", "https://example.org/datasets/1", "aa-Dataset-other"
CACHED = "private, max-age=60, must-revalidate"


@pytest.fixture(scope="module")
def local():
    with archive.running() as found:
        found.slide = found.add(SLIDES, "DATASET_x/IMAGES/a.tif", archive.Noise(200_000, "slide"))
        for number in range(7):
            found.add(SLIDES, f"DATASET_x/METADATA/{number}.xml", archive.Bytes(b"<x/>" * number))
        found.add(ADDRESS, "DATASET_y/b.tif", archive.Noise(10, "b"))
        found.hidden = found.add(OTHER, "c.tif", archive.Noise(10, "c"), owner="owner@lifescience-ri.eu")
        found.petra = found.someone("petra", SLIDES, ADDRESS)
        yield found


@pytest.fixture(scope="module")
def server(local):
    with local.archive() as found:
        yield found


@pytest.fixture
def petra(local, server):
    with client(local, server, local.petra) as made:
        yield made


@pytest.fixture
def nobody(local, server):
    with client(local, server) as made:
        yield made


def problem(answer, status, code=None):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == status
    assert found["title"]
    assert found.get("errorCode") == code
    return found


def with_key(petra):
    return {"X-C4GH-Public-Key": petra.key}


def test_service_info_and_health_need_no_token(nobody, server):
    assert nobody.get("/service-info").json()["name"] == "SDA Download"
    assert nobody.get("/health/live").json() == {"status": "ok"}
    assert nobody.get("/health/ready").json()["status"] == "ok"
    server.down.add("storage")
    try:
        answer = nobody.get("/health/ready")
    finally:
        server.down.clear()
    assert answer.status_code == 503
    assert answer.json()["services"] == {
        "database": "ok",
        "storage": "error: backend unresponsive",
        "grpc": "ok",
    }


@pytest.mark.parametrize(
    "path", ["/datasets", "/datasets/x", "/datasets/x/files", "/files/x/content", "/objects/x/y"]
)
def test_without_a_good_token_there_is_a_problem(nobody, path):
    problem(nobody.get(path), 401)
    problem(nobody.get(path, headers={"Authorization": "Bearer unknown"}), 401)
    problem(nobody.get(path, headers={"Authorization": "Basic unknown"}), 401)


def test_the_token_may_come_as_s3_clients_send_it(local, nobody):
    token = local.issuer.token(local.petra)
    assert nobody.get("/datasets", headers={"X-Amz-Security-Token": token}).status_code == 200


def test_a_person_sees_the_datasets_that_were_granted(petra):
    assert petra.get("/datasets").json() == {"datasets": [SLIDES, ADDRESS], "nextPageToken": None}
    assert petra.get(f"/datasets/{SLIDES}").json() == {
        "datasetId": SLIDES,
        "date": "2026-01-15T12:00:00Z",
        "files": 8,
        "size": 200_000 + 4 * 21,
    }


def test_the_id_of_a_dataset_that_is_a_url_is_one_encoded_part_of_the_path(petra):
    answer = petra.get(f"/datasets/{segment_of(ADDRESS)}/files")
    assert [file["filePath"] for file in answer.json()["files"]] == [
        "user_lifescience-ri.eu/DATASET_y/b.tif.c4gh"
    ]
    assert petra.get(f"/datasets/{ADDRESS}/files").status_code == 404
    answer = petra.get(f"/datasets/{segment_of(ADDRESS)}/files/")
    assert (answer.status_code, answer.headers["Location"]) == (301, f"/datasets/{segment_of(ADDRESS)}/files")


def test_what_is_not_there_looks_like_what_is_not_granted(local, petra):
    def said(path):
        found = problem(petra.get(path, headers=with_key(petra)), 403)
        assert found.pop("correlationId")
        return found

    hidden = local.hidden.id
    for known, unknown in [
        (f"/datasets/{OTHER}", "/datasets/aa-Dataset-nowhere"),
        (f"/datasets/{OTHER}/files", "/datasets/aa-Dataset-nowhere/files"),
        (f"/files/{hidden}", "/files/aa-File-nowhere"),
        (f"/files/{hidden}/header", "/files/aa-File-nowhere/header"),
        (f"/files/{hidden}/content", "/files/aa-File-nowhere/content"),
        (f"/objects/{OTHER}/{local.hidden.path}", f"/objects/{SLIDES}/nowhere.c4gh"),
    ]:
        assert said(known) == said(unknown)


def test_each_answer_has_an_id_and_each_problem_repeats_it(petra):
    answer = petra.get("/datasets/aa-Dataset-nowhere")
    assert answer.json()["correlationId"] == answer.headers["X-Correlation-ID"]
    assert petra.get("/datasets").headers["X-Correlation-ID"] != answer.headers["X-Correlation-ID"]


def test_pages_bring_every_file_once_and_in_order(local, petra):
    paths, token = [], ""
    for _ in range(3):
        query = {"pageSize": 3} | ({"pageToken": token} if token else {})
        answer = petra.get(f"/datasets/{SLIDES}/files", params=query).json()
        paths += [file["filePath"] for file in answer["files"]]
        token = answer["nextPageToken"]
    assert token is None
    assert paths == sorted(file.path for file in local.content.datasets[SLIDES].files)


def test_pages_bring_every_dataset(petra):
    first = petra.get("/datasets", params={"pageSize": 1}).json()
    second = petra.get("/datasets", params={"pageSize": 1, "pageToken": first["nextPageToken"]}).json()
    assert (first["datasets"], second["datasets"]) == ([SLIDES], [ADDRESS])
    assert second["nextPageToken"] is None


def test_a_page_token_is_good_for_its_query_alone(petra):
    files = f"/datasets/{SLIDES}/files"
    token = petra.get(files, params={"pageSize": 2}).json()["nextPageToken"]
    said = [
        petra.get(files, params={"pageSize": 2, "pageToken": token, "pathPrefix": "user"}),
        petra.get("/datasets", params={"pageSize": 2, "pageToken": token}),
    ]
    assert [problem(answer, 400)["detail"] for answer in said] == ["page token does not match this query"] * 2
    token = petra.get("/datasets", params={"pageSize": 1}).json()["nextPageToken"]
    answer = petra.get("/datasets", params={"pageSize": 2, "pageToken": token})
    assert problem(answer, 400)["detail"] == "pageSize must not change between pages"


def test_forged_and_old_page_tokens_are_refused(local, petra, server):
    files, now = f"/datasets/{SLIDES}/files", server.settings.clock
    # Shorter than upstream's hour, so that visa and session are still good when it is over.
    server.settings.page_ttl = 60
    token = petra.get(files, params={"pageSize": 2}).json()["nextPageToken"]
    payload, signature = token.split(".")
    said = {}
    for given in (f"{payload}x.{signature}", f"{payload}.{signature[:-4]}AAAA", "nonsense", "!.!"):
        said[given] = problem(petra.get(files, params={"pageSize": 2, "pageToken": given}), 400)["detail"]
    assert set(said.values()) <= {"malformed page token", "invalid page token signature"}
    server.settings.clock = lambda: now() + 61
    try:
        answer = petra.get(files, params={"pageSize": 2, "pageToken": token})
        assert problem(answer, 400)["detail"] == "page token expired"
    finally:
        server.settings.clock, server.settings.page_ttl = now, 3600


@pytest.mark.parametrize("size", ["0", "1001", "-1", "many"])
def test_page_sizes_are_1_to_1000(petra, size):
    problem(petra.get("/datasets", params={"pageSize": size}), 400)
    problem(petra.get(f"/datasets/{SLIDES}/files", params={"pageSize": size}), 400)


def test_files_are_found_by_path_and_by_prefix(local, petra):
    files, path = f"/datasets/{SLIDES}/files", local.slide.path
    found = petra.get(files, params={"filePath": path}).json()["files"]
    assert found == [
        {
            "fileId": local.slide.id,
            "filePath": path,
            "size": local.slide.size,
            "decryptedSize": 200_000,
            "checksums": [
                {"type": "sha256", "checksum": hashlib.sha256(local.slide.plain.read(0, 200_000)).hexdigest()}
            ],
            "downloadUrl": f"/files/{local.slide.id}",
        }
    ]
    prefix = petra.get(files, params={"pathPrefix": "user_lifescience-ri.eu/DATASET_x/METADATA/"}).json()
    assert len(prefix["files"]) == 7
    # A wildcard of the database is a letter like any other.
    assert petra.get(files, params={"pathPrefix": "user%"}).json()["files"] == []
    problem(petra.get(files, params={"filePath": path, "pathPrefix": "user"}), 400, "FILTER_CONFLICT")
    problem(petra.get(files, params={"pathPrefix": "x" * 4097}), 400)


def test_headers_are_for_the_key_that_came_with_the_request(local, petra):
    url = f"/files/{local.slide.id}/header"
    first, second = petra.get(url, headers=with_key(petra)), petra.get(url, headers=with_key(petra))
    assert len(first.content) == len(second.content) == 124
    assert first.content != second.content
    assert petra.opened(first.content) == petra.opened(second.content)
    content = petra.head(f"/files/{local.slide.id}/content")
    assert first.headers["SDA-Content-ETag"] == content.headers["ETag"]
    with pytest.raises(ValueError, match="No supported encryption method"):
        Client(type("S", (), {"settings": archive.Settings(), "url": "http://x"})()).opened(first.content)


def test_either_name_of_the_key_will_do_but_not_both_and_not_none(local, petra):
    both = {"X-C4GH-Public-Key": petra.key, "Htsget-Context-Public-Key": petra.key}
    for path in (f"/files/{local.slide.id}", f"/files/{local.slide.id}/header"):
        problem(petra.get(path, headers=both), 400, "KEY_CONFLICT")
        problem(petra.get(path), 400, "KEY_MISSING")
        answer = petra.get(path, headers={"Htsget-Context-Public-Key": petra.key})
        assert petra.opened(answer.content)
    problem(petra.get(f"/files/{local.slide.id}", headers={"X-C4GH-Public-Key": "bm9uc2Vuc2U="}), 500)
    raw = base64.b64encode(X25519PrivateKey.from_private_bytes(petra.secret).public_key().public_bytes_raw())
    answer = petra.get(f"/files/{local.slide.id}/header", headers={"X-C4GH-Public-Key": raw.decode()})
    assert petra.opened(answer.content)


def test_header_and_content_decrypt_to_the_original(local, petra):
    keys, edits = petra.opened(petra.get(f"/files/{local.slide.id}/header", headers=with_key(petra)).content)
    body = petra.get(f"/files/{local.slide.id}/content")
    assert edits == []
    assert decrypted(keys, body.content) == local.slide.plain.read(0, 200_000)
    whole = petra.get(f"/files/{local.slide.id}", headers=with_key(petra))
    assert whole.status_code == body.status_code == 200
    assert len(whole.content) == 124 + len(body.content) == 124 + local.slide.size
    assert petra.plain(whole.content) == local.slide.plain.read(0, 200_000)
    assert whole.headers["Content-Disposition"] == "attachment; filename=a.tif.c4gh"


def test_the_content_etag_stays_and_the_files_does_not(local, petra):
    def etags(path):
        return {petra.head(path, headers=with_key(petra)).headers["ETag"] for _ in range(2)}

    assert len(etags(f"/files/{local.slide.id}/content")) == 1
    assert len(etags(f"/files/{local.slide.id}")) == 2


SIZE = 200_000 + 4 * 28


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=65564-131127", 65564, 131127),
        ("bytes=70000-", 70000, SIZE - 1),
        ("bytes=-28", SIZE - 28, SIZE - 1),
        (f"bytes=-{SIZE * 2}", 0, SIZE - 1),
        (f"bytes=1-{SIZE * 2}", 1, SIZE - 1),
    ],
)
def test_a_range_is_206_with_what_it_is(local, petra, asked, first, last):
    url = f"/files/{local.slide.id}/content"
    answer = petra.range(url, asked)
    assert answer.status_code == 206
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
    assert answer.headers["Content-Length"] == str(last - first + 1)
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Cache-Control"] == CACHED
    assert answer.content == petra.get(url).content[first : last + 1]


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=5-4", "bytes=-0"])
def test_bytes_that_are_not_there_are_416_with_the_size(local, petra, asked):
    answer = petra.range(f"/files/{local.slide.id}/content", asked)
    problem(answer, 416)
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "asked",
    ["bytes=0-1,5-6", "bytes=-", f"bytes={2**63}-", "bytes=a-b", "lines=0-1", "bytes 0-1", "bytes=0 -1"],
)
def test_several_ranges_and_nonsense_are_400(local, petra, asked):
    problem(petra.range(f"/files/{local.slide.id}/content", asked), 400, "RANGE_INVALID")


def test_ranges_of_header_and_body_in_one_cross_their_border(local, petra):
    url = f"/files/{local.slide.id}"
    answer = petra.range(url, "bytes=100-65687", **with_key(petra))
    assert answer.headers["Content-Range"] == f"bytes 100-65687/{SIZE + 124}"
    assert answer.content[24:] == petra.range(f"{url}/content", "bytes=0-65563").content


@pytest.mark.parametrize(
    ("given", "status"),
    [("same", 206), ("weak", 200), ('"other"', 200), ("Thu, 15 Jan 2026 12:00:00 GMT", 206), ("soon", 200)],
)
def test_if_range_decides_between_the_range_and_all(local, petra, given, status):
    url = f"/files/{local.slide.id}/content"
    etag = petra.head(url).headers["ETag"]
    text = {"same": etag, "weak": f"W/{etag}"}.get(given, given)
    answer = petra.range(url, "bytes=0-9", **{"If-Range": text})
    assert (answer.status_code, len(answer.content)) == (status, 10 if status == 206 else SIZE)


def test_head_tells_sizes_and_is_known_of_files_alone(local, petra):
    url = f"/files/{local.slide.id}"
    sizes = {path: petra.head(url + path, headers=with_key(petra)) for path in ("", "/header", "/content")}
    told = {path: int(answer.headers["Content-Length"]) for path, answer in sizes.items()}
    assert told == {"": SIZE + 124, "/header": 124, "/content": SIZE}
    assert petra.head("/datasets").status_code == petra.post("/datasets").status_code == 404


def test_edit_lists_and_several_session_keys_are_in_the_header(local, server):
    edits = (100, 70_000, 10, 20)
    file = local.add(SLIDES, "edited.bin", archive.Noise(300_000, "edited"), edits=edits, keys=3)
    with client(local, server, local.petra) as petra:
        keys, found = petra.opened(petra.get(f"/files/{file.id}/header", headers=with_key(petra)).content)
        body = petra.get(f"/files/{file.id}/content").content
    assert (len(keys), found) == (3, list(edits))
    plain = decrypted(keys, body)
    assert plain == file.plain.read(0, 300_000)
    assert file.read(0, 10**6) == plain[100:70_100] + plain[70_110:70_130]
    assert file.decrypted_size == 70_020


def test_a_drs_object_has_the_sum_of_the_encrypted_body(local, petra):
    found = petra.get(f"/objects/{SLIDES}/{local.slide.path}").json()
    body = petra.get(found["access_methods"][0]["access_url"]["url"])
    assert found["checksums"] == [{"checksum": hashlib.sha256(body.content).hexdigest(), "type": "sha-256"}]
    assert (found["id"], found["size"]) == (local.slide.id, len(body.content))


def test_a_drs_object_is_not_found_where_the_datasets_id_is_a_url(petra):
    for dataset in (ADDRESS, segment_of(ADDRESS)):
        problem(petra.get(f"/objects/{dataset}/user_lifescience-ri.eu/DATASET_y/b.tif.c4gh"), 403)
    problem(petra.get(f"/objects/{SLIDES}"), 400)


def test_every_request_is_one_record_of_who_read_what(local, server, petra):
    server.counters.reset()
    petra.range(f"/files/{local.slide.id}/content", "bytes=0-99")
    petra.get(f"/datasets/{OTHER}")
    read, refused = server.counters.audit
    assert {name: read[name] for name in ("user", "dataset", "file", "status", "sent", "auth")} == {
        "user": "petra@lifescience-ri.eu",
        "dataset": SLIDES,
        "file": local.slide.id,
        "status": 206,
        "sent": 100,
        "auth": "userinfo",
    }
    assert refused["status"] == 403
