"""What JupyterLab asks the notebook's server for: the state of the stack."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

from . import examples
from .look import Lookout

PATH = "cytomine/api/stack"


class StackHandler(APIHandler):  # type: ignore[misc]
    """``GET cytomine/api/stack``: the fields of :class:`~cytomine_spawner.notebook.lab.look.Look` as JSON."""

    auth_resource = "cytomine"
    # An open tab asks by itself; that must not keep the server from being stopped as idle.
    _track_activity = False

    def initialize(self, lookout: Lookout) -> None:
        """Take what looks at the stack."""
        super().initialize()
        self._lookout = lookout

    @web.authenticated
    @authorized  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """Answer 200, also when there is no stack or no service: the state says so."""
        seen = await self._lookout.look()
        self.set_header("Cache-Control", "no-store")
        await self.finish(json.dumps(asdict(seen)))


def load(server: Any) -> None:
    """Have a Jupyter server answer below its base URL, and put the image's notebooks into the home."""
    examples.copy(server.log)
    settings = server.web_app.settings
    route = (url_path_join(settings["base_url"], PATH), StackHandler, {"lookout": Lookout(log=server.log)})
    server.web_app.add_handlers(".*$", [route])
