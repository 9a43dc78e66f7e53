"""What an attacker tries at the gateway, run by a real nginx with neighbours that tell what came through."""

import functools
import http.client
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.support import recordings
from tests.support.gateway import (
    BAD,
    GOOD,
    MISSING,
    REASON,
    SESSION,
    SIGNED,
    URL,
    resident,
    running,
    say,
    tell,
)

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)
BOTH = pytest.mark.parametrize("side", ["public", "internal"])


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
    assert sorted(asked(answer)) == [("authorization", f"Bearer {GOOD}"), ("bits", "8"), ("maxSize", "256")]
    assert BAD not in json.dumps(answer.json)


@pytest.mark.parametrize("path", ["thumb.png", "preview.jpg", "download", "associated/label.png"])
def test_where_core_needs_a_token_in_the_address_it_gets_the_sessions(door, path):
    asked_for = asked(door.public(f"/api/imageinstance/1/{path}"))
    assert ("authorization", f"Bearer {GOOD}") in asked_for
    assert [name for name, _ in asked_for if name != "bits"] == ["authorization"]


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
    assert asked(ask(GOOD)) == [("authorization", f"Bearer {GOOD}"), ("bits", "8")]


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
    """A header that neither of the two ways knows is no header."""
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
@pytest.mark.parametrize("first", ["checked", "forged"])
def test_of_two_headers_core_sees_only_the_one_that_was_checked(door, side, first):
    port = door.ports[8080 if side == "public" else 8081]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("POST", "/api/x")
    pairs = [
        ("Authorization", SIGNED, f"Bearer {BAD}"),
        ("Content-Type", "application/json", "application/x-www-form-urlencoded"),
    ]
    for name, value in (("Origin", URL), ("Cookie", SESSION), ("Content-Length", "0")):
        connection.putheader(name, value)
    for name, checked, forged in pairs:
        for value in (checked, forged) if first == "checked" else (forged, checked):
            connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    data = response.read()
    connection.close()
    if response.status == 200:
        seen = json.loads(data)
        assert seen["names"].count("authorization") == 1
        assert seen["names"].count("content-type") == 1
        assert seen["headers"]["content-type"] == "application/json"
        assert BAD not in seen["headers"]["authorization"]
    else:
        assert response.status in (400, 401, 415)
        assert door.reached() == []


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


@functools.cache
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
    hidden = {**user, "privateKey": None, "publicKey": None}
    assert answer.json == ([hidden] * 3 if size < 100 else hidden)


def plain(data):
    """What is to come of an answer, by a pattern over the whole of it."""
    names = rb'("(?:private|public|primary|secondary)Key"\s*:\s*)"(?:[^"\\]|\\[\s\S])*"'
    return re.sub(names, rb"\1null", data)


VALUES = ["", "k", "kk", 'a"b', "\\", '\\"', "\\" * 9, '"' * 7, "Key", "x" * 40, "x" * 20_000, "\\" * 20_001]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_at_every_border_of_two_pieces_the_same_goes_out(door, value):
    """nginx reads 16 kB at a time: the border goes through each byte of name, sign and value."""
    pair = json.dumps({"privateKey": value, "myKey": "shown", "Key": 1, "secondaryKey": value})
    for shift in range(0, 90, 1 if len(value) < 100 else 9):
        data = (
            '{"x":"' + "y" * (16_384 - shift) + '","u":' + pair + ',"privateKey"\t:\n"z","publicKey":null}'
        ).encode()
        door.servers["core"].reply = say(data)
        assert door.internal("/api/user/5.json").content == plain(data)


def test_what_only_looks_like_a_key_stays(door):
    data = b'{"a":"privateKey","xprivateKey":"b","privateKeys":"c","privateKey":[1],"publicKey":{"d":"e"},"f":"Key"}'
    door.servers["core"].reply = say(data)
    assert door.internal("/api/user/5.json").content == data


@BOTH
@pytest.mark.parametrize(
    "accept",
    ["application/json;charset=UTF-16", "application/json; Charset=utf-32be", "application/yaml", ""],
)
def test_core_is_asked_for_nothing_in_which_keys_would_not_be_found(door, side, accept):
    got = getattr(door, side)("/api/user/5.json", Accept=accept, Accept_Charset="utf-16").json["headers"]
    assert "charset" not in got["accept"]
    assert got["accept"].startswith("application/json")
    assert "accept-charset" not in got
    elsewhere = getattr(door, side)("/api/x.json", Accept=accept).json["headers"].get("accept", "")
    assert "charset" not in elsewhere.lower()


@BOTH
@pytest.mark.parametrize(
    ("kind", "more", "text"),
    [
        ("application/json;charset=UTF-16BE", [], json.dumps({"privateKey": "x" * 99}).encode("utf-16-be")),
        ("application/json", [], json.dumps({"privateKey": "x" * 99}).encode("utf-16-le")),
        ("application/json", [("Content-Encoding", "gzip")], b"\x1f\x8b" + b"k" * 99),
    ],
)
def test_an_answer_that_cannot_be_read_is_not_passed_on(door, side, kind, more, text):
    door.servers["core"].reply = lambda _: (200, kind, text, more)
    answer = getattr(door, side)("/api/user/5.json")
    assert "cannot be looked for" in answer.json["errors"]


