"""What the service writes down of a stack: a text in a Secret that goes with it."""

from __future__ import annotations

import base64

from ..cluster.client import Kube
from ..stack import model
from ..stack.model import Stack
from .credentials import owner_uid


async def kept(kube: Kube, stack: Stack, component: str, key: str) -> str | None:
    """What was written down of a stack; None if nothing was, or of another one that had its name.

    Args:
        kube: the API server.
        stack: the stack.
        component: the last part of the Secret's name.
        key: where the text is in it.

    Raises:
        KeyError: the Secret has no such key.
        ValueError: it is no text.
        KubeError: the API server does not answer as it should.
    """
    item = await kube.get("Secret", model.component_name(stack.name, component))
    if item is None or owner_uid(item) != stack.uid:
        return None
    return base64.b64decode(item["data"][key]).decode()


async def keep(kube: Kube, stack: Stack, component: str, managed_by: str, key: str, text: str) -> None:
    """Write a text down, in the place of what was there.

    Args:
        kube: the API server.
        stack: the stack.
        component: the last part of the Secret's name.
        managed_by: which part of the service writes it.
        key: where the text is in it.
        text: the text.

    Raises:
        KubeError: the API server does not take it.
    """
    await kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {
                "name": model.component_name(stack.name, component),
                "namespace": stack.namespace,
                "labels": {
                    **model.stack_labels(stack.name),
                    "app.kubernetes.io/component": component,
                    "app.kubernetes.io/managed-by": managed_by,
                },
                "annotations": {model.ANNOTATION_OWNER: stack.spec.owner},
                "ownerReferences": [stack.owner_reference],
            },
            "data": {key: base64.b64encode(text.encode()).decode()},
        }
    )
