"""What the objects of a stack let in and out, and the login that stands before it."""

import json

import pytest
import yaml
from traitlets import TraitError

from cytomine_spawner.blueprint import render
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.stack import model
from dev.cache import ROOT
from tests.support.rendering import (
    ALL_EXTRAS,
    everything,
    find,
    objects,
)


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


def test_a_stack_asks_the_clusters_dns_for_names_and_nobody_else():
    (rule,) = policies(objects())["base"]["egress"]
    dns, cache = rule["to"]
    assert dns["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kube-system"}
    assert dns["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}
    assert cache == {"ipBlock": {"cidr": "169.254.20.10/32"}}
    own = [{"ipBlock": {"cidr": "10.9.0.53/32"}}]
    settings = StackSettings(dns_peers=own, dns_ports=[5353])
    (rule,) = policies(render.render(model.new_stack("ns", model.StackSpec(owner="ada")), settings))["base"][
        "egress"
    ]
    assert rule["to"] == own
    assert [(p["protocol"], p["port"]) for p in rule["ports"]] == [("UDP", 5353), ("TCP", 5353)]
    # An empty list of peers would mean everybody.
    with pytest.raises(TraitError):
        StackSettings(dns_peers=[])


def test_the_development_clusters_dns_is_found_by_the_same_label():
    found = yaml.safe_load_all((ROOT / "dev/cluster/addons.yaml").read_text().replace("${", "{"))
    dns = next(o for o in found if o["kind"] == "Deployment" and o["metadata"]["name"] == "coredns")
    assert dns["metadata"]["namespace"] == "kube-system"
    assert dns["spec"]["template"]["metadata"]["labels"]["k8s-app"] == "kube-dns"


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
