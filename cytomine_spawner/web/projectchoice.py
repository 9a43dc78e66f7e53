"""The owner's choice of projects for a member, as the page and the REST API take it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from ..access.projectcalls import Project
from ..cluster.store import Conflict, StoreError, Unavailable
from ..site.handler import Refusal, Site
from ..stack.model import Access, ChosenProject, ProjectRole, Reach, Stack
from ..stack.rights import Action, Person, may
from .operations import KINDS

# What the resource definition allows.
MOST_PROJECTS = 100


def _said_once(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """One sentence in place of one for each form that the value could have."""
    try:
        return check(value)
    except ValidationError:
        text = (
            f"give all, none, or a list of at most {MOST_PROJECTS} projects, each by its number or its name"
        )
        raise ValueError(text) from None


class ProjectsPut(BaseModel):
    """To which projects of Cytomine a member is added, and as what. What is left out stays, or is as is usual."""

    model_config = ConfigDict(extra="forbid", strict=True)

    projects: Annotated[
        Literal["all", "none"]
        | Annotated[list[int | Annotated[str, Field(max_length=255)]], Field(max_length=MOST_PROJECTS)],
        WrapValidator(_said_once),
    ] = Field("all", description="All, also those that come later; none; or these, each by number or name.")
    role: Literal["user", "manager"] = Field(
        "user", description="Managers change projects and who is in them."
    )


async def chosen(
    site: Site, person: Person, stack: Stack, kind: str, member: str, wish: ProjectsPut
) -> Access | None:
    """What is to be written of a choice; None if nothing was chosen.

    Args:
        site: knows the projects.
        person: who chooses.
        stack: the stack.
        kind: ``users`` or ``groups``.
        member: the hub's name of the user or the group.
        wish: what was sent.

    Raises:
        Refusal: 400 for a project that is not there.
        StoreError: if single projects are chosen and the stack does not tell which there are.
    """
    if not wish.model_fields_set:
        return None
    before = stack.spec.members.access_of(KINDS[kind], member)
    changes: dict[str, Any] = {}
    if "role" in wish.model_fields_set:
        changes["role"] = ProjectRole(wish.role)
    if "projects" in wish.model_fields_set:
        if isinstance(wish.projects, str):
            changes.update(projects=Reach(wish.projects), these=())
        else:
            known = {one.id: one.name for one in before.these}
            if not all(one in known for one in wish.projects):
                known |= {one.id: one.name[:255] for one in await projects_of(site, person, stack)}
            changes.update(projects=Reach.THESE, these=_these(wish.projects, known))
    return before.replace(**changes)


def _these(wanted: list[int | str], known: dict[int, str]) -> tuple[ChosenProject, ...]:
    names = {name: number for number, name in known.items()}
    found: dict[int, ChosenProject] = {}
    for one in wanted:
        number = one if isinstance(one, int) else names.get(one, 0)
        if number not in known:
            raise Refusal(400, f"The stack has no project {one}.", "projects")
        found[number] = ChosenProject(id=number, name=known[number])
    return tuple(found.values())


async def projects_of(site: Site, person: Person, stack: Stack) -> list[Project]:
    """The projects that can be chosen.

    Raises:
        Refusal: 403 for others than the owner, 503 where the service is not set up for it.
        StoreError: if the stack does not serve.
    """
    if not may(person, stack, Action.PROJECTS):
        raise Refusal(403, "Only the owner of a stack may list its projects; you can choose all or none.")
    if site.projects is None:
        raise Refusal(
            503, "This service does not speak to Cytomine; an administrator has to set its identity up."
        )
    try:
        return await site.projects.listed(stack)
    except Conflict as error:
        raise Conflict(f"{error} Until then all or none of its projects can be chosen.") from error


async def choices(site: Site, person: Person, stack: Stack) -> tuple[list[Project], str]:
    """The projects that can be chosen; else a sentence that says why they are not known."""
    try:
        return await projects_of(site, person, stack), ""
    except (Refusal, StoreError) as error:
        sentence = error.sentence if isinstance(error, Refusal) else str(error)
        asks = "" if "all or none" in sentence else " Meanwhile all or none can be chosen."
        return [], sentence + (asks if isinstance(error, Unavailable) else "")
