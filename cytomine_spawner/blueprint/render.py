"""From a stack and the settings to the Kubernetes objects, without any input or output.

Each component is a file in ``manifests/``. A scalar of it may hold ``${name}``; one that is nothing but ``${name}``
takes the variable's value as it is, be it a number, a list or a map. What all objects have in common is not written
there but added here: namespace, labels, owner, the pods' security and placement, the settings' overrides.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from ..common.quantity import cores, gib, to_bytes
from ..common.storageurls import SCHEME
from ..stack import model
from ..stack.components import ALL, BASE, DATASETS, EXTRAS, LOGIN
from ..stack.model import EPOCH, Extra, Import, Stack
from . import policies, variables
from .override import merge
from .settings import StackSettings

WORKLOADS = ("Deployment", "StatefulSet")
# What makes pods is sent last.
POD_MAKERS = (*WORKLOADS, "Job")
# Made once and never changed by the operator: passwords, and volumes whose size a cluster may not let change.
CREATE_ONCE = ("Secret", "PersistentVolumeClaim")
DIGEST_OF_CONFIG = f"{model.GROUP}/config"

_POD_SECURITY = {
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
    "fsGroupChangePolicy": "OnRootMismatch",
}
_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}


class Invalid(ValueError):
    """A stack asks for something that the settings do not offer. The text is for its owner."""


@dataclass(frozen=True)
class Cost:
    """What a stack reserves: processor cores, memory and volumes in bytes."""

    cpu: float
    memory: int
    storage: int

    def __str__(self) -> str:
        return f"{self.cpu:.1f} cores, {gib(self.memory)} of memory, {gib(self.storage)} of disk"


def components(spec: model.StackSpec, settings: StackSettings) -> tuple[str, ...]:
    """The components of a stack, in the order in which they are applied.

    Raises:
        Invalid: an optional component is not offered.
    """
    names = list(BASE)
    for extra in spec.components:
        if extra.value not in settings.allowed_components:
            raise Invalid(
                f"The component {extra.value} is not offered here. Remove it from the stack's options."
            )
        if extra is Extra.APP_ENGINE and not (
            settings.app_engine_namespace
            and settings.app_engine_token_secret
            and settings.app_engine_registry
        ):
            raise Invalid(
                "The app engine is not set up here: its namespace, its token and its registry are missing in the "
                "service's settings. Remove it from the stack's options or ask an administrator."
            )
        names[-1:-1] = EXTRAS[extra]  # the gateway last
    return tuple(name for name in names if settings.values.components.get(name, True))


def cost(spec: model.StackSpec, settings: StackSettings) -> Cost:
    """What a stack of this spec reserves while it runs.

    Raises:
        Invalid: the size or a component is not offered.
    """
    names = [*components(spec, settings), *([LOGIN] if settings.public_access == "login" else [])]
    parts = [_resources(spec.size, name, settings) for name in names]
    return Cost(
        cpu=sum(cores(part["cpu"][0]) for part in parts),
        memory=sum(to_bytes(part["memory"][0]) for part in parts),
        storage=sum(to_bytes(part["volume"]) for part in parts if "volume" in part),
    )


def render(stack: Stack, settings: StackSettings, importing: Import | None = None) -> list[dict[str, Any]]:
    """All objects of a stack but its Secret, in the order to apply them; workloads at zero when it hibernates.

    Args:
        stack: the stack.
        settings: the administrator's settings.
        importing: the datasets that are to be put into it now, if any.

    Raises:
        Invalid: the size or a component is not offered.
    """
    names = components(stack.spec, settings)
    filled = [*_filled(stack, settings, names), *_filled_import(stack, settings, importing)]
    objects = [(component, variables.prune(obj)) for component, obj in filled]
    for component, obj in objects:
        _environment(obj, settings.values.env.get(component) or {})
    for patch in settings.values.overrides:
        for _, obj in objects:
            if _matches(patch, stack.name, obj):
                merge(obj, {k: v for k, v in patch.items() if k not in ("apiVersion", "kind", "name")})
    for component, obj in objects:
        _finish(obj, component, stack, settings)
    _roll_on_config_change([obj for _, obj in objects])
    for _, obj in objects:
        if importing and obj["kind"] == "Job":
            # A Job cannot be changed: each try has one of its own.
            obj["metadata"]["name"] += f"-{digest({'run': importing.run, 'job': obj})[:8]}"
    return [obj for _, obj in sorted(objects, key=lambda pair: pair[1]["kind"] in POD_MAKERS)]


def _filled(
    stack: Stack, settings: StackSettings, names: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    common = variables.common(stack, settings, names, ALL)
    login = _resources(stack.spec.size, LOGIN, settings) if settings.public_access == "login" else None
    for name in ("base", *names):
        own = {}
        if name in names:
            own = variables.component(stack, settings, name, _resources(stack.spec.size, name, settings))
        if name != "gateway":
            yield from ((name, obj) for obj in _load(name, {**common, **own}))
            continue
        own |= variables.gateway(stack, settings, names, login)
        objects = [*_load("gateway-config", {**common, **own}), *_load(name, {**common, **own})]
        layers = (
            "gateway-script",
            "gateway-answers",
            "gateway-lasting",
            *(["gateway-login"] if login else []),
        )
        for layer in layers:
            for patch in _load(layer, {**common, **own}):
                merge(next(obj for obj in objects if obj["kind"] == patch["kind"]), patch)
        if settings.ingress_enabled and (stack.is_open or not settings.entrance):
            objects += _load("ingress", common)
        yield from ((name, obj) for obj in objects)


def _filled_import(
    stack: Stack, settings: StackSettings, importing: Import | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    if importing is None:
        return
    common = variables.common(stack, settings, (), ALL)
    pims = _resources(stack.spec.size, "pims", settings)
    seen = set()
    for name in importing.names:
        for obj in _load(DATASETS, {**common, **variables.datasets(stack, settings, name, pims)}):
            # Imports of one kind have one policy.
            which = (obj["kind"], obj["metadata"]["name"])
            if obj["kind"] == "Job" or which not in seen:
                yield DATASETS, obj
            seen.add(which)


def secret(stack: Stack, data: dict[str, str]) -> dict[str, Any]:
    """The stack's Secret with these values (text)."""
    obj = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": model.component_name(stack.name, "secrets")},
        "stringData": data,
    }
    _meta(obj, "secrets", stack)
    return obj


