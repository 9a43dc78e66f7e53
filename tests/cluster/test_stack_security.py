"""Attacks from inside the cluster by somebody with an account at the same hub: each must fail for the attacker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from tests.support.person import wait

PROBE = """
import concurrent.futures, json, socket, sys
def reach(target):
    try:
        socket.create_connection((target[0], target[1]), 2).close()
        return True
    except OSError:
        return False
targets = {targets}
with concurrent.futures.ThreadPoolExecutor(128) as pool:
    print(json.dumps([t for t, ok in zip(targets, pool.map(reach, targets)) if ok]))
"""


@pytest.fixture
def attacker(neighbours: tuple[Lab, Lab]) -> Lab:
    """Another user of the hub with a notebook and a stack of their own."""
    return neighbours[1]


def doors(lab: Lab) -> list[list[Any]]:
    """Every port of a stack: of its Services by name, and of its pods by address."""
    chosen = ("-l", f"app.kubernetes.io/instance={lab.name}")
    services = lab.kube.get("-n", lab.namespace, "services", *chosen)
    pods = lab.kube.get("-n", lab.namespace, "pods", *chosen)
    assert services
    assert pods
    found: list[list[Any]] = []
    for service in services["items"]:
        found += [[service["metadata"]["name"], p["port"]] for p in service["spec"]["ports"]]
    # Also ports that no container declares: the activity's, and the login's own side of nginx.
    ports = {
        p["containerPort"]
        for pod in pods["items"]
        for c in pod["spec"]["containers"]
        for p in c.get("ports", [])
    }
    for pod in pods["items"]:
        found += [
            [pod["status"]["podIP"], port] for port in sorted(ports | {4180, 8080, 8081, 8082, 5432, 27017})
        ]
    assert len(found) > 30
    return found


def reached(
    lab: Lab, pod: str, container: str, targets: list[list[Any]], python: str = "python"
) -> list[list[Any]]:
    code = PROBE.format(targets=json.dumps(targets))
    out = lab.kubectl("exec", pod, "-c", container, "--", python, "-c", code, timeout=120)
    found: list[list[Any]] = json.loads(out.strip().splitlines()[-1])
    return found


def inner_side(lab: Lab) -> list[list[Any]]:
    """The gateway's side for notebooks: of its Service by name, and of its pod by address."""
    selector = f"app.kubernetes.io/instance={lab.name},app.kubernetes.io/component=gateway"
    pods = lab.kube.get("-n", lab.namespace, "pods", "-l", selector)
    assert pods
    (gateway,) = [pod["status"]["podIP"] for pod in pods["items"]]
    return [[f"{lab.name}-gateway", 80], [gateway, 8081]]


def of_hub(lab: Lab, part: str, port: int) -> list[Any]:
    """A port of a part of the hub, by the name that pods of users know it by."""
    place = lab.hub.place
    return [f"{place.release}-{part}.{place.namespace}.svc", port]


def notebook(lab: Lab) -> str:
    (pod,) = lab.person.pods()
    return str(pod["metadata"]["name"])


def test_another_users_notebook_reaches_no_port_of_a_stack(owner: Lab, attacker: Lab) -> None:
    assert reached(attacker, notebook(attacker), "notebook", doors(owner)) == []


def test_the_owners_notebook_reaches_the_gateways_inner_side_and_nothing_else(owner: Lab) -> None:
    found = reached(owner, notebook(owner), "notebook", doors(owner))
    assert sorted(map(str, found)) == sorted(map(str, inner_side(owner)))


@pytest.mark.parametrize("component", ["core", "pims", "web-ui"])
def test_a_part_of_another_stack_reaches_no_port_of_a_stack(
    owner: Lab, attacker: Lab, component: str
) -> None:
    selector = f"app.kubernetes.io/instance={attacker.name},app.kubernetes.io/component={component}"
    pods = attacker.kube.get("-n", attacker.namespace, "pods", "-l", selector)
    assert pods
    pod = pods["items"][0]["metadata"]["name"]
    assert reached(attacker, pod, component, doors(owner)) == []


def test_a_stack_reaches_neither_kubernetes_nor_the_hub_nor_a_notebook(owner: Lab, attacker: Lab) -> None:
    (pod,) = owner.person.pods()
    targets = [
        ["kubernetes.default.svc", 443],
        of_hub(owner, "hub", 8081),
        of_hub(owner, "proxy-api", 8001),
        [pod["status"]["podIP"], 8888],
    ]
    selector = f"app.kubernetes.io/instance={attacker.name},app.kubernetes.io/component=pims"
    pods = attacker.kube.get("-n", attacker.namespace, "pods", "-l", selector)
    assert pods
    assert reached(attacker, pods["items"][0]["metadata"]["name"], "pims", targets) == []


