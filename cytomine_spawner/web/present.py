"""A stack in words: what the page and the REST API say of it, computed in one place."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from ..common.names import plain
from ..stack import notices
from ..stack.components import TITLES
from ..stack.model import (
    DATASETS_GRANTED,
    DATASETS_IMPORTED,
    LIMITED,
    ComponentStatus,
    Condition,
    Desired,
    Phase,
    Stack,
    State,
)
from ..stack.people import Role
from ..stack.rights import Action, Person, may
from ..stack.state import can_retry, is_going

PHASES = {
    None: "Waiting",
    Phase.PENDING: "Waiting",
    Phase.STARTING: "Starting",
    Phase.READY: "Ready",
    Phase.DEGRADED: "Partly working",
    Phase.HIBERNATING: "Hibernating",
    Phase.HIBERNATED: "Hibernated",
    Phase.FAILED: "Failed",
    Phase.DELETING: "Being deleted",
}
STATES = {
    State.WAITING: "waiting",
    State.PULLING: "fetching its image",
    State.STARTING: "starting",
    State.READY: "ready",
    State.FAILED: "failed",
    State.STOPPING: "stopping",
    State.STOPPED: "stopped",
}
# One of five looks; the words say the same without colour.
LOOKS = {
    Phase.READY: "good",
    Phase.DEGRADED: "warn",
    Phase.FAILED: "bad",
    Phase.HIBERNATED: "rest",
    Phase.DELETING: "rest",
    State.READY: "good",
    State.FAILED: "bad",
    State.STOPPED: "rest",
}
USES = {
    "hibernate": Action.HIBERNATE,
    "logs": Action.LOGS,
    "delete": Action.DELETE,
    "open": Action.OPEN,
    "resume": Action.RESUME,
    "retry": Action.RETRY,
    "connect": Action.CONNECT,
    "members": Action.MEMBERS,
    "leave": Action.LEAVE,
}


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class ComponentView(_View):
    """One component of a stack."""

    name: str
    title: str = Field(description="What the component is, in words.")
    state: State
    state_words: str
    message: str = Field(description="One sentence for people.")
    reason: str | None = Field(description="The cause of a failure in one word, for programs.")
    restarts: int
    ready_seconds: float | None = Field(
        description="Seconds from the stack's start until the component served."
    )
    slowest: bool = Field(description="Whether the stack waits for this one.")

    @property
    def look(self) -> str:
        """The look of the state."""
        return LOOKS.get(self.state, "busy")


class MembersView(_View):
    """Whom the owner let in."""

    users: list[str]
    groups: list[str]


class ImportView(_View):
    """How the import of datasets stands."""

    reason: str = Field(description="Waiting, Importing, Imported, Failed or NotOffered, for programs.")
    message: str = Field(description="One sentence for people.")

    @property
    def look(self) -> str:
        """The look of the state."""
        return {"Imported": "good", "Importing": "busy", "Waiting": "busy"}.get(self.reason, "bad")


class NoticeView(_View):
    """What an administrator of the hub did to the stack."""

    at: datetime
    who: str = Field(description="The administrator's name at the hub.")
    message: str = Field(description="One sentence for people.")


class StackView(_View):
    """A stack as its owner, a member or an administrator sees it."""

    name: str
    owner: str
    server_name: str
    display_name: str
    title: str = Field(description="The display name, or one made of the server's name.")
    size: str
    extras: list[str] = Field(description="The optional components.")
    desired_state: Desired
    idle_timeout: int | None = Field(description="Seconds; 0 for never; null for the service's setting.")
    phase: Phase | None
    state: str = Field(description="The phase in words.")
    message: str = Field(description="One sentence: what the stack does or why it failed.")
    reason: str | None = Field(description="The cause of a failure in one word, for programs.")
    limits: str = Field(
        description="What the administrator's limits mean for it, in sentences; mostly empty."
    )
    grants: str = Field(
        description="Which datasets of the archive are granted no more and what became of their copies, or why that is not "
        "known, in sentences; mostly empty."
    )
    note: str = Field(description="What was asked for and is not acted on yet; mostly empty.")
    ready: str | None = Field(description="Components that serve, of all that should, such as 5/7.")
    slowest: str | None
    components: list[ComponentView]
    datasets: ImportView | None = Field(description="The import of datasets; null where none was asked for.")
    url: str | None = Field(description="Where a browser opens the stack.")
    role: Role | None = Field(
        description="Why the person who asks may use it; null for an administrator who may not."
    )
    members: MembersView | None = Field(
        description="Who may use it beside the owner; null for those who may not change that."
    )
    notices: list[NoticeView] = Field(
        description="The last acts of administrators on it, the oldest first; empty for those who may not change members."
    )
    created: datetime | None
    started_at: datetime | None
    ready_at: datetime | None
    last_activity: datetime | None
    hibernates_at: datetime | None = Field(description="When it hibernates unless somebody uses it.")
    hibernated_at: datetime | None
    hibernated_by: str | None
    expires_at: datetime | None = Field(
        description="When it is deleted with its data unless somebody resumes it."
    )
    actions: list[str] = Field(description="What the person who asks may do with it now.")

    @property
    def look(self) -> str:
        """The look of the state."""
        return LOOKS.get(self.phase, "busy") if self.phase else "busy"


def possible(stack: Stack) -> set[str]:
    """What can be done with a stack in its present state, whoever asks."""
    if is_going(stack):
        return {"logs"}
    actions = {"delete", "logs", "members", "leave"}
    running = stack.spec.desired_state is Desired.RUNNING
    actions.add("hibernate" if running else "resume")
    if running and can_retry(stack):
        actions.add("retry")
    if running and stack.status.phase in (Phase.READY, Phase.DEGRADED) and web_address(stack.status.url):
        actions |= {"open", "connect"}
    return actions


def web_address(url: str | None) -> str | None:
    """The address if a browser may follow it; never a script."""
    return url if url and urlsplit(url).scheme in ("http", "https") else None


def view(stack: Stack, person: Person) -> StackView:
    """What a person is told of a stack that they may see."""
    status, spec = stack.status, stack.spec
    phase = Phase.DELETING if stack.deleting else status.phase
    now_possible = possible(stack)
    opens = may(person, stack, Action.OPEN)
    # Asleep or going: what the components' sentences said before is no news any more.
    waits = phase in (None, Phase.PENDING, Phase.STARTING, Phase.DEGRADED, Phase.FAILED)
    slowest = status.slowest if waits else None
    return StackView(
        name=stack.name,
        owner=spec.owner,
        server_name=spec.server_name,
        display_name=plain(spec.display_name),
        title=plain(spec.display_name)
        or (f"Cytomine of {spec.server_name}" if spec.server_name else "Cytomine"),
        size=spec.size,
        extras=[c.value for c in spec.components],
        desired_state=spec.desired_state,
        idle_timeout=spec.idle_timeout,
        phase=phase,
        state=PHASES[phase],
        message=status.message or _usual_message(phase),
        reason=status.reason.value if status.reason else None,
        limits=_limits(stack),
        note=_note(stack),
        ready=status.ready,
        slowest=slowest,
        components=[_component(c, slowest) for c in status.components],
        datasets=_import(status.condition(DATASETS_IMPORTED)),
        grants=_grants(stack),
        url=web_address(status.url) if opens else None,
        role=person.role(stack),
        members=MembersView(users=list(spec.members.users), groups=list(spec.members.groups))
        if may(person, stack, Action.MEMBERS)
        else None,
        notices=[
            NoticeView(at=one.at, who=plain(one.who), message=plain(str(one))) for one in notices.of(stack)
        ]
        if may(person, stack, Action.MEMBERS)
        else [],
        created=stack.created,
        started_at=status.started_at,
        ready_at=status.ready_at,
        last_activity=max(filter(None, (status.last_activity, stack.activity)), default=None),
        hibernates_at=status.hibernates_at,
        hibernated_at=status.hibernated_at,
        hibernated_by=status.hibernated_by,
        expires_at=status.expires_at,
        actions=[name for name in USES if name in now_possible and may(person, stack, USES[name])],
    )


def _component(status: ComponentStatus, slowest: str | None) -> ComponentView:
    return ComponentView(
        name=status.name,
        title=TITLES.get(status.name, status.name),
        state=status.state,
        state_words=STATES[status.state],
        message=status.message,
        reason=status.reason.value if status.reason else None,
        restarts=status.restarts,
        ready_seconds=status.ready_seconds,
        slowest=status.name == slowest,
    )


def _import(condition: Condition | None) -> ImportView | None:
    return ImportView(reason=condition.reason, message=condition.message) if condition else None


def _usual_message(phase: Phase | None) -> str:
    return {
        None: "The service has not looked at it yet.",
        Phase.PENDING: "It waits for its turn.",
        Phase.STARTING: "Its components are starting.",
        Phase.READY: "All components serve.",
        Phase.DEGRADED: "Some components do not serve.",
        Phase.HIBERNATING: "Its components are stopping; its data stay.",
        Phase.HIBERNATED: "It uses no memory and no processor; its data are kept.",
        Phase.FAILED: "It could not start.",
        Phase.DELETING: "Its components are being removed.",
    }[phase]


def _limits(stack: Stack) -> str:
    found = stack.status.condition(LIMITED) if stack.spec.desired_state is Desired.RUNNING else None
    return found.message if found else ""


def _grants(stack: Stack) -> str:
    found = stack.status.condition(DATASETS_GRANTED)
    return found.message if found and found.status != "True" else ""


def _note(stack: Stack) -> str:
    """What was asked for and is not in the status yet."""
    status, spec = stack.status, stack.spec
    if is_going(stack):
        return "Its volumes stay." if spec.keep_data else "Its volumes are deleted with it."
    if status.observed_generation is None or status.observed_generation >= stack.generation:
        return ""
    if spec.desired_state is Desired.HIBERNATED and status.phase not in (Phase.HIBERNATING, Phase.HIBERNATED):
        return "Hibernation was asked for and begins in a moment."
    if spec.desired_state is Desired.RUNNING and status.phase in (Phase.HIBERNATING, Phase.HIBERNATED):
        return "It was asked to resume and begins in a moment."
    if spec.retry > (status.observed_retry or 0):
        return "Another try was asked for and begins in a moment."
    return "A change was asked for and is acted on in a moment."


# -- times ------------------------------------------------------------------------------------------------
