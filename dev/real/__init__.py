"""A second release of the chart with Cytomine's own servers, from images that somebody built or that the cluster pulls.

What is tested elsewhere only meets the stand-ins of ``dev/standin``. Here images alone are changed, as an administrator
would change them; everything else is the chart's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from dev import cache, cluster
from dev.console import Console, Problem
from dev.demo import install

# Where the images are: a folder of OCI archives called <component>.tar, or component=name pairs with commas between.
IMAGES = "CYTOMINE_REAL_IMAGES"
PLACE = install.Place("hub", "cytomine-real", "hub-real", "login-real", "stacks-real")
# Upstream's own parts; there is nothing real without one of them.
NEEDED = ("core", "repository", "pims", "web-ui", "mongo")
# In the place of images that nobody gave: ours are the real programs, too.
OURS = {
    "postgis": "cytomine-spawner/postgis",
    "wait": "cytomine-spawner/postgis",
    "gateway": "cytomine-spawner/nginx",
    "oauth2-proxy": "cytomine-spawner/oauth2-proxy",
}
MISSING = f"Set {IMAGES} to a folder with {', '.join(f'{n}.tar' for n in NEEDED)} (OCI archives), or to component=image pairs"


def given() -> str:
    """What was said of the images; empty if nothing."""
    return os.environ.get(IMAGES, "").strip()


def names(console: Console, said: str) -> dict[str, str]:
    """The images by component, in the cluster after this.

    Args:
        console: where progress goes.
        said: a folder or pairs, see `IMAGES`.

    Raises:
        Problem: one that is needed is missing; the sentence says which.
    """
    if "=" in said:
        found = dict(pair.strip().split("=", 1) for pair in said.split(",") if pair.strip())
    else:
        paths = {path.stem: path for path in sorted(Path(said).glob("*.tar"))}
        from cytomine_spawner.stack import components  # whoever makes the environment has no kubespawner yet

        strange = sorted(set(paths) - set(components.ALL) - {*OURS})
        if strange:
            raise Problem(f"{said} has images of no component: {', '.join(strange)}", MISSING)
        _complete(paths)
        found = dict(zip(paths, cluster.import_images(console, paths.values()), strict=True))
    _complete(found)
    return found


def _complete(found: Mapping[str, object]) -> None:
    if missing := [name for name in NEEDED if name not in found]:
        raise Problem(f"The images of {', '.join(missing)} are missing", MISSING)


def values(images: Mapping[str, str]) -> Path:
    """A file with the stacks' values: the images, and no component that has none."""
    whole = {**OURS, **images}
    from cytomine_spawner.stack import components  # whoever makes the environment has no kubespawner yet

    left_out = [name for name in components.BASE if name not in whole]
    path = cache.home() / "values-real-stacks.yaml"
    path.write_text(
        json.dumps({"images": whole, "components": dict.fromkeys(left_out, False)}), encoding="utf-8"
    )
    return path


def hub(console: Console, target: install.Target, said: str) -> install.Installed:
    """The release with the real parts, installed or upgraded."""
    return install.install(console, target, PLACE, values(names(console, said)))
