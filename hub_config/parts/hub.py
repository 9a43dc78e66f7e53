"""The hub itself: addresses, keys, limits, and staying out of the way of running servers."""

from __future__ import annotations

import ipaddress
import logging
from typing import Any
from urllib.parse import urlsplit

from cytomine_spawner import hosts
from parts.values import Problem, Values

log = logging.getLogger("jupyterhub.config")

ONE_HOST = (
    "Users have no hosts of their own (hub.perUserHosts is false): a page that one user's notebook serves can act as "
    "whoever opens it, administrators included. Only for trials and among people who trust each other."
)


def per_user_hosts(values: Values) -> bool:
    """Whether each user's servers, and each service, have a host of their own."""
    return values.get("hub.perUserHosts", bool, True)


def public_origin(values: Values) -> str:
    """The hub as browsers know it, without a path and a slash at the end; empty if nobody said."""
    return values.get("hub.publicUrl", str, "").rstrip("/")


def configure(c: Any, values: Values) -> None:
    """Set where the hub listens, how others reach it, and its limits."""
    c.JupyterHub.base_url = values.get("hub.baseUrl", str, "/")
    c.JupyterHub.hub_bind_url = f"http://:{values.get('hub.port', int, 8081)}"
    # The pod's own name changes at each restart; running notebooks keep the address that they were started with.
    c.JupyterHub.hub_connect_url = values.need(
        "hub.connectUrl", str, "the chart sets it to the hub's Service"
    )
    if public_origin(values):
        c.JupyterHub.public_url = public_origin(values) + c.JupyterHub.base_url

    _hosts(c, values)

    c.JupyterHub.cookie_secret = bytes.fromhex(values.hex_secret("cookie-secret", "the hub's cookie secret"))
    c.CryptKeeper.keys = [
        bytes.fromhex(values.hex_secret("crypt-key", "the key that encrypts the users' login state"))
    ]

    # Addresses hold tokens and codes; JupyterHub hides them in some of the lines of its log.
    c.JupyterHub.logging_config = {
        "filters": {"addresses": {"()": "cytomine_spawner.hub.hublog.Addresses"}},
        "handlers": {"console": {"filters": ["addresses"]}},
    }

    # A hub that is restarted or upgraded leaves servers and routes as they are and finds them again.
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.cleanup_proxy = False
    # JupyterHub ends itself after some failed starts in a row; one user's bad image must not do that to all.
    c.Spawner.consecutive_failure_limit = 0
    # Also how long a restarted proxy is without its routes.
    c.JupyterHub.last_activity_interval = values.get("hub.lastActivityInterval", int, 60)

    c.JupyterHub.allow_named_servers = values.get("hub.allowNamedServers", bool, False)
    c.JupyterHub.named_server_limit_per_user = values.get("hub.namedServerLimitPerUser", int, 0)
    c.JupyterHub.active_server_limit = values.get("hub.activeServerLimit", int, 0)
    c.JupyterHub.concurrent_spawn_limit = values.get("hub.concurrentSpawnLimit", int, 64)
    c.JupyterHub.shutdown_on_logout = values.get("hub.shutdownOnLogout", bool, False)


def _hosts(c: Any, values: Values) -> None:
    """Give users hosts of their own below the hub's, or say what it means that they have none."""
    if not per_user_hosts(values):
        log.warning(ONE_HOST)
        return
    origin = values.need(
        "hub.publicUrl",
        str,
        "users' hosts are below the hub's, as in ada.hub.example.org, so set it to the address that users type, "
        "or set hub.perUserHosts to false for a trial",
    ).rstrip("/")
    host = urlsplit(origin).hostname or ""
    if not host or _is_address(host):
        raise Problem(
            f"the value hub.publicUrl is {origin}; users' hosts need a name such as https://hub.example.org to be "
            "below of, no number, or set hub.perUserHosts to false for a trial."
        )
    c.JupyterHub.subdomain_host = origin
    c.JupyterHub.subdomain_hook = hosts.subdomain
    # Browsers take a cookie with this prefix from no other host: a user's page may set one for all hosts below the hub's.
    # They know it for https alone.
    c.JupyterHub.cookie_host_prefix_enabled = urlsplit(origin).scheme == "https"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
