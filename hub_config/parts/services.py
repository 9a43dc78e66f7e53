"""Services beside the hub: the idle culler, and those of the administrator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from parts import archive, stacks
from parts.values import Problem, Values

CULLER = "jupyterhub-idle-culler"
# It stops servers and deletes nobody, so it never gets admin:users.
CULLER_SCOPES = ["list:users", "read:users:activity", "read:servers", "delete:servers"]


def configure(c: Any, values: Values) -> None:
    """Declare services and the roles that they need, and no more."""
    services: list[dict[str, Any]] = []
    roles: list[dict[str, Any]] = []
    if values.get("culling.enabled", bool, True):
        services.append({"name": CULLER, "command": _culler(values)})
        roles.append({"name": CULLER, "scopes": CULLER_SCOPES, "services": [CULLER]})
    for name, service in sorted(values.get("hub.services", dict, {}).items()):
        services.append(_service(name, service, values))
    for name, role in sorted(values.get("hub.loadRoles", dict, {}).items()):
        if not isinstance(role, dict):
            raise Problem(f"the value hub.loadRoles.{name} must be a mapping.")
        roles.append({"name": name, **role})
    if stacks.enabled(values):
        services.append(stacks.service(values))
        roles = stacks.roles(roles)
    if archive.enabled(values):
        roles = archive.roles(roles)
    c.JupyterHub.services = services
    c.JupyterHub.load_roles = roles


def _culler(values: Values) -> list[str]:
    every = values.get("culling.every", int, 600)
    timeout = values.get("culling.timeout", int, 3600)
    if every < 1 or timeout < 1:
        raise Problem("the values culling.every and culling.timeout are seconds and must be 1 or more.")
    command = [
        sys.executable,
        str(Path(__file__).parents[1] / "culler.py"),
        f"--cull-every={every}",
        f"--timeout={timeout}",
    ]
    max_age = values.get("culling.maxAge", int, 0)
    if max_age:
        command.append(f"--max-age={max_age}")
    if values.get("culling.removeNamedServers", bool, False):
        command.append("--remove-named-servers")
    return command


def _service(name: str, service: Any, values: Values) -> dict[str, Any]:
    """A service as JupyterHub takes it; one that the hub does not start itself gets its token from a file."""
    if not isinstance(service, dict):
        raise Problem(f"the value hub.services.{name} must be a mapping.")
    if "api_token" in service:
        raise Problem(
            f"the value hub.services.{name} holds an api_token; "
            f"remove it, the token is made for you under the key service-token-{name}."
        )
    made = {"name": name, **service}
    if "command" not in service:
        made["api_token"] = values.secret(f"service-token-{name}", f"the token of the service {name}")
    return made
