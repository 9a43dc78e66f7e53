"""The stack beside the notebook, without a cluster: what is written, what is told, and what costs nothing."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest
from kubernetes_asyncio.client import Configuration
from kubespawner import KubeSpawner
from traitlets import TraitError

from cytomine_spawner import CytomineSpawner
from cytomine_spawner.cluster.stackapi import StackTrouble
from cytomine_spawner.hub.launch import Companion, Wanted, changes, new_spec, owner_groups
from cytomine_spawner.hub.options.errors import OptionsError
from cytomine_spawner.hub.options.stack import CytomineChoice
from cytomine_spawner.hub.options.stack_form import Standing
from cytomine_spawner.stack.model import ComponentStatus, Condition, Desired, Phase, Reason, State
from cytomine_spawner.stack.progress import line, settled
from tests.support.kube import make_spawner
from tests.support.stacks import a_stack


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch):
    """In place of a kubeconfig: a port where nobody listens."""
    monkeypatch.setattr(
        "kubespawner.spawner.load_config",
        lambda **_: Configuration.set_default(Configuration(host="http://127.0.0.1:9")),
    )
    monkeypatch.setattr(KubeSpawner, "reflectors", {})


def make(**settings):
    return make_spawner(CytomineSpawner, **{"cytomine_enabled": True, **settings})


def wanted(choice=None, **more):
    return Wanted("ada", "", choice or CytomineChoice(), **more)


# What is written


def test_a_new_stack_has_what_was_chosen_and_else_the_defaults():
    choice = CytomineChoice(size="M", components=["cbir"], datasets=["mock"])
    spec = new_spec(wanted(choice, groups=("b", "a")), "Cytomine of Ada")
    assert spec.to_dict() == {
        "owner": "ada",
        "serverName": "",
        "displayName": "Cytomine of Ada",
        "size": "M",
        "components": ["cbir"],
        "datasets": ["mock"],
        "members": {"users": [], "groups": [], "access": []},
        "ownerGroups": ["a", "b"],
        "desiredState": "Running",
        "keepData": False,
        "retry": 0,
    }
    assert new_spec(wanted(default_size="L")).size == "L"


@pytest.mark.parametrize(
    ("stack", "choice", "patch"),
    [
        (a_stack(), CytomineChoice(), {}),
        (a_stack(size="L"), CytomineChoice(size="L"), {}),
        (a_stack(desired_state=Desired.HIBERNATED), CytomineChoice(), {"desiredState": "Running"}),
        (a_stack(size="L", extras=("sam",)), CytomineChoice(size="S"), {"size": "S"}),
        (a_stack(extras=("sam", "cbir")), CytomineChoice(components=["cbir", "sam"]), {}),
        (a_stack(extras=("sam",)), CytomineChoice(components=[]), {"components": []}),
        (a_stack(datasets=("a",)), CytomineChoice(datasets=["b"]), {"datasets": ["b"]}),
        (a_stack(phase=Phase.FAILED, retry=2, observed_retry=2), CytomineChoice(), {"retry": 3}),
        (a_stack(owner_groups=("x",)), CytomineChoice(), {"ownerGroups": []}),
    ],
)
def test_only_what_differs_is_patched(stack, choice, patch):
    assert changes(stack, wanted(choice)) == patch


def test_a_name_that_the_owner_gave_stays():
    assert changes(a_stack(display_name="Mine"), wanted(), "Cytomine of Ada") == {}
    assert changes(a_stack(), wanted(), "Cytomine of Ada") == {"displayName": "Cytomine of Ada"}


def test_groups_are_bounded_by_what_a_stack_can_hold():
    groups = owner_groups([*(f"group-{n}" for n in range(300)), "x" * 256, "", "group-1"])
    assert len(groups) == 200
    assert all(0 < len(group) <= 255 for group in groups)


# What is told


def component(name, state, **more):
    return ComponentStatus(name=name, state=state, **more)


def starting(*components, **changes):
    ready = sum(c.state is State.READY for c in components)
    return a_stack(phase=Phase.STARTING, components=components, ready=f"{ready}/{len(components)}", **changes)


def with_components(stack, *components, **status):
    return stack.replace(status=stack.status.replace(components=components, **status))


def test_a_line_names_the_components_that_changed_and_the_slowest():
    first = with_components(
        a_stack(phase=Phase.STARTING),
        component("postgis", State.STARTING),
        component("mongo", State.PULLING),
        component("core", State.WAITING),
        ready="0/3",
    )
    assert line(first) == (
        "Cytomine: Database is starting, Activity database is fetching its image (0 of 3 parts ready)"
    )
    second = with_components(
        first,
        component("postgis", State.READY),
        component("mongo", State.READY),
        component("core", State.STARTING),
        ready="2/3",
        slowest="core",
    )
    assert line(second, first) == (
        "Cytomine: Core is starting, Database and Activity database are ready "
        "(2 of 3 parts ready; slowest: Core)"
    )
    # the first event of a watch is the object as it is, and no news
    assert line(second, second) == ""
    later = with_components(second, *second.status.components, message="Still at it.")
    assert line(later, second) == ""


def importing(status, message):
    condition = Condition(
        type="DatasetsImported",
        status=status,
        reason="Any",
        message=message,
        last_transition_time="2026-01-01T00:00:00Z",
    )
    return a_stack(phase=Phase.READY, conditions=(condition,))


def test_datasets_that_are_in_are_no_news():
    assert line(importing("True", "Colon is in Cytomine.")) == "Cytomine is ready."


@pytest.mark.parametrize(
    ("stack", "words", "end"),
    [
        (a_stack(phase=None, observed_generation=None), "waits for its service", None),
        (a_stack(phase=Phase.READY), "Cytomine is ready.", ""),
        (importing("False", "Colon: 3 of 4."), "Cytomine is ready. Colon: 3 of 4.", ""),
        (a_stack(phase=Phase.READY, generation=2), "waits for its service", None),
        (a_stack(phase=Phase.HIBERNATED, generation=2), "wakes up", None),
        (a_stack(phase=Phase.FAILED, message="No such image."), "failed: No such image.", "No such image"),
        (a_stack(phase=Phase.DEGRADED, message="Sam fails."), "works in part: Sam fails.", "Sam fails"),
        (a_stack(phase=Phase.PENDING, message="Two before you."), "Two before you.", None),
        (
            a_stack(phase=Phase.PENDING, reason=Reason.QUOTA, message="One may run."),
            "One may run.",
            "One may run",
        ),
        (a_stack(deleting=True), "is being deleted", "deleted"),
    ],
)
def test_each_state_has_its_line_and_tells_whether_to_wait(stack, words, end):
    assert words in line(stack)
    found = settled(stack)
    assert found == end or (end and end in found)


# What costs nothing


async def test_a_start_without_cytomine_does_not_ask_the_cluster(monkeypatch):
    asked = []
    monkeypatch.setattr("cytomine_spawner.hub.stack_spawner.StackApi", lambda *_: asked.append(1))

    async def started(self):
        return "http://pod:8888"

    monkeypatch.setattr(KubeSpawner, "_start", started)
    spawner = make(token_in_secret=False)
    await spawner._run_apply_user_options({"cytomine": False})
    assert await spawner.start() == "http://pod:8888"
    assert spawner._companion is None
    assert asked == []


async def test_a_hub_without_cytomine_shows_nothing_of_it(monkeypatch):
    spawner = make(cytomine_enabled=False, groups=("a",))
    assert "option-cytomine" not in await spawner.get_options_form()
    with pytest.raises(OptionsError, match="offers no Cytomine"):
        await spawner._run_apply_user_options({"cytomine": True})
    await spawner._run_apply_user_options({})
    pod = await spawner.get_pod_manifest()
    assert not any("cytomine-spawner.org" in key for key in pod.metadata.labels)


# The spawner


async def test_only_the_named_groups_may():
    spawner = make(cytomine_groups=["pathology", "zoology"], groups=("botany",))
    with pytest.raises(OptionsError, match="members of the groups pathology, zoology"):
        await spawner._run_apply_user_options({"cytomine": True})
    assert "members of the groups pathology, zoology" in await spawner.get_options_form()


async def test_a_start_as_the_last_time_does_without_the_stack_that_has_no_place(monkeypatch):
    async def full(self):
        return Standing(refusal="You may run one stack at a time.")

    monkeypatch.setattr(CytomineSpawner, "standing", full)
    spawner = make()
    with pytest.raises(OptionsError, match="one stack at a time"):
        await spawner._run_apply_user_options({"size": "large", "cytomine": {"size": "M"}})
    # The hub passes on the options of the last start where the request has none.
    spawner.handler = SimpleNamespace(get_json_body=lambda: None)
    await spawner._run_apply_user_options({"size": "large", "cytomine": {"size": "M"}})
    assert spawner._choice is None
    assert spawner._told == ["The notebook starts without Cytomine: You may run one stack at a time."]
    assert spawner.user_options == {"image": "gpu", "size": "large"}


async def test_settings_that_are_wrong_refuse_the_stack_and_not_the_notebook():
    spawner = make()
    spawner.config.StackSettings.values_files = ["/nowhere.yaml"]
    assert "settings on this hub are wrong" in await spawner.get_options_form()
    await spawner._run_apply_user_options({})
    with pytest.raises(OptionsError, match="settings on this hub are wrong"):
        await spawner._run_apply_user_options({"cytomine": True})


async def test_the_labels_of_a_pod_are_bounded():
    spawner = make(groups=tuple(f"g{n}" for n in range(500)), extra_labels={"hub.jupyter.org/username": "x"})
    await spawner._run_apply_user_options({})
    labels = (await spawner.get_pod_manifest()).metadata.labels
    assert sum(value == "member" for value in labels.values()) == 64
    assert labels["hub.jupyter.org/username"] == "x"


async def test_the_names_of_traits_that_depend_on_others():
    spawner = make()
    assert (spawner.cytomine_namespace, spawner.cytomine_page_url) == ("test", "/services/cytomine/")
    spawner = make()
    spawner.config.StackSettings.namespace = "stacks"
    assert spawner.cytomine_namespace == "stacks"
    assert make(cytomine_page_url="https://hub/x").cytomine_page_url == "https://hub/x/"
    with pytest.raises(TraitError, match=r"CytomineSpawner.cytomine_datasets\[0\].name"):
        make(cytomine_datasets=[{}])


async def test_the_form_offers_the_datasets_that_the_service_imports_unless_told_otherwise():
    spawner = make()
    spawner.config.StackSettings.datasets = [{"name": "colon", "title": "Colon biopsies"}]
    assert "Colon biopsies" in await spawner.get_options_form()
    await spawner._run_apply_user_options({"cytomine": {"datasets": ["colon"]}})
    with pytest.raises(OptionsError, match="Allowed: colon"):
        await spawner._run_apply_user_options({"cytomine": {"datasets": ["lung"]}})
    other = make(cytomine_datasets=[{"name": "lung"}])
    other.config.StackSettings.datasets = [{"name": "colon"}]
    assert other.cytomine_datasets == [{"name": "lung"}]


async def test_a_link_in_the_progress_shows_what_the_service_wrote_as_text():
    spawner = make()
    spawner._notices = []
    spawner._tell_of_stack("<script>")
    (event,) = spawner._notices
    assert event["message"] == "<script>"
    assert "<script>" not in event["html_message"]
    assert 'href="/services/cytomine/stacks/cm-ada"' in event["html_message"]


async def test_the_stacks_lines_are_shown_where_pod_events_are_off(monkeypatch):
    spawner = make(events_enabled=False)
    spawner._start_future = asyncio.get_running_loop().create_future()

    async def events():
        return [event["message"] async for event in spawner.progress()]

    seen = asyncio.ensure_future(events())
    await asyncio.sleep(0)
    spawner._tell_of_stack("one")
    await asyncio.wait({seen}, timeout=0.1)
    spawner._tell_of_stack("two")
    assert not seen.done()
    spawner._start_future.set_result("url")
    assert await asyncio.wait_for(seen, 5) == ["one", "two"]


@pytest.mark.parametrize(
    ("state", "server", "title"),
    [
        ({"oauth_user": {"name": "Ada Lovelace"}}, "", "Cytomine of Ada Lovelace"),
        ({"oauth_user": {"name": "Ada Lovelace"}}, "second", "Cytomine of Ada Lovelace (second)"),
        (None, "", ""),
        ({}, "", ""),
    ],
)
async def test_a_stack_is_called_after_the_person(state, server, title):
    spawner = make()

    async def get_auth_state():
        return state

    spawner.user.get_auth_state = get_auth_state
    spawner.orm_spawner = SimpleNamespace(name=server, server=None) if server else None
    assert await spawner._stack_title() == title


# Whatever the cluster does


class Broken:
    """Calls that all fail in one way."""

    namespace = "test"

    def __init__(self, error):
        self.error = error
        self.calls = 0

    async def get(self, name):
        self.calls += 1
        raise self.error

    delete = get


@pytest.mark.parametrize(
    "error", [StackTrouble("No right.", final=True), StackTrouble("Silence.", final=False), KeyError("spec")]
)
async def test_a_companion_never_raises_and_says_once_why_there_is_no_stack(error, monkeypatch):
    monkeypatch.setattr("cytomine_spawner.hub.launch.PAUSE", 0.01)
    told = []

    async def title():
        raise RuntimeError

    companion = Companion(
        Broken(error), wanted(), tell=told.append, title=title, patience=0.05, log=logging.getLogger("test")
    )
    assert "Cytomine was not started" in await companion.wait(5)
    assert told[-1].endswith("The notebook starts without it.")
    assert len(told) == len(set(told))
    await asyncio.wait_for(companion._following, 5)
    await companion.end()


@pytest.mark.parametrize("error", [StackTrouble("No right.", final=True), KeyError("x")])
async def test_a_stack_that_cannot_be_deleted_does_not_stop_the_deletion_and_is_named_in_the_log(
    error, monkeypatch, caplog
):
    monkeypatch.setattr("cytomine_spawner.hub.stack_spawner.StackApi", lambda *_: Broken(error))
    spawner = make(delete_pvc=False)
    spawner.log = logging.getLogger("test")
    await spawner.delete_forever()
    assert "kubectl --namespace test delete cytominestack cm-ada" in caplog.text


async def test_a_deletion_is_tried_again_while_the_cluster_is_silent(monkeypatch):
    broken = Broken(StackTrouble("Silence.", final=False))
    monkeypatch.setattr("cytomine_spawner.hub.stack_spawner.StackApi", lambda *_: broken)
    await make(delete_pvc=False, k8s_api_request_retry_timeout=1).delete_forever()
    assert broken.calls > 1


async def test_an_end_comes_even_if_a_cancellation_is_lost(monkeypatch):
    monkeypatch.setattr("cytomine_spawner.hub.launch.END_SECONDS", 0.01)
    lost = []

    async def deaf():
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:  # noqa: PERF203 - the loss is the point
                if lost:
                    raise
                lost.append(1)

    companion = object.__new__(Companion)
    companion._following = asyncio.ensure_future(deaf())
    companion._making = asyncio.ensure_future(asyncio.sleep(0))
    await asyncio.sleep(0)
    await asyncio.wait_for(companion.end(), 10)
    assert lost
    assert companion._following.cancelled()
