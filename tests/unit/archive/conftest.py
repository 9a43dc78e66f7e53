"""An archive with datasets to read, and a filesystem on it."""

from __future__ import annotations

import random

import fsspec
import pytest
from upath.registry import register_implementation

from cytomine_spawner.archive import FixedToken, SdaFileSystem
from cytomine_spawner.archive.upaths import SdaPath
from dev import archive

DATASET = "aa-Dataset-reading-slides1"
# For tests that add files of their own: what the others list stays as it is.
SLIDES = "aa-Dataset-opened-slides1"
URL_DATASET = "https://doi.org/10.17044/slides"
SEGMENT = 65536
# Lengths to skip and keep, in turn: within a segment, across borders, a whole segment skipped, the rest kept.
EDITS = {
    "kept": (100, 1000, 70_000, 140_000, 200_000),
    "cut": (65_000, 2_000, 1, 65_536, 131_072, 3),
    "nothing": (0, 0),
}


@pytest.fixture(scope="session")
def local():
    """An archive's content, and who grants it."""
    with archive.running() as found:
        noise = random.Random(17)
        found.plain = {}

        def add(dataset, path, data, **more):
            entry = found.add(dataset, path, archive.Bytes(data), **more)
            found.plain[f"{dataset}/{path}"] = entry.read(0, entry.decrypted_size)
            return entry

        found.put = add
        add(DATASET, "IMAGES/slide.tif", noise.randbytes(3_000_001))
        add(DATASET, "IMAGES/keys.tif", noise.randbytes(20 * SEGMENT), keys=3)
        add(DATASET, "IMAGES/small.dcm", noise.randbytes(1000))
        add(DATASET, "IMAGES/empty", b"")
        add(DATASET, "METADATA/dataset.xml", b"<DATASET/>")
        for name, edits in EDITS.items():
            add(DATASET, f"EDITED/{name}", noise.randbytes(8 * SEGMENT + 77), edits=edits)
        add(URL_DATASET, "IMAGES/a b+c%20d.tif", noise.randbytes(70_000))
        found.petra = found.someone("petra", DATASET, URL_DATASET)
        found.olga = found.someone("olga", SLIDES)
        yield found


@pytest.fixture
def token_file(local, tmp_path):
    """A file with the token of somebody who is granted the dataset for tests' own files."""
    path = tmp_path / "token"
    path.write_text(local.issuer.token(local.olga))
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def reach(local, tmp_path):
    """Makes filesystems on a server."""

    def make(server, token=None, **options):
        options = {"cache_folder": str(tmp_path / "cache"), "patience": 60.0, "stall": 20.0, **options}
        if "token_file" not in options:
            options["token"] = token or FixedToken(local.issuer.token(local.petra))
        return SdaFileSystem(server.url, issuer=local.issuer.url, skip_instance_cache=True, **options)

    return make


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def server(local, request):
    """A server of each version."""
    with local.archive(version=request.param) as found:
        yield found


@pytest.fixture
def v2(local):
    """A server of version 2."""
    with local.archive(version=2) as found:
        yield found


@pytest.fixture(autouse=True)
def _registered():
    """What the package's entry points do where it is installed."""
    fsspec.register_implementation("sda", SdaFileSystem, clobber=True)
    register_implementation("sda", SdaPath, clobber=True)
