"""Cytomine stacks: what the options form offers, and the service that runs them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from parts import hub
from parts.values import Problem, Values

SERVICE = "cytomine"
ACCESS = f"access:services!service={SERVICE}"
# What a token may do with stacks beyond seeing, resuming and connecting to those that its user may use. Every user has the
# first; the tokens of their servers do not. The second is for those who look after all stacks and are no administrators of
# the hub; administrators do so with the scope "admin-ui", for the hub's role admin cannot be given another.
MANAGE = "custom:cytomine-stacks:manage"
ADMIN = "custom:cytomine-stacks:admin"
CUSTOM_SCOPES = {
    MANAGE: {"description": "Hibernate, change, share and delete your Cytomine stacks, and read their logs."},
    ADMIN: {"description": "Manage the Cytomine stacks of all users.", "subscopes": [MANAGE]},
}
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
    c.JupyterHub.custom_scopes = CUSTOM_SCOPES
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
        # What a browser's login to its page is for, as far as its user has it.
        "oauth_client_allowed_scopes": [MANAGE, ADMIN, "admin-ui"],
        "display": True,
    }


def roles(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The roles with what the service and its users need: every user may open the page, which shows them their own."""
    user = next((role for role in given if role["name"] == "user"), None)
    if user is None:
        given = [*given, {"name": "user", "scopes": ["self", ACCESS, MANAGE]}]
    else:
        user["scopes"] = [*user.get("scopes", ["self"]), ACCESS, MANAGE]
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
