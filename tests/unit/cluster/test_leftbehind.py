"""The look for what an earlier release left in the hub's namespace, without a cluster; with one: test_chart_users_api.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiException

from cytomine_spawner.cluster import leftbehind
from cytomine_spawner.stack import model
from tests.support.kube import kubeconfig

COMMAND = ["--namespace", "hub", "--users", "hub-users", "--release", "r", "--wait", "0.3"]


class Cluster:
    """Objects of one namespace by kind; each is its labels."""

    def __init__(self, claims=(), pods=(), stacks=()):
        self.claims, self.pods, self.stacks = claims, pods, stacks
        self.fail = None

    def _chosen(self, items, selector):
        key, _, value = selector.partition("=")
        return SimpleNamespace(items=[item for item in items if item.get(key) == value])

    async def list_namespaced_persistent_volume_claim(self, namespace, *, label_selector, **_):
        return self._chosen(self.claims, label_selector)

    async def list_namespaced_pod(self, namespace, *, label_selector, **_):
        return self._chosen(self.pods, label_selector)

    async def list_namespaced_custom_object(self, *_, **__):
        if self.fail:
            raise self.fail
        return {"items": list(self.stacks)}


OURS = {"cytomine-spawner.org/hub": "r"}
KEPT = {"app.kubernetes.io/managed-by": "cytomine-stacks"}


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ({}, []),
        ({"claims": [{"cytomine-spawner.org/hub": "another"}, {}], "pods": [{}]}, []),
        ({"claims": [OURS]}, ["volumes of users"]),
        ({"claims": [KEPT]}, ["volumes of users"]),
        ({"pods": [OURS]}, ["notebooks"]),
        ({"claims": [OURS], "pods": [OURS], "stacks": [{}]}, ["stacks", "volumes of users", "notebooks"]),
    ],
)
async def test_it_finds_what_is_of_the_releases_users_and_nothing_else(there, words):
    cluster = Cluster(**there)
    assert await leftbehind.left(cluster, cluster, "hub", "r") == words


def test_it_names_stacks_as_they_are_named():
    for name in ("GROUP", "VERSION", "PLURAL", "MANAGED_BY"):
        assert getattr(leftbehind, name) == getattr(model, name)


async def test_a_cluster_that_knows_no_stacks_has_none():
    cluster = Cluster(claims=[OURS])
    cluster.fail = ApiException(404, "Not Found")
    assert await leftbehind.left(cluster, cluster, "hub", "r") == ["volumes of users"]
    cluster.fail = ApiException(403, "Forbidden")
    with pytest.raises(ApiException):
        await leftbehind.left(cluster, cluster, "hub", "r")


def test_an_api_server_that_does_not_answer_is_one_sentence_and_not_taken_for_nothing(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    load, path = config.load_kube_config, str(kubeconfig(tmp_path))
    monkeypatch.setattr(config, "load_kube_config", lambda: load(config_file=path))
    assert leftbehind.main(COMMAND) == 1
    said = capsys.readouterr().err
    assert said.startswith("It is not known whether users' notebooks or stacks are in the namespace hub")
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize(("found", "code"), [([], 0), (["stacks"], 1)])
def test_it_says_what_it_found_and_which_value_to_set(monkeypatch, capsys, found, code):
    async def told(_):
        return found

    monkeypatch.setattr(leftbehind, "_run", told)
    assert leftbehind.main(COMMAND) == code
    said = capsys.readouterr().err
    assert not found or "holds stacks from when" in said
    assert not found or "Set users.namespace to hub to leave all where it is" in said
