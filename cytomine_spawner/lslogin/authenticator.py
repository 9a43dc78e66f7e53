"""LS Login (the Life Science Login) as a JupyterHub authenticator.

An administrator's whole configuration, beside the client id and the secret that LS Login gives out::

    c.JupyterHub.authenticator_class = "lslogin"
    c.LSLoginAuthenticator.allowed_groups = {"cytomine:users"}

Traits to set, all of ``c.LSLoginAuthenticator``; their help texts are the reference:

* registration: ``client_id`` (or ``OAUTH_CLIENT_ID``), ``client_secret_file``, ``client_secret`` (or
  ``OAUTH_CLIENT_SECRET``), ``oauth_callback_url``, ``post_logout_redirect_url``, ``test_environment``, ``basic_auth``
* provider: ``issuer``, ``internal_issuer``, ``authorize_url``, ``token_url``, ``userdata_url``, ``end_session_url``,
  ``revocation_url``, ``scope``, ``request_timeout``, ``discovery_timeout``, ``check_before_login``, ``login_service``
* groups: ``allowed_groups``, ``admin_groups``, ``group_prefix``, ``group_namespace``, ``group_authorities``,
  ``group_roles``, ``keep_other_groups``, ``max_groups``
* persons and sessions: ``keep_visas``, ``archive_tokens``, ``archive_tokens_per_minute``, ``outage_grace``,
  ``renew_before``, ``logout_at_provider``, ``revoke_on_logout``
* pages: ``contact``, ``access_help``, ``access_url``, ``provider_support``, ``signup_url``

Two addresses are registered at LS Login: ``https://<hub>/hub/oauth_callback`` to log in and
``https://<hub>/hub/logout`` to come back to after the logout.

With ``enable_auth_state`` (the default when JUPYTERHUB_CRYPT_KEY is set) a user's ``auth_state`` holds, encrypted:
``access_token``, ``refresh_token``, ``id_token``, ``scope``, ``token_response``, ``oauth_user`` (the userinfo claims),
``account`` (``sub``, ``display_name``, ``preferred_username``, ``name``, ``email``), ``checked_at`` (seconds since 1970
of LS Login's last word on the user) and, if asked for, ``visas`` (GA4GH visas, signed JWTs). Templates get the
variable ``person_name``.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tornado.httpclient import HTTPClientError, HTTPRequest
from traitlets import TraitError, default

from ..common.names import display_name
from .entitlements import short_names
from .oidc import UNUSABLE, ProviderError, bare, drift, provider_error, subject
from .pages import LoginProblem, LSLoginCallbackHandler, LSLoginHandler, LSLoginLogoutHandler
from .sessions import LSLoginSessions
from .settings import VISA_SCOPE
from .token import GRANTED_PATH, IMPORT_PATH, ArchiveTokenHandler, GrantedHandler, ImportTokenHandler, Tokens
from .token import PATH as TOKEN_PATH

__all__ = ["LSLoginAuthenticator", "display_name"]

VISA_CLAIM = VISA_SCOPE
GROUP_CLAIM = "eduperson_entitlement"
TEMPLATES = Path(__file__).parents[1] / "templates"
_MAX_VISAS = 200
_MAX_VISA_LENGTH = 16 * 1024


class LSLoginAuthenticator(LSLoginSessions):
    """Log in with LS Login, and take the groups from there."""

    login_handler = LSLoginHandler
    callback_handler = LSLoginCallbackHandler
    logout_handler = LSLoginLogoutHandler

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._display_names: dict[str, str] = {}
        self._probe: asyncio.Task[None] | None = None
        self._probed_until = 0.0
        self._probe_failed: ProviderError | None = None
        self.archive = Tokens(self)
        if (self.keep_visas or self.archive_tokens) and VISA_SCOPE not in self.scope:
            self.scope = [*self.scope, VISA_SCOPE]
        # Two lines of configuration are to be enough: the hub finds the templates, and they find the name, by this.
        hub = self.parent
        if hub is not None and hasattr(hub, "template_paths"):
            # After the administrator's own folders and before JupyterHub's, which it puts last by itself.
            base = hub._template_paths_default()
            own = [path for path in hub.template_paths if path not in base]
            hub.template_paths = own if str(TEMPLATES) in own else [*own, str(TEMPLATES)]
            hub.template_vars = {"person_name": self.display_name_of, **hub.template_vars}

    @default("auth_state_groups_key")
    def _auth_state_groups_key_default(self) -> Any:
        return self.groups_of

    def get_handlers(self, app: Any) -> Any:
        """Return the handlers; called once, when the hub starts."""
        self.check_registration()
        try:
            self.in_background(self.compare_discovery())
        except RuntimeError:
            self.log.debug("No event loop: the discovery document is not compared")
        handlers = super().get_handlers(app)
        own = [
            (TOKEN_PATH, ArchiveTokenHandler),
            (IMPORT_PATH, ImportTokenHandler),
            (GRANTED_PATH, GrantedHandler),
        ]
        return [*handlers, *own] if self.archive_tokens else handlers

    def check_registration(self) -> None:
        """Refuse to start a hub in which no login can work."""
        if not self.client_id:
            raise TraitError(
                "LSLoginAuthenticator.client_id is empty; register the hub at "
                f"{self.login_service} and set the client id it gives you (or OAUTH_CLIENT_ID)"
            )
        if not self.client_secret:
            self.log.warning(
                "No client secret is set: %s must know this hub as a public client", self.login_service
            )
            self.basic_auth = False
        if self.archive_tokens and not self.enable_auth_state:
            raise TraitError(
                "LSLoginAuthenticator.archive_tokens gives out tokens that the hub keeps; set JUPYTERHUB_CRYPT_KEY, with "
                "which it encrypts them, and leave enable_auth_state on"
            )

    # Talking with the provider

    async def fetch(
        self, req: HTTPRequest, label: str = "fetching", parse_json: bool = True, **kwargs: Any
    ) -> Any:
        """Send a request to the provider.

        Raises:
            ProviderError: for everything but a usable answer. oauthenticator's own logs whole answers; this does not.
        """
        try:
            response = await self.http_client.fetch(req, **kwargs)
        except (HTTPClientError, OSError) as cause:
            error = provider_error(req, cause, [self.client_secret])
        else:
            if not parse_json:
                return response
            try:
                return json.loads(response.body)
            except ValueError:
                error = ProviderError(502, f"{req.method} {bare(req.url)}: the answer is not JSON", UNUSABLE)
        # Raised outside the handlers, so that no traceback shows the client's own error, which may quote the provider.
        self.log.debug("While %s: %s", label, error)
        raise error

    async def httpfetch(
        self,
        url: str,
        label: str = "fetching",
        parse_json: bool = True,
        raise_error: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Send a request with this authenticator's time-outs; redirects are not followed, they would carry tokens."""
        for timeout in ("connect_timeout", "request_timeout"):
            if timeout not in self.http_request_kwargs:
                kwargs.setdefault(timeout, self.request_timeout)
        kwargs.setdefault("follow_redirects", False)
        return await super().httpfetch(url, label, parse_json, raise_error, **kwargs)

    async def get_token_info(self, handler: Any, params: dict[str, Any]) -> dict[str, Any]:
        """Exchange a code or a refresh token for tokens; notes when they end, as ``expires_at``."""
        del handler
        asked = time.time()
        sent = {
            key: value
            for key, value in params.items()
            if value is not None and (key, value) != ("client_secret", "")
        }
        tokens = await self.httpfetch(
            self.token_url,
            "asking for tokens",
            method="POST",
            headers=self.build_token_info_request_headers(),
            body=urlencode(sent).encode(),
            validate_cert=self.validate_server_cert,
        )
        if not (isinstance(tokens, dict) and isinstance(tokens.get("access_token"), str)):
            raise ProviderError(
                502, f"POST {bare(self.token_url)}: the answer holds no access token", UNUSABLE
            )
        if not isinstance(tokens.get("token_type"), str):
            tokens["token_type"] = "Bearer"  # noqa: S105 (a scheme, no password)
        lifetime = tokens.get("expires_in")
        if isinstance(lifetime, (int, float)) and lifetime > 0:
            tokens["expires_at"] = asked + lifetime
        return tokens

    async def token_to_user(self, token_info: dict[str, Any]) -> dict[str, Any]:
        """Ask userinfo who the person is."""
        claims = await super().token_to_user(token_info)
        where = bare(self.userdata_url)
        if not isinstance(claims, dict):
            raise ProviderError(502, f"GET {where}: the answer is not a JSON object", UNUSABLE)
        told = subject(token_info.get("id_token"))
        if told is not None and claims.get("sub") != told:
            # OpenID Connect Core 5.3.2: else a token of another person could have been slipped in.
            raise ProviderError(
                403, f"GET {where}: the answer is about another person than the ID token", UNUSABLE
            )
        return claims

    def user_info_to_username(self, user_info: dict[str, Any]) -> str:
        """Return the hub's name of the person."""
        claim = self.username_claim
        name = claim(user_info) if callable(claim) else user_info.get(claim)
        if not isinstance(name, str) or not name:
            raise ProviderError(
                502, f"GET {bare(self.userdata_url)}: the answer lacks the name's claim", UNUSABLE
            )
        return name

    async def compare_discovery(self) -> list[str]:
        """Compare LS Login's discovery document with the configuration; log and return the differences."""
        expected = {
            "issuer": [self.issuer],
            "authorization_endpoint": [self.authorize_url],
            "token_endpoint": [self.token_url, self.endpoint("token", front=True)],
            "userinfo_endpoint": [self.userdata_url, self.endpoint("userinfo", front=True)],
            "end_session_endpoint": [self.end_session_url],
            "revocation_endpoint": [self.revocation_url, self.endpoint("revoke", front=True)],
        }
        if not self.internal_issuer:
            expected = {name: urls[:1] for name, urls in expected.items()}
        try:
            document = await self._discovery()
        except ProviderError as error:
            self.log.warning(
                "%s could not be compared with its discovery document: %s", self.login_service, error
            )
            return []
        found = drift(document, expected, self.scope)
        for line in found:
            self.log.warning("%s differs from this hub's configuration: %s", self.login_service, line)
        if not found:
            self.log.info("%s is as this hub is configured (%s)", self.login_service, bare(self.issuer))
        return found

    async def _discovery(self) -> Any:
        return await self.httpfetch(
            self.endpoint(".well-known/openid-configuration"),
            "reading the discovery document",
            connect_timeout=self.discovery_timeout,
            request_timeout=self.discovery_timeout,
            validate_cert=self.validate_server_cert,
        )

    async def require_reachable(self) -> None:
        """Raise the page for an outage if LS Login does not answer; asks it once a minute at most."""
        if not self.check_before_login:
            return
        if time.monotonic() >= self._probed_until and self._probe is None:
            self._probe = self.in_background(self._probe_once())
        if self._probe is not None:
            await asyncio.shield(self._probe)
        if self._probe_failed is not None:
            raise LoginProblem("down", str(self._probe_failed))

    async def _probe_once(self) -> None:
        try:
            await self._discovery()
            self._probe_failed = None
        except ProviderError as error:
            # A discovery document that is elsewhere or odd does not stop a login.
            self._probe_failed = error if error.unavailable and error.error != UNUSABLE else None
        finally:
            self._probe = None
            self._probed_until = time.monotonic() + (2 if self._probe_failed else 60)

    # From claims to a user of the hub

    async def authenticate(self, handler: Any, data: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Log a person in; the handler learns who it was even if they may not use the hub."""
        model: dict[str, Any] = await super().authenticate(handler, data, **kwargs)
        handler.seen = model
        return model

    def build_auth_state_dict(self, token_info: dict[str, Any], user_info: dict[str, Any]) -> dict[str, Any]:
        """Return what is kept, encrypted, of a login."""
        claims = dict(user_info)
        visas = claims.pop(VISA_CLAIM, None)
        state: dict[str, Any] = super().build_auth_state_dict(token_info, claims)
        account = {
            key: claims[key] for key in ("sub", "preferred_username", "name", "email") if key in claims
        }
        state["account"] = {**account, "display_name": display_name(claims)}
        state["checked_at"] = time.time()
        if self.keep_visas:
            state["visas"] = self._kept_visas(visas)
        return state

    def _kept_visas(self, visas: object) -> list[str]:
        listed = visas if isinstance(visas, list) else []
        kept = [visa for visa in listed if isinstance(visa, str) and len(visa) <= _MAX_VISA_LENGTH][
            :_MAX_VISAS
        ]
        if len(kept) < len(listed):
            self.log.warning(
                "%d of %d visas were too many or too long and are not kept",
                len(listed) - len(kept),
                len(listed),
            )
        return kept

    def groups_of(self, auth_state: dict[str, Any]) -> set[str]:
        """Return the short names of a person's groups."""
        claims = auth_state.get(self.user_auth_state_key) or {}
        if GROUP_CLAIM not in claims:
            self.log.debug("Userinfo holds no %s: no groups, or the scope is not granted", GROUP_CLAIM)
        return short_names(
            claims.get(GROUP_CLAIM),
            self.group_policy(),
            wanted=self.allowed_groups | self.admin_groups,
            ignored=lambda value, why: self.log.debug("Entitlement %r ignored: %s", value, why),
        )

    async def update_auth_model(self, auth_model: dict[str, Any]) -> dict[str, Any]:
        """Note the display name for the hub's pages, and for JupyterLab (JupyterHub 6)."""
        self.remember(auth_model["name"], auth_model["auth_state"])
        shown = self._display_names.get(auth_model["name"])
        if shown:
            auth_model["user_info"] = {"name": shown, "display_name": shown}
        return auth_model

    def remember(self, name: str, auth_state: dict[str, Any]) -> None:
        """Note a user's display name for the hub's pages."""
        shown = display_name(auth_state)
        if shown:
            self._display_names[name] = shown

    def display_name_of(self, user: Any) -> str:
        """Return what to call a user of the hub on its pages: the display name, or the user name if it is not known."""
        name = getattr(user, "name", "") or ""
        return self._display_names.get(name, name)
