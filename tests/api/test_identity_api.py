"""The Secrets of the stacks' login on a real API server: who owns them, who may change them, who sees them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from kubernetes_asyncio import client, config

from cytomine_spawner.cluster.client import Kube
from cytomine_spawner.cluster.secretstore import KubeVault
from cytomine_spawner.identity.grants import Grants, sessions_secret
from cytomine_spawner.identity.keyring import Keyring
from cytomine_spawner.operator.children import LABEL
from cytomine_spawner.stack.model import Stack, StackSpec, new_stack
from tests.support.apiserver import Kubectl


@pytest.fixture
async def kube(kubectl: Kubectl) -> AsyncIterator[Kube]:
    settings = client.Configuration()
    await config.load_kube_config(str(kubectl.kubeconfig), client_configuration=settings)
    async with client.ApiClient(settings) as api:
        yield Kube(api, kubectl.namespace)


@pytest.fixture
async def stack(kube: Kube) -> Stack:
    made = new_stack(kube.namespace, StackSpec(owner="ada"))
    assert await kube.create(made.to_object())
    found = await kube.get("CytomineStack", made.name)
    assert found
    return Stack.from_object(found)


async def test_a_secret_is_changed_only_by_whoever_read_it_last(kube: Kube) -> None:
    vault = KubeVault(kube)
    assert await vault.read("keys") is None
    assert await vault.create("keys", {"a": "1", "b": "ü"})
    assert not await vault.create("keys", {"a": "2"})
    first = await vault.read("keys")
    assert first
    assert first.data == {"a": "1", "b": "ü"}
    version = await vault.replace("keys", {"a": "2"}, first.version)
    assert version
    assert await vault.replace("keys", {"a": "3"}, first.version) is None
    assert await vault.replace("keys", {"a": "3"}, version)
    found = await vault.read("keys")
    assert found
    assert found.data == {"a": "3", "b": "ü"}
    assert await vault.replace("gone", {"a": "1"}, version) is None


async def test_processes_that_start_together_make_one_pair_of_keys(kube: Kube) -> None:
    rings = [Keyring(KubeVault(kube), "keys", age=10_000) for _ in range(3)]
    await asyncio.gather(*(ring.load() for ring in rings))
    assert len({json.dumps(ring.jwks()) for ring in rings}) == 1


async def test_sessions_die_with_their_stack_and_the_operator_does_not_see_them(
    kube: Kube, stack: Stack
) -> None:
    books = Grants(KubeVault(kube))
    book = await books.of(stack)
    about = {
        "client": "core",
        "user": "ada",
        "login": "x",
        "scopes": ["openid"],
        "nonce": "",
        "redirect": "x",
    }
    session, _ = book.begin(seal=lambda _: "sealed", challenge="c", **about)
    book.advance(session)
    await books.flush()
    name = sessions_secret(stack.name)
    secret = await kube.get("Secret", name)
    assert secret
    assert [owner["uid"] for owner in secret["metadata"]["ownerReferences"]] == [stack.uid]
    assert name not in [s["metadata"]["name"] for s in (await kube.list("Secret", labels=LABEL))[0]]
    assert (await Grants(KubeVault(kube)).of(stack)).get(session.id)
    book.end(session)
    await books.flush()
    assert (await Grants(KubeVault(kube)).of(stack)).get(session.id) is None
    await kube.delete("CytomineStack", stack.name)

    async def gone() -> None:
        while await kube.get("Secret", name):  # noqa: ASYNC110 - a watch would be another test
            await asyncio.sleep(0.2)

    # Kubernetes' garbage collector does it; there is no operator here.
    await asyncio.wait_for(gone(), 60)
