"""The recorded exchanges in their order, with what was done between them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.recordings import Exchange, Player, load


def in_order(player: Player) -> Iterator[Exchange]:
    """The exchanges; what was done between two of them without being recorded is done when the second is asked for."""
    for exchange in load():
        if exchange.group == "paging" and exchange.name.startswith("paging: ontology list with"):
            player.before_paging()
        if exchange.name == "annotations: review: start review of image":
            player.before_review()
        yield exchange
