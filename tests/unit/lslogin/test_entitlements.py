"""AARC-G069 entitlements become short group names, and nothing else does."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytomine_spawner.lslogin.entitlements import (
    MAX_NAME_LENGTH,
    MAX_URN_LENGTH,
    MAX_URNS,
    Entitlement,
    EntitlementError,
    GroupPolicy,
    parse,
    short_names,
)

NAMESPACE = "urn:geant:lifescience-ri.eu:group"
ROOT = f"{NAMESPACE}:lifescience:communities_and_projects"
BY = "#aai.lifescience-ri.eu"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"{NAMESPACE}:lifescience:a{BY}", Entitlement(("lifescience", "a"), "", "aai.lifescience-ri.eu")),
        (f"{NAMESPACE}:one", Entitlement(("one",))),
        (f"{NAMESPACE}:ELIXIR%20AAI{BY}", Entitlement(("ELIXIR AAI",), "", "aai.lifescience-ri.eu")),
        (f"{NAMESPACE}:a:role=manager#B.example", Entitlement(("a",), "manager", "b.example")),
        (f"{NAMESPACE}:a:role=vice%20head{BY}", Entitlement(("a",), "vice head", "aai.lifescience-ri.eu")),
        (f"URN:GEANT:lifescience-ri.eu:group:a{BY}", Entitlement(("a",), "", "aai.lifescience-ri.eu")),
        (f"{NAMESPACE}:%C3%A5rhus", Entitlement(("århus",))),
        (f"{NAMESPACE}:a%3Ab", Entitlement(("a:b",))),
    ],
)
def test_reads_what_the_guideline_allows(value: str, expected: Entitlement) -> None:
    assert parse(value, NAMESPACE) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "cytomine:users",
        "urn:geant:lifescience-ri.eu:group",
        f"{NAMESPACE}:",
        f"{NAMESPACE}:{BY}",
        f"{NAMESPACE}:a::b{BY}",
        f"{NAMESPACE}:a:{BY}",
        f"{NAMESPACE}:role=manager{BY}",
        f"{NAMESPACE}:a:role={BY}",
        f"{NAMESPACE}:a:role=x:b{BY}",
        f"{NAMESPACE}:a:role=x:role=y{BY}",
        f"{NAMESPACE}:a%2{BY}",
        f"{NAMESPACE}:a%zz{BY}",
        f"{NAMESPACE}:a%FF{BY}",
        f"{NAMESPACE}:a%00b{BY}",
        f"{NAMESPACE}:a%0Ab{BY}",
        f"{NAMESPACE}:a%E2%80%8Bb{BY}",
        f"{NAMESPACE}:a#%zz",
        "urn:geant:LIFESCIENCE-RI.eu:group:a" + BY,
        "urn:geant:example.org:group:a" + BY,
        "urn:geant:lifescience-ri.eu:groups:a" + BY,
        f"{NAMESPACE}:{'a' * MAX_URN_LENGTH}",
    ],
)
def test_refuses_what_is_malformed_or_of_another_namespace(value: str) -> None:
    with pytest.raises(EntitlementError):
        parse(value, NAMESPACE)


@pytest.mark.parametrize(
    ("policy", "value", "expected"),
    [
        ({}, f"{ROOT}:cytomine:users{BY}", {"cytomine:users"}),
        ({}, f"{ROOT}:cytomine{BY}", {"cytomine"}),
        ({}, f"{ROOT}{BY}", set()),
        ({}, f"{NAMESPACE}:lifescience:elsewhere:cytomine:users{BY}", set()),
        ({}, f"{NAMESPACE}:cytomine:users{BY}", set()),
        ({}, f"{ROOT}x:cytomine:users{BY}", set()),
        # Only a trusted authority counts.
        ({}, f"{ROOT}:cytomine:users#evil.example", set()),
        ({}, f"{ROOT}:cytomine:users", set()),
        ({}, f"{ROOT}:cytomine:users#AAI.lifescience-ri.EU", {"cytomine:users"}),
        ({"authorities": frozenset({""})}, f"{ROOT}:cytomine:users", {"cytomine:users"}),
        (
            {"authorities": frozenset({"Other.example"})},
            f"{ROOT}:cytomine:users#other.example",
            {"cytomine:users"},
        ),
        # Roles.
        ({}, f"{ROOT}:cytomine:role=manager{BY}", {"cytomine:role=manager"}),
        ({"roles": "drop"}, f"{ROOT}:cytomine:role=manager{BY}", {"cytomine"}),
        ({"roles": "ignore"}, f"{ROOT}:cytomine:role=manager{BY}", set()),
        # A group's own name cannot look like another group, or like a role.
        ({}, f"{ROOT}:cytomine%3Ausers{BY}", {"cytomine%3Ausers"}),
        ({}, f"{ROOT}:cytomine:role%3Dmanager{BY}", {"cytomine:role%3Dmanager"}),
        ({}, f"{ROOT}:a%2Fb{BY}", {"a%2Fb"}),
        ({}, f"{ROOT}:a%2525{BY}", {"a%2525"}),
        ({}, f"{ROOT}:Tissue%20Bank{BY}", {"Tissue Bank"}),
        # Prefixes.
        ({"prefix": ""}, f"{NAMESPACE}:a:b{BY}", {"a:b"}),
        (
            {"prefix": "lifescience:communities_and_projects:cytomine"},
            f"{ROOT}:cytomine:users{BY}",
            {"users"},
        ),
        ({"prefix": "ELIXIR%20AAI"}, f"{NAMESPACE}:ELIXIR%20AAI:users{BY}", {"users"}),
        ({"keep_others": True}, f"{NAMESPACE}:cytomine:users{BY}", {":cytomine:users"}),
        ({"keep_others": True}, f"{ROOT}:cytomine:users{BY}", {"cytomine:users"}),
        (
            {"namespace": "urn:geant:example.org:group:"},
            f"urn:geant:example.org:group:{ROOT[len(NAMESPACE) + 1 :]}:a{BY}",
            {"a"},
        ),
    ],
)
def test_makes_short_names_by_policy(policy: dict[str, object], value: str, expected: set[str]) -> None:
    assert short_names([value], GroupPolicy(**policy)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("claim", [None, 7, {"a": 1}, [], [None, 3, [f"{ROOT}:a{BY}"]], True])
def test_claims_of_another_type_are_no_membership(claim: object) -> None:
    assert short_names(claim, GroupPolicy()) == set()


def test_a_single_text_counts_like_a_list_of_one() -> None:
    assert short_names(f"{ROOT}:a{BY}", GroupPolicy()) == {"a"}


def test_tells_what_it_leaves_out_and_why() -> None:
    told: list[tuple[str, str]] = []
    short_names(
        [f"{ROOT}:a#evil", f"{ROOT}:a%zz{BY}", 4], GroupPolicy(), ignored=lambda *what: told.append(what)
    )
    assert [why for _, why in told] == [
        "its authority is not a trusted one",
        "a percent sign without two hexadecimal digits",
        "not a text but int",
    ]


def test_is_bounded_in_number_and_keeps_the_groups_that_grant_access() -> None:
    values = [f"{ROOT}:g{number:04}{BY}" for number in range(MAX_URNS + 500)]
    names = short_names(values, GroupPolicy(max_groups=10), wanted={"g1999", "g2400"})
    assert len(names) == 10
    assert "g1999" in names
    assert "g2400" not in names  # beyond what is read at all


def test_names_too_long_for_the_database_are_left_out() -> None:
    assert short_names([f"{ROOT}:{'x' * (MAX_NAME_LENGTH + 1)}{BY}"], GroupPolicy()) == set()
    assert short_names([f"{ROOT}:{'x' * MAX_NAME_LENGTH}{BY}"], GroupPolicy()) == {"x" * MAX_NAME_LENGTH}


@pytest.mark.parametrize("wrong", [{"prefix": "a%zz"}, {"prefix": "a::b"}, {"roles": "maybe"}])
def test_a_policy_that_can_never_match_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"malformed|must be one of"):
        GroupPolicy(**wrong)  # type: ignore[arg-type]


@given(
    st.lists(st.one_of(st.text(), st.text().map(lambda text: f"{ROOT}:{text}"), st.binary(), st.integers()))
)
def test_never_raises_whatever_the_provider_sends(values: list[object]) -> None:
    names = short_names(values, GroupPolicy(keep_others=True))
    assert all(isinstance(name, str) and 0 < len(name) <= MAX_NAME_LENGTH for name in names)


NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)
PATHS = st.lists(NAMES, min_size=1, max_size=4)


def urn(path: list[str]) -> str:
    return ":".join([NAMESPACE, *(quote(part, safe="") for part in path)]) + BY


@given(PATHS, PATHS)
def test_two_groups_never_share_a_short_name(one: list[str], other: list[str]) -> None:
    policy = GroupPolicy(prefix="a", keep_others=True)
    names = [short_names([urn(path)], policy) for path in (one, other)]
    assert all(len(found) <= 1 for found in names)
    assert (names[0] == names[1] != set()) == (one == other and names[0] != set())


@given(PATHS)
def test_encoding_and_reading_a_path_gives_it_back(path: list[str]) -> None:
    assert parse(urn(path), NAMESPACE).path == tuple(path)
