"""The REST API below ``api/``: the same as the page, for programs, with the hub's tokens."""

from __future__ import annotations

import asyncio
import json
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from tornado.iostream import StreamClosedError

from ..cluster.store import LogQuery, LogSource, NotFound, StoreError
from ..site.handler import Handler, Refusal, not_synced, refusal
from ..stack.model import Stack
from ..stack.rights import Action, Person, may
from . import operations
from .events import HEARTBEAT_SECONDS, Stream
from .operations import StackPatch
from .present import view

BODY_BYTES = 64 * 1024
NO_LONGER = "You are logged out, or may not read this log any more. Reload the page to log in again."
M = TypeVar("M", bound=BaseModel)


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class NoQuery(_Query):
    """No parameters."""


class ListQuery(_Query):
    """Parameters of the list."""

    owner: str = Field("", description="Only the stacks of this user.")


class EventsQuery(ListQuery):
    """Parameters of the streams of events."""

    since: str = Field("", description="The cursor to go on after; all stacks first without it.")


class DeleteQuery(_Query):
    """Parameters of a deletion."""

    keep_data: bool = Field(description="Whether the volumes stay. There is no default: it cannot be undone.")


class LogsQuery(_Query):
    """Parameters of a log."""

    tail: Annotated[int, Field(ge=1, le=2000)] = Field(200, description="How many lines from the end.")
    follow: bool = Field(
        False, description="Go on with what comes, as server-sent events; for 15 minutes at most."
    )
    previous: bool = Field(False, description="The log of the container's run before the present one.")
    pod: str = Field("", description="The pod; the newest without it.")
    container: str = Field("", description="The container; the component's own without it.")