@BOTH
@pytest.mark.parametrize("path", ["/api/commands", "/api/deletecommand.json", "/api/commands/undo/8f5c"])
def test_commands_show_no_keys_either(door, side, path):
    door.servers["core"].reply = say({"data": {"privateKey": "x", "name": "Ada"}})
    assert getattr(door, side)(path).json == {"data": {"privateKey": None, "name": "Ada"}}


# --- long answers


def users(count):
    """As core lists a course."""
    key = "8f5c0000-0000-4000-8000-00000000000"
    one = {"username": "ada@lifescience-ri.eu", "privateKey": key, "publicKey": key}
    return json.dumps([{"id": n, **one} for n in range(count)]).encode()


@BOTH
def test_forty_thousand_keys_go_and_the_memory_is_that_of_the_answer(door, side):
    data = users(20_000)
    door.servers["core"].reply = say(data)
    door.internal("/api/user/5.json")
    before = resident(door.pid)
    answer = getattr(door, side)("/api/user.json")
    assert answer.content == plain(data)
    # Each piece and a copy of it; and nothing for each key.
    assert resident(door.pid) - before < 4 * len(data)


@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_that_is_too_long_is_refused_with_what_to_do(door, chunked):
    data = users(100_000)
    assert len(data) > 8 * 2**20
    door.servers["core"].reply = say(data, 200, *([("Transfer-Encoding", "chunked")] if chunked else []))
    before = resident(door.pid)
    answer = door.public("/api/user.json")
    assert "max= and offset=" in answer.text
    assert b"8f5c0000" not in answer.content
    assert resident(door.pid) - before < 4 * 8 * 2**20
    if not chunked:
        assert "too long" in answer.json["errors"]
    else:  # it has begun by then: no one takes it for whole
        with pytest.raises(ValueError, match=r"Extra data|delimiter|Expecting"):
            answer.json  # noqa: B018


def test_what_is_no_json_has_no_limit(door):
    data = b"ada;1\n" * 2_000_000
    door.servers["core"].reply = lambda _: (200, "text/csv", data, [])
    assert door.public("/api/project/1/user/download").content == data


def test_one_person_can_ask_for_so_many_lists_at_a_time_and_others_still_can(door):
    gate = threading.Event()

    def slow(seen):
        gate.wait(10)
        return tell(seen)

    door.servers["core"].reply = slow
    with ThreadPoolExecutor(16) as pool:
        mine, theirs = (f"__Host-cytomine-session={name}; {SESSION}" for name in ("ada", "ben"))
        asked = [pool.submit(door.ask, 8080, "/api/user.json", Cookie=mine) for _ in range(16)]
        try:
            until = time.monotonic() + 10
            while sum(f.done() for f in asked) < 6:
                assert time.monotonic() < until
                time.sleep(0.02)
            other = pool.submit(door.ask, 8080, "/api/user.json", Cookie=theirs)
            assert {f.result().status for f in asked if f.done()} == {429}
            assert "same time" in next(f.result().json["errors"] for f in asked if f.done())
        finally:
            gate.set()
        assert sorted(f.result().status for f in asked) == [200] * 10 + [429] * 6
        assert other.result().status == 200


@pytest.mark.parametrize("sign", ["?", "?auth=", "?%61=1&"])
def test_a_long_address_costs_no_more_than_its_length(door, sign):
    """Patterns that begin anew at each sign, or tokens compared with each other, would keep the worker busy."""
    counts = []
    for length in (7_000, 28_000):
        query = "".join(f"{sign}{n}&" for n in range(length // (len(sign) + 5)))
        before = processor(door.pid)
        for _ in range(5):
            door.internal(f"/api/x{'?' if sign[0] != '?' else ''}{query}", Authorization=SIGNED)
        counts.append(max(processor(door.pid) - before, 1))
    # four times the length: sixteen times the work if each character looked at all others
    assert counts[1] < 10 * max(counts[0], 2)


@BOTH
def test_the_places_of_a_users_annotations_arrive_unread_and_nothing_beside_them_does(door, side):
    # Long lists without a user in them: the import of datasets reads them.
    user = {"privateKey": "secret", "publicKey": "p"}
    door.servers["core"].reply = say(user)
    place = "/api/user/35/imageinstance/7/annotationposition"
    assert getattr(door, side)(f"{place}.json?key=a&max=0").json == user
    for path in (
        f"{place}.xml",
        f"{place}.json/",
        f"/api/x{place[4:]}.json",
        f"{place.replace('35', 'a')}.json",
    ):
        assert "secret" not in getattr(door, side)(path).text, path


def test_answers_cannot_hide_keys_by_compression(door):
    for side in (door.public, door.internal):
        got = side("/api/user/5.json", Accept_Encoding="gzip").json["headers"]
        assert "accept-encoding" not in got


def processor(pid):
    """Clock ticks that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
