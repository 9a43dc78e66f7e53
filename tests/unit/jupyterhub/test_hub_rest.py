"""Options as a real hub takes them: by its REST API, its form and its links."""

from __future__ import annotations

import json

import pytest
from bs4 import BeautifulSoup
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.hub import Hub, running, xsrf


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Hub:
    with running(tmp_path_factory.mktemp("hub")) as hub:
        for name in ("ann", "bob"):
            hub.user(name)
        yield hub


def stop(hub: Hub, path: str) -> None:
    assert hub.api("DELETE", path).status_code in (202, 204)


def model(hub: Hub, user: str) -> dict:
    return hub.api("GET", f"/users/{user}", params={"include_stopped_servers": "1"}).json()


# The REST API


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"image": "nope"}, "'image'"),
        ({"size": "100%d"}, "'size'"),
        ({"size": 3}, "'size'"),
        ({"size": ["small"]}, "'size'"),
        ({"image": {"a": [None]}}, "'image'"),
        ({"colour": "red"}, "'colour'"),
        ({"size": "huge"}, "'size'"),
    ],
)
def test_bad_options_are_a_400_that_names_the_field(hub, options, field):
    answer = hub.api("POST", "/users/ann/server", json=options)
    assert answer.status_code == 400
    assert answer.json()["status"] == 400
    assert field in answer.json()["message"]


def test_bad_options_of_a_named_server_are_a_400_too(hub):
    answer = hub.api("POST", "/users/ann/servers/second", json={"size": "100%d"})
    assert answer.status_code == 400
    assert "'size'" in answer.json()["message"]


def test_the_message_tells_value_and_choices(hub):
    message = hub.api("POST", "/users/ann/server", json={"size": "100%d"}).json()["message"]
    assert message == "Option 'size': '100%d' is not offered. Allowed: small, large, full."


@pytest.mark.parametrize(
    "body",
    ["[]", "[1]", "7", '"small"', "true", "1e999", "NaN", '"\\ud800"', '{"\\ud800": "\\ud800"}', "{", "\x00"]
    # Nested less and more deeply than Python calls itself.
    + ["[" * depth + "]" * depth for depth in (300, 900, 5000)]
    + ['{"size":' * depth + "1" + "}" * depth for depth in (300, 900, 5000)]
    + [
        '{"size": "' + "x" * 1_000_000 + '"}',
        '{"' + "x" * 1_000_000 + '": 1}',
        '{"__jupyterhub_bytes__": true}',
    ],
    ids=lambda body: f"{body[:12]!a}-{len(body)}",
)
def test_no_body_is_a_500(hub, body):
    answer = hub.api("POST", "/users/bob/server", content=body.encode())
    if answer.status_code == 201:  # a body that means "no options"
        stop(hub, "/users/bob/server")
        assert not json.loads(body)
    else:
        assert answer.status_code == 400
        assert answer.json()["message"]
        assert len(answer.text) < 1000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["image", "size"]), VALUES.filter(bool), min_size=1)
    | st.lists(VALUES, min_size=1)
)
# The same without a hub has more examples, in test_options.py.
@settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
def test_no_json_is_a_500(hub, body):
    answer = hub.api("POST", "/users/bob/server", content=json.dumps(body).encode())
    assert answer.status_code == 400


def test_good_options_start_the_server_and_are_kept(hub):
    hub.user("cho")
    assert hub.api("POST", "/users/cho/server", json={"image": "standard"}).status_code == 201
    assert model(hub, "cho")["servers"][""]["user_options"] == {"image": "standard"}
    stop(hub, "/users/cho/server")


def test_refused_options_leave_the_previous_ones_and_no_body_means_those(hub):
    hub.user("dee")
    assert hub.api("POST", "/users/dee/server", json={"image": "standard"}).status_code == 201
    stop(hub, "/users/dee/server")
    assert hub.api("POST", "/users/dee/server", json={"image": "nope"}).status_code == 400
    assert hub.api("POST", "/users/dee/server").status_code == 201
    assert model(hub, "dee")["servers"][""]["user_options"] == {"image": "standard"}
    stop(hub, "/users/dee/server")


def test_no_body_at_first_means_the_defaults(hub):
    hub.user("eve")
    assert hub.api("POST", "/users/eve/server").status_code == 201
    stop(hub, "/users/eve/server")


def test_a_groups_size_is_for_its_members(hub):
    assert hub.api("POST", "/users/pat/server", json={"size": "huge"}).status_code == 201
    stop(hub, "/users/pat/server")


def test_a_start_that_the_cluster_refuses_answers_with_the_reason(hub):
    hub.user("fay")
    answer = hub.api("POST", "/users/fay/server", json={"size": "full"})
    assert answer.status_code == 503
    assert "The quota team has no room" in answer.json()["message"]


# The form


def form(answer) -> BeautifulSoup:
    return BeautifulSoup(answer.text, "html.parser").select_one("#spawn_form")


