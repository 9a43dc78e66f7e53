"""The hub itself: addresses, keys, limits, and staying out of the way of running servers."""

from __future__ import annotations

from typing import Any

from parts.values import Values


def configure(c: Any, values: Values) -> None:
    """Set where the hub listens, how others reach it, and its limits."""
    c.JupyterHub.base_url = values.get("hub.baseUrl", str, "/")
    c.JupyterHub.hub_bind_url = f"http://:{values.get('hub.port', int, 8081)}"
    # The pod's own name changes at each restart; running notebooks keep the address that they were started with.
    c.JupyterHub.hub_connect_url = values.need(
        "hub.connectUrl", str, "the chart sets it to the hub's Service"
    )
    public_url = values.get("hub.publicUrl", str, "")
    if public_url:
        c.JupyterHub.public_url = public_url.rstrip("/") + c.JupyterHub.base_url

    c.JupyterHub.cookie_secret = bytes.fromhex(values.hex_secret("cookie-secret", "the hub's cookie secret"))
    c.CryptKeeper.keys = [
        bytes.fromhex(values.hex_secret("crypt-key", "the key that encrypts the users' login state"))
    ]

    # Addresses hold tokens and codes; JupyterHub hides them in some of the lines of its log.
    c.JupyterHub.logging_config = {
        "filters": {"addresses": {"()": "cytomine_spawner.hublog.Addresses"}},
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
