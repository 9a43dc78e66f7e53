"""From a notebook to Cytomine: find the stack, wait until it serves, get the keys, connect."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import requests
from cytomine import Cytomine
from cytomine.cytomine import CytomineAuth
from tqdm.auto import tqdm

from .connection_service import Keys, NotNow, Service, StackInfo
from .errors import (
    CytomineError,
    CytomineUnreachable,
    KeysRefused,
    NoStack,
    ServiceUnreachable,
    StackFailed,
    StackHibernated,
    StackNotReady,
)
from .transport import guard

# The first look must not keep anybody waiting; the client itself would wait for two minutes.
CONNECT_SECONDS = 5.0
READ_SECONDS = 20.0
LOOK_SECONDS = 1.0
# So often a session that is slow to open is asked for.
SESSION_TRIES = 3
# Answers of a core, or of the gateway before it, that has too much to do or starts anew.
PASSING = (500, 502, 503, 504)
# What core says to an administrator whose session is closed.
NO_SESSION = ("You must be guest!", "You must be user!", "You must be admin!")
FILES = ("host", "public-key", "private-key", "user")


def connect(
    stack: str | None = None, *, timeout: float = 600, progress: bool = True, resume: bool = False
) -> Cytomine:
    """Connect to Cytomine.

    The variables ``CYTOMINE_HOST``, ``CYTOMINE_PUBLIC_KEY`` and ``CYTOMINE_PRIVATE_KEY`` are set as well, for tools
    that expect them. An owner's administrator session is opened, and opened again when it has run out.

    Args:
        stack: the stack's name; without it the one beside this notebook, else the only one of one's own. One to which
            somebody invited you must be named: what you do there is theirs to see.
        timeout: seconds to wait for a stack that is starting; 0 not to wait.
        progress: whether to show a bar that names what the stack waits for.
        resume: whether to start a hibernated stack.

    Returns:
        The official client, connected; it is what ``Cytomine.get_instance()`` gives from now on.

    Raises:
        NoStack: there is no such stack that one may use, or it must be said which.
        StackHibernated: it sleeps, and ``resume`` was not given or is not one's right.
        StackFailed: it could not start.
        StackNotReady: it did not start in time.
        KeysRefused: Cytomine does not accept the keys.
        CytomineUnreachable: Cytomine does not answer.
        ServiceUnreachable: the service of the stacks does not answer.
    """
    keys = _find(stack, timeout, progress, resume)
    _open_session(keys)
    client = _Client(
        keys.host,
        keys.public_key,
        keys.private_key,
        logging.WARNING,
        use_cache=False,
        configure_logging=False,
    )
    client.stack = keys.stack
    if not client.current_user:
        raise KeysRefused(f"Cytomine at {keys.host} does not tell who you are; connect() again.")
    _export(keys)
    return client


def stacks() -> list[StackInfo]:
    """The stacks that one may connect to, one's own first.

    Raises:
        ServiceUnreachable: the service of the stacks does not answer.
    """
    try:
        return Service.from_environment().stacks()
    except NotNow as error:
        raise ServiceUnreachable(str(error)) from error


def environment(
    stack: str | None = None, *, timeout: float = 600, progress: bool = False, resume: bool = False
) -> dict[str, str]:
    """The variables by which other tools find Cytomine; sets them in this process, too.

    Args and errors are those of :func:`connect`.

    Returns:
        ``CYTOMINE_HOST``, ``CYTOMINE_PUBLIC_KEY`` and ``CYTOMINE_PRIVATE_KEY``.
    """
    return _export(_find(stack, timeout, progress, resume))


def token(stack: str | None = None) -> str:
    """A short-lived token of one's own, for the few addresses of Cytomine that take no signature.

    Args:
        stack: the stack's name; without it as :func:`connect` finds it.

    Raises:
        NoStack: there is no such stack that one may use, or it must be said which.
        StackNotReady: it does not serve now.
        ServiceUnreachable: the service of the stacks does not answer.
    """
    service = Service.from_environment()
    try:
        return service.token(stack or _choose(service))[0]
    except NotNow as error:
        raise StackNotReady(str(error)) from error


# -- keys -------------------------------------------------------------------------------------------------


def _find(stack: str | None, timeout: float, progress: bool, resume: bool) -> Keys:
    """Keys that work, from the notebook's files, else from the service."""
    keys = _mounted(stack)
    fault: CytomineError | None = None
    if keys:
        try:
            _prove(keys)
        except CytomineError as error:
            # The files may be a minute older than the stack's last start. The service knows more.
            fault = error
        else:
            return keys
    try:
        service = Service.from_environment()
        return _ask(service, stack or _choose(service), timeout, progress, resume)
    except ServiceUnreachable as error:
        raise fault or error from error


