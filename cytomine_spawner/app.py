"""The command ``cytomine-stacks``: operator, page and REST API in one process and one event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tornado.web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from tornado.httpserver import HTTPServer
from traitlets import Bool, Integer, List, TraitError, Unicode
from traitlets.config import Application, Configurable, catch_config_error

from .access.activity import Activity
from .access.grants import Grants
from .access.hubapi import Hub
from .access.importtokens import ImportTokens
from .access.keys import Connections
from .access.lasting import Watchman
from .access.projects import Projects
from .blueprint import render
from .blueprint.lifecycle import Limits
from .blueprint.settings import StackSettings
from .cluster.client import Kube, KubeError
from .cluster.stacks import KubeStore
from .cluster.store import Unavailable
from .common.version import VERSION
from .identity import HubSilent, Identity
from .operator import metrics
from .operator.clock import Clock
from .operator.operator import Operator
from .site import handler
from .stack.model import Stack
from .web import entrance, routes

SHUTDOWN_SECONDS = 30
MAX_BODY = 2**20


class Probe(tornado.web.RequestHandler):
    """For Kubernetes: 200 while the service works, 503 with a sentence otherwise."""

    def initialize(self, app: StacksApp, readiness: bool) -> None:
        """Remember what to ask."""
        self.app, self.readiness = app, readiness

    def get(self) -> None:
        """Answer."""
        trouble = self.app.not_ready() if self.readiness else self.app.not_alive()
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_status(503 if trouble else 200)
        self.finish(f"{trouble or 'ok'}\n")


class Metrics(tornado.web.RequestHandler):
    """For Prometheus."""

    def get(self) -> None:
        """Answer."""
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(generate_latest(metrics.REGISTRY))


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


class StacksApp(Application):
    """The stack service."""

    name = "cytomine-stacks"
    version = VERSION
    description = (
        "Runs Cytomine stacks on Kubernetes: starts, watches, hibernates and removes them, and shows them."
    )
    classes = List([StackSettings, Identity])  # type: ignore[assignment]
    # The operator's.
    clock = Clock()
    aliases = {
        "config": "StacksApp.config_file",
        "f": "StacksApp.config_file",
        "namespace": "StackSettings.namespace",
        "port": "StacksApp.port",
        "log-level": "Application.log_level",
    }

    config_file = Unicode("", help="File with settings, in Python: ``c.StackSettings.namespace = ...``.").tag(
        config=True
    )
    address = Unicode("", help="Address to listen on; all if empty.").tag(config=True)
    port = Integer(8000, help="Port of the page and the REST API.").tag(config=True)
    probe_address = Unicode("", help="Address for probes and metrics; all if empty.").tag(config=True)
    probe_port = Integer(
        8001,
        help="Port for Kubernetes' probes (/healthz, /readyz) and for Prometheus (/metrics), without login.",
    ).tag(config=True)
    pages = Bool(True, help="Serve the page and the REST API, which need the hub's login.").tag(config=True)
    token_file = Unicode(
        "", help="File with this service's token of the hub; the environment's if empty."
    ).tag(config=True)
    api_timeout = Integer(15, min=1, help="Seconds that one call to Kubernetes may take.").tag(config=True)

    @catch_config_error
    def initialize(self, argv: Sequence[str] | None = None) -> None:
        """Read the command line and the settings' file."""
        super().initialize(list(argv) if argv is not None else None)
        if self.config_file:
            if not Path(self.config_file).is_file():
                self.exit_with(f"The settings' file {self.config_file} does not exist")
            self.load_config_file(self.config_file, path=None)
            self.parse_command_line(list(argv) if argv is not None else None)
        logging.basicConfig(format="%(levelname).1s %(asctime)s %(name)s: %(message)s", level=self._level())
        # kopf says each of its steps.
        logging.getLogger("kopf").setLevel(max(self._level(), logging.WARNING))
        # That it ends the tasks of stacks when the service stops, it calls a warning.
        logging.getLogger("kopf.objects").setLevel(max(self._level(), logging.ERROR))
        # HubOAuth says at INFO whose session was opened.
        logging.getLogger("tornado.application").setLevel(max(self._level(), logging.WARNING))
        logging.getLogger("kubernetes_asyncio").setLevel(max(self._level(), logging.INFO))

    def _level(self) -> int:
        level: Any = self.log_level
        return level if isinstance(level, int) else int(logging.getLevelName(str(level)))

    def exit_with(self, sentence: str) -> None:
        """End with one sentence."""
        self.log.error("%s.", sentence.rstrip("."))
        self.exit(1)

    def start(self) -> None:
        """Run until told to end."""
        try:
            settings = StackSettings(parent=self)
            render.check(settings)
        except (ValueError, TraitError, OSError) as error:
            self.exit_with(f"The settings of the stacks are wrong: {error}")
            return
        if loose := settings.unpinned:
            self.log.warning(
                "These images have a tag and no digest, so that something else can come under the same name: %s. Pin them "
                "in StackSettings.images.",
                ", ".join(loose),
            )
        try:
            asyncio.run(self.serve(settings))
        except KubeError as error:
            self.exit_with(
                f"The stacks cannot be listed in the namespace {settings.namespace}: {error}. Check that the resource "
                "definition cytominestacks is installed and that the service's account may list it"
            )
        except OSError as error:
            self.exit_with(
                f"The service cannot listen on its ports {self.port} and {self.probe_port}: {error}"
            )

    async def serve(self, settings: StackSettings, stop: asyncio.Event | None = None) -> None:
        """Run operator, page and probes until ``stop`` is set or the process is told to end."""
        stop = stop or asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sign, stop.set)
        api = await Kube.connect()
        kube = Kube(api, settings.namespace, timeout=self.api_timeout)
        self.operator = Operator(kube, settings, self.clock)
        front = self._front(api, kube, settings) if self.pages else None
        if front:
            self.operator.reconciler.connected = front.connections.connected
            self.operator.reconciler.granted = front.grants.found if front.grants else None
        self.running = asyncio.create_task(self.operator.run(stop))
        servers: list[HTTPServer] = []
        stopping = asyncio.create_task(stop.wait())
        try:
            servers.append(self._listen_probes())
            if front:
                servers.append(self._listen_pages(front))
                await front.start()
            await asyncio.wait([self.running, stopping], return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            await asyncio.wait_for(self.running, SHUTDOWN_SECONDS)
        finally:
            for server in servers:
                server.stop()
            if front:
                await front.stop()
            for task in (stopping, self.running):
                task.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
            await api.close()

    def not_alive(self) -> str:
        """What is broken for good, so that the process should be started anew."""
        return "The operator has ended." if self.running.done() else ""

    def not_ready(self) -> str:
        """What is not ready yet."""
        return self.not_alive() or ("" if self.operator.ready else "The stacks are being listed.")

    def _listen_probes(self) -> HTTPServer:
        app = tornado.web.Application(
            [
                (r"/healthz", Probe, {"app": self, "readiness": False}),
                (r"/readyz", Probe, {"app": self, "readiness": True}),
                (r"/metrics", Metrics),
            ],
            log_function=lambda _: None,
        )
        return app.listen(self.probe_port, self.probe_address)

    def _front(self, api: Any, kube: Kube, settings: StackSettings) -> Front:
        token = (
            Path(self.token_file).read_text().strip()
            if self.token_file
            else os.environ["JUPYTERHUB_API_TOKEN"]
        )
        log = logging.getLogger("cytomine_spawner.cluster.store")
        return Front(
            KubeStore(api, settings.namespace, log=log),
            kube,
            settings,
            token,
            parent=self,
            ready=self.not_ready,
            changed=self.operator.wake,
        )

    def _listen_pages(self, front: Front) -> HTTPServer:
        # Nothing that is sent here is large; slides go to the stacks themselves.
        return front.application().listen(
            self.port, self.address, xheaders=True, max_body_size=MAX_BODY, max_buffer_size=MAX_BODY
        )


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    StacksApp.launch_instance(list(argv) if argv is not None else None)


if __name__ == "__main__":
    main()
