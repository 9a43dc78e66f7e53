"""What is offered of Cytomine beside the notebook, and the check of what was chosen. Pure but for the settings' files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError
from traitlets.config import Config

from ...blueprint.render import Cost, Invalid, cost
from ...blueprint.settings import StackSettings, offered
from ...common.quantity import gib
from ...common.storageurls import SCHEME
from ...stack.components import EXTRAS, TITLES
from ...stack.model import Extra, StackSpec
from .errors import OptionsError, kind_of, shorten


@dataclass(frozen=True)
class StackPart:
    """A size, an optional component or a dataset, as the form shows it.

    Attributes:
        name: what the REST API takes.
        title: what people read.
        description: half a sentence more.
        costs: what it reserves, in words; for a component one entry a size, unless all are the same.
    """

    name: str
    title: str
    description: str = ""
    costs: tuple[str, ...] = ()


class CytomineChoice(BaseModel):
    """A Cytomine stack beside the notebook.

    What is left out stays as it is in a stack that is there already, and is the default in a new one.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    size: StrictStr | None = Field(default=None, description="Name of a stack's size.")
    components: list[StrictStr] | None = Field(default=None, description="The optional components.")
    datasets: list[StrictStr] | None = Field(default=None, description="Datasets to put into the stack.")


@dataclass(frozen=True)
class CytomineOffer:
    """What one person may choose of Cytomine.

    Attributes:
        sizes: the sizes, in the settings' order.
        components: the optional components.
        datasets: the administrator's datasets that can be put into a stack.
        granted: those of the archive that the person's visas grant, by names that begin with ``sda://``.
        archive: what is to be said of the archive, as a sentence; "" if nothing.
        default_size: the size of a new stack when none was chosen.
        refusal: why this person may have no stack at all, as a sentence; "" if they may.
    """

    sizes: tuple[StackPart, ...] = ()
    components: tuple[StackPart, ...] = ()
    datasets: tuple[StackPart, ...] = ()
    granted: tuple[StackPart, ...] = ()
    archive: str = ""
    default_size: str = ""
    refusal: str = ""

    def check(self, raw: object) -> CytomineChoice:
        """Check the option `cytomine` as JSON gives it.

        Args:
            raw: true, or an object with the fields of `CytomineChoice`.

        Raises:
            OptionsError: names the field, such as `cytomine.size`, the value and what is allowed.
        """
        if self.refusal:
            raise OptionsError("cytomine", f"Option 'cytomine': {self.refusal}")
        if raw is True:
            return CytomineChoice()
        if not isinstance(raw, Mapping):
            kind = "text" if isinstance(raw, str) else kind_of(raw)
            raise OptionsError(
                "cytomine", f"Option 'cytomine' must be true, false or a JSON object, not {kind}."
            )
        for key in raw:
            if key not in CytomineChoice.model_fields:
                known = ", ".join(f"cytomine.{field}" for field in CytomineChoice.model_fields)
                name = f"cytomine.{shorten(key)[1:-1]}" if isinstance(key, str) else "cytomine"
                raise OptionsError(name, f"Option {shorten(name)} is unknown. Known options: {known}.")
        try:
            choice = CytomineChoice.model_validate(dict(raw))
        except ValidationError as error:
            raise _explain(error.errors(include_url=False)[0]) from None
        if choice.size is not None:
            self._find("size", choice.size, self.sizes)
        for name in choice.components or ():
            self._find("components", name, self.components)
        for name in choice.datasets or ():
            self._find("datasets", name, (*self.datasets, *self.granted))
        return choice

    def nearest(self, raw: object) -> tuple[CytomineChoice | None, list[str]]:
        """What to use in the place of an earlier start's choice; see `Offer.nearest`."""
        if self.refusal:
            return None, [f"The notebook starts without Cytomine: {self.refusal}"]
        stored = raw if isinstance(raw, Mapping) else {}
        told: list[str] = []
        kept: dict[str, Any] = {}
        size = stored.get("size")
        if size is not None:
            kept["size"] = size if any(part.name == size for part in self.sizes) else self.default_size
            if kept["size"] != size:
                told.append(self.size_gone(size))
        for field, parts in (
            ("components", self.components),
            ("datasets", (*self.datasets, *self.granted)),
        ):
            names = stored.get(field)
            if isinstance(names, (list, tuple)):
                kept[field] = [part.name for part in parts if part.name in names]
                lost = [shorten(name) for name in names if name not in kept[field]]
                if lost:
                    told.append(f"Of the {field} of Cytomine, {', '.join(lost[:3])} is no longer offered.")
        return self.check(kept), told

    def size_gone(self, wanted: object) -> str:
        """That an earlier size of Cytomine is not offered any more, and what takes its place."""
        title = next((part.title for part in self.sizes if part.name == self.default_size), "")
        return (
            f"The size {shorten(wanted if isinstance(wanted, str) else '?')} is no longer offered. "
            f"{title} is selected instead."
        )

    @staticmethod
    def _find(field: str, name: str, offered: tuple[StackPart, ...]) -> None:
        names = [part.name for part in offered]
        if name not in names and name.startswith(SCHEME):
            raise OptionsError(
                f"cytomine.{field}",
                f"Option 'cytomine.{field}': {shorten(name)} is not offered: your visas do not grant it, or the archive does "
                "not have it or does not answer. Leave it out, or try again.",
            )
        if name not in names:
            allowed = f"Allowed: {', '.join(names)}." if names else "None is offered here."
            raise OptionsError(
                f"cytomine.{field}", f"Option 'cytomine.{field}': {shorten(name)} is not offered. {allowed}"
            )


