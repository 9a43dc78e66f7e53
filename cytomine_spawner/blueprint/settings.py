"""The administrator's settings of the stacks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from traitlets import Bool, Dict, Enum, Integer, List, TraitError, Unicode, validate
from traitlets.config import LoggingConfigurable

from ..common.storageurls import SCHEME
from ..common.storageurls import check as check_url
from ..stack.model import Extra, Name

SECONDS_PER_DAY = 86_400
_KEYS = {"images", "components", "env", "overrides", "sizes"}


@dataclass(frozen=True)
class Values:
    """The value set in use: the packaged one, then the administrator's files, then the traits.

    Attributes:
        images: image of each component, and of ``wait``.
        components: whether a part that may be left out is there.
        env: variables by component; None removes one.
        overrides: patches of whole objects.
        sizes: for each size its title, its description and the resources of each component.
    """

    images: dict[str, str]
    components: dict[str, bool]
    env: dict[str, dict[str, str | None]]
    overrides: list[dict[str, Any]]
    sizes: dict[str, dict[str, Any]]


class OfferedDataset(BaseModel):
    """A dataset that can be put into a stack: one entry of the setting ``datasets``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    title: str = ""
    description: str = ""
    url: str = ""
    secret: str = ""

    @model_validator(mode="after")
    def _whole(self) -> OfferedDataset:
        if self.url:
            check_url(self.url)
        elif self.secret:
            raise ValueError("secret is of no use without url, which says where the dataset is")
        return self


def offered(entries: Iterable[Mapping[str, Any]]) -> list[OfferedDataset]:
    """Read the entries of a setting.

    Raises:
        ValueError: with the place, such as ``[0].name``, and the cause, when an entry is wrong or a name comes twice.
    """
    found: list[OfferedDataset] = []
    for index, entry in enumerate(entries):
        try:
            dataset = OfferedDataset.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, (f"[{index}]", *first["loc"])))
            raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
        if dataset.name in (other.name for other in found):
            raise ValueError(f": the name {dataset.name!r} is used more than once")
        found.append(dataset)
    return found


_DNS_PEERS: list[dict[str, Any]] = [
    {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    },
    {"ipBlock": {"cidr": "169.254.20.10/32"}},
]

_SCRATCH: dict[str, Any] = {"emptyDir": {}}
_INTERNET: list[dict[str, Any]] = [
    {
        "ipBlock": {
            "cidr": "0.0.0.0/0",
            "except": [
                "10.0.0.0/8",
                "172.16.0.0/12",
                "192.168.0.0/16",
                "100.64.0.0/10",
                "169.254.0.0/16",
                "127.0.0.0/8",
                "192.0.0.0/24",
            ],
        }
    }
]


