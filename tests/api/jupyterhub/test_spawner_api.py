"""The spawner against a real API server: what it makes, finds again and removes, and how it fails."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets

import pytest

from cytomine_spawner import CytomineSpawner
from cytomine_spawner.hub.failures import NotebookFailed
from tests.support.spawning import spawners, start, until

LS_LOGIN_NAME = "28f7bc3a2d32a4a0a1b2c3d4e5f60718293a4b5c@lifescience-ri.eu"


@pytest.fixture
async def make(api, namespace, monkeypatch):
    """Makes spawners in the test's namespace."""
    async with spawners(api, namespace, monkeypatch) as make:
        yield make


async def test_a_start_makes_one_pod_one_volume_and_one_secret_in_a_restricted_namespace(
    api, namespace, make
):
    spawner = make(LS_LOGIN_NAME)
    url = await start(spawner, image="standard", size="large")
    (pod,) = api.items(namespace, "pods")
    (claim,) = api.items(namespace, "persistentvolumeclaims")
    (secret,) = api.items(namespace, "secrets")
    assert url == f"http://{pod['status']['podIP']}:8888"
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "example/lab:1"
    assert container["resources"] == {
        "limits": {"cpu": "4", "memory": str(8 * 2**30)},
        "requests": {"cpu": "4", "memory": str(4 * 2**30)},
    }
    assert pod["spec"]["automountServiceAccountToken"] is False
    for thing in (pod, claim, secret):
        labels = thing["metadata"]["labels"]
        for key in ("name", "instance", "component", "part-of", "managed-by"):
            assert labels[f"app.kubernetes.io/{key}"], (thing.get("kind"), key)
        assert not any("lifescience" in value for value in labels.values())
        assert thing["metadata"]["annotations"]["hub.jupyter.org/username"] == LS_LOGIN_NAME


async def test_the_token_is_in_the_secret_alone_and_goes_with_the_pod(api, namespace, make):
    spawner = make()
    await start(spawner)
    (pod,) = api.items(namespace, "pods")
    (secret,) = api.items(namespace, "secrets")
    assert spawner.api_token not in json.dumps(pod)
    assert base64.b64decode(secret["data"]["token"]).decode() == spawner.api_token
    assert [owner["uid"] for owner in secret["metadata"]["ownerReferences"]] == [pod["metadata"]["uid"]]
    env = {variable["name"]: variable for variable in pod["spec"]["containers"][0]["env"]}
    reference = env["JUPYTERHUB_API_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": secret["metadata"]["name"], "key": "token"}


async def test_a_stop_leaves_the_volume_alone(api, namespace, make):
    spawner = make()
    await start(spawner)
    await spawner.stop()
    assert api.items(namespace, "pods") == []
    assert api.items(namespace, "secrets") == []
    assert len(api.items(namespace, "persistentvolumeclaims")) == 1
    assert await spawner.poll() == 1


async def test_a_restarted_hub_finds_the_running_pod(api, namespace, make, monkeypatch):
    before = make()
    await start(before)
    state = before.get_state()
    await CytomineSpawner._stop_all_reflectors()
    after = make()
    after.load_state(state)
    assert await after.poll() is None
    assert len(api.items(namespace, "pods")) == 1


async def test_a_start_after_a_hub_that_died_in_the_middle_leaves_one_of_each(api, namespace, make):
    first = make()
    await first._run_apply_user_options({})
    begun = first.start()
    await until(lambda: api.items(namespace, "pods"))
    begun.cancel()  # no state was saved
    await asyncio.gather(begun, return_exceptions=True)
    second = make()
    second.api_token = "an0ther"
    await start(second, size="large")
    (pod,) = api.items(namespace, "pods")
    (secret,) = api.items(namespace, "secrets")
    assert len(api.items(namespace, "persistentvolumeclaims")) == 1
    assert pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "4"
    assert base64.b64decode(secret["data"]["token"]).decode() == "an0ther"
    assert [owner["uid"] for owner in secret["metadata"]["ownerReferences"]] == [pod["metadata"]["uid"]]


async def test_two_people_whose_names_are_alike_have_nothing_in_common(api, namespace, make):
    for name in ("a.b", "a-b", "A.B"):
        await start(make(name))
    for kind in ("pods", "persistentvolumeclaims", "secrets"):
        assert len(api.items(namespace, kind)) == 3


