"""Hosts of their own below the hub's, for each user and each service: what JupyterHub calls ``subdomain_hook``.

Whoever has the same host as somebody else can read and do there all that the other one may. JupyterHub's own hook tells
names that are no labels of DNS apart by 28 bits, which a person who may choose a name tries out in seconds.
"""

from __future__ import annotations

import hashlib
import re

# A label of DNS as it stands. Two hyphens in a row are left to what is made here (and to IDNA).
_PLAIN = re.compile(r"(?!\d+$)(?!.*--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_STUB, _DIGEST = 8, 20


def label(name: str) -> str:
    """The label of DNS for a user's name: the name itself, or a part of it and a digest of it.

    No two names share a label.

    Args:
        name: as the hub knows it; any text.
    """
    return name if _PLAIN.fullmatch(name) else _digest(name)


def _digest(name: str) -> str:
    stub = "".join(re.findall(r"[a-z0-9]", name.lower()))[:_STUB] or "x"
    return f"u-{stub}--{hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]}"


def subdomain(name: str, domain: str, kind: str) -> str:
    """The host of a user's servers, or of a service, as JupyterHub asks for it.

    Args:
        name: of the user or the service.
        domain: the hub's own host.
        kind: ``user`` or ``service``.
    """
    if kind == "user":
        return f"{label(name)}.{domain}"
    # No user's host can be a service's: neither a plain label nor one with a digest ends like this. No label has its two
    # hyphens in the third and fourth place, which is left to IDNA, and none is longer than 63 characters.
    plain = len(name) != 2 and len(name) <= 50 and _PLAIN.fullmatch(name)
    return f"{name if plain else _digest(name)}--{kind}.{domain}"
