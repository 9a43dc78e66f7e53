"""What the gateway does so that Cytomine's page works where a part of Cytomine fails or is not there."""

import json
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.support.gateway import MISSING, REASON, SIGNED, running, say, tell
from tests.support.rendering import ALL_EXTRAS, ENGINE

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)
SIDES = pytest.mark.parametrize("side", ["public", "internal"])
TILE = "/api/sliceinstance/1/normalized-tile/zoom/1/tx/0/ty/0.webp"


def asked(answer):
    """The query as core reads it."""
    return parse_qsl(urlsplit(answer.json["path"]).query, keep_blank_values=True)


# --- small pictures are made from the slide


@SIDES
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("kind", ["imageinstance", "abstractimage", "sliceinstance", "abstractslice"])
@pytest.mark.parametrize("picture", ["thumb.jpg", "preview.png", "thumb.webp"])
def test_core_is_asked_for_small_pictures_of_the_slides_own_pixels(door, side, method, kind, picture):
    body = "{}" if method == "POST" else None
    answer = getattr(door, side)(f"/api/{kind}/1/{picture}?maxSize=512", method, body)
    names = [(name, value) for name, value in asked(answer) if name != "authorization"]
    assert names == [("maxSize", "512"), ("bits", "8")]


@SIDES
@pytest.mark.parametrize(
    ("query", "bits"),
    [
        ("", ["8"]),
        ("?bits=16", ["16"]),
        ("?bits=8&maxSize=3", ["8"]),
        # core asks for the file's own with these, or cannot read them
        ("?bits=max", ["8"]),
        ("?bits=", ["8"]),
        ("?bits", ["8"]),
        ("?%62its=m%61x", ["8"]),
        ("?Bits=16", ["8"]),
    ],
)
def test_a_depth_that_was_asked_for_stays_and_no_other(door, side, query, bits):
    answer = getattr(door, side)(f"/api/imageinstance/1/thumb.png{query}")
    assert [value for name, value in asked(answer) if name == "bits"] == bits


@SIDES
@pytest.mark.parametrize(
    "path",
    [
        TILE,
        "/api/imageinstance/1/window-0-0-9-9.png",
        "/api/annotation/1/crop.png",
        "/api/imageinstance/1/associated/label.png",
        "/api/imageinstance/1/download",
        "/api/project/1/thumb.png",
        "/api/imageinstance/1/thumb",
    ],
)
def test_nothing_else_is_asked_for_in_another_depth(door, side, path):
    assert "bits" not in dict(asked(getattr(door, side)(path)))


# --- once more

PICTURES = [
    TILE,
    "/api/abstractslice/1/normalized-tile/zoom/1/tx/0/ty/0.jpg?gamma=1",
    "/api/imageinstance/1/window-0-0-9-9.png",
    "/api/imageinstance/1/camera-0-0-9-9.png",
    "/api/abstractimage/1/thumb.png",
    "/api/imageinstance/1/preview.png",
    "/api/annotation/1/crop.png",
    "/api/userannotation/1/mask.png",
    "/api/reviewedannotation/1/alphamask.png",
]


def failing(door, times, status=500):
    """Core fails as often, and then answers."""
    left = [status] * times

    def reply(seen):
        if not left:
            return tell(seen)
        status = left.pop()
        return status and (status, "application/json", b"{}", [])

    door.servers["core"].reply = reply


