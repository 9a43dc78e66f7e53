"""Group memberships as LS Login sends them (AARC-G069 URNs), made into short group names.

An entitlement reads ``<namespace>:group:<group>[:<subgroup>...][:role=<role>][#<authority>]``, each part
percent-encoded, for example::

    urn:geant:lifescience-ri.eu:group:lifescience:communities_and_projects:cytomine:users#aai.lifescience-ri.eu

With the prefix ``lifescience:communities_and_projects`` its short name is ``cytomine:users``.

Different groups never share a short name, because rights hang on it: the separators ``:``, ``=``, ``/``, ``#`` and the
sign ``%`` stay percent-encoded where they are part of a group's own name, and a group outside the prefix, if kept at
all, starts with ``:``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

MAX_URN_LENGTH = 1024
MAX_URNS = 2000
MAX_NAME_LENGTH = 255  # the width of the column in the hub's database
ROLE_MODES = ("suffix", "drop", "ignore")

_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_KEPT_ENCODED = {ord(sign): f"%{ord(sign):02X}" for sign in "%:/=#"}


class EntitlementError(ValueError):
    """The value is not a group membership in the form of AARC-G069; the text says why, without the value."""


@dataclass(frozen=True)
class Entitlement:
    """One membership: the group from its root down, the role in it, and who vouches for it.

    Attributes:
        path: decoded names, outermost group first; at least one, none empty.
        role: the decoded role, or "" for a plain membership.
        authority: what follows ``#``, in lower case, or "".
    """

    path: tuple[str, ...]
    role: str = ""
    authority: str = ""


@dataclass(frozen=True)
class GroupPolicy:
    """Which memberships count, and how their short names are made.

    Attributes:
        namespace: what precedes the group's path, up to and including ``group``.
        authorities: who may vouch for a membership; "" stands for memberships without an authority.
        prefix: the path (``:`` between its parts, percent-encoded as in the URN) that is left out of the short names.
        keep_others: keep groups outside the prefix, their names starting with ``:``.
        roles: "suffix" appends ``:role=<role>``; "drop" counts a role in a group as membership of it;
            "ignore" leaves entitlements with a role out.
        max_groups: the most short names returned for one person.
    """

    namespace: str = "urn:geant:lifescience-ri.eu:group"
    authorities: frozenset[str] = field(default_factory=lambda: frozenset({"aai.lifescience-ri.eu"}))
    prefix: str = "lifescience:communities_and_projects"
    keep_others: bool = False
    roles: str = "suffix"
    max_groups: int = 200

    def __post_init__(self) -> None:
        """Refuse a prefix or a mode that could never match, rather than leave everybody out later."""
        if self.roles not in ROLE_MODES:
            raise ValueError(f"roles is {self.roles!r}; it must be one of {', '.join(ROLE_MODES)}")
        try:
            _path(self.prefix)
        except EntitlementError as error:
            raise ValueError(f"the group prefix {self.prefix!r} is malformed: {error}") from None


def _silently(value: str, why: str) -> None:
    """Tell nobody about what was left out."""
    del value, why


def parse(value: str, namespace: str) -> Entitlement:
    """Read one entitlement of the given namespace.

    Raises:
        EntitlementError: it is too long, of another namespace, or malformed.
    """
    if len(value) > MAX_URN_LENGTH:
        raise EntitlementError(f"longer than {MAX_URN_LENGTH} characters")
    urn, _, authority = value.partition("#")
    head = _namespace(namespace)
    # "urn" and the part after it do not depend on case (RFC 8141); what follows does.
    if _fold(urn[: len(head)]) != _fold(head):
        raise EntitlementError("not of the namespace for groups")
    parts = urn[len(head) :].split(":")
    role = ""
    if parts[-1].startswith("role="):
        role = _decoded(parts.pop().removeprefix("role="))
    if not parts:
        raise EntitlementError("a role without a group")
    if any(part.startswith("role=") for part in parts):
        raise EntitlementError("a role before the end")
    return Entitlement(
        tuple(_decoded(part) for part in parts), role, _decoded(authority).lower() if authority else ""
    )


def short_name(entitlement: Entitlement, policy: GroupPolicy) -> str | None:
    """Return the group's short name, or None if the policy leaves it out. Does not look at the authority."""
    if entitlement.role and policy.roles == "ignore":
        return None
    prefix = _path(policy.prefix)
    path = entitlement.path
    if path[: len(prefix)] == prefix and len(path) > len(prefix):
        name = ":".join(map(_encoded, path[len(prefix) :]))
    elif policy.keep_others:
        name = ":" + ":".join(map(_encoded, path))
    else:
        return None
    if entitlement.role and policy.roles == "suffix":
        name += f":role={_encoded(entitlement.role)}"
    return name if len(name) <= MAX_NAME_LENGTH else None


def short_names(
    values: object,
    policy: GroupPolicy,
    wanted: Collection[str] = (),
    ignored: Callable[[str, str], object] = _silently,
) -> set[str]:
    """Return the short names of all memberships that count. Never raises, whatever the provider sent.

    Args:
        values: the claim: a list of URNs, or a single one; anything else counts as no membership.
        policy: which memberships count.
        wanted: names kept first when there are more than ``policy.max_groups``.
        ignored: called with each value left out and the reason.
    """
    names: set[str] = set()
    authorities = {authority.lower() for authority in policy.authorities}
    for number, value in enumerate(_listed(values)):
        if number >= MAX_URNS:
            ignored("", f"more than {MAX_URNS} entitlements: the rest was not read")
            break
        if not isinstance(value, str):
            ignored("", f"not a text but {type(value).__name__}")
            continue
        try:
            entitlement = parse(value, policy.namespace)
        except EntitlementError as error:
            ignored(value[:200], str(error))
            continue
        if entitlement.authority not in authorities:
            ignored(value[:200], "its authority is not a trusted one")
            continue
        name = short_name(entitlement, policy)
        if name is None:
            ignored(value[:200], "outside the prefix, with an ignored role, or too long a name")
        else:
            names.add(name)
    if len(names) > policy.max_groups:
        ignored("", f"{len(names)} groups: only {policy.max_groups} are kept")
        first = sorted(names, key=lambda name: (name not in wanted, name))
        names = set(first[: policy.max_groups])
    return names


def _listed(values: object) -> Iterable[object]:
    if isinstance(values, str):
        return [values]
    return values if isinstance(values, (list, tuple)) else []


def _namespace(namespace: str) -> str:
    return namespace.rstrip(":") + ":"


def _fold(urn: str) -> str:
    scheme_and_id = urn.split(":", 2)
    return ":".join([part.lower() for part in scheme_and_id[:2]] + scheme_and_id[2:])


def _path(prefix: str) -> tuple[str, ...]:
    stripped = prefix.strip(":")
    return tuple(_decoded(part) for part in stripped.split(":")) if stripped else ()


def _decoded(part: str) -> str:
    if not part:
        raise EntitlementError("an empty part")
    if _BAD_PERCENT.search(part):
        raise EntitlementError("a percent sign without two hexadecimal digits")
    try:
        text = unquote_to_bytes(part).decode("utf-8")
    except UnicodeError:
        raise EntitlementError("not UTF-8 after percent-decoding") from None
    if any(unicodedata.category(sign) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for sign in text):
        raise EntitlementError("an invisible or control character")
    return text


def _encoded(part: str) -> str:
    return part.translate(_KEPT_ENCODED)
