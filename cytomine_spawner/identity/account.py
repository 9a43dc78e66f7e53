"""A person's account as Keycloak's account service shows it: upstream's user interface asks for it at each start.

Without it the interface says nothing but "communication error". Name and address are the login's and cannot be
changed here; the language of the interface can.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# The languages of upstream's user interface (web-ui/src/components/user/Account.vue).
LANGUAGES = ("en", "fr", "es", "nl")
LONGEST_BODY = 16_384
# Nobody has a password here. An empty list would leave upstream's page of the account loading for ever: it looks into
# the entry of the password; without an ``updateAction`` it offers no change.
CREDENTIALS = [
    {
        "type": "password",
        "category": "basic-authentication",
        "displayName": "Password",
        "removeable": False,
        "userCredentialMetadatas": [],
    }
]


class Unchangeable(Exception):
    """What was sent cannot be kept.

    Attributes:
        field: where it stands.
    """

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


def shown(claims: Mapping[str, Any], chosen: Mapping[str, str], accepted: str) -> dict[str, Any]:
    """The account of a person.

    Args:
        claims: those of the access token.
        chosen: what the person chose before.
        accepted: the browser's languages, for who never chose one (``Accept-Language``).
    """
    kept = {"locale": chosen.get("locale") or _first(accepted)}
    if chosen.get("isDeveloper"):
        kept["isDeveloper"] = chosen["isDeveloper"]
    return {
        "id": claims["sub"],
        **_fixed(claims),
        "emailVerified": bool(claims.get("email")),
        "attributes": {name: [value] for name, value in kept.items()},
    }


def chosen(claims: Mapping[str, Any], body: bytes) -> dict[str, str]:
    """What a person sends to be kept: Keycloak's form of the account, of which only the attributes may differ.

    Raises:
        Unchangeable: if anything else does, or if an attribute is none that can be kept.
    """
    if len(body) > LONGEST_BODY:
        raise Unchangeable("body", "The account is too long.")
    try:
        sent = json.loads(body)
    except ValueError:
        sent = None
    if not isinstance(sent, dict) or not isinstance(sent.get("attributes", {}), dict):
        raise Unchangeable("body", "The account is not a JSON object with its attributes.")
    for field, value in _fixed(claims).items():
        if sent.get(field) not in (None, "", value):
            raise Unchangeable(
                field, f"{field} comes from the login at the hub and is changed there, not in Cytomine."
            )
    return {
        name: _only(name, value) for name, value in sent.get("attributes", {}).items() if name in _ALLOWED
    }


def _fixed(claims: Mapping[str, Any]) -> dict[str, str]:
    """What belongs to the login.

    The page saves nothing without a last name and an address: some people have one name, and a hub need not tell
    addresses. The one shown then is none that anybody could have (RFC 2606).
    """
    username = str(claims["preferred_username"])
    return {
        "username": username,
        "firstName": str(claims["given_name"]),
        "lastName": str(claims.get("family_name") or claims["name"]),
        "email": str(claims.get("email") or f"{username}@unknown.invalid"),
    }


_ALLOWED = {"locale": LANGUAGES, "isDeveloper": ("0", "1")}


def _only(name: str, value: Any) -> str:
    allowed = _ALLOWED[name]
    if not isinstance(value, list) or len(value) != 1 or value[0] not in allowed:
        raise Unchangeable(f"attributes.{name}", f"{name} is one of {', '.join(allowed)}.")
    return str(value[0])


def _first(accepted: str) -> str:
    """The first of the browser's languages that the interface speaks; browsers send them by preference."""
    for part in accepted.split(","):
        language = part.partition(";")[0].strip().lower().partition("-")[0]
        if language in LANGUAGES:
            return language
    return LANGUAGES[0]
