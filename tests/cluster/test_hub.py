"""The installed chart on real pods: start, upgrade, refusal; restarts are in test_restarts.py."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dev.console import Console, Problem
from dev.demo import install
from tests.support.person import Person, wait


@pytest.fixture(scope="module")
def nobody(shaken: install.Installed) -> Person:
    """A user in the allowed group, without a server."""
    person = Person(shaken, "otto")
    if person.server():
        person.stop()
    return person


@pytest.fixture(scope="module")
def karin(shaken: install.Installed) -> Iterator[Person]:
    """A user with a notebook."""
    person = Person(shaken, "karin")
    if not person.server():
        assert person.start({}).status_code in (201, 202)
    wait(person.ready, "the notebook")
    yield person
    person.stop()


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
    nobody: Person, options: Any, field: str
) -> None:
    answer = nobody.start(options)
    assert answer.status_code == 400, answer.text
    assert field in answer.json()["message"]
    assert not nobody.server()
    assert nobody.pods() == []


def test_the_notebook_pod_is_restricted_and_has_no_cluster_token(karin: Person) -> None:
    (pod,) = karin.pods()
    assert pod["spec"]["automountServiceAccountToken"] is False
    (container,) = pod["spec"]["containers"]
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"]["drop"] == ["ALL"]
    assert karin.name not in json.dumps(pod["metadata"]["labels"])


def test_the_notebook_reaches_the_hub_but_neither_the_proxys_api_nor_kubernetes(
    shaken: install.Installed, karin: Person
) -> None:
    (pod,) = karin.pods()
    release, namespace = shaken.place.release, shaken.place.namespace
    hub, proxy_api = (f"{release}-{name}.{namespace}.svc" for name in ("hub", "proxy-api"))
    probe = (
        "import os, socket\n"
        "def can(host, port):\n"
        "    try:\n"
        "        socket.create_connection((host, port), 3).close(); return True\n"
        "    except OSError: return False\n"
        f"print(can('{hub}', 8081), can('{proxy_api}', 8001), can('kubernetes.default.svc', 443))\n"
        "print(os.path.exists('/var/run/secrets/kubernetes.io/serviceaccount/token'))\n"
    )
    out = shaken.target.kube.kubectl(
        "-n",
        shaken.place.users,
        "exec",
        pod["metadata"]["name"],
        "-c",
        "notebook",
        "--",
        "python",
        "-c",
        probe,
    )
    assert out.split() == ["True", "False", "False", "False"]


def secrets(hub: install.Installed) -> list[dict[str, Any]]:
    """All Secrets of the hub, and of notebooks and stacks."""
    found = [hub.target.kube.get("-n", name, "secrets") for name in (hub.place.namespace, hub.place.users)]
    return [{**item} for one in found if one for item in one["items"]]


def test_the_hubs_secrets_are_where_no_notebook_and_no_stack_is(
    shaken: install.Installed, karin: Person
) -> None:
    kube, place = shaken.target.kube, shaken.place
    assert karin.pods()
    there = kube.get("-n", place.namespace, "pods,persistentvolumeclaims,cytominestacks")
    assert there
    users = [o for o in there["items"] if "cytomine-spawner.org/hub" in o["metadata"].get("labels", {})]
    assert [o["metadata"]["name"] for o in users] == []
    assert not [o for o in there["items"] if o["kind"] == "CytomineStack"]
    names = {s["metadata"]["name"]: s["metadata"]["namespace"] for s in secrets(shaken)}
    assert names[f"{place.release}-secrets"] == names[f"{place.release}-stacks-token"] == place.namespace
    for account in ("hub", "stacks"):
        who = f"--as=system:serviceaccount:{place.namespace}:{place.release}-{account}"
        for verb, what in (
            ("get", f"secret/{place.release}-secrets"),
            ("list", "secrets"),
            ("create", "pods"),
        ):
            # It ends with 1 where the answer is no.
            with pytest.raises(Problem, match=r"failed: no\b"):
                kube.kubectl("-n", place.namespace, "auth", "can-i", verb, what, who)


def test_an_upgrade_keeps_secrets_users_and_the_running_notebook(
    shaken: install.Installed, karin: Person
) -> None:
    pods = [p["metadata"]["uid"] for p in karin.pods()]

    def secret_data() -> dict[str, Any]:
        return {
            f"{s['metadata']['namespace']}/{s['metadata']['name']}": s["data"]
            for s in secrets(shaken)
            if s["type"] == "Opaque" and "data" in s
        }

    before = secret_data()
    assert {name.split("/")[0] for name in before} == {shaken.place.namespace, shaken.place.users}
    install.install(Console(), shaken.target, shaken.place)
    after = secret_data()
    # A stack of an earlier test that still starts may get its own in the meantime.
    assert {name: after.get(name) for name in before} == before
    wait(lambda: karin.get("user").status_code == 200, "the hub to know the session")
    assert karin.ready()
    assert [p["metadata"]["uid"] for p in karin.pods()] == pods


def notebooks(hub: install.Installed) -> dict[str, tuple[str, str, int]]:
    """Which pod each running notebook is, since when its program runs, and how often it was started anew."""
    pods = hub.target.kube.get("-n", hub.place.users, "pods", "-l", "component=singleuser-server")
    assert pods
    return {
        pod["metadata"]["name"]: (pod["metadata"]["uid"], status["state"]["running"]["startedAt"], status["restartCount"])
        for pod in pods["items"]
        if "deletionTimestamp" not in pod["metadata"]
        for status in pod["status"]["containerStatuses"]
        if "running" in status["state"]
    }  # fmt: skip


def opened(person: Person, address: str) -> tuple[str, str]:
    """Where somebody finds a notebook who opens it at an address, and since when its server runs."""
    page = person.client.get(f"{address}/lab").raise_for_status()
    place = str(page.url).partition("/lab")[0]
    status = person.client.get(f"{place}/api/status").raise_for_status()
    return place, str(status.json()["started"])


def back(person: Person) -> Person | None:
    """The same person after another login; None where it ends at an error."""
    # A hub that has just begun leads to a notebook whose route the proxy does not have yet, and back, until it gives up.
    with contextlib.suppress(AssertionError):
        return person.again()
    return None


@pytest.fixture
def one_host(shaken: install.Installed, karin: Person) -> Iterator[Callable[[], None]]:
    """Karin's notebook runs while all users share the hub's host, until what this gives is called."""
    upgraded = []

    def upgrade() -> None:
        install.install(Console(), shaken.target, shaken.place)
        upgraded.append(True)

    karin.stop()
    install.install(Console(), shaken.target, shaken.place, per_user_hosts=False)
    try:
        person = karin.again()
        assert person.start({}).status_code in (201, 202)
        wait(person.ready, "the notebook")
        yield upgrade
    finally:
        if not upgraded:
            upgrade()


def test_an_upgrade_to_a_host_for_each_user_keeps_running_notebooks(
    shaken: install.Installed, karin: Person, one_host: Callable[[], None]
) -> None:
    former = f"{shaken.url}/user/{karin.name}"
    assert not karin.notebook.startswith(shaken.url)
    place, started = opened(karin.again(), former)
    assert place == former
    before = notebooks(shaken)
    one_host()
    # After a login, as with HTTPS, where the cookies get other names.
    person = wait(lambda: back(karin), "the hub to find the notebook")
    wait(person.ready, "the notebook")
    for address in (person.notebook, former):
        assert opened(person, address) == (person.notebook, started), address
    assert notebooks(shaken) == before
    person.stop()
    assert person.start({}).status_code in (201, 202)
    wait(person.ready, "another notebook")
    assert opened(person, person.notebook) > (person.notebook, started)


def test_helms_own_test_passes(shaken: install.Installed) -> None:
    out = shaken.target.kube.helm(
        "test", shaken.place.release, "-n", shaken.place.namespace, "--timeout", "2m"
    )
    assert "Succeeded" in out


def test_someone_outside_the_allowed_groups_is_refused_with_a_reason(shaken: install.Installed) -> None:
    from tests.support.browserless import browserless, choose

    client = browserless()
    page = choose(client, client.get(f"{shaken.url}/hub/oauth_login"), "gina")
    assert page.status_code == 403
    assert "group" in page.text


def test_no_secret_is_in_a_log_or_in_what_describe_shows(shaken: install.Installed, karin: Person) -> None:
    import base64

    kube, namespace, users = shaken.target.kube, shaken.place.namespace, shaken.place.users
    values = {
        base64.b64decode(value).decode(errors="replace").strip()
        for s in secrets(shaken)
        if s["type"] == "Opaque"
        for key, value in s.get("data", {}).items()
        # In a connection: whose it is and where the stack is.
        if key not in ("user", "host")
    }
    values = {v for v in values if len(v) >= 16}
    assert values
    text = ""
    for place in (namespace, users):
        text += kube.kubectl("-n", place, "describe", "pods,deployments,configmaps,services")
    for name in ("hub", "proxy", "stacks"):
        text += kube.kubectl("-n", namespace, "logs", f"deploy/{shaken.place.release}-{name}", "--tail=-1")
    text += kube.kubectl("-n", namespace, "logs", "deploy/lslogin", "--tail=-1")
    for value in values:
        assert value not in text, "a secret is shown"
