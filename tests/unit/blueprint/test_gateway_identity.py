"""The whole way in: the stacks' own identity, the real oauth2-proxy and the real nginx."""

import time
from urllib.parse import urlsplit

import jwt
import pytest

from tests.support.adapter import Pkce
from tests.support.gateway_login import MISSING, REASON, before
from tests.support.hub import free_port
from tests.support.identity import GATEWAY_SECRET, world
from tests.support.stacks import PREFIX, a_stack

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    port = free_port()
    with world(stack_url=f"http://{{stack}}.stacks.localhost:{port}") as made:
        made.vault.put("cm-ada-secrets", oidc_client_secret=GATEWAY_SECRET)
        service = f"{made.service.url}{PREFIX}".rstrip("/")
        folder = tmp_path_factory.mktemp("gateway")
        with before(service, folder, GATEWAY_SECRET, made, port, cookie_refresh="1s") as login:
            yield login


@pytest.fixture
def login(started):
    w = started.issuer
    w.service.clear()
    started.door.forget()
    # tokens are checked by the real identity here
    w.service.put(a_stack("ada", members={"users": ("cleo",), "groups": ()}), a_stack("bob"))
    for name in ("ada", "bob", "cleo"):
        w.person(name)
    return started


def come(login, name):
    """Open the stack's page as somebody who is logged in at the hub; the gateway's browser and the last answer."""
    found, w = login.browser(), login.issuer
    start = found.ask("/project/1")
    assert start.status == 302
    assert start.headers["location"].startswith(w.oidc("cm-ada", "auth"))
    hub = w.service.browser(name)
    page = hub.get(start.headers["location"], follow_redirects=False)
    while page.is_redirect and urlsplit(page.headers["Location"]).netloc in (
        "",
        urlsplit(w.service.url).netloc,
    ):
        page = hub.get(page.url.join(page.headers["Location"]), follow_redirects=False)
    if not page.is_redirect:
        return found, page
    back = urlsplit(page.headers["Location"])
    assert f"{back.scheme}://{back.netloc}{back.path}" == f"{login.url}/oauth2/callback"
    return found, found.ask(f"{back.path}?{back.query}")


def wait_until(check):
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(("name", "role"), [("ada", "ADMIN"), ("cleo", "USER")])
def test_the_owner_and_a_member_come_in_without_a_form_and_core_knows_their_role(login, name, role):
    browser, answer = come(login, name)
    assert (answer.status, answer.headers["location"]) == (302, "/project/1"), login.log.read_text()
    seen = browser.ask("/api/user/current.json")
    assert seen.status == 200
    token = seen.json["headers"]["authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["resource_access"]["core"]["roles"] == [role]
    assert claims["iss"] == login.issuer.issuer("cm-ada")
    assert claims["name"]


def test_a_stranger_with_an_account_at_the_hub_stays_outside(login):
    browser, page = come(login, "bob")
    assert page.status_code == 403
    assert browser.ask("/api/user/current.json").status == 401
    assert login.door.reached() == []


def test_a_session_goes_on_by_itself(login):
    browser, _ = come(login, "ada")
    first = browser.ask("/api/x").json["headers"]["authorization"]
    wait_until(lambda: browser.ask("/api/x").json["headers"]["authorization"] != first)


def test_a_member_that_is_removed_is_out_at_the_next_refresh(login):
    browser, _ = come(login, "cleo")
    assert browser.ask("/api/x").status == 200
    login.issuer.service.put(a_stack("ada"))
    wait_until(lambda: browser.ask("/api/x").status == 401)


def test_a_token_of_the_identity_passes_on_the_notebooks_side_and_another_stacks_does_not(login):
    w = login.issuer

    def token(stack, name):
        pkce, page = Pkce(), {"redirect_uri": f"{login.url.replace('cm-ada', stack)}/"}
        code = w.code(w.service.browser(name), stack, pkce, **page)
        return w.exchange(stack, code, pkce, **page).json()["access_token"]

    good = token("cm-ada", "ada")
    assert login.door.ask(8081, "/api/x", Authorization=f"Bearer {good}").status == 200
    for bad in (token("cm-bob", "bob"), good[:-8] + "AAAAAAAA", "x.y.z"):
        assert login.door.ask(8081, "/api/x", Authorization=f"Bearer {bad}").status == 401
        path = f"/api/imageinstance/1/thumb.png?authorization=Bearer%20{bad}"
        assert login.door.internal(path).status == 401
    assert len(login.door.reached()) == 1