@SIDES
@pytest.mark.parametrize("path", PICTURES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_picture_that_core_could_not_make_is_asked_for_once_more(door, side, path, method):
    failing(door, 1)
    assert getattr(door, side)(path, method).status == 200
    assert len(door.servers["core"].seen) == 2


@SIDES
@pytest.mark.parametrize("status", [502, 504, None])
def test_so_is_one_whose_answer_was_cut_off_or_came_from_nobody(door, side, status):
    failing(door, 1, status)
    assert getattr(door, side)(TILE).status == 200
    assert len(door.servers["core"].seen) == 2


@SIDES
@pytest.mark.parametrize("path", PICTURES)
def test_a_picture_that_cannot_be_made_is_asked_for_twice_and_not_for_ever(door, side, path):
    for _ in range(3):  # and core stays in use
        door.forget()
        failing(door, 9)
        assert getattr(door, side)(path).status == 500
        assert len(door.servers["core"].seen) == 2
    door.forget()
    assert getattr(door, side)(path).status == 200
    assert len(door.servers["core"].seen) == 1


@SIDES
@pytest.mark.parametrize("status", [400, 403, 404, 503])
def test_a_refusal_is_no_failure(door, side, status):
    failing(door, 9, status)
    assert getattr(door, side)(TILE).status == status
    assert len(door.servers["core"].seen) == 1


@SIDES
@pytest.mark.parametrize("path", ["associated/label.png", "associated/macro.jpg", "associated/thumbnail.png"])
def test_what_itself_ends_the_image_server_is_never_asked_for_again(door, side, path):
    for kind in ("imageinstance", "abstractimage"):
        for status, answered in ((500, 500), (None, 503)):
            door.forget()
            failing(door, 9, status)
            assert getattr(door, side)(f"/api/{kind}/1/{path}").status == answered
            assert len(door.servers["core"].seen) == 1


@SIDES
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("status", [500, 502])
def test_nothing_that_may_change_something_is_sent_twice(door, side, method, status):
    for path in (*PICTURES, "/api/annotation.json", "/api/annotation/1.json"):
        door.forget()
        failing(door, 9, status)
        assert getattr(door, side)(path, method, "{}").status == status
        assert len(door.servers["core"].seen) == 1


@SIDES
@pytest.mark.parametrize("path", ["/api/project.json", "/api/imageinstance/1.json", "/server/ping"])
def test_what_is_no_picture_is_asked_for_once(door, side, path):
    failing(door, 9)
    assert getattr(door, side)(path).status == 500
    assert len(door.servers["core"].seen) == 1


# --- parts that the stack does not have

NOTHING = [
    ("/api/meilisearch/facets", {}),
    ("/api/meilisearch/search?query=x&limit=20", []),
    ("/api/app-engine/tasks", []),
    ("/api/stores", []),
]
LISTS = ["metadataSearch=tumour", 'metadataFilter=a%20%3D%20"b"', "max=20&metadataSearch=x&offset=0"]


@SIDES
@pytest.mark.parametrize(("path", "body"), NOTHING)
def test_the_page_is_told_quietly_that_a_part_has_nothing(door, side, path, body):
    answer = getattr(door, side)(path)
    assert (answer.status, answer.json) == (200, body)
    assert answer.headers["content-type"] == "application/json"
    assert door.reached() == []


@SIDES
@pytest.mark.parametrize("query", LISTS)
def test_a_search_for_metadata_finds_nothing_where_nothing_can_search(door, side, query):
    answer = getattr(door, side)(f"/api/uploadedfile.json?{query}".replace('"', "%22"))
    assert answer.json == {"collection": [], "offset": 0, "perPage": 0, "size": 0, "totalPages": 0}
    assert door.reached() == []
    for ask in ("", "?max=20&metadataSearch=&offset=0"):
        assert getattr(door, side)(f"/api/uploadedfile.json{ask}").json["who"] == "core"
    assert getattr(door, side)(f"/api/uploadedfile.json?{query[:14]}=x", "POST", "{}").json["who"] == "core"


@SIDES
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/meilisearch/image/5"),
        ("POST", "/api/meilisearch/search"),
        ("POST", "/api/app-engine/tasks"),
        ("GET", "/api/app-engine/project/1/task-runs/2"),
        ("POST", "/api/stores"),
        ("POST", "/api/annotations/5/refine"),
    ],
)
def test_all_else_of_such_a_part_is_not_there_in_one_sentence(door, side, method, path):
    answer = getattr(door, side)(path, method, "{}" if method == "POST" else None)
    assert answer.status == 404
    assert answer.json["errors"] == "This part of Cytomine was not chosen for this stack."
    assert door.reached() == []


@pytest.mark.parametrize("path", [path for path, _ in NOTHING] + [f"/api/uploadedfile.json?{LISTS[0]}"])
def test_nobody_is_told_who_is_not_logged_in(door, path):
    assert door.ask(8080, path).status == 401
    assert door.ask(8081, path).status == 401
    assert door.internal(path, Authorization="Bearer forged").status == 401
    assert door.reached() == []


