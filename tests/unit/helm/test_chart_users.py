"""Notebooks and stacks have a namespace of their own, in which neither the hub nor the service of stacks has the hub's Secrets."""

from __future__ import annotations

import json

import pytest

from tests.support.chart import BASE, EXAMPLES, Network, example, find, hub_values, merged, render, template

STACKS = {"enabled": True, "url": "https://{stack}.stacks.example.org"}
ON = merged(BASE, {"stacks": STACKS})
TOGETHER = merged(ON, {"users": {"namespace": "cytomine"}})
HUB, USERS = "cytomine", "cytomine-users"


def given(objects, account, namespace):
    """The rights of an account of the release in a namespace: of each rule its verbs, resources and names."""
    roles = {
        binding["roleRef"]["name"]
        for binding in objects
        if binding["kind"] == "RoleBinding"
        and binding["metadata"]["namespace"] == namespace
        and {"kind": "ServiceAccount", "name": account, "namespace": HUB} in binding["subjects"]
    }
    return [
        (verb, resource, tuple(rule.get("resourceNames", ())))
        for role in objects
        if role["kind"] == "Role"
        and role["metadata"]["namespace"] == namespace
        and role["metadata"]["name"] in roles
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
    ]


def settings(objects):
    texts = find(objects, "Secret", "hub-stacks-settings")["stringData"]
    return json.loads(texts["settings.json"])["StackSettings"]


