"""Lists: which version, which datasets, all pages, and why there is nothing."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cytomine_spawner.archive import EmptyArchive, FixedToken, NotGranted, SdaFileSystem, api
from cytomine_spawner.archive.http import Answer, Http
from dev.archive import Bytes, Fault, running

DATASET = "aa-Dataset-reading-slides1"
URL_DATASET = "https://doi.org/10.17044/slides"


def test_the_version_is_found_and_exactly_what_the_visas_grant_is_listed(server, reach):
    fs = reach(server)
    assert fs.datasets() == sorted([DATASET, URL_DATASET])
    assert fs._shared.api.version == server.settings.version


def test_a_list_that_is_not_empty_is_not_explained_away(server, reach):
    fs = reach(server)
    assert fs.explain() == "The list is not empty: your visas grant 2 datasets."
    assert fs.explain(DATASET) == f"The archive lists {DATASET}: your visas grant it."
    assert "lists" not in fs.explain("aa-Dataset-of-somebody-else")


def bad(kind, issuer, person):
    """A visa that is wrong in one way."""
    wrong = {
        "forged": {"key": issuer.other_key},
        "expired": {"exp": int(time.time()) - 3600, "iat": int(time.time()) - 7200},
        "wrong issuer": {"iss": "https://elsewhere.example.org/"},
        "conditional": {"conditions": [[{"type": "AffiliationAndRole", "value": "const:x"}]]},
        "untrusted jku": {"key": issuer.other_key, "headers": {"jku": issuer.other_jku}},
    }
    return issuer.visa(person, DATASET, **wrong[kind])


@pytest.mark.parametrize("kind", ["forged", "expired", "wrong issuer", "conditional", "untrusted jku"])
def test_a_bad_visa_grants_nothing_and_the_reason_is_a_sentence(kind, local, v2):
    person = local.someone(f"user-{kind.replace(' ', '-')}")
    person.visas.append(bad(kind, local.issuer, person))
    token = FixedToken(local.issuer.token(person))
    fs = SdaFileSystem(v2.url, token=token, issuer=local.issuer.url, cache_size=0, skip_instance_cache=True)
    with pytest.warns(EmptyArchive) as told:
        assert fs.ls("") == []
    reason = {"expired": "your visas expired", "conditional": "under conditions alone"}
    assert re.search(reason.get(kind, "does not trust their issuer"), str(told[0].message))
    with pytest.raises(NotGranted, match="your visas do not grant it"):
        fs.ls(DATASET)


def test_an_issuer_without_encryption_is_not_shown_the_token(v2):
    fs = SdaFileSystem(
        v2.url,
        token=FixedToken("t"),
        issuer="http://issuer.example.org/",
        cache_size=0,
        skip_instance_cache=True,
    )
    assert "http://issuer.example.org is not encrypted" in fs.explain()


@pytest.mark.parametrize(
    "entry",
    [
        {"decryptedSize": float("inf"), "checksums": "none"},
        {"decryptedSize": "9" * 5000, "checksums": ["none", None, {"type": 3}]},
        {"size": -1, "checksums": {"a": 1}},
    ],
)
async def test_numbers_and_checksums_that_are_none_count_as_not_said(entry, monkeypatch):
    async def read(*_, **__):
        page = {"files": [{"fileId": "f", "filePath": "a", **entry}]}
        return Answer(200, {}, json.dumps(page).encode())

    http = Http("https://archive.example.org", FixedToken("t"), 1, 1, 1, False)
    monkeypatch.setattr(http, "read", read)
    assert await api.V2(http).files("d") == [api.RemoteFile("d", "f", "a", None, None, None)]


def test_a_dataset_that_the_archive_does_not_have_is_named(local, v2):
    person = local.someone("dora", "aa-Dataset-elsewhere")
    token = FixedToken(local.issuer.token(person))
    fs = SdaFileSystem(v2.url, token=token, issuer=local.issuer.url, cache_size=0, skip_instance_cache=True)
    with pytest.warns(
        EmptyArchive, match=r"visas \(aa-Dataset-elsewhere\).*or it does not have these datasets"
    ):
        assert fs.datasets() == []


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://login.bp.example.org/"}, "carries no visas: login.bp.example.org signed it"),
        ({"exp": 1}, "your token has ended"),
    ],
)
def test_a_token_of_a_kind_that_carries_no_visas_is_told_from_one_without_visas(
    claims, reason, local, v2, reach
):
    fs = reach(v2, lambda: local.issuer.token(local.someone("eva"), kind="JWT", **claims))
    assert re.search(reason, fs.explain())


def test_a_token_that_its_issuer_does_not_know_is_said_so(local, v2, reach):
    fs = reach(v2, FixedToken("unknown-to-the-issuer"))
    assert "carries no visas" in fs.explain()
    local.issuer.down = True
    try:
        token = local.issuer.token(local.petra)
        quiet = SdaFileSystem(
            v2.url,
            token=FixedToken(token),
            issuer=local.issuer.url,
            patience=0.2,
            cache_size=0,
            skip_instance_cache=True,
        )
        assert "does not answer" in quiet.explain()
    finally:
        local.issuer.down = False


def test_all_pages_of_long_lists_come_and_a_stale_page_begins_anew(monkeypatch, reach):
    monkeypatch.setattr(api, "PAGE", 3)
    with running() as local:
        names = [f"aa-Dataset-{n}" for n in range(8)]
        for name in names:
            local.add(name, "a", Bytes(b"x"))
        for n in range(10):
            local.add(names[0], f"IMAGES/{n}", Bytes(b"x"))
        person = local.someone("petra", *names)
        with local.archive(version=2) as server:
            fs = reach(server, FixedToken(local.issuer.token(person)))
            server.faults.append(Fault("stale", path="/datasets$", skip=1))
            assert fs.datasets() == names
            server.faults.append(Fault("stale", path="/files$", skip=2))
            assert len(fs.find(names[0])) == 11
            assert not server.faults
            server.faults += [Fault("stale", path="/datasets$", skip=n) for n in range(1, 9)]
            with pytest.raises(OSError, match="Listing the datasets failed: the archive answers 400"):
                fs.datasets(refresh=True)


def test_lists_are_kept_for_a_while_and_asked_anew_on_demand(v2, reach, local):
    fs = reach(v2)
    fs.ls(DATASET)
    local.put(DATASET, "IMAGES/later", b"x")
    before = v2.counters.total.requests
    assert not fs.exists(f"{DATASET}/IMAGES/later")
    assert v2.counters.total.requests == before
    assert fs.ls(f"{DATASET}/IMAGES", refresh=True)
    assert fs.exists(f"{DATASET}/IMAGES/later")
    fs.invalidate_cache()
    fs.ls(DATASET)
    assert v2.counters.total.requests > before


def test_a_new_grant_is_seen_without_a_new_filesystem(v2, local, reach):
    person = local.someone("fritz")
    token = local.issuer.token(person)
    fs = reach(v2, lambda: token)
    with pytest.warns(EmptyArchive):
        assert fs.datasets() == []
    local.issuer.grant(person, DATASET)
    v2.forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fs.datasets() == [DATASET]


def test_no_token_is_in_a_log_an_error_or_a_repr(server, reach, local, caplog, tmp_path):
    token = local.issuer.token(local.petra)
    place = tmp_path / "token"
    place.write_text(token)
    with caplog.at_level(logging.DEBUG):
        fs = reach(server, token_file=str(place), patience=0.3)
        path = f"{DATASET}/IMAGES/small.dcm"
        fs.cat_file(path)
        texts = [repr(fs), str(fs.storage_options), fs.to_json()]
        for status in (401, 403, 404, 412, 416, 418, 302, 503):
            server.faults[:] = [Fault("status", times=0, status=status)]
            with pytest.raises(OSError, match="Listing the datasets failed") as caught:
                fs.datasets(refresh=True)
            error = caught.value
            texts += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    assert token not in "".join(texts) + caplog.text


def test_a_redirect_carries_the_token_nowhere(local, reach):
    seen = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("Authorization")))
            moved = "/moved" not in self.path
            self.send_response(302 if moved else 200)
            if moved:
                self.send_header("Location", f"http://localhost:{self.server.server_port}/moved")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(OSError, match="sends on to another address"):
            reach(server).datasets()
        server.shutdown()
    assert seen == [("/service-info", None)]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"name": "else"}', b'{"type": {"artifact": "beacon"}}'])
def test_what_is_no_archive_is_said_so(body, reach):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(OSError, match=r"is no JSON|not as an archive"):
            reach(server).datasets()
        server.shutdown()


def test_an_archive_that_is_not_there_is_given_up(reach):
    class Nowhere:
        url = "http://127.0.0.1:9"

    with pytest.raises(
        OSError, match=r"Asking http://127.0.0.1:9 for its version failed: the archive cannot be reached"
    ):
        reach(Nowhere, patience=0.5).datasets()


def test_version_1_with_a_newer_minimum_says_to_update(local, reach):
    with (
        local.archive(version=1, client_version="9.0.0") as server,
        pytest.raises(OSError, match=r"wants a newer client.*Update this package"),
    ):
        reach(server).datasets()
