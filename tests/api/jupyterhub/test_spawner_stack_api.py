"""The spawner and the stack beside the notebook, against a real API server. The stacks' service is the test itself."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from kubernetes_asyncio.client import ApiClient, Configuration, CustomObjectsApi

from cytomine_spawner.cluster.stackapi import StackApi
from cytomine_spawner.hub.options.errors import OptionsError
from cytomine_spawner.stack.model import connection_secret_name, stack_name, user_label
from tests.support.spawning import spawners, start, until

LS_LOGIN_NAME = "28f7bc3a2d32a4a0a1b2c3d4e5f60718293a4b5c@lifescience-ri.eu"


@pytest.fixture
async def make(api, namespace, monkeypatch):
    """Makes spawners that offer stacks in the test's namespace."""
    async with spawners(api, namespace, monkeypatch) as make:
        made = []

        def make_with_stacks(user="ada", **settings):
            made.append(make(user, **{"cytomine_enabled": True, **settings}))
            return made[-1]

        yield make_with_stacks
        for spawner in made:
            await spawner._end_companion()


def named(spawner, name):
    """The spawner as that of a named server."""
    spawner.orm_spawner = SimpleNamespace(name=name, user_options={}, state={}, server=None)
    spawner.user.orm_user = SimpleNamespace(orm_spawners={"": None, name: None})
    spawner.user.db = SimpleNamespace(commit=lambda: None)
    return spawner


class Stacks:
    """The stacks of the test's namespace, from outside."""

    def __init__(self, api, namespace):
        self.api = api
        self.path = f"/apis/cytomine-spawner.org/v1alpha1/namespaces/{namespace}/cytominestacks"

    def all(self):
        return self.api.get(self.path)["items"]

    def one(self):
        (found,) = self.all()
        return found

    async def made(self):
        return (await until(self.all))[0]

    def patch(self, name, **spec):
        self.api.patch(f"{self.path}/{name}", {"spec": spec})

    def report(self, name="cm-ada", **status):
        """What the service would say of the present spec."""
        generation = self.api.get(f"{self.path}/{name}")["metadata"]["generation"]
        self.api.patch(f"{self.path}/{name}/status", {"status": {"observedGeneration": generation, **status}})


@pytest.fixture
def stacks(api, namespace):
    return Stacks(api, namespace)


def lines(spawner):
    return [notice["message"] for notice in spawner._notices]


# Made, found again, changed


async def test_a_start_with_cytomine_makes_the_stack_and_tells_the_notebook_where_it_is(
    api, namespace, make, stacks
):
    spawner = make(LS_LOGIN_NAME, groups=("pathology", "zoology"), cytomine_connection_path="/keys")
    await start(spawner, cytomine={"size": "M", "components": ["cbir"]})
    stack = await stacks.made()
    name = stack_name(LS_LOGIN_NAME)
    assert stack["metadata"]["name"] == name
    assert stack["metadata"]["labels"]["app.kubernetes.io/instance"] == name
    spec = stack["spec"]
    assert (spec["owner"], spec["serverName"], spec["desiredState"]) == (LS_LOGIN_NAME, "", "Running")
    assert (spec["size"], spec["components"]) == ("M", ["cbir"])
    assert spec["ownerGroups"] == ["pathology", "zoology"]
    (pod,) = api.items(namespace, "pods")
    labels = pod["metadata"]["labels"]
    assert labels["hub.jupyter.org/username"] == user_label(LS_LOGIN_NAME)
    assert labels["group.cytomine-spawner.org/pathology"] == "member"
    assert not any("lifescience" in value for value in labels.values())
    (container,) = pod["spec"]["containers"]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert env["CYTOMINE_STACK"] == name
    assert env["CYTOMINE_HOST"] == f"http://{name}-gateway.{namespace}.svc"
    assert env["CYTOMINE_CONNECTION_DIR"] == "/keys"
    (volume,) = [v for v in pod["spec"]["volumes"] if v["name"] == "cytomine-connection"]
    assert volume["secret"]["secretName"] == connection_secret_name(name)
    assert volume["secret"]["optional"] is True
    (mount,) = [m for m in container["volumeMounts"] if m["name"] == "cytomine-connection"]
    assert (mount["mountPath"], mount["readOnly"]) == ("/keys", True)


