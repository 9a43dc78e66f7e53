"""Datasets in object storage get into a stack as those on a volume do, and only what is needed is fetched."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests
import tifffile
from PIL import Image

from cytomine_spawner.common import objectstore, storageurls
from cytomine_spawner.datasets import shelf as dataset_shelf
from cytomine_spawner.datasets import sources
from cytomine_spawner.datasets.errors import DatasetError, Interrupted
from cytomine_spawner.notebook import regions, slides
from tests.support.importing import COUNT, Stack, make, whole
from tests.support.objects import SIGNED, Store, store

pytest_plugins = ["tests.support.importstack"]


@pytest.fixture(scope="module")
def s3():
    with store() as found:
        yield found


@pytest.fixture(autouse=True)
def _hollow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's slides are small; they wait for their turn all the same."""
    monkeypatch.setattr(sources, "PIECE", 300_000)


def a_dataset(root: Path, name: str) -> Path:
    """The folder of a dataset whose slides are noise."""
    folder = make(root, name) / f"uuid-{name}" / f"DATASET_{name}"
    noise = np.random.default_rng(7)
    for path in folder.rglob("*.png"):
        Image.fromarray(noise.integers(0, 256, (360, 640, 3), np.uint8)).save(path)
    return folder


def run(stack: Stack, url: str, options: dict[str, object], name: str, root: Path, say=lambda _: None):
    keys = (stack.local.url, stack.keys["primaryKey"], stack.keys["secondaryKey"])
    root.mkdir(exist_ok=True)
    return asyncio.run(sources.import_source(keys, url, options, name, root, say))


def slides_fetched(s3: Store, bucket: str) -> int:
    return sum(n for path, n in s3.bytes.items() if path.startswith(f"/{bucket}/") and path.endswith(".png"))


def test_a_dataset_comes_out_of_object_storage_once(stack: Stack, s3: Store, tmp_path: Path) -> None:
    folder = a_dataset(tmp_path, "remote")
    s3.put("colon", folder)
    seen = []
    (done,) = run(stack, "s3://colon/DATASET_remote", s3.options, "remote", tmp_path / "one", seen.append)
    assert (done.dataset, done.images, done.annotations) == ("remote", 2, COUNT)
    assert len(whole(stack, "remote")["annotations"]) == COUNT
    assert any(
        now.what.startswith("fetching remote-1.png from s3://colon/DATASET_remote ") and 0 < now.fraction <= 1
        for now in seen
    )
    size = sum(path.stat().st_size for path in folder.rglob("*.png"))
    assert slides_fetched(s3, "colon") == size
    # Nothing of a slide stays on the disk.
    left = list((tmp_path / "one").rglob("*.png"))
    assert len(left) == 2
    assert all(not any(path.read_bytes()) for path in left)
    # What is in is not fetched again.
    (again,) = run(stack, "s3://colon/DATASET_remote/", s3.options, "remote", tmp_path / "two")
    assert again == done
    assert slides_fetched(s3, "colon") == size


