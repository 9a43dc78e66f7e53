"""The part of the spawner that starts a Cytomine stack beside the notebook."""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from jupyterhub.utils import maybe_future
from kubernetes_asyncio.client import V1SecretVolumeSource, V1Volume, V1VolumeMount
from traitlets import Bool, Dict, Integer, List, TraitError, Unicode, default, validate

from ..blueprint import quota
from ..cluster.stackapi import StackApi, StackTrouble
from ..common.names import display_name
from ..common.storageurls import SCHEME
from ..stack import model
from ..stack.model import StackSpec
from .archive_spawner import ArchiveSpawner
from .launch import Companion, Wanted, owner_groups
from .options.errors import Attempt
from .options.notebook import Offer, SpawnOptions
from .options.stack import (
    CytomineChoice,
    CytomineOffer,
    StackPart,
    offer_of,
    read_datasets,
    refused,
    settings_of,
)
from .options.stack_form import CytomineBlock, Standing, cytomine_block

# A pod may have any number of labels, but each one is carried by every watch of the pods.
MOST_GROUP_LABELS = 64
# Between the end of a wait for the stack and the hub's own limit of a start.
MARGIN = 5.0
VOLUME = "cytomine-connection"


class CompanionSpawner(ArchiveSpawner):
    """Offers a Cytomine stack in the options, and makes, follows and removes the object that stands for it.

    The stack's service does the rest. Whatever happens to the stack, the notebook starts.
    """

    cytomine_enabled = Bool(
        False,
        help="""
        Offer a Cytomine stack beside the notebook.

        Needs the CytomineStack resource definition, the stacks' service, and the hub's right to get, list, watch,
        create, patch and delete `cytominestacks` in the stacks' namespace. Sizes, components and quotas are those of
        `StackSettings`, which the hub and the service must be given alike.
        """,
    ).tag(config=True)

    cytomine_groups = List(
        Unicode(),
        help="Names of the JupyterHub groups whose members may have a stack. Empty: everybody may.",
    ).tag(config=True)

    cytomine_namespace = Unicode(
        help="""
        Namespace of the stacks. The default is `StackSettings.namespace` where that is set, else the notebook's own.
        """,
    ).tag(config=True)

    cytomine_wait = Bool(
        False,
        help="""
        Let the notebook's start wait until its stack is ready, or until it is known that it will not be soon.

        By default the notebook starts at once, and the stack when it is ready.
        """,
    ).tag(config=True)

    cytomine_wait_timeout = Integer(
        240,
        min=1,
        help="""
        Seconds to wait with `cytomine_wait`, counted from the beginning of the start. Then the notebook starts
        without its stack, and says so. Never longer than `start_timeout` allows.
        """,
    ).tag(config=True)

    cytomine_page_url = Unicode(
        help="""
        Address of the stacks' page as browsers know it, for links. The default is `services/cytomine/` of this hub.
        """,
    ).tag(config=True)

    cytomine_datasets = List(
        Dict(),
        help="""
        Datasets that a stack may be started with: dictionaries with the keys `name` and, if wanted, `title` and
        `description`. Empty: the form offers none. The default is what the stacks' service offers
        (`StackSettings.datasets`).
        """,
    ).tag(config=True)

    cytomine_connection_path = Unicode(
        "/var/run/secrets/cytomine",
        help="""
        Folder of the notebook's container with the host and the keys of its stack: one file each, there as soon as
        the stack's service has made them.
        """,
    ).tag(config=True)

    _companion: Companion | None = None
    _notices: list[dict[str, Any]]

    @default("cytomine_namespace")
    def _default_cytomine_namespace(self) -> str:
        return str(self.config.get("StackSettings", {}).get("namespace") or self.namespace)

    @default("cytomine_datasets")
    def _default_cytomine_datasets(self) -> Any:
        return self.config.get("StackSettings", {}).get("datasets") or []

    @default("cytomine_page_url")
    def _default_cytomine_page_url(self) -> str:
        return f"{str(self.hub.base_url).removesuffix('hub/')}services/cytomine/"

    @validate("cytomine_page_url")
    def _check_page_url(self, proposal: Any) -> str:
        return f"{str(proposal.value).rstrip('/')}/"

    @validate("cytomine_datasets")
    def _check_datasets(self, proposal: Any) -> Any:
        try:
            read_datasets(proposal.value)
        except ValueError as error:
            raise TraitError(f"CytomineSpawner.{error}") from None
        return proposal.value

    # What is offered

    @property
    def _groups(self) -> tuple[str, ...]:
        return tuple(group.name for group in getattr(self.user, "groups", ()))

    @property
    def stack_name(self) -> str:
        """The name of this server's stack, whether there is one or not."""
        return model.stack_name(self.user.name, self.name)

    def _cytomine_offer(self) -> CytomineOffer | None:
        """What this person may choose of Cytomine; None when the hub has none."""
        if not self.cytomine_enabled:
            return None
        if self.cytomine_groups and not set(self.cytomine_groups).intersection(self._groups):
            names = ", ".join(self.cytomine_groups)
            word = "group" if len(self.cytomine_groups) == 1 else "groups"
            return refused(f"Cytomine is for members of the {word} {names}, and you are not one.")
        try:
            offer = offer_of(settings_of(self.config), read_datasets(self.cytomine_datasets))
            return self._with_archive(offer) if self.archive_url else offer
        except (TraitError, ValueError, KeyError):
            self.log.exception("The settings of the stacks cannot be used")
            return refused(
                "Cytomine is not offered at the moment, because its settings on this hub are wrong. "
                "An administrator finds the cause in the hub's log."
            )

    async def _learn(self, chosen: object = None) -> None:
        if self.cytomine_enabled:
            await super()._learn(chosen)

    def _with_archive(self, offer: CytomineOffer) -> CytomineOffer:
        """The offer with the datasets of the archive."""
        granted = self._granted
        if not granted.trouble:
            said = "" if granted.datasets else "Your visas grant you no dataset of the archive."
            return replace(offer, granted=granted.parts, archive=said)
        # What was chosen before stays: the import looks at the grants itself.
        # Not what the hub's database holds, which may be the very options that are to be checked.
        chosen = self._accepted.get("cytomine") if isinstance(self._accepted, Mapping) else None
        names = chosen.get("datasets") if isinstance(chosen, Mapping) else None
        kept = [
            StackPart(name, unquote(name.removeprefix(SCHEME)))
            for name in (names if isinstance(names, (list, tuple)) else ())
            if isinstance(name, str) and name.startswith(SCHEME)
        ]
        return replace(offer, granted=tuple(kept), archive=granted.trouble)

    def offer(self) -> Offer:
        """The images, sizes and stacks that this server's owner may choose from now."""
        offer = super().offer()
        offer.cytomine = self._cytomine_offer()
        return offer

    async def _cytomine_block(
        self, offer: Offer, previous: object, attempt: Attempt | None
    ) -> CytomineBlock | None:
        if offer.cytomine is None:
            return None
        standing = Standing() if offer.cytomine.refusal else await self.standing()
        return cytomine_block(offer.cytomine, standing, previous, attempt)

    async def standing(self) -> Standing:
        """Look at the cluster: this server's stack, and whether it may run. One call, never raises."""
        try:
            settings = settings_of(self.config)
            everyone = settings.max_stacks or settings.max_stacks_per_group
            # Another user's stacks count only where there is such a limit.
            stacks = await self._stack_api().list(None if everyone else self._own_names())
        except StackTrouble as trouble:
            self.log.warning("The stacks of %s are not known: %s", self.user.name, trouble)
            return Standing(absent=str(trouble)) if trouble.final else Standing(unknown=str(trouble))
        except Exception:
            self.log.exception("The stacks of %s are not known", self.user.name)
            return Standing(unknown="The hub cannot tell; its log has the details.")
        name = self.stack_name
        stack = next((one for one in stacks if one.name == name), None)
        spec = StackSpec(owner=self.user.name, owner_groups=owner_groups(self._groups))
        holding = quota.holding(stacks)
        if stack is not None and stack in holding:
            return Standing(stack)
        return Standing(
            stack,
            quota.refusal(spec, name, holding, settings),
            quota.left(spec, name, holding, settings),
        )

    def _own_names(self) -> set[str]:
        servers = getattr(getattr(self.user, "orm_user", None), "orm_spawners", None) or {}
        return {self.stack_name, *(model.stack_name(self.user.name, server) for server in servers)}

    async def _no_place(self, options: SpawnOptions) -> str:
        """Why there is certainly no place for the stack, if one was chosen; "" if there may be."""
        return (await self.standing()).refusal if options.cytomine else ""

    # The notebook's pod

    @property
    def _choice(self) -> CytomineChoice | None:
        return self._options.cytomine if self._options and self.cytomine_enabled else None

    def _build_pod_labels(self, extra_labels: Mapping[str, str]) -> dict[str, str]:
        labels: dict[str, str] = super()._build_pod_labels(extra_labels)
        if self.cytomine_enabled:
            # The stacks' network policies let pods in by these, and their service counts running notebooks by the first.
            labels.setdefault(model.LABEL_NOTEBOOK_USER, model.user_label(self.user.name))
            groups = sorted(set(self._groups))
            if len(groups) > MOST_GROUP_LABELS:
                self.log.warning(
                    "%s is in %d groups; notebooks reach the stacks of the first %d only",
                    self.user.name,
                    len(groups),
                    MOST_GROUP_LABELS,
                )
            for group in groups[:MOST_GROUP_LABELS]:
                labels.setdefault(model.group_label(group), "member")
        return labels

    def get_env(self) -> dict[str, Any]:
        """KubeSpawner's environment, with where the stack is when one was chosen."""
        env: dict[str, Any] = super().get_env()
        if self._choice is not None:
            env.setdefault("CYTOMINE_STACK", self.stack_name)
            env.setdefault("CYTOMINE_HOST", model.internal_url(self.stack_name, self.cytomine_namespace))
            env.setdefault("CYTOMINE_CONNECTION_DIR", self.cytomine_connection_path)
        return env

    async def get_pod_manifest(self) -> Any:
        """KubeSpawner's pod, with the folder of the connection when a stack was chosen."""
        pod = await super().get_pod_manifest()
        if self._choice is not None:
            source = V1SecretVolumeSource(
                secret_name=model.connection_secret_name(self.stack_name),
                # The service makes it when the stack is ready, mostly after the notebook.
                optional=True,
                default_mode=0o440,
            )
            pod.spec.volumes = [*(pod.spec.volumes or []), V1Volume(name=VOLUME, secret=source)]
            mount = V1VolumeMount(name=VOLUME, mount_path=self.cytomine_connection_path, read_only=True)
            for container in pod.spec.containers:
                if container.name == "notebook":
                    container.volume_mounts = [*(container.volume_mounts or []), mount]
        return pod

    # The stack

    def _stack_api(self) -> StackApi:
        return StackApi(self.cytomine_namespace, self.k8s_api_request_timeout)

    async def _begin_companion(self) -> None:
        """Have the stack made, if one was chosen, beside all else; costs the start nothing."""
        await self.load_user_options()
        choice = self._choice
        if choice is None:
            return
        try:
            await self._end_companion()
            offer = self._cytomine_offer() or CytomineOffer()
            wanted = Wanted(self.user.name, self.name, choice, self._groups, offer.default_size or "S")
            self._companion = Companion(
                self._stack_api(),
                wanted,
                tell=self._tell_of_stack,
                title=self._stack_title,
                patience=self.k8s_api_request_retry_timeout,
                log=self.log,
            )
        except Exception:
            self.log.exception("The stack of %s cannot be started", self._log_name)
            self._tell_of_stack("Cytomine was not started: an error in the hub; its log has the details.")

    async def _await_companion(self, began: float) -> None:
        """Wait for the stack, if the administrator wants that.

        Args:
            began: when the start began, by the monotonic clock.
        """
        if self._companion is None or not self.cytomine_wait:
            return
        # The hub's own limit would end the notebook, too.
        most = min(float(self.cytomine_wait_timeout), self.start_timeout - MARGIN)
        end = await self._companion.wait(began + most - time.monotonic())
        if end is None:
            waited = time.monotonic() - began
            self._tell_of_stack(
                f"Cytomine is not ready after {waited:.0f} s; the notebook starts now, Cytomine when it is ready."
            )
        elif end:
            self._tell_of_stack("The notebook does not wait for Cytomine any longer.")

    async def _end_companion(self) -> None:
        companion, self._companion = self._companion, None
        if companion is not None:
            await companion.end()

    async def _stack_title(self) -> str:
        """How pages call the stack: after the person, as far as the hub knows a name."""
        state = (
            await maybe_future(self.user.get_auth_state()) if hasattr(self.user, "get_auth_state") else None
        )
        name = display_name(state) if isinstance(state, dict) else ""
        if not name:
            return ""
        return f"Cytomine of {name}" + (f" ({self.name})" if self.name else "")

    def _tell_of_stack(self, sentence: str) -> None:
        link = html.escape(f"{self.cytomine_page_url}stacks/{self.stack_name}")
        page = f'<a href="{link}" target="_blank" rel="noopener">Show Cytomine</a>'
        self._notices.append({"message": sentence, "html_message": f"{html.escape(sentence)} {page}"})

    async def delete_forever(self) -> None:
        """Remove the stack with its data, then what KubeSpawner removes. For a deleted user or named server."""
        if self.cytomine_enabled:
            await self._delete_stack()
        await super().delete_forever()

    async def _delete_stack(self) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + self.k8s_api_request_retry_timeout
        try:
            await self._end_companion()
            while True:
                try:
                    await self._stack_api().delete(self.stack_name)
                    return
                except StackTrouble as trouble:  # noqa: PERF203 - each attempt may fail
                    if trouble.final or clock() >= end:
                        raise
                    await asyncio.sleep(1)
        except Exception as error:
            # The hub goes on with the deletion, so that this line is all that tells of the stack.
            self.log.error(
                "The stack %s of %s was not deleted: %s Delete it on the stacks' page or with "
                "kubectl --namespace %s delete cytominestack %s.",
                self.stack_name,
                self._log_name,
                error,
                self.cytomine_namespace,
                self.stack_name,
            )