async def test_a_pod_that_fits_nowhere_ends_the_start_with_what_is_missing(api, namespace, make):
    sizes = [{"name": "giant", "cpu_guarantee": 500, "mem_guarantee": "2G"}]
    spawner = make(notebook_sizes=sizes, unschedulable_grace=1)
    with pytest.raises(NotebookFailed) as caught:
        await start(spawner)
    assert caught.value.reason == "unschedulable"
    assert "500 cores, 2 GiB of memory" in str(caught.value)
    assert "Insufficient cpu" in str(caught.value)


@pytest.fixture
def own_node(api):
    """A node that nobody plays, for the pods of one test: the test itself reports what its kubelet would."""
    name = f"own-{secrets.token_hex(4)}"
    size = {"cpu": "8", "memory": "64Gi", "pods": "100"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"}
    api.create(
        "/api/v1/nodes",
        {
            "metadata": {"name": name, "labels": {"played-by": name}},
            # Pods of other tests would never run here.
            "spec": {"taints": [{"key": "played-by", "value": name, "effect": "NoSchedule"}]},
            "status": {"allocatable": size, "capacity": size, "conditions": [ready]},
        },
    )
    yield {
        "node_selector": {"played-by": name},
        "tolerations": [{"key": "played-by", "operator": "Exists"}, {"key": "node.kubernetes.io/not-ready"}],
    }
    api.delete_now(f"/api/v1/nodes/{name}")


async def test_an_image_that_cannot_be_pulled_ends_the_start_with_the_reason(api, namespace, make, own_node):
    spawner = make(**own_node, failure_grace=0)
    await spawner._run_apply_user_options({})
    begun = asyncio.ensure_future(spawner.start())
    (pod,) = await until(lambda: [p for p in api.items(namespace, "pods") if p["spec"].get("nodeName")])
    path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/status"
    message = 'Back-off pulling image "example/gpu:1": ErrImagePull: not found'
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
    status = {"name": "notebook", "image": "example/gpu:1", "imageID": "", "ready": False, "restartCount": 0}
    api.patch(path, {"status": {"containerStatuses": [{**status, "state": waiting}]}})
    with pytest.raises(NotebookFailed, match=r"image example/gpu:1 cannot be pulled: .* not found"):
        await asyncio.wait_for(begun, 15)


def quota(api, namespace, **hard):
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    hard = {key.replace("_", "."): value for key, value in hard.items()}
    api.create(path, {"metadata": {"name": "team"}, "spec": {"hard": hard}})
    # what the controller manager does, which does not run here
    api.patch(f"{path}/team/status", {"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}})


async def test_a_full_quota_ends_the_start_with_its_numbers(api, namespace, make):
    quota(api, namespace, requests_memory="3Gi")
    with pytest.raises(NotebookFailed) as caught:
        await start(make(), size="large")
    assert caught.value.reason == "quota"
    for word in ("The quota team has no room for the notebook", "requests.memory=4Gi", "requests.memory=3Gi"):
        assert word in str(caught.value)
    assert api.items(namespace, "pods") == []


async def test_a_full_quota_for_volumes_is_told_apart(api, namespace, make):
    quota(api, namespace, persistentvolumeclaims="0")
    with pytest.raises(NotebookFailed, match="no room for the notebook's home volume"):
        await start(make())


async def test_a_pod_that_the_security_policy_refuses(api, namespace, make):
    with pytest.raises(NotebookFailed, match=r"security policy refuses the notebook: .*restricted"):
        await start(make(allow_privilege_escalation=True))


async def test_progress_tells_of_the_pod_and_ends_with_the_start(api, namespace, make):
    spawner = make()
    await spawner._run_apply_user_options({})
    begun = asyncio.ensure_future(spawner.start())
    seen = [event async for event in spawner.progress()]
    await begun
    assert any("Successfully assigned" in event["message"] for event in seen)


async def test_a_reflector_that_died_is_replaced_and_the_pod_still_seen(api, namespace, make):
    spawner = make()
    await start(spawner)
    reflector = spawner.pod_reflector
    reflector.watch_task.cancel()
    await asyncio.gather(reflector.watch_task, return_exceptions=True)
    reflector.resources = {}
    assert await spawner.poll() is None
    assert spawner.pod_reflector is not reflector
    await spawner.stop()
    assert api.items(namespace, "pods") == []
