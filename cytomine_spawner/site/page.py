"""The frame of the service's pages: HTML, also for what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..stack.rights import Scope, scopes_of
from ..stack.times import date, relative
from .handler import SAFE, Handler, Refusal, refusal

# Says that a browser's login was renewed.
RENEWED = "cytomine-login"


class Frame(Handler):
    """Answers HTML, errors too."""

    def not_logged_in(self) -> None:
        """Send a reader to the hub's login; a form cannot be sent there."""
        if self.request.method not in SAFE or self.wants_json:
            raise Refusal(401, "You are logged out. Reload the page to log in again.")
        self.redirect(self.get_login_url())

    def outdated(self, model: Mapping[str, Any]) -> bool:
        """Whether a browser's login is of a time when the hub gave it no scope to manage stacks.

        It is renewed at the hub, without a form, and once: a hub that is not set up to give the scope does not now either.
        """
        return (
            not getattr(self, "_token_authenticated", False)
            and self.request.method in SAFE
            and not self.wants_json
            and Scope.MANAGE not in scopes_of(model)
            and not self.get_cookie(RENEWED)
        )

    @property
    def wants_json(self) -> bool:
        """Whether the page's script asks, and not a reader."""
        return self.request.headers.get("Accept", "").startswith("application/json")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what is wrong, and where to go from here."""
        answer = refusal(kwargs.get("exc_info", (None, None, None))[1], status_code)
        self.set_status(answer.status_code)
        if self.wants_json:
            self.finish({"status": answer.status_code, "message": answer.sentence})
            return
        self.show("error.html", status=answer.status_code, sentence=answer.sentence)

    def show(self, template: str, **values: Any) -> None:
        """Send a page."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(self.render_page(template, **values))

    def render_page(self, template: str, **values: Any) -> str:
        """A page or a part of one as text."""
        person = getattr(self, "person", None)
        stacks = self.site.store.view
        return self.site.templates.get_template(template).render(
            person=person,
            prefix=self.site.prefix,
            hub_url=self.site.hub_url,
            static=self.static_url,
            # A page for nobody has no forms, and must not set a cookie.
            xsrf=self.xsrf_token.decode() if person else "",
            outage=outage(self) if stacks.synced and not stacks.connected else "",
            **values,
        )


def outage(page: Frame) -> str:
    """One sentence on how old the page's knowledge is."""
    since = page.site.store.view.as_of
    when = f" since {date(since)} ({relative(since)})" if since else ""
    return f"The cluster has not answered{when}. You see what it told last; changes have to wait until it answers."
