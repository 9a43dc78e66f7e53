"""Spawn options: what may be offered, what was chosen, and the checks between the two.

The form and the REST API end in the same check, `Offer.check`, so a choice that one of them refuses is refused by
the other, with the same sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError, field_validator

from .errors import OptionsError, kind_of, shorten
from .stack import CytomineChoice

if TYPE_CHECKING:
    from .stack import CytomineOffer


class _Choice(BaseModel):
    """Something an administrator offers in the form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
    display_name: str = ""
    description: str = ""
    default: bool = False

    @property
    def title(self) -> str:
        """The name that people read."""
        return self.display_name or self.name


class ImageChoice(_Choice):
    """One notebook image: `image` is the reference that Kubernetes pulls."""

    image: Annotated[str, Field(min_length=1)]


Cores = Annotated[float, Field(ge=0)]


class SizeChoice(_Choice):
    """One notebook size: cores, memory (JupyterHub's byte specification, for instance `2G`), and who may choose it.

    An empty `groups` means everybody; otherwise a person needs one of these JupyterHub groups.
    """

    cpu_guarantee: Cores | None = None
    cpu_limit: Cores | None = None
    mem_guarantee: str | int | None = None
    mem_limit: str | int | None = None
    groups: tuple[str, ...] = ()

    @field_validator("mem_guarantee", "mem_limit")
    @classmethod
    def _is_byte_specification(cls, value: str | int | None) -> str | int | None:
        if value is not None:
            bytes_of(value)
        return value

    @property
    def resources(self) -> str:
        """The size in words, such as `2 cores, 4 GiB of memory`, by its limits, else by its guarantees."""
        cores = self.cpu_limit or self.cpu_guarantee
        memory = self.mem_limit or self.mem_guarantee
        parts = []
        if cores:
            parts.append(f"{cores:g} core" + ("" if cores == 1 else "s"))
        if memory:
            parts.append(f"{bytes_of(memory) / 2**30:.3g} GiB of memory")
        return ", ".join(parts)


def bytes_of(specification: str | int) -> int:
    """Bytes of JupyterHub's byte specification: `512M`, `2G` (powers of 1024) or a plain number."""
    text = str(specification)
    factor = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}.get(text[-1:], 1)
    try:
        amount = int(float(text if factor == 1 else text[:-1]) * factor)
    except (ValueError, OverflowError):
        amount = -1
    if amount < 0:
        raise ValueError(f"{shorten(text)} is not an amount of memory such as 512M or 2G")
    return amount


_C = TypeVar("_C", bound=_Choice)


def read_choices(model: type[_C], entries: Iterable[Mapping[str, Any]], setting: str) -> tuple[_C, ...]:
    """Read what an administrator offers.

    Args:
        model: `ImageChoice` or `SizeChoice`.
        entries: the setting's value, a list of dictionaries.
        setting: the setting's name, for the message.

    Raises:
        ValueError: with the place and the cause, when an entry is wrong, a name comes twice, two are the default,
            or nobody outside a group could choose anything.
    """
    choices = [_read_choice(model, entry, f"{setting}[{index}]") for index, entry in enumerate(entries)]
    names = [choice.name for choice in choices]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{setting}: the name {twice[0]!r} is used more than once")
    if sum(choice.default for choice in choices) > 1:
        raise ValueError(f"{setting}: more than one entry has default set")
    if choices and all(getattr(choice, "groups", ()) for choice in choices):
        raise ValueError(f"{setting}: one entry must be open to everybody (without groups)")
    return tuple(choices)


def _read_choice(model: type[_C], entry: Mapping[str, Any], place: str) -> _C:
    try:
        return model.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (place, *first["loc"]))
        raise ValueError(f"{where}: {first['msg']}") from None


