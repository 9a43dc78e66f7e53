"""The pages and handlers around LS Login: what a person sees when a login does not work, and the way out."""

from __future__ import annotations

import base64
import hmac
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from oauthenticator.oauth2 import (
    STATE_COOKIE_NAME,
    OAuthCallbackHandler,
    OAuthLoginHandler,
    OAuthLogoutHandler,
)
from tornado import web
from tornado.httputil import url_concat

from ..common.names import readable
from .oidc import REGISTRATION_ERRORS, UNUSABLE, ProviderError, error_code, redacted

if TYPE_CHECKING:
    from types import TracebackType

# In the address of a login whose fragment was asked for.
ASKED = "place"

# What each page stands for, its HTTP status and its heading.
PROBLEMS = {
    "not_allowed": (403, "Your account may not use this hub"),
    "refused": (403, "You are not signed in"),
    "expired": (400, "This sign-in has expired"),
    "down": (503, "{service} does not answer"),
    "unusable": (502, "{service} sent an answer that this hub cannot use"),
    "registration": (500, "{service} does not accept this hub"),
}


class LoginProblem(web.HTTPError):
    """A login that ends in one of the pages of PROBLEMS.

    Args:
        kind: the page.
        log: one sentence for the log; never a token, a visa or a secret.
        facts: what the page's template may use.
    """

    def __init__(self, kind: str, log: str, **facts: Any) -> None:
        status, self.heading = PROBLEMS[kind]
        super().__init__(status, log.replace("%", "%%"))
        self.kind = kind
        self.log_line = log
        self.facts = facts

    @classmethod
    def from_provider(cls, error: ProviderError) -> LoginProblem:
        """Choose the page for what LS Login answered, or did not answer, to the hub itself."""
        if error.error == UNUSABLE:
            return cls("unusable", str(error))
        if error.unavailable:
            return cls("down", str(error))
        if error.registration:
            return cls("registration", str(error), error=error.error)
        if error.error in {"invalid_grant", "access_denied"}:
            # The code was used or has run out: a reloaded or long-forgotten page.
            return cls("expired", str(error))
        return cls("unusable", str(error))


class ProblemPages:
    """Mixin for handlers: renders LoginProblem, and keeps the query of its addresses (codes, tokens) out of the log."""

    def set_default_headers(self) -> None:
        """Keep these pages out of caches, and their addresses from other servers."""
        super().set_default_headers()  # type: ignore[misc]
        self.set_header("Cache-Control", "no-store")  # type: ignore[attr-defined]
        # Without it the next page's server is told the address, which holds the authorization code.
        self.set_header("Referrer-Policy", "no-referrer")  # type: ignore[attr-defined]

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log one sentence; the traceback only where the hub or LS Login is at fault."""
        # Tornado's own version logs the request's whole address.
        where = f"{self.request.method} {self.request.path}"  # type: ignore[attr-defined]
        log = self.log  # type: ignore[attr-defined]
        if isinstance(value, LoginProblem):
            trace = (typ, value, tb) if value.status_code >= 500 else None
            log.log(40 if trace else 30, "Login failed (%s): %s", value.kind, value.log_line, exc_info=trace)
        elif isinstance(value, web.HTTPError):
            log.warning("%s %s: %s", value.status_code, where, value.log_message or value.reason or "")
        elif typ is not None and value is not None:
            log.error("Uncaught exception %s", where, exc_info=(typ, value, tb))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Render the problem's page, or JupyterHub's own for other errors."""
        problem = (kwargs.get("exc_info") or (None, None))[1]
        if not isinstance(problem, LoginProblem):
            super().write_error(status_code, **kwargs)  # type: ignore[misc]
            return
        self.set_header("Content-Type", "text/html; charset=UTF-8")  # type: ignore[attr-defined]
        if status_code == 503:
            self.set_header("Retry-After", "60")  # type: ignore[attr-defined]
        authenticator = self.authenticator  # type: ignore[attr-defined]
        page = self.render_template(  # type: ignore[attr-defined]
            "lslogin_problem.html",
            sync=True,
            kind=problem.kind,
            status_code=status_code,
            heading=problem.heading.format(service=authenticator.login_service),
            authenticator=authenticator,
            contact=contact_link(authenticator.contact),
            support=contact_link(authenticator.provider_support),
            again_url=self.login_again_url(),
            **problem.facts,
        )
        self.write(page)  # type: ignore[attr-defined]

    def login_again_url(self) -> str:
        """Return the address that starts a fresh login and ends where this one was to end."""
        url = self.authenticator.login_url(self.hub.base_url)  # type: ignore[attr-defined]
        wanted = self.wanted_url()
        return str(url_concat(url, {"next": wanted}) if wanted else url)

    def wanted_url(self) -> str | None:
        """Return the hub's page that the person was on the way to, if it is known."""
        return None


