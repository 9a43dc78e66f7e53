"""Requests to Cytomine with time limits, retries where they are harmless, and failures as sentences.

The official client sends its requests without a time limit and gives ``False`` for most failures.
`guard` gives its session limits and retries, also for the calls that the client itself makes; the functions
here raise `RequestFailed`. The client's cache of answers is switched off: lists would be stale, and tiles would
fill the memory.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import threading
import time
from typing import Any

import requests
from cytomine import Cytomine
from cytomine.cytomine import CytomineAuth
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError

from .errors import CytomineError, CytomineUnreachable

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 90.0
RETRIES = 5
BUSY = (429, 502, 503, 504)
# How core says that its database ended a transaction in favour of another.
GAVE_WAY = (b"deadlock detected", b"OptimisticLockException")
GAVE_WAY_STATUS = (400, 409, 500)
# A slide can end a worker of the image server, and with it the pictures that others wait for: core says 500. Another worker
# may answer, but what ends one shall not end many.
PICTURES = re.compile(
    r"/api/(imageinstance|abstractimage|sliceinstance|abstractslice|annotation|userannotation|reviewedannotation)/[^/]+/"
    r"(normalized-tile/|window-|camera-|(thumb|preview|crop|mask|alphamask)[.])"
)
PICTURE_TRIES = 3
OF_ANNOTATIONS = re.compile(r"/api/(user|reviewed)?annotation/")
_LOCK = threading.Lock()


class RequestFailed(CytomineError):
    """Cytomine refused a request, or its answer did not come.

    Attributes:
        status: the HTTP status; None where no answer came.
        uncertain: whether Cytomine may have carried the request out all the same, or a part of it.
        gave_way: whether Cytomine took the request back because others changed the same at that moment.
    """

    def __init__(
        self, sentence: str, status: int | None = None, uncertain: bool = False, gave_way: bool = False
    ) -> None:
        super().__init__(sentence)
        self.status, self.uncertain, self.gave_way = status, uncertain, gave_way


class _Guarded(HTTPAdapter):  # type: ignore[misc]
    """Sends with a time limit; repeats what reads, what certainly did not arrive, and what was taken back."""

    def __init__(self, timeout: tuple[float, float], retries: int, pool: int) -> None:
        self.timeout, self.retries = timeout, retries
        self._deleting = threading.Lock()
        super().__init__(pool_connections=4, pool_maxsize=pool)

    def send(
        self, request: requests.PreparedRequest, stream: bool = False, timeout: Any = None, **options: Any
    ) -> requests.Response:
        # Deleting an annotation with terms shares the project's row and then wants it alone: of two at the same time the
        # database ends one.
        alone = request.method == "DELETE" and OF_ANNOTATIONS.search(str(request.url))
        with self._deleting if alone else contextlib.nullcontext():
            return self._insist(request, stream, timeout or self.timeout, **options)

    def _insist(
        self, request: requests.PreparedRequest, stream: bool, timeout: Any, **options: Any
    ) -> requests.Response:
        reads = request.method in ("GET", "HEAD")
        # Of a list in a POST a part may be stored; a body that was read once cannot be sent again.
        whole = request.method != "POST" and isinstance(request.body, (bytes, str, type(None)))
        is_picture = reads and PICTURES.search(str(request.url)) is not None
        for attempt in range(self.retries + 1):
            last = attempt == self.retries
            try:
                answer = super().send(request, stream=stream, timeout=timeout, **options)
                if not stream:
                    _ = answer.content  # an answer that is cut short shows only when it is read
            except (
                requests.ConnectionError,
                requests.Timeout,
                requests.exceptions.ChunkedEncodingError,
            ) as e:
                if last or not (reads or never_arrived(e)):
                    raise
            else:
                busy = reads and (
                    answer.status_code in BUSY
                    or (answer.status_code == 500 and attempt < PICTURE_TRIES - 1 and is_picture)
                )
                if last or not (busy or (whole and not stream and gave_way(answer))):
                    return answer
                answer.close()
            _pause(attempt)
        raise AssertionError("unreachable")


def _pause(attempt: int) -> None:
    time.sleep(min(8.0, 0.2 * 2**attempt) * random.uniform(0.7, 1.3))  # noqa: S311 - no secret


def gave_way(answer: requests.Response) -> bool:
    """Whether Cytomine took a request back because others changed the same at that moment; reads the answer."""
    return answer.status_code in GAVE_WAY_STATUS and any(mark in answer.content for mark in GAVE_WAY)


def never_arrived(error: BaseException) -> bool:
    """Whether a failed request cannot have reached Cytomine: no connection was made."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, NewConnectionError)


