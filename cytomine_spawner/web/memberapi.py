"""The REST API's part on people: who may use a stack, and the keys by which their programs reach it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from ..access.hubapi import Hub
from ..access.keys import Connections
from ..cluster.store import StoreError
from ..site.handler import Refusal
from ..stack.model import Access, Reach, Stack
from ..stack.people import Role, Share
from ..stack.rights import Action, may
from . import operations
from .api import ApiHandler, NoQuery
from .operations import KINDS
from .present import web_address
from .projectchoice import ProjectsPut, chosen, projects_of


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    def as_json(self) -> dict[str, Any]:
        """As the API answers it."""
        return self.model_dump(mode="json", by_alias=True)


class ShareView(_Answer):
    """Somebody with whom the owner shared the server that the stack belongs to."""

    kind: str = Field(description="`user` or `group`.")
    name: str


class ProjectView(_Answer):
    """A project of Cytomine."""

    id: int
    name: str


class AccessView(_Answer):
    """To which projects of Cytomine a member is added, and as what."""

    kind: Literal["user", "group"]
    name: str
    projects: Literal["all", "none"] | list[ProjectView] = Field(
        description="All, also those that come later; none; or these, with the names that they had when they were chosen."
    )
    role: Literal["user", "manager"]

    @classmethod
    def of(cls, access: Access) -> AccessView:
        """As the API tells a choice."""
        these = [ProjectView(id=one.id, name=one.name) for one in access.these]
        return cls.model_validate(
            {
                "kind": access.kind,
                "name": access.name,
                "projects": these if access.projects is Reach.THESE else access.projects.value,
                "role": access.role.value,
            }
        )


class ProjectsAnswer(_Answer):
    """The projects of the stack's owner."""

    projects: list[ProjectView]


class MembersAnswer(_Answer):
    """Who may use a stack."""

    owner: str
    users: list[str]
    groups: list[str]
    shares: list[ShareView]
    access: list[AccessView] = Field(
        description="To which projects users and groups are added. Those with whom the server is shared are added to all."
    )
    message: str = Field(description="Why the shares are not known; mostly empty.")
    projects_message: str = Field(description="Why members are not in their projects yet; mostly empty.")


class ConnectionAnswer(_Answer):
    """How a person's programs reach a stack."""

    stack: str
    host: str = Field(description="The address inside the cluster, for notebooks.")
    public_key: str
    private_key: str
    user: str
    url: str | None = Field(description="Where a browser opens the stack.")


class TokenAnswer(_Answer):
    """A short-lived token for Cytomine."""

    token: str
    expires_at: int = Field(description="Seconds since 1970.")


class Members(ApiHandler):
    """Who may use a stack."""

    async def get(self, name: str) -> None:
        """Answer owner, users, groups, and those with whom the owner shared the server."""
        self.query(NoQuery)
        self.up_to_date()
        await self.tell(self.stack(name, Action.MEMBERS))

    async def tell(self, stack: Stack) -> None:
        """Answer the members of a stack."""
        shares, fault = await shares_of(self.site.hub, stack)
        answer = MembersAnswer(
            owner=stack.spec.owner,
            users=list(stack.spec.members.users),
            groups=list(stack.spec.members.groups),
            shares=[ShareView(kind=share.kind, name=share.name) for share in shares],
            access=[AccessView.of(access) for access in accesses(stack)],
            message=fault,
            projects_message=self.site.projects.trouble(stack) if self.site.projects else "",
        )
        self.answer(answer.as_json())


class User(Members):
    """One user who may use a stack."""

    kind = "users"

    async def get(self, name: str, member: str) -> None:  # type: ignore[override]
        """Answer whether they may, by the owner's invitation, and in which projects they are to be."""
        self.query(NoQuery)
        self.up_to_date()
        stack = self.stack(name, Action.MEMBERS)
        kind = KINDS[self.kind]
        if member not in getattr(stack.spec.members, self.kind):
            raise Refusal(404, f"The {kind} {member} is no member of the stack {name}.")
        self.answer(AccessView.of(stack.spec.members.access_of(kind, member)).as_json())

    async def put(self, name: str, member: str) -> None:
        """Let them in, and choose their projects; again is no error."""
        self.query(NoQuery)
        stack = self.stack(name, Action.MEMBERS)
        # Most send nothing; an empty object says the same.
        wish = (
            self.body(ProjectsPut)
            if self.request.body.strip() not in (b"", b"{}")
            else ProjectsPut.model_validate({})
        )
        found = await known(self.site.hub, stack, self.kind, member)
        access = await chosen(self.site, self.person, stack, self.kind, found, wish)
        notice = self.notice(stack, Action.MEMBERS, let_in(stack, self.kind, found, self.person.name))
        await self.tell(
            await operations.add_member(self.site.store, stack.name, self.kind, found, access, notice)
        )

    post = put

    async def delete(self, name: str, member: str) -> None:
        """Let them in no longer; again is no error. Members may remove themselves."""
        self.query(NoQuery)
        stack = self.stack(name)
        leaves = self.kind == "users" and member == self.person.name
        if may(self.person, stack, Action.MEMBERS) or not leaves:
            stack = self.stack(name, Action.MEMBERS)
            notice = self.notice(stack, Action.MEMBERS, f"removed the {KINDS[self.kind]} {member}")
            await self.tell(
                await operations.remove_member(self.site.store, stack.name, self.kind, member, notice)
            )
            return
        stack = self.stack(name, Action.LEAVE)
        await operations.remove_member(self.site.store, stack.name, self.kind, member)
        self.set_status(204)


