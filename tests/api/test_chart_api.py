"""A real API server takes what the chart renders, and lets its accounts do what they need."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from kubernetes_asyncio.client import ApiClient, AuthorizationV1Api, CoreV1Api

from cytomine_spawner.cluster import hubsecret
from tests.support import prefork
from tests.support.apiserver import Kubectl, new_namespace
from tests.support.chart import BASE, CHART, EXAMPLES, ROOT, helm, merged, pod_specs
from tests.support.chartaccounts import config_of, connection, everywhere, hub_account, in_namespace, users_of

PROGRAM = "cytomine_spawner.cluster.hubsecret"


@pytest.fixture
def namespace(api):
    """A new namespace that enforces restricted Pod Security, and warns of workloads whose pods it would refuse."""
    return new_namespace(api.http, "chart", warn="restricted")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_object_of_each_example_is_accepted(kubectl, path):
    objects = in_namespace(kubectl, {}, "--values", str(path))
    users_of(kubectl, objects)
    # A pod is refused while its account is not there, dry run or not.
    for account in {o["spec"]["serviceAccountName"] for o in objects if o["kind"] == "Pod"}:
        kubectl("create", "serviceaccount", account)
    done = everywhere(kubectl).apply(*objects, dry_run=True)
    assert done.returncode == 0, done.stderr
    # Pod Security warns of workloads whose pods it would refuse.
    assert "warning" not in done.stderr.lower(), done.stderr
    assert len(done.stdout.splitlines()) == len(objects)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_restricted_pod_security_admits_every_pod(kubectl, path):
    pods = []
    for number, (_, labels, spec) in enumerate(pod_specs(in_namespace(kubectl, {}, "--values", str(path)))):
        plain = {k: v for k, v in spec.items() if k not in ("serviceAccountName", "priorityClassName")}
        pods.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"p{number}", "labels": labels},
                "spec": plain,
            }
        )
    assert len(pods) >= 3
    done = kubectl.apply(*pods, dry_run=True)
    assert done.returncode == 0, done.stderr


class SecretsJob:
    """What the chart's Job does: its command, run here with its account."""

    def __init__(self, kubectl, folder):
        self.kubectl, self.folder = kubectl, folder

    def account(self, values=None):
        """Make the Job's account with its rights."""
        objects = in_namespace(self.kubectl, merged(BASE, values or {}))
        parts = [o for o in objects if o["metadata"]["name"] == "hub-secrets"]
        parts = [o for o in parts if o["kind"] in ("ServiceAccount", "Role", "RoleBinding")]
        assert len(parts) == 3
        done = self.kubectl.apply(*parts)
        assert done.returncode == 0, done.stderr
        self.config = config_of(self.kubectl, "hub-secrets", self.folder)
        return self

    def run(self, values=None, *, forked=True):
        objects = in_namespace(self.kubectl, merged(BASE, values or {}))
        (job,) = [o for o in objects if o["kind"] == "Job"]
        command = job["spec"]["template"]["spec"]["containers"][0]["command"]
        assert command[:3] == ["python", "-m", PROGRAM]
        env = {k: v for k, v in os.environ.items() if k != "KUBERNETES_SERVICE_HOST"}
        env |= {"KUBECONFIG": str(self.config), "PYTHONPATH": str(ROOT)}
        if forked:
            return prefork.run(PROGRAM, command[3:], env, Path(tempfile.mkdtemp(dir=self.folder)))
        return subprocess.run(
            [sys.executable, *command[1:]], env=env, capture_output=True, text=True, timeout=60, check=False
        )

    def secret(self):
        return self.kubectl.get("secret", "hub-secrets")


@pytest.fixture
def job(kubectl, tmp_path):
    return SecretsJob(kubectl, tmp_path).account()


def test_the_job_makes_the_secret_with_its_own_rights_and_no_later_run_changes_a_value(job):
    done = job.run(forked=False)
    assert done.returncode == 0, done.stderr
    first = job.secret()
    assert set(first["data"]) == {"cookie-secret", "crypt-key", "proxy-token"}
    assert "app.kubernetes.io/instance" not in first["metadata"]["labels"]

    assert job.run().returncode == 0
    again = job.secret()
    assert again["data"] == first["data"]
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]

    done = job.run({"hub": {"services": {"stats": {}}}})
    assert done.returncode == 0, done.stderr
    more = job.secret()["data"]
    assert more.pop("service-token-stats")
    assert more == first["data"]
    for value in first["data"].values():
        assert base64.b64decode(value).decode() not in done.stdout + done.stderr


STACKS = {"stacks": {"enabled": True, "url": "https://{stack}.stacks.example.org"}}


@pytest.mark.parametrize("before", ["the token from before", ""])
def test_the_token_of_the_service_is_in_a_secret_of_its_own_and_is_the_one_from_before(job, before):
    if before:
        job.kubectl(
            "create", "secret", "generic", "hub-secrets", f"--from-literal=service-token-cytomine={before}"
        )
    job.account(STACKS)
    for _ in range(2):
        done = job.run(STACKS)
        assert done.returncode == 0, done.stderr
    data = job.kubectl.get("secret", "hub-stacks-token")["data"]
    assert list(data) == ["service-token-cytomine"]
    value = base64.b64decode(data["service-token-cytomine"]).decode()
    assert value == before or (not before and len(value) == 64)
    assert value not in done.stdout + done.stderr
    assert ("service-token-cytomine" in job.secret()["data"]) is bool(before)


