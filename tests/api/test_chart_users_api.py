"""On a real API server: what the accounts of a release reach of the hub's Secrets, and what Helm finds of an earlier release."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from kubernetes_asyncio.client import ApiClient, ApiException, CoreV1Api

from tests.support import prefork
from tests.support.apiserver import Kubectl, new_namespace
from tests.support.chart import BASE, CHART, ROOT, helm, merged
from tests.support.chartaccounts import accounts, config_of, connection, everywhere, in_namespace
from tests.support.stackservice import Service, until

STACKS = {"stacks": {"enabled": True, "url": "https://{stack}.stacks.example.org"}}
ON = merged(BASE, STACKS)


@pytest.fixture
def namespace(api):
    """The namespace of the hub."""
    return new_namespace(api.http, "hub")


@pytest.fixture
def users(kubectl):
    """The other namespace, with the accounts of the hub and of the service of stacks; and the hub's Secret where that is."""
    kubectl("create", "secret", "generic", "hub-secrets", "--from-literal=cookie-secret=the hub's")
    return accounts(kubectl, ON, "hub-hub", "hub-stacks")


POD = {"metadata": {"name": "thief"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


async def refused(call, *args):
    """The status of a call that must not succeed."""
    with pytest.raises(ApiException) as caught:
        await call(*args, _request_timeout=20)
    return caught.value.status


@pytest.mark.parametrize("account", ["hub-hub", "hub-stacks"])
async def test_neither_the_hubs_account_nor_the_services_reads_or_mounts_a_secret_of_the_hub(
    kubectl, users, account
):
    async with ApiClient(connection(kubectl, account)) as client:
        core, hub = CoreV1Api(client), kubectl.namespace
        assert await refused(core.read_namespaced_secret, "hub-secrets", hub) == 403
        assert await refused(core.list_namespaced_secret, hub) == 403
        assert await refused(core.patch_namespaced_secret, "hub-secrets", hub, {"data": {}}) == 403
        assert await refused(core.create_namespaced_secret, hub, {"metadata": {"name": "mine"}}) == 403
        assert await refused(core.create_namespaced_pod, hub, POD) == 403
        assert await refused(core.list_namespaced_pod, hub) == 403


async def test_the_hubs_account_asks_for_no_secret_of_a_stack_or_of_users(kubectl, users):
    users("create", "secret", "generic", "cm-ada-secrets", "--from-literal=postgis=p")
    async with ApiClient(connection(kubectl, "hub-hub")) as client:
        core = CoreV1Api(client)
        assert await refused(core.read_namespaced_secret, "cm-ada-secrets", users.namespace) == 403
        assert await refused(core.list_namespaced_secret, users.namespace) == 403
        assert await refused(core.list_secret_for_all_namespaces) == 403


def test_no_pod_beside_the_stacks_reaches_the_node_or_takes_an_account_of_the_hub(kubectl, users):
    """Who may make pods there, through a hole in the service, may make none that opens the way to the hub."""
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "thief"},
        "spec": {
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{"name": "c", "image": "i", "securityContext": secure}],
        },
    }
    assert users.apply(pod, dry_run=True).returncode == 0
    for change, said in (
        ({"hostNetwork": True}, "host namespaces"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/var/lib/kubelet"}}]}, "hostPath"),
        (
            {"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": True}}]},
            "privileged",
        ),
        ({"serviceAccountName": "hub-hub"}, "hub-hub"),
        ({"serviceAccountName": "hub-stacks"}, "hub-stacks"),
    ):
        done = users.apply({**pod, "spec": {**pod["spec"], **change}}, dry_run=True)
        assert done.returncode != 0
        assert said in done.stderr


def test_the_service_works_with_its_rights_in_the_namespace_of_the_stacks_alone(kubectl, users, tmp_path):
    token = kubectl("create", "token", "hub-stacks").stdout.strip()
    places = {"notebook_namespace": users.namespace, "service_namespace": kubectl.namespace}
    service = Service(
        tmp_path, kubectl.kubeconfig, users.namespace, token=token, pages=True, forked=True, **places
    )
    try:
        service.start()
        objects = service.objects
        name = objects.new_stack("ada")
        # More than that takes a gateway that answers.
        until(lambda: objects.stack(name).status.ready == "8/8", 60, "all parts to serve")
        # The keys by which it signs are its own: it needs no Secret beside the hub's.
        until(lambda: objects.get("Secret", "cytomine-identity-keys"), 30, "the keys for logins")
        objects.change(name, desiredState="Hibernated")
        objects.wait_phase(name, "Hibernated")
        objects.remove(name)
        until(lambda: not objects.family(name), 30, "all children to be gone")
        assert "orbidden" not in service.text()
        left = kubectl.get("secrets,pods,deployments,persistentvolumeclaims,cytominestacks")["items"]
        assert [i["metadata"]["name"] for i in left] == ["hub-secrets"]
    finally:
        service.close()


@pytest.fixture
def upgrade(kubectl):
    """``helm upgrade --install`` on this API server, without its hook: what it says, and whether it went well."""

    def run(values, release="hub"):
        env = {"KUBECONFIG": str(kubectl.kubeconfig)}
        command = (
            "upgrade",
            "--install",
            release,
            str(CHART),
            "--namespace",
            kubectl.namespace,
            "--no-hooks",
        )
        done = helm(*command, "--timeout", "60s", values=values, env=env)
        return done.returncode == 0, done.stdout + done.stderr

    return run


