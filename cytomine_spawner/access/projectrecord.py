"""Who is to be in which projects of a stack's Cytomine, and what was done about it. No input or output here.

Only what this service made is ever taken back. So what it made is written down, and beforehand what it is about to make:
should the process end between the two, the next one finds the membership and knows that it is no one else's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..stack.model import Access, Members, ProjectRole, Reach
from ..stack.people import Role

# What core calls people in a project. A representative was made so by somebody in Cytomine, and is left alone.
CONTRIBUTOR, MANAGER, REPRESENTATIVE = "contributor", "manager", "representative"


class Step(str, Enum):
    """One call to core."""

    ADD = "add"
    ADD_MANAGER = "add as manager"
    PROMOTE = "promote"
    DEMOTE = "demote"
    REMOVE = "remove"


@dataclass
class Made:
    """What was made for one person.

    Attributes:
        id: the person's number in Cytomine; 0 while it is not known.
        member: the projects to which this service added the person.
        manager: the projects in which it made the person a manager.
        trying: the step that was begun in a project and not seen to end.
    """

    id: int = 0
    member: set[int] = field(default_factory=set)
    manager: set[int] = field(default_factory=set)
    trying: dict[int, Step] = field(default_factory=dict)

    @property
    def projects(self) -> set[int]:
        """The projects in which there is something that might be taken back."""
        return self.member | self.manager | set(self.trying)

    def settled(self, project: int, want: ProjectRole | None) -> bool:
        """Whether there is nothing to do, as far as is written down."""
        if project in self.trying:
            return False
        if want is None:
            return project not in self.projects
        if want is ProjectRole.MANAGER:
            return project in self.manager
        return project in self.member and project not in self.manager

    def found(self, project: int, present: str | None) -> None:
        """Compare with what core tells: a step that was begun was made or not, and people change things in Cytomine."""
        step = self.trying.pop(project, None)
        if present is None:
            self.member.discard(project)
        if present in (None, CONTRIBUTOR):
            self.manager.discard(project)
        if step in (Step.ADD, Step.ADD_MANAGER) and present in (CONTRIBUTOR, MANAGER):
            self.member.add(project)
        if step in (Step.ADD_MANAGER, Step.PROMOTE) and present == MANAGER:
            self.manager.add(project)

    def steps(self, project: int, want: ProjectRole | None, present: str | None) -> list[Step]:
        """What to do in a project in which the person is ``present``."""
        ours = project in self.manager
        if present == REPRESENTATIVE:
            return []
        if present is None:
            return {
                None: [],
                ProjectRole.USER: [Step.ADD],
                ProjectRole.MANAGER: [Step.ADD_MANAGER],
            }[want]
        if want is ProjectRole.MANAGER:
            return [Step.PROMOTE] if present == CONTRIBUTOR else []
        found = [Step.DEMOTE] if present == MANAGER and ours else []
        if want is None and project in self.member and (present == CONTRIBUTOR or ours):
            # The other order would leave a manager who is no member.
            found.append(Step.REMOVE)
        return found

    def begin(self, project: int, step: Step) -> None:
        """Note what is about to be made."""
        if step in (Step.ADD, Step.ADD_MANAGER, Step.PROMOTE):
            self.trying[project] = step

    def done(self, project: int, step: Step) -> None:
        """Note that a step was made."""
        self.trying.pop(project, None)
        if step in (Step.ADD, Step.ADD_MANAGER):
            self.member.add(project)
        if step in (Step.ADD_MANAGER, Step.PROMOTE):
            self.manager.add(project)
        if step is Step.DEMOTE:
            self.manager.discard(project)
        if step is Step.REMOVE:
            self.member.discard(project)

    def forget(self, project: int) -> None:
        """Note that nothing of ours is in a project any more."""
        self.member.discard(project)
        self.manager.discard(project)
        self.trying.pop(project, None)


Record = dict[str, Made]


def write(record: Mapping[str, Made]) -> str:
    """A record as text; who is in no project is left out."""
    return json.dumps(
        {
            name: {
                "id": made.id,
                "member": sorted(made.member),
                "manager": sorted(made.manager),
                "trying": {str(project): step.value for project, step in sorted(made.trying.items())},
            }
            for name, made in sorted(record.items())
            if made.projects
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def read(text: str) -> Record:
    """The record in a text.

    Raises:
        ValueError: if it is none.
    """
    try:
        return {str(name): _made(one) for name, one in json.loads(text).items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("this is no record of memberships") from error


def _made(one: dict[str, Any]) -> Made:
    trying = {int(project): Step(step) for project, step in one["trying"].items()}
    return Made(int(one["id"]), set(map(int, one["member"])), set(map(int, one["manager"])), trying)


def entries(members: Members, name: str, role: Role | None, groups: Iterable[str] = ()) -> list[Access]:
    """What the owner chose for somebody: by name, else by each of the groups, else as is usual for shares.

    Args:
        members: the stack's.
        name: the hub's name of the user.
        role: why the user may use the stack; None if they may not.
        groups: the user's groups.
    """
    if role is Role.USER:
        return [members.access_of("user", name)]
    if role is Role.GROUP:
        return [members.access_of("group", group) for group in members.groups if group in set(groups)]
    if role is Role.SHARE:
        return [Access(kind="user", name=name)]
    return []


def wanted(chosen: Iterable[Access], projects: Iterable[int]) -> dict[int, ProjectRole]:
    """In which of the projects somebody is to be, and as what: the most that any entry gives."""
    found: dict[int, ProjectRole] = {}
    for access in chosen:
        if access.projects is Reach.NONE:
            continue
        these = {one.id for one in access.these}
        for project in projects:
            more = found.get(project) is not ProjectRole.MANAGER
            if more and (access.projects is Reach.ALL or project in these):
                found[project] = access.role
    return found