class ApiHandler(Handler):
    """Answers JSON, errors too."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what is wrong and in which field."""
        write_json_error(self, status_code, **kwargs)

    def answer(self, data: Any, status: int = 200) -> None:
        """Send JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(data))

    def query(self, model: type[M]) -> M:
        """The parameters of the address.

        Raises:
            Refusal: 400 with the name of the parameter at fault.
        """
        # The hub's own way in, where an administrator allows it; refused otherwise, but by what it does and not by its name.
        names = [name for name in self.request.query_arguments if name not in ("token", "_xsrf")]
        return validated(model, {name: self.get_query_argument(name) for name in names})

    def body(self, model: type[M]) -> M:
        """The JSON object in the request.

        Raises:
            Refusal: 400 with the name of the field at fault.
        """
        if len(self.request.body) > BODY_BYTES:
            raise Refusal(413, f"The request is larger than {BODY_BYTES} bytes.")
        try:
            data = json.loads(self.request.body, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "The request is not JSON.") from error
        if not isinstance(data, dict):
            raise Refusal(400, "The request is not a JSON object.")
        if not data:
            raise Refusal(400, f"Nothing to change: give one of {', '.join(_names(model))}.")
        return validated(model, data)

    def up_to_date(self) -> None:
        """Refuse to tell programs an old state as the present one.

        Raises:
            Refusal: 503 while the API server does not answer.
        """
        stacks = self.site.store.view
        if not stacks.synced:
            raise Refusal(503, not_synced())
        if not stacks.connected:
            since = f" since {stacks.as_of.isoformat(timespec='seconds')}" if stacks.as_of else ""
            raise Refusal(
                503, f"The cluster has not answered{since}, so the state of the stacks is not known."
            )

    def show(self, stack: Stack) -> dict[str, Any]:
        """A stack as JSON."""
        return as_json(stack, self.person)


def as_json(stack: Stack, person: Person) -> dict[str, Any]:
    """What a person is told of a stack, as JSON."""
    return view(stack, person).model_dump(mode="json", by_alias=True)


def validated(model: type[M], data: dict[str, Any]) -> M:
    """The data as a model.

    Raises:
        Refusal: 400 with the fields at fault.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = [(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()[:20]]
        answer = Refusal(400, "; ".join(f"{name}: {text}" for name, text in faults)[:1000], faults[0][0])
        answer.faults = [{"field": name, "message": text} for name, text in faults]
        raise answer from error


def write_json_error(handler: Handler, status_code: int, **kwargs: Any) -> None:
    """Answer an error as JSON, shaped like the hub's own."""
    answer = refusal(kwargs.get("exc_info", (None, None, None))[1], status_code)
    handler.set_status(answer.status_code)
    if answer.status_code == 401:
        handler.set_header("WWW-Authenticate", "Bearer")
    handler.set_header("Content-Type", "application/json; charset=utf-8")
    body: dict[str, Any] = {"status": answer.status_code, "message": answer.sentence}
    if answer.field:
        body["errors"] = answer.faults or [{"field": answer.field, "message": answer.sentence}]
    handler.finish(json.dumps(body))


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


class Stacks(ApiHandler):
    """The list of stacks."""

    async def get(self) -> None:
        """Answer the stacks that the person may see, newest first."""
        query = self.query(ListQuery)
        self.up_to_date()
        stacks = [self.show(stack) for stack in self.visible(query.owner)]
        self.answer({"stacks": stacks, "cursor": self.site.store.view.cursor})


class One(ApiHandler):
    """One stack."""

    async def get(self, name: str) -> None:
        """Answer the stack."""
        self.query(NoQuery)
        self.up_to_date()
        self.answer(self.show(self.stack(name)))

    async def patch(self, name: str) -> None:
        """Change some fields."""
        self.query(NoQuery)
        self.stack(name)  # who may not see it is not told either what is wrong with the request
        patch = self.body(StackPatch)
        action = operations.action(patch)
        stack = self.stack(name, action)
        if "idle_timeout" in patch.model_fields_set and (
            sentence := self.site.limits.refusal(patch.idle_timeout)
        ):
            raise Refusal(400, sentence, "idleTimeout")
        notice = self.notice(stack, action, operations.WORDS[action])
        self.answer(self.show(await operations.edit(self.site.store, stack.name, patch, notice)))

    async def delete(self, name: str) -> None:
        """Delete the stack; again is no error while it goes."""
        query = self.query(DeleteQuery)
        stack = self.stack(name, Action.DELETE)
        await self.site.store.delete(stack.name, keep_data=query.keep_data, uid=stack.uid)
        self.answer({"name": stack.name, "keepData": query.keep_data}, 202)


class Retry(ApiHandler):
    """Another try for a stack that failed."""

    async def post(self, name: str) -> None:
        """Start what failed anew."""
        self.query(NoQuery)
        stack = self.stack(name, Action.RETRY)
        notice = self.notice(stack, Action.RETRY, operations.WORDS[Action.RETRY])
        self.answer(self.show(await operations.retry(self.site.store, stack.name, notice)), 202)


class Events(Stream, ApiHandler):
    """The changes of all stacks that the person may see, as they happen."""

    async def get(self, name: str = "") -> None:
        """Send events: ``reset``, ``stack``, ``removed``, ``view`` and ``cursor``."""
        query = self.query(EventsQuery)
        await self.follow(name and self.stack(name).name, query.owner)

    def stack_data(self, stack: Stack) -> Any:
        """The stack as the API answers it."""
        return self.show(stack)


class Logs(Stream, ApiHandler):
    """The log of one component."""

    async def get(self, name: str, component: str) -> None:
        """Answer the last lines as text, or, with ``follow``, each line as an event."""
        query = self.query(LogsQuery)
        stack = self.stack(name, Action.LOGS)
        source = pick(await self.site.store.log_sources(stack, component), query, component)
        lines = self.site.store.logs(LogQuery(source, query.tail, query.follow, query.previous))
        if query.follow:
            with self.site.seats.take("logs", self.person.name):
                await self.relay(lines, stack.name)
            return
        text = [line async for line in lines]
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("".join(f"{line}\n" for line in text))

    async def relay(self, lines: AsyncIterator[str], name: str) -> None:
        """Send lines as events until the log ends, the listener goes, or may no longer read it."""
        self.begin()
        left = asyncio.ensure_future(self.left.wait())
        coming = asyncio.ensure_future(anext(lines, None))
        try:
            while not left.done():
                await asyncio.wait({left, coming}, timeout=HEARTBEAT_SECONDS, return_when=FIRST_COMPLETED)
                # Before what came is sent.
                if not await self.stands() or not self.reads(name):
                    await self.send("fault", {"message": NO_LONGER})
                    break
                if not coming.done():
                    await self.beat()
                elif (line := coming.result()) is None:
                    await self.send("end", {})
                    break
                else:
                    await self.send("line", line)
                    coming = asyncio.ensure_future(anext(lines, None))
        except StreamClosedError:
            pass
        except StoreError as error:
            with suppress(StreamClosedError):
                await self.send("fault", {"message": str(error)})
        finally:
            left.cancel()
            coming.cancel()
            await asyncio.gather(left, coming, return_exceptions=True)
            await lines.aclose()  # type: ignore[attr-defined]

    def reads(self, name: str) -> bool:
        """Whether the person may still read the logs of the stack of this name."""
        stack = self.site.store.view.get(name)
        return stack is not None and may(self.person, stack, Action.LOGS)


def pick(sources: list[LogSource], query: LogsQuery, component: str) -> LogSource:
    """The container whose log is meant.

    Raises:
        NotFound: if there is none.
    """
    for source in sources:
        if query.pod in ("", source.pod) and query.container in ("", source.container):
            if query.previous and not source.previous:
                raise NotFound("The container did not run before, so there is no earlier log.")
            if not source.started:
                raise NotFound(
                    f"There is no log to read yet: the container has not started ({source.state})."
                )
            return source
    if sources:
        raise NotFound(
            f"The component {component} has no such pod and container; leave them out for the newest."
        )
    raise NotFound(f"No pod of the component {component} is there at the moment.")


class Missing(ApiHandler):
    """Every other address of the API."""

    async def prepare(self) -> None:
        """Say that there is nothing, once the person is known."""
        await super().prepare()
        raise Refusal(404, "The API has no such address; see api/openapi.json.")