async def test_a_start_without_cytomine_makes_no_stack_and_leaves_the_one_that_is_there(
    api, namespace, make, stacks
):
    await start(make(), cytomine=True)
    before = await stacks.made()
    spawner = make()
    await start(spawner, cytomine=False)
    assert stacks.one()["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    (pod,) = api.items(namespace, "pods")
    assert not [v for v in pod["spec"]["containers"][0]["env"] if v["name"].startswith("CYTOMINE")]


async def test_a_hibernated_stack_is_resumed_with_its_own_size_and_components(make, stacks):
    await start(make(), cytomine={"size": "L", "components": ["sam", "cbir"]})
    await stacks.made()
    stacks.patch("cm-ada", desiredState="Hibernated", displayName="Mine", members={"users": ["bo"]})
    await start(make(), cytomine=True)
    await until(lambda: stacks.one()["spec"]["desiredState"] == "Running")
    spec = stacks.one()["spec"]
    assert (spec["size"], spec["components"], spec["displayName"]) == ("L", ["sam", "cbir"], "Mine")
    assert spec["members"]["users"] == ["bo"]


async def test_what_is_chosen_anew_changes_and_the_rest_stays(make, stacks):
    await start(make(), cytomine={"size": "L", "components": ["sam"]})
    await stacks.made()
    await start(make(), cytomine={"size": "M"})
    await until(lambda: stacks.one()["spec"]["size"] == "M")
    assert stacks.one()["spec"]["components"] == ["sam"]
    await start(make(), cytomine={"components": []})
    await until(lambda: stacks.one()["spec"]["components"] == [])
    assert stacks.one()["spec"]["size"] == "M"


async def test_a_start_that_changes_nothing_writes_nothing(make, stacks):
    await start(make(), cytomine={"components": ["sam", "cbir"]})
    before = await stacks.made()
    spawner = make()
    await start(spawner, cytomine={"size": "S", "components": ["cbir", "sam"]})
    await spawner._companion._making
    assert stacks.one()["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_a_start_of_a_failed_stack_tries_again(make, stacks):
    await start(make(), cytomine=True)
    await stacks.made()
    stacks.report(phase="Failed", reason="ImagePullFailed", message="No such image.")
    await start(make(), cytomine=True)
    await until(lambda: stacks.one()["spec"]["retry"] == 1)


async def test_many_starts_at_once_make_one_stack(make, stacks):
    several = [make(cytomine_wait=True, cytomine_wait_timeout=1) for _ in range(6)]
    for spawner in several:
        await spawner._run_apply_user_options({"cytomine": True})
        await spawner._begin_companion()
    made = await asyncio.gather(*(spawner._companion._making for spawner in several))
    assert {stack.uid for stack in made} == {stacks.one()["metadata"]["uid"]}


async def test_each_server_has_a_stack_of_its_own(make, stacks):
    for spawner in (make(), named(make(), "second")):
        await spawner._run_apply_user_options({"cytomine": True})
        await spawner._begin_companion()
        await spawner._companion._making
    assert sorted(stack["spec"]["serverName"] for stack in stacks.all()) == ["", "second"]


# The notebook starts whatever happens


async def begins(spawner, **options):
    """The lines of a start whose stack cannot be had."""
    await start(spawner, **options)
    assert await spawner._companion._making is None
    return lines(spawner)


async def test_a_hub_without_the_right_still_starts_the_notebook(make, api, namespace, monkeypatch):
    client = ApiClient(header_name="Impersonate-User", header_value="nobody")
    monkeypatch.setattr("cytomine_spawner.cluster.stackapi.shared_client", lambda _: CustomObjectsApi(client))
    async with client:
        told = await begins(make(), cytomine=True)
    assert len(api.items(namespace, "pods")) == 1
    assert any("does not let the hub do this" in line and "nobody" in line for line in told)
    assert "The notebook starts without it." in told[-1]


async def test_a_cluster_without_the_definition_still_starts_the_notebook(make, api, namespace, monkeypatch):
    monkeypatch.setattr("cytomine_spawner.cluster.stackapi.PLURAL", "cytominenothings")
    spawner = make()
    told = await begins(spawner, cytomine=True)
    assert len(api.items(namespace, "pods")) == 1
    assert any("Cytomine is not installed on this cluster" in line for line in told)
    # and the form says so in place of a choice
    assert "Cytomine is not installed" in await spawner.get_options_form()
    await spawner._delete_stack()


async def test_an_api_server_that_is_gone_still_starts_the_notebook_and_is_tried_for_a_while(
    make, api, namespace, monkeypatch
):
    client = ApiClient(Configuration(host="http://127.0.0.1:9"))
    monkeypatch.setattr("cytomine_spawner.cluster.stackapi.shared_client", lambda _: CustomObjectsApi(client))
    async with client:
        spawner = make(k8s_api_request_retry_timeout=2)
        told = await begins(spawner, cytomine=True)
        assert len(api.items(namespace, "pods")) == 1
        assert told[0] == "Cytomine: The cluster does not answer. Trying again."
        assert "you may choose all the same" in await spawner.get_options_form()


async def test_a_stack_on_its_way_out_is_awaited_and_made_anew(make, api, stacks):
    await start(make(), cytomine=True)
    old = await stacks.made()
    path = f"{stacks.path}/cm-ada"
    api.patch(path, {"metadata": {"finalizers": ["tests.example.org/hold"]}})
    api.http.delete(path)
    spawner = make()
    await start(spawner, cytomine=True)
    await until(lambda: any("still being removed" in line for line in lines(spawner)))
    api.patch(path, {"metadata": {"finalizers": None}})
    new = await until(lambda: [s for s in stacks.all() if s["metadata"]["uid"] != old["metadata"]["uid"]])
    assert new[0]["spec"]["owner"] == "ada"


# Quotas


async def test_a_second_stack_over_the_limit_is_a_400_and_the_form_says_why(make, stacks):
    await start(make(), cytomine=True)
    await stacks.made()
    stacks.report(phase="Ready", ready="8/8")
    second = named(make(), "second")
    with pytest.raises(OptionsError) as caught:
        await second._run_apply_user_options({"cytomine": True})
    assert caught.value.field == "cytomine"
    assert "You may run one stack at a time and cm-ada already runs" in caught.value.sentence
    assert "You may run one stack at a time" in await second.get_options_form()
    # without Cytomine, and for the stack that runs already, there is nothing to refuse
    await second._run_apply_user_options({})
    await make()._run_apply_user_options({"cytomine": True})


async def test_other_peoples_stacks_count_where_there_is_a_limit_for_all(make, stacks):
    await start(make("bo"), cytomine=True)
    await stacks.made()
    stacks.report("cm-bo", phase="Starting")
    spawner = make()
    await spawner._run_apply_user_options({"cytomine": True})
    spawner.config.StackSettings.max_stacks = 1
    with pytest.raises(OptionsError, match="that may run at a time are in use"):
        await spawner._run_apply_user_options({"cytomine": True})


# Progress and waiting


async def test_the_progress_names_components_and_ends_with_the_notebook(make, stacks):
    spawner = make(cytomine_wait=True, cytomine_wait_timeout=30)
    await spawner._run_apply_user_options({"cytomine": True})
    begun = asyncio.ensure_future(spawner.start())
    seen = []

    async def watch():
        seen.extend([event async for event in spawner.progress()])

    watching = asyncio.ensure_future(watch())
    await stacks.made()

    def component(name, state):
        return {"name": name, "state": state}

    stacks.report(
        phase="Starting",
        ready="0/2",
        components=[component("postgis", "Starting"), component("core", "Waiting")],
    )
    await until(lambda: any("Database is starting (0 of 2 parts ready)" in line for line in lines(spawner)))
    stacks.report(
        phase="Starting",
        ready="1/2",
        slowest="core",
        components=[component("postgis", "Ready"), component("core", "Starting")],
    )
    wanted = "Cytomine: Core is starting, Database is ready (1 of 2 parts ready; slowest: Core)"
    await until(lambda: wanted in lines(spawner))
    assert not begun.done()
    stacks.report(phase="Ready", ready="2/2", slowest=None)
    await asyncio.wait_for(begun, 20)
    await asyncio.wait_for(watching, 10)
    messages = [event["message"] for event in seen]
    assert messages.count(wanted) == 1
    assert "Cytomine is ready." in messages
    (event,) = [event for event in seen if event["message"] == wanted]
    assert 'href="/services/cytomine/stacks/cm-ada"' in event["html_message"]
    # nothing goes on watching
    await asyncio.wait({spawner._companion._following}, timeout=5)
    assert spawner._companion._following.done()


async def test_a_start_does_not_wait_unless_told_to(make, stacks):
    spawner = make()
    await start(spawner, cytomine=True)
    await stacks.made()
    assert not spawner._companion._settled.done()


async def test_a_wait_has_an_end_and_says_so(make, stacks):
    spawner = make(cytomine_wait=True, cytomine_wait_timeout=3)
    await start(spawner, cytomine=True)
    assert "the notebook starts now, Cytomine when it is ready" in lines(spawner)[-1]


async def test_a_wait_ends_at_once_when_the_stack_fails(make, stacks):
    spawner = make(cytomine_wait=True, cytomine_wait_timeout=50)
    await spawner._run_apply_user_options({"cytomine": True})
    begun = asyncio.ensure_future(spawner.start())
    await stacks.made()
    stacks.report(phase="Failed", reason="Unschedulable", message="No node has 3 GiB of memory left.")
    await asyncio.wait_for(begun, 20)
    assert "Cytomine failed: No node has 3 GiB of memory left." in lines(spawner)


# The end


async def test_a_stop_leaves_the_stack_and_a_deletion_removes_it(make, stacks):
    spawner = make()
    await start(spawner, cytomine=True)
    await stacks.made()
    await spawner.stop()
    assert stacks.one()["spec"]["desiredState"] == "Running"
    after_a_restart = make()
    await after_a_restart.delete_forever()
    assert stacks.all() == []
    await after_a_restart.delete_forever()  # nothing is left to delete, and that is fine


async def test_a_deletion_right_after_the_start_leaves_nothing(make, stacks):
    spawner = make()
    await spawner._run_apply_user_options({"cytomine": True})
    await spawner._begin_companion()
    making = spawner._companion._making
    await spawner.delete_forever()
    assert making.done()
    assert stacks.all() == []


async def test_the_lists_for_the_form_are_small(make, stacks, namespace):
    await start(make(), cytomine=True)
    await start(make("bo"), cytomine=True)
    await until(lambda: len(stacks.all()) == 2)
    stacks.report(phase="Ready", components=[{"name": "core", "state": "Ready"}])
    calls = StackApi(namespace, 5)
    (mine,) = await calls.list(["cm-ada", "cm-gone"])
    assert (mine.name, mine.status.components) == ("cm-ada", ())
    assert len(await calls.list()) == 2
