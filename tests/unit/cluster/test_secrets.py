"""The program that makes the hub's Secret, against an API that answers as told."""

from __future__ import annotations

import base64
from types import SimpleNamespace

import pytest
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiException

from cytomine_spawner.cluster import hubsecret
from tests.support.kube import kubeconfig


class Api:
    """One Secret, with versions as the API server keeps them."""

    def __init__(self, data=None, fail=()):
        self.data = data
        self.version = 1
        self.fail = list(fail)
        self.calls = []
        self.before_write = lambda: None

    def _maybe_fail(self):
        if self.fail:
            error = self.fail.pop(0)
            if error:
                raise error

    async def read_namespaced_secret(self, name, namespace, **_):
        self.calls.append("get")
        self._maybe_fail()
        if self.data is None:
            raise ApiException(404, "Not Found")
        return SimpleNamespace(
            data=dict(self.data), metadata=SimpleNamespace(resource_version=str(self.version))
        )

    async def create_namespaced_secret(self, namespace, body, **_):
        self.calls.append("create")
        self.before_write()
        if self.data is not None:
            raise ApiException(409, "AlreadyExists")
        self.data = dict(body["data"])
        self.labels = body["metadata"]["labels"]

    async def patch_namespaced_secret(self, name, namespace, body, **_):
        self.calls.append("patch")
        self.before_write()
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise ApiException(409, "Conflict")
        self.data.update(body["data"])
        self.version += 1

    def change(self, **data):
        """Somebody else writes, once."""
        self.data = {**(self.data or {}), **data}
        self.version += 1
        self.before_write = lambda: None


def decoded(api, key):
    return base64.b64decode(api.data[key]).decode()


async def test_a_secret_that_is_not_there_is_made_with_64_random_hexadecimal_digits_a_key():
    api = Api()
    assert await hubsecret.ensure(api, "ns", "s", ["a", "b", "a"], {"x": "y"}) == ["a", "b"]
    values = [decoded(api, key) for key in ("a", "b")]
    assert all(len(bytes.fromhex(value)) == 32 for value in values)
    assert values[0] != values[1]
    assert api.labels == {"x": "y"}


async def test_what_is_there_is_never_changed_and_only_what_lacks_is_added():
    api = Api({"a": "b2xk", "empty": ""})
    assert await hubsecret.ensure(api, "ns", "s", ["a", "empty", "b"]) == ["empty", "b"]
    assert api.data["a"] == "b2xk"
    assert await hubsecret.ensure(api, "ns", "s", ["a", "empty", "b"]) == []
    assert api.calls == ["get", "patch", "get"]


@pytest.mark.parametrize("there", [None, {"other": "eA=="}])
async def test_a_key_that_somebody_else_makes_meanwhile_wins(there):
    api = Api(there)
    api.before_write = lambda: api.change(a="dGhlaXJz")
    assert await hubsecret.ensure(api, "ns", "s", ["a", "b"]) == ["b"]
    assert api.data["a"] == "dGhlaXJz"
    assert len(decoded(api, "b")) == 64


class Secrets:
    """Several Secrets."""

    def __init__(self, **data):
        self.named = {name.replace("_", "-"): Api(found) for name, found in data.items()}

    async def read_namespaced_secret(self, name, namespace, **more):
        return await self.named[name].read_namespaced_secret(name, namespace, **more)

    async def create_namespaced_secret(self, namespace, body, **more):
        await self.named[body["metadata"]["name"]].create_namespaced_secret(namespace, body, **more)


@pytest.mark.parametrize(
    ("before", "taken"), [({"token": "b2xk"}, True), ({"other": "b2xk"}, False), (None, False)]
)
async def test_a_key_of_a_secret_of_its_own_is_what_the_hubs_secret_had_from_before_or_else_new(
    before, taken
):
    api = Secrets(hub_secrets=before, own=None)
    assert await hubsecret.ensure(api, "ns", "own", ["token"], known_by="hub-secrets") == ["token"]
    assert (api.named["own"].data["token"] == "b2xk") is taken
    assert taken or len(decoded(api.named["own"], "token")) == 64
    assert api.named["hub-secrets"].data == before
    # And from then on it stays, whatever the hub's has.
    value = dict(api.named["own"].data)
    api.named["hub-secrets"].data = {"token": "bmV3"}
    assert await hubsecret.ensure(api, "ns", "own", ["token"], known_by="hub-secrets") == []
    assert api.named["own"].data == value


async def test_a_secret_that_never_stands_still_is_a_sentence():
    api = Api({"a": ""})

    def again():
        api.change(n=str(api.version))
        api.before_write = again

    api.before_write = again
    with pytest.raises(hubsecret.SecretsError, match="changes all the time"):
        await hubsecret.ensure(api, "ns", "s", ["a"])


async def test_an_api_server_that_starts_late_is_waited_for():
    api = Api(fail=[OSError("refused"), ApiException(503, "not yet"), TimeoutError()])
    assert await hubsecret.ensure_patiently(api, 5, "ns", "s", ["a"]) == ["a"]


async def test_a_refusal_is_not_waited_out():
    api = Api(fail=[ApiException(403, "Forbidden")])
    with pytest.raises(ApiException):
        await hubsecret.ensure_patiently(api, 60, "ns", "s", ["a"])
    assert api.calls == ["get"]


COMMAND = ["--namespace", "ns", "--name", "s", "--key", "a", "--wait", "0.3"]


@pytest.fixture
def outside(monkeypatch, tmp_path):
    """Not in a pod, and with a kubeconfig whose server does not answer."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    load, path = config.load_kube_config, str(kubeconfig(tmp_path))
    monkeypatch.setattr(config, "load_kube_config", lambda: load(config_file=path))


def test_an_api_server_that_does_not_answer_is_one_sentence(outside, capsys):
    assert hubsecret.main(COMMAND) == 1
    said = capsys.readouterr().err
    assert said.startswith("The API server did not answer within 0.3 s")
    assert "NetworkPolicies" in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, "existingSecret"),
        (404, "create it first"),
        (422, "immutable"),
        (418, "refused the Secret s in ns: 418"),
    ],
)
def test_a_refusal_is_one_sentence_with_the_cure(outside, monkeypatch, capsys, status, said):
    async def refuse(*_):
        raise ApiException(status, "reason")

    monkeypatch.setattr(hubsecret, "ensure_patiently", refuse)
    assert hubsecret.main(COMMAND) == 1
    assert said in capsys.readouterr().err


def test_no_value_is_printed(outside, monkeypatch, capsys):
    api = Api()

    async def with_fake(_, wait, *args):
        return await hubsecret.ensure(api, *args)

    monkeypatch.setattr(hubsecret, "ensure_patiently", with_fake)
    assert hubsecret.main(COMMAND) == 0
    printed = "".join(capsys.readouterr())
    assert printed == "Secret s in ns: made a.\n"
    assert hubsecret.main(COMMAND) == 0
    assert capsys.readouterr().out == "Secret s in ns: all keys were there.\n"


@pytest.mark.parametrize("pair", ["own", "own=", "=key"])
def test_a_secret_apart_without_its_key_is_refused(capsys, pair):
    with pytest.raises(SystemExit):
        hubsecret.main([*COMMAND, "--apart", pair])
    assert "--apart takes NAME=KEY" in capsys.readouterr().err


def test_a_label_without_a_value_is_refused(capsys):
    with pytest.raises(SystemExit):
        hubsecret.main([*COMMAND, "--label", "x"])
    assert "--label x is not NAME=VALUE" in capsys.readouterr().err
