"""The hub's configuration, loaded as JupyterHub loads it, from values and secrets in a folder."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from functools import cache
from pathlib import Path

import httpx
import pytest
from kubernetes_asyncio.client import ApiClient, Configuration
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from dev.wait import until
from tests.support import hubprocess
from tests.support.chart import (
    BASE,
    EXAMPLES,
    ROOT,
    example,
    find,
    hub_values,
    merged,
    render,
    restricted_violations,
)
from tests.support.hub import free_port
from tests.support.kube import kubeconfig

CONFIG = ROOT / "hub_config" / "jupyterhub_config.py"
KEYS = {
    "cookie-secret": "a1" * 32,
    "crypt-key": "b2" * 32,
    "proxy-token": "c3" * 32,
    "oidc-client-secret": "s3cret\n",
}
VALUES = {
    "release": {"name": "hub", "namespace": "cytomine"},
    "users": {"namespace": "cytomine-users"},
    "hub": {"connectUrl": "http://hub-hub:8081", "publicUrl": "https://hub.example", "baseUrl": "/"},
    "proxy": {"apiUrl": "http://hub-proxy-api:8001"},
    "lslogin": {"clientId": "client", "allowedGroups": ["users"]},
    "singleuser": {"image": "singleuser:1", "storage": {"capacity": "10Gi"}},
}


class Deployment:
    """What the chart mounts into the hub's pod, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in ("values", "secrets", "extra.d", "stacks"):
            (folder / part).mkdir()

    def put(self, values=VALUES, secrets=KEYS, snippets=(), stacks=()):
        (self.folder / "values" / "values.json").write_text(
            values if isinstance(values, str) else json.dumps(values)
        )
        for name, text in secrets.items():
            (self.folder / "secrets" / name).write_text(text)
        for name, text in dict(snippets).items():
            (self.folder / "extra.d" / name).write_text(text)
        for name, text in dict(stacks).items():
            (self.folder / "stacks" / name).write_text(text)
        return self

    def load(self) -> Config:
        return PyFileConfigLoader(CONFIG.name, path=str(CONFIG.parent)).load_config()

    def refused(self) -> str:
        with pytest.raises(SystemExit) as stop:
            self.load()
        assert isinstance(stop.value.code, str)
        assert "\n" not in stop.value.code
        return stop.value.code


@pytest.fixture
def deployment(tmp_path, monkeypatch):
    folder = tmp_path / "cytomine-hub"
    folder.mkdir()
    monkeypatch.setenv("CYTOMINE_HUB_DIR", str(folder))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path)))
    return Deployment(folder)


def of_chart(objects) -> dict:
    """The hub's files as the chart would mount them."""
    extra = [o for o in objects if o["kind"] == "Secret" and o["metadata"]["name"] == "hub-hub-extra"]
    stacks = [o for o in objects if o["kind"] == "Secret" and o["metadata"]["name"] == "hub-stacks-settings"]
    spec = find(objects, "Deployment", "hub-hub")["spec"]["template"]["spec"]
    (projected,) = [v["projected"] for v in spec["volumes"] if v["name"] == "secrets"]
    names = [item["path"] for source in projected["sources"] for item in source["secret"]["items"]]
    given = {**KEYS, "database-url": "postgresql://hub:pw@db:5432/hub"}
    return {
        "values": hub_values(objects),
        "secrets": {name: given.get(name, "d4" * 32) for name in names},
        "snippets": extra[0]["stringData"] if extra else {},
        "stacks": stacks[0]["stringData"] if stacks else {},
    }


