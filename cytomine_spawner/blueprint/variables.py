"""The values that a stack's manifests are filled with, and the filling."""

from __future__ import annotations

import copy
import re
from typing import Any
from urllib.parse import urlsplit

from ..common.quantity import to_bytes
from ..common.storageurls import SCHEME
from ..stack import model
from ..stack.model import Stack
from . import policies
from .settings import StackSettings

_PLACEHOLDER = re.compile(r"\$\{([a-z_]+)\}")
_WAIT_RESOURCES = {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
# The page asks for these whether they are there or not.
_OPTIONAL = ("meilisearch", "app-engine", "sam")
_CLOSED = 'return 403 "This Cytomine is not open to browsers.\\n";'


def common(
    stack: Stack, settings: StackSettings, names: tuple[str, ...], everything: tuple[str, ...]
) -> dict[str, Any]:
    """What all manifests of a stack may name.

    Args:
        stack: the stack.
        settings: the administrator's settings.
        names: the components that it has.
        everything: all components that a stack can have.
    """
    url = settings.url(stack.name)
    issuer_base = f"{settings.service_url.rstrip('/')}/{stack.name}"
    internal_base = f"{settings.service_internal_url.rstrip('/')}/{stack.name}"
    service = policies.service(stack, settings)
    return {
        "stack": stack.name,
        "namespace": stack.namespace,
        "secrets": model.component_name(stack.name, "secrets"),
        "replicas": 0 if stack.spec.desired_state is model.Desired.HIBERNATED else 1,
        "url": url,
        "scheme": urlsplit(url).scheme,
        "host": settings.host(stack.name),
        "internal_url": model.internal_url(stack.name, stack.namespace),
        "issuer_base": issuer_base,
        "issuer_internal_base": internal_base,
        "issuer": issuer_base + model.REALM,
        "issuer_internal": internal_base + model.REALM,
        "jwks_url": f"{internal_base}{model.REALM}{model.ENDPOINTS}/certs",
        "admin_email": settings.admin_email,
        "cbir_host": model.component_name(stack.name, "cbir" if "cbir" in names else "gateway"),
        "app_engine_enabled": str("app-engine" in names).lower(),
        "app_engine_namespace": settings.app_engine_namespace,
        "app_engine_token_secret": settings.app_engine_token_secret,
        "app_engine_registry": settings.app_engine_registry,
        "pims_cache_enabled": str("pims-cache" in names).lower(),
        "pims_workers": str(settings.values.sizes.get(stack.spec.size, {}).get("pims_workers", 1)),
        "wait_image": settings.values.images["wait"],
        "repository_image": settings.values.images["repository"],
        "wait_resources": _WAIT_RESOURCES,
        "images_access_mode": settings.images_access_mode,
        "ingress_class": settings.ingress_class or None,
        "ingress_annotations": dict(settings.ingress_annotations),
        "ingress_tls": [{"hosts": [settings.host(stack.name)], "secretName": settings.tls_secret}]
        if settings.tls_secret
        else None,
        "all_pods": policies.family(stack.name),
        "dns_peers": list(settings.dns_peers),
        "dns_ports": policies.dns_ports(settings),
        "service_peers": [service],
        "service_port": settings.service_port,
        "gateway_ingress": policies.gateway_ingress(stack, settings),
        **{f"pods_of_{name.replace('-', '_')}": policies.pods(stack.name, name) for name in everything},
    }


def gateway(
    stack: Stack, settings: StackSettings, names: tuple[str, ...], login: dict[str, Any] | None
) -> dict[str, Any]:
    """What the gateway's manifests name besides.

    Args:
        stack: the stack.
        settings: the administrator's settings.
        names: the components that it has.
        login: what the login may use of processor and memory, or None where none stands before the stack.
    """
    url = urlsplit(settings.url(stack.name))
    secure = url.scheme == "https"
    internal = settings.service_internal_url.rstrip("/")
    values: dict[str, Any] = {
        "netloc": url.netloc,
        "origin": f"{url.scheme}://{url.netloc}",
        "origin_pattern": re.escape(f"{url.scheme}://{url.netloc}"),
        "websocket_origin": f"{'wss' if secure else 'ws'}://{url.netloc}",
        "issuer_origin": "{0.scheme}://{0.netloc}".format(urlsplit(settings.service_url)),
        "cards": f"{settings.service_url.rstrip('/')}/",
        "internal_host": urlsplit(model.internal_url(stack.name, stack.namespace)).netloc,
        "verify_url": f"{internal}/{stack.name}/verify",
        "cookie_flags": "secure httponly samesite=lax" if secure else "httponly samesite=lax",
        "login_include": "include /etc/gateway/login.conf;" if login else "",
        "public_trust": "session" if login else "client",
        "public_check": "include /etc/gateway/session.conf;" if login else "auth_request /_check;",
        # The prefix makes browsers refuse the cookie from any other host; they know it for https alone.
        "cookie_name": "__Host-cytomine-session" if secure else "cytomine-session",
        "public_gate": _CLOSED if settings.public_access == "closed" else "",
        "lacks": " ".join(part for part in _OPTIONAL if part not in names),
    }
    for part in _OPTIONAL:
        include = "" if part in names else f"include /etc/gateway/without-{part}.conf;"
        values[f"without_{part.replace('-', '_')}"] = include
    if login:
        values |= {
            "login_image": settings.values.images["oauth2-proxy"],
            "login_resources": resources(login),
            # Go frees memory in time only when told of the limit.
            "login_memory": str(to_bytes(login["memory"][1]) * 4 // 5),
            "cookie_secure": str(secure).lower(),
            "cookie_refresh": f"{settings.session_refresh}s",
            "cookie_expire": f"{settings.session_expire}s",
        }
    return values


def component(stack: Stack, settings: StackSettings, name: str, part: dict[str, Any]) -> dict[str, Any]:
    """What one component's manifest names besides.

    Args:
        stack: the stack.
        settings: the administrator's settings.
        name: the component.
        part: its processor, memory and volume in the stack's size.
    """
    classes = settings.storage_classes
    return {
        "image": settings.values.images[name],
        "resources": resources(part),
        "volume": part.get("volume"),
        "storage_class": classes.get(name) or classes.get("default"),
        "pods": policies.pods(stack.name, name),
        # Redis needs room beside its data.
        "redis_memory": str(to_bytes(part["memory"][0]) * 3 // 4),
    }


def datasets(stack: Stack, settings: StackSettings, name: str, pims: dict[str, Any]) -> dict[str, Any]:
    """What the import of a dataset needs besides.

    Args:
        stack: the stack.
        settings: the administrator's settings.
        name: the dataset's, with ``sda://`` if it is the archive's.
        pims: the image server's processor, memory and volume in the stack's size.
    """
    if name.startswith(SCHEME):
        own = _archive(stack, settings, name, pims)
    elif name in settings.dataset_sources:
        own = _source(settings, name)
    else:
        own = _on_volume(settings)
    pods = policies.pods(stack.name, "datasets")["matchLabels"]
    gateway = {"to": [{"podSelector": policies.pods(stack.name, "gateway")}], "ports": [{"port": 8081}]}
    program = [
        "python",
        "-m",
        f"cytomine_spawner.datasets.{own['program']}",
        "--connection=/var/run/cytomine",
    ]
    return {
        "connection": model.connection_secret_name(stack.name),
        "dataset_image": settings.dataset_image,
        "dataset_deadline": settings.dataset_deadline,
        "dataset_resources": dict(own.get("resources", settings.dataset_resources)),
        "dataset_labels": own["labels"],
        "dataset_annotations": own.get("annotations", {}),
        "dataset_command": ["tini", "-g", "--", *program, *own["options"], "--", name],
        "dataset_mount": {"name": own["volume"]["name"], "mountPath": own["mount"], "readOnly": True},
        "dataset_volume": own["volume"],
        "dataset_scratch": {**own["scratch"], "name": "tmp"},
        "dataset_policy": own["policy"],
        # Each kind has labels of its own, so that none reaches what another needs.
        "dataset_pods": {"matchLabels": {**pods, **own["labels"]}},
        "dataset_egress": [gateway, *own.get("egress", [])],
    }


def _on_volume(settings: StackSettings) -> dict[str, Any]:
    return {
        "program": "importer",
        "options": ["--root=/datasets"],
        "labels": {},
        "mount": "/datasets",
        "volume": {**settings.dataset_volume, "name": "datasets"},
        "scratch": {"emptyDir": {}},
        "policy": "datasets",
    }


def _source(settings: StackSettings, name: str) -> dict[str, Any]:
    """Of a dataset at a URL: credentials are files of a Secret, and never leave the pod but for the storage."""
    dataset = settings.dataset_sources[name]
    # Without a group of its own for volumes, as in the manifest.
    secret = {"secret": {"secretName": dataset.secret, "defaultMode": 0o444}}
    return {
        "program": "sources",
        "options": ["--options=/var/run/options", f"--url={dataset.url}"],
        "labels": {f"{model.GROUP}/source": "true"},
        "mount": "/var/run/options",
        "volume": {**(secret if dataset.secret else {"emptyDir": {}}), "name": "options"},
        "scratch": settings.dataset_scratch,
        "policy": "sources",
        "egress": [_way(settings.dataset_peers, settings.dataset_ports)],
    }


def _archive(stack: Stack, settings: StackSettings, name: str, pims: dict[str, Any]) -> dict[str, Any]:
    """Of a dataset of the archive: it holds no key of the archive, but a token that says to the service which pod it is."""
    tokens = f"{settings.service_internal_url.rstrip('/')}/imports/{stack.name}/archive-token"
    identity = {"path": "token", "audience": model.IMPORT_AUDIENCE, "expirationSeconds": 600}
    return {
        "program": "archive",
        "options": [
            f"--archive={settings.archive_url}",
            f"--tokens={tokens}",
            "--identity=/var/run/identity/token",
            f"--room={to_bytes(pims['volume']) if 'volume' in pims else 0}",
            *(["--allow-http"] if settings.archive_allow_http else []),
        ],
        "resources": settings.archive_resources,
        "labels": {f"{model.GROUP}/archive": "true"},
        "annotations": {model.ANNOTATION_DATASET: name},
        "mount": "/var/run/identity",
        "volume": {"name": "identity", "projected": {"sources": [{"serviceAccountToken": identity}]}},
        "scratch": settings.dataset_scratch,
        "policy": "archive",
        "egress": [
            # The owner's token.
            {"to": [policies.service(stack, settings)], "ports": [{"port": settings.service_port}]},
            _way(settings.archive_peers, settings.archive_ports),
        ],
    }


def _way(peers: list[dict[str, Any]], ports: list[int]) -> dict[str, Any]:
    return {"to": list(peers), "ports": [{"port": port} for port in ports]}


def resources(part: dict[str, Any]) -> dict[str, Any]:
    """A size's pair of numbers as Kubernetes writes requests and limits."""
    (cpu, cpu_limit), (memory, memory_limit) = part["cpu"], part["memory"]
    return {
        "requests": {"cpu": str(cpu), "memory": memory},
        "limits": {"cpu": str(cpu_limit), "memory": memory_limit},
    }


def fill(node: Any, variables: dict[str, Any]) -> Any:
    """A manifest with its variables' values."""
    if isinstance(node, dict):
        return {key: fill(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [fill(item, variables) for item in node]
    if not isinstance(node, str):
        return node
    whole = _PLACEHOLDER.fullmatch(node)
    if whole:
        return copy.deepcopy(variables[whole[1]])
    return _PLACEHOLDER.sub(lambda match: str(variables[match[1]]), node)


def prune(node: Any) -> Any:
    """Without the keys whose variable was None: the API server's default is meant."""
    if isinstance(node, dict):
        return {key: prune(value) for key, value in node.items() if value is not None}
    if isinstance(node, list):
        return [prune(item) for item in node]
    return node