def test_a_key_that_the_administrator_added_stays(job):
    job.kubectl("create", "secret", "generic", "hub-secrets", "--from-literal=oidc-client-secret=mine")
    assert job.run().returncode == 0
    data = job.secret()["data"]
    assert base64.b64decode(data["oidc-client-secret"]).decode() == "mine"
    assert len(data) == 4


def test_the_jobs_account_reads_no_other_secret(job):
    job.kubectl("create", "secret", "generic", "other", "--from-literal=a=b")
    for verb, name in (("get", "other"), ("list", ""), ("patch", "other"), ("delete", "hub-secrets")):
        who = f"system:serviceaccount:{job.kubectl.namespace}:hub-secrets"
        target = f"secret/{name}" if name else "secrets"
        answer = job.kubectl("auth", "can-i", verb, target, f"--as={who}", check=False)
        assert answer.stdout.strip() == "no", (verb, name)


def test_without_its_rights_the_job_says_so(job):
    job.kubectl("delete", "rolebinding", "hub-secrets")
    done = job.run()
    assert done.returncode == 1
    assert "may not read or write the Secret hub-secrets" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_immutable_secret_is_said(job):
    job.kubectl("create", "secret", "generic", "hub-secrets", "--from-literal=cookie-secret=x")
    job.kubectl("patch", "secret", "hub-secrets", "-p", '{"immutable": true}')
    done = job.run()
    assert done.returncode == 1
    assert "immutable" in done.stderr


async def test_many_at_once_make_each_key_once(kubectl):
    keys = ["a", "b", "c"]
    async with ApiClient(connection(kubectl)) as client:
        api = CoreV1Api(client)
        made = await asyncio.gather(*(hubsecret.ensure(api, kubectl.namespace, "s", keys) for _ in range(8)))
    assert sorted(key for one in made for key in one) == keys


def check_release():
    spec = importlib.util.spec_from_file_location("check_release", ROOT / "hub_config" / "check_release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_test_of_a_release_is_content_with_the_hubs_rights_and_sees_too_few_and_too_many(kubectl):
    check = check_release()

    users = hub_account(kubectl)

    async def wrong():
        async with ApiClient(connection(kubectl, "hub-hub")) as client:
            return await check.all_rights(AuthorizationV1Api(client), users.namespace, kubectl.namespace)

    assert await wrong() == []
    for place in (users, kubectl):
        place(
            "create",
            "rolebinding",
            "more",
            "--clusterrole=cluster-admin",
            f"--serviceaccount={kubectl.namespace}:hub-hub",
        )
        found = await wrong()
        assert f"The hub's account may list secrets in {place.namespace}." in found
        assert (f"The hub's account may create pods in {place.namespace}." in found) is (place is kubectl)
        place("delete", "rolebinding", "more")
    assert await wrong() == []
    users("delete", "rolebinding", "hub-hub")
    assert f"The hub's account may not create pods in {users.namespace}." in await wrong()


@pytest.fixture
def release(kubectl):
    """helm on this API server; the nodes there say that a Job is done without having run it."""

    def run(*arguments, values=None):
        env = {"KUBECONFIG": str(kubectl.kubeconfig)}
        done = helm(*arguments, "--namespace", kubectl.namespace, values=values, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_install_upgrade_and_uninstall_keep_secrets_and_users(kubectl, release, job):
    release("install", "hub", str(CHART), "--timeout", "60s", values=BASE)
    # Helm took the account away with the hook; the keys come from the program itself, run with an account like it.
    assert not kubectl.get("jobs")["items"]
    assert "hub-secrets" not in [i["metadata"]["name"] for i in kubectl.get("serviceaccounts")["items"]]
    job.account()
    assert job.run().returncode == 0
    before, uid = job.secret(), kubectl.get("pvc", "hub-hub-db")["metadata"]["uid"]
    checksum = kubectl.get("deployment", "hub-hub")["spec"]["template"]["metadata"]["annotations"]

    kubectl("delete", "serviceaccount/hub-secrets", "role/hub-secrets", "rolebinding/hub-secrets")
    changed = merged(BASE, {"culling": {"timeout": 99}})
    said = release("upgrade", "hub", str(CHART), "--timeout", "60s", values=changed)
    assert "REVISION: 2" in said
    assert job.secret()["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert kubectl.get("pvc", "hub-hub-db")["metadata"]["uid"] == uid
    assert kubectl.get("deployment", "hub-hub")["spec"]["template"]["metadata"]["annotations"] != checksum

    release("uninstall", "hub", "--wait", "--timeout", "60s")
    assert job.secret()["data"] == before["data"]
    assert kubectl.get("pvc", "hub-hub-db")["metadata"]["uid"] == uid
    users = Kubectl(kubectl.kubeconfig, f"{kubectl.namespace}-users")
    for place in (kubectl, users):
        left = place.get("deployments,services,roles,rolebindings,networkpolicies,jobs")["items"]
        assert not [i["metadata"]["name"] for i in left]
    # What users stored is there.
    assert everywhere(kubectl).get("namespace", users.namespace)["status"]["phase"] == "Active"

    release("install", "hub", str(CHART), "--timeout", "60s", values=BASE)
    assert kubectl.get("pvc", "hub-hub-db")["metadata"]["uid"] == uid


def test_applying_what_helm_template_renders_twice_and_changed_is_accepted(kubectl):
    for values in (BASE, BASE, merged(BASE, {"hub": {"services": {"stats": {}}, "image": {"tag": "2"}}})):
        objects = in_namespace(kubectl, values, "--skip-tests")
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        # Each object says in which of the two namespaces it is.
        done = everywhere(kubectl)("apply", "-f", "-", stdin=text, check=False)
        assert done.returncode == 0, done.stderr
