"""What the chart's values for the archive make of the hub, the stacks' service and the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from cytomine_spawner.lslogin.token import IMPORT_SCOPE, SCOPE
from cytomine_spawner.stack.rights import MANAGE_SCOPE
from dev.demo import archive
from tests.support.chart import BASE, Network, merged, render
from tests.unit.jupyterhub.test_hub_config import KEYS, VALUES, deployment, of_chart  # noqa: F401 - a fixture
from tests.unit.jupyterhub.test_hub_config_stacks import ACCESS, ON

ARCHIVE = {"archive": {"enabled": True}}
INSIDE = {"archive": archive.values("cytomine")}


def config(deployment, *parts):  # noqa: F811
    return deployment.put(**of_chart(render(merged(BASE, *parts)))).load()


def scopes(made, role):
    found = [one["scopes"] for one in made.JupyterHub.load_roles if one["name"] == role]
    return found[0] if found else []


def test_without_it_nothing_of_it_is_there(deployment):  # noqa: F811
    made = config(deployment, ON)
    assert "archive_tokens" not in made.LSLoginAuthenticator
    assert "archive_url" not in made.CytomineSpawner
    assert "archive_url" not in made.StackSettings
    assert not {SCOPE, IMPORT_SCOPE} & set(made.JupyterHub.custom_scopes)
    assert SCOPE not in made.Spawner.server_token_scopes


def test_servers_may_ask_for_their_users_token_and_the_service_for_what_was_chosen(deployment):  # noqa: F811
    made = config(deployment, ON, ARCHIVE)
    assert made.LSLoginAuthenticator.archive_tokens is True
    assert made.CytomineSpawner.archive_url == "https://download.bp.nbis.se"
    assert made.StackSettings.archive_url == "https://download.bp.nbis.se"
    assert made.StackSettings.archive_revoked == "hide"
    assert made.Spawner.server_token_scopes == [
        "users:activity!user",
        "access:servers!server",
        ACCESS,
        SCOPE,
    ]
    assert scopes(made, "user") == ["self", ACCESS, MANAGE_SCOPE, SCOPE]
    assert IMPORT_SCOPE in scopes(made, "cytomine")
    assert IMPORT_SCOPE not in scopes(made, "user")
    assert SCOPE not in scopes(made, "cytomine"), "it is a service, and has no token of its own"
    assert {SCOPE, IMPORT_SCOPE, MANAGE_SCOPE} <= set(made.JupyterHub.custom_scopes)
    (service,) = [one for one in made.JupyterHub.services if one["name"] == "cytomine"]
    assert not {SCOPE, IMPORT_SCOPE} & set(service["oauth_client_allowed_scopes"])


def test_a_hub_without_stacks_has_it_as_well(deployment):  # noqa: F811
    made = config(deployment, ARCHIVE)
    assert made.Spawner.server_token_scopes == ["users:activity!user", "access:servers!server", SCOPE]
    assert scopes(made, "user") == ["self", SCOPE]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"archive": {"enabled": True, "url": ""}}, "archive.url is not set"),
        ({"archive": {"enabled": True, "url": "http://archive.example.org"}}, "travel unencrypted"),
        ({**ARCHIVE, "authentication": {"type": "custom"}}, "tokens of LS Login"),
    ],
)
def test_what_cannot_work_is_said_at_the_start(deployment, values, words):  # noqa: F811
    with pytest.raises(SystemExit, match=words):
        config(deployment, values)


def test_the_demos_archive_is_reached_by_notebooks_and_by_nobody_else_without_need(deployment):  # noqa: F811
    made = config(deployment, ON, INSIDE)
    assert made.CytomineSpawner.archive_allow_http is True
    assert made.StackSettings.archive_ports == [archive.PORT]
    assert made.StackSettings.archive_peers == INSIDE["archive"]["networkPolicy"]["peers"]
    made_of = ("cytomine", "cytomine-users", "x:1", "http://login.localhost:8000/oidc/", Path("/data"))
    (pod,) = [o for o in archive.objects(*made_of) if o["kind"] == "Deployment"]
    labels = pod["spec"]["template"]["metadata"]["labels"]
    (peer,) = made.StackSettings.archive_peers
    assert peer["podSelector"]["matchLabels"].items() <= labels.items()
    policies = [o for o in render(merged(BASE, ON, INSIDE)) if o["kind"] == "NetworkPolicy"]
    opened = [
        o["metadata"]["name"]
        for o in policies
        for rule in o["spec"].get("egress") or []
        if peer in (rule.get("to") or [])
    ]
    assert opened == ["hub-singleuser"]
    assert Network(render(merged(BASE, ON, INSIDE))).allows("notebook", "hub", 8081)
