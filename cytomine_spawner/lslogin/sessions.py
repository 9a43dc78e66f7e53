"""What follows a login: refresh of tokens and groups, outages of LS Login, and the logout."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from typing import Any
from urllib.parse import urlencode

from tornado import web
from tornado.escape import xhtml_escape
from tornado.httputil import url_concat

from .kept import replaced
from .oidc import ProviderError
from .settings import LSLoginSettings

# A longer ID token would make an address that servers refuse.
_MAX_HINT_LENGTH = 6000
_RENEWALS_KEPT = 1000
_LOGIN_NEEDED = {
    "ended": "Your sign-in with {service} has ended.",
    "not allowed": "Your account may no longer use this hub: it has left the groups that may.",
    "outage": "{service} has not answered for a long time, so your sign-in could not be renewed.",
}


class LSLoginSessions(LSLoginSettings):
    """Refresh and logout for cytomine_spawner.lslogin.LSLoginAuthenticator."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # By a hash of the refresh token spent: the renewal under way or done. See _renewed.
        self._renewals: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._background: set[asyncio.Task[Any]] = set()

    def in_background(self, work: Any) -> asyncio.Task[Any]:
        """Run a coroutine beside the request at hand, and keep it from being collected meanwhile."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def refresh_user(self, user: Any, handler: Any = None) -> Any:
        """Bring a user's tokens and groups up to date.

        Returns:
            the new auth model; True to go on with what is known (no auth state kept, or LS Login does not answer and
            `outage_grace` has not run out); False if the person must log in again, or may no longer use the hub.
        """
        if not self.enable_auth_state:
            return True
        auth_state = await user.get_auth_state()
        if self.refresh_user_hook is not None:
            refreshed = await self._call_refresh_user_hook(user, auth_state)
            if refreshed is not None:
                return refreshed
        if not auth_state or not auth_state.get("access_token"):
            self.log.info(
                "User %s has no tokens of %s; a fresh login is needed", user.name, self.login_service
            )
            return self._stale(user, handler)
        self.remember(user.name, auth_state)
        try:
            model = await self._fresh_model(auth_state)
        except ProviderError as error:
            if error.unavailable or error.registration:
                return self._outage(user, handler, auth_state, error)
            self.log.info("User %s must log in again: %s", user.name, error)
            return self._stale(user, handler)
        if model["name"] != user.name:
            self.log.error("%s answered about another person than %s", self.login_service, user.name)
            return self._login_needed(user, handler, "ended")
        if not await self._still_allowed(model):
            self.log.warning("User %s may no longer use this hub", user.name)
            return self._login_needed(user, handler, "not allowed")
        now = await user.get_auth_state() or {}
        if now.get("access_token") == auth_state["access_token"]:
            return model
        # JupyterHub would write the model over what a sign-out, or a newer login, has written meanwhile.
        if now.get("access_token"):
            return True
        self.log.info("User %s signed out while %s was asked", user.name, self.login_service)
        self.revoke(user.name, model["auth_state"], auth_state)
        return self._stale(user, handler)

    def _stale(self, user: Any, handler: Any) -> bool:
        """Decide for a user without usable tokens: a browser can be asked for a login, a program cannot."""
        by_program = bool(getattr(handler, "_token_authenticated", False))
        if not by_program or hasattr(self, "auth_refresh_strict"):
            return self._login_needed(user, handler, "ended")
        # Since 6.1 JupyterHub lets programs go on by itself. Before, the servers of a user who logged out lost the
        # hub. It takes True for a successful refresh, so the next request of a browser has to be made to ask again.
        asyncio.get_running_loop().call_soon(setattr, user, "_auth_refreshed", None)
        return True

    def _login_needed(self, user: Any, handler: Any, why: str) -> bool:
        """Return False, JupyterHub's sign for a fresh login; before a spawn, raise a page that offers one."""
        if handler is None:
            return False
        if not hasattr(handler, "_token_authenticated"):
            # JupyterHub 6.1 reads it when a refresh fails, but pages that take no tokens lack it: the spawn was a 500.
            handler._token_authenticated = False
        last = getattr(user, "_auth_refreshed", None)
        # Between two regular refreshes only a spawn or a stop asks. JupyterHub's answer to False is then a bare 403.
        before_spawn = last is not None and time.monotonic() - last < self.auth_refresh_age
        user._auth_refreshed = None
        if (
            before_spawn
            and not handler._token_authenticated
            and getattr(handler, "_jupyterhub_user", None) is user
        ):
            raise self._login_page(handler, why)
        return False

    def _login_page(self, handler: Any, why: str) -> web.HTTPError:
        sentence = _LOGIN_NEEDED[why].format(service=self.login_service)
        url = url_concat(self.login_url(handler.hub.base_url), {"next": handler.request.uri})
        page = web.HTTPError(403, sentence.replace("%", "%%"), reason="Sign-in needed")
        page.jupyterhub_message = sentence  # type: ignore[attr-defined]
        page.jupyterhub_html_message = (  # type: ignore[attr-defined]
            f'{xhtml_escape(sentence)}</p><p><a class="btn btn-jupyter" href="{xhtml_escape(url)}">Sign in again</a>'
        )
        return page

    def _outage(self, user: Any, handler: Any, auth_state: dict[str, Any], error: ProviderError) -> bool:
        age = time.time() - float(auth_state.get("checked_at") or 0)
        if age <= self.outage_grace:
            self.log.warning("User %s stays logged in with the groups of %d s ago: %s", user.name, age, error)
            return True
        told = "%s has said nothing about %s for more than %d s, a fresh login is needed: %s"
        self.log.error(told, self.login_service, user.name, self.outage_grace, error)
        return self._login_needed(user, handler, "outage")

    async def _still_allowed(self, model: dict[str, Any]) -> bool:
        # Neither JupyterHub nor oauthenticator asks again after the login.
        if not self.check_blocked_users(model["name"], model):
            return False
        return bool(self.allow_all or await self.check_allowed(model["name"], model))

    async def _fresh_model(self, auth_state: dict[str, Any]) -> dict[str, Any]:
        tokens = auth_state.get("token_response") or {}
        refresh_token = auth_state.get("refresh_token")
        expires_at = tokens.get("expires_at")
        due = isinstance(expires_at, (int, float)) and expires_at - time.time() < self.renew_before
        if not (due and refresh_token):
            try:
                return await self._model_of(tokens, auth_state)
            except ProviderError as error:
                if error.unavailable or not refresh_token:
                    raise
        return await self._renewed(str(refresh_token), auth_state)

    async def _renewed(self, refresh_token: str, auth_state: dict[str, Any]) -> dict[str, Any]:
        """Spend a refresh token, once.

        Guards a race: LS Login may rotate refresh tokens, and using one twice can revoke the whole login. Requests of
        one user come in parallel, and the new token reaches the database only after this returns.
        """
        key = _digest(refresh_token)
        renewal = self._renewals.get(key)
        if renewal is None:
            renewal = self._renewals[key] = self.in_background(self._spend(refresh_token))
            while len(self._renewals) > _RENEWALS_KEPT:
                del self._renewals[next(iter(self._renewals))]
        try:
            tokens = await asyncio.shield(renewal)
            spent = tokens["refresh_token"] != refresh_token
        except ProviderError as error:
            spent = not (error.unavailable or error.registration)
            raise
        except BaseException:
            spent = not renewal.done()
            raise
        finally:
            if not spent and self._renewals.get(key) is renewal:
                del self._renewals[key]
        return await self._model_of(dict(tokens), auth_state)

    async def _spend(self, refresh_token: str) -> dict[str, Any]:
        tokens: dict[str, Any] = await self.get_token_info(
            None, self.build_refresh_token_request_params(refresh_token)
        )
        tokens.setdefault("refresh_token", refresh_token)
        self.log.debug("A refresh token gave a new access token")
        return tokens

    async def _model_of(self, tokens: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
        # An answer to a refresh need not repeat the ID token; the logout needs it.
        if before.get("id_token"):
            tokens = {"id_token": before["id_token"], **tokens}
        model: dict[str, Any] = await self._token_to_auth_model(tokens)
        return model

    def remember(self, name: str, auth_state: dict[str, Any]) -> None:
        """Note a user's display name for the hub's pages."""
        raise NotImplementedError

    async def forget(self, user: Any) -> dict[str, Any]:
        """Take a user's tokens out of the database, have them revoked, and return the auth state as it was.

        Who the user is, and the groups, stay: the user's running servers go on.
        """
        auth_state: dict[str, Any] = {}
        try:
            while auth_state := await user.get_auth_state() or {}:
                keep = {
                    key: auth_state[key] for key in ("account", "oauth_user", "scope") if key in auth_state
                }
                # What was renewed in this moment is to be revoked as well.
                if await replaced(user, auth_state, keep):
                    break
        except Exception:
            # A logout must not fail because of a database or a lost key.
            self.log.exception("The tokens of %s could not be removed at logout", user.name)
            auth_state = {}
        self.revoke(user.name, auth_state)
        # What it was renewed to may be on its way into the database yet, in JupyterHub's hands.
        if renewal := self._renewals.get(_digest(str(auth_state.get("refresh_token") or ""))):
            self.in_background(self._revoke_renewed(user.name, renewal, auth_state))
        return auth_state

    async def _revoke_renewed(
        self, name: str, renewal: asyncio.Task[dict[str, Any]], but: dict[str, Any]
    ) -> None:
        with contextlib.suppress(ProviderError):
            self.revoke(name, await asyncio.shield(renewal), but)

    def revoke(self, name: str, auth_state: dict[str, Any], but: dict[str, Any] | None = None) -> None:
        """Have tokens revoked, in the background.

        Args:
            name: whose.
            auth_state: holds them.
            but: holds those that were revoked already.
        """
        if self.revoke_on_logout and self.revocation_url:
            for kind in ("refresh_token", "access_token"):
                if (token := auth_state.get(kind)) and token != (but or {}).get(kind):
                    self.in_background(self._revoke(name, kind, token))

    async def _revoke(self, name: str, kind: str, token: str) -> None:
        params = {"token": token, "token_type_hint": kind}
        if not self.basic_auth:
            params |= {"client_id": self.client_id, "client_secret": self.client_secret}
        try:
            await self.httpfetch(
                self.revocation_url,
                "revoking a token",
                parse_json=False,
                method="POST",
                headers=self.build_token_info_request_headers(),
                body=urlencode(params).encode(),
                validate_cert=self.validate_server_cert,
            )
        except ProviderError as error:
            self.log.info(
                "The %s of %s was not revoked; it ends by itself: %s", kind.replace("_", " "), name, error
            )

    def provider_logout_url(self, handler: Any, id_token: object) -> str:
        """Return the address that logs the browser out of LS Login and back to the hub, or "" if there is none."""
        if not self.end_session_url:
            return ""
        params = {
            "client_id": self.client_id,
            "post_logout_redirect_uri": self._after_logout(handler),
            "state": "left",
        }
        if isinstance(id_token, str) and id_token and len(id_token) <= _MAX_HINT_LENGTH:
            params["id_token_hint"] = id_token
        return str(url_concat(self.end_session_url, params))

    def _after_logout(self, handler: Any) -> str:
        if self.post_logout_redirect_url:
            return str(self.post_logout_redirect_url)
        callback: str = self.get_callback_url(handler)
        return f"{callback.rpartition('/')[0]}/logout"


def _digest(token: str) -> str:
    """Names a token without giving it away."""
    return hashlib.sha256(token.encode()).hexdigest()
