"""What the chart makes for Cytomine stacks: the service, its rights, its network and what the hub hears of it."""

from __future__ import annotations

import json

import pytest
import yaml
from traitlets.config import Config

from cytomine_spawner.app import StacksApp
from cytomine_spawner.blueprint import render as stack_render
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.hosts import subdomain
from tests.support.chart import BASE, Network, find, hub_values, merged, render, template

STACKS = {"enabled": True, "url": "https://{stack}.stacks.example.org"}
ON = merged(BASE, {"ingress": {"enabled": True, "host": "hub.example.org"}, "stacks": STACKS})


def on(**stacks):
    return merged(ON, {"stacks": stacks})


def settings(objects):
    texts = find(objects, "Secret", "hub-stacks-settings")["stringData"]
    return json.loads(texts["settings.json"]), texts


def rights(role):
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_without_stacks_nothing_of_them_is_there():
    objects = render()
    assert not [o for o in objects if "stacks" in o["metadata"]["name"]]
    assert not [r for r in rights(find(objects, "Role", "hub-hub")) if r[0] == "cytomine-spawner.org"]
    assert hub_values(objects)["stacks"]["enabled"] is False


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (merged(BASE, {"stacks": {"enabled": True}}), "stacks.url is not set"),
        (merged(BASE, {"stacks": STACKS, "hub": {"publicUrl": ""}}), "hub.publicUrl is not set"),
        (
            merged(BASE, {"stacks": STACKS, "hub": {"publicUrl": "", "perUserHosts": False}}),
            "hub.publicUrl is not set: browsers come from the stacks",
        ),
        (on(url="https://stacks.example.org"), "url"),
        (on(url="https://{stack}.example.org/path"), "url"),
        (merged(ON, {"hub": {"services": {"cytomine": {"url": "http://x"}}}}), "hub.services.cytomine"),
        (on(valuesFiles={"settings": "a: 1"}), "valuesFiles"),
        (on(datasets=[{"name": "colon"}]), "stacks.datasetVolume is not set"),
        (on(datasets=[{"name": "a"}, {"name": "a"}], datasetVolume={"emptyDir": {}}), "more than once"),
        (on(datasets=[{"title": "Colon"}], datasetVolume={"emptyDir": {}}), "name"),
        (on(datasets=[{"name": "a", "url": "ftp://host/a"}]), "url"),
        (on(datasets=[{"name": "a", "url": "s3://key:hush@bucket/a"}]), "url"),
        (
            on(datasets=[{"name": "a", "secret": "s"}], datasetVolume={"emptyDir": {}}),
            "a has a secret and no url",
        ),
        (on(values={"image": {}}), "image"),
    ],
)
def test_what_cannot_work_is_refused_by_name(values, said):
    done = template(values)
    assert done.returncode != 0
    assert said in done.stderr


def test_the_service_understands_the_settings_that_the_chart_writes(tmp_path):
    objects = render(
        on(
            limits={"total": 5, "perUser": 2, "perGroup": {"trainees": 3}},
            storageClasses={"default": "fast"},
            retentionDays=7,
            ingress={"className": "nginx", "tlsSecretName": "wildcard"},
            config={"StackSettings": {"node_selector": {"pool": "cytomine"}}},
            values={"images": {"core": "registry.example.org/core@sha256:" + "0" * 64}},
            valuesFiles={"site": "sizes: {L: null}"},
            datasets=[{"name": "colon", "title": "Colon biopsies"}],
            datasetVolume={"persistentVolumeClaim": {"claimName": "datasets", "readOnly": True}},
            image={"name": "registry.example.org/stacks", "tag": "1"},
        )
    )
    written, texts = settings(objects)
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    moved = json.loads(json.dumps(written).replace("/etc/cytomine-hub/stacks", str(tmp_path)))
    unknown = set(written["StackSettings"]) - set(StackSettings.class_trait_names(config=True))
    assert not unknown
    assert set(written["StacksApp"]) <= set(StacksApp.class_trait_names(config=True))
    made = StackSettings(config=Config(moved))
    stack_render.check(made)
    assert (made.max_stacks, made.max_stacks_per_user, made.max_stacks_per_group) == (5, 2, {"trainees": 3})
    assert made.retention == 7 * 86400
    assert made.dataset_titles == {"colon": "Colon biopsies"}
    assert made.dataset_volume == {"persistentVolumeClaim": {"claimName": "datasets", "readOnly": True}}
    assert made.dataset_image == "registry.example.org/stacks:1"
    assert made.node_selector == {"pool": "cytomine"}
    assert made.values.images["core"].endswith("0" * 64)
    assert set(made.values.sizes) == {"S", "M"}
    assert made.url("cm-a") == "https://cm-a.stacks.example.org"
    assert made.service_url == "https://cytomine--service.hub.example.org/services/cytomine"


