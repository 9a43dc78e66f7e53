"""The settings of the LS Login authenticator: every trait, its default and what is checked of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.crypto import CryptKeeper
from oauthenticator.generic import GenericOAuthenticator
from traitlets import Bool, Enum, Float, Integer, Set, TraitError, Unicode, Union, default, validate
from traitlets import Callable as CallableTrait

from .entitlements import ROLE_MODES, GroupPolicy

VISA_SCOPE = "ga4gh_passport_v1"
# Claims that the person can change, so that another person could take them over.
_USER_CHOSEN = ("preferred_username", "name", "nickname", "email", "given_name")


class LSLoginSettings(GenericOAuthenticator):  # type: ignore[misc]
    """Traits only; see cytomine_spawner.lslogin.LSLoginAuthenticator."""

    scope: Any  # the base's trait, which mypy cannot see

    issuer = Unicode(
        "https://login.aai.lifescience-ri.eu/oidc/",
        config=True,
        help="""Issuer address of LS Login, as the browser reaches it. The slash at its end is part of it.

        The addresses of the endpoints follow from it, unless they are set on their own.
        """,
    )
    internal_issuer = Unicode(
        "",
        config=True,
        help="""The issuer's address as the hub itself reaches it, when that is another one than the browser's
        (a provider inside the cluster, for example). Used for tokens, userinfo, revocation and discovery.
        """,
    )
    end_session_url = Unicode(
        config=True,
        help="Where the browser is sent to log out of LS Login. Default: `endsession` below the issuer. "
        "Empty: no logout there.",
    )
    revocation_url = Unicode(
        config=True,
        help="Where tokens are revoked at logout. Default: `revoke` below the (internal) issuer. Empty: no revocation.",
    )
    client_secret_file = Unicode(
        "",
        config=True,
        help="""File that holds the client secret, and nothing else; white space around it is ignored.
        Read once, at start. Without it the secret comes from `client_secret` or `OAUTH_CLIENT_SECRET`.
        """,
    )
    username_claim = Union(
        [Unicode(), CallableTrait()],
        default_value="sub",
        config=True,
        help="""The claim that names the hub's user. `sub` (`<40 hex digits>@lifescience-ri.eu`) never changes and is
        never given to another person. Claims that people choose for themselves are refused: they can be
        given up, and then belong to somebody else.
        """,
    )
    request_timeout = Float(10.0, config=True, help="Seconds that LS Login has for each answer to the hub.")
    discovery_timeout = Float(5.0, config=True, help="Seconds that LS Login has for its discovery document.")
    check_before_login = Bool(
        True,
        config=True,
        help="""Ask LS Login for its discovery document before the browser is sent there (at most once a minute), so
        that an outage gives a page that says what to do.
        """,
    )

    group_namespace = Unicode(
        "urn:geant:lifescience-ri.eu:group",
        config=True,
        help="What the entitlements of groups begin with (AARC-G069). Entitlements of other namespaces are ignored.",
    )
    group_authorities = Set(
        Unicode(),
        default_value={"aai.lifescience-ri.eu"},
        config=True,
        help="""Who may vouch for a membership: what follows `#` in an entitlement. Others are ignored.
        The empty string stands for entitlements without an authority.
        """,
    )
    group_prefix = Unicode(
        "lifescience:communities_and_projects",
        config=True,
        help="""Path of the group below which the hub's groups lie; it is left out of their short names, so that
        `lifescience:communities_and_projects:cytomine:users` becomes `cytomine:users`. Groups elsewhere do not
        count, and neither does the group of the prefix itself: choose the prefix one level above it.
        Percent-encoded as in the entitlements. Empty: all groups, with their full path.
        """,
    )
    group_roles = Enum(
        ROLE_MODES,
        default_value="suffix",
        config=True,
        help="""What becomes of `role=` in an entitlement: `suffix` makes it part of the short name
        (`cytomine:users:role=manager`), `drop` counts it as a membership of the group, `ignore` ignores it.
        """,
    )
    keep_other_groups = Bool(
        False,
        config=True,
        help="Keep groups outside `group_prefix` as well. Their names are the full path with `:` in front.",
    )
    max_groups = Integer(
        200,
        min=1,
        config=True,
        help="Most groups kept for one person; those that grant access are kept first.",
    )

    keep_visas = Bool(
        False,
        config=True,
        help="""Ask for the scope `ga4gh_passport_v1` and keep the person's GA4GH visas, encrypted, as
        `auth_state["visas"]`. Never logged. Without it visas are dropped even if LS Login sends them.
        """,
    )
    archive_tokens = Bool(
        False,
        config=True,
        help="""Give a user's own servers the user's access token for the Bigpicture archive: the file system `sda://` asks
        the hub for it. Asks LS Login for the scope `ga4gh_passport_v1`, with which the archive reads the user's visas.

        Who may have it is decided by the scope `custom:cytomine-archive:token`: define it in `JupyterHub.custom_scopes`,
        and add it to the role `user` and to `Spawner.server_token_scopes`. Needs `enable_auth_state`.
        """,
    )
    archive_tokens_per_minute = Integer(
        120,
        min=1,
        config=True,
        help="How often a user's programs may ask for the access token in a minute.",
    )
    outage_grace = Integer(
        12 * 3600,
        min=0,
        config=True,
        help="""Seconds that a person stays logged in, with the groups last seen, while LS Login does not answer,
        counted from its last answer about that person.
        """,
    )
    renew_before = Integer(
        600,
        min=0,
        config=True,
        help="""Seconds before its end at which an access token is renewed, so that what uses it in a notebook finds
        a valid one. Needs refresh tokens ("Issue refresh tokens for this client" at LS Login).
        """,
    )
    logout_at_provider = Bool(
        True, config=True, help="Log the person out of LS Login, too, when they leave the hub."
    )
    revoke_on_logout = Bool(
        True,
        config=True,
        help="Revoke the person's tokens at LS Login when they leave the hub, if it answers.",
    )
    post_logout_redirect_url = Unicode(
        "",
        config=True,
        help="""Where LS Login sends the browser after the logout; must be registered there.
        Default: the hub's own page, `https://<hub>/hub/logout`.
        """,
    )

    test_environment = Bool(
        False,
        config=True,
        help="""Set while the hub's registration at LS Login is in its test phase: only members of the test
        community may log in then, and the login page tells people so.
        """,
    )
    signup_url = Unicode(
        "https://signup.aai.lifescience-ri.eu/fed/registrar?vo=lifescience_test",
        config=True,
        help="Where people ask for membership of LS Login's test environment.",
    )
    contact = Unicode(
        "",
        config=True,
        help="Whom people ask about this hub: an e-mail address, a web address or plain words. On all pages of trouble.",
    )
    access_help = Unicode(
        "",
        config=True,
        help="Plain text on the page for people without access: how to get into the right group.",
    )
    access_url = Unicode("", config=True, help="Web address where people can apply for access to this hub.")
    provider_support = Unicode(
        "support@aai.lifescience-ri.eu", config=True, help="Whom people ask about LS Login itself."
    )

    @default("login_service")
    def _login_service_default(self) -> str:
        return os.environ.get("LOGIN_SERVICE", "LS Login")

    @default("scope")
    def _scope_default(self) -> list[str]:
        return ["openid", "profile", "email", "eduperson_entitlement", "offline_access"]

    @default("manage_groups")
    def _manage_groups_default(self) -> bool:
        return True

    @default("enable_auth_state")
    def _enable_auth_state_default(self) -> bool:
        return bool(CryptKeeper.instance().keys)

    @default("basic_auth")
    def _basic_auth_default(self) -> bool:
        return os.environ.get("OAUTH2_BASIC_AUTH", "true").lower() in {"true", "1"}

    @default("authorize_url")
    def _authorize_url_default(self) -> str:
        return os.environ.get("OAUTH2_AUTHORIZE_URL") or self.endpoint("authorize", front=True)

    @default("token_url")
    def _token_url_default(self) -> str:
        return os.environ.get("OAUTH2_TOKEN_URL") or self.endpoint("token")

    @default("userdata_url")
    def _userdata_url_default(self) -> str:
        return os.environ.get("OAUTH2_USERDATA_URL") or self.endpoint("userinfo")

    @default("end_session_url")
    def _end_session_url_default(self) -> str:
        return self.endpoint("endsession", front=True)

    @default("revocation_url")
    def _revocation_url_default(self) -> str:
        return self.endpoint("revoke")

    def _client_secret_default(self) -> str:
        if not self.client_secret_file:
            return os.environ.get("OAUTH_CLIENT_SECRET", "")
        try:
            secret = Path(self.client_secret_file).read_text("utf-8").strip()
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise TraitError(f"LSLoginAuthenticator.client_secret_file cannot be read: {reason}") from None
        if not secret:
            raise TraitError("LSLoginAuthenticator.client_secret_file is empty; put the client secret in it")
        return secret

    @default("custom_html")
    def _custom_html_default(self) -> str:
        if not self.test_environment:
            return ""
        page = Path(__file__).parents[1] / "templates" / "lslogin_test_environment.html"
        return page.read_text("utf-8")

    @validate("issuer", "internal_issuer")
    def _check_address(self, proposal: Any) -> Any:
        parts = urlsplit(proposal.value)
        if proposal.value and (parts.scheme not in {"http", "https"} or not parts.netloc or parts.query):
            raise TraitError(
                f"LSLoginAuthenticator.{proposal.trait.name} is {proposal.value!r}; "
                "it must be a web address such as https://login.aai.lifescience-ri.eu/oidc/"
            )
        return proposal.value

    @validate("username_claim")
    def _check_username_claim(self, proposal: Any) -> Any:
        if proposal.value in _USER_CHOSEN:
            raise TraitError(
                f"LSLoginAuthenticator.username_claim is {proposal.value!r}, which people choose for themselves and "
                "another person can take over; use 'sub'"
            )
        return proposal.value

    @validate("group_prefix")
    def _check_group_prefix(self, proposal: Any) -> Any:
        try:
            GroupPolicy(prefix=proposal.value)
        except ValueError as error:
            raise TraitError(f"LSLoginAuthenticator.group_prefix: {error}") from None
        return proposal.value

    @validate("scope")
    def _check_scope(self, proposal: Any) -> Any:
        missing = [scope for scope in ("openid",) if scope not in proposal.value]
        if missing:
            raise TraitError(
                "LSLoginAuthenticator.scope must hold 'openid', or LS Login tells nothing about the person"
            )
        return proposal.value

    def endpoint(self, name: str, front: bool = False) -> str:
        """Return the address of an endpoint below the issuer: the browser's (front) or the hub's own."""
        base = self.issuer if front or not self.internal_issuer else self.internal_issuer
        return f"{base.rstrip('/')}/{name}"

    def group_policy(self) -> GroupPolicy:
        """Return what decides which memberships count."""
        return GroupPolicy(
            namespace=self.group_namespace,
            authorities=frozenset(self.group_authorities),
            prefix=self.group_prefix,
            keep_others=self.keep_other_groups,
            roles=self.group_roles,
            max_groups=self.max_groups,
        )
