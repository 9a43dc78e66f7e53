"""Why a list of datasets is empty: what the token is, and which visas its issuer knows of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from .errors import ArchiveError
from .http import Http
from .jwt import claims, expiry

ISSUER = "https://login.aai.lifescience-ri.eu/oidc/"
GRANTS = "ControlledAccessGrants"


def not_empty(listed: Sequence[str], dataset: str = "") -> str:
    """That the archive lists datasets, or the one that is asked about, as a sentence; empty if it does not.

    Args:
        listed: the ids that the archive lists.
        dataset: the id that is asked about; any if empty.
    """
    if dataset:
        return f"The archive lists {dataset}: your visas grant it." if dataset in listed else ""
    count = f"{len(listed)} datasets" if len(listed) > 1 else "a dataset"
    return f"The list is not empty: your visas grant {count}." if listed else ""


async def why_empty(http: Http, issuer: str | None, dataset: str = "") -> str:
    """One sentence that says why the archive lists nothing, and what to do.

    The token is sent to ``issuer`` and to nobody else.

    Args:
        http: requests to the archive.
        issuer: who issues tokens; LS Login where None.
        dataset: the id of a dataset that is asked about.
    """
    home = (issuer or ISSUER).rstrip("/")
    token = await http.token()
    said = claims(token)
    end = expiry(token)
    if end is not None and end < time.time():
        return "The list is empty as your token has ended: log in again."
    signer = str(said.get("iss", "")).rstrip("/")
    if signer and signer != home:
        return (
            f"The list is empty as your token carries no visas: {_host(signer)} signed it, and visas are read with a token "
            f"of {_host(home)}. Use that one."
        )
    try:
        asker = Http(_origin(home), http.source, min(http.patience, 30.0), http.stall, 1, http.allow_http)
    except ValueError as error:
        return f"The list is empty, and why is not known, as the issuer cannot be asked: {error}"
    try:
        path = f"{home.removeprefix(_origin(home))}/.well-known/openid-configuration"
        found = (await asker.read(path, "Asking for your visas", anonymous=True)).json()
        userinfo = str(found.get("userinfo_endpoint", ""))
        if not userinfo.startswith(f"{_origin(home)}/"):
            raise ArchiveError("its userinfo is elsewhere")
        claimed = (await asker.read(userinfo.removeprefix(_origin(home)), "Asking for your visas")).json()
        passport = claimed.get("ga4gh_passport_v1")
    except PermissionError:
        return (
            f"The list is empty as your token carries no visas: {_host(home)} does not know it. Log in there, and use the "
            "token that you get."
        )
    except (ArchiveError, AttributeError, ValueError):
        return (
            "The list is empty, and why is not known, as the issuer of your token does not answer: have you applied for a "
            "dataset, and logged in since it was granted?"
        )
    finally:
        await asker.close()
    return judge(passport, dataset)


def judge(passport: Any, dataset: str = "", now: float | None = None) -> str:
    """What follows from a passport, if the archive lists nothing.

    Args:
        passport: the claim ``ga4gh_passport_v1``: visas as JWTs; None where there is no such claim.
        dataset: the id of a dataset that is asked about.
        now: seconds since 1970.
    """
    now = time.time() if now is None else now
    if passport is None:
        return (
            "The list is empty as your token carries no visas: it was issued without the scope ga4gh_passport_v1. Log in "
            "where that scope is asked for."
        )
    visas = [claims(visa) for visa in passport if isinstance(visa, str)]
    grants = [visa for visa in visas if _body(visa).get("type") == GRANTS]
    if dataset:
        grants = [visa for visa in grants if dataset in str(_body(visa).get("value", ""))]
    named = f" for {dataset}" if dataset else ""
    if not grants:
        return f"The list is empty as you have no visa{named}: apply for access to a dataset, and log in again once it was given."
    alive = [visa for visa in grants if not isinstance(visa.get("exp"), (int, float)) or visa["exp"] > now]
    if not alive:
        last = max(float(visa["exp"]) for visa in grants)
        day = time.strftime("%Y-%m-%d", time.gmtime(last))
        return f"The list is empty as your visas{named} expired, the last on {day}: log in again, or have the access prolonged."
    if all(_body(visa).get("conditions") for visa in alive):
        return f"The list is empty as your visas{named} hold under conditions alone, which the archive does not check: ask who gave them."
    values = ", ".join(sorted({str(_body(visa).get("value", "?")) for visa in alive})[:3])
    issuers = ", ".join(sorted({_host(str(visa.get("iss", "?"))) for visa in alive})[:3])
    return (
        f"The list is empty though you have visas ({values}): either the archive does not trust their issuer ({issuers}), or it "
        "does not have these datasets. Tell the archive's operators both names."
    )


def doubt(passport: Any, missing: Sequence[str], now: float | None = None) -> str:
    """Why datasets that an archive does not list may be granted even so, as half a sentence; empty if they are not.

    Args:
        passport: the claim ``ga4gh_passport_v1``: visas as JWTs; None where there is no such claim.
        missing: the ids of the datasets.
        now: seconds since 1970.
    """
    now = time.time() if now is None else now
    if not isinstance(passport, list):
        return "LS Login told nothing of the owner's visas, who has to sign in to the hub anew"
    for visa in (claims(one) for one in passport if isinstance(one, str)):
        body = _body(visa)
        ended = isinstance(visa.get("exp"), (int, float)) and visa["exp"] <= now
        if body.get("type") != GRANTS or ended or body.get("conditions"):
            continue
        if named := next((one for one in missing if one in str(body.get("value", ""))), ""):
            return f"the archive does not list {named}, though a visa of the owner names it"
    return ""


def _body(visa: dict[str, Any]) -> dict[str, Any]:
    found = visa.get("ga4gh_visa_v1")
    return found if isinstance(found, dict) else {}


def _host(url: str) -> str:
    return urlsplit(url).netloc or url


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
