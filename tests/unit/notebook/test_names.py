"""What the package offers can be had from it, and costs no import before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cytomine_spawner import notebook


@pytest.mark.parametrize("name", notebook.__all__)
def test_every_public_name_is_there_with_its_text(name: str) -> None:
    thing = getattr(notebook, name)
    assert callable(thing)
    assert (thing.__doc__ or "").strip()
    assert name in dir(notebook)


def test_connecting_needs_no_scientific_packages_and_no_hub() -> None:
    code = (
        "import sys, cytomine_spawner.notebook\n"
        "print([m for m in ('geopandas', 'matplotlib', 'ipyleaflet', 'jupyterhub', 'kubespawner', 'kubernetes_asyncio')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_name_that_is_not_there_says_so() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'conect'"):
        _ = notebook.conect