class SpawnOptions(BaseModel):
    """What a person chose for one start of a server: names of an image and a size, and whether with Cytomine.

    This is what JupyterHub stores as the server's `user_options` and what `POST /users/{name}/server` takes.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    image: StrictStr | None = Field(default=None, description="Name of a notebook image.")
    size: StrictStr | None = Field(default=None, description="Name of a notebook size.")
    cytomine: CytomineChoice | None = Field(
        default=None,
        description="A Cytomine stack; true for one with the defaults, false or nothing for none.",
    )


class Offer:
    """What one person may choose from, at this moment."""

    #: Fields of `SpawnOptions` that are a choice from a list, in the order of the form.
    fields: ClassVar[tuple[str, ...]] = ("image", "size")

    def __init__(
        self,
        images: Iterable[ImageChoice],
        sizes: Iterable[SizeChoice],
        groups: Iterable[str] = (),
        cytomine: CytomineOffer | None = None,
    ) -> None:
        mine = set(groups)
        self.cytomine = cytomine
        self.image = tuple(images)
        self.size = tuple(size for size in sizes if not size.groups or mine.intersection(size.groups))

    def choices(self, field: str) -> tuple[_Choice, ...]:
        """All that is offered for a field."""
        offered: tuple[_Choice, ...] = getattr(self, field)
        return offered

    def default(self, field: str) -> _Choice:
        """The administrator's default, or the first when that one is not offered to this person."""
        offered = self.choices(field)
        return next((choice for choice in offered if choice.default), offered[0])

    def find(self, field: str, name: object) -> _Choice | None:
        """The offered choice with this name."""
        return next((choice for choice in self.choices(field) if choice.name == name), None)

    def check(self, raw: object) -> SpawnOptions:
        """Check options as JSON gives them, and fill in what was left out.

        Raises:
            OptionsError: names the field, the value and what is allowed.
        """
        if not isinstance(raw, Mapping):
            kind = "text" if isinstance(raw, str) else kind_of(raw)
            raise OptionsError("options", f"The options must be a JSON object, not {kind}.")
        known = SpawnOptions.model_fields
        for key in raw:
            if key not in known:
                raise OptionsError(
                    shorten(key), f"Option {shorten(key)} is unknown. Known options: {', '.join(known)}."
                )
        cytomine = self._check_cytomine(raw.get("cytomine"))
        try:
            options = SpawnOptions.model_validate({key: raw[key] for key in raw if key != "cytomine"})
        except ValidationError as error:
            raise self._explain(error.errors(include_url=False)[0]) from None
        chosen: dict[str, Any] = {"cytomine": cytomine}
        for field in self.fields:
            name = getattr(options, field)
            choice = self.default(field) if name is None else self.find(field, name)
            if choice is None:
                raise OptionsError(
                    field, f"Option '{field}': {shorten(name)} is not offered. {self._allowed(field)}"
                )
            chosen[field] = choice.name
        return options.model_copy(update=chosen)

    def nearest(self, stored: object) -> tuple[SpawnOptions, list[str]]:
        """Options to use in the place of those of an earlier start, which may not be offered any more.

        Args:
            stored: the options of that start, in whatever state the hub's database has them.

        Returns:
            the options, and one sentence for each difference.
        """
        raw = stored if isinstance(stored, Mapping) else {}
        kept: dict[str, Any] = {}
        told = []
        for field in self.fields:
            wanted = raw.get(field)
            if wanted is not None and self.find(field, wanted) is None:
                told.append(gone(wanted, self.default(field)))
            else:
                kept[field] = wanted
        unknown = [key for key in raw if key not in SpawnOptions.model_fields]
        if unknown:
            told.append(f"The last start's options {shorten(', '.join(map(str, unknown)))} are unknown now.")
        cytomine, more = self._nearest_cytomine(raw.get("cytomine"))
        return self.check(kept).model_copy(update={"cytomine": cytomine}), told + more

    def _nearest_cytomine(self, raw: object) -> tuple[CytomineChoice | None, list[str]]:
        if raw is None or raw is False:
            return None, []
        if self.cytomine is None:
            return None, ["This hub offers no Cytomine any more: the notebook starts without it."]
        return self.cytomine.nearest(raw)

    def _check_cytomine(self, raw: object) -> CytomineChoice | None:
        if raw is None or raw is False:
            return None
        if self.cytomine is None:
            raise OptionsError("cytomine", "Option 'cytomine': this hub offers no Cytomine. Leave it out.")
        return self.cytomine.check(raw)

    def _allowed(self, field: str) -> str:
        return "Allowed: " + ", ".join(choice.name for choice in self.choices(field)) + "."

    def _explain(self, error: Any) -> OptionsError:
        field = str(error["loc"][0])
        return OptionsError(
            field, f"Option '{field}' must be text, not {kind_of(error['input'])}. {self._allowed(field)}"
        )


def gone(wanted: object, instead: _Choice) -> str:
    """That an earlier choice is not offered any more, and what takes its place."""
    return (
        f"Your previous choice {shorten(wanted if isinstance(wanted, str) else '?')} is no longer offered. "
        f"{instead.title} is selected instead."
    )


def parse_json(raw: object, offer: Offer) -> SpawnOptions:
    """Options from the REST API or from the hub's database; see `Offer.check`."""
    return offer.check(raw)


def parse_form(form: Mapping[str, Any], offer: Offer) -> SpawnOptions:
    """Options from the form or from a link's query: a dictionary of lists, one item a field.

    Args:
        form: what was sent.
        offer: what this person may choose.

    Raises:
        OptionsError: as `Offer.check`, or when a field came twice.
    """
    flat = flatten(form)
    if "cytomine" in flat or flat.keys() & FORM_FIELDS:
        flat["cytomine"] = _from_fields(flat)
        for field in FORM_FIELDS:
            flat.pop(field, None)
    return offer.check(flat)


#: The form's fields for the parts of the option `cytomine`, which itself is "none" or "stack" there.
FORM_FIELDS = {"cytomine_size": "size", "cytomine_components": "components", "cytomine_datasets": "datasets"}


def _from_fields(flat: Mapping[str, Any]) -> object:
    """The option `cytomine` as the REST API takes it, from the form's fields; see `several`."""
    wanted = flat.get("cytomine")
    if wanted == "none":
        return None
    if wanted != "stack":
        found = "nothing" if wanted is None else shorten(wanted)
        raise OptionsError("cytomine", f"Option 'cytomine': {found} is not offered. Allowed: none, stack.")
    chosen: dict[str, Any] = {}
    for field, key in FORM_FIELDS.items():
        if field in flat:
            chosen[key] = flat[field] if key == "size" else several(flat[field])
    return chosen


def several(value: object) -> list[Any]:
    """The values of a group of tick boxes. The empty one, which the form always sends, tells "none" from "not asked"."""
    values = value if isinstance(value, list) else [value]
    return [one for one in values if one != ""]


def flatten(form: Mapping[str, Any]) -> dict[str, Any]:
    """Form data as the JSON object that it stands for."""
    flat: dict[str, Any] = {}
    for key, values in form.items():
        if key == "_xsrf":  # some versions of the hub's page send their token in the form's body
            continue
        if isinstance(values, list) and len(values) == 1:
            flat[key] = values[0]
        else:
            flat[key] = values
    return flat