def checked(soup) -> dict[str, str]:
    return {field["name"]: field["value"] for field in soup.select("input[checked]")}


def test_the_form_starts_a_server_and_remembers_the_choice(hub):
    browser = hub.browser("gil")
    answer = browser.submit("/hub/spawn", {"image": "standard", "size": "small"})
    assert answer.status_code == 302
    assert model(hub, "gil")["servers"][""]["user_options"] == {"image": "standard", "size": "small"}
    stop(hub, "/users/gil/server")
    assert checked(form(browser.get("/hub/spawn"))) == {"image": "standard", "size": "small"}


@pytest.mark.parametrize("path", ["/hub/spawn", "/hub/spawn/hal/second"])
def test_a_refused_form_is_a_400_with_the_message_at_the_field_and_the_choices_kept(hub, path):
    browser = hub.browser("hal")
    answer = browser.submit(path, {"image": "standard", "size": "enormous"})
    assert answer.status_code == 400
    soup = form(answer)
    assert "'enormous' is not offered" in soup.select_one("#option-size [role=alert]").get_text()
    assert checked(soup)["image"] == "standard"
    # and it is said once: the next visit starts afresh
    again = form(browser.get("/hub/spawn"))
    assert not again.select("[role=alert]")


def test_the_page_says_the_same_on_top_in_plain_words(hub):
    answer = hub.browser("ida").submit("/hub/spawn", {"size": "enormous"})
    top = BeautifulSoup(answer.text, "html.parser").select_one(".spawn-error-msg").get_text()
    assert top == "Error: Option 'size': 'enormous' is not offered. Allowed: small, large, full."


def test_a_refused_link_shows_the_form_with_the_message(hub):
    answer = hub.browser("jon").get("/hub/spawn?image=standard&size=enormous")
    assert answer.status_code == 400
    soup = form(answer)
    assert "'enormous'" in soup.select_one("#option-size [role=alert]").get_text()
    assert checked(soup)["image"] == "standard"


@pytest.mark.parametrize(
    ("path", "query", "filled"),
    [
        *(
            (f"/hub/spawn{path}", "image=standard&size=full", {"image": "standard", "size": "full"})
            for path in ("", "/lin", "/lin/third")
        ),
        ("/hub/spawn", "opt-image=standard&opt-size=full", {"image": "standard", "size": "full"}),
        ("/hub/spawn", "opt-image=standard&size=full", {"image": "standard", "size": "small"}),
        ("/hub/spawn", "image=standard&next=%2Fhub%2Fhome", {"image": "standard", "size": "small"}),
        ("/hub/spawn", "_xsrf=2%7Cabc", {"image": "gpu", "size": "small"}),
    ],
)
def test_a_link_fills_in_the_form_and_starts_nothing(hub, path, query, filled):
    browser = hub.browser("lin")
    answer = browser.get(f"{path}?{query}")
    assert answer.status_code == 200
    assert checked(form(answer)) == filled
    assert bool(form(answer).select("#option-link")) == ("image" in query)
    assert not any(server["ready"] or server["pending"] for server in model(hub, "lin")["servers"].values())
    # it is good for one look
    assert checked(form(browser.get(path))) == {"image": "gpu", "size": "small"}
    assert "with query arguments" not in hub.log


def test_a_link_says_nothing_of_what_it_does_not_name(hub):
    browser = hub.browser("mia")
    assert browser.submit("/hub/spawn", {"image": "standard", "size": "small"}).status_code == 302
    stop(hub, "/users/mia/server")
    assert checked(form(browser.get("/hub/spawn?size=large"))) == {"image": "standard", "size": "large"}
    # and it changed nothing that is kept
    assert model(hub, "mia")["servers"][""]["user_options"] == {"image": "standard", "size": "small"}


def test_what_a_link_filled_in_is_started_by_the_button(hub):
    browser = hub.browser("ned")
    assert browser.submit("/hub/spawn?image=standard", {}).status_code == 302
    assert model(hub, "ned")["servers"][""]["user_options"] == {"image": "standard", "size": "small"}
    stop(hub, "/users/ned/server")


@pytest.mark.parametrize(
    "query", ["image=nope", "colour=red", "size=small&size=large", "opt-=x", "image=%ff", "%ff=x"]
)
def test_a_link_with_wrong_options_is_a_400_with_the_form_and_starts_nothing(hub, query):
    answer = hub.browser("ole").get(f"/hub/spawn?{query}")
    assert answer.status_code == 400
    assert form(answer).select("[role=alert]")
    assert not model(hub, "ole").get("servers", {}).get("", {}).get("ready")


def test_an_administrator_sees_and_sends_the_form_of_another_user(hub):
    browser = hub.browser("root")
    hub.user("kim")
    assert browser.submit("/hub/spawn/kim", {"size": "enormous"}).status_code == 400
    assert browser.submit("/hub/spawn/kim", {"image": "standard"}).status_code == 302
    assert model(hub, "kim")["servers"][""]["user_options"]["image"] == "standard"
    stop(hub, "/users/kim/server")


