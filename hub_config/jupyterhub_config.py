"""The hub's configuration, as the chart runs it.

Each part sets one topic from the chart's values and secrets; the administrator's own configuration comes last and
wins. The folder is /etc/cytomine-hub; CYTOMINE_HUB_DIR names another one (values/, secrets/ and extra.d/ below it).
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from parts import (  # noqa: E402
    administrator,
    archive,
    authentication,
    database,
    hub,
    pages,
    proxy,
    services,
    spawner,
    stacks,
)
from parts.values import Problem, Values  # noqa: E402

c = get_config()  # noqa: F821 - JupyterHub defines it

try:
    values = Values.read(default=HERE)
    for part in (
        hub,
        database,
        proxy,
        authentication,
        spawner,
        stacks,
        archive,
        services,
        pages,
        administrator,
    ):
        part.configure(c, values)
except Problem as problem:
    # One sentence is the last line of the log, which Kubernetes shows as the container's termination message.
    sys.exit(f"The hub cannot start: {problem}")
