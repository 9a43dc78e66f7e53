"""Who may come in."""

from __future__ import annotations

from typing import Any

from parts.values import Problem, Values


def configure(c: Any, values: Values) -> None:
    """Set up LS Login, or leave all to the administrator's own configuration."""
    c.Authenticator.enable_auth_state = True
    kind = values.get("authentication.type", str, "lslogin")
    admins = values.get("authentication.adminUsers", list, [])
    if admins:
        c.Authenticator.admin_users = {str(name) for name in admins}
    if kind == "lslogin":
        _lslogin(c, values)
    elif kind == "custom":
        # Logins by LTI and SAML come as forms of other sites.
        c.GuardedHub.foreign_forms = True
    else:
        raise Problem(f"the value authentication.type is {kind!r}; it must be lslogin or custom.")


def _lslogin(c: Any, values: Values) -> None:
    login = c.LSLoginAuthenticator
    c.JupyterHub.authenticator_class = "cytomine_spawner.lslogin.LSLoginAuthenticator"
    login.client_id = values.need(
        "lslogin.clientId", str, "register the hub with LS Login and set what it gives you"
    )
    # Read here only so that its absence is said now, not at the first login.
    values.secret("oidc-client-secret", "the client secret of LS Login")
    login.client_secret_file = str(values.secret_file("oidc-client-secret"))
    for trait, path in {
        "issuer": "lslogin.issuer",
        "internal_issuer": "lslogin.internalIssuer",
        "group_prefix": "lslogin.groupPrefix",
        "contact": "lslogin.contact",
        "oauth_callback_url": "lslogin.callbackUrl",
    }.items():
        value = values.get(path, str, "")
        if value:
            setattr(login, trait, value)
    if not values.get("lslogin.callbackUrl", str, "") and values.get("hub.publicUrl", str, ""):
        login.oauth_callback_url = f"{c.JupyterHub.public_url}hub/oauth_callback"
    for trait, path in {
        "allowed_groups": "lslogin.allowedGroups",
        "admin_groups": "lslogin.adminGroups",
    }.items():
        groups = values.get(path, list, [])
        if groups:
            setattr(login, trait, {str(group) for group in groups})
    login.allow_all = values.get("lslogin.allowAll", bool, False)
    login.test_environment = values.get("lslogin.testEnvironment", bool, False)
