import re
from datetime import datetime, timezone
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cytomine_spawner.stack import model
from cytomine_spawner.stack.model import (
    Stack,
    StackSpec,
    StackStatus,
    connection_secret_name,
    new_stack,
    stack_name,
)
from cytomine_spawner.web import operations, projectchoice

CRD = Path(__file__).parents[3] / "helm/cytomine-hub/crds/cytominestacks.yaml"
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
# LS Login's subject, and anything else that a hub may accept as a user's name
users = st.one_of(
    st.from_regex(r"[0-9a-f]{40}@lifescience-ri\.eu", fullmatch=True), st.text(min_size=1, max_size=120)
)
servers = st.one_of(st.just(""), st.text(max_size=80))


@given(users, servers)
def test_every_owner_and_server_gives_a_valid_short_name(owner, server):
    name = stack_name(owner, server)
    assert DNS_LABEL.fullmatch(name)
    assert len(name) <= model.NAME_LENGTH
    assert name[2:4] != "--"  # such hosts are reserved for international names
    assert len(f"{name}-app-engine-db-0") <= 63


@given(st.lists(st.tuples(users, servers), min_size=2, max_size=6, unique=True))
def test_different_owners_and_servers_have_different_names(pairs):
    assert len({stack_name(*pair) for pair in pairs}) == len(pairs)


@given(users, st.text(min_size=1, max_size=120))
def test_labels_are_valid(user, group):
    label = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
    assert label.fullmatch(model.user_label(user))
    assert len(model.user_label(user)) <= 63
    prefix, _, key = model.group_label(group).partition("/")
    assert prefix == "group.cytomine-spawner.org"
    assert label.fullmatch(key)
    assert len(key) <= 63


def test_a_stack_is_the_same_after_a_round_trip():
    spec = StackSpec(
        owner="ada", server_name="x", components=("cbir",), members={"users": ("bob",)}, idle_timeout=60
    )
    stack = new_stack("ns", spec)
    read = Stack.from_object(stack.to_object())
    assert read.spec == spec
    assert read.name == stack.name
    assert read.annotations[model.ANNOTATION_OWNER] == "ada"


@pytest.mark.parametrize(
    ("field", "value"),
    [("owner", ""), ("components", ["nope"]), ("idleTimeout", -1), ("desiredState", "Off"), ("unknown", 1)],
)
def test_a_bad_field_is_named(field, value):
    with pytest.raises(ValidationError) as error:
        StackSpec.model_validate({"owner": "ada", field: value})
    assert error.value.errors()[0]["loc"][0] == field


def test_the_resource_definition_and_the_model_have_the_same_fields():
    schema = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for part, cls in (("spec", StackSpec), ("status", StackStatus)):
        assert set(schema[part]["properties"]) == {f.alias for f in cls.model_fields.values()}
    names = schema["spec"]["properties"]["components"]["items"]["enum"]
    assert names == [extra.value for extra in model.Extra]
    assert schema["status"]["properties"]["phase"]["enum"] == [phase.value for phase in model.Phase]
    states = schema["status"]["properties"]["components"]["items"]["properties"]["state"]["enum"]
    assert states == [state.value for state in model.State]


def test_the_resource_definition_and_the_model_have_the_same_choice_of_projects():
    schema = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    members = schema["spec"]["properties"]["members"]["properties"]
    access = members["access"]["items"]["properties"]
    project = access["these"]["items"]["properties"]
    for fields, cls in ((members, model.Members), (access, model.Access), (project, model.ChosenProject)):
        assert set(fields) == {f.alias for f in cls.model_fields.values()}
    assert access["projects"]["enum"] == [reach.value for reach in model.Reach]
    assert access["role"]["enum"] == [role.value for role in model.ProjectRole]
    assert members["access"]["maxItems"] == sum(operations.MOST_MEMBERS.values())
    assert access["these"]["maxItems"] == projectchoice.MOST_PROJECTS


def test_members_without_a_choice_are_users_of_all_projects_as_before_there_was_one():
    spec = StackSpec.model_validate(
        {
            "owner": "ada",
            "members": {
                "users": ["bob"],
                "groups": ["lab"],
                "access": [
                    {
                        "kind": "group",
                        "name": "lab",
                        "projects": "these",
                        "these": [{"id": 7, "name": "Lung"}],
                        "role": "manager",
                    }
                ],
            },
        }
    )
    bob = spec.members.access_of("user", "bob")
    assert (bob.projects, bob.role) == (model.Reach.ALL, model.ProjectRole.USER)
    lab = spec.members.access_of("group", "lab")
    assert (lab.these[0].id, lab.role) == (7, model.ProjectRole.MANAGER)
    assert spec.members.access_of("user", "lab").projects is model.Reach.ALL
    assert StackSpec.model_validate({"owner": "ada", "members": {"users": ["bob"]}}).members.access == ()


def test_a_status_of_a_newer_version_is_read():
    assert StackStatus.model_validate({"phase": "Ready", "later": 1}).phase is model.Phase.READY


def test_times_are_read_and_written_as_kubernetes_does():
    assert model.parse_time("2026-01-02T03:04:05Z") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert model.parse_time("2026-01-02T03:04:05.123456Z").year == 2026
    assert model.parse_time("yesterday") is None
    assert model.format_time(model.parse_time("2026-01-02T03:04:05+01:00")) == "2026-01-02T02:04:05Z"


@pytest.mark.parametrize(
    "member", ["bo", "b" * 255, "28f7bc3a2d32a4a0@lifescience-ri.eu", "Ünal", "-", "b--o"]
)
def test_the_secret_of_a_connection_has_a_valid_name_of_its_own_for_each_person(member):
    stack = stack_name("a" * 255, "b" * 255)
    name = connection_secret_name(stack, member)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 63
    others = {connection_secret_name(stack), *(connection_secret_name(stack, f"{member}{x}") for x in "ab")}
    assert name not in others
    assert len(others) == 3