def _mounted(stack: str | None) -> Keys | None:
    """The keys in the notebook's files, if they are there and of this stack."""
    folder, mine = os.environ.get("CYTOMINE_CONNECTION_DIR", ""), os.environ.get("CYTOMINE_STACK", "")
    if not folder or stack not in (None, mine):
        return None
    try:
        # Read at each call: they change at each start of the stack.
        host, public, private, user = (Path(folder, name).read_text().strip() for name in FILES)
    except OSError:
        return None
    return Keys(host, public, private, user, mine) if host and public and private else None


def _ask(service: Service, name: str, timeout: float, progress: bool, resume: bool) -> Keys:
    """Keys from the service, once the stack serves."""
    ends = time.monotonic() + timeout
    renewed = False
    with _bar(name, progress) as bar:
        while True:
            try:
                info = service.stack(name)
                bar.show(info)
                _wake(service, info, resume)
                if "connect" in info.actions:
                    keys = service.keys(name, renew=renewed)
                    try:
                        _prove(keys)
                    except KeysRefused:
                        if renewed:
                            raise
                        renewed = True
                        continue
                    return keys
                why = info.message
            except NotNow as error:
                why = str(error)
                bar.say(why)
            except CytomineUnreachable as error:
                # The stack serves, but core has more to do than it can: that passes.
                if not error.passing:
                    raise
                why = str(error)
                bar.say(why)
            if time.monotonic() >= ends:
                waited = f" after {timeout:.0f} s" if timeout else ""
                raise StackNotReady(
                    f"The stack {name} is not ready{waited}. {why} connect() again to go on waiting."
                )
            time.sleep(min(LOOK_SECONDS, max(0.0, ends - time.monotonic())))


def _wake(service: Service, info: StackInfo, resume: bool) -> None:
    """Refuse what will not become ready by waiting; start what sleeps if that was asked for."""
    if info.phase == "Deleting":
        raise NoStack(f"The stack {info.name} is being deleted.")
    if info.asleep:
        if "resume" not in info.actions:
            raise StackHibernated(
                f"The stack {info.name} is hibernated. Ask {info.owner}, its owner, to resume it.", info.name
            )
        if not resume:
            raise StackHibernated(
                f"The stack {info.name} is hibernated; its data are kept. connect(resume=True) starts it.",
                info.name,
            )
        service.resume(info.name)
    elif info.phase == "Failed":
        raise StackFailed(f"The stack {info.name} could not start. {info.message}", info.name, info.reason)


def _choose(service: Service) -> str:
    """The stack that is meant when none is named."""
    if mine := os.environ.get("CYTOMINE_STACK"):
        return mine
    found = service.stacks()
    own = [s for s in found if s.role == "owner"]
    if not found:
        raise NoStack(
            "There is no Cytomine that you may use. Tick Cytomine in the options when you start your server, or ask a "
            "colleague to invite you to theirs."
        )
    # Whoever invites somebody must not become the one that all of their notebooks write to.
    if len(own) == 1:
        return own[0].name
    names = ", ".join(f"connect({s.name!r}) ({s.title} of {s.owner})" for s in own or found)
    why = "There is more than one Cytomine of yours" if own else "You have no Cytomine of your own"
    theirs = "" if own else " colleagues let you use theirs;"
    raise NoStack(f"{why};{theirs} say which you mean: {names}.")


def _export(keys: Keys) -> dict[str, str]:
    variables = {
        "CYTOMINE_HOST": keys.host,
        "CYTOMINE_PUBLIC_KEY": keys.public_key,
        "CYTOMINE_PRIVATE_KEY": keys.private_key,
    }
    os.environ.update(variables)
    return variables


# -- Cytomine ---------------------------------------------------------------------------------------------


def _signed(keys: Keys, path: str, tries: int = 1) -> requests.Response:
    """A signed GET with a short time limit, sent again where it is over."""
    host = keys.host.rstrip("/")
    while True:
        headers = {
            "accept": "application/json, */*",
            "date": format_datetime(datetime.now(timezone.utc)),
            "X-Requested-With": "XMLHttpRequest",
        }
        tries -= 1
        try:
            return requests.get(
                f"{host}{path}",
                headers=headers,
                auth=CytomineAuth(keys.public_key, keys.private_key, host, ""),
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
            )
        except requests.ReadTimeout:
            if tries <= 0:
                raise


