"""Users' and services' hosts: labels of DNS that no two names share."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jupyterhub.utils import subdomain_hook_idna

from cytomine_spawner.hosts import label, subdomain

LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
LSLOGIN = "28f7c1bb1e5b2b6a9d0f3e4c5a6b7c8d9e0f1a2b@lifescience-ri.eu"
NAMES = st.text(min_size=1, max_size=80) | st.from_regex(r"[a-z0-9-]{1,70}", fullmatch=True)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("ada", "ada.hub.example.org"),
        ("ada-2", "ada-2.hub.example.org"),
        (LSLOGIN, "u-28f7c1bb--9fb8d7e31ab9cef5b990.hub.example.org"),
    ],
)
def test_a_name_that_is_a_label_is_the_host_and_another_is_told_by_a_digest(name, host):
    assert subdomain(name, "hub.example.org", "user") == host


@given(NAMES, st.sampled_from(["user", "service"]))
@example("-ada", "user")
@example("123", "user")
@example("xn--80ak6aa92e", "user")
@example("a" * 63, "service")
@example("ab", "service")
@example("ADA", "user")
def test_every_name_has_a_host_that_dns_and_browsers_take(name, kind):
    first, _, rest = subdomain(name, "hub.example.org", kind).partition(".")
    assert rest == "hub.example.org"
    assert LABEL.fullmatch(first), first
    assert not first.isdigit()
    assert first[2:4] != "--", "left to IDNA"


@given(NAMES, NAMES, st.sampled_from(["user", "service"]), st.sampled_from(["user", "service"]))
@example("Ada", "ada", "user", "user")
@example("cytomine", "cytomine--service", "service", "user")
@example("ada", "u-ada--0123456789abcdef0123", "user", "user")
@example("stra\N{LATIN SMALL LETTER SHARP S}e", "xn--strae-oqa", "user", "user")
def test_no_two_names_meet_in_one_host(one, two, kind, other):
    if (one, kind) != (two, other):
        assert subdomain(one, "d", kind) != subdomain(two, "d", other)


def test_what_one_may_try_out_for_a_name_that_meets_another_is_far_more_than_with_jupyterhubs_own_hook():
    ours, theirs = label(LSLOGIN), subdomain_hook_idna(LSLOGIN, "d", "user").removesuffix(".d")
    bits = [4 * len(re.search(r"--([0-9a-f]+)$", found)[1]) for found in (ours, theirs)]
    assert bits[0] >= 80 > bits[1]
