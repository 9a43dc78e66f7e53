"""The owner's token of LS Login for the Job that puts a dataset of the archive into a stack.

The Job shows by a token of the cluster which pod it is (:mod:`..access.podidentity`); the pod's labels, which the operator wrote, say
of which stack and which dataset. The hub is asked for the token of the stack's owner, and gives it only where the owner chose
that very dataset in the hub's options. Nothing is kept here.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from ..access.hubapi import Hub
from ..access.podidentity import PodIdentity, Stranger
from ..blueprint.render import DATASETS
from ..cluster.client import Kube, KubeError
from ..datasets.errors import SCHEME
from ..site.handler import Refusal
from ..stack import model
from .api import ApiHandler, NoQuery

log = logging.getLogger(__name__)

_STRANGER = "Only the import of a dataset of the archive gets a token here, while it runs."


class ImportTokens:
    """Gives imports the tokens of their stacks' owners.

    Args:
        kube: the API server.
        hub: the hub's API.
    """

    def __init__(self, kube: Kube, hub: Hub) -> None:
        self._identity, self._hub = PodIdentity(kube), hub

    async def dataset(self, stack: str, token: str) -> str:
        """The dataset that a pod imports into a stack.

        Raises:
            Stranger: it does no such thing.
            KubeError: the API server does not answer.
        """
        pod = await self._identity.pod(token)
        meta, wanted = pod["metadata"], model.child_labels(stack, DATASETS)
        labels = meta.get("labels") or {}
        if any(labels.get(key) != value for key, value in wanted.items()):
            raise Stranger("the token is of another pod than one that imports into this stack")
        if (pod.get("status") or {}).get("phase") not in ("Pending", "Running"):
            raise Stranger("the import has ended")
        dataset = str((meta.get("annotations") or {}).get(model.ANNOTATION_DATASET) or "")
        if not dataset.startswith(SCHEME):
            raise Stranger("the import is of no dataset of the archive")
        return dataset

    async def token(self, stack: model.Stack, dataset: str, refused: str) -> tuple[int, dict[str, Any]]:
        """The hub's answer, for the owner of a stack.

        Raises:
            StoreError: the hub does not answer.
        """
        return await self._hub.archive_token(stack, dataset, refused)


class ImportToken(ApiHandler):
    """Gives the pod that asks the token of its stack's owner."""

    # No login of the hub's: it is a pod.
    public = True

    async def post(self, name: str) -> None:
        """Answer as the hub does to a notebook."""
        self.query(NoQuery)
        tokens = self.site.imports
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if tokens is None or scheme.lower() != "bearer" or not token:
            raise Refusal(403, _STRANGER)
        try:
            dataset = await tokens.dataset(name, token.strip())
        except Stranger as stranger:
            log.warning("No token of the archive for an import into %s: %s", name, stranger)
            raise Refusal(403, _STRANGER) from None
        except KubeError as error:
            raise Refusal(503, "The cluster does not answer. Try again in a minute.") from error
        stack = self.site.store.view.get(name)
        if stack is None or not stack.is_open or dataset not in stack.spec.datasets:
            raise Refusal(409, "This dataset is not to be imported into this stack any more.")
        status, answer = await tokens.token(stack, dataset, self._refused())
        if status != 200:
            raise Refusal(status, str(answer.get("message") or "The hub gives no token."))
        self.answer(answer)

    def _refused(self) -> str:
        try:
            body = json.loads(self.request.body or b"{}")
        # Brackets without end are an error of their own.
        except (ValueError, RecursionError):
            body = None
        refused = body.get("refused", "") if isinstance(body, dict) else None
        if not isinstance(refused, str) or len(refused) > 64:
            raise Refusal(400, "The request names no refused token as it should.", "refused")
        return refused
