"""What the rendered objects of a stack must be, whatever the names and the settings."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from traitlets import TraitError

from cytomine_spawner.stacks import model, render
from cytomine_spawner.stacks.model import StackSpec
from cytomine_spawner.stacks.quantity import cores, gib, to_bytes
from cytomine_spawner.stacks.settings import StackSettings

DEMO = Path(__file__).parents[2] / "dev/demo/stacks.yaml"
ALL_EXTRAS = [extra.value for extra in model.Extra]
ENGINE = {
    "app_engine_namespace": "tasks",
    "app_engine_token_secret": "tasks-token",
    "app_engine_registry": "localhost:32000",
}


def everything(**changes):
    return StackSettings(allowed_components=ALL_EXTRAS, namespace="ns", **ENGINE, **changes)


def demo(**changes):
    return StackSettings(allowed_components=["cbir"], namespace="ns", values_files=[str(DEMO)], **changes)


def stack(uid="uid-1", **spec):
    new = model.new_stack("ns", StackSpec(**{"owner": "ada", **spec}))
    return new.model_copy(update={"uid": uid})


def objects(settings=None, **spec):
    return render.render(stack(**spec), settings or everything())


def find(objs, kind, component):
    return next(o for o in objs if o["kind"] == kind and o["metadata"]["name"] == f"cm-ada-{component}")


def pods(objs):
    return [o["spec"]["template"]["spec"] for o in objs if o["kind"] in render.WORKLOADS]


def containers(objs):
    return [c for pod in pods(objs) for c in [*pod.get("initContainers", []), *pod["containers"]]]


def env(objs, component, kind="Deployment"):
    found = find(objs, kind, component)["spec"]["template"]["spec"]["containers"][0].get("env", [])
    return {
        e["name"]: e.get("value", e.get("valueFrom", {}).get("secretKeyRef", {}).get("key")) for e in found
    }


VALUE_SETS = pytest.mark.parametrize(
    ("make", "extras"), [(everything, ALL_EXTRAS), (demo, ["cbir"])], ids=["cytomine", "demo"]
)


@VALUE_SETS
def test_every_pod_is_restricted(make, extras):
    objs = objects(make(), components=extras)
    assert len(pods(objs)) >= 8
    for pod in pods(objs):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert "serviceAccountName" not in pod
        assert not any(key in pod for key in ("hostNetwork", "hostPID", "hostIPC"))
        allowed = {"persistentVolumeClaim", "configMap", "emptyDir", "secret"}
        assert all(set(volume) - {"name"} <= allowed for volume in pod.get("volumes", []))
    for container in containers(objs):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in context
        assert not any("hostPort" in port for port in container.get("ports", []))


@VALUE_SETS
@pytest.mark.parametrize("size", ["S", "M", "L"])
def test_every_container_has_requests_and_limits(make, extras, size):
    for container in containers(objects(make(), components=extras, size=size)):
        resources = container["resources"]
        for name, read in (("cpu", cores), ("memory", to_bytes)):
            assert 0 < read(resources["requests"][name]) <= read(resources["limits"][name])


def test_the_smallest_stack_needs_three_to_four_gibibytes():
    cost = render.cost(StackSpec(owner="ada"), everything())
    assert 3 * 1024**3 <= cost.memory <= 4 * 1024**3
    assert cost.cpu < 1
    assert str(cost) == f"{cost.cpu:.1f} cores, {gib(cost.memory)} of memory, {gib(cost.storage)} of disk"


@VALUE_SETS
@pytest.mark.parametrize("size", ["S", "M", "L"])
def test_the_cost_is_what_the_pods_request(make, extras, size):
    settings = make()
    spec = StackSpec(owner="ada", size=size, components=extras)
    cost = render.cost(spec, settings)
    main = [
        container["resources"]["requests"]
        for pod in pods(render.render(stack(**dict(spec)), settings))
        for container in pod["containers"]
    ]
    assert cost.memory == sum(to_bytes(r["memory"]) for r in main)
    assert cost.cpu == pytest.approx(sum(cores(r["cpu"]) for r in main))


@VALUE_SETS
def test_all_but_the_volumes_belong_to_the_stack(make, extras):
    objs = objects(make(), components=extras)
    owned = {o["kind"] for o in objs if "ownerReferences" in o["metadata"]}
    free = {o["kind"] for o in objs if "ownerReferences" not in o["metadata"]}
    assert free == {"PersistentVolumeClaim"}
    assert not owned & free
    secret = render.secret(stack(), {"a": "b"})
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "uid-1"


def test_the_database_and_the_slides_are_on_volumes():
    objs = objects()
    for kind, name, claim in (
        ("StatefulSet", "postgis", "cm-ada-postgis"),
        ("StatefulSet", "mongo", "cm-ada-mongo"),
        ("Deployment", "pims", "cm-ada-images"),
    ):
        volumes = find(objs, kind, name)["spec"]["template"]["spec"]["volumes"]
        assert [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v] == [
            claim
        ]


@VALUE_SETS
def test_no_secret_value_is_in_any_object(make, extras):
    for container in containers(objects(make(), components=extras)):
        for item in container.get("env", []):
            if any(
                word in item["name"]
                for word in ("PASS", "SECRET", "PRIVATE", "PUBLIC_KEY", "MASTER_KEY", "TOKEN")
            ):
                assert item["name"] == "KEYCLOAK_ADMIN_PASSWORD" or "secretKeyRef" in item["valueFrom"], item


@VALUE_SETS
def test_a_hibernated_stack_differs_from_a_running_one_in_the_replicas_only(make, extras):
    running = objects(make(), components=extras)
    asleep = objects(make(), components=extras, desired_state="Hibernated")
    workloads = [o for o in asleep if o["kind"] in render.WORKLOADS]
    assert workloads
    for obj in workloads:
        assert obj["spec"].pop("replicas") == 0
    for obj in running:
        assert obj["spec"].pop("replicas", 1) == 1 if "spec" in obj else True
    assert running == asleep


def test_rendering_twice_gives_the_same_and_changes_nothing():
    settings = everything(
        env={"core": {"X": "1"}}, overrides=[{"kind": "Service", "metadata": {"labels": {"a": "b"}}}]
    )
    first = objects(settings, components=ALL_EXTRAS)
    again = objects(settings, components=ALL_EXTRAS)
    assert first == again
    assert [render.digest(o) for o in first] == [render.digest(o) for o in again]


@VALUE_SETS
def test_no_placeholder_is_left(make, extras):
    text = json.dumps(objects(make(), components=extras))
    assert "${" not in text
    assert "None" not in text


@VALUE_SETS
def test_every_neighbour_that_is_named_has_a_service_with_that_port(make, extras):
    import re

    objs = objects(make(), components=extras)
    services = {
        f"{o['metadata']['name']}:{p['port']}"
        for o in objs
        if o["kind"] == "Service"
        for p in o["spec"]["ports"]
    }
    off = {"cm-ada-sam:8000", "cm-ada-meilisearch:7700", "cm-ada-app-engine:8080", "cm-ada-pims-cache:6379"}
    named = set(re.findall(r"//(cm-ada-[a-z-]+:\d+)", json.dumps(objs)))
    assert named
    assert named <= services | (off if make is demo else set())
    for obj in objs:
        if obj["kind"] == "Service":
            template = next(
                w["spec"]["template"]
                for w in objs
                if w["kind"] in render.WORKLOADS and w["metadata"]["name"] == obj["metadata"]["name"]
            )
            assert obj["spec"]["selector"].items() <= template["metadata"]["labels"].items()
            ports = {p["name"] for c in template["spec"]["containers"] for p in c["ports"]}
            assert {p["targetPort"] for p in obj["spec"]["ports"]} <= ports


@pytest.mark.parametrize(
    ("extras", "host"), [([], "http://cm-ada-gateway:6000"), (["cbir"], "http://cm-ada-cbir:6000")]
)
def test_core_always_has_something_that_answers_as_cbir(extras, host):
    objs = objects(components=extras)
    assert env(objs, "core")["CBIR_URL"] == host


def test_cores_environment_is_what_upstream_reads():
    objs = objects()
    issuer = "https://hub.example.org/services/cytomine/cm-ada/iam/realms/cytomine"
    values = env(objs, "core")
    expected = {
        "PORT": "8080",
        "POSTGIS_HOST": "cm-ada-postgis",
        "POSTGIS_PORT": "5432",
        "POSTGIS_PASS": "postgis-password",
        "MONGO_HOST": "cm-ada-mongo",
        "MONGO_PORT": "27017",
        "MONGO_PASS": "mongo-password",
        "SERVER_URL": "https://cm-ada.stacks.example.org",
        "PIMS_URL": "http://cm-ada-pims:5000",
        "REPOSITORY_URL": "http://cm-ada-repository:8081",
        "SAM_URL": "http://cm-ada-sam:8000",
        "APPENGINE_ENABLED": "false",
        "APPENGINE_API_BASE_PATH": "/app-engine/v1/",
        "JWT_SECRET": "jwt-secret",
        "IMAGE_SERVER_PUBLIC_KEY": "image-server-public-key",
        "IMAGE_SERVER_PRIVATE_KEY": "image-server-private-key",
        "MEILISEARCH_KEY": "meilisearch-key",
        "ANNOTATION_MAX_POINTS": "200",
        "SPRING_SECURITY_OAUTH2_RESOURCESERVER_JWT_ISSUER_URI": issuer,
        "SPRING_SECURITY_OAUTH2_RESOURCESERVER_JWT_JWK_SET_URI": "http://stacks:8000/services/cytomine/cm-ada"
        "/iam/realms/cytomine/protocol/openid-connect/certs",
    }
    assert expected.items() <= values.items()
    for name in (
        "POSTGIS_DB_NAME",
        "POSTGIS_USER",
        "MONGO_DB_NAME",
        "MONGO_USER",
        "CBIR_URL",
        "MEILISEARCH_URL",
    ):
        assert values[name]
    for name in (
        "KEYCLOAK_ADMIN",
        "KEYCLOAK_ADMIN_PASSWORD",
        "APPENGINE_API_URL",
        "STORAGE_PATH",
        "SERVER_ID",
    ):
        assert name in values
    # token issuer as upstream itself would compute it
    assert values["IAM_EXTERNAL_URL"] + "/iam/realms/cytomine" == issuer
    # dead upstream, and a trap for whoever believes in them
    assert not {"ADMIN_PASSWORD", "ADMIN_PUBLIC_KEY", "ADMIN_PRIVATE_KEY"} & set(values)


def test_the_other_components_environment_is_what_upstream_reads():
    objs = objects()
    assert env(objs, "postgis", "StatefulSet")["POSTGRES_USER"] not in ("", "postgres")
    assert env(objs, "repository")["POSTGIS_USER"] == env(objs, "postgis", "StatefulSet")["POSTGRES_USER"]
    pims = env(objs, "pims")
    assert {
        "API_BASE_PATH": "/ims",
        "ROOT": "/data/images",
        "INTERNAL_URL_CORE": "http://cm-ada-core:8080",
        "CYTOMINE_PUBLIC_KEY": "image-server-public-key",
        "CYTOMINE_PRIVATE_KEY": "image-server-private-key",
        "CACHE_ENABLED": "true",
        "CACHE_URL": "redis://cm-ada-pims-cache:6379",
        "TASK_QUEUE_ENABLED": "false",
        "DEFAULT_ANNOTATION_ORIGIN": "LEFT_TOP",
        "OUTPUT_SIZE_LIMIT": "10000",
    }.items() <= pims.items()
    ui = env(objs, "web-ui")
    assert ui["CORE_URL"] == "https://cm-ada.stacks.example.org/api"
    assert ui["PIMS_URL"] == "https://cm-ada.stacks.example.org/ims"
    assert ui["IAM_URL"].endswith("/realms/cytomine")
    assert env(objects(demo()), "pims")["CACHE_ENABLED"] == "false"


@pytest.mark.parametrize("component", ["repository", "core", "pims"])
def test_what_hangs_at_its_start_is_started_anew(component):
    container = find(objects(), "Deployment", component)["spec"]["template"]["spec"]["containers"][0]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert "httpGet" in container[probe]


def test_databases_never_run_twice_on_the_same_files():
    objs = objects(components=ALL_EXTRAS)
    for obj in objs:
        if obj["kind"] == "Deployment":
            claims = [v for v in obj["spec"]["template"]["spec"]["volumes"] if "persistentVolumeClaim" in v]
            assert not claims or obj["spec"]["strategy"] == {"type": "Recreate"}
    for name in ("postgis", "mongo", "app-engine-db", "cbir-redis"):
        assert find(objs, "StatefulSet", name)


def test_no_object_takes_a_port_of_the_nodes():
    for obj in objects(components=ALL_EXTRAS):
        assert obj["kind"] != "Service" or obj["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_pods_start_anew_when_their_configuration_changes():
    key = render.DIGEST_OF_CONFIG

    def digest(settings):
        return find(objects(settings), "Deployment", "gateway")["spec"]["template"]["metadata"][
            "annotations"
        ][key]

    assert digest(everything()) == digest(everything())
    assert digest(everything()) != digest(everything(public_access="open"))


# --- settings


def test_images_come_from_the_traits_then_from_the_mirror():
    settings = everything(
        images={"core": "example.org/core@sha256:1"},
        image_names={"redis:7.2": "mirror.example.org/redis:7.2"},
    )
    objs = objects(settings)
    assert find(objs, "Deployment", "core")["spec"]["template"]["spec"]["containers"][0]["image"].endswith(
        "sha256:1"
    )
    cache = find(objs, "Deployment", "pims-cache")["spec"]["template"]["spec"]["containers"][0]
    assert cache["image"] == "mirror.example.org/redis:7.2"


def test_no_packaged_image_is_latest_or_names_a_registry():
    for image in everything().values.images.values():
        assert ":" in image
        assert not image.endswith(":latest")
        assert "." not in image.split("/")[0].split(":")[0]


def test_placement_and_pull_settings_reach_every_pod():
    settings = everything(
        node_selector={"pool": "stacks"},
        tolerations=[{"key": "stacks", "operator": "Exists"}],
        priority_class="low",
        image_pull_secrets=["login"],
        image_pull_policy="Always",
    )
    for pod in pods(objects(settings)):
        assert pod["nodeSelector"] == {"pool": "stacks"}
        assert pod["tolerations"] == [{"key": "stacks", "operator": "Exists"}]
        assert pod["priorityClassName"] == "low"
        assert pod["imagePullSecrets"] == [{"name": "login"}]
        assert {c["imagePullPolicy"] for c in pod["containers"]} == {"Always"}


def test_storage_classes_are_by_component_with_a_default():
    objs = objects(everything(storage_classes={"default": "slow", "postgis": "fast"}))
    assert find(objs, "PersistentVolumeClaim", "postgis")["spec"]["storageClassName"] == "fast"
    assert find(objs, "PersistentVolumeClaim", "images")["spec"]["storageClassName"] == "slow"
    assert "storageClassName" not in find(objects(), "PersistentVolumeClaim", "images")["spec"]


def test_env_is_added_changed_and_removed():
    values = env(objects(everything(env={"core": {"SERVER_ID": "x", "NEW": "1", "SAM_URL": None}})), "core")
    assert values["SERVER_ID"] == "x"
    assert values["NEW"] == "1"
    assert "SAM_URL" not in values


def test_overrides_merge_by_kind_and_name():
    settings = everything(
        overrides=[
            {
                "kind": "Deployment",
                "name": "pims",
                "metadata": {"annotations": {"note": "x"}},
                "spec": {
                    "template": {
                        "spec": {
                            "nodeSelector": {"disk": "fast"},
                            "initContainers": [{"name": "folders", "$patch": "delete"}],
                            "containers": [
                                {"name": "pims", "livenessProbe": None},
                                {"name": "extra", "image": "e:1"},
                            ],
                        }
                    }
                },
            }
        ]
    )
    before, after = objects(), objects(settings)
    pod = find(after, "Deployment", "pims")["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"disk": "fast"}
    assert pod["initContainers"] == []
    assert [c["name"] for c in pod["containers"]] == ["pims", "extra"]
    assert "livenessProbe" not in pod["containers"][0]
    assert pod["containers"][0]["image"] == "cytomine/pims:ba695c809"
    # what an override adds is as restricted as all else
    assert pod["containers"][1]["securityContext"]["readOnlyRootFilesystem"] is True
    others = [o for o in before if o["metadata"]["name"] != "cm-ada-pims"]
    assert others == [o for o in after if o["metadata"]["name"] != "cm-ada-pims"]


def test_an_override_that_names_nothing_is_found_at_the_start():
    with pytest.raises(ValueError, match="'pimz', which no stack has"):
        render.check(everything(overrides=[{"kind": "Deployment", "name": "pimz"}]))
    render.check(everything())
    render.check(demo())


def test_a_value_file_with_an_unknown_key_is_refused(tmp_path):
    (tmp_path / "v.yaml").write_text("image: {core: x}")
    with pytest.raises(ValueError, match="may have only the keys"):
        _ = StackSettings(values_files=[str(tmp_path / "v.yaml")]).values


@pytest.mark.parametrize(
    "url", ["https://stacks.example.org/{stack}", "https://x-{stack}.example.org", "nonsense"]
)
def test_a_stack_must_have_a_host_of_its_own(url):
    with pytest.raises(TraitError, match="host begins with"):
        StackSettings(stack_url=url)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"size": "XL"}, "The size XL is not offered here. Choose one of S, M, L."),
        ({"components": ["app-engine"]}, "The component app-engine is not offered here"),
    ],
)
def test_what_is_not_offered_is_said_in_a_sentence(spec, sentence):
    with pytest.raises(render.Invalid, match=sentence):
        objects(StackSettings(), **spec)


def test_the_app_engine_is_refused_until_it_is_set_up():
    with pytest.raises(render.Invalid, match="not set up here"):
        objects(StackSettings(allowed_components=ALL_EXTRAS), components=["app-engine"])


# --- network policies


def policies(objs):
    return {
        o["metadata"]["name"].removeprefix("cm-ada-"): o["spec"] for o in objs if o["kind"] == "NetworkPolicy"
    }


def sources(policy):
    """component -> the components that may open a connection to it."""
    found = set()
    for rule in policy.get("ingress", []):
        assert rule.get("from"), "a rule without peers would let everybody in"
        assert rule.get("ports")
        for peer in rule["from"]:
            labels = peer.get("podSelector", {}).get("matchLabels", {})
            if "namespaceSelector" not in peer:
                assert labels["app.kubernetes.io/instance"] == "cm-ada"
            found.add(labels.get("app.kubernetes.io/component") or json.dumps(peer))
    return found


def test_every_pod_of_the_stack_is_closed_but_for_what_is_opened():
    objs = objects(components=ALL_EXTRAS)
    base = policies(objs)["base"]
    assert base["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in base
    assert [p["port"] for p in base["egress"][0]["ports"]] == [53, 53]
    assert base["egress"][0]["to"]
    for obj in objs:
        if obj["kind"] in render.WORKLOADS:
            labels = obj["spec"]["template"]["metadata"]["labels"]
            assert base["podSelector"]["matchLabels"].items() <= labels.items()
            name = obj["metadata"]["name"].removeprefix("cm-ada-")
            assert policies(objs)[name]["podSelector"]["matchLabels"].items() <= labels.items()


def test_only_the_gateway_reaches_core_pims_and_the_web_interface():
    found = {name: sources(policy) for name, policy in policies(objects(components=ALL_EXTRAS)).items()}
    assert found["core"] == {"gateway", "pims"}
    assert found["pims"] == {"gateway", "core"}
    assert found["web-ui"] == {"gateway"}
    assert found["postgis"] == {"core", "repository"}
    assert found["mongo"] == {"core"}
    assert found["repository"] == {"core"}
    assert found["cbir"] == {"core"}
    assert found["cbir-redis"] == {"cbir"}
    assert found["pims-cache"] == {"pims"}
    assert found["app-engine-db"] == {"app-engine"}


def test_what_may_be_received_may_also_be_sent():
    objs = policies(objects(components=ALL_EXTRAS))
    for target, policy in objs.items():
        if target in ("base", "gateway"):
            continue
        for source in sources(policy):
            if source not in objs:
                continue  # the app engine's tasks
            allowed = [
                peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component")
                for rule in objs[source].get("egress", [])
                for peer in rule.get("to", [])
            ]
            assert target in allowed, f"{source} may not call {target}"


def gateway_rules(settings=None, **spec):
    found = {}
    for rule in policies(objects(settings, **spec))["gateway"]["ingress"]:
        for port in rule["ports"]:
            found.setdefault(port["port"], []).extend(rule["from"])
    return found


def test_the_gateway_lets_in_the_ingress_the_owners_and_the_members_notebooks_and_the_service():
    rules = gateway_rules(
        everything(notebook_namespace="books", service_namespace="hub"),
        members={"users": ["bob"], "groups": ["cytomine:users"]},
    )
    assert rules["public"] == everything().ingress_peers
    users, group, service = rules["internal"]
    books = {"matchLabels": {"kubernetes.io/metadata.name": "books"}}
    assert users["namespaceSelector"] == group["namespaceSelector"] == books
    assert users["podSelector"]["matchExpressions"] == [
        {"key": "hub.jupyter.org/username", "operator": "In", "values": ["ada", "bob"]}
    ]
    assert group["podSelector"]["matchLabels"][model.group_label("cytomine:users")] == "member"
    for peer in (users, group):
        assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "singleuser-server"
    assert service["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "hub"}}
    assert rules["activity"] == [service]
    assert [p["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for p in rules["cbir"]] == ["core"]
    assert set(rules) == {"public", "internal", "activity", "cbir"}


def login_container(settings=None):
    containers = find(objects(settings), "Deployment", "gateway")["spec"]["template"]["spec"]["containers"]
    return next((c for c in containers if c["name"] == "login"), None)


def test_a_login_stands_before_every_stack_unless_the_settings_say_otherwise():
    pod = find(objects(), "Deployment", "gateway")["spec"]["template"]["spec"]
    ports = {
        port["name"]: (c["name"], port["containerPort"]) for c in pod["containers"] for port in c["ports"]
    }
    assert (ports["public"], ports["login"]) == (("gateway", 8080), ("login", 4180))
    # What the login says of sessions has tokens, and stays off the disk.
    assert {"name": "sessions", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}} in pod["volumes"]
    assert find(objects(), "Service", "gateway")["spec"]["ports"][0]["targetPort"] == "public"
    for other in ("open", "closed"):
        assert login_container(everything(public_access=other)) is None
    assert "public" not in gateway_rules(everything(public_access="closed"))


def test_the_login_knows_the_issuer_by_both_of_its_addresses_and_its_secrets_as_files_only():
    container = login_container()
    values = dict(arg.lstrip("-").split("=", 1) for arg in container["args"] if "=" in arg)
    assert values["redirect-url"] == "https://cm-ada.stacks.example.org/oauth2/callback"
    realm = "services/cytomine/cm-ada/iam/realms/cytomine"
    assert values["oidc-issuer-url"] == f"https://hub.example.org/{realm}"
    assert values["login-url"] == f"https://hub.example.org/{realm}/protocol/openid-connect/auth"
    for name in ("redeem-url", "oidc-jwks-url"):
        assert values[name].startswith(f"http://stacks:8000/{realm}/protocol/openid-connect/")
    assert not {"client-secret", "cookie-secret", "skip-auth-route", "trusted-ip", "cookie-domain"} & set(
        values
    )
    mounted = {m["mountPath"] for m in container["volumeMounts"]}
    assert all(
        values[name].rsplit("/", 1)[0] in mounted for name in ("client-secret-file", "cookie-secret-file")
    )
    assert [e["name"] for e in container["env"]] == ["GOMEMLIMIT"]


@pytest.mark.parametrize(
    ("url", "name", "secure"),
    [
        ("https://{stack}.stacks.example.org", "__Host-cytomine-session", "true"),
        ("http://{stack}.stacks.localhost:8000", "cytomine-session", "false"),
    ],
)
def test_the_sessions_cookie_is_bound_to_the_stacks_own_host(url, name, secure):
    args = login_container(everything(stack_url=url))["args"]
    assert f"--cookie-name={name}" in args
    assert f"--cookie-secure={secure}" in args
    assert "--cookie-samesite=lax" in args


def test_a_session_is_refreshed_before_its_token_ends():
    assert "--cookie-refresh=240s" in login_container()["args"]
    assert "--cookie-expire=600s" in login_container(everything(session_expire=600))["args"]


def test_without_an_ingress_controller_in_a_pod_no_pod_reaches_the_public_port():
    assert "public" not in gateway_rules(everything(ingress_peers=[]))


# --- names


@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    owner=st.one_of(
        st.from_regex(r"[0-9a-f]{40}@lifescience-ri\.eu", fullmatch=True), st.text(min_size=1, max_size=60)
    ),
    server=st.text(max_size=40),
    member=st.text(min_size=1, max_size=60),
    group=st.text(min_size=1, max_size=60),
)
def test_any_user_server_and_group_gives_valid_objects(owner, server, member, group):
    import re

    name = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
    label = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
    spec = {
        "server_name": server,
        "members": {"users": [member], "groups": [group]},
        "components": ALL_EXTRAS,
    }
    objs = objects(everything(), owner=owner, **spec)
    assert len({(o["kind"], o["metadata"]["name"]) for o in objs}) == len(objs)
    for obj in objs:
        assert name.fullmatch(obj["metadata"]["name"])
        assert len(obj["metadata"]["name"]) <= (52 if obj["kind"] == "StatefulSet" else 63)
        for value in obj["metadata"]["labels"].values():
            assert label.fullmatch(value)
            assert len(value) <= 63
        assert obj["metadata"]["annotations"][model.ANNOTATION_OWNER] == owner
    for rules in [policy for policy in objs if policy["kind"] == "NetworkPolicy"]:
        for text in re.findall(r'"group\.cytomine-spawner\.org/([^"]*)"', json.dumps(rules)):
            assert label.fullmatch(text)
            assert len(text) <= 63


def test_quantities_are_read_as_kubernetes_reads_them():
    assert cores("250m") == 0.25
    assert cores(2) == 2
    assert to_bytes("3Gi") == 3 * 1024**3
    assert to_bytes("1e3") == 1000
    assert gib(512 * 1024**2) == "512 MiB"
    assert gib(3 * 1024**3) == "3 GiB"
    with pytest.raises(ValueError, match="not a quantity"):
        to_bytes("3 apples")


def test_an_override_does_not_change_its_own_settings():
    patch = {"kind": "Deployment", "name": "core", "metadata": {"annotations": {"a": "b"}}}
    settings = everything(overrides=[copy.deepcopy(patch)])
    objects(settings)
    assert settings.values.overrides == [patch]
