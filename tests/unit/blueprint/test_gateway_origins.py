"""Pages of other sites, cookies and forged headers at the gateway, run by a real nginx."""

import json
import re
import socket
from urllib.parse import urlsplit

import pytest

from tests.support.gateway import (
    GOOD,
    INTERNAL,
    MISSING,
    REASON,
    SESSION,
    SIGNED,
    URL,
    running,
    say,
    websocket,
)

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)
BOTH = pytest.mark.parametrize("side", ["public", "internal"])
EVIL = "https://cm-evil.stacks.example.org"


# --- origins, cookies and what says where a request came from


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "GET"])
@pytest.mark.parametrize(
    "origin", [EVIL, "null", "http://cm-ada.stacks.example.org", f"{URL}.evil.example", f"{URL}:8443"]
)
def test_a_page_of_another_origin_can_do_nothing(door, method, origin):
    answer = door.public("/api/annotation.json", method, Origin=origin)
    assert answer.status == 403
    assert "pages of other sites" in answer.json["errors"]
    assert door.reached() == []


@pytest.mark.parametrize("site", ["cross-site", "same-site", "what"])
@pytest.mark.parametrize(
    "more",
    [
        {"Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"},
        {"Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"},
        {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
        {},
    ],
)
def test_a_page_of_another_origin_embeds_nothing_of_a_stack(door, site, more):
    assert door.public("/api/imageinstance/1/thumb.png", Sec_Fetch_Site=site, **more).status == 403
    assert door.reached() == []


def test_a_page_of_another_origin_may_lead_to_a_stack(door):
    lead = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert door.public("/", **lead).status == 200
    assert door.public("/", "POST", "", Origin=EVIL, **lead).status == 403


LEAD = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
# What core changes on being asked with GET, as its controllers say, and each other address that is no page.
CHANGING = [
    "/session/admin/open.json",
    "/session/admin/close.json",
    "/api/command/undo.json",
    "/api/command/redo.json",
    "/api/command/35/undo.json",
    "/api/command/35/redo.json",
    "/api/%63ommand/undo.json",
    "/api/annotation/35/review.json",
    "/oauth2/sign_out",
]
NO_PAGES = [
    *CHANGING,
    "/api/user/current.json",
    "/api/x/download",
    "/server/ping",
    "/upload",
    "/import",
    "/ims/formats",
]


@pytest.mark.parametrize("site", ["cross-site", "same-site", "what"])
@pytest.mark.parametrize("path", NO_PAGES)
def test_a_link_of_another_site_opens_nothing_but_pages(door, site, path):
    answer = door.public(path, Sec_Fetch_Site=site, **LEAD)
    assert answer.status == 403
    assert "leads to pages of the web interface" in answer.json["errors"]
    assert door.reached() == []
    assert [e["path"] for e in door.servers["login"].seen if "sign_out" in e["path"]] == []


@pytest.mark.parametrize("path", ["/", "/project/1", "/?x=1", "/apis", "/index.html"])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_links_in_mails_and_of_the_hub_lead_to_pages(door, site, path):
    assert door.public(path, Sec_Fetch_Site=site, **LEAD).json["who"] == "web-ui"
    # Safari before 16.4 says nothing but where from, and mail programs nothing at all
    assert door.public(path, Referer="https://hub.example.org/services/cytomine/").json["who"] == "web-ui"
    assert door.public(path).json["who"] == "web-ui"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    "path", ["/oauth2/start?rd=%2F", "/oauth2/callback?code=a&state=b", "/oauth2/sign_in"]
)
def test_the_login_leads_back(door, site, path):
    door.public(path, Sec_Fetch_Site=site, **LEAD)
    assert door.servers["login"].seen[-1]["path"] == path


