"""The stacks' login as part of a service of a real JupyterHub: login, groups, shares, logout."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from bs4 import BeautifulSoup

from tests.support.adapter import Pkce, answer
from tests.support.hub import free_port, process, rest
from tests.support.identity import GATEWAY_SECRET, World, unverified, world
from tests.support.stacks import PREFIX, a_stack

ADA = "cm-ada"
CONFIG = """
import os
from jupyterhub.proxy import Proxy
from jupyterhub.spawner import SimpleLocalProcessSpawner


class NoProxy(Proxy):
    should_start = False

    async def add_route(self, routespec, target, data): pass
    async def delete_route(self, routespec): pass
    async def get_all_routes(self): return {}


class NoServer(SimpleLocalProcessSpawner):
    async def start(self): raise RuntimeError("no servers here")


c = get_config()
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.spawner_class = NoServer
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
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
]
c.JupyterHub.load_groups = {"lab": {"users": ["dora"]}}
c.JupyterHub.load_roles = [
    {"name": "user", "scopes": ["self", "access:services!service=cytomine", "custom:cytomine-stacks:manage"]},
    {"name": "tests", "scopes": ["admin:users", "admin:servers", "groups", "shares", "read:users:name"], "services": ["tests"]},
    {
        "name": "stacks",
        "scopes": ["read:users:name", "read:users:groups", "read:groups:name", "read:shares", "read:users:shares", "read:groups:shares"],
        "services": ["cytomine"],
    },
]
"""


@dataclass
class Hub:
    """A real hub and the service at it."""

    url: str
    admin: httpx.Client
    w: World

    def api(self, method: str, path: str, **body: object) -> httpx.Response:
        answer = self.admin.request(method, path, json=body or None)
        assert answer.status_code < 300, answer.text
        return answer

    def log_in(self, name: str) -> tuple[httpx.Client, Pkce, httpx.Response]:
        """Open a stack in a clean browser and fill in the hub's form, the only one there is."""
        browser, pkce = self.w.service.client(), Pkce()
        page = self.open(browser, pkce)
        assert page.url.path == "/hub/login", page.url
        form = BeautifulSoup(page.text, "html.parser").select_one("form[action*=login]")
        assert form is not None
        data = {str(i["name"]): str(i.get("value", "")) for i in form.select("input[type=hidden]")}
        page = browser.post(
            str(page.url.join(str(form["action"]))),
            data={**data, "username": name, "password": "x"},
            follow_redirects=False,
        )
        return browser, pkce, self.follow(browser, page)

    def open(self, browser: httpx.Client, pkce: Pkce, client: str = "core") -> httpx.Response:
        query = self.w.query(ADA, client, code_challenge=pkce.challenge)
        page = browser.get(self.w.oidc(ADA, "auth"), params=query, follow_redirects=False)
        return self.follow(browser, page)

    def follow(self, browser: httpx.Client, page: httpx.Response) -> httpx.Response:
        """Follow the redirects as far as the stack, which is not there."""
        while page.is_redirect and not page.headers["Location"].startswith(self.w.origin(ADA)):
            page = browser.get(page.url.join(page.headers["Location"]), follow_redirects=False)
        return page

    def believe_nothing(self) -> None:
        """Let the hub be asked at once, not in some seconds."""
        logins = self.w.identity.provider.logins
        self.w.service.do(lambda: (logins._known.clear(), self.w.service.site_hub.forget()))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    url, port, token, admin = (
        f"http://127.0.0.1:{free_port()}",
        free_port(),
        secrets.token_hex(16),
        secrets.token_hex(16),
    )
    env = {
        **os.environ,
        "TEST_HUB": url,
        "TEST_SERVICE": f"http://127.0.0.1:{port}",
        "TEST_TOKEN": token,
        "TEST_ADMIN": admin,
    }
    with (
        rest(url, admin) as api,
        process(folder, CONFIG, url, env),
        world(port=port, api_url=f"{url}/hub/api", api_token=token, hub_host=url, cache_max_age=60) as made,
    ):
        made.vault.put("cm-ada-secrets", oidc_client_secret=GATEWAY_SECRET)
        yield Hub(url, api, made)


