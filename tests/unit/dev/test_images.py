"""The image builds: what the Containerfiles promise, and when a tag changes."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from dev import cache, host, images
from dev.console import Console, Problem
from dev.images import bases

FILES = {name: cache.ROOT / file for name, (file, _) in images.IMAGES.items()}
EVERY = pytest.mark.parametrize("name", sorted(images.IMAGES))
PYTHON = pytest.mark.parametrize("name", ["hub", "stacks", "singleuser"])


def instructions(name):
    text = re.sub(r"\\\n", " ", FILES[name].read_text())
    lines = [
        line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")
    ]
    return [(word, rest.strip()) for word, rest in lines]


@EVERY
def test_a_containerfile_stands_on_a_public_base_that_can_be_replaced(name):
    found = instructions(name)
    assert found[0] == ("ARG", f"BASE={bases.PUBLIC[images.IMAGES[name][1]]}")
    stages = {"${BASE}"}
    for word, rest in found:
        if word == "FROM":
            parent, *alias = rest.split(" AS ")
            assert parent in stages
            stages.update(alias)


@EVERY
def test_a_containerfile_names_no_host(name):
    assert not re.findall(r"https?://|\b[\w-]+\.(?:io|org|com|net)/", FILES[name].read_text())


@EVERY
def test_an_image_runs_as_uid_1000(name):
    found = instructions(name)
    final = found[max(i for i, (word, _) in enumerate(found) if word == "FROM") :]
    assert [rest for word, rest in final if word == "USER"] == ["1000:1000"]


@EVERY
def test_a_final_stage_installs_no_build_tool(name):
    found = instructions(name)
    final = found[max(i for i, (word, _) in enumerate(found) if word == "FROM") :]
    commands = " ".join(rest for word, rest in final if word == "RUN")
    assert not re.search(r"\b(pip|npm|apt-get|gcc|setuptools)\b", commands)


@EVERY
def test_an_image_is_described(name):
    labels = " ".join(rest for word, rest in instructions(name) if word == "LABEL")
    assert "org.opencontainers.image.title=" in labels
    assert 'org.opencontainers.image.licenses="BSD-3-Clause"' in labels


@pytest.mark.parametrize(
    "file",
    [
        "images/hub/requirements.txt",
        "images/stacks/requirements.txt",
        "images/singleuser/requirements.txt",
        "images/build-requirements.txt",
    ],
)
def test_every_requirement_is_pinned_with_its_files_hashes_and_names_no_index(file):
    lines = re.sub(r"\\\n", " ", (cache.ROOT / file).read_text()).splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert lines
    pin = r"[a-z0-9.-]+==[0-9][\w.]*( +--hash=sha256:[0-9a-f]{64})+"
    assert [line for line in lines if not re.fullmatch(pin, line)] == []


@PYTHON
def test_an_image_installs_only_files_whose_hashes_are_known(name):
    installs = [
        part
        for word, rest in instructions(name)
        if word == "RUN"
        for part in rest.split("&&")
        if " install " in part and " -r " in part
    ]
    assert len(installs) == 2
    assert [part for part in installs if "--require-hashes" not in part] == []


def test_the_gateways_image_is_a_release_that_is_supported():
    """nginx's stable branches have even numbers; 1.28 and older get no more corrections."""
    image = yaml.safe_load((cache.ROOT / "cytomine_spawner/blueprint/values/cytomine.yaml").read_text())[
        "images"
    ]["gateway"]
    release = tuple(map(int, re.fullmatch(r"nginx:(\d+)\.(\d+)", image).groups()))
    assert release >= (1, 30)


