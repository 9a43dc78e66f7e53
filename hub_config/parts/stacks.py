"""Cytomine stacks: what the options form offers, and the service that runs them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from parts import hub
from parts.values import Problem, Values

SERVICE = "cytomine"
ACCESS = f"access:services!service={SERVICE}"
# Who owns and shares stacks, for the checks at each login; and that somebody works, so that the culler leaves their
# server alone. Nothing here changes a user.
SCOPES = [
    "list:users",
    "read:users:name",
    "read:users:groups",
    "read:users:activity",
    "read:users:shares",
    "read:groups:name",
    "read:groups:shares",
    "list:groups",
    "read:shares",
    "read:servers",
    "users:activity",
]


def enabled(values: Values) -> bool:
    """Whether users may have stacks."""
    return values.get("stacks.enabled", bool, False)


def configure(c: Any, values: Values) -> None:
    """Let the spawner offer stacks as the service's own settings have them."""
    if not enabled(values):
        return
    settings = _settings(values)
    for name, traits in settings.items():
        # The application's own settings are the service's alone.
        if name != "StacksApp":
            c[name].update(traits)
    spawner = c.CytomineSpawner
    spawner.cytomine_enabled = True
    spawner.cytomine_groups = values.get("stacks.groups", list, [])
    spawner.cytomine_wait = values.get("stacks.wait", bool, False)
    spawner.cytomine_wait_timeout = values.get("stacks.waitTimeout", int, 240)
    # The notebook asks the service for its connection to a stack, and shows people where its page is.
    told = settings.get("StackSettings", {})
    address, page = told.get("service_internal_url", ""), told.get("service_url", "")
    c.Spawner.environment = {
        **c.Spawner.environment,
        "CYTOMINE_SERVICE_URL": address,
        "CYTOMINE_SERVICE_PAGE": page,
    }
    if page:
        spawner.cytomine_page_url = page
    if hub.per_user_hosts(values) and page:
        at = urlsplit(page)
        # Where it was while all was on one host: people have that in their bookmarks.
        c.GuardedHub.moved_paths = {f"{at.path.rstrip('/')}/": f"{at.scheme}://{at.netloc}"}
    c.Spawner.server_token_scopes = ["users:activity!user", "access:servers!server", ACCESS]


def service(values: Values) -> dict[str, Any]:
    """The service as JupyterHub takes it."""
    return {
        "name": SERVICE,
        "url": values.need("stacks.url", str, "the chart sets it to the service's address"),
        "api_token": values.secret(f"service-token-{SERVICE}", "the token of the stacks' service"),
        # It is part of the hub: nobody is asked whether it may know them.
        "oauth_no_confirm": True,
        "display": True,
    }


def roles(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The roles with what the service and its users need: every user may open the page, which shows them their own."""
    user = next((role for role in given if role["name"] == "user"), None)
    if user is None:
        given = [*given, {"name": "user", "scopes": ["self", ACCESS]}]
    else:
        user["scopes"] = [*user.get("scopes", ["self"]), ACCESS]
    return [*given, {"name": SERVICE, "scopes": SCOPES, "services": [SERVICE]}]


def _settings(values: Values) -> dict[str, Any]:
    path = values.folder / "stacks" / "settings.json"
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Problem(f"the settings of the stacks cannot be read from {path} ({error}).") from None
    if not isinstance(settings, dict):
        raise Problem(f"{path} holds no mapping; the chart writes it, do not replace it.")
    return settings
