"""The spawner without a cluster: settings, pod, failures, and what it says when it cannot see."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from jupyterhub.app import JupyterHub
from kubernetes_asyncio.client import ApiException, Configuration
from kubespawner import KubeSpawner
from traitlets import TraitError
from traitlets.config import Config

from cytomine_spawner import CytomineSpawner
from cytomine_spawner.hub.failures import NotebookFailed
from cytomine_spawner.hub.options.errors import OptionsError
from tests.support.kube import make_spawner

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[3]
LS_LOGIN_NAME = "28f7bc3a2d32a4a0a1b2c3d4e5f60718293a4b5c@lifescience-ri.eu"


def reflector(pods=None, *, dead=False, loaded=True):
    """What the spawner sees of a reflector: its cache, and whether somebody still fills it."""
    first = asyncio.get_running_loop().create_future()
    if loaded:
        first.set_result(None)
    task = SimpleNamespace(done=lambda: dead)
    return SimpleNamespace(pods=pods or {}, events=[], first_load_future=first, watch_task=task)


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch):
    """In place of a kubeconfig: a port where nobody listens."""

    def nowhere(**_):
        Configuration.set_default(Configuration(host="http://127.0.0.1:9"))

    monkeypatch.setattr("kubespawner.spawner.load_config", nowhere)


@pytest.fixture(autouse=True)
def reflectors(monkeypatch):
    registry = {}
    monkeypatch.setattr(KubeSpawner, "reflectors", registry)
    return registry


@pytest.fixture
async def spawner():
    return make_spawner(CytomineSpawner)


# Settings


def test_jupyterhub_finds_the_spawner_by_its_short_name(tmp_path, monkeypatch):
    # the entry points as an installation of this checkout would write them
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [
        line
        for group, points in groups.items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in points.items()))
    ]
    info = tmp_path / "cytomine_spawner-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cytomine-spawner\nVersion: 0\n")
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    assert (
        JupyterHub(config=Config(JupyterHub={"spawner_class": "cytomine"})).spawner_class is CytomineSpawner
    )


def test_the_package_can_be_imported_without_kubespawner():
    code = (
        "import sys; sys.modules['kubespawner'] = None; sys.modules['jupyterhub'] = None;"
        "import cytomine_spawner; print(cytomine_spawner.__version__)"
    )
    assert subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_package_gives_both_classes_that_a_configuration_names():
    import cytomine_spawner
    from cytomine_spawner import lslogin

    assert cytomine_spawner.CytomineSpawner is CytomineSpawner
    assert cytomine_spawner.LSLoginAuthenticator is lslogin.LSLoginAuthenticator
    assert {"CytomineSpawner", "LSLoginAuthenticator"} <= set(cytomine_spawner.__all__)
    with pytest.raises(AttributeError):
        _ = lslogin.NoSuchName


def test_a_configuration_finds_the_archives_scopes_where_they_were():
    from cytomine_spawner import lslogin_token
    from cytomine_spawner.lslogin import token

    assert (lslogin_token.SCOPE, lslogin_token.IMPORT_SCOPE) == (token.SCOPE, token.IMPORT_SCOPE)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"notebook_images": [{"name": "a"}]}, r"CytomineSpawner.notebook_images\[0\].image"),
        ({"notebook_sizes": [{"name": "a", "mem_limit": "lots"}]}, r"notebook_sizes\[0\].mem_limit"),
        ({"notebook_sizes": []}, "at least one size"),
        ({"profile_list": [{"display_name": "x"}]}, "profile_list is not used"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place(settings, place):
    with pytest.raises(TraitError, match=place):
        make_spawner(CytomineSpawner, **settings)


async def test_without_a_list_the_configured_image_is_the_only_one():
    spawner = make_spawner(CytomineSpawner, notebook_images=[], image="example/own:7")
    await spawner._run_apply_user_options({})
    assert spawner.image == "example/own:7"


# Options


async def test_the_choice_sets_image_cores_and_memory(spawner):
    await spawner._run_apply_user_options({"image": "standard", "size": "large"})
    assert (spawner.image, spawner.cpu_limit, spawner.mem_guarantee) == ("example/lab:1", 4, 4 * 2**30)


async def test_nothing_of_the_last_size_is_left_in_the_next(spawner):
    await spawner._run_apply_user_options({"size": "large"})
    await spawner._run_apply_user_options({"size": "small"})
    assert (spawner.cpu_guarantee, spawner.cpu_limit) == (0.5, 1)
    assert (spawner.mem_guarantee, spawner.mem_limit) == (None, 2 * 2**30)


async def test_a_start_without_the_hubs_hook_is_checked_too(spawner):
    spawner.user_options = {"image": "nope"}
    with pytest.raises(OptionsError):
        await spawner.load_user_options()
    spawner.user_options = {"size": "large"}
    await spawner.load_user_options()
    assert spawner.cpu_limit == 4


async def test_an_administrators_hook_has_the_last_word():
    async def more(spawner, options):
        spawner.cpu_limit = 12

    spawner = make_spawner(CytomineSpawner, apply_user_options=more)
    await spawner._run_apply_user_options({"size": "small"})
    await spawner.load_user_options()
    assert spawner.cpu_limit == 12


async def test_a_group_member_gets_the_groups_size():
    member = make_spawner(CytomineSpawner, groups=("pathology",))
    await member._run_apply_user_options({"size": "huge"})
    assert member.cpu_limit == 16
    with pytest.raises(OptionsError):
        await make_spawner(CytomineSpawner)._run_apply_user_options({"size": "huge"})


# The pod


async def test_the_pod_shows_no_token_and_no_name_outside_annotations_and_environment():
    spawner = make_spawner(CytomineSpawner, user=LS_LOGIN_NAME)
    await spawner._run_apply_user_options({})
    pod = await spawner.get_pod_manifest()
    assert spawner.api_token not in str(pod)
    assert pod.metadata.annotations["hub.jupyter.org/username"] == LS_LOGIN_NAME
    assert not any("lifescience" in value for value in pod.metadata.labels.values())
    assert all(len(value) <= 63 for value in pod.metadata.labels.values())
    wanted = {"name", "instance", "component", "part-of", "managed-by"}
    assert {f"app.kubernetes.io/{key}" for key in wanted} <= set(pod.metadata.labels)


async def test_extra_labels_win():
    spawner = make_spawner(CytomineSpawner, extra_labels={"app.kubernetes.io/part-of": "mine", "a": "b"})
    labels = (await spawner.get_pod_manifest()).metadata.labels
    assert (labels["app.kubernetes.io/part-of"], labels["a"]) == ("mine", "b")


async def test_the_pod_has_no_rights_that_it_does_not_need(spawner):
    pod = await spawner.get_pod_manifest()
    assert pod.spec.automount_service_account_token is False
    assert pod.spec.security_context["runAsNonRoot"] is True
    assert pod.spec.security_context["fsGroup"] == 1000
    (container,) = pod.spec.containers
    assert container.security_context["runAsUser"] == 1000
    assert container.security_context["allowPrivilegeEscalation"] is False
    assert container.security_context["capabilities"] == {"drop": ["ALL"]}


async def test_the_token_can_stay_in_the_environment():
    pod = await make_spawner(CytomineSpawner, token_in_secret=False).get_pod_manifest()
    (container,) = pod.spec.containers
    assert {variable.value for variable in container.env if variable.name == "JUPYTERHUB_API_TOKEN"} == {
        "t0ken"
    }


# Failures of a start


def following(spawner, reflectors, monkeypatch, pod):
    """A start of KubeSpawner that never ends, beside a pod in some state."""
    reflectors["pods", "test"] = reflector({f"test/{spawner.pod_name}": pod})

    async def never(self):
        await asyncio.Event().wait()

    monkeypatch.setattr(KubeSpawner, "_start", never)


PULLING = {
    "status": {
        "containerStatuses": [
            {
                "name": "notebook",
                "image": "i:1",
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "404"}},
            }
        ]
    }
}
FULL = {
    "status": {
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/1 nodes: no memory",
            }
        ]
    }
}


async def test_a_start_ends_with_the_reason_and_not_with_a_timeout(reflectors, monkeypatch):
    spawner = make_spawner(CytomineSpawner, failure_grace=0, start_timeout=300)
    following(spawner, reflectors, monkeypatch, PULLING)
    with pytest.raises(NotebookFailed, match="i:1 cannot be pulled: 404"):
        await asyncio.wait_for(spawner.start(), 5)


async def first_notice(spawner):
    """What progress says beside the cluster's events."""
    async for event in spawner.progress():
        if event["message"] != "event":
            break
    return event["message"]


