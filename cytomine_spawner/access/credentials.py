"""One person's keys: asked of Cytomine's core, proven there, and written as a Secret."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse

from ..blueprint import policies
from ..cluster.store import Unavailable
from ..common.signing import signed
from ..stack import model
from ..stack.model import Stack
from ..stack.state import run_of

CORE_SECONDS = 15
PARALLEL = 20
MANAGED_BY = "cytomine-connections"
COMPONENT = "connection"
# Nobody calls their own like this.
SPARED = "cytomine-spawner: not to be used"
ANNOTATION_USER = f"{model.GROUP}/user"
# The start of the stack for which the keys were made.
ANNOTATION_RUN = f"{model.GROUP}/keys-of-run"


@dataclass(frozen=True)
class Connection:
    """How a program of one person reaches a stack.

    Attributes:
        host: the address inside the cluster.
        public_key: names the person to Cytomine.
        private_key: signs requests; not shown in logs.
        user: the person's name at the hub.
    """

    host: str
    public_key: str
    private_key: str = field(repr=False)
    user: str


def signed_headers(connection: Connection, now: datetime | None = None) -> dict[str, str]:
    """Headers of a signed GET without a body, as Cytomine's Python client makes them."""
    head = {"Accept": "application/json", "X-Requested-With": "XMLHttpRequest"}
    return {**head, **signed(connection.public_key, connection.private_key, now=now)}


class Core:
    """Cytomine's core, through the gateway of its stack."""

    def __init__(self) -> None:
        self._client: AsyncHTTPClient | None = None

    async def new_keys(self, host: str, token: str) -> tuple[str, str]:
        """New keys, public and private, for the person of a token; those from before end.

        Raises:
            Unavailable: if core does not answer as it should.
        """
        # The first call makes a user whom core has never seen, the second the keys anew.
        for method in ("GET", "POST"):
            request = HTTPRequest(
                f"{host}/api/user/current/keys",
                method,
                {
                    "Authorization": f"Bearer {token}",
                    "Accept": "application/json",
                    "Content-Type": "application/json",
                },
                b"" if method == "POST" else None,
            )
            answer = await self._ask(request)
            if answer.code != 200:
                raise Unavailable(_core_said(answer.code))
        try:
            keys = json.loads(answer.body)
            return str(keys["primaryKey"]), str(keys["secondaryKey"])
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable("Cytomine's answer has no keys; is this a version that was tested?") from error

    async def spare_first_ontology(self, host: str, token: str) -> None:
        """Make an ontology and delete it, so that nobody's has the first number.

        Core keeps who may read what by number alone, and the image server's own storage has the first one as well: members
        of a project with such an ontology may not read it, and the web interface opens no project without.

        Args:
            host: the stack's address.
            token: of the owner, in a stack that never had an ontology.

        Raises:
            Unavailable: if Cytomine does not answer as it should.
        """
        head = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",
            "Content-Type": "application/json",
        }
        url = f"{host}/api/ontology"
        there = await self._ask(HTTPRequest(f"{url}.json", "GET", head))
        if there.code != 200:
            raise Unavailable(_core_said(there.code))
        try:
            # One that a service made which ended before it deleted it.
            found = [one["id"] for one in json.loads(there.body)["collection"] if one["name"] == SPARED]
            if not found:
                body = json.dumps({"name": SPARED})
                made = await self._ask(HTTPRequest(f"{url}.json", "POST", head, body))
                if made.code != 200:
                    raise Unavailable(_core_said(made.code))
                found = [json.loads(made.body)["data"]["id"]]
            numbers = [int(number) for number in found]
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable("Cytomine's answer has no number of the ontology that it made.") from error
        for number in numbers:
            gone = await self._ask(HTTPRequest(f"{url}/{number}.json", "DELETE", head))
            # Not there any more is as good.
            if gone.code not in (200, 404):
                raise Unavailable(_core_said(gone.code))

    async def proves(self, connection: Connection) -> bool:
        """Whether core accepts the keys.

        Raises:
            Unavailable: if core does not answer as it should.
        """
        url = f"{connection.host}/api/user/current.json"
        answer = await self._ask(HTTPRequest(url, "GET", signed_headers(connection)))
        if answer.code == 401:
            return False
        if answer.code != 200:
            raise Unavailable(_core_said(answer.code))
        return True

    async def _ask(self, request: HTTPRequest) -> HTTPResponse:
        if self._client is None:
            self._client = AsyncHTTPClient(force_instance=True, max_clients=PARALLEL)
        request.connect_timeout = request.request_timeout = CORE_SECONDS
        # A token must not follow wherever an answer points.
        request.follow_redirects = False
        try:
            return await self._client.fetch(request, raise_error=False)
        except (OSError, HTTPClientError) as error:
            raise Unavailable("Cytomine does not answer at its gateway.") from error


