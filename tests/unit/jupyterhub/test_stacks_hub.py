"""The stack service as a service of a real JupyterHub: login, scopes, administrators, logout."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

import httpx
import pytest
from bs4 import BeautifulSoup

from cytomine_spawner.access import hubapi
from tests.support.hub import free_port, process, rest
from tests.support.stacks import PREFIX, Service, a_stack, serving, xsrf

CONFIG = """
import os
from jupyterhub.proxy import Proxy


class NoProxy(Proxy):
    should_start = False

    async def add_route(self, routespec, target, data): pass
    async def delete_route(self, routespec): pass
    async def get_all_routes(self): return {}


c = get_config()
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.spawner_class = "simple"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
# Servers are known to the hub, and can be shared, though none of them starts.
c.Spawner.cmd = ["false"]
c.Spawner.http_timeout = 1
c.Spawner.consecutive_failure_limit = 0
c.Authenticator.admin_users = {"root"}
c.JupyterHub.hub_bind_url = c.JupyterHub.bind_url = os.environ["TEST_HUB"]
c.JupyterHub.custom_scopes = {
    "custom:cytomine-stacks:manage": {"description": "One's own stacks"},
    "custom:cytomine-stacks:admin": {"description": "All stacks", "subscopes": ["custom:cytomine-stacks:manage"]},
}
service = os.environ["TEST_SERVICE"]
c.JupyterHub.services = [
    {
        "name": "cytomine",
        "url": service,
        "api_token": os.environ["TEST_TOKEN"],
        "oauth_redirect_uri": service + "/services/cytomine/oauth_callback",
        "oauth_no_confirm": True,
        "oauth_client_allowed_scopes": [
            "custom:cytomine-stacks:manage", "custom:cytomine-stacks:admin", "admin-ui",
        ],
    },
    {"name": "tests", "api_token": os.environ["TEST_ADMIN"]},
    {"name": "ada", "api_token": os.environ["TEST_MONITOR"]},
]
c.JupyterHub.load_roles = [
    {"name": "user", "scopes": ["self", "access:services!service=cytomine", "custom:cytomine-stacks:manage"]},
    {
        "name": "tests",
        "scopes": ["admin:users", "admin:groups", "tokens", "servers", "shares", "list:users"],
        "services": ["tests"],
    },
    # What the service needs to know people: see the class Hub of its members.
    {
        "name": "stacks",
        "scopes": [
            "read:users:name", "read:users:groups", "read:groups:name", "read:shares",
            "read:users:shares", "users:activity",
        ],
        "services": ["cytomine"],
    },
    {"name": "monitor", "scopes": ["access:services!service=cytomine"], "services": ["ada"]},
]
"""


@dataclass
class Hub:
    url: str
    api: httpx.Client
    monitor: str

    def token(self, user: str, *scopes: str) -> str:
        """A token of a user's own, as from the hub's token page."""
        assert self.api.post(f"/users/{user}").status_code in (201, 409)
        body = {"scopes": list(scopes)} if scopes else {}
        answer = self.api.post(f"/users/{user}/tokens", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Service]]:
    folder = tmp_path_factory.mktemp("hub")
    hub_url, port = f"http://127.0.0.1:{free_port()}", free_port()
    admin, monitor, token = (secrets.token_hex(16) for _ in range(3))
    env = {
        **os.environ,
        "TEST_HUB": hub_url,
        "TEST_SERVICE": f"http://127.0.0.1:{port}",
        "TEST_TOKEN": token,
        "TEST_ADMIN": admin,
        "TEST_MONITOR": monitor,
    }
    with (
        rest(hub_url, admin) as api,
        process(folder, CONFIG, hub_url, env),
        serving(port, api_url=f"{hub_url}/hub/api", api_token=token, hub_host=hub_url) as service,
    ):
        service.put(a_stack("ada"), a_stack("bob"))
        yield Hub(hub_url, api, monitor), service


def log_in(both: tuple[Hub, Service], name: str) -> tuple[httpx.Client, httpx.Response]:
    """Open the page, log in where the hub asks for it, and come back."""
    client = both[1].client()
    page = client.get(PREFIX)
    assert page.url.path == "/hub/login", page.url
    form = BeautifulSoup(page.text, "html.parser").select_one("form[action*=login]")
    assert form is not None
    data = {str(i["name"]): str(i.get("value", "")) for i in form.select("input[type=hidden]")}
    action = page.url.join(str(form["action"]))
    return client, client.post(str(action), data={**data, "username": name, "password": "x"})


def shown(page: httpx.Response) -> set[str]:
    assert page.status_code == 200, page.text
    assert page.url.path == PREFIX
    return {str(card["data-stack"]) for card in BeautifulSoup(page.text, "html.parser").select("article")}


def test_one_login_at_the_hub_opens_the_page_with_ones_own_stacks(both: tuple[Hub, Service]) -> None:
    client, page = log_in(both, "ada")
    assert shown(page) == {"cm-ada"}
    answer = client.post(f"{PREFIX}stacks/cm-ada/hibernate", data={"_xsrf": xsrf(page)})
    assert answer.status_code == 200, answer.text
    assert both[1].store.view.get("cm-ada").spec.desired_state == "Hibernated"
    assert client.post(f"{PREFIX}stacks/cm-ada/resume").status_code == 403


def test_the_pages_script_follows_with_its_token_and_not_without(both: tuple[Hub, Service]) -> None:
    client, page = log_in(both, "ada")
    fetch = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
    assert client.get(f"{PREFIX}updates", headers=fetch).status_code == 401
    with client.stream("GET", f"{PREFIX}updates", headers={**fetch, "X-XSRFToken": xsrf(page)}) as stream:
        assert stream.status_code == 200
        assert next(stream.iter_lines()) == "event: view"


def test_the_hubs_administrators_see_all(both: tuple[Hub, Service]) -> None:
    _, page = log_in(both, "root")
    assert shown(page) == {"cm-ada", "cm-bob"}


@pytest.mark.hub_contract
def test_an_administrator_administers_with_tokens_that_are_meant_for_it_and_with_no_other(
    both: tuple[Hub, Service],
) -> None:
    hub, service = both

    def names(*scopes: str, user: str = "root") -> set[str]:
        head = {"Authorization": f"token {hub.token(user, *scopes)}"}
        answer = service.client().get(f"{PREFIX}api/stacks", headers=head)
        assert answer.status_code == 200, answer.text
        return {stack["name"] for stack in answer.json()["stacks"]}

    access, manage = "access:services!service=cytomine", "custom:cytomine-stacks:manage"
    everything = {"cm-ada", "cm-bob"}
    # As in a notebook, where the hub still tells that its user is an administrator.
    assert names(access) == names(access, manage) == set()
    assert names(access, "admin-ui") == everything
    assert names() == everything, "a token with all that its user may"
    assert hub.api.get("/users/root").json()["admin"] is True
    refused = hub.api.post("/users/ada/tokens", json={"scopes": [access, "admin-ui"]})
    assert refused.status_code == 400, "nobody else gets such a token"
    assert names(access, user="ada") == {"cm-ada"}


@pytest.mark.hub_contract
def test_a_token_without_the_scope_to_manage_sees_and_does_no_more(both: tuple[Hub, Service]) -> None:
    hub, service = both
    stack = f"{PREFIX}api/stacks/cm-ada"

    def ask(*scopes: str) -> int:
        head = {"Authorization": f"token {hub.token('ada', *scopes)}"}
        return service.client().patch(stack, headers=head, json={"displayName": "Lung"}).status_code

    access = "access:services!service=cytomine"
    assert ask(access) == 403
    assert ask(access, "custom:cytomine-stacks:manage") == 200
    assert ask() == 200


def test_logging_out_at_the_hub_logs_out_here(both: tuple[Hub, Service]) -> None:
    client, page = log_in(both, "ada")
    assert shown(page) == {"cm-ada"}
    client.get(f"{both[0].url}/hub/logout")
    deadline = time.monotonic() + 20
    # The hub's word is believed for a second here.
    while client.get(PREFIX).url.path != "/hub/login":
        assert time.monotonic() < deadline, "the page still opens"
        time.sleep(0.2)


def test_tokens_of_the_hub_open_the_api_as_far_as_their_scopes_reach(both: tuple[Hub, Service]) -> None:
    hub, service = both

    def ask(token: str) -> httpx.Response:
        return service.client().get(f"{PREFIX}api/stacks", headers={"Authorization": f"token {token}"})

    def names(token: str) -> set[str]:
        answer = ask(token)
        assert answer.status_code == 200, answer.text
        return {stack["name"] for stack in answer.json()["stacks"]}

    access = "access:services!service=cytomine"
    assert names(hub.token("ada")) == {"cm-ada"}
    assert names(hub.token("ada", access)) == {"cm-ada"}
    assert ask(hub.token("ada", "read:users!user")).status_code == 403
    assert ask("nobody-has-this").status_code == 401
    # A service of the hub that is called like a user.
    assert names(hub.monitor) == set()


def test_a_callback_with_a_foreign_state_logs_nobody_in(both: tuple[Hub, Service]) -> None:
    client = both[1].client()
    answer = client.get(f"{PREFIX}oauth_callback?code=stolen&state=foreign")
    assert answer.status_code == 403
    assert "Try logging in again" in answer.text
    assert not [name for name in client.cookies if name == "service-cytomine"]


def test_users_groups_and_shares_of_a_real_hub_make_members(both: tuple[Hub, Service]) -> None:
    hub, service = both
    api = hub.api
    tokens = {name: hub.token(name) for name in ("ada", "dora", "gil", "sam@lifescience-ri.eu", "stan")}
    for group, user in (("lab", "gil"), ("partners", "stan")):
        assert api.post(f"/groups/{group}").status_code == 201
        assert api.post(f"/groups/{group}/users", json={"users": [user]}).status_code == 200
    api.post("/users/ada/server")
    for share in ({"user": "sam@lifescience-ri.eu"}, {"group": "partners"}):
        answer = api.post("/shares/ada/", json=share)
        assert answer.status_code == 200, answer.text

    def ask(who: str, method: str = "GET", path: str = "") -> httpx.Response:
        headers = {"Authorization": f"token {tokens[who]}"}
        return service.client().request(method, f"{PREFIX}api/stacks/cm-ada{path}", headers=headers)

    assert ask("ada", "PUT", "/members/users/dora").status_code == 200
    assert ask("ada", "PUT", "/members/groups/lab").json()["groups"] == ["lab"]
    assert ask("ada", "PUT", "/members/users/nobody").status_code == 400
    shown = ask("ada", "GET", "/members").json()
    assert shown["message"] == ""
    assert {(s["kind"], s["name"]) for s in shown["shares"]} == {
        ("user", "sam@lifescience-ri.eu"),
        ("group", "partners"),
    }
    roles = {who: ask(who).json().get("role") for who in tokens}
    assert roles == {
        "ada": "owner",
        "dora": "user",
        "gil": "group",
        "sam@lifescience-ri.eu": "share",
        "stan": "share",
    }
    stack = service.store.view.get("cm-ada")
    assert stack

    now = datetime.now(timezone.utc)

    async def outside() -> list[object]:
        known = hubapi.Hub(service.site_hub._url, service.site_hub._token)
        found = [await known.role(stack, who) for who in (*tokens, "nobody")]
        return [*found, await known.active(stack, now), await known.active(a_stack("nobody"), now)]

    *found, active, strange = asyncio.run(outside())
    assert [role and role.value for role in found] == [*roles.values(), None]
    assert (active, strange) == (True, False)
    told = api.get("/users/ada?include_stopped_servers").json()
    assert told["servers"][""]["last_activity"].startswith(now.strftime("%Y-%m-%dT%H:%M:%S"))