class StackSettings(LoggingConfigurable):
    """What the stacks consist of and where they run. Used by the stack service."""

    namespace = Unicode("default", help="Namespace of the stacks.").tag(config=True)
    notebook_namespace = Unicode(
        "",
        help="Namespace of the notebooks, whose owners' and members' pods may reach a stack; the stacks' own if empty.",
    ).tag(config=True)
    service_namespace = Unicode("", help="Namespace of this service; the stacks' own if empty.").tag(
        config=True
    )
    service_labels = Dict(
        {"app.kubernetes.io/component": "stacks"},
        help="Labels that tell this service's pods in network policies.",
    ).tag(config=True)
    service_port = Integer(8000, help="Port on which this service's pods listen, for network policies.").tag(
        config=True
    )
    service_url = Unicode(
        "https://hub.example.org/services/cytomine",
        help="This service as browsers know it. The issuer of a stack's tokens is below it.",
    ).tag(config=True)
    service_internal_url = Unicode(
        "http://stacks:8000/services/cytomine", help="This service as the stacks' pods reach it."
    ).tag(config=True)
    stack_url = Unicode(
        "https://{stack}.stacks.example.org",
        help="""Where a browser opens a stack. ``{stack}`` stands for its name and must be the first part of the
        host: each stack needs a host of its own.""",
    ).tag(config=True)

    values_files = List(
        Unicode(),
        help="""YAML files with ``images``, ``components``, ``env``, ``sizes`` and ``overrides``, laid over the packaged
        ``values/cytomine.yaml`` one after the other.""",
    ).tag(config=True)
    images = Dict(help="Images by component, over those of the value files.").tag(config=True)
    image_names = Dict(
        help="""Other names for images: ``{"redis:7.2": "registry.example.org/mirror/redis:7.2"}``.
        Applied last; for mirrors and clusters that cannot reach public registries."""
    ).tag(config=True)
    image_pull_policy = Enum(["Always", "IfNotPresent", "Never"], "IfNotPresent", help="Pull policy.").tag(
        config=True
    )
    image_pull_secrets = List(Unicode(), help="Names of Secrets with logins of registries.").tag(config=True)
    env = Dict(help="Variables by component, over those of the value files; None removes one.").tag(
        config=True
    )
    sizes = Dict(help="Sizes, laid over those of the value files; None removes one.").tag(config=True)
    overrides = List(
        Dict(),
        help="""Changes of whole objects: partial Kubernetes objects with ``kind`` and, unless all of the kind are meant,
        ``name``: the component's. They are merged: maps by key, lists by ``name`` (mounts by ``mountPath``);
        null removes a key, ``$patch: delete`` an item of a list. For example

            [{"kind": "Deployment", "name": "pims", "spec": {"template": {"spec": {"nodeSelector": {"disk": "fast"}}}}}]
        """,
    ).tag(config=True)
    allowed_components = List(
        Enum([e.value for e in Extra]),
        [Extra.CBIR.value, Extra.MEILISEARCH.value, Extra.SAM.value],
        help="Optional components that users may choose. The app engine also needs its three settings.",
    ).tag(config=True)

    storage_classes = Dict(
        help="""Storage class by component (``postgis``, ``pims``, ...) or ``default``; the cluster's default if absent."""
    ).tag(config=True)
    images_access_mode = Enum(
        ["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"],
        "ReadWriteOnce",
        help="Access mode of the slides' volume.",
    ).tag(config=True)
    node_selector = Dict(help="Labels of nodes on which stacks may run.").tag(config=True)
    tolerations = List(Dict(), help="Taints that stacks tolerate.").tag(config=True)
    affinity = Dict(help="Affinity of all pods of stacks.").tag(config=True)
    priority_class = Unicode("", help="Priority class of all pods of stacks.").tag(config=True)
    user_id = Integer(20000, min=1, help="User and group that all containers run as.").tag(config=True)

    ingress_enabled = Bool(True, help="Make an Ingress for each stack.").tag(config=True)
    entrance = Bool(
        False,
        help="""Whether an Ingress for all stacks' hosts leads to this service, as the chart makes it. A stack's own
        Ingress is then there only while the stack serves; before that and after that a browser that opens its address
        is sent to a page that says how far the stack is, and goes on from there.""",
    ).tag(config=True)
    ingress_class = Unicode("", help="Ingress class; the cluster's default if empty.").tag(config=True)
    ingress_annotations = Dict(
        {
            "nginx.ingress.kubernetes.io/proxy-body-size": "0",
            "nginx.ingress.kubernetes.io/proxy-request-buffering": "off",
            "nginx.ingress.kubernetes.io/proxy-read-timeout": "3600",
            "nginx.ingress.kubernetes.io/proxy-send-timeout": "3600",
            "nginx.ingress.kubernetes.io/proxy-buffer-size": "16k",
        },
        help="""Annotations of each Ingress. Uploads have gigabytes: no limit of size, no buffering, long time-outs. A
        session's cookies are longer than the usual buffer.""",
    ).tag(config=True)
    tls_secret = Unicode(
        "", help="Secret with a certificate for all stacks' hosts (a wildcard); none if empty."
    ).tag(config=True)
    ingress_peers = List(
        Dict(),
        [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}],
        help="""From where the ingress controller comes, as peers of a NetworkPolicy. Empty: from no pod, for controllers
        on the node's own network.""",
    ).tag(config=True)
    dns_peers = List(
        Dict(),
        _DNS_PEERS,
        minlen=1,
        help="""Where the cluster's DNS runs, as peers of a NetworkPolicy: CoreDNS or kube-dns with their usual label, and the
        usual address of the nodes' own cache (NodeLocal DNSCache). Nothing else can be asked at its ports: a name would
        carry data out.""",
    ).tag(config=True)
    dns_ports = List(
        Integer(min=1, max=65535), [53], minlen=1, help="Ports of the cluster's DNS pods (OpenShift: 5353)."
    ).tag(config=True)
    public_access = Enum(
        ["login", "closed", "open"],
        "login",
        help="""How browsers reach a stack: ``login`` for its owner and members, with a session that oauth2-proxy keeps;
        ``closed`` not at all. ``open`` lets everybody in. Core serves images to whoever asks: for trials with public
        data only.""",
    ).tag(config=True)
    session_refresh = Integer(
        240,
        # Requests that were on their way while a session was renewed are good for so long (identity.grants): a session
        # that is renewed more often could end by them.
        min=10,
        help="""Seconds after which a browser's session asks anew whether its user may still use the stack: so long may
        somebody who was removed go on. Must be less than the life of an access token (five minutes).""",
    ).tag(config=True)
    session_expire = Integer(
        24 * 3600,
        min=300,
        help="Seconds after its last refresh that a browser's session ends; the user then logs in again.",
    ).tag(config=True)

    admin_email = Unicode("admin@example.org", help="Address of Cytomine's technical user.").tag(config=True)
    app_engine_namespace = Unicode("", help="Namespace in which the app engine runs its tasks.").tag(
        config=True
    )
    app_engine_token_secret = Unicode(
        "", help="Secret whose ``token`` lets the app engine run pods in that namespace and nothing else."
    ).tag(config=True)
    app_engine_registry = Unicode("", help="The app engine's registry as the nodes pull from it.").tag(
        config=True
    )

    datasets = List(
        Dict(),
        help="""Datasets that can be put into a stack: dictionaries with the key ``name``, the dataset's own in
        ``dataset_volume``, and, if wanted, ``title`` and ``description`` for the options. One that is not on the volume has a
        ``url`` as well, of its folder ``DATASET_<name>`` in object storage or at a web address (``s3://bucket/DATASET_colon``),
        and, if it needs credentials, the name of a ``secret`` in the stacks' namespace, whose keys are options of the
        filesystem, such as ``endpoint``, ``access_key_id`` and ``secret_access_key``.""",
    ).tag(config=True)
    dataset_volume = Dict(
        help="""The volume with the datasets: a volume of a pod without its name, in the stacks' namespace, such as
        ``{"persistentVolumeClaim": {"claimName": "datasets", "readOnly": True}}``. It is mounted read-only by the Job
        that imports, and holds a folder for each dataset, as the Bigpicture archive lays them out:
        ``<any name>/DATASET_<name>/IMAGES/<alias>/<files>``."""
    ).tag(config=True)
    dataset_peers = List(
        Dict(),
        _INTERNET,
        minlen=1,
        help="""Where datasets with a ``url`` are, as peers of a NetworkPolicy for what imports them: the internet, without
        private addresses and the clouds' metadata services, unless set.""",
    ).tag(config=True)
    dataset_ports = List(
        Integer(min=1, max=65535), [443], minlen=1, help="Ports at which datasets with a ``url`` are reached."
    ).tag(config=True)
    dataset_scratch = Dict(
        _SCRATCH,
        help="""Where a slide lies on its way from the archive, or from a dataset's ``url``: a volume of a pod without its name. It
        must hold the largest slide, twice where slides have several files; it goes with the import.""",
    ).tag(config=True)
    archive_url = Unicode(
        "",
        help="""Address of the archive whose datasets, by names that begin with ``sda://``, can be put into stacks as well, with
        what its owner's LS Login visas grant; none if empty. The spawner's ``archive_url``.""",
    ).tag(config=True)
    archive_allow_http = Bool(
        False,
        help="Let tokens travel unencrypted to ``archive_url``: for an archive within the cluster, in trials.",
    ).tag(config=True)
    archive_peers = List(
        Dict(),
        _INTERNET,
        minlen=1,
        help="""Where the archive is, as peers of a NetworkPolicy for what imports from it: the internet, without private
        addresses and the clouds' metadata services, unless set.""",
    ).tag(config=True)
    archive_ports = List(
        Integer(min=1, max=65535), [443], minlen=1, help="Ports at which the archive is reached."
    ).tag(config=True)
    archive_revoked = Enum(
        ["keep", "hide", "delete"],
        "hide",
        help="""What becomes of a dataset of the archive that was imported into a stack, when a start of the stack finds that its
        owner is not granted it any more. ``hide``: everybody is taken out of its project in Cytomine, and put back when it is
        granted again. ``delete``: the slides that the import brought are deleted with their annotations, and the project if the
        import made it and nothing else is in it. ``keep``: nothing. It is said on the card in any case,
        and nothing is done while it cannot be known.""",
    ).tag(config=True)
    archive_resources = Dict(
        {"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}},
        help="What an import from the archive may use, as in a container.",
    ).tag(config=True)
    dataset_image = Unicode(
        "cytomine-spawner/stacks", help="The image that imports datasets: that of this service."
    ).tag(config=True)
    dataset_resources = Dict(
        {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
        help="What an import may use, as in a container. Slides are sent piece by piece: their size does not matter.",
    ).tag(config=True)
    dataset_deadline = Integer(
        24 * 3600,
        min=60,
        help="Seconds after which the import of a dataset that has not ended counts as failed.",
    ).tag(config=True)

    idle_timeout = Integer(
        4 * 3600,
        min=0,
        help="Seconds without activity before a stack hibernates, unless its own says so; 0 for never.",
    ).tag(config=True)
    max_idle_timeout = Integer(
        0,
        min=0,
        help="""The longest ``idle_timeout`` that a stack may have, in seconds; 0 for no limit. Owners who ask for more, or
        for never, are refused; where a stack has more already, this holds.""",
    ).tag(config=True)
    max_life = Integer(
        0,
        min=0,
        help="""Seconds after its start that a stack hibernates even while it is used; 0 for no limit. Its data stay, and
        its owner can resume it at once.""",
    ).tag(config=True)
    retention = Integer(
        90 * SECONDS_PER_DAY,
        min=0,
        help="Seconds that a hibernated stack is kept before it is deleted with its data; 0 for ever.",
    ).tag(config=True)
    orphan_volume_grace = Integer(
        7 * SECONDS_PER_DAY,
        min=0,
        help="""Seconds that a volume is kept whose stack is gone without having been deleted in the usual way, for
        example because its object was removed by hand. Volumes that an owner chose to keep stay for ever.""",
    ).tag(config=True)
    unschedulable_grace = Integer(
        3,
        min=0,
        help="""Seconds before a component that fits on no node counts as failed; more where nodes are added on demand.
        It starts in any case as soon as there is room.""",
    ).tag(config=True)
    probe_grace = Integer(
        240, min=10, help="Seconds that a running component may take to answer its health check."
    ).tag(config=True)
    max_stacks = Integer(0, min=0, help="Stacks that may run at the same time in all; 0 for no limit.").tag(
        config=True
    )
    max_stacks_per_user = Integer(1, min=0, help="Running stacks that one user may own; 0 for no limit.").tag(
        config=True
    )
    max_stacks_per_group = Dict(
        help="Running stacks that the members of a group may own together, by group; ``*`` for those not named."
    ).tag(config=True)

    @validate("stack_url")
    def _host_first(self, proposal: Any) -> str:
        url = str(proposal["value"])
        host = urlsplit(url.replace("{stack}", "cm-name")).hostname or ""
        if not host.startswith("cm-name.") or url.count("{stack}") != 1:
            msg = (
                f"StackSettings.stack_url is {url!r}, but must be a URL whose host begins with '{{stack}}.', such as "
                "https://{stack}.stacks.example.org"
            )
            raise TraitError(msg)
        return url.rstrip("/")

    @validate("datasets")
    def _named_once(self, proposal: Any) -> Any:
        try:
            offered(proposal["value"])
        except ValueError as error:
            raise TraitError(f"StackSettings.datasets{error}") from None
        return proposal["value"]

    @cached_property
    def dataset_titles(self) -> dict[str, str]:
        """The titles of the datasets that are offered, by name."""
        return {dataset.name: dataset.title or dataset.name for dataset in offered(self.datasets)}

    @cached_property
    def dataset_sources(self) -> dict[str, OfferedDataset]:
        """The datasets that are not on the volume, by name."""
        return {dataset.name: dataset for dataset in offered(self.datasets) if dataset.url}

    def offers(self, dataset: str) -> bool:
        """Whether a dataset can be put into a stack, as far as the settings go."""
        return dataset in self.dataset_titles or (bool(self.archive_url) and dataset.startswith(SCHEME))

    def dataset_title(self, dataset: str) -> str:
        """What people read of a dataset: its title, or the id of one of the archive."""
        return self.dataset_titles.get(dataset) or unquote(dataset.removeprefix(SCHEME))

    def url(self, stack: str) -> str:
        """Where a browser opens a stack; without a slash at the end."""
        return self.stack_url.replace("{stack}", stack)

    def host(self, stack: str) -> str:
        """The host of a stack."""
        return urlsplit(self.url(stack)).hostname or ""

    @property
    def unpinned(self) -> list[str]:
        """The images, by component, that have a tag and no digest: what is behind a tag can change."""
        named = {**self.values.images, "datasets": self.dataset_image}
        return [f"{name}: {image}" for name, image in sorted(named.items()) if "@sha256:" not in image]

    @cached_property
    def values(self) -> Values:
        """The value set in use. Read once: restart the service after changes.

        Raises:
            ValueError: a file has a key that is not known, or cannot be read.
        """
        merged = copy.deepcopy(_packaged())
        for name in self.values_files:
            _lay_over(merged, _read(Path(name)), name)
        _lay_over(merged, {"images": self.images, "env": self.env, "sizes": self.sizes}, "StackSettings")
        merged["overrides"] = [*merged.get("overrides", []), *self.overrides]
        images = {k: self.image_names.get(v, v) for k, v in merged["images"].items()}
        sizes = {name: size for name, size in merged["sizes"].items() if size}
        return Values(images, merged["components"], merged["env"], merged["overrides"], sizes)


@lru_cache(maxsize=1)
def _packaged() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("values/cytomine.yaml").read_text()
    return dict(yaml.safe_load(text))


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        msg = f"The stacks' value file {path} cannot be read: {error}"
        raise ValueError(msg) from error
    if not isinstance(values, dict) or not set(values) <= _KEYS:
        msg = f"The stacks' value file {path} may have only the keys {', '.join(sorted(_KEYS))}"
        raise ValueError(msg)
    return values


def _lay_over(base: dict[str, Any], top: dict[str, Any], source: str) -> None:
    for key in ("images", "components"):
        base.setdefault(key, {}).update(top.get(key) or {})
    for key in ("env", "sizes"):
        for name, value in (top.get(key) or {}).items():
            if value is None:
                base[key][name] = None
                continue
            if not isinstance(value, dict):
                msg = f"{source}: {key}.{name} must be a map"
                raise ValueError(msg)
            _merge(base[key].setdefault(name, {}), value)
    base["overrides"] = [*(base.get("overrides") or []), *(top.get("overrides") or [])]


def _merge(base: dict[str, Any], top: dict[str, Any]) -> None:
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value
