"""Who may reach a stack's pods: the peers of its NetworkPolicies."""

from __future__ import annotations

from typing import Any

from ..stack import model
from ..stack.model import Stack
from .settings import StackSettings


def family(stack: str) -> dict[str, Any]:
    """Selects all pods of a stack."""
    labels = {"app.kubernetes.io/instance": stack, "app.kubernetes.io/managed-by": model.MANAGED_BY}
    return {"matchLabels": labels}


def pods(stack: str, component: str) -> dict[str, Any]:
    """Selects the pods of one component of a stack."""
    return {"matchLabels": {**family(stack)["matchLabels"], "app.kubernetes.io/component": component}}


def namespace(name: str) -> dict[str, Any]:
    """Selects a namespace by its name."""
    return {"matchLabels": {"kubernetes.io/metadata.name": name}}


def service(stack: Stack, settings: StackSettings) -> dict[str, Any]:
    """The stack service's pods as a peer."""
    return {
        "namespaceSelector": namespace(settings.service_namespace or stack.namespace),
        "podSelector": {"matchLabels": dict(settings.service_labels)},
    }


def dns_ports(settings: StackSettings) -> list[dict[str, Any]]:
    """The ports of the cluster's DNS, as in a NetworkPolicy."""
    return [{"protocol": way, "port": port} for port in settings.dns_ports for way in ("UDP", "TCP")]


def gateway_ingress(stack: Stack, settings: StackSettings) -> list[dict[str, Any]]:
    """Who may reach which port of the gateway.

    The ingress controller the public one, the notebooks of the owner and the members the internal one, the stack
    service the internal one and that which tells of activity, core the responder in the place of cbir.
    """
    notebooks = namespace(settings.notebook_namespace or stack.namespace)
    users = sorted({model.user_label(user) for user in (stack.spec.owner, *stack.spec.members.users)})
    selectors: list[dict[str, Any]] = [
        {"matchExpressions": [{"key": model.LABEL_NOTEBOOK_USER, "operator": "In", "values": users}]}
    ]
    selectors += [
        {"matchLabels": {model.group_label(group): "member"}} for group in stack.spec.members.groups
    ]
    for selector in selectors:
        selector.setdefault("matchLabels", {})["app.kubernetes.io/component"] = "singleuser-server"
    rules: list[dict[str, Any]] = [
        {
            "from": [{"namespaceSelector": notebooks, "podSelector": s} for s in selectors],
            "ports": [{"port": "internal"}],
        },
        {"from": [service(stack, settings)], "ports": [{"port": "internal"}, {"port": "activity"}]},
        {"from": [{"podSelector": pods(stack.name, "core")}], "ports": [{"port": "cbir"}]},
    ]
    if settings.datasets or settings.archive_url:
        rules.append(
            {"from": [{"podSelector": pods(stack.name, "datasets")}], "ports": [{"port": "internal"}]}
        )
    # An empty list of peers would mean everybody. Where nobody may come in, nobody has a way either.
    if settings.ingress_peers and settings.public_access != "closed":
        rules.insert(0, {"from": list(settings.ingress_peers), "ports": [{"port": "public"}]})
    return rules
