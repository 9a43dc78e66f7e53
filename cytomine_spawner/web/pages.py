"""The page of the stacks: plain HTML and forms; a script adds live updates where there is one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlencode

from tornado.web import HTTPError

from ..cluster.store import LogQuery, NotFound, StoreError
from ..site.handler import Refusal, not_synced, refusal
from ..site.page import Frame, outage
from ..stack.components import TITLES
from ..stack.model import Stack
from ..stack.rights import Action
from ..stack.times import date, relative, seconds, span
from . import operations
from .api import LogsQuery, pick, validated
from .events import Stream
from .present import possible, view

PAGE_LENGTH = 50
# How many acts of administrators a card shows, and for how long.
NOTICES, NOTICE_TIME = 3, timedelta(days=30)
TAILS = (100, 200, 500, 2000)
# What the page says once a button was pressed.
DONE = {
    "resume": "was asked to resume.",
    "hibernate": "was asked to hibernate. Its data stay.",
    "retry": "is tried again.",
    "delete": "is being deleted.",
    "delete-keep": "is being deleted. Its volumes stay.",
    "leave": "was left, but is still yours to see.",
}
# And when the stack is not there to be seen any more.
GONE = {
    "delete": "The stack is deleted.",
    "delete-keep": "The stack is deleted.",
    "leave": "You left the stack. Its owner can invite you again.",
}


class Page(Frame):
    """A page about stacks."""

    def card(self, stack: Stack, *, alone: bool = False) -> dict[str, Any]:
        """What the template of a card needs."""
        shown = view(stack, self.person)
        since = datetime.now(timezone.utc) - NOTICE_TIME
        acts = [one for one in shown.notices if one.at > since][-NOTICES:]
        return {"stack": shown, "owned": self.person.owns(stack), "alone": alone, "notices": acts}

    def done(self) -> str:
        """What was done on the page before this one, from fixed words only."""
        words = DONE.get(self.get_query_argument("done", ""))
        name = self.get_query_argument("stack", "")
        if not words or not name:
            return ""
        try:
            return f"{view(self.stack(name), self.person).title} {words}"
        except Refusal:
            return GONE.get(self.get_query_argument("done", ""), "")


class Home(Page):
    """All stacks that the person may see, as cards."""

    async def get(self) -> None:
        """Show a page of cards, newest first."""
        if not self.site.store.view.synced:
            raise Refusal(503, not_synced())
        admin = self.person.admin
        owner = self.get_query_argument("owner", "") if admin else ""
        number = self.get_query_argument("page", "1")
        everything = self.visible()
        stacks = [s for s in everything if not owner or s.spec.owner == owner]
        pages = max(1, -(-len(stacks) // PAGE_LENGTH))
        page = (
            min(max(int(number), 1), pages)
            if number.isascii() and number.isdigit() and len(number) < 9
            else 1
        )
        shown = stacks[(page - 1) * PAGE_LENGTH : page * PAGE_LENGTH]
        if not self.site.store.view.connected:
            self.set_status(503)
        self.show(
            "home.html",
            cards=[self.card(stack) for stack in shown],
            count=len(stacks),
            owner=owner,
            owners=sorted({s.spec.owner for s in everything}) if admin else [],
            page=page,
            pages=pages,
            done=self.done(),
            cursor=self.site.store.view.cursor,
            updates=f"{self.site.prefix}updates" + (f"?{urlencode({'owner': owner})}" if owner else ""),
        )


class One(Page):
    """One stack, as a card of its own."""

    async def get(self, name: str) -> None:
        """Show the stack."""
        stack = self.stack(name)
        if not self.site.store.view.connected:
            self.set_status(503)
        self.show(
            "one.html",
            card=self.card(stack, alone=True),
            done=self.done(),
            cursor=self.site.store.view.cursor,
            updates=f"{self.site.prefix}updates?{urlencode({'stack': stack.name})}",
        )


class Click(Page):
    """A button that needs no more than a click: resume, hibernate, retry."""

    async def post(self, name: str, verb: str) -> None:
        """Do it and go back to where the button was."""
        stack = self.stack(name, Action(verb))
        notice = self.notice(stack, Action(verb), operations.WORDS[Action(verb)])
        changed = await operations.CLICKS[verb](self.site.store, stack.name, notice)
        if self.wants_json:
            self.finish({"message": f"{view(changed, self.person).title} {DONE[verb]}"})
            return
        self.redirect(back(self, verb, stack), status=303)


class Delete(Page):
    """The page that asks before a stack is deleted."""

    async def get(self, name: str) -> None:
        """Ask."""
        stack = self.stack(name, Action.DELETE)
        if "delete" not in possible(stack):
            raise Refusal(409, "The stack is being deleted already.")
        self.ask(stack)

    async def post(self, name: str) -> None:
        """Delete the stack if its name was typed, else ask again."""
        stack = self.stack(name, Action.DELETE)
        typed, data = self.get_body_argument("name", ""), self.get_body_argument("data", "")
        uid = self.get_body_argument("uid", stack.uid)
        faults = {}
        if typed != stack.name:
            faults["name"] = f"Type the name exactly as it stands here: {stack.name}"
        if data not in ("keep", "delete"):
            faults["data"] = "Choose what happens to the data."
        if faults:
            self.set_status(400)
            self.ask(stack, typed=typed, data=data, faults=faults)
            return
        await self.site.store.delete(stack.name, keep_data=data == "keep", uid=uid)
        self.redirect(back(self, "delete-keep" if data == "keep" else "delete", stack), status=303)

    def ask(
        self, stack: Stack, *, typed: str = "", data: str = "keep", faults: dict[str, str] | None = None
    ) -> None:
        """Show the question, with what was wrong with the last answer."""
        self.show(
            "delete.html",
            stack=view(stack, self.person),
            uid=stack.uid,
            typed=typed,
            data=data,
            faults=faults or {},
        )


def back(page: Page, verb: str, stack: Stack) -> str:
    """Where a form came from: the stack's own page, or its card among all."""
    done = urlencode({"done": verb, "stack": stack.name})
    if page.get_body_argument("from", "") == "one" and not verb.startswith("delete"):
        return f"{page.site.prefix}stacks/{quote(stack.name)}?{done}"
    return f"{page.site.prefix}?{done}#{quote(stack.name)}"


