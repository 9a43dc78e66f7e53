"""Datasets of the archive that are granted no more: what is said, and what becomes of their copies in a real stand-in of core."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests

from cytomine_spawner.access import grantrecord, grants, projects
from cytomine_spawner.access.grantrecord import Copy, Fate
from cytomine_spawner.access.grants import Grants
from cytomine_spawner.access.projectcalls import Refused
from cytomine_spawner.access.projects import Projects
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.cluster.client import KubeError
from cytomine_spawner.cluster.store import Unavailable
from cytomine_spawner.common.importmarks import PROJECT
from cytomine_spawner.datasets.marks import IMAGE
from cytomine_spawner.operator import imports
from cytomine_spawner.operator.children import Children
from cytomine_spawner.operator.clock import Clock
from cytomine_spawner.operator.reconcile import Reconciler
from cytomine_spawner.stack import model
from cytomine_spawner.stack.grants import Finding
from cytomine_spawner.stack.model import DATASETS_GRANTED, DatasetProject, Members, Stack
from cytomine_spawner.stack.people import HubUser, Role
from cytomine_spawner.stack.rights import Person
from cytomine_spawner.web.present import view
from tests.support import importing
from tests.support.secretstore import FakeSecrets
from tests.support.stacks import FakeStore, a_stack
from tests.support.standin import local_stack

RUN = datetime(2026, 11, 24, 8, tzinfo=timezone.utc)
NAME, OTHER = "sda://aa-Dataset-colon", "sda://aa-Dataset-skin"
NUMBERS = count(1)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[importing.Stack]:
    with local_stack(tmp_path_factory.mktemp("grants")) as found:
        yield importing.Stack(*found)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants, "BACKOFF_SECONDS", (0.05,))
    monkeypatch.setattr(projects, "BACKOFF_SECONDS", (0.05,))
    monkeypatch.setattr(projects, "LOOK_SECONDS", 3600)


class World:
    """The worker; hub, cluster and the signing of tokens are in memory, and the owner is alice.

    Attributes:
        granted: what the hub says; None while it cannot be known.
        trouble: why.
    """

    def __init__(self, core: importing.Stack, policy: str = "hide") -> None:
        self.core, self.store, self.secrets = core, FakeStore(), FakeSecrets()
        self.granted: set[str] | None = set()
        self.trouble, self.asked = "", 0
        self.changed: list[str] = []
        self.runs = count()
        self.start(policy)

    def start(self, policy: str) -> None:
        """A process of the service."""
        settings = StackSettings(archive_url="https://archive.example.org", archive_revoked=policy)
        address: Callable[[Stack], str] = lambda _: self.core.local.url  # noqa: E731
        self.projects = Projects(self.store, self.secrets, self, self, address=address)  # type: ignore[arg-type]
        self.grants = Grants(
            self.store,
            self.secrets,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self,
            self.projects,
            settings,
            address=address,
            changed=self.changed.append,
        )
        self.tasks = [asyncio.create_task(part.run()) for part in (self.projects, self.grants)]

    async def stop(self) -> None:
        assert not any(task.done() for task in self.tasks), "a task ended by itself"
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    # the hub and the identity

    async def archive_grants(self, stack: Stack, datasets: list[str]) -> tuple[frozenset[str] | None, str]:
        self.asked += 1
        if self.granted is None:
            return None, self.trouble
        return frozenset(self.granted) & frozenset(datasets), ""

    async def user(self, name: str) -> HubUser | None:
        return HubUser(name, frozenset())

    async def role(self, stack: Stack, name: str, *, fresh: bool = False) -> Role | None:
        return Role.USER if name in stack.spec.members.users else None

    async def token(self, stack: Stack, user: str, role: Role) -> tuple[str, int]:
        return self.core.issuer.token(user, role.in_core), 0

    # the stack

    def resume(self, *copies: tuple[str, int], users: tuple[str, ...] = (), **more: Any) -> Stack:
        """Another run of a stack into which these were imported; returns it as the API server tells of it."""
        status = {
            "imported_datasets": tuple(name for name, _ in copies),
            "dataset_projects": tuple(DatasetProject(name=n, project=p) for n, p in copies if p),
            "started_at": RUN + timedelta(hours=next(self.runs)),
            **more,
        }
        stack = a_stack(
            "alice", datasets=tuple(name for name, _ in copies), members=Members(users=users), **status
        )
        self.store.view.put(stack)
        return stack

    async def finding(self, stack: Stack, *reasons: str) -> Finding:
        """What was found in a run."""
        end = asyncio.get_running_loop().time() + 30
        wanted = reasons or ("Granted", "Revoked")
        while True:
            found = self.grants.found(stack)
            if found and found.run == grants.run_of(stack) and found.reason in wanted:
                return found
            assert asyncio.get_running_loop().time() < end, found
            await asyncio.sleep(0.02)

    # what people see

    def ask(self, who: str, role: str, method: str, path: str, body: Any = None) -> Any:
        head = {"Authorization": f"Bearer {self.core.issuer.token(who, role)}"}
        answer = requests.request(method, self.core.local.url + path, json=body, headers=head, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def sees(self, who: str, role: str = "USER") -> set[int]:
        return {p["id"] for p in self.ask(who, role, "GET", "/api/project.json?max=0")["collection"]}

    def roles(self, project: int) -> dict[str, str]:
        found = self.core.get(f"/api/project/{project}/user.json?max=0")["collection"]
        return {one["username"]: one["role"] for one in found}


@pytest.fixture
async def world(core: importing.Stack, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made = World(core, getattr(request, "param", "hide"))
    yield made
    await made.stop()


@pytest.fixture
def project(core: importing.Stack, tmp_path: Path) -> int:
    """A project with slides and annotations, by a real import."""
    name = f"revoked{next(NUMBERS)}"
    (done,) = core.start(importing.make(tmp_path, name, count=9), marked=NAME)
    return int(done.project)


# -- what is granted ---------------------------------------------------------------------------------------


async def test_what_is_granted_is_left_alone_and_nothing_is_on_the_card(world: World, project: int) -> None:
    world.granted = {NAME}
    stack = world.resume((NAME, project))
    found = await world.finding(stack)
    assert (found.word, found.revoked) == ("True", ())
    assert project in world.sees("alice", "ADMIN")
    status = found.applied(stack, RUN)
    assert view(stack.replace(status=status), Person("alice")).grants == ""
    assert "cm-alice-grants" not in world.secrets.there


async def test_a_stack_without_datasets_of_the_archive_asks_nobody(world: World, project: int) -> None:
    world.resume(("mock", project))
    await asyncio.sleep(0)
    second = world.resume(("mock", project), (NAME, 0))
    world.granted = {NAME}
    await world.finding(second)
    assert world.asked == 1


@pytest.mark.parametrize("world", ["hide", "delete", "keep"], indirect=True)
async def test_what_cannot_be_known_changes_nothing_is_said_and_looked_at_again(
    world: World, project: int
) -> None:
    world.granted, world.trouble = None, "the archive or LS Login does not answer at the moment"
    stack = world.resume((NAME, project))
    found = await world.finding(stack, "Unknown")
    assert found.word == "Unknown"
    assert "aa-Dataset-colon could not be looked at: the archive or LS Login does not answer" in found.message
    assert "Nothing was changed" in found.message
    assert world.roles(project) == {"alice": "representative"}
    status = found.applied(stack, RUN)
    assert view(stack.replace(status=status), Person("alice")).grants == found.message
    world.granted = {NAME}
    assert (await world.finding(stack)).reason == "Granted"


# -- hide --------------------------------------------------------------------------------------------------


async def test_hidden_is_a_copy_from_owner_and_members_and_all_are_back_when_the_grant_is(
    world: World, core: importing.Stack, project: int
) -> None:
    invited, by_hand, manager = (f"{name}{project}" for name in ("invited", "byhand", "manager"))
    for who, tail in ((by_hand, ""), (manager, "/admin")):
        number = world.ask(who, "USER", "GET", "/api/user/current.json")["id"]
        world.ask("alice", "ADMIN", "POST", f"/api/project/{project}/user/{number}{tail}.json")
    world.granted = {NAME}
    stack = world.resume((NAME, project), users=(invited,))
    await world.finding(stack)
    await world.projects.settle(stack)
    before = world.roles(project)
    assert before.keys() == {"alice", invited, by_hand, manager}

    world.granted = set()
    stack = world.resume((NAME, project), users=(invited,))
    found = await world.finding(stack)
    assert found.word == "False"
    assert found.revoked == (NAME,)
    assert "aa-Dataset-colon is not granted to the owner any more (noticed on " in found.message
    assert "Its copy in Cytomine is hidden until it is granted again." in found.message
    assert world.roles(project) == {}
    for who, role in ((invited, "USER"), (by_hand, "USER"), (manager, "USER"), ("alice", "ADMIN")):
        assert project not in world.sees(who, role)
    # Nothing of it is lost.
    assert len(core.get(f"/api/project/{project}/imageinstance.json?max=0")["collection"]) == 2
    # Another look of the members' worker does not bring anybody back, nor does another process.
    await world.projects.settle(stack)
    assert world.roles(project) == {}
    await world.stop()
    world.start("hide")
    stack = world.resume((NAME, project), users=())
    assert (await world.finding(stack)).revoked == (NAME,)

    # Who left the stack meanwhile stays out.
    world.granted = {NAME}
    stack = world.resume((NAME, project), users=())
    found = await world.finding(stack)
    assert (found.word, found.revoked) == ("True", ())
    assert world.roles(project) == {"alice": "manager", by_hand: "contributor", manager: "manager"}
    assert project in world.sees("alice", "ADMIN")
    stack = world.resume((NAME, project), users=(invited,))
    await world.finding(stack)
    await world.projects.settle(stack)
    assert world.roles(project).keys() == before.keys()


async def test_an_owner_who_put_herself_back_is_taken_out_at_the_next_start(
    world: World, project: int
) -> None:
    await world.finding(world.resume((NAME, project)))
    number = world.ask("alice", "ADMIN", "GET", "/api/user/current.json")["id"]
    world.ask("alice", "ADMIN", "POST", f"/api/project/{project}/user/{number}.json")
    await world.finding(world.resume((NAME, project)))
    assert world.roles(project) == {}


async def test_a_copy_whose_project_is_not_known_or_holds_more_is_left_alone_and_it_is_said(
    world: World, project: int
) -> None:
    found = await world.finding(world.resume((NAME, 0)))
    assert "was not written down when it was imported, so nothing was done with it" in found.message
    assert found.revoked == ()
    world.granted = {OTHER}
    found = await world.finding(world.resume((NAME, project), (OTHER, project)))
    assert "Its copy stays, as aa-Dataset-skin is in the same project of Cytomine." in found.message
    assert world.roles(project) == {"alice": "representative"}


async def test_what_fails_on_the_way_is_said_and_done_when_it_can_be(
    world: World, project: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True
    change = world.grants._calls.change

    async def failing(*args: Any) -> None:
        if broken:
            raise Unavailable("Cytomine does not answer at its gateway.")
        await change(*args)

    monkeypatch.setattr(world.grants._calls, "change", failing)
    stack = world.resume((NAME, project))
    found = await world.finding(stack, "Failed")
    assert "was not done yet: Cytomine does not answer at its gateway. It is tried again." in found.message
    broken = False
    await world.finding(stack)
    assert world.roles(project) == {}
    world.granted = {NAME}
    await world.finding(world.resume((NAME, project)))
    assert world.roles(project) == {"alice": "manager"}


async def test_where_core_lets_no_owner_go_the_members_are_out_even_so(
    world: World, project: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, guest = (
        world.ask(who, role, "GET", "/api/user/current.json")["id"]
        for who, role in (("alice", "ADMIN"), (f"guest{project}", "USER"))
    )
    world.ask("alice", "ADMIN", "POST", f"/api/project/{project}/user/{guest}.json")
    change = world.grants._calls.change

    async def refusing(host: str, token: str, step: Any, number: int, user: int) -> None:
        if user == owner:
            raise Refused("Cytomine refused a change of a project's members (400).")
        await change(host, token, step, number, user)

    monkeypatch.setattr(world.grants._calls, "change", refusing)
    stack = world.resume((NAME, project))
    found = await world.finding(stack, "Failed")
    assert "all members are out of its project, and Cytomine refused to take the owner out" in found.message
    assert world.roles(project) == {"alice": "representative"}
    monkeypatch.setattr(world.grants._calls, "change", change)
    await world.finding(stack)
    assert world.roles(project) == {}


async def test_a_cluster_that_keeps_nothing_lets_nothing_be_done(world: World, project: int) -> None:
    world.secrets.refuses = 500
    stack = world.resume((NAME, project))
    found = await world.finding(stack, "Failed")
    assert "The cluster does not keep what was done" in found.message
    assert world.roles(project) == {"alice": "representative"}
    world.secrets.refuses = 0
    await world.finding(stack)
    assert world.roles(project) == {}
    world.secrets.there["cm-alice-grants"]["data"]["copies"] = "bm9uc2Vuc2U="
    found = await world.finding(world.resume((NAME, project)), "Failed")
    assert "cannot be read from the Secret cm-alice-grants" in found.message


# -- delete and keep ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", ["delete"], indirect=True)
async def test_deleted_are_project_annotations_and_slides_and_what_is_granted_again_is_imported_anew(
    world: World, core: importing.Stack, project: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"stays{project}"
    root = importing.make(tmp_path / "other", name, count=9)
    (other,) = await asyncio.to_thread(core.run, root, name)
    files = {f["id"] for f in core.get("/api/uploadedfile.json?max=0")["collection"]}
    cut = True
    drop = world.grants._calls.drop

    async def dying(host: str, token: str, kind: str, number: int) -> None:
        # The process ends after the images and before the slides' files.
        if kind == "uploadedfile" and cut:
            raise KubeError(0, "Timeout", "cut")
        await drop(host, token, kind, number)

    monkeypatch.setattr(world.grants._calls, "drop", dying)
    world.granted = {OTHER}
    stack = world.resume((NAME, project), (OTHER, other.project))
    await world.finding(stack, "Failed")
    assert not images(core, project)
    cut = False
    found = await world.finding(stack)
    assert found.message.endswith("Its copy in Cytomine was deleted.")
    assert project not in world.sees("alice", "ADMIN")
    assert found.revoked == (NAME,)
    gone = files - {f["id"] for f in core.get("/api/uploadedfile.json?max=0")["collection"]}
    assert len(gone) == 2
    assert len(core.inside(name)["images"]) == 2

    world.granted = {NAME, OTHER}
    stack = world.resume((NAME, project), (OTHER, other.project))
    found = await world.finding(stack)
    assert found.returned == (NAME,)
    status = found.applied(stack, RUN)
    assert status.imported_datasets == (OTHER,)
    assert [one.name for one in status.dataset_projects] == [OTHER]
    # It is in again, and the next loss is one of its own.
    world.granted = {OTHER}
    found = await world.finding(world.resume((NAME, 0), (OTHER, other.project)))
    assert "was not written down" in found.message


def images(core: importing.Stack, project: int) -> dict[str, int]:
    found = core.get(f"/api/project/{project}/imageinstance.json?max=0")["collection"]
    return {one["instanceFilename"]: one["id"] for one in found}


def slides(core: importing.Stack) -> set[str]:
    return {one["originalFilename"] for one in core.get("/api/uploadedfile.json?max=0")["collection"]}


@pytest.mark.parametrize("world", ["delete"], indirect=True)
async def test_what_the_owner_put_into_the_project_stays_when_the_copy_is_deleted(
    world: World, core: importing.Stack, project: int, tmp_path: Path
) -> None:
    # One of them is called as one that the import brought.
    (brought, *_), mine = sorted(images(core, project)), f"mine{project}.png"
    for name in (mine, brought):
        importing.picture(tmp_path / "own" / name)
        await asyncio.to_thread(core.upload, tmp_path / "own" / name, project)
    found = core.get(f"/api/project/{project}/imageinstance.json?max=0")["collection"]
    assert len(found) == 4
    own = max(one["id"] for one in found if one["instanceFilename"] == brought)

    finding = await world.finding(world.resume((NAME, project)))
    assert (
        "Its copy in Cytomine was deleted. The project stays, as 2 other slides are in it." in finding.message
    )
    assert finding.revoked == (NAME,)
    assert project in world.sees("alice", "ADMIN")
    assert images(core, project) == {mine: images(core, project)[mine], brought: own}
    assert {mine, brought} <= slides(core)
    query = f"/api/annotation.json?project={project}&max=0"
    assert not core.get(query)["collection"], "annotations of what was deleted are left"
    # That is said as long as it is so, by another process as well.
    await world.stop()
    world.start("delete")
    again = await world.finding(world.resume((NAME, project)))
    assert again.message == finding.message
    assert len(images(core, project)) == 2


@pytest.mark.parametrize("world", ["delete"], indirect=True)
async def test_no_member_has_slides_of_others_deleted_with_a_copy(
    world: World, core: importing.Stack, project: int, tmp_path: Path
) -> None:
    mine, his = f"mine{project}.png", f"his{project}.png"
    importing.picture(tmp_path / mine)
    await asyncio.to_thread(core.upload, tmp_path / mine, project)
    member = copy.copy(core)
    member.head = {"Authorization": f"Bearer {core.issuer.token('bob', 'USER')}"}
    member.keys = member.get("/api/user/current/keys")
    core.send(f"/api/project/{project}/user/{member.get('/api/user/current.json')['id']}.json", {})
    importing.picture(tmp_path / his)
    await asyncio.to_thread(member.upload, tmp_path / his, project)
    there = images(core, project)
    on_project = f"/api/domain/{PROJECT}/{project}/property.json"
    # Core lets members write on all images of a project.
    for name in (mine, his):
        for value in ("brought", f"brought {there[name]} {NAME}"):
            mark = {"key": "@dataset-import", "value": value}
            member.send(f"/api/domain/{IMAGE}/{there[name]}/property.json", mark)
            with pytest.raises(requests.HTTPError, match="403"):
                member.send(on_project, mark)
    # Whoever manages the project writes on it.
    core.send(on_project, {"key": "@dataset-import", "value": f"brought {there[his]} {NAME}"})
    found = await world.finding(world.resume((NAME, project), users=("bob",)))
    assert "The project stays, as 2 other slides are in it." in found.message
    assert images(core, project).keys() == {mine, his} <= slides(core)


@pytest.mark.parametrize("world", ["delete"], indirect=True)
async def test_what_another_import_puts_into_the_same_project_stays(
    world: World, core: importing.Stack, project: int, tmp_path: Path
) -> None:
    """One from a volume, or one that is under way."""
    name = core.get(f"/api/project/{project}.json")["name"]
    importing.picture(
        tmp_path / "other" / "uuid" / f"DATASET_{name}" / "IMAGES" / "IMAGE_3" / f"{name}-3.png"
    )
    (other,) = await asyncio.to_thread(core.run, tmp_path / "other", name)
    assert other.project == project
    found = await world.finding(world.resume((NAME, project)))
    assert "The project stays, as another slide is in it." in found.message
    assert list(images(core, project)) == [f"{name}-3.png"]


@pytest.mark.parametrize("world", ["hide"], indirect=True)
async def test_who_was_taken_out_of_a_project_that_stays_is_put_back(
    world: World, core: importing.Stack, project: int, tmp_path: Path
) -> None:
    importing.picture(tmp_path / "own" / "mine.png")
    await asyncio.to_thread(core.upload, tmp_path / "own" / "mine.png", project)
    await world.finding(world.resume((NAME, project)))
    assert world.roles(project) == {}
    await world.stop()
    world.start("delete")
    await world.finding(world.resume((NAME, project)))
    assert list(images(core, project)) == ["mine.png"]
    assert world.roles(project).keys() == {"alice"}


@pytest.mark.parametrize("world", ["delete"], indirect=True)
async def test_a_project_that_was_there_before_the_import_or_holds_files_stays(
    world: World, core: importing.Stack, project: int, tmp_path: Path
) -> None:
    name = f"before{project}"
    ontology = core.send("/api/ontology.json", {"name": name})
    made = {"ontology": (ontology.get("data") or ontology["ontology"])["id"], "name": name}
    core.send("/api/project.json", made)
    root = importing.make(tmp_path / "before", name, count=9)
    (other,) = await asyncio.to_thread(core.start, root, marked=OTHER)
    note = tmp_path / "notes.txt"
    note.write_text("of the owner")
    core.attach(note, PROJECT, project)
    finding = await world.finding(world.resume((NAME, project), (OTHER, other.project)))
    assert "The project stays, as files are attached to it." in finding.message
    assert "The project stays, as no import is known to have made it." in finding.message
    assert {project, other.project} <= world.sees("alice", "ADMIN")
    assert images(core, project) == images(core, other.project) == {}


@pytest.mark.parametrize("world", ["delete"], indirect=True)
async def test_where_nobody_wrote_down_what_an_import_brought_nothing_is_deleted_and_it_is_said(
    world: World, core: importing.Stack, project: int
) -> None:
    """As it is with what was imported by the version before."""
    place = f"/api/domain/{PROJECT}/{project}/property"
    for one in core.get(f"{place}.json?max=0")["collection"]:
        core.delete(f"{place}/{one['id']}.json")
    # Another import found the project there.
    core.send(f"{place}.json", {"key": "@dataset-import", "value": f"brought 1 {OTHER}"})
    finding = await world.finding(world.resume((NAME, project)))
    assert "was not written down when it did, so nothing was deleted" in finding.message
    assert finding.revoked == ()
    assert len(images(core, project)) == 2


@pytest.mark.parametrize("world", ["keep"], indirect=True)
async def test_kept_copies_are_only_told_of_and_what_was_hidden_is_shown(world: World, project: int) -> None:
    found = await world.finding(world.resume((NAME, project)))
    assert "Its copy in Cytomine stays." in found.message
    assert (found.word, found.revoked) == ("False", ())
    assert world.roles(project) == {"alice": "representative"}
    await world.stop()
    world.start("hide")
    assert (await world.finding(world.resume((NAME, project)))).revoked == (NAME,)
    await world.stop()
    world.start("keep")
    assert (await world.finding(world.resume((NAME, project)))).revoked == ()
    assert world.roles(project) == {"alice": "manager"}


# -- the record, the status --------------------------------------------------------------------------------


def test_the_record_is_read_as_it_was_written() -> None:
    one = Copy("2026-11-24T08:00:00Z", Fate.DELETING, 7, {3: "manager"}, {4, 5}, "run", {6}, "It stays.")
    assert grantrecord.read(grantrecord.write({NAME: one})) == {NAME: one}
    # Of a version before.
    old = json.loads(grantrecord.write({NAME: one}))
    del old[NAME]["images"], old[NAME]["stays"]
    was = grantrecord.read(json.dumps(old))[NAME]
    # It held the owner's own slides as well, and is not gone on with.
    assert (was.uploads, was.fate, was.people) == (set(), Fate.HIDDEN, {3: "manager"})
    for text in ("[]", '{"a": 1}', '{"a": {"noticed": ""}}'):
        with pytest.raises(ValueError, match="no record of copies"):
            grantrecord.read(text)


def test_a_finding_of_another_run_or_stack_is_not_applied() -> None:
    stack = a_stack("alice", started_at=RUN)
    now = grants.run_of(stack)
    for uid, run in ((stack.uid, "2026-01-01T00:00:00Z"), ("another", now)):
        assert Finding(uid, run, "False", "Revoked", "x").applied(stack, RUN) == stack.status
    status = Finding(stack.uid, now, "False", "Revoked", "x", (NAME,)).applied(stack, RUN)
    assert status.condition(DATASETS_GRANTED).message == "x"  # type: ignore[union-attr]
    assert status.revoked_datasets == (NAME,)


@pytest.mark.parametrize(
    ("line", "project"),
    [
        ("colon: project 41, 2 images, 9 annotations; 3 MB/s", 41),
        ("a: project 7, 1 images, 1 annotations: project 41, 2 images, 9 annotations", 41),
        ("colon is imported", None),
    ],
)
def test_the_projects_number_is_what_the_import_itself_says(line: str, project: int | None) -> None:
    found = imports._ENDED.match(line)
    assert (int(found[1]) if found else None) == project


def test_the_crd_knows_what_the_status_holds() -> None:
    import yaml

    path = Path(model.__file__).parents[2] / "helm/cytomine-hub/crds/cytominestacks.yaml"
    (version,) = yaml.safe_load(path.read_text())["spec"]["versions"]
    known = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert {"datasetProjects", "revokedDatasets"} <= known.keys()


class Cluster:
    """As much of the API server as the operator needs for a look at a stack."""

    namespace = "cytomine"
    calls = 0

    def __init__(self) -> None:
        self.status: dict[str, Any] = {}

    async def apply(self, obj: dict[str, Any]) -> dict[str, Any]:
        return obj

    async def create(self, obj: dict[str, Any]) -> bool:
        return True

    async def get(self, kind: str, name: str, **_: Any) -> None:
        return None

    async def list(self, kind: str, **_: Any) -> tuple[list[Any], str]:
        return [], "1"

    async def delete(self, kind: str, name: str, **_: Any) -> None:
        return None

    async def patch(self, kind: str, name: str, body: dict[str, Any], subresource: str = "") -> None:
        self.status |= body.get("status", {})


async def test_the_operator_writes_what_was_found_and_keeps_it_while_the_stack_sleeps() -> None:
    cluster = Cluster()
    made: Any = Reconciler
    settings = StackSettings(namespace="cytomine", archive_url="https://archive.example.org")
    children: Any = Children(cluster, lambda _: None)  # type: ignore[arg-type]
    told: list[Any] = []
    reconciler = made(cluster, children, settings, {}, lambda *a: told.append(a), lambda _: None, Clock())
    stack = a_stack("alice", started_at=RUN, ready_at=RUN, datasets=(NAME,), imported_datasets=(NAME,))
    found = Finding(stack.uid, grants.run_of(stack), "False", "Revoked", "It is hidden.", (NAME,))
    reconciler.granted = lambda _: found
    await reconciler.look(stack)

    def written() -> dict[str, dict[str, Any]]:
        return {c["type"]: c for c in cluster.status["conditions"]}

    assert written()["DatasetsGranted"]["message"] == "It is hidden."
    assert cluster.status["revokedDatasets"] == [NAME]
    assert written()["DatasetsImported"]["message"] == "aa-Dataset-colon is not granted any more."
    reconciler.granted = lambda _: None
    asleep = stack.replace(spec=stack.spec.replace(desired_state="Hibernated"), generation=2)
    await reconciler.look(asleep)
    assert written()["DatasetsGranted"]["message"] == "It is hidden."
    assert cluster.status["revokedDatasets"] == [NAME]