@pytest.mark.parametrize("folder", ["dev/images/proxy", "dev/lslogin"])
def test_npm_packages_are_locked_without_addresses(folder):
    wanted = json.loads((cache.ROOT / folder / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    lock = (cache.ROOT / folder / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    packages = json.loads(lock)["packages"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert all("integrity" in package for path, package in packages.items() if path)


@PYTHON
def test_the_hub_and_the_notebook_have_the_same_jupyterhub(name):
    pins = (cache.ROOT / f"images/{name}/requirements.txt").read_text().splitlines()
    other = (cache.ROOT / "images/hub/requirements.txt").read_text().splitlines()
    pins, other = ([line.split(" ")[0] for line in lines] for lines in (pins, other))
    mine = [pin for pin in pins if pin.startswith("jupyterhub==")]
    assert mine
    assert mine == [pin for pin in other if pin.startswith("jupyterhub==")]


@EVERY
def test_docker_sees_every_file_that_a_containerfile_copies(name):
    """An ignore file that starts with * must let each source back in."""
    allowed = [
        line[1:] for line in (cache.ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    ]
    patterns = [re.compile(re.escape(entry).replace(r"\*", "[^/]+") + r"(/.*)?") for entry in allowed]
    for source in images.sources(FILES[name]):
        path = str(source.relative_to(cache.ROOT))
        assert any(pattern.fullmatch(path) for pattern in patterns), path


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the images are made from."""
    for file in FILES.values():
        for source in (file, *images.sources(file)):
            target = tmp_path / source.relative_to(cache.ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            elif source.exists():
                shutil.copyfile(source, target)
    return tmp_path


def append(path, text):
    path.write_text(path.read_text() + text)


def tags(checkout):
    return {name: images.tag(name, checkout) for name in images.IMAGES}


def changed(checkout, before):
    return {name for name, tag in tags(checkout).items() if tag != before[name]}


def test_a_tag_is_the_same_in_every_checkout(checkout, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "checkout"
    shutil.copytree(checkout, other, copy_function=shutil.copyfile)
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
    assert tags(other) == tags(checkout)


def test_a_change_of_the_package_changes_the_images_that_hold_it(checkout):
    before = tags(checkout)
    append(checkout / "cytomine_spawner/__init__.py", "# more\n")
    assert changed(checkout, before) == {"hub", "stacks", "singleuser"}


def test_a_change_of_pins_changes_that_image_alone(checkout):
    before = tags(checkout)
    append(checkout / "images/singleuser/requirements.txt", "matplotlib==3.10.0\n")
    assert changed(checkout, before) == {"singleuser"}


def test_a_change_of_the_stand_in_changes_that_image_alone(checkout):
    before = tags(checkout)
    append(checkout / "dev/lslogin/pages.js", "// more\n")
    assert changed(checkout, before) == {"lslogin"}


def test_files_that_no_image_copies_change_no_tag(checkout):
    before = tags(checkout)
    (checkout / "tests").mkdir()
    (checkout / "tests/test_x.py").write_text("")
    (checkout / "dev/lslogin/notes.md").write_text("x")
    cached = checkout / "cytomine_spawner/__pycache__"
    cached.mkdir(exist_ok=True)
    (cached / "x.pyc").write_bytes(b"x")
    assert changed(checkout, before) == set()


def test_a_staged_context_holds_only_what_is_copied_with_equal_times(checkout, tmp_path_factory):
    context = tmp_path_factory.mktemp("stage") / "context"
    (checkout / "cytomine_spawner/__pycache__").mkdir(exist_ok=True)
    images.stage(checkout / "images/singleuser/Containerfile", context, checkout)
    top = {path.name for path in context.iterdir()}
    assert top == {
        "LICENSE", "README.md", "cytomine_spawner", "images", "notebooks", "pyproject.toml", "setup.py",
    }  # fmt: skip
    assert not list(context.rglob("__pycache__"))
    assert len({path.stat().st_mtime for path in context.rglob("*")}) == 1


def test_a_reference_is_known_without_building():
    assert re.fullmatch(r"localhost/cytomine-spawner/hub:[0-9a-f]{16}", images.reference("hub"))


def test_jupyterlab_in_the_notebook_image_asks_nobody_for_news_or_versions(monkeypatch):
    from jupyter_server.serverapp import ServerApp
    from jupyterlab.handlers.announcements import NeverCheckForUpdate
    from jupyterlab.labapp import LabApp

    monkeypatch.setattr(ServerApp, "config_file_paths", [str(cache.ROOT / "images/singleuser")])
    app = LabApp(serverapp=ServerApp())
    app.load_config_file()
    assert app.news_url is None
    assert app.check_for_updates_class is NeverCheckForUpdate


class Buildah:
    """Records what buildah is told, and fails at some of it."""

    def __init__(self, failing):
        self.told, self.failing = [], dict(failing)

    def __call__(self, arguments, what, **_):
        self.told.append(arguments[0])
        if trouble := self.failing.pop(arguments[0], ""):
            raise Problem(f"{what} failed: {trouble}", "Look")
        if arguments[0] == "push":
            Path(arguments[-1].split(":")[1]).touch()
        return "[]"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store with something in it, and what else a build needs."""
    monkeypatch.setattr(cache, "home", lambda: tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(host, "missing", lambda _: [])
    monkeypatch.setattr(images, "base_image", lambda base, _: base)
    monkeypatch.setattr(images, "machine_settings", lambda _: [])
    kept = tmp_path / "buildah/root/overlay/half"
    kept.mkdir(parents=True)
    return kept


def told(monkeypatch, **failing):
    found = Buildah(failing)
    # The package has a function of the module's name.
    monkeypatch.setattr(sys.modules["dev.images.buildah"], "buildah", found)
    monkeypatch.setattr(images, "buildah", found)
    return found


@pytest.mark.parametrize(
    ("failing", "commands"),
    [
        ({}, ["rm", "bud", "push"]),
        ({"rm": "unlinkat merged: device or resource busy"}, ["rm", "bud", "push"]),
        ({"bud": 'building at STEP "COPY --from=package": no such file'}, ["rm", "bud", "bud", "push"]),
    ],
)
def test_a_store_that_a_cut_run_left_damaged_is_made_anew(store, monkeypatch, failing, commands):
    found = told(monkeypatch, **failing)
    images.build(Console(io.StringIO()), ["nginx"])
    assert found.told == commands
    assert store.exists() is not bool(failing)


def test_a_machine_that_has_never_built_an_image_has_no_store_to_measure(store, monkeypatch):
    shutil.rmtree(store.parents[2])
    found = told(monkeypatch)
    images.build(Console(io.StringIO()), ["nginx"])
    assert found.told == ["rm", "bud", "push"]


def test_a_command_that_fails_is_not_tried_again(store, monkeypatch):
    found = told(monkeypatch, bud='building at STEP "RUN pip": while running runtime: exit status 1')
    with pytest.raises(Problem, match="exit status 1"):
        images.build(Console(io.StringIO()), ["nginx"])
    assert found.told == ["rm", "bud"]
    assert store.exists()