class Logs(Page):
    """The last lines of a component's log."""

    async def get(self, name: str, component: str) -> None:
        """Show the lines; a log that cannot be read is said on the page."""
        stack = self.stack(name, Action.LOGS)
        arguments = {
            key: self.get_query_argument(key, "") for key in ("tail", "previous", "pod", "container")
        }
        query = validated(LogsQuery, {key: value for key, value in arguments.items() if value})
        sources, lines, fault, source = [], [], "", None
        try:
            sources = await self.site.store.log_sources(stack, component)
            source = pick(sources, query, component)
            lines = [
                line
                async for line in self.site.store.logs(LogQuery(source, query.tail, previous=query.previous))
            ]
        except NotFound as error:
            fault = str(error)
        except StoreError as error:
            fault = str(error)
            self.set_status(refusal(error).status_code)
        if self.get_query_argument("download", "") and source:
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.set_header(
                "Content-Disposition", f'attachment; filename="{stack.name}-{source.container}.log"'
            )
            self.finish("".join(f"{line}\n" for line in ([fault] if fault else lines)))
            return
        components = [c.name for c in stack.status.components]
        self.show(
            "logs.html",
            stack=view(stack, self.person),
            component=component,
            title=TITLES.get(component, component),
            components=[(name, TITLES.get(name, name)) for name in components],
            sources=sources,
            source=source,
            query=query,
            tails=TAILS,
            lines=lines,
            fault=fault,
            follow=f"{self.site.prefix}api/stacks/{quote(stack.name)}/components/{quote(component)}/logs",
        )


class Updates(Stream, Page):
    """The cards that change, as the page's script wants them."""

    async def get(self) -> None:
        """Send cards as they change."""
        name = self.get_query_argument("stack", "")
        self._alone = bool(name)
        owner = self.get_query_argument("owner", "") if self.person.admin else ""
        await self.follow(name, owner)

    def not_logged_in(self) -> None:
        """Tell the script, which cannot log in."""
        raise Refusal(401, "You are logged out. Reload the page to log in again.")

    @property
    def wants_json(self) -> bool:
        """A script asks, whatever it says."""
        return True

    def stack_data(self, stack: Stack) -> Any:
        """A card, and what to say of it to those who do not see it."""
        card = self.card(stack, alone=self._alone)
        shown = card["stack"]
        waits = f", waiting for {TITLES.get(shown.slowest, shown.slowest)}" if shown.slowest else ""
        return {
            "name": stack.name,
            "html": self.render_page("card.html", card=card),
            "say": f"{shown.title}: {shown.state}{waits}.",
        }

    def outage(self, view: Any) -> Any:
        """The sentence on the page's age."""
        return {"message": "" if view.connected or not view.synced else outage(self)}


class Missing(Page):
    """Every other address."""

    async def prepare(self) -> None:
        """Say that there is nothing, to those who are logged in."""
        await super().prepare()
        if not self._finished:
            raise HTTPError(404)


FILTERS = {"relative": relative, "date": date, "span": span, "seconds": seconds}