def stack(name):
    return {
        "apiVersion": "cytomine-spawner.org/v1alpha1",
        "kind": "CytomineStack",
        "metadata": {"name": name},
        "spec": {"owner": "ada"},
    }


def volume(name, **labels):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": {k.replace("__", "/"): v for k, v in labels.items()}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def look(kubectl, values, folder):
    """What the chart's Job runs first, here, with its account and rights."""
    objects = in_namespace(kubectl, values)
    parts = [o for o in objects if o["metadata"]["name"] == "hub-secrets"]
    done = kubectl.apply(*[o for o in parts if o["kind"] in ("ServiceAccount", "Role", "RoleBinding")])
    assert done.returncode == 0, done.stderr
    (job,) = [o for o in objects if o["kind"] == "Job"]
    command = job["spec"]["template"]["spec"]["initContainers"][0]["command"]
    assert command[:3] == ["python", "-m", "cytomine_spawner.cluster.leftbehind"]
    env = {k: v for k, v in os.environ.items() if k != "KUBERNETES_SERVICE_HOST"}
    env |= {"KUBECONFIG": str(config_of(kubectl, "hub-secrets", folder)), "PYTHONPATH": str(ROOT)}
    return prefork.run(command[2], command[3:], env, Path(tempfile.mkdtemp(dir=folder)))


OURS = {"cytomine-spawner.org__hub": "hub"}
KEPT = {"app.kubernetes.io__managed-by": "cytomine-stacks"}


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (
            [stack("cm-ada"), volume("claim-ada", **OURS), volume("cm-ada-pims", **KEPT)],
            "stacks (1), volumes of users (2)",
        ),
        ([volume("claim-ada", **OURS)], "volumes of users (1)"),
        ([volume("cm-ada-pims", **KEPT)], "volumes of users (1)"),
    ],
    ids=["stack", "home", "kept"],
)
def test_a_release_whose_users_are_in_the_hubs_namespace_is_not_moved_silently(
    kubectl, upgrade, left, said, tmp_path
):
    # As a release from before this value is: all in one.
    together = merged(ON, {"users": {"namespace": kubectl.namespace}})
    assert upgrade(together)[0]
    done = kubectl.apply(*left)
    assert done.returncode == 0, done.stderr
    role = kubectl.get("role", "hub-stacks")["metadata"]["uid"]

    fine, told = upgrade(ON)
    assert not fine
    assert (
        f"users.namespace is not set, and the namespace {kubectl.namespace} of the hub holds {said}" in told
    )
    assert f"Set users.namespace to {kubectl.namespace} to leave all where it is" in told
    assert kubectl.get("role", "hub-stacks")["metadata"]["uid"] == role, "nothing was changed"
    assert everywhere(kubectl)("get", "namespace", f"{kubectl.namespace}-users", check=False).returncode != 0

    fine, told = upgrade(together)
    assert fine, told
    assert "WARNING: users.namespace is the hub's own namespace" in told
    for item in left:
        assert "deletionTimestamp" not in kubectl.get(item["kind"], item["metadata"]["name"])["metadata"]

    # The same where Helm does not ask the cluster: said by the Job, with its account.
    told = look(kubectl, ON, tmp_path)
    assert told.returncode == 1
    assert f"and the namespace {kubectl.namespace} of the hub holds " in told.stderr
    assert f"Set users.namespace to {kubectl.namespace} to leave all where it is" in told.stderr

    # Who names another one has moved them, or means it.
    fine, told = upgrade(merged(ON, {"users": {"namespace": f"{kubectl.namespace}-people"}}))
    assert fine, told
    assert f"WARNING: the namespace {kubectl.namespace} holds {said} that this hub does not know" in told


def test_what_is_none_of_the_users_holds_up_nothing(kubectl, upgrade, tmp_path):
    done = kubectl.apply(
        volume("hub-backup"), volume("claim-bob", **{"cytomine-spawner.org__hub": "another"})
    )
    assert done.returncode == 0, done.stderr
    assert look(kubectl, ON, tmp_path).returncode == 0
    fine, told = upgrade(ON)
    assert fine, told
    assert f"Notebooks and stacks run in the namespace {kubectl.namespace}-users" in told
    users = Kubectl(kubectl.kubeconfig, f"{kubectl.namespace}-users")
    assert {i["metadata"]["name"] for i in users.get("roles")["items"]} == {"hub-hub", "hub-stacks"}
    assert [i["metadata"]["name"] for i in kubectl.get("roles")["items"]] == ["hub-secrets"], "the Job's"
    # And again: the namespace is this release's.
    fine, told = upgrade(ON)
    assert fine, told


def test_a_namespace_that_is_somebody_elses_is_used_only_when_that_is_said(kubectl, upgrade):
    name = f"{kubectl.namespace}-users"
    everywhere(kubectl)("create", "namespace", name)
    fine, told = upgrade(ON)
    assert not fine
    assert f"users.namespace: the namespace {name} is there already and is not this release's" in told
    fine, told = upgrade(merged(ON, {"users": {"createNamespace": False}}))
    assert fine, told
    # It stays as it was made.
    assert (
        "pod-security.kubernetes.io/enforce"
        not in everywhere(kubectl).get("namespace", name)["metadata"]["labels"]
    )


def test_a_second_release_is_told_to_choose_another_namespace_for_its_users(upgrade):
    assert upgrade(ON)[0]
    fine, told = upgrade(ON, release="second")
    assert not fine
    assert "is there already and is not this release's" in told
