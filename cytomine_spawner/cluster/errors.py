"""What the client of the API server raises, as the store's errors with a sentence for people."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from kubernetes_asyncio.client import ApiException

from ..common.redact import by_looks
from .store import Conflict, Denied, Invalid, NotFound, StoreError, Unavailable

MESSAGE_SECONDS = 10
NO_ANSWER = "The cluster does not answer at the moment; nothing was changed. Try again in a minute."


@asynccontextmanager
async def errors(*, ends: bool = False) -> AsyncIterator[None]:
    """Turn what the client raises into the store's errors.

    Args:
        ends: whether running out of time is a usual end and no error.
    """
    try:
        yield
    except ApiException as error:
        raise error_of(error.status, status_message(error.body) or str(error.reason)) from error
    except asyncio.TimeoutError as error:
        if not ends:
            raise Unavailable(NO_ANSWER) from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(NO_ANSWER) from error


def error_of(status: int, message: str) -> StoreError:
    """The error of an answer that is none. The API server repeats values that it refuses: credentials go."""
    message = by_looks(message)
    if status == 404:
        return NotFound("There is no such stack any more.")
    if status == 409:
        return Conflict("The stack changed at the same moment; look at it and try again.")
    if status in (400, 422):
        return Invalid(f"The cluster refuses the change: {message}")
    if status in (401, 403):
        return Denied(
            f"The service may not do this in the cluster; an administrator has to allow it: {message}"
        )
    return Unavailable(f"{NO_ANSWER} (It said {status}: {message})" if status else NO_ANSWER)


def log_error(status: int, message: str) -> StoreError:
    """The same for a log."""
    if status in (400, 404):
        return NotFound(
            f"There is no log to read yet: {by_looks(message) or 'the container has not started'}."
        )
    return error_of(status, message)


async def message(response: aiohttp.ClientResponse) -> str:
    """What an answer says; empty if it breaks off."""
    try:
        return status_message(await asyncio.wait_for(response.text(), MESSAGE_SECONDS))
    except (aiohttp.ClientError, asyncio.TimeoutError, UnicodeDecodeError):
        return ""


def status_message(body: str | bytes | None) -> str:
    """The message of a Kubernetes Status object, or the text itself, bounded."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    try:
        return str(json.loads(text).get("message") or "")[:500]
    except (ValueError, AttributeError):
        return text[:500]