def _explain(error: Any) -> OptionsError:
    field = f"cytomine.{error['loc'][0]}"
    kind, value = "text", error["input"]
    if error["loc"][0] != "size":
        kind = "a list of texts"
        if len(error["loc"]) > 1:
            return OptionsError(
                field, f"Option '{field}' must be {kind}; one of its items is {kind_of(value)}."
            )
    found = "text" if isinstance(value, str) and kind != "text" else kind_of(value)
    return OptionsError(field, f"Option '{field}' must be {kind}, not {found}.")


def read_datasets(entries: Iterable[Mapping[str, Any]]) -> tuple[StackPart, ...]:
    """Read the setting `cytomine_datasets`.

    Raises:
        ValueError: with the place and the cause, when an entry is wrong or a name comes twice.
    """
    try:
        found = offered(entries)
    except ValueError as error:
        raise ValueError(f"cytomine_datasets{error}") from None
    return tuple(StackPart(one.name, one.title or one.name, one.description) for one in found)


_settings: dict[str, StackSettings] = {}


def settings_of(config: Config) -> StackSettings:
    """The stacks' settings of a configuration, read once a process for each that there is.

    Raises:
        TraitError, ValueError: the settings or one of their value files are wrong.
    """
    key = repr(sorted(config.get("StackSettings", {}).items()))
    if key not in _settings:
        settings = StackSettings(config=config)
        _ = settings.values  # read now, so that a wrong file is found here
        _settings[key] = settings
    return _settings[key]


@lru_cache(maxsize=16)
def offer_of(settings: StackSettings, datasets: tuple[StackPart, ...] = ()) -> CytomineOffer:
    """All that the settings offer, without regard to a person."""
    plain: dict[str, Cost] = {}
    for name in settings.values.sizes:
        try:
            plain[name] = _cost(settings, name)
        except Invalid as error:  # noqa: PERF203 - each size may be wrong
            settings.log.warning("The size %s of stacks is not offered: %s", name, error)
    titles = {name: str(settings.values.sizes[name].get("title") or name) for name in plain}
    sizes = tuple(
        StackPart(name, titles[name], str(settings.values.sizes[name].get("description") or ""), (str(c),))
        for name, c in plain.items()
    )
    components = (_component(settings, extra, plain, titles) for extra in Extra)
    usual = str(StackSpec.model_fields["size"].default)
    return CytomineOffer(
        sizes,
        tuple(part for part in components if part),
        datasets,
        default_size=usual if usual in plain else next(iter(plain), ""),
        refusal=""
        if plain
        else "The settings of this hub offer no size of Cytomine; an administrator has to add one.",
    )


def refused(sentence: str) -> CytomineOffer:
    """An offer of nothing, for this reason."""
    return replace(CytomineOffer(), refusal=sentence)


def _cost(settings: StackSettings, size: str, *extras: Extra) -> Cost:
    return cost(StackSpec(owner="-", size=size, components=extras), settings)


def _component(
    settings: StackSettings, extra: Extra, plain: Mapping[str, Cost], titles: Mapping[str, str]
) -> StackPart | None:
    if not any(settings.values.components.get(part, True) for part in EXTRAS[extra]):
        return None
    more = {}
    for size, base in plain.items():
        try:
            whole = _cost(settings, size, extra)
        except Invalid:
            return None
        more[size] = _in_words(
            Cost(whole.cpu - base.cpu, whole.memory - base.memory, whole.storage - base.storage)
        )
    if len(set(more.values())) == 1:
        costs: tuple[str, ...] = (f"{next(iter(more.values()))} more",)
    else:
        costs = tuple(f"{titles[size]}: {words} more" for size, words in more.items())
    return StackPart(extra.value, TITLES.get(extra.value, extra.value), "", costs)


def _in_words(cost: Cost) -> str:
    amount = f"{cost.cpu:.2g}"
    parts = [f"{amount} core" + ("" if amount == "1" else "s"), f"{gib(cost.memory)} of memory"]
    return ", ".join([*parts, f"{gib(cost.storage)} of disk"] if cost.storage else parts)
