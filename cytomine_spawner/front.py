"""What people and notebooks meet of the service: page, REST API, login, keys and activity, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import tornado.web
from traitlets.config import Configurable

from .access.activity import Activity
from .access.grants import Grants
from .access.hubapi import Hub
from .access.importtokens import ImportTokens
from .access.keys import Connections
from .access.lasting import Watchman
from .access.projects import Projects
from .blueprint.lifecycle import Limits
from .blueprint.settings import StackSettings
from .cluster.client import Kube
from .cluster.stacks import KubeStore
from .cluster.store import Unavailable
from .identity import HubSilent, Identity
from .site import handler
from .stack.model import Stack
from .web import entrance, routes


class Rights:
    """Who may go on with what lasts; see :class:`~.access.lasting.Rights`."""

    def __init__(self, identity: Identity, connections: Connections, hub: Hub) -> None:
        self._identity, self._connections, self._hub = identity, connections, hub

    async def session(self, stack: Stack, name: str) -> bool:
        """Whether a session goes on, as the identity and the hub know it."""
        # Without its keys the identity could read no session, and would take each for one that has ended.
        if trouble := self._identity.not_ready():
            raise Unavailable(trouble)
        try:
            return await self._identity.provider.stands(stack, name)
        except HubSilent as error:
            raise Unavailable(str(error)) from error

    async def user(self, stack: Stack, name: str) -> bool:
        """Whether the hub counts a user among those who may use the stack."""
        return await self._hub.role(stack, name) is not None

    async def key(self, stack: Stack, key: str) -> bool:
        """Whether a key is one that the service gave out and has not withdrawn, and its person still may."""
        user = await self._connections.user_of(stack, key)
        return user is not None and await self.user(stack, user)


class Front:
    """The parts that need the hub.

    Args:
        store: the stacks.
        kube: the API server.
        settings: the administrator's settings.
        token: this service's token of the hub.
        parent: the application, for its config.
        ready: why the operator is not ready, or nothing.
        changed: called with a stack's name when its owner's keys came or went.
    """

    def __init__(
        self,
        store: KubeStore,
        kube: Kube,
        settings: StackSettings,
        token: str,
        *,
        parent: Configurable,
        ready: Callable[[], str],
        changed: Callable[[str], None],
    ) -> None:
        self._store, self._settings, self._ready = store, settings, ready
        self._limits = Limits.of(settings)
        self._hub_auth = handler.login(parent=parent, api_token=token)
        self._hub = Hub(self._hub_auth.api_url, lambda: token)
        self.activity = Activity(store, kube, self._hub)
        self.identity = Identity(
            parent=parent,
            store=store,
            kube=kube,
            hub_auth=self._hub_auth,
            hub=self._hub,
            settings=settings,
            seen=self._seen,
        )
        self.connections = Connections(
            store,
            kube,
            self.identity,
            self._hub,
            notebook_namespace=settings.notebook_namespace,
            changed=changed,
        )
        self.projects = Projects(store, kube, self._hub, self.connections)
        self._imports = ImportTokens(kube, self._hub) if settings.archive_url else None
        self.grants = (
            Grants(store, kube, self._hub, self.connections, self.projects, settings, changed=changed)
            if settings.archive_url
            else None
        )
        self.watchman = Watchman(store, Rights(self.identity, self.connections, self._hub))
        self._tasks: list[asyncio.Task[Any]] = []

    def application(self) -> tornado.web.Application:
        """All addresses below the service's prefix."""
        site = routes.mount(
            self._store,
            hub_auth=self._hub_auth,
            hub=self._hub,
            connections=self.connections,
            projects=self.projects,
            imports=self._imports,
            ready=self._ready,
            limits=self._limits,
            extra=self.identity.handlers(),
        )
        application = tornado.web.Application(site.handlers, **site.settings)
        if self._settings.entrance:
            entrance.stand_before(application, self._settings)
        return application

    def _seen(self, stack: str, user: str) -> None:
        self.activity.seen(stack, user)
        self.projects.arrived(stack, user)

    async def start(self) -> None:
        """Follow the stacks and read the keys for logins; in the background until :meth:`stop`."""
        parts = (self._store, self.connections, self.projects, self.activity, self.watchman)
        self._tasks = [asyncio.create_task(part.run()) for part in parts]
        if self.grants:
            self._tasks.append(asyncio.create_task(self.grants.run()))
        # Also in the background: nobody waits for the API server here.
        self._tasks.append(asyncio.create_task(self.identity.start()))

    async def stop(self) -> None:
        """End all and write what has not been written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.identity.stop()