# Pages that were opened before a login


@pytest.mark.parametrize("path", ["/hub/admin", "/hub/home"])
def test_administrators_are_warned_on_their_pages_and_nobody_else(hub, path):
    assert "All users share one host." in hub.browser("root").get(path).text
    assert "All users share one host." not in hub.browser("mia").get("/hub/home").text


def test_a_form_from_before_a_login_says_what_to_do_and_starts_nothing(hub):
    browser = hub.browser("pia")
    old = form(browser.get("/hub/spawn"))["action"]
    browser.client.get("/hub/logout")
    page = browser.client.get("/hub/login")
    browser.client.post("/hub/login", data={"username": "pia", "password": "x", "_xsrf": xsrf(page)})
    answer = browser.client.post(old, data={"image": "standard"}, headers={"Sec-Fetch-Mode": "navigate"})
    assert answer.status_code == 403
    said = BeautifulSoup(answer.text, "html.parser")
    assert said.select_one("#outdated h1").get_text() == "This page is out of date"
    assert "does not match" not in said.get_text()
    # relative to /hub/spawn: the same page, without what was sent
    assert said.select_one("#open-again")["href"] == "?"
    assert not model(hub, "pia").get("servers", {}).get("", {}).get("ready")
    again = browser.client.get(f"{old.partition('?')[0]}?")
    assert form(again)
    assert browser.submit("/hub/spawn", {"image": "standard"}).status_code == 302
    stop(hub, "/users/pia/server")


def test_a_button_of_a_page_from_before_a_login_is_refused_in_words_that_the_page_replaces(hub):
    browser = hub.browser("quy")
    page = browser.get("/hub/token")
    answer = browser.client.post("/hub/api/users/quy/tokens?_xsrf=old", json={})
    assert answer.status_code == 403
    # What the script of each page looks for; the browser ring has the rest.
    assert "xsrf" in answer.json()["message"].lower()
    assert BeautifulSoup(page.text, "html.parser").select_one("#outdated-buttons")


def test_other_refusals_keep_their_own_page(hub):
    answer = hub.browser("rob").get("/hub/admin")
    assert answer.status_code == 403
    assert "out of date" not in answer.text.replace("This page is out of date: you opened it", "")


# The hub's own life


def test_refusals_do_not_end_the_hub_and_real_failures_still_do(tmp_path):
    with running(tmp_path) as hub:
        for name in ("a1", "a2", "a3"):
            hub.user(name)
        for name in ("a1", "a2"):
            assert hub.api("POST", f"/users/{name}/server", json={"size": "large"}).status_code == 500
        # Any of these would be the third.
        assert hub.api("POST", "/users/a3/server", json={"size": "enormous"}).status_code == 400
        assert hub.api("POST", "/users/a3/server", json=[1]).status_code == 400
        assert hub.api("POST", "/users/a3/server", json={"size": "full"}).status_code == 503
        assert hub.browser("a3").submit("/hub/spawn", {"size": "enormous"}).status_code == 400
        assert "Aborting" not in hub.log
        # the two real failures are still remembered: a third is the limit
        assert hub.api("POST", "/users/a1/server", json={"size": "large"}).status_code == 500
        hub.process.join(20)
        assert not hub.process.is_alive(), "the hub did not notice three real failures in a row"
        assert "Aborting due to 3 consecutive spawn failures" in hub.log


def test_after_a_restart_a_choice_that_is_gone_is_told_in_the_form_and_the_api_takes_the_default(tmp_path):
    db = "sqlite:///hub.sqlite"
    with running(tmp_path, db) as hub:
        hub.user("lea")
        assert (
            hub.api("POST", "/users/lea/server", json={"image": "standard", "size": "small"}).status_code
            == 201
        )
        stop(hub, "/users/lea/server")
    images = [{"name": "new", "image": "n"}, {"name": "gpu", "image": "g"}]
    with running(tmp_path, db, TEST_HUB_IMAGES=json.dumps(images)) as hub:
        soup = form(hub.browser("lea").get("/hub/spawn"))
        assert "'standard' is no longer offered" in soup.select_one("#option-image [role=status]").get_text()
        assert checked(soup) == {"image": "new", "size": "small"}
        # Who names it is told
        answer = hub.api("POST", "/users/lea/server", json={"image": "standard", "size": "small"})
        assert answer.status_code == 400
        assert "'standard' is not offered. Allowed: new, gpu." in answer.json()["message"]
        # and who names nothing gets what the form would have selected.
        assert hub.api("POST", "/users/lea/server").status_code == 201
        assert model(hub, "lea")["servers"][""]["user_options"] == {"image": "new", "size": "small"}
        told = "Your previous choice 'standard' is no longer offered. new is selected instead."
        assert told in hub.log
        stop(hub, "/users/lea/server")
        # The choice is kept: it may be offered again.
        assert (
            "'standard'" in form(hub.browser("lea").get("/hub/spawn")).select_one("[role=status]").get_text()
        )