@pytest.fixture
def importer(owner: Lab, slides: Path) -> Iterator[str]:
    """A pod with the labels of the Job that imports into the owner's stack, while that Job is there and waits."""
    owner.wait_ready()
    patch = '{"spec":{"datasets":["mock-skin"]}}'
    owner.kubectl("patch", "cytominestack", owner.name, "--type=merge", "-p", patch)
    wait(owner.jobs, "the import to begin")
    (job,) = owner.jobs()
    # Its door is there as long as the Job: it must not end before the test.
    owner.kubectl("patch", "job", job["metadata"]["name"], "--type=merge", "-p", '{"spec":{"suspend":true}}')
    template = job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    # Without those labels by which the Job's controller would take it for its own.
    labels = {k: v for k, v in template["metadata"]["labels"].items() if k.startswith("app.kubernetes.io/")}
    name = f"{owner.name}-importer"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": owner.namespace, "labels": labels},
        "spec": {
            **template["spec"],
            "containers": [{**container, "command": ["python", "-c", "import time; time.sleep(900)"]}],
        },
    }
    owner.kube.apply([pod])
    try:
        owner.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=180s", timeout=200)
        (still,) = owner.jobs()
        assert still["metadata"]["uid"] == job["metadata"]["uid"]
        yield name
    finally:
        owner.kubectl("delete", "pod", name, "--grace-period=0", "--force", "--ignore-not-found")
        none = '{"spec":{"datasets":[]}}'
        owner.kubectl("patch", "cytominestack", owner.name, "--type=merge", "-p", none)
        wait(lambda: not owner.jobs(), "the Job to be gone")


def test_an_import_reaches_the_gateways_inner_side_of_its_stack_and_nothing_else(
    owner: Lab, attacker: Lab, importer: str
) -> None:
    hub_api = of_hub(owner, "hub", 8081)
    notebooks = [[pod["status"]["podIP"], 8888] for lab in (owner, attacker) for pod in lab.person.pods()]
    others = [
        ["kubernetes.default.svc", 443],
        hub_api,
        of_hub(owner, "proxy-api", 8001),
        of_hub(owner, "stacks", 8000),
        *notebooks,
    ]
    assert reached(owner, notebook(owner), "notebook", [hub_api]) == [hub_api], "it is there for a notebook"
    targets = [*doors(owner), *doors(attacker), *others]
    seen: list[list[Any]] = []

    def closed() -> bool:
        # A pod that has just begun is not behind its door at once.
        seen[:] = reached(owner, importer, "datasets", targets)
        return sorted(map(str, seen)) == sorted(map(str, inner_side(owner)))

    try:
        wait(closed, "all but the gateway's inner side to be closed", 60)
    except AssertionError:
        raise AssertionError(f"open are {seen}, not {inner_side(owner)}") from None
    assert closed(), "and it stays so"


def test_the_owners_keys_are_refused_in_another_stack_and_its_connection_is_not_given_away(
    owner: Lab, attacker: Lab
) -> None:
    answer = attacker.python(f"""
import json, os, requests
service = os.environ["CYTOMINE_SERVICE_URL"]
head = {{"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]}}
urls = ["connection", "connection/rotate", "token"]
codes = [requests.post(f"{{service}}/api/stacks/{owner.name}/{{u}}", headers=head, timeout=20).status_code for u in urls]
codes.append(requests.get(f"{{service}}/api/stacks/{owner.name}", headers=head, timeout=20).status_code)
own = requests.post(f"{{service}}/api/stacks/{attacker.name}/connection", headers=head, timeout=20).status_code
print(json.dumps({{"others": codes, "own": own}}))
""")
    assert answer["own"] == 200
    assert set(answer["others"]) <= {403, 404}


def test_a_member_connects_as_herself_reads_no_keys_and_is_out_when_removed(
    owner: Lab, attacker: Lab
) -> None:
    member = f"api/stacks/{owner.name}/members/users/{attacker.person.name}"
    owner.ask("PUT", member)
    who = f"""
import json
from cytomine_spawner.notebook import connect
conn = connect("{owner.name}", progress=False, timeout=60)
print(json.dumps({{"user": conn.current_user.username, "id": conn.current_user.id}}))
"""
    found = attacker.python(who)
    owner_side = owner.python("""
import json
from cytomine_spawner.notebook import connect
conn = connect(progress=False)
print(json.dumps({"user": conn.current_user.username, "id": conn.current_user.id}))
""")
    assert found["user"] != owner_side["user"]
    keys = attacker.python(f"""
import json
from cytomine_spawner.notebook import connect
conn = connect("{owner.name}", progress=False, timeout=60)
shown = [conn._get(p, {{}}).text for p in ("user/{owner_side["id"]}.json", "user/{owner_side["id"]}/keys.json")]
print(json.dumps(shown))
""")
    secret = owner.kube.get("-n", owner.namespace, "secret", f"{owner.name}-connection")
    assert secret
    import base64

    private = base64.b64decode(secret["data"]["private-key"]).decode()
    assert all(private not in text for text in keys)

    owner.ask("DELETE", member)
    gateway = [[f"{owner.name}-gateway", 80]]
    wait(lambda: not reached(attacker, notebook(attacker), "notebook", gateway), "the way in to close", 60)
    refused = attacker.python(f"""
import json, os, requests
head = {{"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]}}
url = os.environ["CYTOMINE_SERVICE_URL"] + "/api/stacks/{owner.name}/connection"
print(json.dumps(requests.post(url, headers=head, timeout=20).status_code))
""")
    assert refused in (403, 404)
