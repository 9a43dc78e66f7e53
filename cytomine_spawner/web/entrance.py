"""What a browser meets at the address of a stack that does not serve: the way to a page that says how far it is.

While a stack sleeps or starts its host leads here, by the chart's Ingress for all stacks' hosts. Nothing is known here of
who asks, so the answer is the same for every name: a redirect to the service's own page, where the hub's login is.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from tornado.web import Application, HTTPError, RequestHandler

from ..blueprint.settings import StackSettings
from ..site.handler import SAFE, never_kept, refusal
from ..stack.model import NAME_PATTERN
from .pages import Page

# Sentences for programs, which get no page.
NOT_SERVING = "This Cytomine does not run now: it sleeps, starts or is gone. Open its address in a browser to see its state."
# Of the stack's own login: to come back there would be the middle of a login that is over.
_PASSING = ("/oauth2/", "/logout")
_RETRY_SECONDS = "5"


def safe_place(place: str) -> str:
    """A place within a stack's web interface, as a path with its query; ``/`` for what is none.

    Args:
        place: what somebody's address says.
    """
    plain = place.isprintable() and "\\" not in place and not place.startswith("//")
    return place if place.startswith("/") and plain and not place.startswith(_PASSING) else "/"


class Entrance(RequestHandler):
    """All addresses of a stack's host."""

    def initialize(self, stacks: StackSettings) -> None:
        """Remember where the service's own page is."""
        self._stacks = stacks

    def set_default_headers(self) -> None:
        """Set the security headers; what is said here holds for a moment only."""
        never_kept(self)

    def check_xsrf_cookie(self) -> None:
        """There is neither a cookie nor an effect here."""

    def prepare(self) -> None:
        """Answer whatever is asked: readers are sent to the page, programs are told.

        Raises:
            HTTPError: 404 where the host is no stack's.
        """
        name = self.request.host_name.removesuffix(_domain(self._stacks))
        if not re.fullmatch(NAME_PATTERN, name):
            raise HTTPError(404)
        if self._reads():
            place = safe_place(self.request.uri or "/")
            query = f"?{urlencode({'place': place})}" if place != "/" else ""
            # Browsers carry the fragment over to an address that has none.
            self.redirect(f"{self._stacks.service_url.rstrip('/')}/open/{quote(name)}{query}", status=302)
            return
        self.set_status(503)
        self.set_header("Retry-After", _RETRY_SECONDS)
        self.finish({"status": 503, "message": NOT_SERVING})

    def _reads(self) -> bool:
        headers = self.request.headers
        mode = headers.get("Sec-Fetch-Mode")
        wants = "text/html" in headers.get("Accept", "") if mode is None else mode == "navigate"
        upgrade = "websocket" in headers.get("Upgrade", "").lower()
        return self.request.method in SAFE and wants and not upgrade

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say in one sentence what is wrong."""
        answer = refusal(kwargs.get("exc_info", (None, None, None))[1], status_code)
        self.finish({"status": answer.status_code, "message": answer.sentence})


class Opening(Page):
    """A stack's card that goes on to the stack, to the place that was asked for, as soon as it serves."""

    async def get(self, name: str) -> None:
        """Show how far the stack is."""
        stack = self.stack(name)
        place = safe_place(self.get_query_argument("place", "/"))
        if not self.site.store.view.connected:
            self.set_status(503)
        card = self.card(stack, alone=True)
        self.show(
            "opening.html",
            card=card,
            place=place,
            target=f"{card['stack'].url.rstrip('/')}{place}" if card["stack"].url else "",
            cursor=self.site.store.view.cursor,
            updates=f"{self.site.prefix}updates?{urlencode({'stack': stack.name})}",
        )


def stand_before(application: Application, settings: StackSettings) -> None:
    """Let the entrance answer at the hosts of all stacks: nothing of the service itself is reached there.

    Args:
        application: the service's.
        settings: the administrator's settings.
    """
    pattern = rf"[^.]+{re.escape(_domain(settings))}"
    application.add_handlers(pattern, [(r".*", Entrance, {"stacks": settings})])


def _domain(settings: StackSettings) -> str:
    return (urlsplit(settings.url("x")).hostname or "").removeprefix("x")
