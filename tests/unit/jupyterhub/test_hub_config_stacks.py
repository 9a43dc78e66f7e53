"""What the hub's configuration makes of the chart's values for Cytomine stacks."""

from __future__ import annotations

import pytest
from jupyterhub.scopes import scope_definitions

from cytomine_spawner.stack.rights import ADMIN_SCOPE
from cytomine_spawner.stack.rights import MANAGE_SCOPE as MANAGE
from tests.support.chart import BASE, merged, render
from tests.unit.jupyterhub.test_hub_config import KEYS, VALUES, deployment, of_chart  # noqa: F401 - a fixture

ON = {
    "ingress": {"enabled": True, "host": "hub.example.org"},
    "stacks": {
        "enabled": True,
        "url": "https://{stack}.stacks.example.org",
        "groups": ["users"],
        "wait": True,
        "waitTimeout": 77,
        "datasets": [{"name": "colon", "title": "Colon biopsies"}],
        "datasetVolume": {"persistentVolumeClaim": {"claimName": "datasets", "readOnly": True}},
    },
}
ACCESS = "access:services!service=cytomine"


def config(deployment, **more):  # noqa: F811
    return deployment.put(**of_chart(render(merged(BASE, ON, more)))).load()


def test_the_form_offers_what_the_service_runs(deployment):  # noqa: F811
    made = config(deployment)
    assert made.StackSettings.namespace == "cytomine-users"
    assert made.StackSettings.stack_url == ON["stacks"]["url"]
    assert made.StackSettings.datasets == ON["stacks"]["datasets"]
    assert "StacksApp" not in made
    spawner = made.CytomineSpawner
    assert (spawner.cytomine_enabled, spawner.cytomine_groups) == (True, ["users"])
    assert (spawner.cytomine_wait, spawner.cytomine_wait_timeout) == (True, 77)
    assert (
        made.Spawner.environment["CYTOMINE_SERVICE_URL"]
        == "http://hub-stacks.cytomine.svc:8000/services/cytomine"
    )
    page = "https://cytomine--service.hub.example.org/services/cytomine"
    assert made.Spawner.environment["CYTOMINE_SERVICE_PAGE"] == page
    assert spawner.cytomine_page_url == page
    # Where it was when all was on one host.
    moved = {"/services/cytomine/": "https://cytomine--service.hub.example.org"}
    assert made.GuardedHub.moved_paths == moved


def test_the_service_is_let_in_with_its_own_token_and_its_users_with_it(deployment):  # noqa: F811
    made = config(deployment)
    (service,) = [s for s in made.JupyterHub.services if s["name"] == "cytomine"]
    assert service["url"] == "http://hub-stacks:8000"
    assert service["api_token"] == "d4" * 32
    assert service["oauth_no_confirm"] is True
    roles = {role["name"]: role for role in made.JupyterHub.load_roles}
    assert roles["user"]["scopes"] == ["self", ACCESS, MANAGE]
    assert ACCESS in made.Spawner.server_token_scopes
    scopes = roles["cytomine"]["scopes"]
    assert set(scopes) <= set(scope_definitions)
    changing = [s for s in scopes if not s.startswith(("read:", "list:"))]
    assert changing == ["users:activity"], "the service tells of activity and changes nothing else"


def test_an_administrators_own_role_for_users_is_kept(deployment):  # noqa: F811
    made = config(deployment, hub={"loadRoles": {"user": {"scopes": ["self", "list:groups"]}}})
    (role,) = [r for r in made.JupyterHub.load_roles if r["name"] == "user"]
    assert role["scopes"] == ["self", "list:groups", ACCESS, MANAGE]


def test_a_browser_may_manage_and_a_notebook_may_not(deployment):  # noqa: F811
    made = config(deployment)
    (service,) = [s for s in made.JupyterHub.services if s["name"] == "cytomine"]
    # No scope of the hub itself but the one that opens a page: a login to the service is worth nothing elsewhere.
    assert service["oauth_client_allowed_scopes"] == [MANAGE, ADMIN_SCOPE, "admin-ui"]
    assert not {MANAGE, ADMIN_SCOPE, "admin-ui"} & set(made.Spawner.server_token_scopes)
    assert set(made.JupyterHub.custom_scopes) == {MANAGE, ADMIN_SCOPE}
    roles = {role["name"]: role["scopes"] for role in made.JupyterHub.load_roles}
    assert ADMIN_SCOPE not in roles["user"], "not every user manages all stacks"


@pytest.mark.parametrize("text", [None, "[]", "{"])
def test_settings_that_are_missing_or_wrong_are_one_sentence(deployment, text):  # noqa: F811
    values = merged(VALUES, {"stacks": {"enabled": True, "url": "http://hub-stacks:8000"}})
    stacks = {} if text is None else {"settings.json": text}
    deployment.put(values, {**KEYS, "service-token-cytomine": "e5" * 32}, stacks=stacks)
    assert "settings.json" in deployment.refused()