def digest(obj: dict[str, Any]) -> str:
    """A short digest of an object, the same for the same content."""
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check(settings: StackSettings) -> None:
    """Render a stack of each size with all that is allowed, to find mistakes in the settings at the start.

    Raises:
        ValueError: with a sentence that names the setting.
    """
    extras = tuple(Extra(name) for name in settings.allowed_components)
    for size in settings.values.sizes:
        stack = model.new_stack(
            settings.namespace, model.StackSpec(owner="check", size=size, components=extras)
        )
        # One that serves: it has all the objects that overrides may name.
        stack = stack.model_copy(update={"status": model.StackStatus(ready_at=EPOCH)})
        names = (*settings.dataset_titles, *([f"{SCHEME}check"] if settings.archive_url else []))
        importing = Import(names, "") if names else None
        objects = render(stack, settings, importing)
        for patch in settings.values.overrides:
            if not any(_matches(patch, stack.name, obj) for obj in objects):
                msg = f"An override names {patch.get('kind')} {patch.get('name', '')!r}, which no stack has"
                raise ValueError(msg)
    if len(settings.datasets) > len(settings.dataset_sources) and not settings.dataset_volume:
        raise ValueError("datasets are offered, but dataset_volume does not say where they are")
    for component in settings.values.env:
        if component not in ALL:
            msg = f"env names the component {component!r}; there are {', '.join(ALL)}"
            raise ValueError(msg)


