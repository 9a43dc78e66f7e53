"""What a Cytomine stack is: the spec a spawner writes, the status the operator writes, and the names.

Field names are Python's here and Kubernetes' in the object (``idle_timeout`` and ``idleTimeout``).
Everything in this module is pure: no input or output, no clock except where one is passed in.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar

from kubespawner.slugs import is_valid_label, multi_slug, safe_slug
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from pydantic.alias_generators import to_camel

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

GROUP = "cytomine-spawner.org"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "CytomineStack"
PLURAL = "cytominestacks"

MANAGED_BY = "cytomine-stacks"
PART_OF = "cytomine-spawner"

# Annotations of a stack that others write or read.
ANNOTATION_OWNER = f"{GROUP}/owner"
ANNOTATION_SERVER = f"{GROUP}/server-name"
ANNOTATION_ACTIVITY = f"{GROUP}/last-activity"
# Annotation of each child: the digest of what was applied last.
ANNOTATION_DIGEST = f"{GROUP}/applied"
# Annotation of a volume that outlives its stack: since when.
ANNOTATION_KEPT = f"{GROUP}/kept-since"
# The condition that says how the import of datasets stands.
DATASETS_IMPORTED = "DatasetsImported"
# Whether the owner may still have the datasets of the archive that are in the stack; absent while nobody looked.
DATASETS_GRANTED = "DatasetsGranted"
# The condition that says what the administrator's limits change for a stack that runs.
LIMITED = "Limited"
# Of a pod that imports a dataset of the archive: which one; and for whom the token is by which it says who it is.
ANNOTATION_DATASET = f"{GROUP}/dataset"
IMPORT_AUDIENCE = "cytomine-stacks"
# Labels of notebook pods, which decide who reaches a stack from inside the cluster.
LABEL_NOTEBOOK_USER = "hub.jupyter.org/username"
LABEL_NOTEBOOK_SERVER = "hub.jupyter.org/servername"
LABEL_NOTEBOOK_GROUP = f"group.{GROUP}"

# Where the stacks' login is, behind the address of the service and the stack: upstream's parts expect it in Keycloak's
# form.
REALM = "/iam/realms/cytomine"
ENDPOINTS = "/protocol/openid-connect"

# A StatefulSet's name may have 52 characters and the longest suffix of a component has 14.
NAME_LENGTH = 32
STACK_PREFIX = "cm-"
# Of the objects of members, which are no component's.
MEMBER_PREFIX = "cmk-"

# Kubernetes' names of objects.
NAME_PATTERN = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
M = TypeVar("M", bound="_Model")


class Phase(str, Enum):
    """Where a stack is in its life."""

    PENDING = "Pending"
    STARTING = "Starting"
    READY = "Ready"
    DEGRADED = "Degraded"
    HIBERNATING = "Hibernating"
    HIBERNATED = "Hibernated"
    FAILED = "Failed"
    DELETING = "Deleting"


class State(str, Enum):
    """Where one component is."""

    WAITING = "Waiting"
    PULLING = "Pulling"
    STARTING = "Starting"
    READY = "Ready"
    FAILED = "Failed"
    STOPPING = "Stopping"
    STOPPED = "Stopped"


class Desired(str, Enum):
    """What the owner wants."""

    RUNNING = "Running"
    HIBERNATED = "Hibernated"


class Extra(str, Enum):
    """Components that the owner may add."""

    CBIR = "cbir"
    MEILISEARCH = "meilisearch"
    SAM = "sam"
    APP_ENGINE = "app-engine"


class Reason(str, Enum):
    """Why a component or a stack failed or waits, for programs; the sentence is for people."""

    IMAGE_PULL = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    QUOTA = "QuotaExceeded"
    VOLUME = "VolumeNotBound"
    MOUNT = "MountFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    CRASH_LOOP = "CrashLoop"
    PROBE = "ProbeFailing"
    CONFIG = "ConfigInvalid"
    EVICTED = "Evicted"
    APPLY = "ApplyFailed"
    FORBIDDEN = "PodsForbidden"


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, populate_by_name=True, alias_generator=to_camel, use_enum_values=False, extra="forbid"
    )

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the Kubernetes object: camel case, JSON's types, nothing that is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def replace(self: M, **changes: Any) -> M:
        """A copy with some fields changed, validated again."""
        return type(self).model_validate(
            {**{k: getattr(self, k) for k in type(self).model_fields}, **changes}
        )


class Reach(str, Enum):
    """To how many of a stack's projects a member is added."""

    ALL = "all"
    NONE = "none"
    THESE = "these"


class ProjectRole(str, Enum):
    """What a member is in the projects of a stack."""

    USER = "user"
    MANAGER = "manager"


class ChosenProject(_Model):
    """A project that was chosen by its number in Cytomine, which never changes, with the name that it had then."""

    id: Annotated[int, Field(ge=1, lt=2**53)]
    name: Annotated[str, StringConstraints(max_length=255)] = ""


class Access(_Model):
    """To which projects of a stack's Cytomine a member is added, and as what. ``these`` counts only with its reach."""

    kind: Literal["user", "group"]
    name: Name
    projects: Reach = Reach.ALL
    these: tuple[ChosenProject, ...] = ()
    role: ProjectRole = ProjectRole.USER