async def test_a_full_cluster_is_given_time_and_the_progress_says_so(reflectors, monkeypatch):
    spawner = make_spawner(CytomineSpawner, unschedulable_grace=100, start_timeout=300, events_enabled=False)
    following(spawner, reflectors, monkeypatch, FULL)
    monkeypatch.setattr(KubeSpawner, "progress", endless)
    start = spawner.start()

    message = await asyncio.wait_for(first_notice(spawner), 5)
    assert "no memory" in message
    assert "Waiting up to 100 s" in message
    assert not start.done()
    start.cancel()


async def test_a_start_that_takes_a_default_for_what_is_gone_says_so_in_log_and_progress(
    spawner, reflectors, monkeypatch, caplog
):
    following(spawner, reflectors, monkeypatch, None)
    monkeypatch.setattr(KubeSpawner, "progress", endless)
    # The request has no options: the hub passes on those of the last start.
    spawner.handler = SimpleNamespace(get_json_body=lambda: None)
    with caplog.at_level(logging.WARNING):
        await spawner._run_apply_user_options({"image": "retired", "size": "large"})
    told = "Your previous choice 'retired' is no longer offered. With GPU is selected instead."
    assert told in caplog.text
    start = spawner.start()

    assert await asyncio.wait_for(first_notice(spawner), 5) == told
    start.cancel()
    # The next start has options of its own, and nothing to tell.
    spawner.handler = None
    await spawner._run_apply_user_options({"image": "standard"})
    assert spawner._told == []


