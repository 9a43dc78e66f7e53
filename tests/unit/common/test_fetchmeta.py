"""What browsers tell of a request's origin decides whether it goes on with cookies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httputil import HTTPHeaders
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from cytomine_spawner.common.fetchmeta import FETCHED, FORM, FRAMED, Guard, fault


def told(site: str, mode: str, dest: str, **more: str) -> HTTPHeaders:
    return HTTPHeaders(
        {"Cookie": "a=b", "Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest, **more}
    )


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", told("none", "navigate", "document")),
        ("GET", told("cross-site", "navigate", "document")),
        ("GET", told("same-site", "navigate", "document")),
        ("HEAD", told("same-site", "navigate", "document")),
        ("POST", told("same-origin", "navigate", "document")),
        ("GET", told("same-origin", "navigate", "empty")),
        ("GET", told("same-origin", "cors", "empty")),
        ("DELETE", told("same-origin", "cors", "empty")),
        ("POST", told("same-origin", "same-origin", "empty")),
        ("POST", HTTPHeaders({"Cookie": "a=b"})),
        ("GET", told("same-site", "cors", "empty", Authorization="token x")),
    ],
)
def test_what_a_person_opens_and_a_pages_own_script_asks_goes_on(method, headers):
    assert fault(method, headers) == ""


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", "same-origin", "websocket"])
@pytest.mark.parametrize("dest", ["empty", "script", "image", "style", "video", "worker"])
def test_nothing_is_fetched_by_pages_of_another_origin(site, mode, dest):
    assert fault("GET", told(site, mode, dest)) == FETCHED


@pytest.mark.parametrize("dest", ["empty", "script", "image", "style", "object", "serviceworker"])
def test_nothing_is_fetched_without_leave_within_one_origin(dest):
    assert fault("GET", told("same-origin", "no-cors", dest)) == FETCHED


@pytest.mark.parametrize("site", ["same-origin", "same-site", "cross-site"])
@pytest.mark.parametrize("dest", ["iframe", "frame", "embed", "object", "fencedframe"])
def test_nothing_is_shown_in_a_frame(site, dest):
    assert fault("GET", told(site, "navigate", dest)) == FRAMED


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
def test_forms_of_other_origins_are_refused_unless_the_login_needs_them(site):
    headers = told(site, "navigate", "document")
    assert fault("POST", headers) == FORM
    assert fault("POST", headers, foreign_forms=True) == ""
    assert fault("POST", told(site, "navigate", "iframe"), foreign_forms=True) == FRAMED


def test_scripts_of_the_same_origin_ask_only_for_what_they_need():
    assert fault("GET", told("same-origin", "cors", "empty"), scripts=False) == FETCHED
    assert fault("GET", told("same-origin", "navigate", "document"), scripts=False) == ""


def test_a_request_without_cookies_is_anybodys():
    headers = told("cross-site", "no-cors", "script")
    del headers["Cookie"]
    assert fault("GET", headers) == ""


class Page(RequestHandler):
    def get(self) -> None:
        self.finish("secret")

    post = get


def ask(path: str, headers: Mapping[str, str], method: str = "GET", body: bytes | None = None):
    async def asked():
        app = Application([(r"/.*", Guard((r"/static/.*",))), (r"/.*", Page)])
        socket, port = bind_unused_port()
        from tornado.httpserver import HTTPServer

        server = HTTPServer(app)
        server.add_socket(socket)
        try:
            client = AsyncHTTPClient(force_instance=True)
            url = f"http://127.0.0.1:{port}{path}"
            return await client.fetch(url, headers=headers, method=method, body=body, raise_error=False)
        finally:
            server.stop()

    return asyncio.run(asked())


def test_the_guard_answers_with_one_sentence_and_no_page_is_asked():
    for method, body in (("GET", None), ("POST", b"x" * 100_000), ("HEAD", None)):
        answer = ask("/page", told("same-site", "no-cors", "empty"), method, body)
        assert answer.code == 403
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.body.decode() == ("" if method == "HEAD" else f"{FETCHED}\n")


def test_the_guard_leaves_the_rest_to_the_pages():
    assert ask("/page", told("none", "navigate", "document")).body == b"secret"
    assert ask("/static/x.css", told("cross-site", "no-cors", "style")).body == b"secret"
    assert ask("/staticx", told("cross-site", "no-cors", "style")).code == 403