@cache
def of_example(path: Path) -> dict:
    """The hub's files of a documented values file, rendered once for all tests."""
    return of_chart(example(path))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_each_documented_values_file_configures_only_traits_that_exist(deployment, path):
    config = deployment.put(**of_example(path)).load()
    modules = {
        "JupyterHub": "jupyterhub.app",
        "GuardedHub": "cytomine_spawner.hub.hubapp",
        "CryptKeeper": "jupyterhub.crypto",
        "ConfigurableHTTPProxy": "jupyterhub.proxy",
        "Authenticator": "jupyterhub.auth",
        "DummyAuthenticator": "jupyterhub.auth",
        "Spawner": "jupyterhub.spawner",
        "KubeSpawner": "kubespawner",
        "CytomineSpawner": "cytomine_spawner",
        "LSLoginAuthenticator": "cytomine_spawner.lslogin.authenticator",
        "StackSettings": "cytomine_spawner.blueprint.settings",
    }
    assert set(config) <= set(modules)
    for section, traits in config.items():
        cls = getattr(importlib.import_module(modules[section]), section)
        unknown = set(traits) - set(cls.class_trait_names(config=True))
        assert not unknown, f"{section} has no {unknown}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_jupyterhub_takes_the_values_of_each_documented_file(deployment, path):
    from jupyterhub.app import JupyterHub

    from cytomine_spawner import CytomineSpawner

    config = deployment.put(**of_example(path)).load()
    hub = JupyterHub(config=config)
    hub.log.setLevel("CRITICAL")
    assert hub.spawner_class is CytomineSpawner
    assert hub.authenticator_class(config=config, parent=hub) is not None
    assert hub.proxy_class(config=config, parent=hub).should_start is False


def test_a_hub_that_restarts_leaves_servers_and_routes_alone(deployment):
    config = deployment.put().load()
    assert config.JupyterHub.cleanup_servers is False
    assert config.JupyterHub.cleanup_proxy is False
    assert config.Spawner.consecutive_failure_limit == 0
    assert config.JupyterHub.hub_connect_url == "http://hub-hub:8081"
    assert config.ConfigurableHTTPProxy.should_start is False


def test_keys_come_from_the_files_and_are_what_jupyterhub_needs(deployment):
    config = deployment.put().load()
    assert config.JupyterHub.cookie_secret == bytes.fromhex("a1" * 32)
    assert config["CryptKeeper"]["keys"] == [bytes.fromhex("b2" * 32)]
    assert config.ConfigurableHTTPProxy.auth_token == "c3" * 32
    assert config.LSLoginAuthenticator.client_secret_file == str(
        deployment.folder / "secrets" / "oidc-client-secret"
    )
    assert "client_secret" not in config.LSLoginAuthenticator


def test_logging_in_returns_to_the_public_address(deployment):
    config = deployment.put().load()
    assert config.LSLoginAuthenticator.oauth_callback_url == "https://hub.example/hub/oauth_callback"
    assert config.JupyterHub.public_url == "https://hub.example/"

    below = merged(VALUES, {"hub": {"baseUrl": "/jupyter/"}})
    config = deployment.put(below).load()
    assert config.LSLoginAuthenticator.oauth_callback_url == "https://hub.example/jupyter/hub/oauth_callback"
    assert config.JupyterHub.public_url == "https://hub.example/jupyter/"

    own = merged(VALUES, {"lslogin": {"callbackUrl": "https://other.example/back"}})
    assert deployment.put(own).load().LSLoginAuthenticator.oauth_callback_url == "https://other.example/back"


def test_each_user_has_a_host_below_the_hubs(deployment):
    hub = deployment.put().load().JupyterHub
    assert hub.subdomain_host == "https://hub.example"
    assert hub.subdomain_hook("ada", "hub.example", "user") == "ada.hub.example"
    assert hub.cookie_host_prefix_enabled is True
    plain = merged(VALUES, {"hub": {"publicUrl": "http://hub.localhost:8000/"}})
    hub = deployment.put(plain).load().JupyterHub
    # Browsers know the prefix for https alone.
    assert (hub.subdomain_host, hub.cookie_host_prefix_enabled) == ("http://hub.localhost:8000", False)


def test_one_host_for_all_is_for_those_who_say_so_and_they_are_warned(deployment, caplog):
    config = deployment.put(merged(VALUES, {"hub": {"perUserHosts": False}})).load()
    assert "subdomain_host" not in config.JupyterHub
    assert "can act as whoever opens it" in caplog.text
    assert "perUserHosts" in config.JupyterHub.template_vars["warning_for_administrators"]
    caplog.clear()
    assert "warning_for_administrators" not in deployment.put().load().JupyterHub.get("template_vars", {})
    assert not caplog.records


