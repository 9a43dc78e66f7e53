"""The browsers' side of the stacks' identity: the login, which shows no page of its own, and the logout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jupyterhub.services.auth import UserNotAllowed
from tornado.httputil import HTTPServerRequest

from ..cluster.client import KubeError
from ..site import handler
from ..site.handler import Refusal, Site, not_synced
from ..site.page import Frame
from ..stack.model import Stack
from ..stack.rights import Person
from .people import HubSilent
from .provider import BadRequest, Provider
from .strange import nobodys


class Common:
    """What all of them share; mixed into tornado handlers."""

    provider: Provider
    ready: Callable[[], str]
    site: Site
    settings: dict[str, Any]
    request: HTTPServerRequest

    def initialize(self, site: Site, **shared: Any) -> None:
        """Take over what all share."""
        super().initialize(site)  # type: ignore[misc]
        self.provider, self.ready = shared["provider"], shared["ready"]

    def the_stack(self, name: str) -> Stack:
        """The stack of this name, for whoever asks; one that stands in for it where there is none.

        Raises:
            Refusal: 503 while the service does not know.
        """
        if trouble := self.ready():
            raise Refusal(503, trouble)
        view = self.site.store.view
        if not view.synced:
            raise Refusal(503, not_synced())
        found = view.get(name)
        return nobodys(name) if found is None or found.deleting else found


class _Silently(Exception):
    """A refusal that a silent login gets as an error, and everybody else as a page."""

    def __init__(self, error: str, sentence: str, status: int = 401) -> None:
        super().__init__(sentence)
        self.error, self.sentence, self.status = error, sentence, status


class _Browser(Common, Frame):
    """Answers people's browsers, and asks the hub itself who it is: first it must be known where errors go."""

    public = True

    async def who(self) -> dict[str, Any] | None:
        """The hub's model of the user who is logged in there at this moment; None if nobody is.

        Raises:
            _Silently: if they may not use the service, or if the hub is silent.
        """
        try:
            model = await self._ask_hub()
        except Refusal as error:
            raise _Silently("temporarily_unavailable", error.sentence, error.status_code) from error
        if model is None:
            return None
        try:
            self.check_hub_user(model)
        except UserNotAllowed as error:
            raise _Silently(
                "access_denied",
                f"{model['name']} may not use this service; an administrator of the hub can allow it.",
                403,
            ) from error
        if model.get("kind", "user") != "user":
            raise _Silently("access_denied", "Only users of the hub can open a stack, services cannot.", 403)
        try:
            # HubOAuth remembers an answer for a minute: a code for somebody who logged out would fail later.
            fresh = await self.provider.logins.user(self.hub_auth.get_token(self), model["name"])
        except HubSilent as error:
            raise _Silently("temporarily_unavailable", handler.HUB_SILENT, 503) from error
        if fresh:
            self._hub_auth_user_cache = self.current_user = fresh
            self.person = Person.from_model(fresh)
        return fresh


class Login(_Browser):
    """The login: the hub's, without a page of its own."""

    async def get(self, name: str) -> None:
        """Send a browser on: to the hub's login, or back to the stack with a code.

        Raises:
            Refusal: to strangers, and if there is nowhere to send an error.
        """
        stack = self.the_stack(name)
        try:
            asked = self.provider.asked(name, self.request.query)
        except BadRequest as error:
            raise Refusal(400, str(error)) from error
        silent = "none" in asked.get("prompt", "").split()
        try:
            model = await self.who()
            if model is None and not silent:
                self.redirect(self.get_login_url())
                return
            if model is None:
                raise _Silently("login_required", "Nobody is logged in at the hub.")
            await self._send_back(stack, asked, model)
        except _Silently as refused:
            if not silent:
                raise Refusal(refused.status, refused.sentence) from refused
            self._go(self.provider.refuse(name, asked, refused.error, refused.sentence))

    async def _send_back(self, stack: Stack, asked: dict[str, str], model: dict[str, Any]) -> None:
        try:
            person = await self.provider.people.allowed(stack, model)
            if person is None:
                raise _Silently(
                    "access_denied",
                    f"There is no such Cytomine any more, or it belongs to somebody else and {model['name']} is not among "
                    "its members. Its owner can let you in: ask them to add you on their page of stacks.",
                    403,
                )
            self._go(await self.provider.authorize(stack, asked, person, self.hub_auth.get_token(self)))
        except BadRequest as error:
            raise Refusal(400, str(error)) from error
        except HubSilent as error:
            raise _Silently("temporarily_unavailable", handler.HUB_SILENT, 503) from error
        except KubeError as error:
            raise _Silently(
                "temporarily_unavailable", "The cluster does not answer. Try again in a minute.", 503
            ) from error

    def _go(self, address: str) -> None:
        # The address holds a code: nobody after us is told of it.
        self.set_header("Referrer-Policy", "no-referrer")
        self.redirect(address)


class Logout(_Browser):
    """The end of a login to a stack.

    Whoever still is logged in at the hub would be logged in again by the stack's next page. So they get a page that
    says so and leads to the hub's logout; only the others are sent on at once.
    """

    async def get(self, name: str) -> None:
        """End the sessions.

        Raises:
            Refusal: if the request does not come from one who was logged in.
        """
        stack = self.the_stack(name)
        try:
            ended = await self.provider.log_out(stack, self.get_argument("id_token_hint", ""))
        except KubeError as error:
            raise Refusal(503, "The cluster does not answer. Try again in a minute.") from error
        if not ended:
            raise Refusal(
                400,
                "This link does not say who is to be logged out. To log out everywhere, log out of the hub.",
            )
        origin = self.provider.origin(name)
        if (
            self.request.headers.get("Origin") == origin
            and self.request.headers.get("Sec-Fetch-Dest") == "empty"
        ):
            # keycloak-js may send it by script; it loads its page anew then.
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_status(204)
            return
        onward = self.provider.after_logout(
            name, self.get_argument("post_logout_redirect_uri", ""), self.get_argument("state", "")
        )
        try:
            model = await self.who()
        except _Silently:
            model = None
        if model is None and onward:
            self.redirect(onward)
            return
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.show("logged_out.html", onward=onward or self.provider.url(name), at_the_hub=model is not None)

    post = get