def test_a_page_is_led_to_again_after_a_login_and_programs_are_told(door):
    assert door.ask(8080, "/project/1?a=b", Sec_Fetch_Site="none", **LEAD).status == 302
    assert door.servers["login"].seen[-1]["path"] == "/oauth2/start?rd=%2Fproject%2F1%3Fa%3Db"
    assert door.ask(8080, "/api/command/undo.json", Sec_Fetch_Site="none", **LEAD).status == 401


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", CHANGING)
def test_a_get_that_changes_something_must_say_where_it_comes_from_too(door, path, method):
    own = [{"Sec_Fetch_Site": "same-origin"}, {"Sec_Fetch_Site": "none", **LEAD}, {"Origin": URL}]
    own += [{"Referer": URL}, {"Referer": f"{URL}/project/1"}]
    foreign = [
        {},
        {"Referer": EVIL},
        {"Referer": f"{URL}.evil.example/"},
        {"Referer": URL.replace(".", "x") + "/"},
    ]
    foreign += [{"Sec_Fetch_Site": "cross-site", "Referer": f"{URL}/"}]
    for headers in foreign:
        assert door.public(path, method, **headers).status == 403
    assert door.reached() == []
    for headers in own:
        assert door.public(path, method, **headers).status != 403


def test_a_page_of_another_origin_reads_nothing_where_the_browser_is_old(door):
    assert door.public("/api/imageinstance/1/thumb.png", Referer=f"{EVIL}/").status == 403
    assert door.public("/api/imageinstance/1/thumb.png", Referer=f"{URL}/").status == 200
    assert door.public("/api/imageinstance/1/thumb.png").status == 200


def test_notebooks_say_nothing_of_pages(door):
    for path in CHANGING[:-1]:
        assert door.internal(path).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_change_must_say_where_it_comes_from(door, method):
    assert door.ask(8080, "/api/a", method, Cookie=SESSION).status == 403
    own = {"Cookie": SESSION, "Sec_Fetch_Site": "same-origin"}
    assert door.ask(8080, "/api/a", method, **own).status == 200
    assert door.public("/api/a", method).status == 200


@pytest.mark.parametrize(
    "origin", [{}, {"Origin": EVIL}, {"Origin": "null"}, {"Sec_Fetch_Site": "same-origin"}]
)
def test_a_websocket_needs_the_stacks_own_origin(door, origin):
    status, sock = websocket(door.ports[8080], "/ws/user-position/1", Cookie=SESSION, **origin)
    sock.close()
    assert status == 403
    assert door.reached() == []


@pytest.mark.parametrize("port", [8080, 8081])
def test_a_websocket_carries_both_ways(door, port):
    headers = {
        "Authorization": SIGNED,
        "Origin": URL,
        "Cookie": f"a=b; JSESSIONID=c; {SESSION}",
    }
    status, sock = websocket(door.ports[port], "/ws/user-position/1", **headers)
    with sock:
        assert status == 101
        for text in (b"\x81\x05hello", b"more" * 1000):
            sock.sendall(text)
            got = b""
            while len(got) < len(text):
                got += sock.recv(65536)
            assert got == text
    seen = door.servers["core"].seen[0]["headers"]
    assert seen["cookie"] == "JSESSIONID=c"
    assert seen["authorization"] == (f"Bearer {GOOD}" if port == 8080 else SIGNED)


COOKIES = "jupyterhub-session-id=h; __Host-cytomine-session_0=a; cytomine-session=b; _xsrf=c; JSESSIONID=4F-x.1; x=y"


@BOTH
@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/api/x", "JSESSIONID=4F-x.1"),
        ("/session/admin/open.json", "JSESSIONID=4F-x.1"),
        ("/", None),
        ("/upload", None),
    ],
)
def test_no_cookie_of_the_hub_or_the_login_reaches_cytomine(door, side, path, kept):
    assert (
        getattr(door, side)(path, Cookie=COOKIES, Sec_Fetch_Site="same-origin").json["headers"].get("cookie")
        == kept
    )


def test_a_cookie_cannot_bring_another_with_it(door):
    for value in ('"a; b=c"', "a%3bb", "a,b", "a b"):
        got = door.public("/api/x", Cookie=f"JSESSIONID={value}").json["headers"].get("cookie", "")
        assert re.fullmatch(r"(JSESSIONID=[A-Za-z0-9.-]+)?", got)


