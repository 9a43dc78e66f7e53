"""What an attacker tries at the gateway, run by a real nginx with neighbours that tell what came through."""

import http.client
import json
import re
import socket
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.support import recordings
from tests.support.gateway import (
    BAD,
    GOOD,
    INTERNAL,
    MISSING,
    REASON,
    SIGNED,
    URL,
    running,
    say,
    websocket,
)

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)
BOTH = pytest.mark.parametrize("side", ["public", "internal"])
EVIL = "https://cm-evil.stacks.example.org"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with running(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@pytest.fixture
def door(gateway):
    gateway.forget()
    return gateway


# --- paths


@BOTH
@pytest.mark.parametrize(
    "path",
    [
        "/ims",
        "/ims/",
        "/ims/ping",
        "/ims/image/upload-1/small.png/thumb",
        "/ims/image/a/export",
        "/ims/upload/x",
        "/IMS/image/x",
        "/Ims/image/x",
        "//ims/image/x",
        "/ims//image/x",
        "/./ims/image/x",
        "/x/../ims/image/x",
        "/ims/upload/../image/x",
        "/ims/formats/../image/x/thumb",
        "/%69ms/image/x",
        "/ims%2fimage/x",
        "/ims%2Fimage/x",
        "/ims/%2e%2e/ims/image/x",
        "/api/%2e%2e/ims/image/x",
        "/api/..%2fims/image/x",
        "/api/..;/ims/image/x",
        "/api;x/../ims/image/x",
        "/ims;/image/x",
        "/ims\\image\\x",
        "/ims%5cimage",
        "/%252e%252e/ims/image",
        "/upload/..%2fimage/x",
        "/upload/",
        "/upload/../ims/image/x",
        "/ims/upload%3f/../image",
    ],
)
def test_no_way_of_writing_a_path_reaches_the_slides_at_the_image_server(door, side, path):
    answer = getattr(door, side)(path)
    assert "pims" not in [who for who, _ in door.reached()]
    assert answer.status in (400, 404) or answer.json["who"] == "web-ui"


@BOTH
@pytest.mark.parametrize(
    "path",
    [
        "/actuator/env",
        "/monitoring",
        "/server/../actuator/env",
        "/server/%2e%2e/actuator",
        "/server/ping/../../actuator/env",
        "/server/",
        "/server/ping/x",
        "/session/",
        "/session/x",
        "/session/admin/../../actuator",
        "/API/user/current.json",
        "/api/..;/actuator/env",
        "/api/x;jsessionid=1",
        "/api/user/%00",
    ],
)
def test_cores_paths_beside_the_listed_ones_are_not_reached(door, side, path):
    getattr(door, side)(path)
    assert "core" not in [who for who, _ in door.reached()]


def test_an_absolute_address_is_no_way_around(door):
    for target in (
        "http://x/ims/image/x",
        f"http://127.0.0.1:{door.servers['pims'].server_port}/ims/image/x",
    ):
        assert door.internal(target).status == 404
    assert door.reached() == []


@BOTH
def test_no_protocol_can_be_changed_to_but_websocket(door, side):
    headers = {
        "Upgrade": "h2c",
        "Connection": "Upgrade, HTTP2-Settings",
        "HTTP2_Settings": "AAMAAABkAAQAAP__",
    }
    answer = getattr(door, side)("/api/x", **headers)
    if side == "internal":
        got = answer.json["headers"]
        assert "upgrade" not in got
        assert "upgrade" not in got.get("connection", "")
    else:
        assert answer.status == 403


# --- tokens


def asked(answer):
    """The query as core reads it."""
    return parse_qsl(urlsplit(answer.json["path"]).query, keep_blank_values=True)


NAMES = [
    "authorization",
    "Authorization",
    "AUTHORIZATION",
    "auth",
    "Auth",
    "aut%68",
    "%61uth",
    "autho%72ization",
    "+auth",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", ["/api/imageinstance/1/thumb.png", "/api/imageinstance/1/x.json"])
def test_a_forged_token_in_the_address_is_replaced_by_the_sessions(door, name, path):
    answer = door.public(f"{path}?maxSize=256&{name}=Bearer%20{BAD}&bits=8&{name}={BAD}")
    assert asked(answer) == [("maxSize", "256"), ("bits", "8"), ("authorization", f"Bearer {GOOD}")]
    assert BAD not in json.dumps(answer.json)


@pytest.mark.parametrize("path", ["thumb.png", "preview.jpg", "download", "associated/label.png"])
def test_where_core_needs_a_token_in_the_address_it_gets_the_sessions(door, path):
    answer = door.public(f"/api/imageinstance/1/{path}")
    assert asked(answer) == [("authorization", f"Bearer {GOOD}")]


@pytest.mark.parametrize("header", ["", f"Bearer {BAD}", SIGNED, "Basic YTpi"])
def test_core_gets_the_sessions_token_whatever_the_page_sends(door, header):
    got = door.public("/api/imageinstance/1.json", Authorization=header).json["headers"]
    assert got["authorization"] == f"Bearer {GOOD}"
    assert "x-forwarded-access-token" not in got


def test_parameters_that_cannot_be_read_are_dropped_where_a_token_may_hide(door):
    assert asked(door.public("/api/a?auth=1&x=%zz&%ff=1&y=2")) == [
        ("y", "2"),
        ("authorization", f"Bearer {GOOD}"),
    ]


@pytest.mark.parametrize("name", [*NAMES, None])
def test_a_notebooks_token_is_checked_by_who_issued_it_before_core_sees_it(door, name):
    def ask(token):
        if name is None:
            return door.internal("/api/imageinstance/1/thumb.png", Authorization=f"Bearer {token}")
        return door.internal(f"/api/imageinstance/1/thumb.png?{name}=Bearer%20{token}", Authorization=SIGNED)

    refused = ask(BAD)
    assert refused.status == 401
    assert "does not know who asks" in refused.json["errors"]
    assert door.reached() == []
    assert len(door.servers["identity"].seen) == 1
    assert asked(ask(GOOD)) == [("authorization", f"Bearer {GOOD}")]


@pytest.mark.parametrize(
    ("query", "header"),
    [
        (f"?auth={GOOD}&authorization={BAD}", SIGNED),
        (f"?authorization={GOOD}&authorization={BAD}", SIGNED),
        (f"?authorization={BAD}&Authorization={GOOD}", SIGNED),
        (f"?authorization=Bearer%20{BAD}", f"Bearer {GOOD}"),
        (f"?authorization=Bearer%20{GOOD}", f"Bearer {BAD}"),
    ],
)
def test_a_good_token_does_not_cover_a_bad_one(door, query, header):
    answer = door.internal(f"/api/imageinstance/1/download{query}", Authorization=header)
    assert answer.status == 400
    assert door.reached() == []


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer  {BAD}",
        f"bearer\t{BAD}",
        "Basic YTpi",
        "CYTOMINE",
        "cytomine a:b",
        f"JWT {BAD}",
    ],
)
def test_nobody_reads_images_without_saying_who_asks(door, header):
    """Core leaves some paths open; a header that neither of the two ways knows is no header."""
    for path in (
        "/api/imageinstance/1/window-0-0-9-9.png",
        "/api/userannotation/1/crop.png",
        "/api/user/5.json",
    ):
        assert door.internal(path, Authorization=header).status == 401
    assert door.reached() == []