class Members(_Model):
    """Who may use a stack beside its owner. Those without an entry in ``access`` are users of all projects."""

    users: tuple[Name, ...] = ()
    groups: tuple[Name, ...] = ()
    access: tuple[Access, ...] = ()

    def access_of(self, kind: str, name: str) -> Access:
        """To which projects a ``user`` or a ``group`` is added."""
        found = (one for one in self.access if (one.kind, one.name) == (kind, name))
        return next(found, None) or Access.model_validate({"kind": kind, "name": name})


class StackSpec(_Model):
    """What is wanted of a stack. Written by the spawner and the page, read by the operator.

    Attributes:
        owner: the hub's name of the user; cannot change.
        server_name: the named server that the stack belongs to, empty for the default one; cannot change.
        display_name: how pages call it.
        size: a key of the service's ``sizes``.
        components: the optional components to start.
        datasets: names of the datasets that are imported into it.
        members: who else may use it.
        owner_groups: the owner's groups, for quotas.
        desired_state: running or hibernated.
        idle_timeout: seconds without activity before it hibernates; 0 never; None the service's setting.
        keep_data: whether the volumes outlive the object.
        retry: raised by one to start what failed anew.
    """

    owner: Name
    server_name: Annotated[str, StringConstraints(max_length=255)] = ""
    display_name: Annotated[str, StringConstraints(max_length=200)] = ""
    size: Annotated[str, StringConstraints(max_length=20)] = "S"
    components: tuple[Extra, ...] = ()
    datasets: tuple[Name, ...] = ()
    members: Members = Members()
    owner_groups: tuple[Name, ...] = ()
    desired_state: Desired = Desired.RUNNING
    idle_timeout: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    keep_data: bool = False
    retry: Annotated[int, Field(ge=0)] = 0

    @field_validator("components", "datasets", "owner_groups")
    @classmethod
    def _unique(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        # The API server refuses a set with the same item twice.
        return tuple(dict.fromkeys(value))


class Condition(_Model):
    """One of Kubernetes' usual conditions: type, status, reason, message and when it changed."""

    type: str
    status: str
    reason: str
    message: str = ""
    last_transition_time: datetime
    observed_generation: int | None = None


class ComponentStatus(_Model):
    """The state of one component with one sentence for people.

    ``ready_seconds`` counts from the start of the stack until the component served.
    """

    name: str
    state: State
    message: str = ""
    reason: Reason | None = None
    restarts: int = 0
    ready_seconds: float | None = None


class FailedDataset(_Model):
    """A dataset that could not be imported, with what is said of it to people, and the try in which it failed."""

    name: str
    message: str
    run: str


class DatasetNote(_Model):
    """What was left out of a dataset that is in, as it is said to people."""

    name: str
    message: str


class DatasetProject(_Model):
    """The number in Cytomine of the project that holds a dataset, as its import told it."""

    name: str
    project: int


class StackStatus(_Model):
    """What is true of a stack. Written by the operator alone; see the CRD for the meaning of each field."""

    model_config = ConfigDict(**{**_Model.model_config, "extra": "ignore"})

    observed_generation: int | None = None
    observed_retry: int | None = None
    phase: Phase | None = None
    message: str = ""
    reason: Reason | None = None
    ready: str | None = None
    slowest: str | None = None
    url: str | None = None
    internal_url: str | None = None
    components: tuple[ComponentStatus, ...] = ()
    conditions: tuple[Condition, ...] = ()
    imported_datasets: tuple[str, ...] = ()
    failed_datasets: tuple[FailedDataset, ...] = ()
    dataset_notes: tuple[DatasetNote, ...] = ()
    dataset_projects: tuple[DatasetProject, ...] = ()
    revoked_datasets: tuple[str, ...] = ()
    started_at: datetime | None = None
    ready_at: datetime | None = None
    hibernated_at: datetime | None = None
    hibernated_by: str | None = None
    expires_at: datetime | None = None
    last_activity: datetime | None = None
    hibernates_at: datetime | None = None

    def condition(self, type_: str) -> Condition | None:
        """The condition of this type, if there is one."""
        return next((c for c in self.conditions if c.type == type_), None)


@dataclass(frozen=True)
class Import:
    """One try to import datasets, each by a Job of its own.

    Attributes:
        names: the datasets whose Jobs are to be there: those that failed, for their logs, and the one whose turn it is.
        run: tells this try from those after another start of the stack, whose keys are others, or after a retry.
    """

    names: tuple[str, ...]
    run: str


class Stack(_Model):
    """A stack as it stands in the cluster. ``uid`` is empty for one that was not created yet."""

    name: str
    namespace: str
    spec: StackSpec
    status: StackStatus = StackStatus()
    uid: str = ""
    generation: int = 1
    created: datetime | None = None
    deleting: bool = False
    annotations: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def from_object(cls, obj: Any) -> Stack:
        """Read a Kubernetes object (a mapping).

        Raises:
            pydantic.ValidationError: if the spec is not one that this version knows; the error names the field.
        """
        meta = obj["metadata"]
        return cls(
            name=meta["name"],
            namespace=meta.get("namespace", ""),
            uid=meta.get("uid", ""),
            generation=meta.get("generation", 1),
            created=parse_time(meta.get("creationTimestamp")),
            deleting=bool(meta.get("deletionTimestamp")),
            annotations=dict(meta.get("annotations") or {}),
            spec=StackSpec.model_validate(dict(obj.get("spec") or {})),
            status=StackStatus.model_validate(dict(obj.get("status") or {})),
        )

    def to_object(self) -> dict[str, Any]:
        """The object to create: name, labels, annotations and spec, without a status."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": stack_labels(self.name),
                "annotations": {
                    **self.annotations,
                    ANNOTATION_OWNER: self.spec.owner,
                    ANNOTATION_SERVER: self.spec.server_name,
                },
            },
            "spec": self.spec.to_dict(),
        }

    @property
    def owner_reference(self) -> dict[str, Any]:
        """What makes an object die with the stack."""
        return {"apiVersion": API_VERSION, "kind": KIND, "name": self.name, "uid": self.uid}

    @property
    def is_open(self) -> bool:
        """Whether there is a Cytomine to open: the stack was ready since it was started or resumed."""
        return self.spec.desired_state is Desired.RUNNING and self.status.ready_at is not None

    @property
    def activity(self) -> datetime | None:
        """The last activity that another part noted on the object, if any and readable."""
        return parse_time(self.annotations.get(ANNOTATION_ACTIVITY))


def new_stack(namespace: str, spec: StackSpec) -> Stack:
    """The stack of an owner and a server, not yet created, with its one possible name."""
    return Stack(name=stack_name(spec.owner, spec.server_name), namespace=namespace, spec=spec)


def stack_name(owner: str, server_name: str = "") -> str:
    """The name of the stack of an owner and a server: the object's, its host's and its children's prefix.

    At most 32 characters, always a valid DNS label, different for different pairs. The prefix keeps the
    children of a user called ``hub`` apart from the hub's own objects and the host apart from ``xn--``.
    """
    length = NAME_LENGTH - len(STACK_PREFIX)
    if not server_name:
        return f"{STACK_PREFIX}{safe_slug(owner, max_length=length)}"
    return f"{STACK_PREFIX}{multi_slug([owner, server_name], max_length=length)}"


def component_name(stack: str, component: str) -> str:
    """The name of a stack's object for one component, such as ``cm-ada-core``."""
    return f"{stack}-{component}"


def stack_labels(stack: str) -> dict[str, str]:
    """Labels of the stack object itself."""
    return {
        "app.kubernetes.io/name": "cytomine",
        "app.kubernetes.io/instance": stack,
        "app.kubernetes.io/part-of": PART_OF,
    }


def child_labels(stack: str, component: str) -> dict[str, str]:
    """Labels of every object that belongs to a stack."""
    return {
        **stack_labels(stack),
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": MANAGED_BY,
    }


def user_label(user: str) -> str:
    """The value of kubespawner's label ``hub.jupyter.org/username`` on a user's notebook pods."""
    return str(safe_slug(user, is_valid=is_valid_label))


def server_label(server_name: str) -> str:
    """The value of kubespawner's label ``hub.jupyter.org/servername`` on a server's notebook pod."""
    return str(safe_slug(server_name, is_valid=is_valid_label))


def group_label(group: str) -> str:
    """The key of the label that marks a notebook pod's user as member of a group; its value is ``member``."""
    return f"{LABEL_NOTEBOOK_GROUP}/{safe_slug(group, is_valid=is_valid_label)}"


def internal_url(stack: str, namespace: str) -> str:
    """Where notebooks reach the stack, without the browser's login."""
    return f"http://{component_name(stack, 'gateway')}.{namespace}.svc"


def connection_secret_name(stack: str, member: str = "") -> str:
    """The name of the Secret with the host and the keys of one person, at most 63 characters.

    No other object has such a name: what is named after a component of a stack begins with ``cm-``, as stacks do, and a
    member's does not. A member may be called as a component is, and a stack's owner ``ada-connection``.

    Args:
        stack: the stack's name.
        member: the hub's name of a member; empty for the stack's owner.
    """
    if not member:
        return component_name(stack, "connection")
    # Neither of the two names can hold a zero: no two pairs are written alike.
    digest = hashlib.sha256(f"{stack}\0{member}".encode()).hexdigest()[:24]
    return f"{MEMBER_PREFIX}{stack.removeprefix(STACK_PREFIX)}-{digest}"


def former_connection_name(stack: str, member: str) -> str:
    """What the Secret of a member's connection was called before: another stack's object can have the same name."""
    name = component_name(stack, "connection")
    return f"{name}-{safe_slug(member, max_length=63 - len(name) - 1)}"


def parse_time(text: str | None) -> datetime | None:
    """Kubernetes' or ISO 8601 time as an aware datetime; None for what is absent or not a time."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def format_time(time: datetime) -> str:
    """A time as Kubernetes writes it: UTC, whole seconds."""
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