def test_forms_of_other_sites_are_for_logins_of_the_administrators_own(deployment):
    assert "foreign_forms" not in deployment.put().load().get("GuardedHub", {})
    custom = deployment.put(merged(VALUES, {"authentication": {"type": "custom"}})).load()
    assert custom.GuardedHub.foreign_forms is True


def test_nobody_is_let_in_unless_somebody_is_named(deployment):
    values = merged(VALUES, {"lslogin": {"allowedGroups": []}})
    login = deployment.put(values).load().LSLoginAuthenticator
    assert "allowed_groups" not in login
    assert login.allow_all is False
    assert deployment.put().load().LSLoginAuthenticator.allowed_groups == {"users"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"release": {"name": ""}}, "the value release.name is not set"),
        ({"hub": {"connectUrl": None}}, "the value hub.connectUrl is not set"),
        ({"hub": {"publicUrl": ""}}, "the value hub.publicUrl is not set; users' hosts are below the hub's"),
        ({"hub": {"publicUrl": "http://127.0.0.1:8000"}}, "need a name such as https://hub.example.org"),
        ({"proxy": {"apiUrl": ""}}, "the value proxy.apiUrl is not set"),
        (
            {"lslogin": {"clientId": ""}},
            "the value lslogin.clientId is not set; register the hub with LS Login",
        ),
        (
            {"lslogin": {"allowedGroups": "users"}},
            'the value lslogin.allowedGroups must be a list, not "users"',
        ),
        ({"authentication": {"type": "ldap"}}, "the value authentication.type is 'ldap'"),
        ({"hub": {"db": {"type": "mysql"}}}, "the value hub.db.type is 'mysql'"),
        (
            {"hub": {"activeServerLimit": True}},
            "the value hub.activeServerLimit must be a whole number, not true",
        ),
        ({"hub": {"allowNamedServers": "yes"}}, "the value hub.allowNamedServers must be true or false"),
        (
            {"hub": {"config": {"jupyterhub": {}}}},
            "the value hub.config.jupyterhub must be named after a class",
        ),
        ({"hub": {"config": {"JupyterHub": 3}}}, "the value hub.config.JupyterHub must be a mapping"),
        ({"hub": {"services": {"a": {"api_token": "x"}}}}, "remove it, the token is made for you"),
        ({"hub": {"services": {"a": {}}}}, "the token of the service a is missing"),
        ({"hub": {"loadRoles": {"a": []}}}, "the value hub.loadRoles.a must be a mapping"),
        ({"singleuser": {"image": ""}}, "the value singleuser.image is not set"),
        ({"singleuser": {"storage": {"capacity": ""}}}, "the value singleuser.storage.capacity is not set"),
        ({"culling": {"every": 0}}, "culling.every"),
        (
            {"hub": {"db": {"type": "url"}}},
            "the database's URL is missing; put it under the key database-url",
        ),
    ],
)
def test_a_missing_or_wrong_value_is_one_sentence(deployment, change, said):
    sentence = deployment.put(merged(VALUES, change)).refused()
    assert sentence.startswith("The hub cannot start: ")
    assert said in sentence


@pytest.mark.parametrize("name", sorted(KEYS))
def test_a_missing_secret_is_one_sentence_that_says_where_it_belongs(deployment, name):
    sources = {
        "secrets": {"name": "hub-secrets", "sources": {"oidc-client-secret": "the key k of the Secret mine"}}
    }
    deployment.put({**VALUES, **sources}, {k: v for k, v in KEYS.items() if k != name})
    where = (
        "the key k of the Secret mine"
        if name == "oidc-client-secret"
        else f"the key {name} of the Secret hub-secrets"
    )
    assert f"is missing; put it under {where}." in deployment.refused()


