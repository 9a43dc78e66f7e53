"""The proxy, which runs in a pod of its own and outlives the hub's restarts."""

from __future__ import annotations

from typing import Any

from parts.values import Values


def configure(c: Any, values: Values) -> None:
    """Say where the proxy's API is and with which token it is asked."""
    c.JupyterHub.proxy_class = "jupyterhub.proxy.ConfigurableHTTPProxy"
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = values.need(
        "proxy.apiUrl", str, "the chart sets it to the proxy's Service"
    )
    c.ConfigurableHTTPProxy.auth_token = values.secret("proxy-token", "the token of the proxy's API")