def guard(
    client: Cytomine,
    *,
    connect_timeout: float = CONNECT_TIMEOUT,
    read_timeout: float = READ_TIMEOUT,
    retries: int = RETRIES,
    pool: int = 32,
) -> Cytomine:
    """Give every request of a client a time limit, and repeat those that are safe to repeat.

    Reading calls (GET) are repeated after a cut connection, a time-out or the statuses 429, 502, 503 and 504, those
    for pictures twice after 500, too;
    others only where no connection was made. What Cytomine took back because others changed the same project at that
    moment is repeated, too, but for POST. Annotations are deleted one at a time, however many threads ask for it.
    Calling it again with other values replaces the earlier ones.

    Args:
        client: the official client.
        connect_timeout: seconds for the connection.
        read_timeout: seconds between two pieces of the answer.
        retries: how often a request is repeated, with growing pauses (0.2 s to 8 s).
        pool: connections that are kept open at most.

    Returns:
        The same client.
    """
    adapter = _Guarded((connect_timeout, read_timeout), retries, pool)
    for scheme in ("http://", "https://"):
        client._session.mount(scheme, adapter)
    return client


def current(client: Cytomine | None = None) -> Cytomine:
    """The client given, or the one that the notebook connected; guarded.

    Raises:
        CytomineError: nothing is connected.
    """
    if client is None:
        try:
            client = Cytomine.get_instance()
        except ConnectionError:
            raise CytomineError("There is no connection to Cytomine: call connect() first.") from None
    with _LOCK:
        if not isinstance(client._session.get_adapter("https://"), _Guarded):
            guard(client)
    return client


def said(answer: requests.Response) -> str:
    """What Cytomine said about a failure: it has three forms of it, and pages in HTML."""
    try:
        body = answer.json()
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    errors = body.get("errors") or body.get("detail") or body.get("message") or ""
    if isinstance(errors, dict):
        errors = errors.get("message", "")
    return " ".join(str(errors).split())[:300]


def call(
    method: str,
    uri: str,
    *,
    params: dict[str, Any] | None = None,
    body: Any = None,
    client: Cytomine | None = None,
    stream: bool = False,
    accept: str = "application/json, */*",
    whole: bool = False,
) -> requests.Response:
    """One signed request below ``/api/``.

    Args:
        method: GET, POST, PUT or DELETE.
        uri: the path below ``/api/``.
        params: the query.
        body: sent as JSON.
        client: the official client; the connected one if not given.
        stream: leave the answer's body to the caller.
        accept: the header of that name.
        whole: that Cytomine does all of it or nothing: then a POST that it took back is repeated, too.

    Returns:
        The answer, whose status is 200.

    Raises:
        RequestFailed: Cytomine answered something else, or not at all after the request was sent.
        CytomineUnreachable: no connection could be made.
    """
    api = current(client)
    content_type = None if method == "GET" else "application/json"
    what = f"{method} {uri}"
    try:
        for attempt in range(RETRIES):
            answer = api._session.request(
                method,
                f"{api._base_url()}{uri}",
                params=params,
                data=None if body is None else json.dumps(body),
                headers=api._headers(accept=accept, content_type=content_type),
                auth=CytomineAuth(api._public_key, api._private_key, api._base_url(), api._base_path),
                allow_redirects=False,
                stream=stream,
            )
            if not whole or attempt == RETRIES - 1 or not gave_way(answer):
                break
            answer.close()
            _pause(attempt)
    except requests.RequestException as error:
        if never_arrived(error):
            raise CytomineUnreachable(
                f"Cytomine at {api.host} cannot be reached: see whether the stack is running, then connect() again."
            ) from error
        kind = "did not answer in time" if isinstance(error, requests.Timeout) else "was cut off"
        raise RequestFailed(
            f"{what} {kind}: see whether the stack is running, then try again.", uncertain=True
        ) from error
    if answer.status_code == 200:
        return answer
    status = answer.status_code
    if gave_way(answer):
        answer.close()
        raise RequestFailed(
            f"Cytomine took {what} back ({status}): others were changing the same project at that moment: try again.",
            status=status,
            uncertain=method == "POST" and not whole,
            gave_way=True,
        )
    reason = said(answer)
    answer.close()
    cure = {
        401: "Cytomine does not accept the keys: connect() again.",
        403: "your role in the project does not allow it: ask a manager of the project.",
        404: "it is not there, or no longer: look it up again.",
    }.get(status, "see the log of the stack's core on its page." if status >= 500 else "")
    raise RequestFailed(
        f"Cytomine refused {what} with {status}{': ' + reason if reason else ''}{'; ' + cure if cure else ''}",
        status=status,
        uncertain=status in (502, 504),
    )


def get_json(uri: str, params: dict[str, Any] | None = None, client: Cytomine | None = None) -> Any:
    """The JSON of a reading call; raises as `call`."""
    return call("GET", uri, params=params, client=client).json()


def get_bytes(
    uri: str, params: dict[str, Any] | None = None, client: Cytomine | None = None, accept: str = "*/*"
) -> bytes:
    """The bytes of a reading call; raises as `call`."""
    return bytes(call("GET", uri, params=params, client=client, accept=accept).content)
