"""Run as ``sitecustomize`` of a notebook's Python: notes each kind of request that the process makes, with the answer's status."""

from __future__ import annotations

import http.client
import os
import re
from pathlib import Path
from typing import Any

# The file to write to.
FILE = "REQUESTS_SEEN"


def watch() -> None:
    """Note requests from now on; kinds that this process has noted are left out."""
    put, get = http.client.HTTPConnection.putrequest, http.client.HTTPConnection.getresponse
    noted: set[str] = set()

    def putrequest(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        self.asked_now = method, url
        return put(self, method, url, *args, **kwargs)

    def getresponse(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = get(self, *args, **kwargs)
        method, url = self.asked_now
        line = f"{method} {answer.status} http://{self.host}{url.partition('?')[0]}"
        kind = re.sub(r"\d+", "N", line)
        if kind not in noted:
            noted.add(kind)
            with Path(os.environ[FILE]).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        return answer

    # urllib3's connections, which requests has, are children of this one.
    http.client.HTTPConnection.putrequest = putrequest  # type: ignore[method-assign]
    http.client.HTTPConnection.getresponse = getresponse  # type: ignore[method-assign]


if FILE in os.environ:
    watch()
