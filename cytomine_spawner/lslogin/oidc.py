"""Talking with LS Login over its back channel: errors that give no secret away, and the discovery document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import jwt
from tornado.httpclient import HTTPClientError, HTTPRequest

_ERROR_CODE = re.compile(r"[a-z_]{1,60}")
_TOKEN_LIKE = re.compile(r"[A-Za-z0-9_\-.~+/=]{20,}")
UNUSABLE = "unusable_answer"  # our own code: LS Login answered, but not in the agreed form
# What says that the hub's registration is wrong, not the person's login.
REGISTRATION_ERRORS = frozenset(
    {
        "invalid_client",
        "unauthorized_client",
        "invalid_scope",
        "invalid_request",
        "unsupported_response_type",
        "unsupported_grant_type",
        "invalid_redirect_uri",
        "redirect_uri_mismatch",
    }
)


class ProviderError(HTTPClientError):
    """LS Login refused, did not answer, or answered what nobody can use.

    Holds neither the response nor any value of the request, so that it can be logged as it is.

    Attributes:
        code: HTTP status, or 599 when there was no answer.
        error: OAuth's error code, such as ``invalid_grant``, or UNUSABLE, or "".
    """

    def __init__(self, code: int, message: str, error: str = "") -> None:
        super().__init__(code, message)
        self.error = error

    @property
    def unavailable(self) -> bool:
        """Whether LS Login is down or overloaded, rather than saying no."""
        return self.code >= 500 or self.code in {408, 429}

    @property
    def registration(self) -> bool:
        """Whether LS Login refuses the hub itself, whoever logs in."""
        return self.error in REGISTRATION_ERRORS

    def __str__(self) -> str:
        return str(self.message)


def bare(url: str) -> str:
    """Return the URL without user, query and fragment, fit for a log."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def provider_error(request: HTTPRequest, cause: Exception, secrets: Iterable[str] = ()) -> ProviderError:
    """Make an error that says what happened from whatever the HTTP client raised."""
    where = f"{request.method} {bare(request.url)}"
    if not isinstance(cause, HTTPClientError):
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else type(cause).__name__
        return ProviderError(599, f"{where}: no connection ({reason})")
    if cause.code == 599:
        # The client's own texts for a time-out or a cut connection hold no value of the request.
        return ProviderError(599, f"{where}: no answer ({cause.message})")
    error, description = _oauth_error(cause, request, secrets)
    told = f" ({error}{': ' if error and description else ''}{description})" if error or description else ""
    return ProviderError(cause.code, f"{where}: answered {cause.code}{told}", error)


def _oauth_error(cause: HTTPClientError, request: HTTPRequest, secrets: Iterable[str]) -> tuple[str, str]:
    body = cause.response.body if cause.response is not None else b""
    try:
        answer = json.loads(body)
    except ValueError:
        return "", ""
    if not isinstance(answer, dict):
        return "", ""
    description = answer.get("error_description")
    return (
        error_code(answer.get("error")),
        redacted(description, [*secrets, *_sent(request)]) if isinstance(description, str) else "",
    )


def _sent(request: HTTPRequest) -> list[str]:
    """Every value of the request that a provider could echo."""
    body = request.body.decode("utf-8", "replace") if isinstance(request.body, bytes) else ""
    values = [value for _, value in parse_qsl(body) + parse_qsl(urlsplit(request.url).query)]
    values += str(request.headers.get("Authorization", "")).split()
    return values


def error_code(text: object) -> str:
    """Return OAuth's error code, or "" if the text is none."""
    return text if isinstance(text, str) and _ERROR_CODE.fullmatch(text) else ""


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Return the text on one line of at most 200 characters, without the secrets and what looks like a token."""
    for secret in sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True):
        text = text.replace(secret, "[hidden]")
    text = _TOKEN_LIKE.sub("[hidden]", text)
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:200]


def subject(id_token: object) -> str | None:
    """Return the ``sub`` of an ID token, or None if there is no readable one.

    The signature is not checked: the token came straight from the token endpoint (OpenID Connect Core, 3.1.3.7).
    """
    if not isinstance(id_token, str):
        return None
    try:
        sub = jwt.decode(id_token, options={"verify_signature": False}).get("sub")
    except jwt.PyJWTError:
        return None
    return sub if isinstance(sub, str) else None


def drift(document: object, expected: Mapping[str, Iterable[str]], scopes: Iterable[str]) -> list[str]:
    """Compare a discovery document with what is configured.

    Args:
        document: the decoded discovery document.
        expected: for each field the values that are fine.
        scopes: the scopes that the hub asks for.

    Returns:
        One sentence for each difference.
    """
    if not isinstance(document, dict):
        return ["the discovery document is not a JSON object"]
    found = []
    for name, fine in expected.items():
        fine = [value for value in fine if value]
        value = document.get(name)
        if fine and value not in fine:
            said = "is missing" if value is None else f"is {_short(value)}"
            found.append(f"{name} {said} in the discovery document, but {fine[0]} is configured")
    offered = document.get("scopes_supported")
    if isinstance(offered, list):
        found += [
            f"the scope {scope} is asked for but not offered" for scope in scopes if scope not in offered
        ]
    methods = document.get("code_challenge_methods_supported")
    if isinstance(methods, list) and "S256" not in methods:
        found.append("code_challenge_methods_supported lacks S256, which the hub uses")
    return found


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return bare(text)[:200] if isinstance(value, str) and "://" in text else repr(text[:200])