class StateCookie:
    """Keeps a login's state in a cookie that browsers take from the hub's own host alone, where cookies can have that.

    A page on a host below the hub's may set cookies for the hub, too: with the state of a login of its own it would
    log others in as somebody else.
    """

    _state_cookie: str | None = None

    @property
    def state_cookie_name(self) -> str:
        """The cookie's name."""
        prefix = "__Host-" if self.settings.get("cookie_host_prefix_enabled") else ""  # type: ignore[attr-defined]
        return f"{prefix}{STATE_COOKIE_NAME}"

    def set_state_cookie(self, state_cookie_value: str) -> None:
        """Set it for a day."""
        self._set_cookie(self.state_cookie_name, state_cookie_value, expires_days=1, httponly=True)  # type: ignore[attr-defined]

    def get_state_cookie(self) -> str:
        """Return what is in it, once: it is good for one login."""
        if self._state_cookie is None:
            found = self.get_secure_cookie(self.state_cookie_name) or b""  # type: ignore[attr-defined]
            self._state_cookie = found.decode("utf8", "replace")
            self.clear_cookie(self.state_cookie_name)  # type: ignore[attr-defined]
        return self._state_cookie or ""


class LSLoginHandler(StateCookie, ProblemPages, OAuthLoginHandler):  # type: ignore[misc]
    """Sends the browser to LS Login, unless LS Login is known to be down."""

    async def get(self) -> None:
        """Redirect to LS Login."""
        # The browser would otherwise end on its own error page, where nothing says what to do.
        await self.authenticator.require_reachable()
        if self._may_know_a_place():
            self.finish(await self._onward_page())
            return
        super().get()

    def _may_know_a_place(self) -> bool:
        """Whether the browser may have been led here with a fragment (#...), which only a page can ask it for.

        Where people press a button for the login, that button's page has asked. Programs are led on as ever.
        """
        return bool(
            self.authenticator.auto_login
            and self.request.headers.get("Sec-Fetch-Dest") == "document"
            and not self.get_argument(ASKED, "")
        )

    async def _onward_page(self) -> Any:
        params = {"next": self.wanted_url() or self.hub.base_url, ASKED: "1"}
        return await self.render_template(
            "lslogin_onward.html",
            service=self.authenticator.login_service,
            onward_url=url_concat(self.authenticator.login_url(self.hub.base_url), params),
        )

    def wanted_url(self) -> str | None:
        """Return the page from the address's ``next``."""
        wanted = self._get_next_url()
        return wanted if isinstance(wanted, str) else None


class LSLoginCallbackHandler(StateCookie, ProblemPages, OAuthCallbackHandler):  # type: ignore[misc]
    """Receives the browser from LS Login."""

    # What the person signed in as, kept for the page that refuses them.
    seen: dict[str, Any] | None = None

    def check_error(self) -> None:
        """Turn OAuth's error answers into pages."""
        error = self.get_argument("error", "")
        if not error:
            return
        description = redacted(self.get_argument("error_description", ""), [])
        line = f"{self.authenticator.login_service} answered {error_code(error) or 'an unknown error'}: {description!r}"
        if error in {"server_error", "temporarily_unavailable"}:
            raise LoginProblem("down", line)
        if error in REGISTRATION_ERRORS:
            raise LoginProblem("registration", line, error=error)
        raise LoginProblem("refused", line)

    def check_code(self) -> None:
        """Require an authorization code."""
        if not self.get_argument("code", ""):
            raise LoginProblem("expired", "the callback was opened without a code")

    def check_state(self) -> None:
        """Require that this browser began this login."""
        cookie, sent = self.get_state_cookie(), self.get_argument("state", "")
        if not cookie:
            raise LoginProblem("expired", "the browser sent no cookie for this login")
        began, came = _state(cookie).get("state_id"), _state(sent).get("state_id")
        if not (isinstance(began, str) and isinstance(came, str) and hmac.compare_digest(began, came)):
            raise LoginProblem("expired", "the login's state does not match this browser's cookie")
        if not _state(cookie).get("code_verifier") and self.authenticator.enable_pkce:
            raise LoginProblem("expired", "the cookie for this login holds no code verifier")

    async def get(self) -> None:
        """Finish the login."""
        try:
            self.check_arguments()
            user = await self.login_user()
        except ProviderError as error:
            raise LoginProblem.from_provider(error) from error
        except LoginProblem as problem:
            if problem.kind == "expired" and self.current_user:
                # A second tab or the back button, after the login had worked: nothing is wrong.
                self.log.info(
                    "Login ignored, %s is logged in already: %s", self.current_user.name, problem.log_line
                )
                self.redirect(self.hub.base_url)
                return
            raise
        if user is None:
            raise LoginProblem("not_allowed", "the account is not allowed to use this hub", **self.account())
        self.redirect(self.get_next_url(user))

    def wanted_url(self) -> str | None:
        """Return the page that this browser's login began with."""
        wanted = _state(self.get_state_cookie()).get("next_url")
        return wanted if isinstance(wanted, str) else None

    def account(self) -> dict[str, Any]:
        """Return what the refusing page shows of the account, and the way to another one."""
        seen = self.seen or {}
        auth_state = seen.get("auth_state") or {}
        authenticator = self.authenticator
        return {
            "account": {
                key: readable(value, 300) for key, value in (auth_state.get("account") or {}).items()
            },
            "username": seen.get("name", ""),
            "blocked": seen.get("name") in authenticator.blocked_users,
            "groups": seen.get("groups") or [],
            "needed": sorted(authenticator.allowed_groups),
            "other_account_url": authenticator.provider_logout_url(self, auth_state.get("id_token")),
        }


