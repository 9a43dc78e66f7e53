"""The LS Login authenticator of a hub under test, and as much of the hub as it touches."""

from __future__ import annotations

import logging
import secrets
from typing import Any
from unittest.mock import Mock

from jupyterhub.crypto import CryptKeeper, decrypt, encrypt
from oauthenticator.oauth2 import _serialize_state
from tornado import web
from traitlets.config import Config

from cytomine_spawner.lslogin.authenticator import LSLoginAuthenticator
from tests.support.lsloginfake import ADA, CLIENT, SECRET, Provider

NAME = ADA["sub"]


def make(provider: Provider, **traits: Any) -> LSLoginAuthenticator:
    """The authenticator with settings that let a user in."""
    settings = {
        "issuer": provider.issuer,
        "client_id": CLIENT,
        "client_secret": SECRET,
        "oauth_callback_url": "http://hub.localhost/hub/oauth_callback",
        "enable_auth_state": True,
        "request_timeout": 20.0,
        "discovery_timeout": 20.0,
        "allowed_groups": {"cytomine:users"},
        **traits,
    }
    config = Config()
    config.LSLoginAuthenticator.update(settings)
    return LSLoginAuthenticator(config=config, log=logging.getLogger("hub"))


def arriving(provider: Provider) -> Any:
    """A request that comes back from the provider with a code."""
    verifier = "v" * 43
    provider.codes["SECRET-code"] = {
        "person": provider.person,
        "challenge": "7w_YNF9DSfIdPf_pRjSq646_kPr-2-o9NAl16JGghdM",
        "scope": "openid",
    }
    handler = Mock(spec=web.RequestHandler)
    handler.get_argument = Mock(return_value="SECRET-code")
    handler.get_state_cookie = Mock(
        return_value=_serialize_state({"state_id": "1", "code_verifier": verifier})
    )
    return handler


async def log_in(authenticator: LSLoginAuthenticator, provider: Provider) -> Any:
    """What the authenticator makes of somebody who arrives."""
    return await authenticator.get_authenticated_user(arriving(provider), None)


class User:
    """As much of the hub's user as the authenticator touches; what is kept of it is encrypted as the hub does it."""

    def __init__(self, model: dict[str, Any]) -> None:
        # Each hub has a key of its own, and these tests are none.
        if not CryptKeeper.instance().keys:
            CryptKeeper.instance().keys = [secrets.token_bytes(32)]
        self.name, self.db = model["name"], Mock()
        self.encrypted_auth_state: bytes | None = None
        self.auth_state = model["auth_state"]
        self._auth_refreshed: float | None = 1.0

    @property
    def auth_state(self) -> Any:
        kept = self.encrypted_auth_state
        return None if kept is None else CryptKeeper.instance()._decrypt(kept)

    @auth_state.setter
    def auth_state(self, found: Any) -> None:
        self.encrypted_auth_state = None if found is None else CryptKeeper.instance()._encrypt(found)

    async def get_auth_state(self) -> Any:
        kept = self.encrypted_auth_state
        return None if kept is None else await decrypt(kept)

    async def save_auth_state(self, auth_state: Any) -> None:
        self.encrypted_auth_state = None if auth_state is None else await encrypt(auth_state)


async def logged_in(provider: Provider, **traits: Any) -> tuple[LSLoginAuthenticator, User]:
    """The authenticator with a user whom it let in."""
    authenticator = make(provider, **traits)
    return authenticator, User(await log_in(authenticator, provider))
