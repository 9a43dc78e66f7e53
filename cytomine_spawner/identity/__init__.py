"""Who one is in a stack: an OpenID provider for every stack, whose login is the hub's.

:class:`Identity` is all that others need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from jupyterhub.services.auth import HubOAuth
from tornado.web import RequestHandler
from traitlets import Integer, TraitError, Unicode, validate
from traitlets.config import LoggingConfigurable

from ..access.hubapi import Hub
from ..blueprint.settings import StackSettings
from ..cluster.client import Kube, KubeError
from ..cluster.secretstore import KubeVault, Vault
from ..cluster.store import StackStore
from ..site.handler import Site
from . import claims
from .claims import Person, Role
from .grants import Grants, Limits, sessions_secret
from .handlers import handlers
from .keyring import Keyring, KeyringError
from .people import HubSilent, Logins, People
from .provider import Lifetimes, Provider
from .tokens import AUDIENCE

__all__ = ["HubSilent", "Identity", "Person", "Role", "sessions_secret"]

HERE = Path(__file__).parent
OVERLAP = 600
MOST_PAUSE = 60.0
# Stacks that are gone are let go of, and the keys looked at, this often.
ROUND_SECONDS = 600


class Identity(LoggingConfigurable):
    """The login to the stacks: issues their tokens and says who may have them.

    Args:
        store: the stacks.
        kube: the API server, in the namespace of the stacks.
        hub_auth: the hub's login.
        settings: the administrator's settings of the stacks.
        hub: the hub's API, by the service's own token; made from its login if absent.
        seen: called with a stack's and a user's name when somebody's session is refreshed.
        vault: in place of ``kube``, for tests.
        **kwargs: ``parent`` and ``config``.
    """

    keys_secret = Unicode(
        "cytomine-identity-keys",
        help="""Secret with the keys that sign the stacks' tokens, in the stacks' namespace: there the service may make
        Secrets anyway, and needs no right in the hub's. Made when it is missing.
        To change the keys at once, delete it and start the service anew: everybody logs in to their stacks anew.""",
    ).tag(config=True)
    keys_age = Integer(
        30 * 86_400, min=2 * 3600, help="Seconds after which a new key follows the one that signs tokens."
    ).tag(config=True)
    access_token_seconds = Integer(
        300,
        min=60,
        max=300,
        help="""Seconds that a token opens a stack. At each refresh the hub is asked again whether its user is still
        logged in and still may use the stack, so this is how long somebody may stay who was shut out.""",
    ).tag(config=True)
    session_seconds = Integer(
        7 * 86_400,
        min=600,
        help="Seconds after which a login to a stack is renewed at the hub, without a form.",
    ).tag(config=True)
    session_idle_seconds = Integer(
        86_400, min=600, help="Seconds without a refresh after which a login to a stack ends."
    ).tag(config=True)
    sessions_per_user = Integer(
        20, min=2, help="Logins to one stack that one user has at the same time; the oldest ends."
    ).tag(config=True)

    @validate("keys_age")
    def _outlive_sessions(self, proposal: Any) -> int:
        # The key before the last is dropped at the next rotation, and sessions are sealed with it.
        least = self.session_seconds + OVERLAP
        if proposal["value"] < least:
            told = f"Identity.keys_age is {proposal['value']}, but must be at least {least}: session_seconds + {OVERLAP}"
            raise TraitError(told)
        return int(proposal["value"])

    def __init__(
        self,
        *,
        store: StackStore,
        hub_auth: HubOAuth,
        settings: StackSettings,
        kube: Kube | None = None,
        hub: Hub | None = None,
        seen: Callable[[str, str], None] = lambda *_: None,
        vault: Vault | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if vault is None:
            if kube is None:
                raise TypeError("Identity needs the API server")
            vault = KubeVault(kube)
        self._store, self._hub_auth = store, hub_auth
        self._hub = hub or Hub(hub_auth.api_url, lambda: hub_auth.api_token)
        self._logins = Logins(hub_auth)
        self._keyring = Keyring(vault, self.keys_secret, age=self.keys_age, overlap=OVERLAP)
        limits = Limits(self.session_seconds, self.session_idle_seconds, self.sessions_per_user)
        self._grants = Grants(vault, limits)
        self.people = People(self._hub)
        self.provider = Provider(
            service_url=settings.service_url,
            stack_url=settings.url,
            keyring=self._keyring,
            grants=self._grants,
            logins=self._logins,
            people=self.people,
            vault=vault,
            lifetimes=Lifetimes(self.access_token_seconds),
            seen=seen,
        )
        self._trouble = "The keys for logins are being read. Try again in a minute."
        self._round: asyncio.Task[None] | None = None

    def handlers(self) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
        """The addresses below the service's prefix, as ``web.mount`` takes them."""
        folders = [HERE / "templates", HERE.parent / "site" / "templates"]
        templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folders),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        prefix = "/" + self._hub_auth.base_url.strip("/") + "/"
        site = Site(self._store, self._hub_auth, prefix, templates, self._hub)
        return handlers(self.provider, site, self.not_ready)

    def not_ready(self) -> str:
        """Why nobody can log in yet; empty when they can."""
        return "" if self._keyring.ready else self._trouble

    def mint(
        self,
        stack: str,
        username: str,
        name: str = "",
        email: str = "",
        role: Role | str = Role.USER,
        lifetime: float = 60,
    ) -> str:
        """A short access token with which this service speaks to a stack's core in somebody's name.

        Whoever calls has made sure that the person may use the stack; see :attr:`people`.

        Args:
            stack: the stack's name.
            username: the hub's name of the user.
            name: for people to read; the hub's name if empty.
            email: may be empty.
            role: in the stack's core.
            lifetime: in seconds.

        Raises:
            KeyringError: the keys have not been read yet.
        """
        person = Person(username, name or username, email, Role(role))
        now = int(self.provider.clock())
        token = {
            "iss": self.provider.issuer(stack),
            "aud": AUDIENCE,
            "azp": "service",
            "iat": now,
            "exp": now + max(1, int(lifetime)),
            **claims.about(person),
            **claims.access(person),
        }
        return self._keyring.sign(token)

    async def start(self) -> None:
        """Read the keys, and keep them: until :meth:`stop` in the background, if need be again and again."""
        with_keys = asyncio.Event()
        self._round = asyncio.create_task(self._run(with_keys))
        await asyncio.wait(
            [self._round, waiting := asyncio.create_task(with_keys.wait())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        waiting.cancel()

    async def stop(self) -> None:
        """Write what has not been written and give all back."""
        if self._round:
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)
        await self._grants.flush()
        await self._logins.close()

    async def _run(self, tried: asyncio.Event) -> None:
        pause = 1.0
        while True:
            try:
                await self._keyring.load()
                self._trouble, pause = "", 1.0
                wait = min(self._keyring.due() + 1, ROUND_SECONDS)
            except (KubeError, KeyringError) as error:
                self.log.error("The keys for logins: %s", error)
                self._trouble = "Nobody can log in to stacks at the moment: their keys cannot be read. Tell your administrator."
                wait, pause = pause, min(2 * pause, MOST_PAUSE)
            tried.set()
            if self._store.view.synced:
                self._grants.forget({stack.name for stack in self._store.view.all()})
            await asyncio.sleep(wait)
