"""The Cytomine stack of one start of a notebook: made or woken up, then followed until the notebook is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from ..cluster.stackapi import StackApi, StackTrouble
from ..common.waiting import within
from ..stack import model
from ..stack.model import Desired, Stack, StackSpec
from ..stack.progress import line, settled
from ..stack.state import can_retry
from .options.stack import CytomineChoice

# Seconds between two cancellations of a task that is to end.
END_SECONDS = 1.0
# Seconds between two looks when the watch does not hold.
PAUSE = 1.0
# The CRD's limits.
MOST_GROUPS, LONGEST_GROUP, LONGEST_TITLE = 200, 255, 200


@dataclass(frozen=True)
class Wanted:
    """What a start wants of its stack.

    Attributes:
        owner: the hub's name of the user.
        server_name: the server's name, empty for the default one.
        choice: what was chosen; what it leaves out stays, or becomes the default.
        groups: the owner's groups.
        default_size: the size of a new stack.
    """

    owner: str
    server_name: str
    choice: CytomineChoice
    groups: tuple[str, ...] = ()
    default_size: str = "S"

    @property
    def name(self) -> str:
        """The stack's name."""
        return model.stack_name(self.owner, self.server_name)


def owner_groups(groups: Iterable[str]) -> tuple[str, ...]:
    """The groups as a stack can hold them: in order, each once, no more and no longer than its schema allows."""
    return tuple(sorted(group for group in set(groups) if group and len(group) <= LONGEST_GROUP))[
        :MOST_GROUPS
    ]


def new_spec(wanted: Wanted, title: str = "") -> StackSpec:
    """The spec of a stack that is not there yet.

    Raises:
        ValidationError: a name is longer than a stack can hold.
    """
    choice = wanted.choice
    return StackSpec.model_validate(
        {
            "owner": wanted.owner,
            "server_name": wanted.server_name,
            "display_name": title[:LONGEST_TITLE],
            "size": choice.size or wanted.default_size,
            "components": tuple(choice.components or ()),
            "datasets": tuple(choice.datasets or ()),
            "owner_groups": owner_groups(wanted.groups),
        }
    )


def changes(stack: Stack, wanted: Wanted, title: str = "") -> dict[str, Any]:
    """The fields of the spec to patch so that a stack that is there becomes the wanted one; empty when it is."""
    spec, choice = stack.spec, wanted.choice
    target: dict[str, Any] = {"desired_state": Desired.RUNNING, "owner_groups": owner_groups(wanted.groups)}
    if title and not spec.display_name:
        target["display_name"] = title[:LONGEST_TITLE]
    if choice.size is not None:
        target["size"] = choice.size
    if choice.components is not None:
        target["components"] = tuple(choice.components)
    if choice.datasets is not None:
        target["datasets"] = tuple(choice.datasets)
    if can_retry(stack):
        target["retry"] = spec.retry + 1
    new = spec.replace(**target)
    # Sets: another order is no change.
    differs = [
        field for field in target if _comparable(getattr(new, field)) != _comparable(getattr(spec, field))
    ]
    values = new.model_dump(mode="json", include=set(differs))
    return {to_camel(field): value for field, value in values.items()}


def _comparable(value: Any) -> Any:
    return set(value) if isinstance(value, tuple) else value