def test_without_the_login_service_no_token_passes_and_signatures_still_do(tmp_path):
    with running(tmp_path) as door:
        door.servers["identity"].shutdown()
        door.servers["identity"].server_close()
        answer = door.internal("/api/x", Authorization=f"Bearer {GOOD}")
        assert answer.status == 503
        assert "login service does not answer" in answer.json["errors"]
        assert door.internal("/api/x").status == 200
        assert [who for who, _ in door.reached()] == ["core"]


@BOTH
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/imageinstance/1/thumb.png", "application/x-www-form-urlencoded"),
        ("/api/imageinstance/1/thumb.png", " Application/X-WWW-Form-Urlencoded; charset=utf-8"),
        ("/api/annotation.json", "application/x-www-form-urlencoded"),
        ("/api/abstractimage/1/download", "multipart/form-data; boundary=b"),
        ("/api/userannotation/1/crop.png", "multipart/form-data; boundary=b"),
        ("/api/domain/x/thumb.png", "multipart/mixed; boundary=b"),
    ],
)
def test_a_form_cannot_carry_a_token_past_the_check(door, side, path, kind):
    body = f"authorization=Bearer {BAD}"
    assert getattr(door, side)(path, "POST", body, Content_Type=kind).status == 415
    assert door.reached() == []


@BOTH
def test_files_can_still_be_attached(door, side):
    kind = "multipart/form-data; boundary=b"
    assert getattr(door, side)("/api/attachedfile.json", "POST", "x", Content_Type=kind).status == 200


