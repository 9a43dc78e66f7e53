"""The part of the spawner that offers images and sizes, and takes what was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jupyterhub
from kubespawner import KubeSpawner
from traitlets import Any as AnyTrait
from traitlets import Dict, List, TraitError, default, validate

from .options.errors import Attempt, OptionsError
from .options.form import render_form
from .options.notebook import (
    ImageChoice,
    Offer,
    SizeChoice,
    SpawnOptions,
    parse_form,
    parse_json,
    read_choices,
)
from .options.stack_form import CytomineBlock

# JupyterHub 5 ends the hub after some failed starts in a row and counts refused options among them; 6 does not.
COUNTS_REFUSALS = jupyterhub.version_info[0] < 6

# What a link to the form may hold beside options: JupyterHub reads these itself.
HUBS_OWN = frozenset(("next", "display_name"))
# What JupyterHub 6 puts before the names of options in links.
MARK = "opt-"

SIZES = [
    {
        "name": "small",
        "display_name": "Small",
        "description": "Browsing slides and scripting.",
        "cpu_guarantee": 0.25,
        "cpu_limit": 1,
        "mem_guarantee": "1G",
        "mem_limit": "2G",
        "default": True,
    },
    {
        "name": "medium",
        "display_name": "Medium",
        "description": "Working on regions of slides.",
        "cpu_guarantee": 0.5,
        "cpu_limit": 2,
        "mem_guarantee": "4G",
        "mem_limit": "4G",
    },
    {
        "name": "large",
        "display_name": "Large",
        "description": "Analysing whole slides.",
        "cpu_guarantee": 1,
        "cpu_limit": 4,
        "mem_guarantee": "8G",
        "mem_limit": "8G",
    },
]


class ChoicesSpawner(KubeSpawner):  # type: ignore[misc]
    """KubeSpawner with one list of images and one of sizes, checked the same way for the form and the REST API."""

    notebook_images = List(
        Dict(),
        help="""
        The notebook images to choose from.

        A list of dictionaries with the keys `name` (lower-case letters, digits, `-` and `.`; what the REST API
        takes), `image` (what Kubernetes pulls) and, if wanted, `display_name`, `description` and `default` (true
        for the one that is preselected; else the first is). Empty: the image of `KubeSpawner.image`, without a
        choice.
        """,
    ).tag(config=True)

    notebook_sizes = List(
        Dict(),
        SIZES,
        help="""
        The notebook sizes to choose from.

        A list of dictionaries with the keys `name` and, if wanted, `display_name`, `description`, `default`,
        `cpu_guarantee` and `cpu_limit` (in cores), `mem_guarantee` and `mem_limit` (such as `512M` or `2G`), and
        `groups`: names of the JupyterHub groups that may choose this size. At least one size must be open to all.
        """,
    ).tag(config=True)

    # The hub assigns what a client sent before any hook runs; a Dict trait would make a list sent to JupyterHub 5
    # a TraitError, and so a 500.
    user_options = AnyTrait({})
    consecutive_failure_limit: Any  # JupyterHub's own trait, named here for the type checker

    _attempt: Attempt | None = None
    _options: SpawnOptions | None = None
    _refused = False
    # What a start without options of its own does otherwise than the last one, in sentences.
    _told: list[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._configured_image = self.image
        self._accepted = self.user_options
        self._told = []

    @validate("notebook_images")
    def _check_images(self, proposal: Any) -> Any:
        return _checked(ImageChoice, proposal.value, "CytomineSpawner.notebook_images")

    @validate("notebook_sizes")
    def _check_sizes(self, proposal: Any) -> Any:
        if not proposal.value:
            raise TraitError("CytomineSpawner.notebook_sizes: give at least one size")
        return _checked(SizeChoice, proposal.value, "CytomineSpawner.notebook_sizes")

    @validate("profile_list")
    def _check_profile_list(self, proposal: Any) -> Any:
        if proposal.value:
            raise TraitError(
                "profile_list is not used by CytomineSpawner: move its images to CytomineSpawner.notebook_images "
                "and its resources to CytomineSpawner.notebook_sizes"
            )
        return proposal.value

    def offer(self) -> Offer:
        """The images and sizes that this server's owner may choose from now."""
        images = self.notebook_images or [{"name": "default", "image": self._configured_image}]
        groups = [group.name for group in getattr(self.user, "groups", ())]
        return Offer(
            read_choices(ImageChoice, images, "notebook_images"),
            read_choices(SizeChoice, self.notebook_sizes, "notebook_sizes"),
            groups,
        )

    @default("options_form")
    def _options_form_default(self) -> Any:
        return self._render_form

    async def _learn(self, chosen: object = None) -> None:
        """Find out what else is offered that only others know, before the offer is looked at.

        Args:
            chosen: what is to be checked; None where all is to be shown.
        """
        del chosen

    async def _render_form(self, _spawner: Any) -> str:
        await self._learn()
        attempt, self._attempt = self._attempt, None
        stored = self.orm_spawner.user_options if self.orm_spawner else self.user_options
        offer = self.offer()
        return render_form(offer, stored, attempt, await self._cytomine_block(offer, stored, attempt))

    async def _cytomine_block(
        self, offer: Offer, previous: object, attempt: Attempt | None
    ) -> CytomineBlock | None:
        """The form's block about Cytomine; None without one."""

    @default("options_from_form")
    def _options_from_form_default(self) -> Any:
        return self._options_from_form

    async def _options_from_form(self, formdata: Mapping[str, Any]) -> dict[str, Any]:
        await self._learn(formdata)
        try:
            return parse_form(formdata, self.offer()).model_dump(exclude_none=True)
        except OptionsError as error:
            # After a refused form the hub renders that of the default server, whichever server was to be started.
            shown_by: Any = getattr(self.user, "spawner", self)
            shown_by._attempt = Attempt(formdata, error)
            raise

    def options_from_query(self, query_data: Mapping[str, Any]) -> dict[str, Any]:
        """Start nothing: a link's choices only fill in the form, see `run_auth_state_hook`.

        Raises:
            OptionsError: always; the hub shows the form then.
        """
        self._follow_link(query_data)
        raise OptionsError("options", "A link starts no server. Check the choices and press Start.")

    async def run_auth_state_hook(self, auth_state: Any) -> None:
        """Run the administrator's hook, and take a link's choices out of the hub's hands.

        JupyterHub starts a server when somebody follows a link with options, and any site may have such a link: it
        would also change the person's stack. This is the last of our methods that it calls before it looks.
        """
        request = getattr(self.handler, "request", None)
        if request is not None and request.method == "GET":
            sent = request.query_arguments
            taken = {
                key: [value.decode(errors="replace") for value in sent.pop(key)]
                for key in [*sent]
                if key not in HUBS_OWN
            }
            if taken:
                await self._learn(taken)
            if taken and not self._follow_link(taken):
                self.handler.set_status(400)
        await super().run_auth_state_hook(auth_state)

    def _follow_link(self, query: Mapping[str, Any]) -> bool:
        """Keep a link's choices for the form that is about to be shown; whether they can be used."""
        # As JupyterHub 6 reads them: where one has the prefix, those without it are not options.
        marked = {key.removeprefix(MARK): values for key, values in query.items() if key.startswith(MARK)}
        chosen = marked or {key: values for key, values in query.items() if key != "_xsrf"}
        if not chosen:
            return True
        try:
            parse_form(chosen, self.offer())
            self._attempt = Attempt(chosen)
        except OptionsError as error:
            self._attempt = Attempt(chosen, error)
        return self._attempt.error is None

    async def _run_apply_user_options(self, user_options: Any) -> None:
        """Check and apply the options of a start, from wherever they came.

        This is the one hook that JupyterHub 5 and 6 both run on the options of a REST request, while the request
        still waits: what is raised here is its answer. Later, in `start`, it would be a 500 or go unheard behind a
        202; before, in the handlers, a spawner has no say. An administrator's `apply_user_options` runs after it.
        """
        told: list[str] = []
        await self._learn(user_options)
        try:
            if _brings_options(self.handler):
                options = parse_json(user_options, self.offer())
            else:
                options, told = self.offer().nearest(user_options)
            no_place = await self._no_place(options)
            if no_place and _brings_options(self.handler):
                raise OptionsError("cytomine", f"Option 'cytomine': {no_place}")
        except OptionsError:
            self._refuse()
            raise
        if no_place:
            options = options.model_copy(update={"cytomine": None})
            told.append(f"The notebook starts without Cytomine: {no_place}")
        self._refused = False
        self._accepted = user_options
        self._told = told
        if told:
            # The hub's database keeps what was chosen: it may be offered again.
            self.user_options = user_options = options.model_dump(exclude_none=True)
            self.log.warning(
                "%s starts with other options than the last time: %s", self._log_name, " ".join(told)
            )
        self._apply(options)
        if self.apply_user_options:
            await super()._run_apply_user_options(user_options)

    async def _no_place(self, options: SpawnOptions) -> str:
        """Why the cluster has certainly no place for what was chosen, as a sentence; "" if it may have one."""
        del options
        return ""

    async def load_user_options(self) -> None:
        """Apply the options when the hub has not done so, as when `start` is called alone."""
        if self._options is None:
            await self._learn(self.user_options)
            self._apply(parse_json(self.user_options, self.offer()))

    def _apply(self, options: SpawnOptions) -> None:
        offer = self.offer()
        image, size = offer.find("image", options.image), offer.find("size", options.size)
        assert isinstance(image, ImageChoice)  # noqa: S101 - both come out of Offer.check
        assert isinstance(size, SizeChoice)  # noqa: S101
        self._options = options
        self.image = image.image
        # All four, also None: this object outlives a start, and the last size must not shine through.
        for trait in ("cpu_guarantee", "cpu_limit", "mem_guarantee", "mem_limit"):
            setattr(self, trait, getattr(size, trait))

    def _refuse(self) -> None:
        """Leave no trace of refused options: the hub has stored them already and is about to count a failure."""
        self._refused = True
        self.user_options = self._accepted
        if self.orm_spawner:
            self.orm_spawner.user_options = self._accepted
            self.user.db.commit()
        self._forgive()

    def _forgive(self) -> None:
        """Keep a start that failed for a reason of its own out of JupyterHub 5's count, which ends the hub."""
        future, handler = self._spawn_future, self.handler
        if not COUNTS_REFUSALS or future is None or handler is None:
            return
        settings, limit = handler.settings, int(self.consecutive_failure_limit)
        self.consecutive_failure_limit = 0

        def undo(_: Any) -> None:
            # Runs right after the hub's own callback, which came first and counted one up.
            settings["failure_count"] = max(0, settings.get("failure_count", 0) - 1)
            self.consecutive_failure_limit = limit

        future.add_done_callback(undo)


def _brings_options(handler: Any) -> bool:
    """Whether the request for a start brings options; if not, the hub has taken those of the last start."""
    if hasattr(handler, "get_server_json_body"):  # the REST API of JupyterHub 6
        return handler.get_server_json_body()["user_options"] is not None
    if hasattr(handler, "get_json_body"):  # and of 5
        return handler.get_json_body() is not None
    request = getattr(handler, "request", None)
    return request is None or request.method != "GET"


def _checked(model: type[ImageChoice] | type[SizeChoice], entries: Any, setting: str) -> Any:
    try:
        read_choices(model, entries, setting)
    except ValueError as error:
        raise TraitError(str(error)) from None
    return entries