class Group(User):
    """One group whose users may use a stack."""

    kind = "groups"


class ProjectList(ApiHandler):
    """The projects among which the owner chooses for members."""

    async def get(self, name: str) -> None:
        """Answer numbers and names."""
        self.query(NoQuery)
        stack = self.stack(name, Action.PROJECTS)
        found = await projects_of(self.site, self.person, stack)
        answer = ProjectsAnswer(projects=[ProjectView(id=one.id, name=one.name) for one in found])
        self.answer(answer.as_json())


class Connect(ApiHandler):
    """The keys of the person who asks."""

    renew = False

    async def post(self, name: str) -> None:
        """Answer where the person's programs reach the stack, and with which keys."""
        self.query(NoQuery)
        stack = self.stack(name, Action.CONNECT)
        connections = need(self.site.connections)
        connection = await connections.provide(stack, self.person.name, renew=self.renew)
        if self.site.projects:
            self.site.projects.arrived(stack.name, self.person.name)
        answer = ConnectionAnswer(
            stack=stack.name,
            host=connection.host,
            public_key=connection.public_key,
            private_key=connection.private_key,
            user=connection.user,
            url=web_address(stack.status.url),
        )
        self.answer(answer.as_json())


class Rotate(Connect):
    """New keys for the person who asks; the old ones end."""

    renew = True


class Token(ApiHandler):
    """A short-lived token for the few addresses of Cytomine that take no signature."""

    async def post(self, name: str) -> None:
        """Answer the token and when it ends, in seconds since 1970."""
        self.query(NoQuery)
        stack = self.stack(name, Action.CONNECT)
        role = self.person.role(stack) or Role.USER
        token, ends = await need(self.site.connections).token(stack, self.person.name, role)
        self.answer(TokenAnswer(token=token, expires_at=ends).as_json())


def let_in(stack: Stack, kind: str, member: str, by: str) -> str:
    """What an administrator does who lets somebody in or chooses their projects, as the owner reads it."""
    if member in getattr(stack.spec.members, kind):
        return f"changed the projects of the {KINDS[kind]} {member}"
    if (kind, member) == ("users", by):
        return "let themselves in as a member"
    return f"invited the {KINDS[kind]} {member}"


def need(connections: Connections | None) -> Connections:
    """What gives out keys.

    Raises:
        Refusal: 503 where the service is not set up for it.
    """
    if connections is None:
        raise Refusal(503, "This service gives out no keys; an administrator has to set its identity up.")
    return connections


async def known(hub: Hub, stack: Stack, kind: str, member: str) -> str:
    """The name of a user or a group as the hub writes it.

    Raises:
        Refusal: 400 if the hub knows none of this name, or if it is the owner.
        StoreError: if the hub does not answer.
    """
    field, member = KINDS[kind], member.strip()
    if not member:
        raise Refusal(400, f"Give the name of the {field}.", field)
    found: str | None
    if kind == "users":
        user = await hub.user(member, fresh=True)
        found = user.name if user else None
    else:
        found = await hub.group(member)
    if found is None:
        raise Refusal(
            400,
            f"The hub knows no {field} called {member}. Ask them for the name at the top of their own page of stacks."
            if kind == "users"
            else f"The hub knows no group called {member}.",
            field,
        )
    if kind == "users" and found == stack.spec.owner:
        raise Refusal(400, f"{found} owns the stack and needs no invitation.", field)
    return found


def accesses(stack: Stack) -> list[Access]:
    """What the owner chose for each user and each group, said or not."""
    members = stack.spec.members
    return [
        members.access_of(kind, name) for kinds, kind in KINDS.items() for name in getattr(members, kinds)
    ]


async def shares_of(hub: Hub, stack: Stack) -> tuple[list[Share], str]:
    """With whom the server of a stack is shared; else a sentence that says why this is not known."""
    try:
        return await hub.shares(stack), ""
    except StoreError as error:
        return [], f"Who may use it by a share of the server is not known now. {error}"