@pytest.fixture(autouse=True)
def _ada(hub: Hub) -> None:
    hub.w.service.put(
        a_stack("ada", members={"users": ("cleo",), "groups": ("lab",)}, uid=secrets.token_hex(4))
    )
    hub.believe_nothing()


def test_one_form_at_the_hub_opens_the_stack_for_all_clients(hub: Hub) -> None:
    browser, pkce, page = hub.log_in("ada")
    tokens = hub.w.exchange(ADA, answer(page)["code"], pkce).json()
    assert unverified(tokens["access_token"])["resource_access"]["core"]["roles"] == ["ADMIN"]
    other = Pkce()
    code = answer(hub.open(browser, other, "gateway"))["code"]
    assert hub.w.exchange(ADA, code, other, "gateway").status_code == 200
    assert hub.w.refresh(ADA, tokens["refresh_token"]).status_code == 200


@pytest.mark.parametrize("member", ["cleo", "dora"])
def test_members_by_name_and_by_the_hubs_group_come_in(hub: Hub, member: str) -> None:
    _, pkce, page = hub.log_in(member)
    tokens = hub.w.exchange(ADA, answer(page)["code"], pkce).json()
    assert unverified(tokens["access_token"])["resource_access"]["core"]["roles"] == ["USER"]


def test_leaving_the_hubs_group_ends_the_session(hub: Hub) -> None:
    _, pkce, page = hub.log_in("dora")
    tokens = hub.w.exchange(ADA, answer(page)["code"], pkce).json()
    hub.api("DELETE", "/groups/lab/users", users=["dora"])
    hub.believe_nothing()
    assert hub.w.refresh(ADA, tokens["refresh_token"]).json()["error"] == "invalid_grant"
    hub.api("POST", "/groups/lab/users", users=["dora"])


def test_a_share_of_the_owners_server_lets_in_as_long_as_it_lasts(hub: Hub) -> None:
    _, _, page = hub.log_in("eve")
    assert page.status_code == 403
    hub.log_in("ada")
    # It does not start here, but the hub knows of it from now on.
    assert hub.admin.post("/users/ada/server").status_code == 500
    hub.api("POST", "/shares/ada/", user="eve")
    hub.believe_nothing()
    _, pkce, page = hub.log_in("eve")
    tokens = hub.w.exchange(ADA, answer(page)["code"], pkce).json()
    assert unverified(tokens["access_token"])["resource_access"]["core"]["roles"] == ["USER"]
    hub.api("PATCH", "/shares/ada/", user="eve")
    hub.believe_nothing()
    assert hub.w.refresh(ADA, tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_logging_out_of_the_hub_ends_the_sessions_of_that_browser_only(hub: Hub) -> None:
    browser, pkce, page = hub.log_in("ada")
    tokens = hub.w.exchange(ADA, answer(page)["code"], pkce).json()
    _, other_pkce, other_page = hub.log_in("ada")
    elsewhere = hub.w.exchange(ADA, answer(other_page)["code"], other_pkce).json()
    browser.get(f"{hub.url}/hub/logout")
    hub.believe_nothing()
    assert hub.w.refresh(ADA, tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert hub.w.refresh(ADA, elsewhere["refresh_token"]).status_code == 200
    # The service's own cookie is still there, and HubOAuth still believes in it: no code comes of that.
    assert PREFIX in {cookie.path for cookie in browser.cookies.jar}
    assert hub.open(browser, Pkce()).url.path == "/hub/login"


def test_a_user_that_is_deleted_at_the_hub_is_out(hub: Hub) -> None:
    _, pkce, page = hub.log_in("cleo")
    tokens = hub.w.exchange(ADA, answer(page)["code"], pkce).json()
    hub.api("DELETE", "/users/cleo")
    hub.believe_nothing()
    assert hub.w.refresh(ADA, tokens["refresh_token"]).json()["error"] == "invalid_grant"
