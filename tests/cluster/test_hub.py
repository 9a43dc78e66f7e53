"""The installed chart on real pods: start, restart, upgrade, refusal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dev.console import Console
from dev.demo import install
from tests.support.person import Person, wait


@pytest.fixture(scope="module")
def petra(hub: install.Installed) -> Iterator[Person]:
    """A user in the allowed group, without a server."""
    person = Person(hub, "petra")
    if person.server():
        person.stop()
    yield person
    if person.server():
        person.stop()


def hub_pod(hub: install.Installed) -> dict[str, Any]:
    found = hub.target.kube.get("-n", hub.place.namespace, "pods", "-l", "app.kubernetes.io/component=hub")
    assert found
    live = [p for p in found["items"] if "deletionTimestamp" not in p["metadata"]]
    assert len(live) == 1, [p["metadata"]["name"] for p in live]
    return live[0]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": "enormous"}, "size"),
        ({"image": "no-such-image"}, "image"),
        ({"colour": "blue"}, "colour"),
        ({"size": 7}, "size"),
    ],
)
def test_wrong_options_by_rest_are_a_400_that_names_the_field(
    petra: Person, options: Any, field: str
) -> None:
    answer = petra.start(options)
    assert answer.status_code == 400, answer.text
    assert field in answer.json()["message"]
    assert not petra.server()
    assert petra.pods() == []


def test_a_notebook_outlives_a_restart_of_the_hub_which_finds_it_again(
    hub: install.Installed, petra: Person
) -> None:
    assert petra.start({}).status_code in (201, 202)
    wait(petra.ready, "the notebook")
    before = petra.pods()
    assert len(before) == 1
    old = hub_pod(hub)["metadata"]["uid"]
    kube, namespace = hub.target.kube, hub.place.namespace
    kube.kubectl("-n", namespace, "delete", "pod", "-l", "app.kubernetes.io/component=hub", "--wait=false")
    # the notebook answers while the hub is away: the proxy keeps its route
    notebook = f"{hub.url}/user/{petra.name}/api"
    assert petra.client.get(notebook).status_code == 200
    wait(lambda: hub_pod(hub)["metadata"]["uid"] != old, "a new hub pod")
    kube.kubectl(
        "-n", namespace, "rollout", "status", f"deploy/{hub.place.release}-hub", "--timeout=90s", timeout=100
    )
    wait(lambda: petra.get("user").status_code == 200, "the hub to know the session")
    wait(petra.ready, "the hub to find the notebook")
    assert [p["metadata"]["uid"] for p in petra.pods()] == [p["metadata"]["uid"] for p in before]
    assert petra.client.get(notebook).status_code == 200


def test_the_notebook_pod_is_restricted_and_has_no_cluster_token(petra: Person) -> None:
    if not petra.ready():
        petra.start({})
        wait(petra.ready, "the notebook")
    (pod,) = petra.pods()
    assert pod["spec"]["automountServiceAccountToken"] is False
    (container,) = pod["spec"]["containers"]
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"]["drop"] == ["ALL"]
    assert petra.name not in json.dumps(pod["metadata"]["labels"])


def test_the_notebook_reaches_the_hub_but_neither_the_proxys_api_nor_kubernetes(
    hub: install.Installed, petra: Person
) -> None:
    if not petra.ready():
        petra.start({})
        wait(petra.ready, "the notebook")
    (pod,) = petra.pods()
    release, namespace = hub.place.release, hub.place.namespace
    probe = (
        "import os, socket\n"
        "def can(host, port):\n"
        "    try:\n"
        "        socket.create_connection((host, port), 3).close(); return True\n"
        "    except OSError: return False\n"
        f"print(can('{release}-hub', 8081), can('{release}-proxy-api', 8001), can('kubernetes.default.svc', 443))\n"
        "print(os.path.exists('/var/run/secrets/kubernetes.io/serviceaccount/token'))\n"
    )
    out = hub.target.kube.kubectl(
        "-n", namespace, "exec", pod["metadata"]["name"], "-c", "notebook", "--", "python", "-c", probe
    )
    assert out.split() == ["True", "False", "False", "False"]


def test_an_upgrade_keeps_secrets_users_and_the_running_notebook(
    hub: install.Installed, petra: Person
) -> None:
    if not petra.ready():
        petra.start({})
        wait(petra.ready, "the notebook")
    pods = [p["metadata"]["uid"] for p in petra.pods()]
    kube, namespace = hub.target.kube, hub.place.namespace

    def secret_data() -> dict[str, Any]:
        found = kube.get("-n", namespace, "secrets")
        assert found
        return {
            s["metadata"]["name"]: s["data"] for s in found["items"] if s["type"] == "Opaque" and "data" in s
        }

    before = secret_data()
    assert before
    install.install(Console(), hub.target, hub.place)
    after = secret_data()
    # A stack of an earlier test that still starts may get its own in the meantime.
    assert {name: after.get(name) for name in before} == before
    wait(lambda: petra.get("user").status_code == 200, "the hub to know the session")
    assert petra.ready()
    assert [p["metadata"]["uid"] for p in petra.pods()] == pods


def test_helms_own_test_passes(hub: install.Installed) -> None:
    out = hub.target.kube.helm("test", hub.place.release, "-n", hub.place.namespace, "--timeout", "2m")
    assert "Succeeded" in out


def test_someone_outside_the_allowed_groups_is_refused_with_a_reason(hub: install.Installed) -> None:
    from tests.support.browserless import browserless, choose

    client = browserless()
    page = choose(client, client.get(f"{hub.url}/hub/oauth_login"), "gina")
    assert page.status_code == 403
    assert "group" in page.text


def test_no_secret_is_in_a_log_or_in_what_describe_shows(hub: install.Installed, petra: Person) -> None:
    import base64

    kube, namespace = hub.target.kube, hub.place.namespace
    found = kube.get("-n", namespace, "secrets")
    assert found
    values = {
        base64.b64decode(value).decode(errors="replace").strip()
        for s in found["items"]
        if s["type"] == "Opaque"
        for key, value in s.get("data", {}).items()
        # In a connection: whose it is and where the stack is.
        if key not in ("user", "host")
    }
    values = {v for v in values if len(v) >= 16}
    assert values
    text = kube.kubectl("-n", namespace, "describe", "pods,deployments,configmaps,services")
    for name in ("hub", "proxy", "stacks"):
        text += kube.kubectl("-n", namespace, "logs", f"deploy/{hub.place.release}-{name}", "--tail=-1")
    text += kube.kubectl("-n", namespace, "logs", "deploy/lslogin", "--tail=-1")
    for value in values:
        assert value not in text, "a secret is shown"