@BOTH
def test_of_two_headers_core_sees_only_the_one_that_was_checked(door, side):
    port = door.ports[8080 if side == "public" else 8081]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("POST", "/api/x")
    for name, value in (
        ("Origin", URL),
        ("X-Forwarded-Access-Token", GOOD),
        ("Authorization", SIGNED),
        ("Authorization", f"Bearer {BAD}"),
        ("Content-Type", "application/json"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Content-Length", "0"),
    ):
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    data = response.read()
    if response.status == 200:
        seen = json.loads(data)
        assert seen["names"].count("authorization") == 1
        assert seen["names"].count("content-type") == 1
        assert seen["headers"]["content-type"] == "application/json"
        assert BAD not in seen["headers"]["authorization"]
    else:
        assert response.status in (400, 401, 415)


# --- keys of others


@BOTH
@pytest.mark.parametrize(
    "path",
    [
        "/api/user/35/keys.json",
        "/api/user/35/keys",
        "/api/user/35/keys/",
        "/api/user/current/../35/keys",
        "/api/user/%33%35/%6beys.json",
        "/API/user/35/keys.json",
        "/api/USER/35/Keys.json",
        "/api/userkey/8f5c/keys.json",
        "/api/userkey",
    ],
)
def test_the_keys_of_others_are_not_asked_for(door, side, path):
    answer = getattr(door, side)(path)
    assert answer.status in (400, 403) or answer.json["who"] == "web-ui"
    assert "core" not in [who for who, _ in door.reached()]


def with_keys():
    return [
        e
        for e in recordings.load()
        if re.search('"(privateKey|secondaryKey)": "', json.dumps(e.data.get("answer", {}).get("json", "")))
    ]


@BOTH
def test_no_real_answer_shows_a_private_key_but_to_its_owner(door, side):
    found = with_keys()
    assert len(found) >= 10
    shown, hidden = set(), set()
    for exchange in found:
        ask, body = exchange.data["ask"], exchange.data["answer"]["json"]
        door.servers["core"].reply = say(body)
        answer = getattr(door, side)(ask["path"], ask["method"], None if ask["method"] == "GET" else "{}")
        (shown if "PRIVATE_KEY" in answer.text else hidden).add(ask["path"])
    assert shown == {"/api/user/current/keys"}
    assert {"/api/user/53.json", "/api/user/53/keys.json"} <= hidden


@BOTH
@pytest.mark.parametrize(
    "path", ["/api/user/53.json", "/api/user/53", "/api/user.json", "/api/project/1/user.json"]
)
def test_the_rest_of_a_user_still_arrives(door, side, path):
    exchange = next(e for e in with_keys() if e.data["ask"]["path"] == "/api/user/53.json")
    body = exchange.data["answer"]["json"]
    door.servers["core"].reply = say(body)
    answer = getattr(door, side)(path)
    assert answer.status == 200
    assert answer.json == {**body, "privateKey": None, "publicKey": None}


@BOTH
@pytest.mark.parametrize("size", [0, 5000, 32_760, 300_000])
def test_a_key_is_found_wherever_the_answer_is_cut(door, side, size):
    user = {"x": "é" * size, "privateKey": 'a"\\b', "publicKey": "p", "y": [1.0]}
    data = json.dumps(user, ensure_ascii=False).encode()
    door.servers["core"].reply = say([user] * 3) if size < 100 else say(data)
    answer = getattr(door, side)("/api/user/5.json")
    assert '"privateKey":null' in answer.text
    assert "é" * size in answer.text or size < 100
    assert 'a\\"' not in answer.text


def test_answers_cannot_hide_keys_by_compression(door):
    for side in (door.public, door.internal):
        got = side("/api/user/5.json", Accept_Encoding="gzip").json["headers"]
        assert "accept-encoding" not in got


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


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_change_must_say_where_it_comes_from(door, method):
    assert door.ask(8080, "/api/a", method, X_Forwarded_Access_Token=GOOD).status == 403
    own = {"X_Forwarded_Access_Token": GOOD, "Sec_Fetch_Site": "same-origin"}
    assert door.ask(8080, "/api/a", method, **own).status == 200
    assert door.public("/api/a", method).status == 200


@pytest.mark.parametrize(
    "origin", [{}, {"Origin": EVIL}, {"Origin": "null"}, {"Sec_Fetch_Site": "same-origin"}]
)
def test_a_websocket_needs_the_stacks_own_origin(door, origin):
    status, sock = websocket(door.ports[8080], "/ws/user-position/1", X_Forwarded_Access_Token=GOOD, **origin)
    sock.close()
    assert status == 403
    assert door.reached() == []


@pytest.mark.parametrize("port", [8080, 8081])
def test_a_websocket_carries_both_ways(door, port):
    headers = {
        "X_Forwarded_Access_Token": GOOD,
        "Authorization": SIGNED,
        "Origin": URL,
        "Cookie": "a=b; JSESSIONID=c",
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
    assert getattr(door, side)(path, Cookie=COOKIES).json["headers"].get("cookie") == kept


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
    assert door.public("/session/admin/open.json").headers["set-cookie"] == (
        "JSESSIONID=a; Path=/; Secure; HttpOnly; SameSite=Lax"
    )


def test_core_cannot_make_nginx_serve_something_else(door):
    door.servers["core"].reply = say({"a": 1}, 200, ("X-Accel-Redirect", "/_check"))
    assert door.internal("/api/x").json == {"a": 1}


@BOTH
@pytest.mark.parametrize("path", ["/_check", "/_started", "/@refused", "/oauth2/callback"])
def test_the_gateways_inner_paths_are_closed(door, side, path):
    answer = getattr(door, side)(path)
    assert answer.status == 404 or answer.json["who"] == "web-ui"
    assert "core" not in [who for who, _ in door.reached()]


def test_two_requests_in_one_are_two_requests(door):
    """A length and chunks at once: whoever believes the other one would see a hidden request."""
    hidden = b"0\r\n\r\nGET /ims/image/x HTTP/1.1\r\nHost: h\r\n\r\n"
    head = (
        f"POST /api/x HTTP/1.1\r\nHost: h\r\nOrigin: {URL}\r\nX-Forwarded-Access-Token: {GOOD}\r\n"
        f"Content-Length: {len(hidden)}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", door.ports[8080]), 10) as sock:
        sock.sendall(head.encode() + hidden)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
    assert "pims" not in [who for who, _ in door.reached()]
