"""Names of what belongs to stacks: those of two stacks never meet, whatever people are called."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cytomine_spawner.access import projects
from cytomine_spawner.blueprint import render
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.identity import sessions_secret
from cytomine_spawner.stack.model import (
    Extra,
    Import,
    StackSpec,
    component_name,
    connection_secret_name,
    new_stack,
    stack_name,
)

Name = tuple[str, str]


@cache
def own() -> frozenset[Name]:
    """Kind and name, without the stack's, of all that a stack consists of."""
    settings = StackSettings(
        datasets=[{"name": "skin"}],
        dataset_volume={"persistentVolumeClaim": {"claimName": "datasets"}},
        allowed_components=[extra.value for extra in Extra],
        app_engine_namespace="tasks",
        app_engine_token_secret="token",
        app_engine_registry="registry.example.org",
    )
    stack = new_stack("cytomine", StackSpec(owner="ada", components=tuple(Extra)))
    objects = [
        *render.render(stack, settings, Import(("skin",), "1")),
        render.secret(stack, {}),
        {"kind": "Secret", "metadata": {"name": sessions_secret(stack.name)}},
        {"kind": "Secret", "metadata": {"name": component_name(stack.name, projects.COMPONENT)}},
        {"kind": "Secret", "metadata": {"name": connection_secret_name(stack.name)}},
    ]
    found = set()
    for obj in objects:
        assert obj["metadata"]["name"].startswith(f"{stack.name}-")
        found.add((obj["kind"], obj["metadata"]["name"].removeprefix(stack.name)))
    return frozenset(found)


def names(stack: str, members: list[str]) -> set[Name]:
    """Kind and name of all that belongs to a stack with these members."""
    of_members = {
        (kind, connection_secret_name(stack, member))
        for member in members
        for kind in ("Secret", "NetworkPolicy")
    }
    return {*((kind, stack + rest) for kind, rest in own()), *of_members}


TAILS = sorted({rest.removeprefix("-") for _, rest in own()})
# What people are called: like anything, like a part of a stack, and like a person with a part of a stack behind.
ANYTHING = st.text(min_size=1, max_size=80)
LIKELY = st.from_regex(r"\A[a-z0-9][a-z0-9@._-]{0,30}\Z")
PART = st.sampled_from(TAILS)
PEOPLE = st.one_of(ANYTHING, LIKELY, PART)
SERVERS = st.one_of(st.just(""), LIKELY, PART)


@given(
    owner=PEOPLE,
    behind=st.lists(st.one_of(PART, LIKELY), max_size=2),
    servers=st.tuples(SERVERS, SERVERS),
    members=st.lists(PEOPLE, max_size=4),
)
@example(owner="ada", behind=["connection"], servers=("", ""), members=["secrets"])
@example(owner="ada", behind=["connection"], servers=("", ""), members=["core"])
def test_nothing_of_one_stack_has_the_name_of_anything_of_another(
    owner: str, behind: list[str], servers: tuple[str, str], members: list[str]
) -> None:
    one, other = stack_name(owner, servers[0]), stack_name("-".join([owner, *behind]), servers[1])
    assume(one != other)
    assert not names(one, members) & names(other, members)


@given(stack=st.tuples(PEOPLE, SERVERS), members=st.lists(PEOPLE, min_size=2, max_size=6, unique=True))
def test_within_a_stack_each_member_has_a_name_of_her_own(stack: tuple[str, str], members: list[str]) -> None:
    found = names(stack_name(*stack), members)
    assert len(found) == len(own()) + 2 * len(members)
    assert max(len(name) for _, name in found) <= 63


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in own()}))
def test_no_part_ends_as_another_is_called(kind: str) -> None:
    # With this, a longer owner's name can never make up for a shorter part.
    parts = [rest for its_kind, rest in own() if its_kind == kind]
    assert not [(a, b) for a in parts for b in parts if a != b and a.endswith(b)]
