"""What fsspec promises of a filesystem, and that this one is read-only."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import inspect
import io
import os
import pickle
import random
import stat
import subprocess
import sys

import fsspec
import pytest
from dask.bytes import read_bytes
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem, make_path_posix
from fsspec.spec import AbstractFileSystem
from fsspec.tests.abstract import AbstractGetTests, BaseAbstractFixtures

from cytomine_spawner.archive import FixedToken, SdaFileSystem
from dev import archive

DATASET = "aa-Dataset-reading-slides1"
SLIDE = f"{DATASET}/IMAGES/slide.tif"
SCENARIOS = {
    "bulk": ["file1", "file2", "subdir/subfile1", "subdir/subfile2", "subdir/nesteddir/nestedfile"],
    "globs": [
        "file1",
        "file2",
        *(f"subdir{n}/{name}" for n in (0, 1) for name in ("subfile1", "subfile2", "nesteddir/nestedfile")),
    ],
    "prefix": ["subdir.txt", "subdir/subfile.txt"],
    "hashed": [f"{hashlib.md5(str(i).encode()).hexdigest()}.txt" for i in range(10)],
}


class Seeded(SdaFileSystem):
    """One of fsspec's tests makes a folder and a file itself: they are there."""

    def mkdir(self, path, **kwargs):
        assert self.exists(path)

    touch = mkdir


@pytest.fixture(scope="module")
def seeded():
    """A filesystem that has what fsspec's tests make elsewhere."""
    with archive.running() as local:
        for dataset, names in SCENARIOS.items():
            for name in names:
                content = str(names.index(name)).encode() if dataset == "hashed" else b""
                local.add(dataset, f"source/{name}", archive.Bytes(content))
        local.add("bulk", "src/file", archive.Bytes(b""))
        person = local.someone("petra", *SCENARIOS)
        with local.archive(version=2) as server:
            token = FixedToken(local.issuer.token(person))
            yield Seeded(server.url, token=token, cache_size=0, skip_instance_cache=True)


class TestGet(AbstractGetTests, BaseAbstractFixtures):
    """fsspec's own tests of `get`, on datasets that are there instead of files that are written."""

    @pytest.fixture
    def fs(self, seeded):
        return seeded

    @pytest.fixture
    def fs_path(self):
        return "bulk"

    @pytest.fixture
    def fs_join(self):
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def supports_empty_directories(self):
        return False

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self):
        return "bulk/source"

    @pytest.fixture
    def fs_glob_edge_cases_files(self):
        return "globs/source"

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self):
        return "prefix/source"

    @pytest.fixture
    def fs_10_files_with_hashed_names(self):
        return "hashed/source"

    @pytest.fixture
    def local_fs(self):
        return LocalFileSystem(auto_mkdir=True)

    @pytest.fixture
    def local_join(self):
        return os.path.join

    @pytest.fixture
    def local_path(self, tmp_path):
        return make_path_posix(str(tmp_path))


WRITES = {
    "copy": ("a", "b"),
    "cp": ("a", "b"),
    "cp_file": ("a", "b"),
    "delete": ("a",),
    "makedir": ("a",),
    "makedirs": ("a",),
    "mkdir": ("a",),
    "mkdirs": ("a",),
    "move": ("a", "b"),
    "mv": ("a", "b"),
    "mv_file": ("a", "b"),
    "pipe": ("a", b""),
    "pipe_file": ("a", b""),
    "put": ("a", "b"),
    "put_file": ("a", "b"),
    "rename": ("a", "b"),
    "rm": ("a",),
    "rm_file": ("a",),
    "rmdir": ("a",),
    "touch": ("a",),
    "upload": ("a", "b"),
    "write_bytes": ("a", b""),
    "write_text": ("a", ""),
}
READS = {
    "cat",
    "cat_file",
    "cat_ranges",
    "checksum",
    "clear_instance_cache",
    "created",
    "current",
    "datasets",
    "disk_usage",
    "download",
    "du",
    "end_transaction",
    "exists",
    "expand_path",
    "explain",
    "find",
    "from_dict",
    "from_json",
    "get",
    "get_file",
    "get_mapper",
    "glob",
    "head",
    "info",
    "invalidate_cache",
    "isdir",
    "isfile",
    "lexists",
    "listdir",
    "ls",
    "modified",
    "open",
    "open_async",
    "read_block",
    "read_bytes",
    "read_text",
    "sign",
    "size",
    "sizes",
    "start_transaction",
    "stat",
    "tail",
    "to_dict",
    "to_json",
    "tree",
    "ukey",
    "unstrip_protocol",
    "walk",
}


@pytest.fixture
def fs(v2, reach):
    return reach(v2)


