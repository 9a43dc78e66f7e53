"""What opens the archive at a hub: a user's own servers get the user's token, nobody else gets any."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
import threading
import time
from urllib.parse import parse_qs, quote, urlsplit

import fsspec
import pytest

from cytomine_spawner.archive import HubToken, SdaFileSystem, TokenRefused, cli, http
from dev import archive
from tests.support import archivehub
from tests.support.archivehub import ADA, BOB, GRANTED, OTHER, ROOT_USER, SCOPE
from tests.support.examples import THOROUGH
from tests.support.lsloginfake import MARKS, Provider, wait_until

# How often a token is renewed, and its life in seconds: a machine that does much else may take a second from the hub's answer
# to the archive's, and then no token lives long enough.
RENEWALS, LIFE = (21, 1.2) if THOROUGH else (4, 5.0)
PLAIN = random.Random(4).randbytes(3_000_000)


@pytest.fixture(scope="module")
def provider():
    with Provider() as running:
        yield running


@pytest.fixture(scope="module")
def hub(provider, tmp_path_factory):
    with archive.running() as local:
        local.add(GRANTED, "IMAGES/slide.tif", archive.Bytes(PLAIN))
        local.add(OTHER, "IMAGES/other.tif", archive.Bytes(b"another"))
        with archivehub.running(tmp_path_factory.mktemp("hub"), provider, local) as found:
            yield found
    leaks = [line for line in found.log.splitlines() if any(mark in line for mark in MARKS)]
    assert not leaks, leaks[:3]


@pytest.fixture(autouse=True)
def healthy(hub, provider):
    """Each test starts with an LS Login and an archive that work, and with somebody who may read one dataset."""
    provider.broken, provider.lifetime, provider.refresh_tokens = {}, 3600, True
    hub.archive.faults.clear()
    hub.grant(GRANTED)


@pytest.fixture
def ada(hub):
    """The environment of a server of somebody who has just logged in."""
    hub.browser(ADA)
    return hub.environment(ADA)


@pytest.fixture
def at_home(ada, hub, monkeypatch, tmp_path):
    """This process as one of the server's: nothing else is set."""
    monkeypatch.delenv("SDA_TOKEN_FILE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("JUPYTERHUB_API_TOKEN", "SDA_URL"):
        monkeypatch.setenv(name, ada[name])
    monkeypatch.setenv("JUPYTERHUB_API_URL", hub.api_url)
    fsspec.register_implementation("sda", SdaFileSystem, clobber=True)
    SdaFileSystem.clear_instance_cache()
    yield
    SdaFileSystem.clear_instance_cache()


def tokens_of(hub, sub):
    """The access tokens that LS Login has given for a person."""
    return {token for token, grant in hub.provider.access.items() if grant["person"]["sub"] == sub}


# A user's own server


@pytest.mark.hub_contract
def test_a_server_gets_its_users_token_and_may_keep_it_nowhere(hub, ada):
    answer = hub.ask(ada["JUPYTERHUB_API_TOKEN"])
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["access_token"] in tokens_of(hub, ADA["sub"])
    assert 3000 < found["expires_in"] <= 3600
    assert "refresh_token" not in answer.text
    assert not [token for token in hub.provider.refresh if token in answer.text]
    assert answer.headers["cache-control"] == "no-store"
    assert not {"access-control-allow-origin", "access-control-allow-credentials"} & set(answer.headers)


def test_the_token_is_in_no_environment_and_in_no_pods_description(ada):
    assert "SDA_URL" in ada
    assert "value" in ada["TEST_POD"], "the record is no pod's"
    assert not [name for name, text in ada.items() if any(mark in text for mark in MARKS)]


def test_in_a_notebook_a_path_alone_opens_a_slide(at_home):
    with fsspec.open(f"sda://{GRANTED}/IMAGES/slide.tif") as file:
        file.seek(1_000_000)
        assert file.read(5000) == PLAIN[1_000_000:1_005_000]


def test_the_commands_need_no_settings_either(at_home, capsys, tmp_path):
    assert cli.main(["datasets"]) == 0
    assert GRANTED in capsys.readouterr().out
    assert cli.main(["get", f"sda://{GRANTED}/IMAGES/slide.tif", str(tmp_path / "copy.tif")]) == 0
    assert (tmp_path / "copy.tif").read_bytes() == PLAIN


def test_a_file_that_is_named_comes_before_the_hub(at_home, tmp_path, monkeypatch):
    monkeypatch.setenv("SDA_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(TokenRefused, match="none"):
        SdaFileSystem(skip_instance_cache=True).ls("")


def test_where_to_ask_is_pickled_and_not_the_token(at_home):
    fs = SdaFileSystem(skip_instance_cache=True)
    assert fs.ls("")
    text = pickle.dumps(fs)
    assert b"SECRET-" not in text
    assert [entry["name"] for entry in pickle.loads(text).ls("")] == [GRANTED]


def test_over_many_renewals_no_read_fails(hub, provider, at_home, monkeypatch, tmp_path):
    """A life of seconds stands for the real one; an ended token is really refused by LS Login."""
    monkeypatch.setattr(http, "LOOK", 0.05)
    given = provider.tokens

    def short(grant):
        answer = given(grant)
        ends[answer["access_token"]] = time.monotonic() + LIFE
        renewed.set()
        return answer

    class Ending(dict):
        def get(self, token, default=None):
            return super().get(token) if time.monotonic() < ends.get(token, float("inf")) else default

    ends: dict[str, float] = {}
    renewed = threading.Event()
    monkeypatch.setattr(provider, "tokens", short)
    monkeypatch.setattr(provider, "access", Ending(provider.access))
    provider.lifetime = LIFE
    hub.browser(ADA)
    asked = provider.requests["token"]
    noise = random.Random(5)
    fs = SdaFileSystem(skip_instance_cache=True, cache_size=0, memory_size=1 << 16, block_size=1 << 16)
    reads = 0
    with fs.open(f"{GRANTED}/IMAGES/slide.tif") as file:
        deadline = time.monotonic() + 120
        while provider.requests["token"] < asked + RENEWALS:
            assert time.monotonic() < deadline, provider.requests["token"] - asked
            at = noise.randrange(len(PLAIN) - 1000)
            file.seek(at)
            assert file.read(1000) == PLAIN[at : at + 1000]
            reads += 1
            # At once after a renewal, and else a hundred times in a token's life: more would tell no more, and compute
            # for as long as tokens live.
            renewed.wait(LIFE / 100)
            renewed.clear()
    assert reads > 20
    assert len([token for token in ends if time.monotonic() > ends[token]]) >= RENEWALS - 1


def test_a_token_that_ls_login_ended_early_is_replaced_within_a_read(hub, provider, at_home):
    fs = SdaFileSystem(skip_instance_cache=True, cache_size=0, memory_size=1 << 16)
    with fs.open(f"{GRANTED}/IMAGES/slide.tif") as file:
        assert file.read(10) == PLAIN[:10]
        provider.end_tokens()
        file.seek(2_500_000)
        assert file.read(10) == PLAIN[2_500_000:2_500_010]


def test_a_hub_that_is_away_for_a_moment_is_waited_for(hub, at_home, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="failed"):
        SdaFileSystem(skip_instance_cache=True, patience=0.5).ls("")


def test_parallel_programs_spend_one_refresh_token(hub, provider, at_home, monkeypatch):
    # LS Login is asked about one person's token once in a while only, so this is somebody of its own.
    person = {**ADA, "sub": "9e" * 20 + "@lifescience-ri.eu"}
    hub.browser(person)
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", hub.environment(person)["JUPYTERHUB_API_TOKEN"])
    spent = len(provider.spent)
    provider.end_tokens()

    async def together():
        sources = [HubToken() for _ in range(8)]
        old = (await sources[0].current()) or ""
        return [old, *(await asyncio.gather(*(source.renew(old) for source in sources)))]

    old, *new = asyncio.run(together())
    assert len(set(new)) == 1
    assert old not in new
    assert len(provider.spent) == spent + 1
    assert set(new) <= tokens_of(hub, person["sub"])


# Everybody else


def refused(answer, status=403):
    assert answer.status_code == status, answer.text
    assert not any(mark in answer.text for mark in MARKS)
    return answer.json()["message"]


@pytest.mark.hub_contract
def test_a_browsers_session_gets_nothing_whatever_it_sends(hub, ada):
    browser = hub.browser(ADA)
    own = {"Referer": f"{hub.url}/hub/home", "Origin": hub.url, "Sec-Fetch-Site": "same-origin"}
    path = "/hub/api/archive/token"
    for headers in ({}, own, {"Origin": "https://evil.example.org"}):
        for form in ({}, {"data": {"_xsrf": browser.cookies.get("_xsrf") or ""}}):
            refused(browser.post(path, headers=headers, **form))


def test_a_token_in_an_address_or_another_method_gets_nothing(hub, ada):
    token = ada["JUPYTERHUB_API_TOKEN"]
    refused(hub.ask("", params={"token": token}))
    refused(hub.ask(token, "GET"), 405)
    assert hub.ask(token, "OPTIONS").status_code in (200, 204, 405)
    assert "SECRET-" not in hub.ask(token, "OPTIONS").text


def test_another_page_learns_nothing_by_a_token_of_its_own(hub, ada):
    """What a foreign page may send it may also not read."""
    answer = hub.ask(ada["JUPYTERHUB_API_TOKEN"], headers={"Origin": "https://evil.example.org"})
    assert "access-control-allow-origin" not in answer.headers


def test_another_users_server_gets_that_users_token(hub, ada):
    hub.browser(BOB)
    theirs = hub.environment(BOB)
    for body in ({}, {"json": {"user": ADA["sub"]}}, {"json": {"name": ADA["sub"], "refused": "x"}}):
        found = hub.ask(theirs["JUPYTERHUB_API_TOKEN"], **body).json()["access_token"]
        assert found in tokens_of(hub, BOB["sub"])
        assert found not in tokens_of(hub, ADA["sub"])


def test_an_administrators_notebook_gets_the_administrators_own_alone(hub, ada):
    hub.browser(ROOT_USER)
    assert hub.tester("GET", f"/users/{ROOT_USER['sub']}").json()["admin"]
    token = hub.environment(ROOT_USER)["JUPYTERHUB_API_TOKEN"]
    found = hub.ask(token, json={"user": ADA["sub"]}).json()["access_token"]
    assert found in tokens_of(hub, ROOT_USER["sub"])
    seen = hub.clients[0].get(f"/users/{ADA['sub']}", headers={"Authorization": f"token {token}"})
    assert "auth_state" not in seen.text
    assert "SECRET-" not in seen.text


def test_services_get_nothing_even_with_the_scope(hub, ada):
    for token in (hub.token, hub.cards, hub.stacks):
        refused(hub.ask(token))


@pytest.mark.hub_contract
def test_a_login_to_a_stacks_page_gets_nothing(hub, ada):
    """The page and the gateways hold tokens of such logins."""
    browser = hub.browser(ADA)
    back = "/services/cards/oauth_callback"
    asked = {"client_id": "service-cards", "response_type": "code", "redirect_uri": back, "state": "x"}
    went = browser.get("/hub/api/oauth2/authorize", params=asked, follow_redirects=False)
    assert went.status_code == 302, went.text
    code = parse_qs(urlsplit(went.headers["location"]).query)["code"][0]
    form = {"client_id": "service-cards", "client_secret": hub.cards, "grant_type": "authorization_code"}
    got = browser.post("/hub/api/oauth2/token", data={**form, "code": code, "redirect_uri": back})
    assert got.status_code == 200, got.text
    token = got.json()["access_token"]
    assert hub.clients[0].get("/user", headers={"Authorization": f"token {token}"}).status_code == 200
    refused(hub.ask(token))


@pytest.mark.hub_contract
def test_a_token_for_everything_does_not_do_and_one_for_this_alone_does(hub, ada):
    tokens = f"/users/{ADA['sub']}/tokens"
    whole = hub.tester("POST", tokens, json={}).json()["token"]
    assert "Stop and start your server" in refused(hub.ask(whole))
    narrow = hub.tester("POST", tokens, json={"scopes": [SCOPE]}).json()["token"]
    assert hub.ask(narrow).status_code == 200
    seen = hub.clients[0].get(f"/users/{ADA['sub']}/tokens", headers={"Authorization": f"token {narrow}"})
    assert seen.status_code in (403, 404), "it opens more than the archive"


def test_a_stopped_servers_token_is_worth_nothing(hub):
    hub.browser(BOB)
    token = hub.environment(BOB)["JUPYTERHUB_API_TOKEN"]
    assert hub.ask(token).status_code == 200
    assert hub.tester("DELETE", f"/users/{BOB['sub']}/server").status_code in (202, 204)
    wait_until(lambda: hub.ask(token).status_code == 403, "the token to be worth nothing")


@pytest.mark.hub_contract
def test_who_signed_out_gets_nothing_and_is_told_what_to_do(hub, at_home, ada):
    browser = hub.browser(ADA)
    browser.get("/hub/logout")
    assert "sign out of the hub and in again" in refused(hub.ask(ada["JUPYTERHUB_API_TOKEN"]), 409)
    with pytest.raises(TokenRefused, match="sign out of the hub and in again"):
        SdaFileSystem(skip_instance_cache=True).ls("")


def test_while_ls_login_is_away_a_good_token_is_given_and_an_ended_one_is_not(hub, provider, ada):
    token = ada["JUPYTERHUB_API_TOKEN"]
    provider.broken = {"token": 503, "userinfo": 503}
    assert hub.ask(token).status_code == 200
    provider.broken, provider.lifetime = {}, 0.2
    hub.browser(ADA)
    provider.broken = {"token": 503, "userinfo": 503}

    def away() -> bool:
        answer = hub.ask(token)
        if answer.status_code == 503:
            assert "does not answer" in refused(answer, 503)
            assert answer.headers["retry-after"] == "10"
        return answer.status_code == 503

    wait_until(away, "the token to end")
    provider.broken = {}
    assert hub.ask(token).status_code == 200


def test_what_is_no_digest_is_refused(hub, ada):
    for body in (b"[]", b'{"refused": 3}', b'{"refused": "%s"}' % (b"x" * 100), b"no json"):
        answer = hub.ask(ada["JUPYTERHUB_API_TOKEN"], content=body)
        assert answer.status_code == 400, body


def test_who_asks_too_often_waits_and_a_slow_archive_is_not_waited_for(provider, tmp_path):
    few = {"TEST_RATE": "3", "TEST_PATIENCE": "0.3"}
    with archive.running() as local, archivehub.running(tmp_path, provider, local, **few) as hub:
        browser = hub.browser(ADA)
        hub.archive.faults.append(archive.Fault("status", path="/datasets", times=1000, status=503))
        form = hub.form(browser)
        assert "does not answer at the moment" in form.select_one("#option-cytomine-archive").get_text()
        assert form.select("input[name=image]")
        token = hub.environment(ADA)["JUPYTERHUB_API_TOKEN"]
        answers = [hub.ask(token) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert 0 < int(answers[3].headers["retry-after"]) <= 60


# The service of stacks, which imports what was chosen


def staged(hub, token, **body):
    headers = {"Authorization": f"token {token}"} if token else {}
    return hub.clients[0].post("/archive/import-token", json=body, headers=headers)


@pytest.mark.hub_contract
def test_the_service_gets_the_token_of_who_chose_the_dataset_and_while_that_stands(hub, ada):
    person = {**ADA, "sub": "ab" * 20 + "@lifescience-ri.eu"}
    browser = hub.browser(person)
    asked = {"user": person["sub"], "server": "", "dataset": name(GRANTED)}
    message = refused(staged(hub, hub.stacks, **asked))
    assert "is not among what the owner chose" in message
    assert submit(hub, browser, name(GRANTED)).status_code == 302
    answer = staged(hub, hub.stacks, **asked)
    assert answer.status_code == 200, answer.text
    assert answer.json()["access_token"] in tokens_of(hub, person["sub"])
    assert answer.headers["cache-control"] == "no-store"
    for wrong in ({"dataset": name(OTHER)}, {"server": "other"}, {"user": ADA["sub"]}, {"user": "nobody"}):
        refused(staged(hub, hub.stacks, **{**asked, **wrong}))
    refused(staged(hub, hub.stacks, user=person["sub"]), 400)
    # Nobody else, whatever they are.
    own = hub.environment(person)["JUPYTERHUB_API_TOKEN"]
    for token in (own, hub.token, hub.cards, "x" * 32):
        refused(staged(hub, token, **asked))
    refused(browser.post("/hub/api/archive/import-token", json=asked, headers={"Origin": hub.url}))
    # The next start without it takes it back.
    path = f"/users/{person['sub']}/server"
    assert hub.tester("DELETE", path).status_code in (202, 204)
    assert hub.tester("POST", path, json={"cytomine": {"datasets": []}}).status_code == 201
    refused(staged(hub, hub.stacks, **asked))


def still(hub, token, **body):
    headers = {"Authorization": f"token {token}"} if token else {}
    return hub.clients[0].post("/archive/granted", json=body, headers=headers)


@pytest.mark.hub_contract
def test_the_service_is_told_what_is_granted_still_and_nobody_else_is(hub):
    person = {**ADA, "sub": "a1" * 20 + "@lifescience-ri.eu"}
    browser = hub.browser(person)
    asked = {"user": person["sub"], "datasets": [name(GRANTED), name(OTHER)]}
    answer = still(hub, hub.stacks, **asked)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"granted": [name(GRANTED)], "trouble": ""}
    assert not [token for token in tokens_of(hub, person["sub"]) if token in answer.text]
    # At once: what the form learnt a moment ago does not count.
    hub.grant(OTHER)
    assert still(hub, hub.stacks, **asked).json()["granted"] == [name(OTHER)]
    hub.grant("aa-Dataset-elsewhere")
    assert still(hub, hub.stacks, **asked).json()["granted"] == []
    own = hub.environment(person)["JUPYTERHUB_API_TOKEN"]
    for token in (own, hub.token, hub.cards, "x" * 32):
        refused(still(hub, token, **asked))
    refused(browser.post("/hub/api/archive/granted", json=asked, headers={"Origin": hub.url}))
    for wrong in ({"user": person["sub"]}, {"datasets": []}, {"user": 1, "datasets": []}):
        refused(still(hub, hub.stacks, **wrong), 400)


def test_what_cannot_be_known_is_not_taken_for_a_grant_that_ended(hub, provider):
    person = {**ADA, "sub": "a2" * 20 + "@lifescience-ri.eu"}
    hub.browser(person)
    asked = {"user": person["sub"], "datasets": [name(GRANTED)]}

    def trouble(**other):
        answer = still(hub, hub.stacks, **{**asked, **other})
        assert answer.status_code == 200, answer.text
        assert answer.json()["granted"] is None
        return answer.json()["trouble"]

    assert "does not know the owner" in trouble(user="nobody")
    hub.archive.faults.append(archive.Fault("status", path="/datasets", times=1000, status=418))
    assert "does not answer at the moment" in trouble()
    hub.archive.faults.clear()
    # The archive lists nothing, and says nothing of why: LS Login does not tell it the visas, or still tells this one.
    hub.provider.claims = {}
    assert "LS Login told nothing of the owner's visas" in trouble()
    someone = archive.Someone(person["sub"])
    strange = hub.local.issuer.visa(someone, GRANTED, key=hub.local.issuer.other_key)
    hub.provider.claims = {"ga4gh_passport_v1": [strange]}
    assert f"does not list {GRANTED}, though a visa of the owner names it" in trouble()
    hub.grant(GRANTED)
    provider.broken["userinfo"] = 503
    assert "does not answer at the moment" in trouble()
    provider.broken.clear()
    assert still(hub, hub.stacks, **asked).json()["granted"] == [name(GRANTED)]
    # Who is not signed in is not asked for.
    assert hub.browser(person).get("/hub/logout").status_code == 200
    assert "who has to sign in to the hub anew" in trouble()


# The options form


def boxes(form):
    return [field["value"] for field in form.select("#option-cytomine-archive input[type=checkbox]")]


def name(dataset):
    return f"sda://{quote(dataset, safe='')}"


def test_the_form_offers_what_the_visas_grant_beside_the_administrators(hub):
    hub.grant(GRANTED, OTHER, "aa-Dataset-not-in-the-archive")
    form = hub.form(hub.browser({**ADA, "sub": "f0" * 20 + "@lifescience-ri.eu"}))
    assert boxes(form) == [name(GRANTED), name(OTHER)]
    assert OTHER in form.select_one("#option-cytomine-archive").get_text()
    assert form.select_one("#option-cytomine-datasets input")["value"] == "mock"
    assert len({field["id"] for field in form.select("[id^=option-cytomine-datasets-]")}) >= 3


@pytest.mark.parametrize("kind", ["none", "expired", "untrusted", "conditional", "forged"])
def test_visas_that_do_not_count_offer_nothing_and_it_is_said(hub, kind):
    someone = archive.Someone(ADA["sub"])
    issuer = hub.local.issuer
    wrong = {
        "none": [],
        "expired": [issuer.visa(someone, GRANTED, exp=int(time.time()) - 60)],
        "untrusted": [issuer.visa(someone, GRANTED, key=issuer.other_key, headers={"jku": issuer.other_jku})],
        "conditional": [issuer.visa(someone, GRANTED, conditions=[[{"type": "x"}]])],
        "forged": [issuer.visa(someone, GRANTED, key=issuer.other_key)],
    }
    hub.provider.claims = {"ga4gh_passport_v1": wrong[kind]}
    form = hub.form(hub.browser({**ADA, "sub": f"{kind[0]}1" * 20 + "@lifescience-ri.eu"}))
    assert boxes(form) == []
    assert (
        "grant you no dataset of the archive"
        in form.select_one("#option-cytomine-archive [role=status]").text
    )


@pytest.mark.parametrize("status", [401, 418])
def test_an_archive_in_trouble_leaves_the_form_as_it_is_and_is_named(hub, status):
    browser = hub.browser({**ADA, "sub": "d0" * 20 + "@lifescience-ri.eu"})
    hub.archive.faults.append(archive.Fault("status", path="/datasets", times=1000, status=status))
    form = hub.form(browser)
    assert boxes(form) == []
    assert "does not answer at the moment" in form.select_one("#option-cytomine-archive [role=status]").text
    assert form.select_one("#option-cytomine-datasets input")["value"] == "mock"
    assert form.select("input[name=image], input[name=size]")


@pytest.mark.hub_contract
def test_a_dataset_that_is_not_granted_is_a_400_that_names_the_field(hub):
    person = {**ADA, "sub": "e0" * 20 + "@lifescience-ri.eu"}
    browser = hub.browser(person)
    path = f"/users/{person['sub']}/server"
    for wrong in (name(OTHER), "sda://", "sda://nothing", name(GRANTED) + "/IMAGES"):
        answer = hub.tester("POST", path, json={"cytomine": {"datasets": [wrong]}})
        assert answer.status_code == 400, wrong
        assert "'cytomine.datasets'" in answer.json()["message"]
        assert "your visas do not grant it" in answer.json()["message"]
    sent = submit(hub, browser, name(OTHER))
    assert sent.status_code == 400
    assert "do not grant it" in sent.text
    assert boxes(hub.form(browser)) == [name(GRANTED)]


def submit(hub, browser, *datasets):
    """Send the form with a stack and some datasets ticked."""
    form = hub.form(browser).select_one("#spawn_form")
    fields = form.select("input[checked], input[type=hidden]")
    data = {field["name"]: field["value"] for field in fields if "value" in field.attrs}
    chosen = {"cytomine": "stack", "cytomine_datasets": ["", *datasets]}
    return browser.post(form["action"], data={**data, **chosen}, follow_redirects=False)


def test_ticked_datasets_are_kept_and_those_lost_are_told_of_at_the_next_start(hub):
    person = {**ADA, "sub": "c0" * 20 + "@lifescience-ri.eu"}
    hub.grant(GRANTED, OTHER)
    browser = hub.browser(person)
    sent = submit(hub, browser, name(GRANTED), name(OTHER))
    assert sent.status_code == 302, sent.text
    path = f"/users/{person['sub']}"

    def chosen():
        model = hub.tester("GET", path, params={"include_stopped_servers": "1"}).json()
        return model["servers"][""]["user_options"]["cytomine"]["datasets"]

    assert chosen() == [name(GRANTED), name(OTHER)]
    # While the archive says nothing, what was chosen stays chosen; another's name is no more than a name.
    hub.archive.faults.append(archive.Fault("status", path="/datasets", times=1000, status=418))
    assert hub.tester("DELETE", f"{path}/server").status_code in (202, 204)
    assert hub.tester("POST", f"{path}/server").status_code == 201
    assert chosen() == [name(GRANTED), name(OTHER)]
    assert hub.tester("DELETE", f"{path}/server").status_code in (202, 204)
    foreign = {"cytomine": {"datasets": ["sda://never-chosen"]}}
    assert hub.tester("POST", f"{path}/server", json=foreign).status_code == 400
    # And what is granted no more is left out.
    hub.archive.faults.clear()
    hub.grant(GRANTED)
    assert hub.tester("POST", f"{path}/server").status_code == 201
    assert chosen() == [name(GRANTED)]
    assert json.dumps(OTHER)[1:-1].rpartition("/")[2] in hub.log