class LSLoginLogoutHandler(ProblemPages, OAuthLogoutHandler):  # type: ignore[misc]
    """Logs out here and at LS Login; also the page that LS Login sends the browser back to."""

    _left: dict[str, Any] | None = None

    async def get(self) -> None:
        """Log out, after asking somebody whom another site's page has sent here.

        A log-out ends tokens and, where the hub is set up so, servers: not for any page to bring about.
        """
        if self.get_current_user_cookie() is None or self._is_own_wish():
            await super().get()
            return
        html = await self.render_template(
            "lslogin_ask_logout.html", logout_url=self.request.path, home_url=f"{self.hub.base_url}home"
        )
        self.finish(html)

    def _is_own_wish(self) -> bool:
        """Whether the hub, the person's own notebooks or a service of the hub led here, or nobody did."""
        site = self.request.headers.get("Sec-Fetch-Site", "none")
        if site in ("none", "same-origin"):
            return True
        referer = urlsplit(self.request.headers.get("Referer", ""))
        own = [self.get_current_user_cookie().host, *(service.host for service in self.services.values())]
        return site == "same-site" and f"{referer.scheme}://{referer.netloc}" in [
            host for host in own if host
        ]

    async def handle_logout(self) -> None:
        """Get rid of cookies and tokens."""
        await super().handle_logout()
        # A user whose login could not be refreshed is not "current", but has a cookie and tokens to get rid of.
        user = self.current_user
        if user is None:
            user = self.get_current_user_cookie()
            self.clear_login_cookie()
        if user is not None:
            self._left = await self.authenticator.forget(user)

    async def render_logout_page(self) -> None:
        """Send the browser to LS Login's logout, or show that the logout is done."""
        authenticator = self.authenticator
        if authenticator.logout_redirect_url:
            self.redirect(authenticator.logout_redirect_url)
            return
        if self._left is not None and authenticator.logout_at_provider:
            url = authenticator.provider_logout_url(self, self._left.get("id_token"))
            if url:
                self.redirect(url)
                return
        html = await self.render_template(
            "lslogin_logged_out.html",
            authenticator=authenticator,
            everywhere=bool(self.get_argument("state", "")) and self._left is None,
            provider_logout_url=authenticator.provider_logout_url(self, None),
            again_url=authenticator.login_url(self.hub.base_url),
        )
        self.finish(html)


def contact_link(contact: str) -> dict[str, str] | None:
    """Return text and address of a contact: a web address, an e-mail address, or plain words (no address)."""
    contact = contact.strip()
    if not contact:
        return None
    if contact.startswith(("https://", "http://")):
        return {"text": contact, "href": contact}
    if "@" in contact and " " not in contact:
        return {"text": contact, "href": f"mailto:{contact}"}
    return {"text": contact, "href": ""}


def _state(encoded: str) -> dict[str, Any]:
    """Decode a login's state; an unreadable one is empty. Unlike oauthenticator's, it logs nothing."""
    try:
        state = json.loads(base64.urlsafe_b64decode(encoded.encode("ascii")))
    except ValueError:
        return {}
    return state if isinstance(state, dict) else {}