@pytest.mark.parametrize("name", WRITES)
def test_each_call_that_writes_raises_that_it_is_read_only(name, fs):
    with pytest.raises(OSError, match="cannot be written to: copy what you need by get") as caught:
        getattr(fs, name)(*WRITES[name])
    assert caught.value.errno == errno.EROFS
    inner = getattr(fs, f"_{name}", None)
    if inspect.iscoroutinefunction(inner):
        with pytest.raises(OSError, match="cannot be written to"):
            asyncio.run(inner(*WRITES[name]))


def test_every_method_of_fsspec_is_known_to_read_or_to_write():
    methods = {
        name
        for base in (AbstractFileSystem, AsyncFileSystem)
        for name, value in vars(base).items()
        if not name.startswith("_") and callable(getattr(base, name)) and not isinstance(value, property)
    }
    assert methods - {"transaction_type"} <= READS | WRITES.keys()


@pytest.mark.parametrize("mode", ["wb", "w", "ab", "a", "xb", "x", "r+b", "r+"])
def test_no_mode_that_writes_opens_a_file(mode, fs):
    for path in (SLIDE, f"{DATASET}/new"):
        with pytest.raises(OSError, match="cannot be written to") as caught:
            fs.open(path, mode)
        assert caught.value.errno == errno.EROFS


def test_seek_and_read_are_those_of_a_local_file(fs, local):
    plain = io.BytesIO(local.plain[SLIDE])
    chance = random.Random(8)
    with fs.open(SLIDE) as file:
        assert file.readable()
        assert file.seekable()
        assert not file.writable()
        for _ in range(60):
            whence = chance.choice([0, 1, 2])
            offset = chance.randrange(-100_000, 100_000) if whence else chance.randrange(3_100_000)
            if (plain.tell() if whence == 1 else 3_000_001 if whence == 2 else 0) + offset < 0:
                continue
            assert file.seek(offset, whence) == plain.seek(offset, whence)
            length = chance.choice([0, 1, 100, 70_000])
            assert file.read(length) == plain.read(length)
            assert file.tell() == min(plain.tell(), max(plain.tell(), 3_000_001)) or plain.tell() > 3_000_001
        into = bytearray(500)
        file.seek(2_999_900)
        assert file.readinto(into) == 101
        assert file.read() == b""


@pytest.mark.parametrize(
    "kind", ["none", "readahead", "blockcache", "background", "bytes", "mmap", "all", "first"]
)
def test_each_of_fsspecs_block_caches_reads_the_same(kind, fs, local):
    with fs.open(SLIDE, cache_type=kind, block_size=100_000) as file:
        for start, length in ((5, 10), (2_900_000, 200_000), (64_000, 70_000), (0, 1)):
            file.seek(start)
            assert file.read(length) == local.plain[SLIDE][start : start + length]


def test_fsspecs_caches_on_disk_go_on_top(v2, local, tmp_path):
    place = tmp_path / "token"
    place.write_text(local.issuer.token(local.petra))
    for chain in ("filecache", "blockcache", "simplecache"):
        target = {"endpoint": v2.url, "token_file": str(place), "cache_folder": str(tmp_path / "c")}
        options = {"sda": target, chain: {"cache_storage": str(tmp_path / chain)}}
        with fsspec.open(f"{chain}::sda://{SLIDE}", **options) as file:
            file.seek(1_000_000)
            assert file.read(100) == local.plain[SLIDE][1_000_000:1_000_100]


def test_an_open_file_and_a_filesystem_are_pickled_without_the_token(v2, local, reach, tmp_path):
    place = tmp_path / "token"
    token = local.issuer.token(local.petra)
    place.write_text(token)
    fs = reach(v2, token_file=str(place))
    with fs.open(SLIDE) as file:
        file.seek(1000)
        text = pickle.dumps((fs, file))
    assert token.encode() not in text
    other, again = pickle.loads(text)
    assert again.tell() == 1000
    assert again.read(10) == local.plain[SLIDE][1000:1010]
    assert other.cat_file(SLIDE, 0, 10) == local.plain[SLIDE][:10]
    with pytest.raises(TypeError, match="A token is not pickled"):
        pickle.dumps(reach(v2))


READ = """
import hashlib, pickle, sys
fs = pickle.load(open(sys.argv[1], "rb"))
with fs.open(sys.argv[2]) as file:
    print(hashlib.sha256(file.read()).hexdigest())
"""


def test_processes_share_the_cache_and_keep_it_to_themselves(v2, local, reach, tmp_path):
    place = tmp_path / "token"
    place.write_text(local.issuer.token(local.petra))
    fs = reach(v2, token_file=str(place))
    (tmp_path / "fs").write_bytes(pickle.dumps(fs))
    command = [sys.executable, "-c", READ, str(tmp_path / "fs"), SLIDE]
    # From two at the same time, and from one afterwards, which finds all there.
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    expected = hashlib.sha256(local.plain[SLIDE]).hexdigest()
    assert [process.communicate(timeout=120)[0].strip() for process in running] == [expected] * 2
    v2.counters.reset()
    assert fs.cat_file(SLIDE) == local.plain[SLIDE]
    assert not any("/content" in line["path"] for line in v2.counters.audit)
    cache = tmp_path / "cache"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in cache.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (cache, *cache.iterdir()) if path.is_dir()} == {
        0o700
    }


