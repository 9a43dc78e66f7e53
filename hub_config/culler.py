"""The idle culler, whose lines in the log never have its token.

When a call of it fails, Tornado writes down the whole call, with the token among its arguments.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from cytomine_spawner.hub.hublog import rewrite

VARIABLE = "JUPYTERHUB_API_TOKEN"


def hide(secret: str) -> None:
    """Take a secret out of every line that is logged from now on, by whomever."""
    make = logging.getLogRecordFactory()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return rewrite(make(*args, **kwargs), lambda text: text.replace(secret, "[secret]"))

    logging.setLogRecordFactory(record)


if __name__ == "__main__":
    import jupyterhub_idle_culler

    if os.environ.get(VARIABLE):
        hide(os.environ[VARIABLE])
    jupyterhub_idle_culler.main()
