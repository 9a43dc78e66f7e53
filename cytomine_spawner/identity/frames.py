"""Pages that keycloak-js puts into invisible frames. They hold a script and nothing else.

The first asks whether cookies work in a frame of another site. The answer is always no: nothing here needs them,
and the adapter then leaves its status frame alone and notices the end of a login at the next refresh.
"""

from __future__ import annotations

import base64
import hashlib
import html
from dataclasses import dataclass

_UNSUPPORTED = 'parent.postMessage("unsupported", document.body.dataset.origin);'
# keycloak-js sends "<client> <session>" and understands these three answers.
_STATUS = """
addEventListener("message", async event => {
  const origin = document.body.dataset.origin;
  const [client, session] = String(event.data).split(" ");
  if (event.origin !== origin || event.source !== parent || !client) return;
  const query = new URLSearchParams({client_id: client, session_state: session || ""});
  let answer = "unchanged";
  try {
    const response = await fetch("login-status-iframe.html/init?" + query, {credentials: "omit"});
    if (response.status === 403) answer = "changed";
  } catch { /* a network that fails is no logout */ }
  parent.postMessage(answer, origin);
});
"""


@dataclass(frozen=True)
class Frame:
    """One page.

    Attributes:
        script: all that it does.
    """

    script: str

    def html(self, origin: str) -> str:
        """The page for the frame's only permitted parent."""
        return (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Login</title></head>'
            f'<body data-origin="{html.escape(origin)}"><script>{self.script}</script></body></html>'
        )

    def policy(self, origin: str) -> str:
        """Its Content-Security-Policy."""
        digest = base64.b64encode(hashlib.sha256(self.script.encode()).digest()).decode()
        return (
            f"default-src 'none'; script-src 'sha256-{digest}'; connect-src 'self'; base-uri 'none'; "
            f"frame-ancestors {origin}"
        )


ALL = {
    r"3p-cookies/step1\.html": Frame(_UNSUPPORTED),
    r"3p-cookies/step2\.html": Frame(_UNSUPPORTED),
    r"login-status-iframe\.html": Frame(_STATUS),
}
