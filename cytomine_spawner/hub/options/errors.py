"""What is said of options that cannot be used, and the form that chose them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tornado import web

MAX_SHOWN = 60


def shorten(value: object, limit: int = MAX_SHOWN) -> str:
    """A value as ASCII in quotes, cut to `limit` characters: safe in a log line, a page and a JSON answer."""
    text = ascii(value[: limit + 1] if isinstance(value, str) else value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


class OptionsError(web.HTTPError):
    """Options that cannot be used: HTTP 400 with a sentence for the person who sent them.

    Attributes:
        field: name of the option at fault, as it was sent (shortened), or `options` for the whole.
        sentence: what is wrong and what would be right.
    """

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(400, sentence)
        self.field = field
        self.sentence = sentence
        # JupyterHub shows this in its pages in place of "HTTP 400: Bad Request (...)".
        self.jupyterhub_message = sentence


def kind_of(value: object) -> str:
    """What JSON calls a value, with its article."""
    if value is None:
        return "null"
    kinds: dict[type, str] = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text that is not Unicode",
        list: "a list",
    }
    return kinds.get(type(value), "an object" if isinstance(value, Mapping) else "a value of another kind")


@dataclass(frozen=True)
class Attempt:
    """What a form that was sent, or a link to the form, chose.

    Attributes:
        form: the fields, each with a list of its values.
        error: why they cannot be used; None for a link whose choices can.
    """

    form: Mapping[str, Any]
    error: OptionsError | None = None
