"""What tokens say of people: names that Cytomine's core cannot take for somebody else's."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.identity import Identity
from cytomine_spawner.identity.claims import Person, Role, about, preferred_username, readable_name, subject


@given(st.text(min_size=1, max_size=255))
def test_every_name_becomes_a_plain_one_and_a_uuid(username: str) -> None:
    name = preferred_username(username)
    # Core looks people up with SQL's LIKE: no wildcard, no case.
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}\.[a-z2-7]{12}", name)
    assert not name.endswith("@lifescience-ri.eu")
    assert str(uuid.UUID(subject(username))) == subject(username)


@given(st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=20, unique=True))
def test_different_people_have_different_names(usernames: list[str]) -> None:
    assert len({preferred_username(u) for u in usernames}) == len(usernames)
    assert len({subject(u) for u in usernames}) == len(usernames)


def test_names_do_not_change_from_one_version_to_the_next() -> None:
    name = "28f7a1c0@lifescience-ri.eu"
    assert preferred_username(name) == "28f7a1c0.zxdexe7x6rv4"
    assert subject(name) == "cc23e1e5-a547-5a06-ae16-c07737bd7db7"


@pytest.mark.parametrize("technical", ["admin", "superadmin", "ImageServer1", "imageserver1"])
def test_nobody_is_called_like_a_technical_user_of_cytomine(technical: str) -> None:
    assert preferred_username(technical).lower() != technical.lower()


@pytest.mark.parametrize("model", [{}, {"user_info": None}, {"user_info": {}}, {"user_info": {"name": " "}}])
def test_a_name_is_never_missing(model: dict[str, object]) -> None:
    name, email = readable_name("ada", model)
    claims = about(Person("ada", name, email, Role.USER))
    assert claims["name"] == claims["given_name"] == "ada"
    assert "email" not in claims


def test_the_hubs_names_for_people_are_used_where_it_has_them() -> None:
    model = {"user_info": {"name": "ada", "display_name": "Ada King Lovelace", "email": "ada@example.org"}}
    claims = about(Person("ada", *readable_name("ada", model)))
    assert (claims["given_name"], claims["family_name"]) == ("Ada King", "Lovelace")
    assert claims["email"] == "ada@example.org"


def test_keys_that_would_not_outlive_the_sessions_are_refused() -> None:
    with pytest.raises(Exception, match="session_seconds"):
        Identity(
            store=None,
            hub_auth=None,
            settings=StackSettings(),
            vault=object(),
            keys_age=8000,
            session_seconds=8000,
        )