def _prove(keys: Keys) -> None:
    """Ask Cytomine who one is.

    Raises:
        CytomineUnreachable: it does not answer.
        KeysRefused: it does not know the keys.
    """
    hint = "See on the hub's page of stacks whether it is running."
    try:
        answer = _signed(keys, "/api/user/current.json")
    except requests.RequestException as error:
        raise CytomineUnreachable(
            f"Cytomine at {keys.host} does not answer ({type(error).__name__}). {hint}",
            passing=isinstance(error, requests.ReadTimeout),
        ) from error
    if answer.status_code == 401:
        raise KeysRefused(
            f"Cytomine at {keys.host} does not accept the keys. They change when the stack starts anew: connect() again."
        )
    if answer.status_code != 200:
        raise CytomineUnreachable(
            f"Cytomine at {keys.host} answered {answer.status_code}. {hint}",
            passing=answer.status_code in PASSING,
        )


def _open_session(keys: Keys) -> bool:
    """Open the administrator's session of an owner; without it core takes an administrator for nobody.

    Returns:
        Whether it was closed and could be opened.
    """
    try:
        said = _signed(keys, "/session/admin/info.json", SESSION_TRIES)
        data = said.json() if said.status_code == 200 else {}
        if data.get("admin") and not data.get("adminByNow"):
            return bool(_signed(keys, "/session/admin/open.json", SESSION_TRIES).status_code == 200)
    except (requests.RequestException, ValueError) as error:
        raise CytomineUnreachable(
            f"Cytomine at {keys.host} stopped answering ({type(error).__name__}). connect() again."
        ) from error
    return False


class _Client(Cytomine):  # type: ignore[misc]
    """The official client, but for its start: it waits for nobody, and no request waits for ever.

    Attributes:
        stack: the name of the stack that it is connected to.
    """

    stack = ""

    def wait_to_accept_connection(self, *args: Any, **kwargs: Any) -> bool:
        """Begin with what was proven a moment ago; when called later, wait as the official client does."""
        if getattr(self, "_begun", False):
            return bool(super().wait_to_accept_connection(*args, **kwargs))
        self._begun = True
        guard(self)
        self._session.hooks["response"].append(self._renew_session)
        return True

    def _renew_session(self, answer: requests.Response, **options: Any) -> requests.Response:
        """Open the administrator's session again when it ran out, and send the request once more.

        Core closes it two hours after it was opened, and says that one must be a user or a guest.
        """
        request = answer.request
        again = isinstance(request.body, (bytes, str, type(None)))
        if (
            answer.status_code != 403
            or not again
            or getattr(request, "_again", False)
            or options.get("stream")
        ):
            return answer
        if not any(words in answer.text for words in NO_SESSION):
            return answer
        keys = Keys(self._base_url(with_base_path=False), self._public_key, self._private_key)
        if not _open_session(keys):
            return answer
        request._again = True
        return self._session.send(request, **options)


# -- progress ---------------------------------------------------------------------------------------------


class _Bar:
    """Shows how far a stack is."""

    def __init__(self, name: str, shown: bool) -> None:
        self._name, self._shown = name, shown
        self._bar: Any = None

    def show(self, info: StackInfo) -> None:
        """Show a state."""
        done, _, total = (info.ready or "0/0").partition("/")
        words = f"waiting for {info.slowest}" if info.slowest else info.phase.lower()
        self.say(words, int(done), int(total))

    def say(self, words: str, done: int | None = None, total: int | None = None) -> None:
        """Show a sentence."""
        if not self._shown:
            return
        if self._bar is None:
            self._bar = tqdm(bar_format="{desc} {bar} {n_fmt}/{total_fmt} [{elapsed}]", leave=False)
        if total is not None and done is not None:
            self._bar.total, self._bar.n = total or 1, done
        self._bar.set_description_str(f"{self._name}: {words}")
        self._bar.refresh()

    def close(self) -> None:
        """Take it away."""
        if self._bar is not None:
            self._bar.close()


@contextmanager
def _bar(name: str, shown: bool) -> Iterator[_Bar]:
    bar = _Bar(name, shown)
    try:
        yield bar
    finally:
        bar.close()