def secret(stack: Stack, name: str, user: str, run: str, connection: Connection | None) -> dict[str, Any]:
    """The Secret of a person's connection; with no connection it only says whose it was.

    It lacks the label by which the operator knows the objects of its plan, for it would take it away.
    """
    texts = {"user": user}
    if connection:
        texts |= {
            "host": connection.host,
            "public-key": connection.public_key,
            "private-key": connection.private_key,
        }
    metadata = _metadata(stack, name, user)
    metadata["annotations"][ANNOTATION_RUN] = run
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": metadata,
        "data": {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()},
    }


def renamed(item: dict[str, Any], name: str) -> dict[str, Any]:
    """The Secret of a person's connection under another name."""
    meta = item["metadata"]
    kept = {
        key: meta[key] for key in ("namespace", "labels", "annotations", "ownerReferences") if key in meta
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": item.get("type", "Opaque"),
        "metadata": {**kept, "name": name},
        "data": item.get("data") or {},
    }


def way(stack: Stack, name: str, user: str, namespace: str) -> dict[str, Any]:
    """The NetworkPolicy that lets the notebooks of one person to a stack's gateway, beside the stack's own.

    The stack's own knows whom the owner invited, by name and by the label of a group that a notebook has since its
    start. It knows nothing of shares of servers, and nothing of who came into a group since.

    Args:
        stack: the stack.
        name: the policy's name.
        user: the person's name at the hub.
        namespace: where the notebooks are.
    """
    notebooks = {
        "namespaceSelector": policies.namespace(namespace),
        "podSelector": {
            "matchLabels": {
                model.LABEL_NOTEBOOK_USER: model.user_label(user),
                "app.kubernetes.io/component": "singleuser-server",
            }
        },
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(stack, name, user),
        "spec": {
            "podSelector": policies.pods(stack.name, "gateway"),
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [notebooks], "ports": [{"port": "internal"}]}],
        },
    }


def _metadata(stack: Stack, name: str, user: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": stack.namespace,
        "labels": {
            **model.stack_labels(stack.name),
            "app.kubernetes.io/component": COMPONENT,
            "app.kubernetes.io/managed-by": MANAGED_BY,
        },
        "annotations": {model.ANNOTATION_OWNER: stack.spec.owner, ANNOTATION_USER: user},
        "ownerReferences": [stack.owner_reference],
    }


def read(item: dict[str, Any] | None, stack: Stack, user: str) -> Connection | None:
    """The connection in a person's Secret, if it is of the present start of this stack."""
    if item is None or not run_of(stack) or not is_of(item, stack, user):
        return None
    if item["metadata"]["annotations"].get(ANNOTATION_RUN) != run_of(stack):
        return None
    try:
        data = {key: base64.b64decode(value).decode() for key, value in item["data"].items()}
        return Connection(data["host"], data["public-key"], data["private-key"], user)
    except (KeyError, ValueError):
        return None


def is_of(item: dict[str, Any], stack: Stack, user: str) -> bool:
    """Whether an object is a person's at this very stack."""
    notes = item["metadata"].get("annotations") or {}
    return owner_uid(item) == stack.uid and notes.get(ANNOTATION_USER) == user


def owner_uid(item: dict[str, Any]) -> str:
    """The uid of the stack to which a Secret belongs; empty if to none."""
    references = item["metadata"].get("ownerReferences") or []
    return str(references[0]["uid"]) if references else ""


def _core_said(status: int) -> str:
    if status in (401, 403):
        return f"Cytomine does not accept the service's token ({status}); the identity or its address may be wrong."
    if status in (502, 503, 504, 599):
        return f"Cytomine does not answer at its gateway ({status})."
    return f"Cytomine answered {status} when it was asked for keys; its log says more."