def test_datasets_in_object_storage_need_no_volume(tmp_path):
    remote = {"name": "colon", "url": "s3://slides/DATASET_colon", "secret": "slides"}
    written, _ = settings(render(on(datasets=[remote])))
    made = StackSettings(**{k: v for k, v in written["StackSettings"].items() if k.startswith("dataset")})
    assert made.dataset_sources["colon"].secret == "slides"
    assert made.dataset_ports == [443]
    assert made.dataset_peers == StackSettings().dataset_peers
    peers = [{"podSelector": {"matchLabels": {"app": "minio"}}}]
    scratch = {"ephemeral": {"volumeClaimTemplate": {}}}
    storage = {"peers": peers, "port": 9000, "scratch": scratch}
    written, _ = settings(render(on(datasets=[remote], datasetStorage=storage)))
    found = written["StackSettings"]
    assert (found["dataset_peers"], found["dataset_ports"], found["dataset_scratch"]) == (
        peers,
        [9000],
        scratch,
    )


def environment(objects):
    spec = find(objects, "Deployment", "hub-stacks")["spec"]["template"]["spec"]
    return {v["name"]: v["value"] for v in spec["containers"][0]["env"]}


@pytest.mark.parametrize(
    ("url", "page"),
    [
        ("https://hub.example.org", "https://cytomine--service.hub.example.org"),
        ("http://hub.localhost:8000", "http://cytomine--service.hub.localhost:8000"),
    ],
)
def test_the_page_of_stacks_has_the_host_that_jupyterhub_gives_the_service(url, page):
    objects = render(merged(ON, {"hub": {"publicUrl": url, "baseUrl": "/jupyter/"}}))
    assert page.partition("//")[2] == subdomain("cytomine", url.partition("//")[2], "service")
    written, _ = settings(objects)
    assert written["StackSettings"]["service_url"] == f"{page}/jupyter/services/cytomine"
    told = environment(objects)
    assert told["JUPYTERHUB_HOST"] == url
    assert told["JUPYTERHUB_PUBLIC_URL"] == f"{page}/jupyter/services/cytomine/"
    assert told["JUPYTERHUB_OAUTH_CALLBACK_URL"] == f"{page}/jupyter/services/cytomine/oauth_callback"
    assert told.get("JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED") == ("1" if url.startswith("https") else None)


def test_on_one_host_the_page_of_stacks_is_below_the_hub():
    objects = render(merged(ON, {"hub": {"perUserHosts": False}}))
    assert settings(objects)[0]["StackSettings"]["service_url"] == "https://hub.example.org/services/cytomine"
    told = environment(objects)
    assert told["JUPYTERHUB_PUBLIC_URL"] == "https://hub.example.org/services/cytomine/"
    assert not {"JUPYTERHUB_HOST", "JUPYTERHUB_OAUTH_CALLBACK_URL"} & set(told)