async def test_a_start_without_a_known_reason_still_ends_with_a_sentence(reflectors, monkeypatch):
    spawner = make_spawner(CytomineSpawner, start_timeout=1)
    following(spawner, reflectors, monkeypatch, {"status": {}})
    reflectors["events", "test"] = reflector()
    event = {
        "involvedObject": {"name": spawner.pod_name},
        "message": "FailedMount: no such disk",
        "metadata": {},
    }
    reflectors["events", "test"].events = [event]
    with pytest.raises(NotebookFailed, match=r"not ready within 0 s.*no such disk"):
        await asyncio.wait_for(spawner.start(), 5)


async def test_a_refusal_of_the_cluster_becomes_a_sentence(spawner, reflectors, monkeypatch):
    async def refused(self):
        error = ApiException(status=403)
        error.body = '{"message": "pods is forbidden: exceeded quota: q, requested: a, used: b, limited: c"}'
        raise error

    monkeypatch.setattr(KubeSpawner, "_start", refused)
    with pytest.raises(NotebookFailed, match="The quota q has no room"):
        await spawner.start()


async def test_other_errors_of_the_cluster_stay_what_they_are(spawner, reflectors, monkeypatch):
    async def broken(self):
        raise ApiException(status=500)

    monkeypatch.setattr(KubeSpawner, "_start", broken)
    with pytest.raises(ApiException):
        await spawner.start()


async def test_a_fault_of_the_watcher_does_not_cost_the_start(spawner, reflectors, monkeypatch):
    async def slow(self):
        await asyncio.sleep(0.2)
        return "http://pod:8888"

    monkeypatch.setattr(KubeSpawner, "_start", slow)
    reflectors["pods", "test"] = reflector({f"test/{spawner.pod_name}": "not a pod"})
    spawner.token_in_secret = False
    assert await spawner.start() == "http://pod:8888"