@BOTH
def test_a_forged_host_and_forwarded_headers_are_replaced(door, side):
    forged = {
        "Host": "evil.example",
        "X_Forwarded_Host": "evil.example",
        "X_Forwarded_Proto": "gopher",
        "X_Forwarded_For": "6.6.6.6",
        "X_Forwarded_Port": "666",
        "X_Forwarded_Prefix": "/evil",
        "X_Forwarded_Server": "evil.example",
        "Forwarded": "for=6.6.6.6;host=evil.example",
        "X_Real_IP": "6.6.6.6",
        "X_Remote_User": "admin",
        "X_Forwarded_User": "admin",
        "X_Forwarded_Email": "admin@evil.example",
        "X_Forwarded_Groups": "admin",
        "X_Forwarded_Preferred_Username": "admin",
        "X_Original_URL": "/actuator",
        "X_Rewrite_URL": "/actuator",
        "X_HTTP_Method_Override": "DELETE",
    }
    for path in ("/api/x", "/", "/upload"):
        got = getattr(door, side)(path, **forged).json["headers"]
        own = urlsplit(URL if side == "public" else INTERNAL)
        assert (got["host"], got["x-forwarded-host"], got["x-forwarded-proto"]) == (
            own.netloc,
            own.netloc,
            own.scheme,
        )
        assert got["x-forwarded-for"] == "127.0.0.1"
        assert not re.search(r"evil|6\.6\.6\.6|admin|actuator|666|DELETE", json.dumps(got))


@pytest.mark.parametrize("path", ["/", "/api/x", "/ims/x", "/api/user/5/keys.json", "/api//x"])
def test_every_answer_says_what_a_browser_may_do_with_it(door, path):
    door.servers["core"].reply = door.servers["web-ui"].reply = say(
        {},
        200,
        ("X-Frame-Options", "ALLOWALL"),
        ("Access-Control-Allow-Origin", EVIL),
        ("Access-Control-Allow-Credentials", "true"),
    )
    got = door.public(path).headers
    assert got["x-frame-options"] == "SAMEORIGIN"
    assert "frame-ancestors 'self'" in got["content-security-policy"]
    assert got["x-content-type-options"] == "nosniff"
    assert got["strict-transport-security"].startswith("max-age=")
    assert got["referrer-policy"] == "same-origin"
    assert "access-control-allow-origin" not in got
    assert "access-control-allow-credentials" not in got
    assert "1." not in got["server"]
    script = re.search("script-src [^;]*", got["content-security-policy"])
    assert (script is not None) == (not path.startswith(("/api", "/ims")))


def test_plain_http_promises_no_https(tmp_path):
    url = "http://cm-ada.stacks.localhost:8000"
    with running(tmp_path, url=url) as door:
        assert "strict-transport-security" not in door.public("/", Origin=url).headers
        assert door.public("/api/x", "POST", "{}", Origin=url).status == 200
        assert door.public("/api/x", "POST", "{}", Origin=URL).status == 403
        got = door.public("/api/x", Origin=url).json["headers"]
        assert (got["host"], got["x-forwarded-proto"]) == ("cm-ada.stacks.localhost:8000", "http")


def test_cores_cookie_is_for_this_host_and_no_script(door):
    door.servers["core"].reply = say({}, 200, ("Set-Cookie", "JSESSIONID=a; Path=/"))
    assert door.public("/session/admin/open.json", Sec_Fetch_Site="same-origin").headers["set-cookie"] == (
        "JSESSIONID=a; Path=/; Secure; HttpOnly; SameSite=Lax"
    )


def test_core_cannot_make_nginx_serve_something_else(door):
    door.servers["core"].reply = say({"a": 1}, 200, ("X-Accel-Redirect", "/_check"))
    assert door.internal("/api/x").json == {"a": 1}


@BOTH
@pytest.mark.parametrize(
    "path", ["/_check", "/_session", "/_started", "/@login", "/@refused", "/oauth2/auth"]
)
def test_the_gateways_inner_paths_are_closed(door, side, path):
    answer = getattr(door, side)(path)
    assert answer.status == 404 or answer.json["who"] == "web-ui"
    assert "core" not in [who for who, _ in door.reached()]


def test_two_requests_in_one_are_two_requests(door):
    """A length and chunks at once: whoever believes the other one would see a hidden request."""
    hidden = b"0\r\n\r\nGET /ims/image/x HTTP/1.1\r\nHost: h\r\n\r\n"
    head = (
        f"POST /api/x HTTP/1.1\r\nHost: h\r\nOrigin: {URL}\r\nCookie: {SESSION}\r\n"
        f"Content-Length: {len(hidden)}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", door.ports[8080]), 10) as sock:
        sock.sendall(head.encode() + hidden)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
    assert "pims" not in [who for who, _ in door.reached()]
