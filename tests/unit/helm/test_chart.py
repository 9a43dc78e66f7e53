"""What the chart promises, as far as Helm alone can show it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.support.chart import (
    BASE,
    CHART,
    EXAMPLES,
    LOADER,
    example,
    find,
    helm,
    hub_values,
    merged,
    pod_specs,
    render,
    restricted_violations,
    template,
)

GENERATED = {"cookie-secret", "crypt-key", "proxy-token"}
ONE_HOST = {"hub": {"publicUrl": "", "perUserHosts": False}}
examples = pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)


def values_with(**parts):
    return merged(BASE, parts)


def test_the_documented_examples_are_there():
    assert {p.stem for p in EXAMPLES} == {"production", "postgresql", "kind", "existing-secrets", "gitops"}


@examples
def test_helm_lint_is_content_with_each_example(path):
    done = helm("lint", str(CHART), "--strict", "--values", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@examples
def test_each_example_renders_a_hub_a_proxy_and_their_services(path):
    objects = example(path)
    for kind, name in (
        ("Deployment", "hub-hub"),
        ("Deployment", "hub-proxy"),
        ("Service", "hub-hub"),
        ("Service", "hub-proxy-public"),
        ("Service", "hub-proxy-api"),
    ):
        find(objects, kind, name)


@examples
def test_two_renderings_are_the_same_so_no_secret_is_made_while_rendering(path):
    again = template({}, "--values", str(path)).stdout
    assert example(path) == [item for item in yaml.load_all(again, LOADER) if item]
    for item in example(path):
        if item["kind"] == "Secret":
            assert set(item["stringData"]) & GENERATED == set()


@examples
def test_every_pod_passes_restricted_pod_security_and_cannot_write_its_image(path):
    pods = list(pod_specs(example(path)))
    assert len(pods) >= 3
    for name, _, spec in pods:
        assert restricted_violations(spec) == [], name
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert container["resources"]["requests"], name
            assert container["resources"]["limits"]["memory"], name


@examples
def test_no_pod_carries_a_secret_in_its_environment_or_command(path):
    for name, _, spec in pod_specs(example(path)):
        for container in spec["containers"]:
            for variable in container.get("env", []):
                # The service's address at the hub; its token is a file.
                plain = re.fullmatch(
                    r"JUPYTERHUB_(API_URL|BASE_URL|PUBLIC_URL|HOST|OAUTH_CALLBACK_URL|CLIENT_ID|SERVICE_NAME|SERVICE_PREFIX"
                    r"|COOKIE_HOST_PREFIX_ENABLED)",
                    variable["name"],
                )
                assert plain or "value" not in variable, f"{name}: {variable['name']}"
            assert not re.search(r"[0-9a-f]{32}", " ".join(container["command"])), name


@examples
def test_names_labels_and_selectors_follow_the_conventions(path):
    for item in example(path):
        labels = item["metadata"]["labels"]
        for key in ("name", "instance", "component", "part-of", "managed-by"):
            assert f"app.kubernetes.io/{key}" in labels, item["kind"]
        if item["kind"] == "Deployment":
            selector = item["spec"]["selector"]["matchLabels"]
            assert set(selector) == {f"app.kubernetes.io/{k}" for k in ("name", "instance", "component")}
            assert selector.items() <= item["spec"]["template"]["metadata"]["labels"].items()


@examples
def test_nothing_reaches_outside_the_two_namespaces(path):
    objects = example(path)
    kinds = {item["kind"] for item in objects}
    assert kinds.isdisjoint({"ClusterRole", "ClusterRoleBinding", "PriorityClass"})
    (users,) = [item["metadata"]["name"] for item in objects if item["kind"] == "Namespace"]
    places = {item["metadata"].get("namespace") for item in objects if item["kind"] != "Namespace"}
    assert places == {"cytomine", users}


def rights(role):
    return {
        (group, resource, verb)
        for rule in role["rules"]
        if not rule.get("resourceNames")
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_hub_has_the_rights_that_the_spawner_uses_and_no_other():
    objects = render()
    pods = {("", "pods", verb) for verb in ("list", "watch", "create", "delete")}
    claims = {("", "persistentvolumeclaims", verb) for verb in ("get", "create", "delete")}
    events = {("", "events", verb) for verb in ("list", "watch")}
    tokens = {("", "secrets", verb) for verb in ("create", "patch", "delete")}
    assert rights(find(objects, "Role", "hub-hub")) == pods | claims | events | tokens

    without = render(values_with(singleuser={"tokenInSecret": False}))
    assert rights(find(without, "Role", "hub-hub")) == pods | claims | events
    assert hub_values(without)["singleuser"]["tokenInSecret"] is False


def test_the_job_may_read_and_change_its_own_secret_only():
    role = find(render(values_with(users={"namespace": "people"})), "Role", "hub-secrets")
    assert rights(role) == {("", "secrets", "create")}
    # While nobody said where users shall be, it also looks whether an earlier release left some.
    role = find(render(), "Role", "hub-secrets")
    looked = {
        ("", "persistentvolumeclaims"),
        ("", "pods"),
        ("cytomine-spawner.org", "cytominestacks"),
    }
    assert rights(role) == {("", "secrets", "create")} | {(*what, "list") for what in looked}
    assert [r for r in role["rules"] if r.get("resourceNames")] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["hub-secrets"],
            "verbs": ["get", "patch"],
        }
    ]


def test_the_proxy_has_no_account_and_a_job_of_an_existing_secret_has_none_either():
    objects = render()
    assert (
        find(objects, "Deployment", "hub-proxy")["spec"]["template"]["spec"]["automountServiceAccountToken"]
        is False
    )
    bare = render(
        values_with(
            secrets={"existingSecret": "mine"}, hub={"serviceAccount": {"create": False, "name": "x"}}
        )
    )
    kinds = {item["kind"] for item in bare}
    assert kinds.isdisjoint({"Job", "Role", "RoleBinding", "ServiceAccount"})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hubb": {}}, "hubb"),
        ({"hub": {"imge": {}}}, "imge"),
        ({"hub": {"db": {"type": "mysql"}}}, "sqlite-pvc"),
        ({"hub": {"db": {"pvc": {"storage": "much"}}}}, "/hub/db/pvc/storage"),
        ({"hub": {"config": {"jupyterhub": {"x": 1}}}}, "jupyterhub"),
        ({"hub": {"services": {"a": {"api_token": "x"}}}}, "/hub/services/a"),
        ({"hub": {"baseUrl": "hub"}}, "/hub/baseUrl"),
        ({"hub": {"activeServerLimit": "many"}}, "/hub/activeServerLimit"),
        ({"lslogin": {"allowedGroups": "users"}}, "/lslogin/allowedGroups"),
        ({"lslogin": {"clientSecret": "oops"}}, "clientSecret"),
        ({"singleuser": {"sizes": [{"name": "small", "memory": "1G"}]}}, "memory"),
        ({"singleuser": {"images": [{"name": "a"}]}}, "image"),
        ({"singleuser": {"extraEnv": {"A": 1}}}, "/singleuser/extraEnv/A"),
        ({"singleuser": {"extraEnv": {"A": {"value": "x"}}}}, "/singleuser/extraEnv/A"),
        ({"singleuser": {"extraEnv": {"A": {"valueFrom": {}}}}}, "/singleuser/extraEnv/A"),
        (
            {"singleuser": {"extraEnv": {"A": {"valueFrom": {"secretKeyRef": {"name": "s"}}}}}},
            "/singleuser/extraEnv/A",
        ),
        ({"culling": {"every": 0}}, "/culling/every"),
        ({"proxy": {"service": {"type": "clusterip"}}}, "LoadBalancer"),
        ({"users": {"namespace": "Users"}}, "/users/namespace"),
        ({"users": {"podSecurity": "none"}}, "restricted"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values, said):
    done = template(merged(BASE, values))
    assert done.returncode != 0
    assert said in done.stderr
    assert "schema" in done.stderr


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "lslogin.clientId is not set: register the hub with LS Login"),
        (values_with(hub={"serviceAccount": {"create": False}}), "hub.serviceAccount.name is not set"),
        ({**BASE, "ingress": {"enabled": True, "tls": {"enabled": True}}}, "ingress.host is not set"),
        (values_with(hub={"services": {"a b": {}}}), "hub.services.a b: the name"),
        (
            values_with(hub={"publicUrl": ""}),
            "hub.publicUrl is not set: each user has a host below the hub's",
        ),
        (values_with(hub={"publicUrl": "http://192.0.2.7:8000"}), "192.0.2.7 is no name"),
        (values_with(hub={"publicUrl": "http://[2001:db8::1]:8000"}), "is no name"),
        (
            values_with(stacks={"enabled": True, "url": "https://{stack}.hub.example.org"}),
            "stacks.url: https://{stack}.hub.example.org is below the hub's host",
        ),
    ],
)
def test_what_cannot_be_installed_is_said_in_a_sentence(values, said):
    done = template(values)
    assert done.returncode != 0
    assert said in done.stderr


def test_the_schema_knows_every_value_and_no_other():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def resolve(node):
        return schema["definitions"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node

    def compare(node, value, place):
        node = resolve(node)
        if not isinstance(value, dict) or "properties" not in node:
            return
        assert node["additionalProperties"] is False, place
        known = set(node["properties"]) - {"global"}
        free = {"requests", "limits"}
        assert known - free == set(value) - free, place
        for key, inner in value.items():
            compare(node["properties"][key], inner, f"{place}.{key}")

    compare(schema, values, "values")


def test_every_group_of_values_is_explained():
    lines = (CHART / "values.yaml").read_text().splitlines()
    tops = [i for i, line in enumerate(lines) if re.match(r"[a-zA-Z]+:", line)]
    assert len(tops) >= 10
    for number, i in enumerate(tops):
        block = lines[i - 1 : tops[number + 1] if number + 1 < len(tops) else None]
        assert any(line.lstrip().startswith("#") for line in block), lines[i]


def checksum(objects):
    template_ = find(objects, "Deployment", "hub-hub")["spec"]["template"]
    return template_["metadata"]["annotations"]["checksum/config"]


def test_a_changed_configuration_restarts_the_hub_and_other_changes_do_not():
    before = checksum(render())
    assert checksum(render(values_with(culling={"timeout": 60}))) != before
    assert checksum(render(values_with(hub={"extraConfig": {"a": "c.X.y = 1"}}))) != before
    assert checksum(render(values_with(hub={"config": {"JupyterHub": {"log_level": 10}}}))) != before
    assert checksum(render(values_with(proxy={"logLevel": "debug"}, networkPolicy={"ipv6": True}))) == before


def job(objects):
    (found,) = [o for o in objects if o["kind"] == "Job"]
    return found


def test_the_job_has_another_name_when_it_does_something_else_so_that_it_can_be_applied_again():
    name = job(render())["metadata"]["name"]
    assert job(render(values_with(culling={"timeout": 60})))["metadata"]["name"] == name
    assert job(render(values_with(hub={"services": {"stats": {}}})))["metadata"]["name"] != name
    assert job(render(values_with(hub={"image": {"tag": "2"}})))["metadata"]["name"] != name
    assert job(render())["spec"]["ttlSecondsAfterFinished"] == 600


def test_the_job_runs_before_everything_and_makes_each_key_that_the_pods_wait_for():
    objects = render(
        values_with(hub={"services": {"stats": {"url": "http://stats"}, "own": {"command": ["x"]}}})
    )
    made = job(objects)
    command = made["spec"]["template"]["spec"]["containers"][0]["command"]
    keys = {a.removeprefix("--key=") for a in command if a.startswith("--key=")}
    assert keys == GENERATED | {"service-token-stats"}
    assert made["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    weight = int(made["metadata"]["annotations"]["helm.sh/hook-weight"])
    for kind in ("ServiceAccount", "Role", "RoleBinding"):
        account = find(objects, kind, "hub-secrets")["metadata"]["annotations"]
        assert int(account["helm.sh/hook-weight"]) < weight
    sources = volume(objects, "secrets")["projected"]["sources"]
    waited = {i["path"] for s in sources if not s["secret"].get("optional") for i in s["secret"]["items"]}
    assert waited == keys


def test_the_secret_of_the_job_is_not_marked_as_the_releases_own():
    command = job(render())["spec"]["template"]["spec"]["containers"][0]["command"]
    labels = [a for a in command if a.startswith("--label=")]
    assert labels
    assert not [a for a in labels if "app.kubernetes.io/instance" in a]


def volume(objects, name):
    spec = find(objects, "Deployment", "hub-hub")["spec"]["template"]["spec"]
    (found,) = [v for v in spec["volumes"] if v["name"] == name]
    return found


def own_secrets(objects):
    sources = [
        s["secret"] for s in volume(objects, "secrets")["projected"]["sources"] if s["secret"].get("optional")
    ]
    return {i["path"]: (s["name"], i["key"]) for s in sources for i in s["items"]}


def test_the_secrets_of_the_administrator_come_from_where_the_values_say():
    assert own_secrets(render()) == {"oidc-client-secret": ("lslogin-client", "client-secret")}
    hub = BASE["hub"]
    here = render({"lslogin": {"clientId": "x"}, "hub": {**hub, "db": {"type": "url"}}})
    assert own_secrets(here) == {
        "oidc-client-secret": ("hub-secrets", "oidc-client-secret"),
        "database-url": ("hub-secrets", "database-url"),
    }
    assert own_secrets(render({"authentication": {"type": "custom"}, "hub": hub})) == {}


def test_the_state_is_on_a_volume_that_uninstalling_keeps_unless_a_database_holds_it():
    claim = find(render(), "PersistentVolumeClaim", "hub-hub-db")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert volume(render(), "state")["persistentVolumeClaim"] == {"claimName": "hub-hub-db"}
    other = render(values_with(hub={"db": {"pvc": {"existingClaim": "mine"}}}))
    assert volume(other, "state")["persistentVolumeClaim"] == {"claimName": "mine"}
    database = render(values_with(hub={"db": {"type": "url"}}))
    for objects in (other, database):
        assert not [o for o in objects if o["kind"] == "PersistentVolumeClaim"]
    assert volume(database, "state")["emptyDir"] == {}


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({"hub": {"perUserHosts": False}}, ""),
        ({"ingress": {"enabled": True, "host": "a.example"}}, "http://a.example"),
        ({"ingress": {"enabled": True, "host": "a.example", "tls": {"enabled": True}}}, "https://a.example"),
        (
            {"ingress": {"enabled": True, "host": "a.example"}, "hub": {"publicUrl": "http://b:8000/"}},
            "http://b:8000",
        ),
    ],
)
def test_the_public_address_follows_from_the_ingress_unless_given(values, url):
    assert hub_values(render(merged(BASE, {"hub": {"publicUrl": ""}}, values)))["hub"]["publicUrl"] == url


def commands(objects):
    return {name: spec["containers"][0]["command"] for name, _, spec in pod_specs(objects)}


def test_each_user_has_a_host_below_the_hubs_unless_somebody_says_otherwise():
    for more in ({}, {"hub": {"perUserHosts": None}}):
        objects = render(merged(BASE, {"ingress": {"enabled": True, "host": "hub.example.org"}}, more))
        assert hub_values(objects)["hub"]["perUserHosts"] is True
        assert "--host-routing" in commands(objects)["Deployment/hub-proxy"]
        hosts = [rule["host"] for rule in find(objects, "Ingress", "hub")["spec"]["rules"]]
        assert hosts == ["hub.example.org", "*.hub.example.org"]
        # What looks at each request before JupyterHub's pages.
        assert commands(objects)["Deployment/hub-hub"][0] == "cytomine-hub"

    one = values_with(hub={"perUserHosts": False}, ingress={"enabled": True, "host": "hub.example.org"})
    objects = render(one)
    assert hub_values(objects)["hub"]["perUserHosts"] is False
    assert "--host-routing" not in commands(objects)["Deployment/hub-proxy"]
    assert [rule["host"] for rule in find(objects, "Ingress", "hub")["spec"]["rules"]] == ["hub.example.org"]


@pytest.mark.parametrize(
    ("tls", "entries"),
    [
        ({}, [{"hosts": ["hub.example.org", "*.hub.example.org"]}]),
        ({"secretName": "a"}, [{"hosts": ["hub.example.org", "*.hub.example.org"], "secretName": "a"}]),
        (
            {"secretName": "a", "wildcardSecretName": "b"},
            [
                {"hosts": ["hub.example.org"], "secretName": "a"},
                {"hosts": ["*.hub.example.org"], "secretName": "b"},
            ],
        ),
    ],
)
def test_the_certificate_is_for_the_users_hosts_too_or_they_have_one_of_their_own(tls, entries):
    ingress = {"enabled": True, "host": "hub.example.org", "tls": {"enabled": True, **tls}}
    assert find(render(values_with(ingress=ingress)), "Ingress", "hub")["spec"]["tls"] == entries


def test_another_path_is_used_by_ingress_probes_proxy_and_test_alike():
    objects = render(
        values_with(hub={"baseUrl": "/jupyter/"}, ingress={"enabled": True, "host": "a.example"})
    )
    path = find(objects, "Ingress", "hub")["spec"]["rules"][0]["http"]["paths"][0]["path"]
    assert path == "/jupyter/"
    containers = {name: spec["containers"][0] for name, _, spec in pod_specs(objects)}
    hub = containers["Deployment/hub-hub"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert hub[probe]["httpGet"]["path"] == "/jupyter/hub/health"
    assert (
        "--error-target=http://hub-hub:8081/jupyter/hub/error"
        in containers["Deployment/hub-proxy"]["command"]
    )
    assert any(a.endswith("/jupyter/hub/health") for a in containers["Pod/hub-test"]["command"])


def test_two_releases_in_one_namespace_share_no_name():
    def names(release):
        return {(o["kind"], o["metadata"]["name"]) for o in render(release=release)}

    # The second one is told to choose another namespace for its users: test_chart_api.py.
    assert names("one") & names("two") == {("Namespace", "cytomine-users")}


def test_placement_and_registry_credentials_reach_every_pod():
    place = {
        "nodeSelector": {"pool": "core"},
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "high",
    }
    objects = render(values_with(hub=place, proxy=place, imagePullSecrets=[{"name": "registry"}]))
    for name, _, spec in pod_specs(objects):
        assert spec["nodeSelector"] == {"pool": "core"}, name
        assert spec["tolerations"] == [{"operator": "Exists"}], name
        assert spec["priorityClassName"] == "high", name
        assert spec["imagePullSecrets"] == [{"name": "registry"}], name
    assert hub_values(objects)["imagePullSecrets"] == [{"name": "registry"}]


def test_images_can_be_named_by_digest():
    digest = f"sha256:{'0' * 64}"
    objects = render(values_with(hub={"image": {"name": "registry.example:5000/hub", "tag": digest}}))
    hub = next(o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"] == "hub-hub")
    assert hub["spec"]["template"]["spec"]["containers"][0]["image"] == f"registry.example:5000/hub@{digest}"
    assert template(values_with(hub={"image": {"tag": "sha256:0"}})).returncode != 0


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """The text that Helm prints after an install; without a cluster it only renders files that are YAML."""
    chart = tmp_path_factory.mktemp("notes") / "chart"
    shutil.copytree(CHART, chart)
    text = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "_notes.tpl").write_text(f'{{{{- define "notes" }}}}{text}{{{{ end }}}}')
    (chart / "templates" / "notes.yaml").write_text(
        'kind: Notes\nmetadata: {}\ntext: {{ include "notes" . | toJson }}'
    )

    def read(values):
        done = template(values, "--show-only", "templates/notes.yaml", chart=chart)
        assert done.returncode == 0, done.stderr
        return yaml.load(done.stdout, LOADER)["text"]

    return read


def test_the_notes_say_the_address_and_what_is_still_missing(notes):
    said = notes(values_with(hub={"publicUrl": ""}, ingress={"enabled": True, "host": "hub.example"}))
    assert "The hub is at http://hub.example/" in said
    assert "wildcard name *.hub.example beside hub.example" in said
    assert "http://hub.example/hub/oauth_callback" in said
    assert "WARNING: nobody can log in yet" in said
    assert "delete secret hub-secrets" in said
    assert "delete pvc hub-hub-db" in said

    pinned = {"image": {"tag": f"sha256:{'0' * 64}"}}
    said = notes(
        values_with(
            lslogin={"allowedGroups": ["users"]},
            ingress={"enabled": True, "host": "hub.example"},
            **dict.fromkeys(("hub", "proxy", "singleuser", "stacks"), pinned),
        )
    )
    assert "WARNING" not in said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            ONE_HOST,
            [
                "port-forward service/hub-proxy-public",
                "neither hub.publicUrl nor ingress.host",
                "WARNING: hub.perUserHosts is false",
            ],
        ),
        ({**ONE_HOST, "proxy": {"service": {"type": "NodePort"}}}, ["get service hub-proxy-public"]),
        ({"lslogin": {"allowAll": True}}, ["lets in everyone"]),
        ({"lslogin": {"clientSecretName": ""}}, ["the key oidc-client-secret of the Secret hub-secrets"]),
        ({"hub": {"db": {"type": "sqlite-memory"}}}, ["forgets all users"]),
        ({"networkPolicy": {"enabled": False}}, ["networkPolicy.enabled is false"]),
        (
            {"users": {"namespace": "cytomine"}},
            ["WARNING: users.namespace is the hub's own namespace"],
        ),
        (
            {"imagePullSecrets": [{"name": "r"}]},
            ["What they name must be in cytomine-users: the Secret r."],
        ),
        ({"users": {"createNamespace": False}}, ["cytomine-users, which you have made"]),
        (
            {},
            [
                "the Job that makes the Secrets looks and fails.\nSet users.namespace to cytomine for such a release.",
                "kubectl -n cytomine-users delete pods,pvc -l cytomine-spawner.org/hub=hub",
            ],
        ),
        ({"secrets": {"existingSecret": "mine"}}, ["with secrets.existingSecret no Job looks either."]),
        (
            {
                "secrets": {"existingSecret": "mine"},
                "stacks": {"enabled": True, "url": "https://{stack}.s.example"},
            },
            ["NOTE: the token of the service of stacks is a key of the hub's Secret mine."],
        ),
        ({"hub": {"image": {"name": "h", "tag": "1"}}}, ["WARNING: h:1, cytomine-spawner/proxy:"]),
        (
            {"singleuser": {"images": [{"name": "a", "image": "a:1"}]}},
            [", a:1: a tag can be pushed anew"],
        ),
    ],
)
def test_the_notes_warn_of(notes, values, said):
    text = notes(merged(BASE, values))
    assert [words for words in said if words not in text] == []


def test_no_file_of_the_chart_names_a_registry_or_a_place_of_this_machine():
    for path in Path(CHART).rglob("*"):
        if path.is_file():
            text = path.read_text()
            for word in ("docker.io", "quay.io", "ghcr.io", "/work/", "/tmp/boot"):
                assert word not in text, path