@pytest.fixture(scope="module")
def _full(tmp_path_factory):
    settings = {"allowed_components": ALL_EXTRAS, **ENGINE}
    with running(tmp_path_factory.mktemp("full"), components=ALL_EXTRAS, **settings) as found:
        yield found


@pytest.fixture
def full(_full):
    """The gateway of a stack with every part."""
    _full.forget()
    return _full


@SIDES
@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path, _ in NOTHING),
        ("GET", f"/api/uploadedfile.json?{LISTS[0]}"),
        ("POST", "/api/app-engine/tasks"),
        ("GET", "/api/meilisearch/image/5"),
        ("POST", "/api/annotations/5/refine"),
    ],
)
def test_a_part_that_is_there_is_asked(full, side, method, path):
    answer = getattr(full, side)(path, method, "{}" if method == "POST" else None)
    assert (answer.status, answer.json["who"], answer.json["path"]) == (200, "core", path)


SWITCHES = {"APPENGINE_ENABLED": True, "CORE_URL": "https://c", "STORAGE_REFRESH_INTERVAL": 10000}
TABS = {
    "project-apps-tab": True,
    "project-tools-magic-wand": True,
    "project-images-tab": True,
    "admin": False,
}


@SIDES
def test_the_page_shows_no_way_to_what_the_stack_does_not_have(door, full, side):
    for path, who, told in (
        ("/configuration.json", "web-ui", SWITCHES),
        ("/api/custom-ui/config.json?project=1", "core", TABS),
    ):
        hidden = {"APPENGINE_ENABLED", "project-apps-tab", "project-tools-magic-wand"}
        for stack in (door, full):
            # upstream's files may be written in any way
            reply = say(json.dumps(told, indent=2).encode(), 200, ("ETag", '"1"'), ("Last-Modified", "x"))
            stack.servers[who].reply = reply
            answer = getattr(stack, side)(path, Accept_Encoding="gzip")
            shown = told if stack is full else {k: v if k not in hidden else False for k, v in told.items()}
            assert answer.json == shown
            # a browser that kept it would show what the stack had before
            assert not {"etag", "last-modified"} & set(answer.headers)
            assert "accept-encoding" not in stack.servers[who].seen[-1]["headers"]


@SIDES
def test_what_is_no_configuration_passes_as_it_is(door, side):
    for path, who in (("/configuration.json", "web-ui"), ("/api/custom-ui/config.json", "core")):
        for data in (b"<html>starting</html>", b"[1,", b""):
            door.servers[who].reply = say(data, 404)
            answer = getattr(door, side)(path)
            assert (answer.status, answer.content) == (404, data)


def test_a_long_name_leaves_room_for_the_way_out_of_the_page(door):
    html = "text/html; charset=utf-8"
    page = b"<html><head><title>Cytomine</title></head><body>\xc3\xa9</body></html>"
    for path in ("/", "/index.html", "/no/such/route"):
        door.servers["web-ui"].reply = lambda _: (200, html, page, [])
        answer = door.public(path, Accept_Encoding="gzip")
        assert answer.status == 200
        # What comes compressed could not be read here.
        assert "accept-encoding" not in door.servers["web-ui"].seen[-1]["headers"]
        head, style, rest = answer.content.partition(b"<style>")
        assert (head + rest.partition(b"</style>")[2], bool(style)) == (page, True)
        assert b"max-width" in rest.partition(b"</style>")[0]
    script = b'document.write("</head>")'
    door.servers["web-ui"].reply = lambda _: (200, "text/javascript", script, [])
    assert door.public("/assets/index.js", Accept_Encoding="gzip").content == script
    assert door.servers["web-ui"].seen[-1]["headers"]["accept-encoding"] == "gzip"


def test_the_search_for_similar_annotations_finds_none(door):
    answer = door.ask(6000, "/cbir/search?storage=1&index=annotation&nrt_neigh=11", "POST", "picture")
    assert (answer.status, answer.json["similarities"]) == (200, [])
    assert answer.headers["content-type"] == "application/json"
    assert door.ask(6000, "/cbir/images?storage=1", "POST", "picture").json == {}


def test_a_notebook_that_signs_gets_the_same(door):
    assert door.ask(8081, "/api/meilisearch/facets", Authorization=SIGNED).json == {}
