"""The Bigpicture archive: users read it from their notebooks, and choose datasets of it for their stacks."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from cytomine_spawner.lslogin.token import IMPORT_SCOPE, SCOPE
from parts import stacks
from parts.values import Problem, Values

CUSTOM_SCOPES = {
    SCOPE: {"description": "Get your LS Login token, to read the archive with your visas."},
    IMPORT_SCOPE: {"description": "Get the LS Login tokens of users who chose datasets of the archive."},
}
# The server's own, where nothing else was set.
SERVER_SCOPES = ["users:activity!user", "access:servers!server"]


def enabled(values: Values) -> bool:
    """Whether there is an archive."""
    return values.get("archive.enabled", bool, False)


def configure(c: Any, values: Values) -> None:
    """Let servers have their users' tokens, and the options the datasets that are granted; comes after the stacks."""
    if not enabled(values):
        return
    if values.get("authentication.type", str, "lslogin") != "lslogin":
        raise Problem(
            "the value archive.enabled is true, but the archive is opened with tokens of LS Login; set authentication.type "
            "to lslogin, or archive.enabled to false."
        )
    url = values.need("archive.url", str, "give the archive's address, such as https://download.bp.nbis.se")
    insecure = values.get("archive.allowHttp", bool, False)
    if urlsplit(url).scheme != "https" and not insecure:
        raise Problem(
            f"the value archive.url is {url}, where users' tokens would travel unencrypted; give an address that begins with "
            "https://, or set archive.allowHttp for a trial within the cluster."
        )
    c.LSLoginAuthenticator.archive_tokens = True
    spawner = c.CytomineSpawner
    spawner.archive_url = url
    spawner.archive_allow_http = insecure
    spawner.archive_issuer = values.get("lslogin.issuer", str, "")
    spawner.archive_timeout = float(values.get("archive.timeout", int, 5))
    spawner.archive_cache = values.get("archive.cache", int, 60)
    c.JupyterHub.custom_scopes = {**c.JupyterHub.get("custom_scopes", {}), **CUSTOM_SCOPES}
    c.Spawner.server_token_scopes = [*(c.Spawner.get("server_token_scopes") or SERVER_SCOPES), SCOPE]


def roles(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The roles with what users and the service of stacks need: a server's token has no more than its user."""
    service = next((role for role in given if role["name"] == stacks.SERVICE), None)
    if service is not None:
        service["scopes"] = [*service["scopes"], IMPORT_SCOPE]
    user = next((role for role in given if role["name"] == "user"), None)
    if user is None:
        return [*given, {"name": "user", "scopes": ["self", SCOPE]}]
    user["scopes"] = [*user.get("scopes", ["self"]), SCOPE]
    return given
