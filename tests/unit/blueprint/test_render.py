"""What the rendered objects of a stack must be, whatever the names and the settings."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cytomine_spawner.blueprint import render
from cytomine_spawner.common.quantity import cores, gib, to_bytes
from cytomine_spawner.stack import model
from cytomine_spawner.stack.model import StackSpec
from tests.support.examples import examples
from tests.support.rendering import (
    ALL_EXTRAS,
    VALUE_SETS,
    containers,
    demo,
    env,
    everything,
    find,
    objects,
    pods,
    stack,
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
def test_a_shell_that_waits_for_a_neighbour_hears_the_signal_to_end(make, extras):
    # As a container's first process it would not, and a stack that is deleted while it starts would take 30 seconds.
    scripts = [
        " ".join([*container.get("command", []), *container.get("args", [])])
        for container in containers(objects(make(), components=extras))
    ]
    waiting = [script for script in scripts if "sleep" in script]
    assert len(waiting) >= 3
    for script in waiting:
        assert 0 < script.index("trap 'exit 143' TERM") < script.index("sleep")


@VALUE_SETS
@pytest.mark.parametrize("size", ["S", "M", "L"])
def test_every_container_has_requests_and_limits(make, extras, size):
    for container in containers(objects(make(), components=extras, size=size)):
        resources = container["resources"]
        for name, read in (("cpu", cores), ("memory", to_bytes)):
            assert 0 < read(resources["requests"][name]) <= read(resources["limits"][name])


@pytest.mark.parametrize("component", ["core", "repository"])
def test_a_server_that_starts_slowly_on_a_full_node_is_not_ended_before_it_serves(component):
    # Seen: 240 s were too few at load 20, with a tenth of the processor that was asked for.
    name = f"cm-ada-{component}"
    [made] = [o for o in objects(everything()) if (o["kind"], o["metadata"]["name"]) == ("Deployment", name)]
    probe = made["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 1200


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


@pytest.mark.parametrize(("size", "workers"), [("S", "2"), ("M", "2"), ("L", "4")])
def test_in_no_size_does_one_bad_slide_end_all_workers_of_the_image_server(size, workers):
    assert env(objects(size=size), "pims")["WEB_CONCURRENCY"] == workers


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


# --- names


@hypothesis_settings(max_examples=examples(30), suppress_health_check=[HealthCheck.too_slow])
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
