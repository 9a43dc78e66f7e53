"""The options form: the fragment that JupyterHub's spawn page shows above its Start button."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from .errors import Attempt, OptionsError
from .notebook import Offer, flatten, gone

if TYPE_CHECKING:
    from .stack_form import CytomineBlock


@dataclass(frozen=True)
class _Question:
    """One field as the template shows it."""

    field: str
    legend: str
    choices: tuple[Any, ...]
    selected: str
    notice: str
    error: str


LEGENDS = {"image": "Notebook image", "size": "Notebook size"}


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("cytomine_spawner", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def render_form(
    offer: Offer, previous: object, attempt: Attempt | None = None, cytomine: CytomineBlock | None = None
) -> str:
    """Render the form.

    Args:
        offer: what this person may choose.
        previous: the options of this server's last start, in whatever state the hub's database has them.
        attempt: the refused form, when it is shown again, or the link that led here; its choices win over the previous.
        cytomine: the block about Cytomine; None without one.

    Returns:
        HTML without a form element or a button of its own: the hub's page has both.
    """
    chosen = dict(previous) if isinstance(previous, Mapping) else {}
    chosen.update(flatten(attempt.form) if attempt else {})
    error = attempt.error if attempt else None
    questions = [_question(offer, field, chosen.get(field), error) for field in offer.fields]
    own = {*offer.fields, *(cytomine.fields if cytomine else ())}
    general = error.sentence if error and error.field not in own else ""
    template = _templates().get_template("options_form.html")
    linked = attempt is not None and error is None
    return template.render(questions=questions, general_error=general, cytomine=cytomine, linked=linked)


def _question(offer: Offer, field: str, wanted: object, error: OptionsError | None) -> _Question:
    found = offer.find(field, wanted)
    selected = found or offer.default(field)
    mine = error.sentence if error and error.field == field else ""
    notice = ""
    if wanted is not None and found is None and not mine:
        notice = gone(wanted, selected)
    return _Question(field, LEGENDS[field], offer.choices(field), selected.name, notice, mine)