def test_the_program_takes_its_credentials_from_files_and_says_none(
    stack: Stack, s3: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    s3.put("program", a_dataset(tmp_path, "program"))
    options = tmp_path / "options"
    options.mkdir()
    for name, text in s3.options.items():
        (options / name).write_text(f"{text}\n")
    (options / "..data").mkdir()
    words = [f"--connection={stack.connection(tmp_path / 'c')}", f"--options={options}"]
    assert sources.main([*words, "--url=s3://program/DATASET_program", "--", "program"]) == 0
    assert f"2 images, {COUNT} annotations" in capfd.readouterr().out
    assert sources.main([*words, "--url=s3://program/DATASET_none", "--", "none"]) == 65
    out, error = capfd.readouterr()
    assert error == (
        "There is nothing at s3://program/DATASET_none. Mend the dataset's url, or put it there, and try again.\n"
    )
    (options / "client_options").write_text("{no json")
    assert sources.main([*words, "--url=s3://program/DATASET_program", "--", "program"]) == 65
    assert "The key client_options of the dataset's Secret is no JSON" in capfd.readouterr().err
    (options / "client_options").unlink()
    (options / "acces_key_id").write_text("hush-hush")
    assert sources.main([*words, "--url=s3://program/DATASET_program", "--", "program"]) == 65
    out, error = capfd.readouterr()
    assert "cannot be opened with the options of the dataset's Secret" in error
    assert "hush-hush" not in out + error


def test_what_the_storage_refuses_and_where_it_is_away_is_said(
    stack: Stack, s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("refused", a_dataset(tmp_path, "refused"))
    monkeypatch.setattr(s3, "refuse", True)
    with pytest.raises(DatasetError, match="The storage refuses s3://refused/DATASET_refused") as failed:
        run(stack, "s3://refused/DATASET_refused", s3.options, "refused", tmp_path / "one")
    assert not isinstance(failed.value, Interrupted)
    monkeypatch.setattr(s3, "refuse", False)
    with pytest.raises(DatasetError, match="Something of s3://no-such-bucket/x is not there"):
        run(stack, "s3://no-such-bucket/x", s3.options, "refused", tmp_path / "three")
    nobody = {**s3.options, "endpoint": "http://127.0.0.1:9", "retry_config": {"max_retries": 0}}
    with pytest.raises(Interrupted, match=r"s3://refused/x could not be fetched .*Try again"):
        run(stack, "s3://refused/x", nobody, "refused", tmp_path / "two")


def test_a_dataset_at_a_web_address_is_imported_as_well(stack: Stack, tmp_path: Path) -> None:
    folder = a_dataset(tmp_path, "web")

    class Ranges(SimpleHTTPRequestHandler):
        """A server that lists its folders, and gives ranges."""

        def do_GET(self):
            asked = self.headers.get("Range")
            if not asked:
                super().do_GET()
                return
            first, _, last = asked.removeprefix("bytes=").partition("-")
            data = Path(self.translate_path(self.path)).read_bytes()
            part = data[int(first) : int(last) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(folder.parent))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/DATASET_web"
            (done,) = run(stack, address, {}, "web", tmp_path / "one")
        finally:
            server.shutdown()
            thread.join()
    assert (done.images, done.annotations) == (2, COUNT)


def test_a_slide_without_room_is_said(s3: Store, stack: Stack, tmp_path: Path, monkeypatch) -> None:
    s3.put("large", a_dataset(tmp_path, "large"))
    real = dataset_shelf.shutil.disk_usage
    monkeypatch.setattr(dataset_shelf.shutil, "disk_usage", lambda path: real(path)._replace(free=100_000))
    with pytest.raises(
        DatasetError, match=r"large-1.png takes 1 MiB .* 0 MiB are free there.*dataset_scratch"
    ):
        run(stack, "s3://large/DATASET_large", s3.options, "large", tmp_path / "one")


@pytest.mark.parametrize("below", ["../../outside", "/outside", "IMAGES/../../outside", "IMAGES/a\0b"])
def test_a_file_beside_the_dataset_is_never_written(s3: Store, tmp_path: Path, below: str) -> None:
    class Evil:
        protocol = "evil"

        def ls(self, path, detail):
            return [{"name": f"{path}/{below}", "size": 3, "type": "file"}]

    source = sources.Source("s3://x/y", s3.options)
    source._fs = Evil()
    with pytest.raises(DatasetError, match="which is in no folder of the dataset"):
        source.shelf(tmp_path / "y")
    assert not list(tmp_path.iterdir())


def test_empty_objects_that_mark_folders_are_no_files(s3: Store, tmp_path: Path) -> None:
    """Consoles of object storage make them."""
    (tmp_path / "marked" / "IMAGES" / "a").mkdir(parents=True)
    (tmp_path / "marked" / "IMAGES" / "a" / "a.png").write_bytes(b"xx")
    s3.put("marked", tmp_path / "marked")
    for key in ("marked/", "marked/IMAGES/", "marked/IMAGES/a/"):
        requests.put(f"{s3.upstream}/marked/{key}", b"", headers=SIGNED, timeout=30).raise_for_status()
    shelf = sources.Source("s3://marked/marked", s3.options).shelf(tmp_path / "made")
    assert [path.name for path in shelf.folder.rglob("*") if path.is_file()] == ["a.png"]
    requests.put(f"{s3.upstream}/marked/marked/IMAGES/a/a.png/b", b"x", headers=SIGNED, timeout=30)
    with pytest.raises(DatasetError, match="a file and a folder that are both called IMAGES/a/a"):
        sources.Source("s3://marked/marked", s3.options).shelf(tmp_path / "again")


def test_what_describes_slides_is_not_fetched_without_room(s3: Store, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "wide" / "METADATA").mkdir(parents=True)
    (tmp_path / "wide" / "METADATA" / "dataset.xml").write_bytes(b" " * 5000)
    s3.put("wide", tmp_path / "wide")
    real = dataset_shelf.shutil.disk_usage
    monkeypatch.setattr(dataset_shelf.shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
    with pytest.raises(DatasetError, match=r"What describes the slides .*dataset_scratch"):
        sources.Source("s3://wide/wide", s3.options).shelf(tmp_path / "made")
    assert not s3.bytes["/wide/wide/METADATA/dataset.xml"]


class Site:
    """A web server of a few pages, which notes what it is asked."""

    def __init__(self, pages: dict[str, str]) -> None:
        self.pages, self.asked, self.heads, site = pages, [], [], self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                site.asked.append(self.path)
                site.heads.append(dict(self.headers))
                page = site.pages.get(self.path, "")
                to = page.removeprefix("to:") if page.startswith("to:") else ""
                # One that asks for ever is stopped, and seen.
                self.send_response(500 if len(site.asked) > 50 else 302 if to else 200 if page else 404)
                if to:
                    self.send_header("Location", to)
                self.send_header("Content-Type", "text/html" if "<a" in page else "text/plain")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(page.encode())

            do_HEAD = do_GET  # noqa: N815 - a name of the base class

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def site():
    made = []

    def make_one(pages):
        made.append(Site(pages))
        return made[-1]

    yield make_one
    for one in made:
        one.close()


def test_a_page_of_a_web_server_leads_nowhere_but_into_the_folder(site, tmp_path: Path) -> None:
    elsewhere = site({"/IMAGES/": "<a href='x'>x</a>"})
    up = '<a href="?C=N;O=D">Name</a> <a href="#top">top</a> <a href="./">.</a> <a href="/">Parent Directory</a> '
    here = site(
        {
            "/d": f'{up} <a href="../secret/">s</a> <a href="%2e%2e/secret/">s</a> <a href="IMAGES/">i</a>'
            f'<a href="{elsewhere.url}/IMAGES/">e</a> <a href="..%2fsecret">p</a>',
            "/d/IMAGES": '<a href="../">up</a> <a href="../IMAGES/">again</a> <a href="a%20b.txt">a b.txt</a>',
            "/d/IMAGES/a%20b.txt": "hi",
            "/secret": '<a href="key">key</a>',
        }
    )
    shelf = sources.Source(f"{here.url}/d", {}).shelf(tmp_path / "made")
    assert [path.name for path in shelf.folder.rglob("*") if path.is_file()] == ["a b.txt"]
    assert not elsewhere.asked
    assert set(here.asked) == {"/d", "/d/IMAGES", "/d/IMAGES/a%20b.txt"}


def test_what_is_in_the_secret_goes_to_no_server_that_another_sends_on_to(site, tmp_path: Path) -> None:
    elsewhere = site({"/d": '<a href="a">a</a>', "/d/a": "hi"})
    here = site({"/d": f"to:{elsewhere.url}/d", "/moved": "to:/there", "/there": '<a href="a">a</a>'})
    secret = {"client_kwargs": {"headers": {"X-Key": "hush-hush"}}}
    with pytest.raises(DatasetError, match="which is not to see what is in the dataset's Secret") as failed:
        sources.Source(f"{here.url}/d", secret).shelf(tmp_path / "made")
    assert not isinstance(failed.value, Interrupted)
    assert not elsewhere.asked
    # On the same server it is followed.
    with pytest.raises(DatasetError, match="not there"):
        sources.Source(f"{here.url}/moved", secret).shelf(tmp_path / "same")
    assert "/there" in here.asked
    assert here.heads[-1]["X-Key"] == "hush-hush"


@pytest.mark.parametrize(
    "url",
    ["file:///etc", "https://h/a::file:///etc", "simplecache::s3://b/c", "s3://k:s@b/c", "data:x", "/etc"],
)
def test_a_dataset_is_at_no_other_kind_of_address(url: str) -> None:
    with pytest.raises(ValueError, match=r"address of a folder|names several places|given with credentials"):
        storageurls.check(url)


def test_what_cannot_be_opened_is_said_without_its_password() -> None:
    with pytest.raises(ValueError, match=r"smb://there/x cannot be opened") as failed:
        objectstore.filesystem("smb://me:hush-hush@there/x")
    assert "hush-hush" not in str(failed.value)


def test_a_reader_fetches_no_more_of_a_slide_than_is_looked_at(s3: Store, tmp_path: Path) -> None:
    whole = np.random.default_rng(3).integers(0, 256, (4096, 4096, 3), np.uint8)
    (tmp_path / "big").mkdir()
    tifffile.imwrite(tmp_path / "big" / "noise.tif", whole, tile=(256, 256), photometric="rgb")
    s3.put("slides", tmp_path / "big")
    with slides.open_slide("s3://slides/big/noise.tif", **s3.options) as slide:
        assert (slide.name, slide.width) == ("noise.tif", 4096)
        assert np.array_equal(regions.region(slide, 1000, 2000, 300, 200), whole[2000:2200, 1000:1300])
    assert 0 < s3.bytes["/slides/big/noise.tif"] < 3_000_000 < whole.nbytes / 10
