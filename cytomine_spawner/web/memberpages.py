"""The page of a stack's members: who may use it and in which projects, invite, change, remove, leave. Plain HTML."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from ..access.projectcalls import Project
from ..site.handler import Refusal
from ..stack.model import Access, ChosenProject, ProjectRole, Reach, Stack
from ..stack.rights import Action
from . import operations
from .api import validated
from .memberapi import accesses, known, let_in, shares_of
from .operations import KINDS
from .pages import Page
from .present import view
from .projectchoice import ProjectsPut, choices, chosen

# What the page says once a button was pressed.
DONE = {
    "added": "They may use the stack now, and find it on their own page of stacks.",
    "changed": "Their projects are changed. Cytomine shows it in a moment, or when the stack runs.",
    "removed": "They may not use the stack any more. What they have open ends within five minutes.",
}
VERBS = {"add": "added", "change": "changed", "remove": "removed"}
STRANGE = "The form is not one of this page's. Go back, reload and try again."
# How many projects the line of a member names.
NAMED = 3


@dataclass(frozen=True)
class Row:
    """A member, or the one who is being invited, with the choice of projects.

    Attributes:
        key: tells the ids of one row's fields from those of others.
        kinds: ``users`` or ``groups``.
        name: the member's name.
        access: what was chosen.
        words: the same as people say it.
        projects: the projects that can be chosen, and those that were.
    """

    key: str
    kinds: str
    name: str
    access: Access
    words: str
    projects: list[ChosenProject]

    @classmethod
    def of(cls, key: str, access: Access, known: Iterable[Project]) -> Row:
        """The row of a choice."""
        projects = {one.id: one for one in access.these}
        # By the names that they have now, where these are known.
        projects |= {one.id: ChosenProject(id=one.id, name=one.name[:255]) for one in known}
        kinds = next(kinds for kinds, kind in KINDS.items() if kind == access.kind)
        these = [projects[one.id].name or str(one.id) for one in access.these]
        listed = sorted(projects.values(), key=lambda one: (one.name.casefold(), one.id))
        return cls(key, kinds, access.name, access, _words(access, these), listed)

    @property
    def ticked(self) -> set[int]:
        """The projects that were chosen."""
        return {one.id for one in self.access.these}


def _words(access: Access, names: list[str]) -> str:
    if access.projects is Reach.NONE:
        return "no project"
    if access.projects is Reach.ALL:
        found = "all projects"
    else:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        found = f"{len(names)} project{'' if len(names) == 1 else 's'}: {', '.join(names[:NAMED])}{more}"
    return f"{found}, as manager" if access.role is ProjectRole.MANAGER else found


class Members(Page):
    """Who may use a stack."""

    async def get(self, name: str) -> None:
        """Show the members and the forms."""
        stack = self.stack(name, Action.MEMBERS)
        await self.members(stack, done=self.done())

    async def post(self, name: str) -> None:
        """Invite or remove somebody or change their projects, else show again with what is wrong."""
        stack = self.stack(name, Action.MEMBERS)
        kind = self.get_body_argument("kind", "")
        verb = self.get_body_argument("do", "")
        member = self.get_body_argument("member", "")
        if kind not in KINDS or verb not in VERBS:
            raise Refusal(400, STRANGE, "kind")
        if verb == "remove":
            notice = self.notice(stack, Action.MEMBERS, f"removed the {KINDS[kind]} {member}")
            await operations.remove_member(self.site.store, stack.name, kind, member, notice)
        else:
            try:
                await self._let_in(stack, kind, verb, member)
            except Refusal as refused:
                self.set_status(refused.status_code)
                faults = {"fault": refused.sentence} if verb == "add" else {"trouble": refused.sentence}
                await self.members(stack, kind=kind, typed=member if verb == "add" else "", **faults)
                return
        query = urlencode({"done": VERBS[verb]})
        self.redirect(f"{self.site.prefix}stacks/{quote(stack.name)}/members?{query}", status=303)

    async def _let_in(self, stack: Stack, kind: str, verb: str, member: str) -> None:
        wish = validated(ProjectsPut, self._wish())
        if verb == "add":
            member = await known(self.site.hub, stack, kind, member)
        elif member not in getattr(stack.spec.members, kind):
            raise Refusal(409, f"{member} is no member any more, so no projects were changed.")
        access = await chosen(self.site, self.person, stack, kind, member, wish)
        notice = self.notice(stack, Action.MEMBERS, let_in(stack, kind, member, self.person.name))
        await operations.add_member(self.site.store, stack.name, kind, member, access, notice)

    def _wish(self) -> dict[str, Any]:
        """What the fields of the form say, as the REST API takes it."""
        found: dict[str, Any] = {}
        if role := self.get_body_argument("role", ""):
            found["role"] = role
        reach = self.get_body_argument("projects", "")
        if reach == Reach.THESE.value:
            ticked = self.get_body_arguments("project")
            if not ticked:
                raise Refusal(400, "Tick the projects, or choose all or none.", "projects")
            if not all(one.isascii() and one.isdigit() and len(one) < 16 for one in ticked):
                raise Refusal(400, STRANGE, "projects")
            found["projects"] = [int(one) for one in ticked]
        elif reach:
            found["projects"] = reach
        return found

    def done(self) -> str:
        """What was done on the page before this one, from fixed words only."""
        return DONE.get(self.get_query_argument("done", ""), "")

    async def members(
        self,
        stack: Stack,
        *,
        kind: str = "users",
        typed: str = "",
        fault: str = "",
        trouble: str = "",
        done: str = "",
    ) -> None:
        """Show the page."""
        shares, shares_trouble = await shares_of(self.site.hub, stack)
        projects, projects_trouble = await choices(self.site, self.person, stack)
        waiting = self.site.projects.trouble(stack) if self.site.projects else ""
        self.show(
            "members.html",
            stack=view(stack, self.person),
            owned=self.person.owns(stack),
            rows=[Row.of(f"m{n}", access, projects) for n, access in enumerate(accesses(stack))],
            invited=Row.of(
                "new", self._asked(projects) if fault else Access(kind="user", name="-"), projects
            ),
            shares=shares,
            troubles=[one for one in (trouble, shares_trouble) if one],
            projects_trouble=projects_trouble,
            waiting=waiting,
            kind=kind,
            typed=typed,
            fault=fault,
            done=done,
        )

    def _asked(self, projects: list[Project]) -> Access:
        """The choice as it was sent, to be shown again; as is usual where it was none."""
        ticked = self.get_body_arguments("project")
        try:
            return Access.model_validate(
                {
                    "kind": "user",
                    "name": "-",
                    "projects": self.get_body_argument("projects", "") or Reach.ALL,
                    "role": self.get_body_argument("role", "") or ProjectRole.USER,
                    "these": [
                        {"id": one.id, "name": one.name[:255]} for one in projects if str(one.id) in ticked
                    ],
                }
            )
        except ValueError:
            return Access(kind="user", name="-")


class Leave(Page):
    """The button by which a member leaves a stack."""

    async def post(self, name: str) -> None:
        """Leave, and go to the page of all stacks."""
        stack = self.stack(name, Action.LEAVE)
        await operations.remove_member(self.site.store, stack.name, "users", self.person.name)
        self.redirect(f"{self.site.prefix}?{urlencode({'done': 'leave', 'stack': stack.name})}", status=303)