class Companion:
    """Brings one stack up beside a notebook and tells of it. Never raises, whatever the cluster does.

    Args:
        api: the calls.
        wanted: the stack.
        tell: takes each line for the progress page.
        title: gives how pages shall call a stack without a name; "" if unknown.
        patience: seconds to go on trying when the cluster does not answer or an old stack is still being removed.
    """

    def __init__(
        self,
        api: StackApi,
        wanted: Wanted,
        *,
        tell: Callable[[str], None],
        title: Callable[[], Awaitable[str]],
        patience: float,
        log: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        self.name = wanted.name
        self._api = api
        self._wanted = wanted
        self._tell = tell
        self._title = title
        self._patience = patience
        self._log = log
        self._last = ""
        self._settled: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._making = asyncio.ensure_future(self._make())
        self._following = asyncio.ensure_future(self._follow())

    async def wait(self, seconds: float) -> str | None:
        """Wait until the stack is ready or will not be soon.

        Returns:
            "" when it is ready, a sentence when it will not be soon, None when the time is up.
        """
        try:
            return await within(asyncio.shield(self._settled), max(0.0, seconds))
        except asyncio.TimeoutError:
            return None

    def leave(self) -> None:
        """Stop following; a stack that is being made is made nevertheless."""
        self._following.cancel()

    async def end(self) -> None:
        """Stop everything, so that nothing is made after this."""
        left = {self._following, self._making}
        while left:
            # A library's call that ends in the same moment may swallow a cancellation: once is not enough.
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=END_SECONDS)

    async def _make(self) -> Stack | None:
        """Create the stack, or change the one that is there so that it runs as wanted; None when that failed."""
        clock = asyncio.get_running_loop().time
        end = clock() + self._patience
        try:
            title = await self._title_or_nothing()
            while True:
                try:
                    stack = await self._once(title)
                    if stack is not None:
                        return stack
                    self._say(
                        "Cytomine: an earlier stack is still being removed; the new one is made after it."
                    )
                    cause = "an earlier stack is still being removed. Start the server again when it is gone."
                except StackTrouble as trouble:
                    cause = str(trouble)
                    if trouble.final:
                        break
                    self._log.warning(
                        "The stack %s cannot be made yet: %r", self.name, trouble.__cause__ or trouble
                    )
                    self._say(f"Cytomine: {cause} Trying again.")
                if clock() >= end:
                    break
                await asyncio.sleep(PAUSE)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            cause = f"{'.'.join(map(str, first['loc']))}: {first['msg']}."
        except Exception:
            self._log.exception("The stack %s could not be made", self.name)
            cause = "an error in the hub; its log has the details."
        self._log.error("The stack %s was not started: %s", self.name, cause)
        self._fail(f"Cytomine was not started: {cause} The notebook starts without it.")
        return None

    async def _once(self, title: str) -> Stack | None:
        """One attempt; None when a stack of this name is on its way out or came and went in between."""
        stack = await self._api.get(self.name)
        if stack is None:
            new = model.new_stack(self._api.namespace, new_spec(self._wanted, title))
            made = await self._api.create(new)
            if made is not None:
                self._log.info("Made the stack %s", self.name)
                return made
            # Somebody was faster, such as another start of the same server: theirs is ours.
            stack = await self._api.get(self.name)
        if stack is None or stack.deleting:
            return None
        fields = changes(stack, self._wanted, title)
        if not fields:
            return stack
        self._log.info("Changing %s of the stack %s", ", ".join(fields), self.name)
        return await self._api.patch(self.name, fields)

    async def _title_or_nothing(self) -> str:
        try:
            return await self._title()
        except Exception:
            self._log.exception("The name for the stack %s is not known", self.name)
            return ""

    async def _follow(self) -> None:
        try:
            stack = await asyncio.shield(self._making)
            before = None
            while stack is not None:
                before = self._news(stack, before)
                try:
                    async for stack in self._api.watch(self.name):
                        before = self._news(stack, before)
                except StackTrouble as trouble:
                    self._log.debug("The watch of the stack %s: %s", self.name, trouble)
                await asyncio.sleep(PAUSE)
                stack = await self._look(stack)
            if not self._making.result():
                return
            self._fail("Cytomine was deleted meanwhile.")
        except Exception:
            self._log.exception("The stack %s cannot be followed", self.name)
            self._fail("Cytomine's state cannot be shown; the hub's log has the details.")

    async def _look(self, known: Stack) -> Stack | None:
        try:
            return await self._api.get(self.name)
        except StackTrouble:
            return known

    def _news(self, stack: Stack, before: Stack | None) -> Stack:
        """Tell what changed, and settle what was waited for."""
        self._say(line(stack, before))
        end = settled(stack)
        if end is not None and not self._settled.done():
            self._settled.set_result(end)
        return stack

    def _fail(self, sentence: str) -> None:
        self._say(sentence)
        if not self._settled.done():
            self._settled.set_result(sentence)

    def _say(self, sentence: str) -> None:
        if sentence and sentence != self._last:
            self._last = sentence
            self._tell(sentence)