def _load(name: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    return [variables.fill(template, values) for template in _templates(name)]


@cache
def _templates(name: str) -> list[dict[str, Any]]:
    text = resources.files(__package__).joinpath(f"manifests/{name}.yaml").read_text()
    return list(yaml.safe_load_all(text))


def _resources(size: str, component: str, settings: StackSettings) -> dict[str, Any]:
    sizes = settings.values.sizes
    if size not in sizes:
        raise Invalid(f"The size {size} is not offered here. Choose one of {', '.join(sizes)}.")
    try:
        return dict(sizes[size]["components"][component])
    except KeyError:
        raise Invalid(f"The size {size} says nothing of {component}: an administrator must add it.") from None


def _matches(patch: dict[str, Any], stack: str, obj: dict[str, Any]) -> bool:
    if patch.get("kind") != obj["kind"]:
        return False
    if "name" not in patch:
        return True
    name = model.component_name(stack, patch["name"])
    return bool(obj["metadata"]["name"] == name) or (obj["kind"] == "Job" and patch["name"] == DATASETS)


def _environment(obj: dict[str, Any], changes: dict[str, str | None]) -> None:
    if obj["kind"] not in WORKLOADS or not changes:
        return
    container = obj["spec"]["template"]["spec"]["containers"][0]
    env = {item["name"]: item for item in container.get("env", [])}
    for name, value in changes.items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = {"name": name, "value": str(value)}
    container["env"] = list(env.values())


def _meta(obj: dict[str, Any], component: str, stack: Stack) -> None:
    meta = obj["metadata"]
    meta["namespace"] = stack.namespace
    meta["labels"] = {**meta.get("labels", {}), **model.child_labels(stack.name, component)}
    meta["annotations"] = {
        **meta.get("annotations", {}),
        model.ANNOTATION_OWNER: stack.spec.owner,
        model.ANNOTATION_SERVER: stack.spec.server_name,
    }
    # Volumes have no owner: they may outlive the stack, if its owner says so.
    if obj["kind"] != "PersistentVolumeClaim" and stack.uid:
        meta["ownerReferences"] = [{**stack.owner_reference, "controller": True, "blockOwnerDeletion": True}]


def _finish(obj: dict[str, Any], component: str, stack: Stack, settings: StackSettings) -> None:
    _meta(obj, component, stack)
    selector = policies.pods(stack.name, component)
    if obj["kind"] == "Service":
        obj["spec"]["selector"] = selector["matchLabels"]
    if obj["kind"] not in POD_MAKERS:
        return
    spec = obj["spec"]
    if obj["kind"] in WORKLOADS:
        spec["selector"] = selector
        spec.setdefault("revisionHistoryLimit", 1)
    template = spec["template"]
    meta = template.setdefault("metadata", {})
    meta["labels"] = {**meta.get("labels", {}), **model.child_labels(stack.name, component)}
    meta["annotations"] = {**meta.get("annotations", {}), model.ANNOTATION_OWNER: stack.spec.owner}
    pod = template["spec"]
    pod["automountServiceAccountToken"] = False
    pod.setdefault("enableServiceLinks", False)
    pod.setdefault("terminationGracePeriodSeconds", 30)
    ids = {"runAsUser": settings.user_id, "runAsGroup": settings.user_id}
    if obj["kind"] != "Job":
        # Not for datasets: their volume is not ours, and a group would change its files' owner.
        ids["fsGroup"] = settings.user_id
    pod["securityContext"] = {**copy.deepcopy(_POD_SECURITY), **ids, **pod.get("securityContext", {})}
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        container["securityContext"] = {
            **copy.deepcopy(_CONTAINER_SECURITY),
            **container.get("securityContext", {}),
        }
        container.setdefault("imagePullPolicy", settings.image_pull_policy)
        # Why a container ended is read from its last lines, when it left no message of its own.
        container.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    for key, value in (
        ("nodeSelector", settings.node_selector),
        ("tolerations", settings.tolerations),
        ("affinity", settings.affinity),
        ("priorityClassName", settings.priority_class),
        ("imagePullSecrets", [{"name": name} for name in settings.image_pull_secrets]),
    ):
        if value:
            pod.setdefault(key, copy.deepcopy(value))


def _roll_on_config_change(objects: list[dict[str, Any]]) -> None:
    """A mounted file does not change in a running pod: a digest in the pod's annotations makes a new one."""
    digests = {obj["metadata"]["name"]: digest(obj["data"]) for obj in objects if obj["kind"] == "ConfigMap"}
    for obj in objects:
        if obj["kind"] in WORKLOADS and obj["metadata"]["name"] in digests:
            obj["spec"]["template"]["metadata"]["annotations"][DIGEST_OF_CONFIG] = digests[
                obj["metadata"]["name"]
            ]