def test_the_service_of_stacks_and_the_hub_have_rights_where_users_are_and_none_at_all_where_the_hub_is():
    objects = render(merged(ON, {"hub": {"rbac": {"extraRules": [
        {"apiGroups": [""], "resources": ["services"], "verbs": ["create"]}
    ]}}}))  # fmt: skip
    for account in ("hub-hub", "hub-stacks"):
        assert given(objects, account, HUB) == [], account
        assert ("create", "secrets", ()) in given(objects, account, USERS), account
    assert ("get", "secrets", ()) in given(objects, "hub-stacks", USERS)
    # By the API the hub reads neither the Secrets of stacks nor those of others.
    assert {v for v, r, _ in given(objects, "hub-hub", USERS) if r == "secrets"} == {
        "create",
        "patch",
        "delete",
    }
    assert ("create", "services", ()) in given(objects, "hub-hub", USERS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_only_the_job_that_makes_them_may_ask_for_secrets_of_the_hub_and_for_those_by_name(path):
    objects = example(path)
    here = [o for o in objects if o["metadata"].get("namespace") == HUB]
    accounts = {s["name"] for o in here if o["kind"] == "RoleBinding" for s in o["subjects"]}
    assert accounts <= {"hub-secrets"}
    for verb, resource, names in given(objects, "hub-secrets", HUB):
        # A right to create cannot be limited to one name. What is listed is whether an earlier release left users here.
        if resource == "secrets" and verb != "create":
            assert names
            assert set(names) <= {"hub-secrets", "hub-stacks-token"}
        elif resource != "secrets":
            assert (verb, resource in ("persistentvolumeclaims", "pods", "cytominestacks")) == ("list", True)


def first(objects):
    """What the Job runs before it makes the Secrets."""
    (job,) = [o for o in objects if o["kind"] == "Job"]
    return [c["command"][2:] for c in job["spec"]["template"]["spec"].get("initContainers", [])]


def test_what_an_earlier_release_left_is_looked_for_in_the_cluster_unless_somebody_said_where_users_are():
    look = [
        "cytomine_spawner.cluster.leftbehind",
        "--namespace=cytomine",
        "--users=cytomine-users",
        "--release=hub",
    ]
    assert first(render(ON)) == [look]
    assert first(render(TOGETHER)) == []
    assert first(render(merged(ON, {"users": {"namespace": "people"}}))) == []


def test_no_account_of_the_release_is_one_that_a_pod_beside_the_stacks_could_take():
    for item in render(ON):
        if item["kind"] in ("ServiceAccount", "Secret", "Deployment", "Pod", "Job", "PersistentVolumeClaim"):
            assert item["metadata"]["namespace"] == HUB, item["metadata"]["name"]


def test_hub_and_service_look_for_notebooks_and_stacks_there_and_these_find_the_hub_from_there():
    objects = render(ON)
    told, stacks = hub_values(objects), settings(objects)
    assert told["users"]["namespace"] == USERS
    assert told["hub"]["connectUrl"] == "http://hub-hub.cytomine.svc:8081"
    assert (stacks["namespace"], stacks["notebook_namespace"], stacks["service_namespace"]) == (
        USERS,
        USERS,
        HUB,
    )
    assert stacks["service_internal_url"] == "http://hub-stacks.cytomine.svc:8000/services/cytomine"
    # Whoever is beside them.
    assert told["stacks"]["url"] == "http://hub-stacks:8000"
    (test,) = [o for o in objects if o["kind"] == "Pod"]
    assert {"--namespace=cytomine-users", "--hub-namespace=cytomine"} <= set(
        test["spec"]["containers"][0]["command"]
    )


def test_the_namespace_is_made_restricted_and_stays_when_the_release_goes():
    made = find(render(ON), "Namespace", USERS)
    assert made["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert made["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    users = {
        "namespace": "people",
        "podSecurity": "baseline",
        "labels": {"team": "a"},
        "annotations": {"n": "b"},
    }
    objects = render(merged(ON, {"users": users}))
    made = find(objects, "Namespace", "people")
    assert made["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"
    assert made["metadata"]["labels"]["team"] == "a"
    assert made["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep", "n": "b"}
    assert find(objects, "NetworkPolicy", "hub-singleuser")["metadata"]["namespace"] == "people"
    there = render(merged(ON, {"users": {"createNamespace": False}}))
    assert not [o for o in there if o["kind"] == "Namespace"]
    assert hub_values(there)["users"]["namespace"] == USERS


def test_a_release_from_before_stays_as_it_is_with_its_own_namespace():
    objects = render(TOGETHER)
    assert {o["metadata"]["namespace"] for o in objects} == {HUB}
    told, stacks = hub_values(objects), settings(objects)
    assert told["users"]["namespace"] == HUB
    # What notebooks and stacks were started with: a change would start the stacks' gateways and cores anew.
    assert told["hub"]["connectUrl"] == "http://hub-hub:8081"
    assert stacks["service_internal_url"] == "http://hub-stacks:8000/services/cytomine"
    assert (stacks["namespace"], stacks["notebook_namespace"], stacks["service_namespace"]) == (HUB, HUB, HUB)
    assert ("create", "pods", ()) in given(objects, "hub-hub", HUB)
    assert ("get", "secrets", ()) in given(objects, "hub-stacks", HUB)
    network = Network(objects)
    for source, target, port in (
        ("notebook", "hub", 8081),
        ("proxy", "notebook", 8888),
        ("notebook", "stacks", 8000),
    ):
        assert network.allows(source, target, port), (source, target, port)


def test_values_of_a_release_from_before_are_taken_as_not_given():
    """``helm upgrade --reuse-values`` brings no value that came with this version."""
    objects = render(merged(ON, {"users": None, "secrets": {"existingStacksSecret": None}}))
    assert (
        find(objects, "Namespace", USERS)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
    assert hub_values(objects)["users"]["namespace"] == USERS


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"stacks": {**STACKS, "datasetVolume": {"nfs": {"server": "s", "path": "/"}}}},
         "stacks.datasetVolume: the Pod Security Standard restricted, which users.podSecurity sets, forbids pods a volume nfs"),
        ({"singleuser": {"extraVolumes": [{"name": "a", "hostPath": {"path": "/"}}]}},
         "singleuser.extraVolumes: the Pod Security Standard restricted, which users.podSecurity sets, forbids pods a volume hostPath"),
    ],
)  # fmt: skip
def test_a_volume_that_the_namespace_forbids_is_said_at_once(values, said):
    done = template(merged(BASE, values))
    assert done.returncode != 0
    assert said in done.stderr
    assert template(merged(BASE, values, {"users": {"podSecurity": "baseline"}})).returncode == 0
    # What a namespace that somebody else made allows is theirs to know.
    assert template(merged(BASE, values, {"users": {"createNamespace": False}})).returncode == 0


def test_a_name_that_is_too_long_is_said():
    done = template(BASE, "--namespace", "n" * 60)
    assert done.returncode != 0
    assert f"users.namespace: {'n' * 60}-users is longer than 63 characters" in done.stderr
