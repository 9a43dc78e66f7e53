"""The command ``cytomine-hub``: JupyterHub with a guard before all of its pages (:mod:`cytomine_spawner.common.fetchmeta`).

JupyterHub has no setting for what comes before its handlers, and one for further handlers only, which come last. So
this is JupyterHub with one method extended; everything else is configured as ``c.JupyterHub``.
"""

from __future__ import annotations

import re
from typing import Any

from jupyterhub.app import JupyterHub
from traitlets import Bool, Dict, List, Unicode

from ..common.fetchmeta import Guard, hub_hosts


class GuardedHub(JupyterHub):  # type: ignore[misc]
    """JupyterHub whose pages are not fetched in a user's name by pages from elsewhere."""

    foreign_forms = Bool(
        False,
        help="""
        Let pages of other sites send forms that open a page of the hub, as logins by LTI and SAML do.

        JupyterHub's own check of forms (XSRF) remains. LS Login needs none of this.
        """,
    ).tag(config=True)

    script_paths = List(
        Unicode(),
        help="""
        Patterns of further paths that scripts of the hub's own pages ask for, such as `/hub/native/.*` for an
        authenticator with pages of its own.

        JupyterHub's ask for `/hub/api/` alone. Its pages, those of errors too, hold a token for forms.
        """,
    ).tag(config=True)

    moved_paths = Dict(
        Unicode(),
        help="""
        Paths on the hub's host that live on another host now, with their origin, where users have hosts of their own:
        `{"/services/cytomine/": "https://cytomine--service.hub.example.org"}`. Browsers are sent there.
        """,
    ).tag(config=True)

    def init_tornado_application(self) -> None:
        """Make the application, and put the guard before all of its rules."""
        super().init_tornado_application()
        prefix = re.escape(self.hub_prefix)
        guard = Guard(
            # What is the same for everybody; and the browsers' reports on the hub's own policy.
            (rf"{prefix}static/.*", rf"{prefix}logo", rf"{prefix}health", rf"{prefix}security/csp-report"),
            foreign_forms=self.foreign_forms,
            scripts=(rf"{prefix}api/.*", *self.script_paths),
            hosts=hub_hosts(self.subdomain_host.rstrip("/"), self.hub_prefix, self.moved_paths),
            log=self.log,
        )
        # Rules with a host come before those without.
        self.tornado_application.add_handlers(r".*", [(r".*", guard)])


def main(argv: Any = None) -> None:
    """The command."""
    GuardedHub.launch_instance(argv)


if __name__ == "__main__":
    main()
