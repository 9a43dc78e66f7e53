"""The owner's token of LS Login for the Job that puts a dataset of the archive into a stack.

The Job shows by a token of the cluster which pod it is (:mod:`..access.podidentity`); the pod's labels, which the operator wrote, say
of which stack and which dataset. The hub is asked for the token of the stack's owner, and gives it only where the owner chose
that very dataset in the hub's options. Nothing is kept here.
"""

from __future__ import annotations

import json
import logging

from ..access.podidentity import Stranger
from ..cluster.client import KubeError
from ..site.handler import Refusal
from .api import ApiHandler, NoQuery

log = logging.getLogger(__name__)

_STRANGER = "Only the import of a dataset of the archive gets a token here, while it runs."


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