def test_a_key_that_is_no_key_is_refused_without_showing_it(deployment):
    deployment.put(secrets={**KEYS, "cookie-secret": "not-hexadecimal"})
    sentence = deployment.refused()
    assert "openssl rand -hex 32" in sentence
    assert "not-hexadecimal" not in sentence


@pytest.mark.parametrize(("text", "said"), [("{", "cannot be read as JSON"), ("[]", "holds no mapping")])
def test_values_that_are_no_values_are_one_sentence(deployment, text, said):
    assert said in deployment.put(text).refused()


def test_no_values_at_all_are_one_sentence(deployment):
    assert "values.json does not exist" in deployment.refused()


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("postgresql://u:p@db/hub", "postgresql+psycopg://u:p@db/hub"),
        ("postgres://u:p@db/hub\n", "postgresql+psycopg://u:p@db/hub"),
        ("mysql+pymysql://u:p@db/hub", "mysql+pymysql://u:p@db/hub"),
    ],
)
def test_the_database_url_gets_the_driver_that_the_image_has(deployment, url, used):
    values = merged(VALUES, {"hub": {"db": {"type": "url", "upgrade": False}}})
    config = deployment.put(values, {**KEYS, "database-url": url}).load()
    assert config.JupyterHub.db_url == used
    assert config.JupyterHub.upgrade_db is False


def test_a_database_url_that_is_none_is_refused_without_showing_it(deployment):
    values = merged(VALUES, {"hub": {"db": {"type": "url"}}})
    sentence = deployment.put(values, {**KEYS, "database-url": "host=db password=hunter2"}).refused()
    assert "is no URL" in sentence
    assert "hunter2" not in sentence


def test_the_culler_may_read_activity_and_stop_servers_and_no_more(deployment):
    values = merged(
        VALUES, {"culling": {"every": 60, "timeout": 120, "maxAge": 999, "removeNamedServers": True}}
    )
    config = deployment.put(values).load()
    (service,) = config.JupyterHub.services
    (role,) = config.JupyterHub.load_roles
    assert role["services"] == [service["name"]]
    assert sorted(role["scopes"]) == ["delete:servers", "list:users", "read:servers", "read:users:activity"]
    assert Path(service["command"][1]).samefile(ROOT / "hub_config" / "culler.py")
    assert set(service["command"][2:]) == {
        "--cull-every=60",
        "--timeout=120",
        "--max-age=999",
        "--remove-named-servers",
    }
    assert not service.get("admin")

    config = deployment.put(merged(VALUES, {"culling": {"enabled": False}})).load()
    assert config.JupyterHub.services == []
    assert config.JupyterHub.load_roles == []


def test_a_service_gets_the_token_that_was_made_for_it_and_its_role(deployment):
    parts = {
        "services": {"stats": {"url": "http://stats:80"}, "own": {"command": ["run"]}},
        "loadRoles": {"stats": {"scopes": ["list:users"], "services": ["stats"]}},
    }
    values = merged(VALUES, {"hub": parts, "culling": {"enabled": False}})
    config = deployment.put(values, {**KEYS, "service-token-stats": "e5" * 32}).load()
    assert config.JupyterHub.services == [
        {"name": "own", "command": ["run"]},
        {"name": "stats", "url": "http://stats:80", "api_token": "e5" * 32},
    ]
    assert config.JupyterHub.load_roles == [
        {"name": "stats", "scopes": ["list:users"], "services": ["stats"]}
    ]


def test_the_administrators_configuration_wins_and_snippets_come_last_in_order(deployment):
    own = {
        "JupyterHub": {"active_server_limit": 7, "cleanup_servers": True},
        "KubeSpawner": {"mem_guarantee": "2G"},
    }
    values = merged(VALUES, {"hub": {"config": own}})
    snippets = {
        "20-last.py": "assert c.JupyterHub.active_server_limit == 8\nget_config().JupyterHub.active_server_limit = 9",
        "10-first.py": "c.JupyterHub.active_server_limit += 1\nc.JupyterHub.logo_file = values.need('release.name', str, '')",
        "notes.txt": "not Python",
    }
    config = deployment.put(values, snippets=snippets).load()
    assert config.JupyterHub.active_server_limit == 9
    assert config.JupyterHub.cleanup_servers is True
    assert config.JupyterHub.logo_file == "hub"
    assert config.KubeSpawner.mem_guarantee == "2G"
    assert config.KubeSpawner.namespace == "cytomine-users"