def test_the_service_reads_what_is_mounted_and_its_token_from_a_file():
    objects = render(ON)
    spec = find(objects, "Deployment", "hub-stacks")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    written, texts = settings(objects)
    assert container["command"][-1] == f"--config={mounts['settings']}/settings.json"
    assert written["StacksApp"]["token_file"] == f"{mounts['token']}/service-token-cytomine"
    assert all(f.startswith(mounts["settings"]) for f in written["StackSettings"]["values_files"])
    assert {f.rsplit("/", 1)[1] for f in written["StackSettings"]["values_files"]} <= set(texts)
    (token,) = [v["secret"] for v in spec["volumes"] if v["name"] == "token"]
    assert token["secretName"] == "hub-stacks-token"
    job = next(o for o in objects if o["kind"] == "Job")
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert "--apart=hub-stacks-token=service-token-cytomine" in command
    assert "--key=service-token-cytomine" not in command
    told = hub_values(objects)["secrets"]["sources"]["service-token-cytomine"]
    assert told == "the key service-token-cytomine of the Secret hub-stacks-token"


def mounted(objects, deployment):
    """The Secrets that a pod is given, whole or in part."""
    spec = find(objects, "Deployment", deployment)["spec"]["template"]["spec"]
    whole = {v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
    parts = [s["secret"]["name"] for v in spec["volumes"] for s in v.get("projected", {}).get("sources", [])]
    names = [
        v["valueFrom"]["secretKeyRef"]["name"]
        for c in spec["containers"]
        for v in c.get("env", [])
        if "valueFrom" in v
    ]
    return whole | set(parts) | set(names)


def test_no_secret_of_the_hub_is_mounted_into_the_service():
    objects = render(ON)
    assert mounted(objects, "hub-stacks") == {"hub-stacks-settings", "hub-stacks-token"}
    shared = mounted(objects, "hub-stacks") & mounted(objects, "hub-hub")
    assert shared == {"hub-stacks-settings", "hub-stacks-token"}, "which are about the service alone"
    own = merged(ON, {"secrets": {"existingSecret": "mine", "existingStacksSecret": "token"}})
    assert mounted(render(own), "hub-stacks") == {"hub-stacks-settings", "token"}
    # Where there is but one, the pod gets a single key of it.
    one = render(merged(ON, {"secrets": {"existingSecret": "mine"}}))
    spec = find(one, "Deployment", "hub-stacks")["spec"]["template"]["spec"]
    (token,) = [v["secret"] for v in spec["volumes"] if v["name"] == "token"]
    assert (token["secretName"], [i["key"] for i in token["items"]]) == ("mine", ["service-token-cytomine"])


def test_the_limits_reach_the_service():
    limits = {"total": 9, "perUser": 2, "idleTimeout": 28800, "life": 604800}
    written, _ = settings(render(on(limits=limits)))
    found = written["StackSettings"]
    assert (found["max_stacks"], found["max_stacks_per_user"]) == (9, 2)
    assert (found["max_idle_timeout"], found["max_life"]) == (28800, 604800)
    written, _ = settings(render(ON))
    assert (written["StackSettings"]["max_idle_timeout"], written["StackSettings"]["max_life"]) == (0, 0)


def test_the_hub_mounts_the_same_settings_and_restarts_when_they_change():
    objects = render(ON)
    hub = find(objects, "Deployment", "hub-hub")["spec"]["template"]
    (volume,) = [v for v in hub["spec"]["volumes"] if v["name"] == "stacks"]
    assert volume["secret"]["secretName"] == "hub-stacks-settings"
    changed = render(on(idleTimeout=60))
    for name, key in (("hub-hub", "checksum/stacks"), ("hub-stacks", "checksum/settings")):
        before, after = (find(o, "Deployment", name)["spec"]["template"] for o in (objects, changed))
        assert before["metadata"]["annotations"][key] != after["metadata"]["annotations"][key]
    assert hub_values(objects)["stacks"]["url"] == "http://hub-stacks:8000"


def test_the_service_may_manage_stacks_and_their_parts_in_their_namespace_and_nothing_else():
    objects = render(ON)
    given = rights(find(objects, "Role", "hub-stacks"))
    groups = {group for group, _, _ in given}
    assert groups == {"", "apps", "batch", "networking.k8s.io", "cytomine-spawner.org"}
    assert {verb for group, _, verb in given if group == "batch"} == {
        "list", "watch", "create", "patch", "delete",
    }  # fmt: skip
    assert {resource for group, resource, _ in given if group == "batch"} == {"jobs"}
    assert ("", "pods", "create") not in given
    assert not {r for r in given if r[1] in ("roles", "rolebindings", "serviceaccounts", "pods/exec")}
    assert ("cytomine-spawner.org", "cytominestacks", "create") not in given
    assert not {"ClusterRole", "ClusterRoleBinding"} & {o["kind"] for o in objects}
    more = find(render(on(rbac={"nodes": True})), "ClusterRole", "cytomine-hub-stacks")
    assert rights(more) == {("", "nodes", "list"), ("", "pods", "list")}
    hub = rights(find(objects, "Role", "hub-hub"))
    assert {verb for group, _, verb in hub if group == "cytomine-spawner.org"} == {
        "get", "list", "watch", "create", "patch", "delete",
    }  # fmt: skip


def test_the_network_lets_the_service_and_the_stacks_work_and_no_more():
    network = Network(render(ON))
    gateway = {
        "app.kubernetes.io/name": "cytomine",
        "app.kubernetes.io/component": "gateway",
        "app.kubernetes.io/managed-by": "cytomine-stacks",
    }
    network.add("gateway", gateway, network.users)
    network.add("core", {**gateway, "app.kubernetes.io/component": "core"}, network.users)
    network.add("false gateway", gateway, "another")
    for source, target, port in (
        ("proxy", "stacks", 8000),
        ("notebook", "stacks", 8000),
        ("core", "stacks", 8000),
        ("gateway", "stacks", 8000),
        ("stacks", "hub", 8081),
        ("stacks", "10.96.0.1", 443),
        ("stacks", "gateway", 8081),
        ("notebook", "gateway", 8081),
    ):
        assert network.allows(source, target, port), (source, target, port)
    for source, target, port in (
        ("stranger", "stacks", 8000),
        ("stranger", "stacks", 8001),
        ("notebook", "stacks", 8001),
        ("proxy", "stacks", 8001),
        ("stacks", "notebook", 8888),
        ("stacks", "169.254.169.254", 80),
        ("notebook", "core", 8080),
        ("notebook", "gateway", 8080),
        ("hub", "gateway", 8081),
        ("notebook", "false gateway", 8081),
        ("false gateway", "stacks", 8000),
    ):
        assert not network.allows(source, target, port), (source, target, port)
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    open_to = Network(render(on(networkPolicy={"metricsFrom": peers})))
    assert open_to.allows("controller", "stacks", 8001)


def test_the_chart_defines_the_resource_that_the_service_manages():
    from cytomine_spawner.stack import model
    from tests.support.chart import CHART

    (crd,) = yaml.safe_load_all((CHART / "crds" / "cytominestacks.yaml").read_text())
    assert crd["spec"]["group"] == model.GROUP
    assert crd["spec"]["names"]["plural"] == model.PLURAL


def test_all_stacks_hosts_lead_to_the_service_until_one_has_an_address_of_its_own():
    ingress = {"className": "nginx", "tlsSecretName": "wildcard", "annotations": {"a": "b"}}
    objects = render(on(url="https://{stack}.stacks.example.org:8443", ingress=ingress))
    entrance = find(objects, "Ingress", "hub-entrance")
    assert settings(objects)[0]["StackSettings"]["entrance"] is True
    assert entrance["metadata"]["annotations"] == {"a": "b"}
    assert entrance["spec"]["ingressClassName"] == "nginx"
    assert entrance["spec"]["tls"] == [{"hosts": ["*.stacks.example.org"], "secretName": "wildcard"}]
    (rule,) = entrance["spec"]["rules"]
    assert rule["host"] == "*.stacks.example.org"
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": "hub-stacks", "port": {"name": "http"}}
    assert find(objects, "Service", "hub-stacks")["spec"]["ports"][0]["name"] == "http"
    closed = render(on(config={"StackSettings": {"ingress_enabled": False}}))
    assert not [o for o in closed if o["metadata"]["name"] == "hub-entrance"]


def test_the_ingress_controller_reaches_the_services_page_and_nothing_else_of_it():
    network = Network(render(ON))
    assert network.allows("controller", "stacks", 8000)
    assert not network.allows("controller", "stacks", 8001)
    assert not network.allows("stranger", "stacks", 8000)