# Progress


async def endless(self):
    while True:
        await asyncio.sleep(0.05)
        yield {"message": "event"}


async def test_progress_never_raises(spawner, monkeypatch):
    async def broken(self):
        yield {"progress": 10, "message": "one"}
        raise KeyError("lastTimestamp")

    monkeypatch.setattr(KubeSpawner, "progress", broken)
    messages = [event["message"] async for event in spawner.progress()]
    assert messages[0] == "one"
    assert "cannot be shown" in messages[1]


async def test_progress_passes_events_on_and_ends_with_them(spawner, monkeypatch):
    async def three(self):
        for number in range(3):
            yield {"progress": number, "message": str(number)}

    monkeypatch.setattr(KubeSpawner, "progress", three)
    assert [event["progress"] async for event in spawner.progress()] == [0, 1, 2]


async def test_events_may_end_while_a_notice_is_told(spawner, monkeypatch):
    last = asyncio.Event()

    async def late(self):
        yield {"progress": 10, "message": "one"}
        await last.wait()

    monkeypatch.setattr(KubeSpawner, "progress", late)
    spawner._notify("full")
    messages = []
    async for event in spawner.progress():
        messages.append(event["message"])
        if event["message"] == "one":
            spawner._notify("later")
        if event["message"] == "later":
            last.set()
            # As long as the page takes to be told: the events end meanwhile.
            for _ in range(10):
                await asyncio.sleep(0)
    assert messages == ["full", "one", "later"]


async def test_a_notice_is_told_once_to_everybody_who_watches(spawner, monkeypatch):
    monkeypatch.setattr(KubeSpawner, "progress", endless)
    for _ in range(3):
        spawner._notify("full")

    async def notices():
        seen = []
        async for event in spawner.progress():
            seen.append(event["message"])
            if len(seen) > 5:
                break
        return seen.count("full")

    assert await asyncio.gather(notices(), notices()) == [1, 1]


# Polling


async def test_a_dead_reflectors_empty_cache_is_not_believed(spawner, reflectors, monkeypatch):
    reflectors["pods", "test"] = reflector(dead=True)
    running = {"metadata": {}, "status": {"phase": "Pending"}}
    replaced = []

    async def restart(self, replace=False):
        if replace:
            replaced.append(True)
            reflectors["pods", "test"] = reflector({f"test/{self.pod_name}": running})

    monkeypatch.setattr(KubeSpawner, "_start_watching_pods", restart)
    assert await spawner.poll() is None
    assert replaced == [True]
    await spawner.poll()
    assert replaced == [True]


async def test_without_the_api_server_a_server_counts_as_running(spawner):
    # the first poll of KubeSpawner raises, its second one says "stopped" from an empty cache
    assert await spawner.poll() is None
    assert await spawner.poll() is None


async def test_a_reflector_that_could_not_be_replaced_is_reported_once(spawner, reflectors, monkeypatch):
    # asyncio reports what nobody looked at when it collects it: far from its cause, in whatever runs then
    # pytest keeps what is logged, and with it the errors
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    assert [await spawner.poll(), await spawner.poll()] == [None, None]
    assert reflectors
    reflectors.clear()
    gc.collect()
    assert not reported


async def test_a_pod_that_is_gone_is_reported_as_stopped(spawner, reflectors):
    reflectors["pods", "test"] = reflector()
    assert await spawner.poll() == 1


async def test_a_reflector_that_is_being_loaded_is_left_alone(spawner, reflectors):
    reflectors["pods", "test"] = loading = reflector(dead=True, loaded=False)
    poll = asyncio.ensure_future(spawner.poll())
    await asyncio.sleep(0)
    assert reflectors["pods", "test"] is loading
    loading.first_load_future.set_result(None)
    assert await poll == 1