@pytest.mark.parametrize(
    ("code", "said"), [("1/0", "ZeroDivisionError: division by zero"), ("c.x =", "SyntaxError")]
)
def test_a_snippet_that_fails_is_named_and_its_traceback_is_logged(deployment, caplog, code, said):
    sentence = deployment.put(snippets={"10-mine.py": code}).refused()
    assert "the snippet hub.extraConfig.10-mine failed with" in sentence
    assert said in sentence
    assert any(record.exc_info for record in caplog.records)


def test_the_packages_templates_are_found_after_the_administrators(deployment):
    (deployment.folder / "templates").mkdir()
    own, packaged = deployment.put().load().JupyterHub.template_paths
    assert own == str(deployment.folder / "templates")
    assert (Path(packaged) / "options_form.html").is_file()


async def test_a_notebook_pod_is_what_the_values_say(deployment, monkeypatch):
    from cytomine_spawner import CytomineSpawner
    from tests.support.kube import make_spawner

    values = {
        "singleuser": {
            "extraEnv": {
                "SITE": "lab",
                "ATLAS": {"valueFrom": {"secretKeyRef": {"name": "atlas", "key": "token"}}},
                "OWN": {
                    "valueFrom": {"secretKeyRef": {"name": "own-{username}", "key": "a", "optional": True}}
                },
                "NODE": {"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            },
            "extraLabels": {"team": "pathology"},
            "nodeSelector": {"pool": "users"},
            "tolerations": [{"key": "users", "operator": "Exists"}],
            "storage": {"capacity": "5Gi", "storageClassName": "fast", "accessModes": ["ReadWriteMany"]},
            "extraVolumes": [{"name": "slides", "nfs": {"server": "nfs", "path": "/slides"}}],
            "extraVolumeMounts": [{"name": "slides", "mountPath": "/slides", "readOnly": True}],
        },
        "imagePullSecrets": [{"name": "registry"}],
        # The strictest one forbids pods a volume of NFS.
        "users": {"podSecurity": "baseline"},
    }
    rendered = hub_values(render(merged(BASE, values)))
    config = deployment.put(rendered).load()
    settings = {**config.Spawner, **config.KubeSpawner, **config.CytomineSpawner}
    # In place of a cluster: a port where nobody listens.
    nowhere = Configuration(host="http://127.0.0.1:9")
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: Configuration.set_default(nowhere))
    spawner = make_spawner(CytomineSpawner, **settings)
    pod = await spawner.get_pod_manifest()
    claim = spawner.get_pvc_manifest()

    async with ApiClient() as api:
        pod, claim = api.sanitize_for_serialization(pod), api.sanitize_for_serialization(claim)

    labels = pod["metadata"]["labels"]
    assert labels["team"] == "pathology"
    # These two are what the chart's NetworkPolicies look for.
    assert labels["app.kubernetes.io/component"] == "singleuser-server"
    assert labels["cytomine-spawner.org/hub"] == "hub"
    assert claim["metadata"]["labels"]["cytomine-spawner.org/hub"] == "hub"
    # Argo CD would delete what carries its application's name here.
    assert labels.get("app.kubernetes.io/instance") != "hub"
    assert claim["metadata"]["labels"].get("app.kubernetes.io/instance") != "hub"

    spec = pod["spec"]
    assert (
        restricted_violations({**spec, "volumes": [v for v in spec["volumes"] if v["name"] != "slides"]})
        == []
    )
    assert spec["nodeSelector"] == {"pool": "users"}
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert {"key": "users", "operator": "Exists"} in spec["tolerations"]
    (container,) = spec["containers"]
    assert {m["mountPath"]: m["name"] for m in container["volumeMounts"]} == {
        "/home/jovyan": "home",
        "/slides": "slides",
    }
    (home,) = [v for v in spec["volumes"] if v["name"] == "home"]
    assert home["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert {"name": "SITE", "value": "lab"} in container["env"]
    sources = {variable["name"]: variable.get("valueFrom") for variable in container["env"]}
    # Whose values neither the hub nor the pod's description knows.
    assert sources["ATLAS"] == {"secretKeyRef": {"name": "atlas", "key": "token"}}
    assert sources["OWN"] == {"secretKeyRef": {"name": "own-ada", "key": "a", "optional": True}}
    assert sources["NODE"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "5Gi"


SNIPPET = """
from jupyterhub.proxy import Proxy

class Elsewhere(Proxy):
    should_start = False

    async def add_route(self, routespec, target, data): pass
    async def delete_route(self, routespec): pass
    async def get_all_routes(self): return {}

c.JupyterHub.proxy_class = Elsewhere
c.JupyterHub.hub_bind_url = "http://127.0.0.1:PORT"
"""


def test_a_real_hub_starts_with_it_and_the_culler_is_let_in(deployment, tmp_path):
    port = free_port()
    values = merged(
        VALUES,
        {
            "authentication": {"type": "custom"},
            "culling": {"every": 1},
            "hub": {
                "connectUrl": f"http://127.0.0.1:{port}",
                "db": {"type": "sqlite-memory"},
                "config": {
                    "JupyterHub": {"authenticator_class": "dummy"},
                    "Authenticator": {"allow_all": True},
                },
            },
        },
    )
    deployment.put(values, snippets={"proxy.py": SNIPPET.replace("PORT", str(port))})
    log = tmp_path / "hub.log"
    hub = hubprocess.start(tmp_path, [f"--config={CONFIG}"], dict(os.environ), log)
    try:
        wanted = ("200 GET /hub/api/users", "JupyterHub is now running")
        until(
            lambda: all(w in log.read_text() for w in wanted) or not hub.is_alive(),
            "the culler to read the users",
            60,
            cure=f"Read {log}",
        )
        # As a stranger, or an old bookmark, does; an address may be within another one.
        for path in (
            "api/users/stranger?token=tell-tale",
            "login?next=%2Fhub%2Fhome%3Ftoken%3Dtell-tale%26a%3D1",
        ):
            httpx.get(f"http://127.0.0.1:{port}/hub/{path}", verify=False, timeout=30)
        until(lambda: "%26a%3D1" in log.read_text(), "the hub to log both", 20, cure=f"Read {log}")
        os.kill(hub.pid, signal.SIGINT)
        hub.join(60)
    finally:
        if hub.is_alive():
            os.kill(hub.pid, signal.SIGUSR1)  # it says what its tasks wait for
            hub.join(3)
            sys.stderr.write(log.read_text())
        hub.kill()
        hub.join(30)
    text = log.read_text()
    assert hub.exitcode == 0, text[-3000:]
    assert "200 GET /hub/api/users" in text, text[-3000:]
    assert "(jupyterhub-idle-culler@" in text
    assert not [line for line in text.splitlines() if " 403 " in line and "stranger" not in line]
    assert "/hub/api/users/stranger?token=[secret]" in text
    assert "tell-tale" not in text
    assert "Leaving single-user servers running" in text
    assert "Leaving proxy running" in text
    for name, secret in KEYS.items():
        assert secret.strip() not in text, name


def test_a_hub_that_cannot_start_ends_with_the_sentence(deployment, tmp_path):
    deployment.put(merged(VALUES, {"lslogin": {"clientId": ""}}))
    log = tmp_path / "hub.log"
    hub = hubprocess.start(tmp_path, [f"--config={CONFIG}"], dict(os.environ), log)
    hub.join(60)
    assert hub.exitcode
    said = log.read_text()
    assert (
        said.strip()
        .splitlines()[-1]
        .startswith("The hub cannot start: the value lslogin.clientId is not set")
    )
    assert "Traceback" not in said
