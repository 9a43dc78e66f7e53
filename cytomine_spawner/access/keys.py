"""The keys by which notebooks speak with a stack: fetched, proven, kept in Secrets, renewed and withdrawn.

Cytomine's core makes a pair of keys for whoever comes with a token of the identity. This module asks for them when a
stack serves: for its owner at once, for a member when she asks. They stand in one Secret a person, which belongs to the
stack and goes with it. Each start of a stack gives new ones. Nothing is polled but, while members hold keys, whether the
hub still counts them as members.

A person's Secret has the keys ``host``, ``public-key``, ``private-key`` and ``user``.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections.abc import Callable
from typing import Any, Protocol

import jwt

from ..cluster.client import Kube, KubeError
from ..cluster.store import Conflict, StackStore, StoreError, Unavailable
from ..stack import model
from ..stack.model import Desired, Stack, State
from ..stack.people import Role
from ..stack.state import is_going, run_of
from . import credentials
from .credentials import ANNOTATION_RUN, ANNOTATION_USER, MANAGED_BY, Connection, Core, owner_uid
from .hubapi import Hub

log = logging.getLogger(__name__)

BACKOFF_SECONDS = (1, 2, 5, 10, 30, 60)
# With the hub's cache and a token's life this keeps a former member's access below five minutes.
RECHECK_SECONDS = 120
# Without these there is nobody to give keys, and no way to them.
NEEDED = ("core", "gateway")


class Minter(Protocol):
    """The identity, as far as it is needed here."""

    def mint(self, stack: str, username: str, name: str, email: str, role: str) -> str:
        """A short-lived token for the core of the stack of that name."""


def serves(stack: Stack) -> bool:
    """Whether keys can be asked for: the parts that give them are there, whatever the others do."""
    if is_going(stack) or stack.spec.desired_state is not Desired.RUNNING:
        return False
    states = {c.name: c.state for c in stack.status.components}
    return all(states.get(name) is State.READY for name in NEEDED)


class Connections:
    """Gives out connections and takes them back.

    Args:
        store: the stacks.
        kube: the API server.
        identity: mints tokens for core.
        hub: knows who is a member.
        notebook_namespace: where the notebooks are; that of the stacks if empty.
        address: where a stack is reached; its gateway's internal address.
        changed: called with a stack's name when :meth:`connected` would answer differently.
    """

    def __init__(
        self,
        store: StackStore,
        kube: Kube,
        identity: Minter,
        hub: Hub,
        *,
        notebook_namespace: str = "",
        address: Callable[[Stack], str] = lambda stack: model.internal_url(stack.name, stack.namespace),
        changed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store, self._kube, self._identity, self._hub = store, kube, identity, hub
        self._address, self._changed = address, changed
        self._notebook_namespace = notebook_namespace
        self._core = Core()
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._known: dict[str, tuple[Any, ...]] = {}
        self._connected: dict[str, str] = {}
        self._sentences: dict[str, str] = {}
        # uid of a stack: members who hold keys, as far as this process knows
        self._holders: dict[str, set[str]] = {}
        self._recheck = asyncio.Event()

    # -- for the operator ---------------------------------------------------------------------------------

    async def connected(self, stack: Stack) -> str:
        """Whether the owner's keys of this start of the stack were proven: empty if so, else why not yet."""
        run = run_of(stack)
        if run and self._connected.get(stack.uid) == run:
            return ""
        return self._sentences.get(stack.uid, "") or "The keys of the notebook are being fetched."

    async def run(self) -> None:
        """Follow the stacks until cancelled; never raises otherwise."""
        rechecking = asyncio.create_task(self._recheck_members())
        try:
            await self._store.view.follow(self._known, self._consider, self._forget)
        finally:
            tasks = [rechecking, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.clear()

    def _forget(self, names: set[str]) -> None:
        for name in names:
            self._stop(name)
            uid = (self._known.pop(name, None) or ("",))[0]
            self._connected.pop(uid, None)
            self._sentences.pop(uid, None)
            self._holders.pop(uid, None)
            for key in [key for key in self._locks if key[0] == uid]:
                del self._locks[key]

    def _stop(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task:
            task.cancel()

    def _consider(self, stack: Stack) -> None:
        """Look at a stack if anything that matters here became different."""
        facts = (stack.uid, serves(stack), run_of(stack), stack.spec.members)
        if self._known.get(stack.name) == facts:
            return
        if self._known.get(stack.name, facts)[0] != stack.uid:
            self._forget({stack.name})
        self._known[stack.name] = facts
        self._stop(stack.name)
        if not is_going(stack):
            self._tasks[stack.name] = asyncio.create_task(self._tend(stack.name))

    async def _tend(self, name: str) -> None:
        """Bring the keys of one stack in order, again and again until it succeeds."""
        failures = 0
        while True:
            stack = self._store.view.get(name)
            if stack is None or is_going(stack):
                return
            try:
                if serves(stack):
                    await self.provide(stack, stack.spec.owner)
                await self._sweep(stack)
            except Exception as error:
                sentence = _sentence(error)
                if self._sentences.get(stack.uid) != sentence:
                    self._sentences[stack.uid] = sentence
                    log.warning("The keys of the stack %s are tried again: %s", name, sentence)
                    self._changed(name)
                if not isinstance(error, (StoreError, KubeError)):
                    log.exception("The keys of the stack %s failed", name)
            else:
                return
            await asyncio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)])
            failures += 1

    # -- for people ---------------------------------------------------------------------------------------

    async def provide(self, stack: Stack, user: str, *, renew: bool = False) -> Connection:
        """The connection of a person, made if there is none of this start of the stack.

        Whether the person may have it is for the caller to know.

        Args:
            stack: the stack.
            user: the person's name at the hub.
            renew: whether to make new keys even so; the old ones end.

        Raises:
            Conflict: if the stack does not serve now.
            Unavailable: if core, the API server or the identity does not answer as it should.
        """
        if not serves(stack):
            raise Conflict(_not_now(stack))
        async with self._lock(stack, user):
            try:
                connection = None if renew else await self._kept(stack, user)
                if connection is None or not await self._core.proves(connection):
                    connection = await self._make(stack, user)
                await self._open_way(stack, user)
            except KubeError as error:
                raise Unavailable(_sentence(error)) from error
        if user == stack.spec.owner:
            self._sentences.pop(stack.uid, None)
            if self._connected.get(stack.uid) != run_of(stack):
                self._connected[stack.uid] = run_of(stack)
                self._changed(stack.name)
        else:
            self._hold(stack, user)
        return connection

    async def withdraw(self, stack: Stack, user: str) -> None:
        """End the keys of a person: core gets new ones that nobody is told, and the Secret goes.

        While the stack sleeps only the Secret's content goes; the rest follows at its next start, before the keys
        could be of use again.

        Raises:
            Unavailable: if core, the API server or the identity does not answer as it should.
        """
        async with self._lock(stack, user):
            try:
                name = _secret(stack, user)
                await self._take_over(stack, user)
                # The way first: it does not need core to be ended.
                await self._kube.delete("NetworkPolicy", name)
                if not serves(stack):
                    await self._kube.apply(credentials.secret(stack, name, user, "", None))
                    return
                await self._new_keys(stack, user, Role.USER)
                await self._kube.delete("Secret", name)
            except KubeError as error:
                raise Unavailable(_sentence(error)) from error
        self._holders.get(stack.uid, set()).discard(user)
        log.info("The keys of a former member of the stack %s are withdrawn", stack.name)

    async def user_of(self, stack: Stack, public_key: str) -> str | None:
        """Whose a public key is that notebooks sign with; None if it is nobody's, or not any more.

        Raises:
            Unavailable: if the API server does not answer.
        """
        try:
            items = await self._secrets(stack)
        except KubeError as error:
            raise Unavailable(_sentence(error)) from error
        for item in items:
            notes = item["metadata"].get("annotations") or {}
            kept = (item.get("data") or {}).get("public-key", "")
            if owner_uid(item) == stack.uid and secrets.compare_digest(
                base64.b64decode(kept), public_key.encode()
            ):
                return notes.get(ANNOTATION_USER) or None
        return None

    async def token(self, stack: Stack, user: str, role: Role) -> tuple[str, int]:
        """A short-lived token for core, for the few of its addresses that take no signature.

        Returns:
            The token, and when it ends, in seconds since 1970.

        Raises:
            Conflict: if the stack does not serve now.
        """
        if not serves(stack):
            raise Conflict(_not_now(stack))
        token = await self._mint(stack, user, role)
        # Our own, made a moment ago: there is nothing to verify.
        claims = jwt.decode(token, options={"verify_signature": False})
        return token, int(claims["exp"])

    # -- members ------------------------------------------------------------------------------------------

    async def _sweep(self, stack: Stack) -> None:
        """Renew the keys of members for this start of the stack, and withdraw those of former members."""
        for item in await self._secrets(stack):
            meta = item["metadata"]
            user = (meta.get("annotations") or {}).get(ANNOTATION_USER, "")
            if not user or user == stack.spec.owner or owner_uid(item) != stack.uid:
                continue
            if meta["name"] != _secret(stack, user):
                async with self._lock(stack, user):
                    await self._take_over(stack, user)
            if await self._hub.role(stack, user, fresh=True) is None:
                if item.get("data") and (serves(stack) or len(item["data"]) > 1):
                    await self.withdraw(stack, user)
            else:
                self._hold(stack, user)
                if serves(stack) and meta["annotations"].get(ANNOTATION_RUN) != run_of(stack):
                    await self.provide(stack, user)

    async def _secrets(self, stack: Stack) -> list[dict[str, Any]]:
        items, _ = await self._kube.list(
            "Secret",
            labels=f"app.kubernetes.io/managed-by={MANAGED_BY},app.kubernetes.io/instance={stack.name}",
        )
        return items

    def _hold(self, stack: Stack, user: str) -> None:
        self._holders.setdefault(stack.uid, set()).add(user)
        self._recheck.set()

    async def _recheck_members(self) -> None:
        """While members hold keys, ask the hub whether they still are members: groups and shares change there."""
        while True:
            await self._recheck.wait()
            self._recheck.clear()
            await asyncio.sleep(RECHECK_SECONDS)
            for stack in self._store.view.all():
                for user in list(self._holders.get(stack.uid, ())):
                    self._recheck.set()
                    try:
                        if await self._hub.role(stack, user, fresh=True) is None:
                            await self.withdraw(stack, user)
                    except StoreError as error:
                        log.warning("A member of the stack %s is looked at again: %s", stack.name, error)
                    except Exception:
                        log.exception("A member of the stack %s could not be looked at", stack.name)

    # -- core ---------------------------------------------------------------------------------------------

    async def _make(self, stack: Stack, user: str) -> Connection:
        role = Role.OWNER if user == stack.spec.owner else Role.USER
        public, private = await self._new_keys(stack, user, role)
        connection = Connection(self._address(stack), public, private, user)
        if not await self._core.proves(connection):
            raise Unavailable("Cytomine does not accept the keys that it has just made.")
        if role is Role.OWNER and await self._kube.get("Secret", _secret(stack, user)) is None:
            # Before anybody can make an ontology: until this Secret is there, the stack is not ready.
            token = await self._mint(stack, user, role)
            await self._core.spare_first_ontology(connection.host, token)
        await self._kube.apply(
            credentials.secret(stack, _secret(stack, user), user, run_of(stack), connection)
        )
        return connection

    async def _kept(self, stack: Stack, user: str) -> Connection | None:
        item = await self._kube.get("Secret", _secret(stack, user))
        if item is None and await self._take_over(stack, user):
            item = await self._kube.get("Secret", _secret(stack, user))
        return credentials.read(item, stack, user)

    async def _take_over(self, stack: Stack, user: str) -> bool:
        """Give a member's Secret and way that an earlier version made their present name; whether there was such a Secret.

        The new ones come first, so that a process that ends in between leaves the keys in one of the two places.
        """
        if user == stack.spec.owner:
            return False
        old, name = model.former_connection_name(stack.name, user), _secret(stack, user)
        item = await self._kube.get("Secret", old)
        if item is None or not credentials.is_of(item, stack, user):
            return False  # none, or another stack's object of the same name
        if await self._kube.get("Secret", name) is None:
            await self._kube.apply(credentials.renamed(item, name))
        way = await self._kube.get("NetworkPolicy", old)
        if way and credentials.is_of(way, stack, user):
            await self._open_way(stack, user)
            await self._kube.delete("NetworkPolicy", old)
        await self._kube.delete("Secret", old)
        return True

    async def _new_keys(self, stack: Stack, user: str, role: Role) -> tuple[str, str]:
        return await self._core.new_keys(self._address(stack), await self._mint(stack, user, role))

    async def _open_way(self, stack: Stack, user: str) -> None:
        if user not in (stack.spec.owner, *stack.spec.members.users):
            namespace = self._notebook_namespace or stack.namespace
            await self._kube.apply(credentials.way(stack, _secret(stack, user), user, namespace))

    async def _mint(self, stack: Stack, user: str, role: Role) -> str:
        try:
            known = await self._hub.user(user)
        except StoreError:
            known = None
        # The first token gives the person in Cytomine the name that people read there.
        name, email = (known.full_name, known.email) if known else ("", "")
        try:
            return self._identity.mint(stack.name, user, name or user, email, role.in_core)
        except Exception as error:
            log.warning("No token for the stack %s could be signed: %s", stack.name, error)
            raise Unavailable("The service cannot sign in to Cytomine now. Try again in a minute.") from error

    def _lock(self, stack: Stack, user: str) -> asyncio.Lock:
        return self._locks.setdefault((stack.uid, user), asyncio.Lock())


def _secret(stack: Stack, user: str) -> str:
    return model.connection_secret_name(stack.name, "" if user == stack.spec.owner else user)


def _not_now(stack: Stack) -> str:
    if is_going(stack):
        return "The stack is being deleted."
    if stack.spec.desired_state is Desired.HIBERNATED:
        return "The stack is hibernated; it has to be resumed first."
    return f"The stack does not serve yet. {stack.status.message}".strip()


def _sentence(error: BaseException) -> str:
    if isinstance(error, KubeError):
        return f"The cluster does not keep the keys: {error}"
    if isinstance(error, StoreError):
        return str(error)
    return f"The keys could not be fetched ({type(error).__name__}); the service's log says more."
