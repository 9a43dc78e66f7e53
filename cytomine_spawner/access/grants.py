"""Looks, at each start of a stack, whether its owner still is granted the archive's datasets that were imported into it.

The hub finds out with the owner's login, whoever resumed the stack. Where it cannot be known nothing is changed, that is said,
and it is tried again. What becomes of a copy that is not granted any more the administrator's setting says
(``archive_revoked``). It is written down in a Secret that goes with the stack, so that a process that ends in between leaves
nothing half done, and hidden copies are shown again when the grant returns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from ..blueprint.settings import StackSettings
from ..cluster.client import Kube, KubeError
from ..cluster.store import StackStore, StoreError, Unavailable
from ..common.lines import cut
from ..common.storageurls import SCHEME
from ..stack import model
from ..stack.grants import Finding
from ..stack.model import Stack
from ..stack.people import Role
from ..stack.sentences import listed
from ..stack.state import is_going, run_of
from .grantcopies import Copies, CopyCalls
from .grantrecord import Copy, Fate, Record, read, write
from .hubapi import Hub
from .keys import serves
from .projectlook import Tokens, Voice
from .projects import Projects
from .stackrecord import keep, kept

log = logging.getLogger(__name__)

# What could not be known, or was not done, is tried again after so many seconds.
BACKOFF_SECONDS = (5, 15, 60, 300, 900)
MANAGED_BY = "cytomine-grants"
COMPONENT = "grants"
KEY = "copies"
_WORDS = 400


class Grants:
    """Looks after the copies in all stacks.

    Args:
        store: the stacks.
        kube: the API server.
        hub: knows what is granted.
        tokens: gives tokens for core.
        projects: brings members into projects.
        settings: the administrator's settings.
        address: where a stack is reached; its gateway's internal address.
        changed: called with a stack's name when :meth:`found` answers differently.
    """

    def __init__(
        self,
        store: StackStore,
        kube: Kube,
        hub: Hub,
        tokens: Tokens,
        projects: Projects,
        settings: StackSettings,
        *,
        address: Callable[[Stack], str] = lambda stack: model.internal_url(stack.name, stack.namespace),
        changed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store, self._kube, self._hub, self._tokens = store, kube, hub, tokens
        self._projects, self._settings = projects, settings
        self._address, self._changed = address, changed
        self._calls = CopyCalls()
        self._known: dict[str, tuple[Any, ...]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._found: dict[str, Finding] = {}

    def found(self, stack: Stack) -> Finding | None:
        """What was found in the present run of a stack; None while nothing was, or nothing is to be looked at."""
        return self._found.get(stack.name)

    async def run(self) -> None:
        """Follow the stacks until cancelled; never raises otherwise."""
        try:
            await self._store.view.follow(self._known, self._consider, self._forget)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            self._tasks.clear()

    def _forget(self, names: set[str]) -> None:
        for name in names:
            self._known.pop(name, None)
            self._found.pop(name, None)
            if task := self._tasks.pop(name, None):
                task.cancel()

    def _consider(self, stack: Stack) -> None:
        """Begin a look if a run of the stack began; what is imported during it was granted then."""
        facts = (stack.uid, serves(stack), run_of(stack))
        if self._known.get(stack.name) == facts:
            return
        self._forget({stack.name})
        self._known[stack.name] = facts
        if serves(stack) and not is_going(stack):
            self._tasks[stack.name] = asyncio.create_task(self._tend(stack.name))

    async def _tend(self, name: str) -> None:
        """Look at one stack, again and again until it is known and done."""
        failures = 0
        while True:
            stack = self._store.view.get(name)
            if stack is None or is_going(stack) or not serves(stack):
                return
            try:
                finding = await self._look(stack)
            except Exception as error:
                finding = self._failed(stack, error)
            if finding and finding != self._found.get(name):
                self._found[name] = finding
                if finding.word != "True":
                    log.warning("The archive's datasets in the stack %s: %s", name, finding.message)
                self._changed(name)
            if finding is None or finding.reason not in ("Unknown", "Failed"):
                return
            await asyncio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)])
            failures += 1

    def _failed(self, stack: Stack, error: Exception) -> Finding:
        if isinstance(error, StoreError):
            said = str(error)
        elif isinstance(error, KubeError):
            said = "The cluster does not keep what was done."
        else:
            said = "The service made a mistake; its log says more."
            log.exception("The archive's datasets in the stack %s could not be looked after", stack.name)
        before = self._found.get(stack.name)
        # What was gone stays so, as far as is known.
        revoked = before.revoked if before else stack.status.revoked_datasets
        return Finding(
            stack.uid,
            run_of(stack),
            "Unknown",
            "Failed",
            f"The archive's datasets could not be looked after: {cut(said)}. It is tried again.",
            revoked,
        )

    # -- one stack ----------------------------------------------------------------------------------------

    async def _look(self, stack: Stack) -> Finding | None:
        """What is granted, after all that follows from it was done.

        Raises:
            StoreError: core or the hub does not answer as it should.
            KubeError: the record cannot be read or written.
        """
        names = [name for name in stack.status.imported_datasets if name.startswith(SCHEME)]
        if not names:
            return None
        record, written = await self._read(stack)
        for name in [name for name, copy in record.items() if copy.back and copy.back != run_of(stack)]:
            # It was given back to the imports in an earlier run.
            del record[name]
        granted, trouble = await self._hub.archive_grants(stack, names)
        if granted is None:
            return self._unknown(stack, names, record, trouble)

        async def noted() -> None:
            nonlocal written
            if (text := write(record)) != written:
                await keep(self._kube, stack, COMPONENT, MANAGED_BY, KEY, text)
                written = text

        copies = Copies(
            self._calls,
            self._address(stack),
            Voice(self._tokens, stack, stack.spec.owner, Role.OWNER),
            keep=noted,
            settle=lambda: self._projects.settle(stack),
        )
        said: list[str] = []
        failed = False
        for name in names:
            text, done = await self._settled(stack, name, names, granted, record, copies)
            failed = failed or not done
            said += [text] if text else []
        await noted()
        lost = [name for name in names if name not in granted]
        return Finding(
            stack.uid,
            run_of(stack),
            "False" if lost or failed else "True",
            "Failed" if failed else "Revoked" if lost else "Granted",
            " ".join(said)
            or f"{self._titles(names)} {'is' if len(names) == 1 else 'are'} granted to the owner.",
            tuple(name for name, copy in record.items() if copy.is_gone and not copy.back),
            tuple(name for name, copy in record.items() if copy.back),
        )

    def _unknown(self, stack: Stack, names: list[str], record: Record, trouble: str) -> Finding:
        text = (
            f"Whether the owner still is granted {self._titles(names)} could not be looked at: {cut(trouble, _WORDS)}. "
            "Nothing was changed, and it is looked at again."
        )
        revoked = tuple(name for name, copy in record.items() if copy.is_gone and not copy.back)
        if revoked:
            text += f" What was hidden or deleted before stays so: {self._titles(list(revoked))}."
        return Finding(stack.uid, run_of(stack), "Unknown", "Unknown", text, revoked)

    async def _settled(
        self,
        stack: Stack,
        name: str,
        names: list[str],
        granted: frozenset[str],
        record: Record,
        copies: Copies,
    ) -> tuple[str, bool]:
        """Do what follows for a dataset; what is said of it, and whether it is done."""
        try:
            if name in granted:
                return await self._returned(stack, name, record, copies), True
            return await self._lost(stack, name, names, granted, record, copies), True
        except StoreError as error:
            text = (
                f"What is to become of the copy of {self._title(name)} was not done yet: {cut(str(error))}."
            )
            return f"{text} It is tried again.", False

    async def _returned(self, stack: Stack, name: str, record: Record, copies: Copies) -> str:
        """What follows if a dataset is granted."""
        copy = record.get(name)
        if copy is None:
            return ""
        if copy.is_lost:
            # Half of it may be gone. The rest goes, too, and all is imported anew.
            if copy.fate is Fate.DELETING:
                await copies.delete(copy, name)
            copy.back = run_of(stack)
            return f"{self._title(name)} is granted again, and can be imported anew."
        if copy.is_gone:
            await copies.show(copy)
        del record[name]
        return f"{self._title(name)} is granted again."

    async def _lost(
        self,
        stack: Stack,
        name: str,
        names: list[str],
        granted: frozenset[str],
        record: Record,
        copies: Copies,
    ) -> str:
        """What follows if a dataset is not granted; the sentences for people."""
        if record.get(name, Copy("")).back:
            # It was given back to the imports, and is lost anew.
            del record[name]
        copy = record.setdefault(name, Copy(model.format_time(datetime.now(timezone.utc))))
        numbers = {one.name: one.project for one in stack.status.dataset_projects}
        copy.project = copy.project or numbers.get(name, 0)
        noticed = model.parse_time(copy.noticed)
        day = f" (noticed on {noticed:%-d %b %Y})" if noticed else ""
        text = f"{self._title(name)} is not granted to the owner any more{day}."
        policy = self._settings.archive_revoked
        if copy.fate is Fate.DELETED:
            return _deleted(text, copy)
        if policy == "keep" and copy.fate is not Fate.DELETING:
            if copy.is_gone:
                await copies.show(copy)
                copy.fate, copy.people = Fate.KEPT, {}
            return f"{text} Its copy in Cytomine stays."
        if not copy.project:
            return (
                f"{text} In which project of Cytomine its copy is was not written down when it was imported, so nothing was "
                "done with it: its owner has to delete that project there."
            )
        shared = [one for one in names if one in granted and numbers.get(one) == copy.project]
        if shared and copy.fate is not Fate.DELETING:
            return f"{text} Its copy stays, as {self._titles(shared)} is in the same project of Cytomine."
        if policy == "delete" or copy.fate is Fate.DELETING:
            if await copies.delete(copy, name):
                return _deleted(text, copy)
            return (
                f"{text} Which slides of its project in Cytomine the import brought was not written down when it did, so nothing "
                "was deleted: its owner has to delete them there."
            )
        if await copies.hide(copy):
            return f"{text} Its copy in Cytomine is hidden until it is granted again."
        return (
            f"{text} Its copy in Cytomine is hidden from all members. The owner sees it still, for Cytomine shows all projects "
            "to somebody of that name."
        )

    def _title(self, name: str) -> str:
        return cut(self._settings.dataset_title(name))

    def _titles(self, names: list[str]) -> str:
        return cut(listed([self._settings.dataset_title(name) for name in names]), _WORDS)

    # -- what was done ------------------------------------------------------------------------------------

    async def _read(self, stack: Stack) -> tuple[Record, str]:
        try:
            text = await kept(self._kube, stack, COMPONENT, KEY)
            return ({}, write({})) if text is None else (read(text), text)
        except (KeyError, ValueError):
            # A new one would lose whom to put back.
            raise Unavailable(
                f"What became of the copies cannot be read from the Secret {model.component_name(stack.name, COMPONENT)}; an "
                "administrator must mend or delete it"
            ) from None


def _deleted(text: str, copy: Copy) -> str:
    return f"{text} Its copy in Cytomine was deleted. {copy.stays}".rstrip()