def test_fsspec_open_reads_by_the_address(v2, local, tmp_path):
    place = tmp_path / "token"
    place.write_text(local.issuer.token(local.petra))
    options = {"endpoint": v2.url, "token_file": str(place), "cache_folder": str(tmp_path / "c")}
    with fsspec.open(f"sda://{SLIDE}", **options) as file:
        assert file.read(100) == local.plain[SLIDE][:100]
    with fsspec.open(f"sda://{DATASET}/METADATA/dataset.xml", "rt", **options) as file:
        assert file.read() == "<DATASET/>"
    fs, path = fsspec.url_to_fs(f"sda://{SLIDE}", **options)
    assert fs.unstrip_protocol(path) == f"sda://{SLIDE}"


def test_an_option_that_is_none_is_not_swallowed(v2):
    with pytest.raises(TypeError, match=r"sda:// has no option url; the archive's address is endpoint="):
        SdaFileSystem(url=v2.url, token_file="t", skip_instance_cache=True)


def test_the_entry_point_leads_to_the_filesystem():
    try:
        import tomllib
    except ModuleNotFoundError:
        from pip._vendor import tomli as tomllib
    from pathlib import Path

    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    place = tomllib.loads(text)["project"]["entry-points"]["fsspec.specs"]["sda"]
    fsspec.register_implementation("sda", place.replace(":", "."), clobber=True)
    assert fsspec.get_filesystem_class("sda") is SdaFileSystem


def test_ls_tells_name_size_type_checksum_and_id(server, reach, local):
    fs = reach(server)
    entries = {entry["name"]: entry for entry in fs.ls(f"{DATASET}/IMAGES")}
    slide = entries[SLIDE]
    assert slide["size"] == 3_000_001
    assert slide["type"] == "file"
    assert slide["checksum"] == f"sha256:{hashlib.sha256(local.plain[SLIDE]).hexdigest()}"
    assert local.content.files[slide["file_id"]].dataset == DATASET
    assert fs.ls(f"sda://{SLIDE}") == [slide] == [fs.info(SLIDE)]
    assert fs.ls(f"{DATASET}/", detail=False) == [
        f"{DATASET}/{name}" for name in ("EDITED", "IMAGES", "METADATA")
    ]
    assert fs.isdir(f"{DATASET}/IMAGES")
    assert fs.isdir("")
    assert not fs.exists(f"{DATASET}/IMAGE")
    assert not fs.exists("no-such-dataset/a")
    with pytest.raises(FileNotFoundError, match=r"There is no .*IMAGES/none in the archive"):
        fs.info(f"{DATASET}/IMAGES/none")
    with pytest.raises(IsADirectoryError):
        fs.open(f"{DATASET}/IMAGES")


def test_a_dataset_whose_id_is_an_address_is_one_folder(server, reach, local):
    fs = reach(server)
    folder = "https%3A%2F%2Fdoi.org%2F10.17044%2Fslides"
    assert folder in fs.ls("", detail=False)
    [path] = fs.find(f"sda://{folder}")
    assert fs.cat_file(path) == local.plain["https://doi.org/10.17044/slides/IMAGES/a b+c%20d.tif"]
    assert fs._parent(path) == f"{folder}/IMAGES"
    assert fs.glob(f"{folder}/*/*.tif") == [path]


async def test_coroutines_read_without_a_thread(v2, local, tmp_path):
    fs = SdaFileSystem(
        v2.url,
        token=FixedToken(local.issuer.token(local.petra)),
        cache_folder=str(tmp_path / "c"),
        asynchronous=True,
        skip_instance_cache=True,
    )
    found = await asyncio.gather(*(fs._cat_file(SLIDE, n * 1000, n * 1000 + 10) for n in range(30)))
    assert found == [local.plain[SLIDE][n * 1000 :][:10] for n in range(30)]
    file = await fs.open_async(SLIDE)
    file.seek(2_000_000)
    assert await file.read(100) == local.plain[SLIDE][2_000_000:2_000_100]
    await file.close()
    await fs._http.close()


def test_dask_reads_by_the_address(v2, local, tmp_path):
    place = tmp_path / "token"
    place.write_text(local.issuer.token(local.petra))
    options = {"endpoint": v2.url, "token_file": str(place), "cache_folder": str(tmp_path / "c")}
    _sample, [blocks] = read_bytes(f"sda://{SLIDE}", blocksize=1 << 20, **options)
    # Each block is pickled on its way to a worker.
    found = [pickle.loads(pickle.dumps(block)).compute(scheduler="threads") for block in blocks]
    assert b"".join(found) == local.plain[SLIDE]
