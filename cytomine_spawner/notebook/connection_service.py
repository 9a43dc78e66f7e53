"""The hub's service of the stacks, asked with the notebook's own token."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import requests

from .errors import NoStack, ServiceUnreachable

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
SERVICE_PATH = "services/cytomine/"


def public_address() -> str:
    """The service as browsers know it, with a slash at the end; empty where that is not known."""
    if page := os.environ.get("CYTOMINE_SERVICE_PAGE", ""):
        return f"{page.rstrip('/')}/"
    # A notebook from before the hub told.
    hub = os.environ.get("JUPYTERHUB_PUBLIC_HUB_URL", "")
    return f"{hub.rstrip('/').removesuffix('/hub')}/{SERVICE_PATH}" if hub else ""


class NotNow(Exception):
    """The service cannot do it in the stack's present state; the message says why."""


@dataclass(frozen=True)
class StackInfo:
    """A stack that one may use.

    Attributes:
        name: names it in :func:`connect`.
        title: how pages call it.
        owner: whose it is, as the hub calls them.
        role: why one may use it: ``owner``, ``user`` or ``group`` (invited), ``share`` (of the owner's server).
        phase: where it is in its life, such as ``Ready`` or ``Hibernated``.
        message: one sentence on its state.
        url: where a browser opens it; None while it cannot be opened.
        ready: parts that serve, of all that should, such as ``5/7``; None if nothing is known.
    """

    name: str
    title: str
    owner: str
    role: str
    phase: str
    message: str
    url: str | None = None
    ready: str | None = None
    slowest: str | None = field(default=None, repr=False)
    reason: str = field(default="", repr=False)
    asleep: bool = field(default=False, repr=False)
    actions: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StackInfo:
        """Read the service's answer."""
        titles = {c["name"]: c["title"] for c in data.get("components", ())}
        slowest = data.get("slowest")
        return cls(
            name=data["name"],
            title=data["title"],
            owner=data["owner"],
            role=data.get("role") or "",
            phase=data.get("phase") or "Pending",
            message=data.get("message", ""),
            url=data.get("url"),
            ready=data.get("ready"),
            slowest=titles.get(slowest, slowest),
            reason=data.get("reason") or "",
            asleep=data.get("desiredState") == "Hibernated",
            actions=tuple(data.get("actions", ())),
        )


@dataclass(frozen=True)
class Keys:
    """How one person's programs reach a stack."""

    host: str
    public_key: str
    private_key: str = field(repr=False)
    user: str = ""
    stack: str = ""


class Service:
    """The REST API of the service.

    Args:
        url: where the service is; with a slash at the end.
        token: a token of the hub with access to the service.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/") + "/"
        self._token = token

    @classmethod
    def from_environment(cls) -> Service:
        """The service that belongs to this notebook's hub.

        ``CYTOMINE_SERVICE_URL`` names it; without it the hub's public address is used.

        Raises:
            ServiceUnreachable: the environment does not say where it is, or holds no token.
        """
        url = os.environ.get("CYTOMINE_SERVICE_URL", "")
        if not url:
            url = public_address()
        token = os.environ.get("JUPYTERHUB_API_TOKEN", "")
        if not url or not token:
            raise ServiceUnreachable(
                "This notebook does not know where the service of the stacks is: "
                f"{'CYTOMINE_SERVICE_URL' if not url else 'JUPYTERHUB_API_TOKEN'} is not set. "
                "Start it from the hub, or ask your administrator."
            )
        return cls(url, token)

    def stacks(self) -> list[StackInfo]:
        """The stacks that one may use, one's own first."""
        found = [StackInfo.from_json(data) for data in self._ask("GET", "stacks")["stacks"]]
        return sorted((s for s in found if s.role), key=lambda s: (s.role != "owner", s.name))

    def stack(self, name: str) -> StackInfo:
        """One stack.

        Raises:
            NoStack: there is none of this name that one may use.
        """
        found = StackInfo.from_json(self._ask("GET", f"stacks/{quote(name, safe='')}"))
        if not found.role:
            raise NoStack(f"You administer the stack {name}, but are no member of it. Ask {found.owner}.")
        return found

    def resume(self, name: str) -> None:
        """Have a hibernated stack started."""
        self._ask("PATCH", f"stacks/{quote(name, safe='')}", {"desiredState": "Running"})

    def keys(self, name: str, *, renew: bool = False) -> Keys:
        """One's own keys.

        Args:
            name: the stack's name.
            renew: whether to get new ones; the old ones end.

        Raises:
            NotNow: the stack gives none at the moment.
        """
        path = f"stacks/{quote(name, safe='')}/connection" + ("/rotate" if renew else "")
        data = self._ask("POST", path)
        return Keys(data["host"], data["publicKey"], data["privateKey"], data["user"], name)

    def token(self, name: str) -> tuple[str, int]:
        """A short-lived token for the few addresses of Cytomine that take no signature.

        Returns:
            The token, and when it ends, in seconds since 1970.
        """
        data = self._ask("POST", f"stacks/{quote(name, safe='')}/token")
        return data["token"], data["expiresAt"]

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            answer = requests.request(
                method,
                f"{self.url}api/{path}",
                json=body,
                headers={"Authorization": f"token {self._token}"},
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                # The token must not follow wherever an answer points.
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise ServiceUnreachable(
                f"The service of the stacks at {self.url} does not answer ({type(error).__name__}). Try again in a "
                "minute, or ask your administrator."
            ) from error
        try:
            data = answer.json()
            sentence = str(data.get("message", ""))
        except (ValueError, AttributeError):
            data, sentence = {}, ""
        if answer.status_code < 300 and data:
            return dict(data)
        if answer.status_code == 404 and sentence:
            raise NoStack(sentence)
        if answer.status_code in (401, 403):
            raise ServiceUnreachable(
                f"The service of the stacks does not accept this notebook's token ({answer.status_code}). {sentence} "
                "Stop and start your server; if that does not help, your administrator has to give the servers' tokens "
                "the scope access:services!service=cytomine."
            )
        if answer.status_code in (409, 503) and sentence:
            raise NotNow(sentence)
        raise ServiceUnreachable(
            f"The service of the stacks at {self.url} answered {answer.status_code}. {sentence or 'Is the address right?'}"
        )
