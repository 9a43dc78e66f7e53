"""oauth2-proxy compiled from its Go module, for machines that cannot pull its image: the stacks' gateway runs it."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from dev import cache
from dev.cluster import mkimage
from dev.cluster.programs import build_tool
from dev.console import Console
from dev.images import Archive

HERE = Path(__file__).parent
MODULE = "github.com/oauth2-proxy/oauth2-proxy/v7"
NAME = "localhost/cytomine-spawner/oauth2-proxy"
GO = (1, 26)


def version() -> str:
    """The version that go.mod pins, such as ``v7.15.4``."""
    found = re.search(
        rf"^\s*(?:require )?{re.escape(MODULE)} (v\S+)", (HERE / "go.mod").read_text(), re.MULTILINE
    )
    assert found, "go.mod does not name oauth2-proxy"
    return found[1]


def program(console: Console) -> Path:
    """The program's path; compiled at the first call.

    Raises:
        Problem: Go, space or a registry is missing.
    """
    flags = f"-s -w -X {MODULE}/pkg/version.VERSION={version()}"
    folder = build_tool(console, HERE, "oauth2-proxy", MODULE, "oauth2-proxy", flags=flags, least=GO)
    return folder / "oauth2-proxy"


def archive(console: Console) -> Archive:
    """The program's image: nothing but the program, in the place where upstream's image has it, too.

    Raises:
        Problem: Go, space or a registry is missing.
    """
    binary = program(console)

    def fill(folder: Path) -> None:
        reference = mkimage.write(
            folder / "oauth2-proxy.tar",
            NAME,
            {"/bin/oauth2-proxy": binary},
            ["/bin/oauth2-proxy"],
            folders=["/tmp"],  # noqa: S108  a path in the image
            architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        )
        (folder / "reference").write_text(reference)

    key = cache.digest([Path(mkimage.__file__)], binary.parent.name)
    shelf = cache.built("image-oauth2-proxy", key, fill, keep=2)
    name, _, tag = (shelf / "reference").read_text().rpartition(":")
    return Archive(name, tag, shelf / "oauth2-proxy.tar")
