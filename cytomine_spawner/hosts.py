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


def label(name: str, most: int = 63) -> str:
    """The label of DNS for a user's or a service's name: the name itself, or a part of it and a digest of it.

    No two names share a label.

    Args:
        name: as the hub knows it; any text.
        most: how long a name may be to be used as it is; no label is longer than 63 characters.
    """
    if len(name) <= most and _PLAIN.fullmatch(name):
        return name
    stub = "".join(re.findall(r"[a-z0-9]", name.lower()))[:_STUB] or "x"
    return f"u-{stub}--{hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]}"


def subdomain(name: str, domain: str, kind: str) -> str:
    """The host of a user's servers, or of a service, as JupyterHub asks for it.

    Args:
        name: of the user or the service.
        domain: the hub's own host.
        kind: ``user`` or ``service``.
    """
    # No user's host can be a service's: neither a plain label nor one with a digest ends like this.
    return f"{label(name)}.{domain}" if kind == "user" else f"{label(name, 50)}--{kind}.{domain}"
