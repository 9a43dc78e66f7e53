"""The page of a stack's members: who may use it, invite, remove, leave. Plain HTML and forms."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from . import operations
from .auth import Action, Refusal
from .memberapi import KINDS, known, shares_of
from .model import Stack
from .pages import Page
from .present import view

# What the page says once a button was pressed.
DONE = {
    "added": "They may use the stack now, and find it on their own page of stacks.",
    "removed": "They may not use the stack any more. What they have open ends within five minutes.",
}


class Members(Page):
    """Who may use a stack."""

    async def get(self, name: str) -> None:
        """Show the members and the forms."""
        stack = self.stack(name, Action.MEMBERS)
        await self.members(stack, done=self.done())

    async def post(self, name: str) -> None:
        """Invite or remove somebody, else show again with what is wrong."""
        stack = self.stack(name, Action.MEMBERS)
        kind = self.get_body_argument("kind", "")
        verb = self.get_body_argument("do", "")
        member = self.get_body_argument("member", "")
        if kind not in KINDS or verb not in ("add", "remove"):
            raise Refusal(400, "The form is not one of this page's. Go back, reload and try again.", "kind")
        if verb == "remove":
            await operations.remove_member(self.site.store, stack.name, kind, member)
        else:
            try:
                member = await known(self.site.hub, stack, kind, member)
            except Refusal as refused:
                self.set_status(refused.status_code)
                await self.members(stack, kind=kind, typed=member, fault=refused.sentence)
                return
            await operations.add_member(self.site.store, stack.name, kind, member)
        query = urlencode({"done": "added" if verb == "add" else "removed"})
        self.redirect(f"{self.site.prefix}stacks/{quote(stack.name)}/members?{query}", status=303)

    def done(self) -> str:
        """What was done on the page before this one, from fixed words only."""
        return DONE.get(self.get_query_argument("done", ""), "")

    async def members(
        self, stack: Stack, *, kind: str = "users", typed: str = "", fault: str = "", done: str = ""
    ) -> None:
        """Show the page."""
        shares, trouble = await shares_of(self.site.hub, stack)
        self.show(
            "members.html",
            stack=view(stack, self.person),
            owned=self.person.owns(stack),
            shares=shares,
            trouble=trouble,
            kind=kind,
            typed=typed,
            fault=fault,
            done=done,
        )


class Leave(Page):
    """The button by which a member leaves a stack."""

    async def post(self, name: str) -> None:
        """Leave, and go to the page of all stacks."""
        stack = self.stack(name, Action.LEAVE)
        await operations.remove_member(self.site.store, stack.name, "users", self.person.name)
        self.redirect(f"{self.site.prefix}?{urlencode({'done': 'leave', 'stack': stack.name})}", status=303)
