"""Members come into their projects: a real stand-in of core, and one of a few lines that fails as told."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any

import pytest
import requests
import tornado.httpserver
import tornado.netutil
import tornado.web
from traitlets.config import Application

from cytomine_spawner.access import projects
from cytomine_spawner.access.projects import Projects
from cytomine_spawner.app import Front
from cytomine_spawner.blueprint.settings import StackSettings
from cytomine_spawner.cluster.store import Conflict, StoreError, Unavailable
from cytomine_spawner.stack.model import Access, ChosenProject, Desired, Members, Phase, Stack
from cytomine_spawner.stack.people import HubUser, Role
from dev.standin.local import Local
from tests.support.secretstore import FakeSecrets
from tests.support.stacks import FakeStore, a_stack
from tests.support.standin import Issuer, local_stack

RUN = datetime(2026, 11, 24, 8, tzinfo=timezone.utc)
NUMBERS = count(1)


class World:
    """The worker; hub, cluster and the signing of tokens are in memory.

    Attributes:
        groups: the hub's users and their groups; all others are in none.
        roles: why those may use the stack who are no users of it.
        unknown: users whom the hub does not know.
    """

    def __init__(self, address: str, token: Callable[[str, str], str]) -> None:
        self.address, self._sign = address, token
        self.store, self.secrets = FakeStore(), FakeSecrets()
        self.groups: dict[str, tuple[str, ...]] = {}
        self.roles: dict[str, Role] = {}
        self.unknown: set[str] = set()
        self.hub_fault: StoreError | None = None
        self.minted: list[tuple[str, str]] = []
        self.owner = f"owner{next(NUMBERS)}"
        self.start()

    def start(self) -> None:
        """A process of the service."""
        self.projects = Projects(
            self.store,
            self.secrets,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self,
            address=lambda _: self.address,
        )
        self.running = asyncio.create_task(self.projects.run())

    async def stop(self) -> None:
        assert not self.running.done(), "the task ended by itself"
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def user(self, name: str) -> HubUser | None:
        if self.hub_fault:
            raise self.hub_fault
        return None if name in self.unknown else HubUser(name, frozenset(self.groups.get(name, ())))

    async def role(self, stack: Stack, name: str, *, fresh: bool = False) -> Role | None:
        if self.hub_fault:
            raise self.hub_fault
        if name in stack.spec.members.users:
            return Role.USER
        if set(self.groups.get(name, ())) & set(stack.spec.members.groups):
            return Role.GROUP
        return self.roles.get(name)

    async def token(self, stack: Stack, user: str, role: Role) -> tuple[str, int]:
        if stack.spec.desired_state is Desired.HIBERNATED:
            raise Conflict("The stack is hibernated; it has to be resumed first.")
        self.minted.append((user, role.in_core))
        return self._sign(user, role.in_core), 0

    def put(
        self, *access: Access, users: tuple[str, ...] = (), groups: tuple[str, ...] = (), **more: Any
    ) -> Stack:
        """A stack with members, as the API server tells of it."""
        members = Members(users=users, groups=groups, access=access)
        known = self.store.view.get(a_stack(self.owner).name)
        generation = known.generation + 1 if known else 1
        changes = {"started_at": RUN, "generation": generation, **more}
        stack = a_stack(self.owner, members=members, **changes)
        self.store.view.put(stack)
        return stack

    @property
    def name(self) -> str:
        return a_stack(self.owner).name

    def record(self) -> dict[str, Any]:
        """What was written down."""
        item = self.secrets.there.get(f"{self.name}-memberships")
        return dict(json.loads(base64.b64decode(item["data"]["made"]))) if item else {}

    async def until(self, condition: Callable[[], Any]) -> None:
        end = asyncio.get_running_loop().time() + 20
        while not condition():
            assert asyncio.get_running_loop().time() < end, "it did not happen"
            await asyncio.sleep(0.02)

    async def settled(self) -> None:
        """Until a look that began from now on has ended."""
        state = self.projects._states[self.name]
        for _ in range(2):  # one may be under way
            before = state.looked
            state.wake.set()
            await self.until(lambda: state.looked > before)  # noqa: B023 - waited for at once


class Standin:
    """Core's stand-in as people and the owner use it."""

    def __init__(self, local: Local, issuer: Issuer) -> None:
        self.local, self.issuer = local, issuer

    def ask(self, who: str, role: str, method: str, path: str, **json_: Any) -> Any:
        head = {"Authorization": f"Bearer {self.issuer.token(who, role)}"}
        answer = requests.request(method, self.local.url + path, headers=head, json=json_ or None, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def make(self, owner: str, name: str) -> int:
        found = self.ask(owner, "ADMIN", "POST", "/api/project.json", name=f"{owner} {name}")
        return int(found["project"]["id"])

    def sees(self, who: str) -> set[int]:
        """The projects that somebody finds in Cytomine."""
        return {p["id"] for p in self.ask(who, "USER", "GET", "/api/project.json")["collection"]}

    def number(self, who: str, role: str = "USER") -> int:
        return int(self.ask(who, role, "GET", "/api/user/current.json")["id"])

    def roles(self, owner: str, project: int) -> dict[str, str]:
        found = self.ask(owner, "ADMIN", "GET", f"/api/project/{project}/user.json")["collection"]
        return {one["username"]: one["role"] for one in found}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projects, "BACKOFF_SECONDS", (0.05,))
    monkeypatch.setattr(projects, "LOGIN_SECONDS", 0)
    monkeypatch.setattr(projects, "LOOK_SECONDS", 3600)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    # Not the stack that all tests share: each of these people has a storage, and lists of storages have pages.
    with local_stack(tmp_path_factory.mktemp("projects")) as found:
        yield Standin(*found)


@pytest.fixture
async def world(core: Standin) -> AsyncIterator[World]:
    made = World(core.local.url, core.issuer.token)
    yield made
    await made.stop()


def chosen(name: str, *these: int, kind: str = "user", **more: Any) -> Access:
    picked = tuple(ChosenProject(id=one) for one in these)
    return Access.model_validate({"kind": kind, "name": name, "projects": "these", "these": picked, **more})


def reach(name: str, projects_: str, kind: str = "user", **more: Any) -> Access:
    return Access.model_validate({"kind": kind, "name": name, "projects": projects_, **more})


# -- a real core ------------------------------------------------------------------------------------------


async def test_who_is_invited_finds_the_owners_projects_at_the_first_login_and_those_that_come_later(
    world: World, core: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    ivan = f"ivan{world.owner}"
    first = core.make(world.owner, "one")
    assert core.sees(ivan) == set()
    world.put(users=(ivan,))
    await world.until(lambda: core.sees(ivan) == {first})
    assert core.roles(world.owner, first)[ivan] == "contributor"
    second = core.make(world.owner, "two")
    world.projects.arrived(world.name, ivan)
    await world.until(lambda: core.sees(ivan) == {first, second})
    monkeypatch.setattr(projects, "LOOK_SECONDS", 0.05)
    await world.settled()
    third = core.make(world.owner, "three")
    await world.until(lambda: third in core.sees(ivan))


async def test_core_makes_the_user_before_the_first_login_and_by_the_persons_own_token(
    world: World, core: Standin
) -> None:
    ivan = f"ivan{world.owner}"
    project = core.make(world.owner, "one")
    world.put(users=(ivan,))
    await world.until(lambda: ivan in core.roles(world.owner, project))
    assert world.minted.count((ivan, "USER")) == 1
    assert {role for who, role in world.minted if who == ivan} == {"USER"}


async def test_a_removed_member_is_taken_out_of_what_was_made_and_not_of_what_was_set_by_hand(
    world: World, core: Standin
) -> None:
    ivan = f"ivan{world.owner}"
    ours, theirs = core.make(world.owner, "ours"), core.make(world.owner, "theirs")
    number = core.number(ivan)
    core.ask(world.owner, "ADMIN", "POST", f"/api/project/{theirs}/user/{number}.json")
    world.put(users=(ivan,))
    await world.until(lambda: core.sees(ivan) == {ours, theirs})
    await world.until(lambda: world.record()[ivan]["member"] == [ours])
    world.put()
    await world.until(lambda: core.sees(ivan) == {theirs})
    await world.until(lambda: world.record() == {})


async def test_only_the_chosen_projects_and_another_choice_takes_the_rest_back(
    world: World, core: Standin
) -> None:
    ivan = f"ivan{world.owner}"
    one, two = core.make(world.owner, "one"), core.make(world.owner, "two")
    world.put(chosen(ivan, two), users=(ivan,))
    await world.until(lambda: core.sees(ivan) == {two})
    world.put(chosen(ivan, one), users=(ivan,))
    await world.until(lambda: core.sees(ivan) == {one})
    world.put(reach(ivan, "none"), users=(ivan,))
    await world.until(lambda: core.sees(ivan) == set())


async def test_managers_are_managers_until_they_are_users_again_and_none_stays_one_when_removed(
    world: World, core: Standin
) -> None:
    ivan = f"ivan{world.owner}"
    project = core.make(world.owner, "one")

    def role() -> str | None:
        return core.roles(world.owner, project).get(ivan)

    manager = reach(ivan, "all", role="manager")
    world.put(manager, users=(ivan,))
    await world.until(lambda: role() == "manager")
    world.put(users=(ivan,))
    await world.until(lambda: role() == "contributor")
    world.put(manager, users=(ivan,))
    await world.until(lambda: role() == "manager")
    world.put()
    await world.until(lambda: role() is None)
    assert core.roles(world.owner, project) == {world.owner: "representative"}


async def test_a_manager_who_loses_the_membership_alone_stays_manager_as_in_cytomine(
    world: World, core: Standin
) -> None:
    ivan = f"ivan{world.owner}"
    project, number = core.make(world.owner, "one"), core.number(ivan)
    at = f"/api/project/{project}/user/{number}"
    core.ask(world.owner, "ADMIN", "POST", f"{at}/admin.json")
    core.ask(world.owner, "ADMIN", "DELETE", f"{at}.json")
    assert core.roles(world.owner, project)[ivan] == "manager"
    core.ask(world.owner, "ADMIN", "DELETE", f"{at}/admin.json")
    assert ivan not in core.roles(world.owner, project)


async def test_who_was_a_member_by_hand_and_made_manager_is_a_member_again(
    world: World, core: Standin
) -> None:
    ivan = f"ivan{world.owner}"
    project, number = core.make(world.owner, "one"), core.number(ivan)
    core.ask(world.owner, "ADMIN", "POST", f"/api/project/{project}/user/{number}.json")
    world.put(reach(ivan, "all", role="manager"), users=(ivan,))
    await world.until(lambda: core.roles(world.owner, project)[ivan] == "manager")
    world.put()
    await world.until(lambda: core.roles(world.owner, project)[ivan] == "contributor")
    await world.settled()
    assert core.roles(world.owner, project)[ivan] == "contributor"


async def test_who_is_taken_out_in_cytomine_stays_out_until_the_owner_chooses_anew(
    world: World, core: Standin
) -> None:
    ivan = f"ivan{world.owner}"
    project = core.make(world.owner, "one")
    world.put(users=(ivan,))
    await world.until(lambda: world.record().get(ivan, {}).get("member") == [project])
    core.ask(world.owner, "ADMIN", "DELETE", f"/api/project/{project}/user/{core.number(ivan)}.json")
    await world.settled()
    assert core.sees(ivan) == set()
    world.put(reach(ivan, "none"), users=(ivan,))
    await world.until(lambda: world.record() == {})
    world.put(reach(ivan, "all"), users=(ivan,))
    await world.until(lambda: core.sees(ivan) == {project})


async def test_members_by_group_and_share_come_in_when_they_log_in_and_leave_when_they_are_none_any_more(
    world: World, core: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects, "ROLE_SECONDS", -1)
    ivan, olga = f"ivan{world.owner}", f"olga{world.owner}"
    one, two = core.make(world.owner, "one"), core.make(world.owner, "two")
    world.groups[ivan], world.roles[olga] = ("lab", "other"), Role.SHARE
    world.put(chosen("lab", two, kind="group"), groups=("lab",))
    await world.until(lambda: world.name in world.projects._states)
    await world.settled()
    assert core.sees(ivan) == core.sees(olga) == set()
    for name in (ivan, olga):
        world.projects.arrived(world.name, name)
    await world.until(lambda: core.sees(ivan) == {two})
    await world.until(lambda: core.sees(olga) == {one, two})
    world.groups.clear()
    world.roles.clear()
    await world.settled()
    assert core.sees(ivan) == core.sees(olga) == set()


async def test_a_member_of_two_groups_has_what_both_give_and_a_choice_by_name_comes_before_groups(
    world: World, core: Standin
) -> None:
    ivan, olga = f"ivan{world.owner}", f"olga{world.owner}"
    one, two = core.make(world.owner, "one"), core.make(world.owner, "two")
    world.groups[ivan] = world.groups[olga] = ("lab", "staff")
    groups = (chosen("lab", one, two, kind="group"), chosen("staff", two, kind="group", role="manager"))
    world.put(*groups, chosen(olga, one), users=(olga,), groups=("lab", "staff"))
    await world.until(lambda: world.name in world.projects._states)
    for name in (ivan, olga):
        world.projects.arrived(world.name, name)
    await world.until(lambda: core.sees(ivan) == {one, two})
    assert core.roles(world.owner, one)[ivan] == "contributor"
    assert core.roles(world.owner, two)[ivan] == "manager"
    await world.until(lambda: core.sees(olga) == {one})


async def test_another_process_goes_on_with_what_was_written_down(world: World, core: Standin) -> None:
    ivan = f"ivan{world.owner}"
    project = core.make(world.owner, "one")
    world.put(users=(ivan,))
    await world.until(lambda: world.record().get(ivan, {}).get("member") == [project])
    await world.stop()
    world.put()  # removed while the service was down
    world.start()
    await world.until(lambda: core.sees(ivan) == set())


async def test_the_owners_projects_are_listed_by_name_and_not_those_of_others(
    world: World, core: Standin
) -> None:
    core.make(f"other{world.owner}", "x")
    two, one = core.make(world.owner, "b"), core.make(world.owner, "a")
    found = await world.projects.listed(world.put())
    assert [p.id for p in found] == [one, two]


async def test_the_service_tells_the_worker_of_each_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_CLIENT_ID", "service-cytomine")
    monkeypatch.setenv("JUPYTERHUB_API_URL", "http://127.0.0.1:9/hub/api")
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/services/cytomine/")
    store, told = FakeStore(), list[Any]()
    front = Front(
        store,  # type: ignore[arg-type]
        FakeSecrets(),  # type: ignore[arg-type]
        StackSettings(service_url="http://127.0.0.1/services/cytomine"),
        "token",
        parent=Application(),
        ready=str,
        changed=lambda _: None,
    )
    monkeypatch.setattr(front.projects, "arrived", lambda *who: told.append(who))
    monkeypatch.setattr(front.activity, "seen", lambda *who: told.append(who))
    front.identity.provider._seen("cm-ada", "bob")
    assert told == [("cm-ada", "bob")] * 2


# -- a core that fails as told ----------------------------------------------------------------------------


class FakeCore:
    """Core's calls over dicts, with failures to come, and a list of what was asked.

    Attributes:
        projects: who is in each, and as what.
        failures: (method, status, text) to answer next to a request of this method.
    """

    def __init__(self) -> None:
        self.projects: dict[int, dict[int, str]] = {}
        self.failures: list[tuple[str, int, str]] = []
        self.asked: list[tuple[str, str]] = []
        self.heads: list[Any] = []
        self.silent = False
        self.most = self.now = 0
        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        core = self

        class Anything(tornado.web.RequestHandler):
            async def _do(self, path: str) -> None:
                core.asked.append((str(self.request.method), path))
                core.heads.append(self.request.headers)
                core.now += 1
                core.most = max(core.most, core.now)
                await asyncio.sleep(0)
                core.now -= 1
                if core.silent:
                    raise tornado.web.HTTPError(503)
                for failure in core.failures:
                    if failure[0] == self.request.method:
                        core.failures.remove(failure)
                        self.set_status(failure[1])
                        self.finish({"errors": failure[2]})
                        return
                self.finish(
                    core.answer(str(self.request.method), path, self.request.headers["Authorization"])
                )

            get = post = delete = _do

        self.server = tornado.httpserver.HTTPServer(tornado.web.Application([(r"(.*)", Anything)]))
        self.server.add_sockets(sockets)

    def answer(self, method: str, path: str, token: str) -> Any:
        parts = path.removesuffix(".json").split("/")[2:]
        if parts == ["project"]:
            return {"collection": [{"id": one, "name": f"p{one}"} for one in self.projects]}
        if parts == ["user", "current"]:
            return {"id": sum(token.encode())}
        people = self.projects.get(int(parts[1]))
        if people is None:
            raise tornado.web.HTTPError(404)
        if len(parts) == 3:
            return {"collection": [{"id": one, "role": role} for one, role in people.items()]}
        user, admin = int(parts[3]), parts[-1] == "admin"
        if method == "POST":
            people[user] = "manager" if admin else people.get(user, "contributor")
        elif admin:
            people[user] = "contributor"
        else:
            people.pop(user, None)
        return {"data": {"message": "OK"}}

    def changes(self) -> Counter[str]:
        return Counter(method for method, _ in self.asked)


@pytest.fixture
async def fake() -> AsyncIterator[FakeCore]:
    core = FakeCore()
    yield core
    core.server.stop()


@pytest.fixture
async def small(fake: FakeCore) -> AsyncIterator[World]:
    made = World(fake.url, lambda user, role: f"{user}.{role}")
    yield made
    await made.stop()


DEADLOCK = "jakarta.persistence.OptimisticLockException: could not execute batch: ERROR: deadlock detected"


@pytest.mark.parametrize(
    ("method", "status"), [("POST", 400), ("POST", 409), ("POST", 500), ("GET", 403), ("GET", 500)]
)
async def test_a_deadlock_or_another_refusal_is_tried_again_until_all_are_in(
    small: World, fake: FakeCore, method: str, status: int
) -> None:
    fake.projects = {1: {}, 2: {}, 3: {}}
    fake.failures = [(method, status, DEADLOCK)] * 3
    stack = small.put(users=("ivan",))
    await small.until(lambda: all(fake.projects.values()))
    await small.until(lambda: small.projects.trouble(stack) == "")
    assert small.record()["ivan"]["member"] == [1, 2, 3]
    assert small.record()["ivan"]["trying"] == {}


async def test_changes_of_one_stack_are_made_one_after_the_other(small: World, fake: FakeCore) -> None:
    fake.projects = {one: {} for one in range(1, 6)}
    small.put(users=("ivan", "olga", "petr"))
    await small.until(lambda: all(len(people) == 3 for people in fake.projects.values()))
    assert fake.most == 1


async def test_a_stack_in_order_costs_one_call_a_look_and_one_without_members_none(
    small: World, fake: FakeCore
) -> None:
    fake.projects = {one: {} for one in range(1, 9)}
    small.put()
    await small.until(lambda: small.name in small.projects._states)
    await small.settled()
    assert fake.asked == []
    small.put(users=("ivan",))
    await small.until(lambda: all(fake.projects.values()))
    await small.settled()
    fake.asked.clear()
    for _ in range(3):
        await small.settled()
    assert set(fake.asked) == {("GET", "/api/project.json")}
    assert len(fake.asked) <= 7  # looks, of which one may have been under way


async def test_what_is_as_wanted_by_hand_is_looked_at_once(small: World, fake: FakeCore) -> None:
    fake.projects = {1: {sum(b"Bearer ivan.USER"): "manager"}}
    small.put(users=("ivan",))
    await small.until(lambda: fake.asked)
    await small.settled()
    fake.asked.clear()
    await small.settled()
    assert set(fake.asked) == {("GET", "/api/project.json")}
    assert small.record() == {}


async def test_no_request_counts_as_use_of_the_stack(small: World, fake: FakeCore) -> None:
    fake.projects = {1: {}}
    small.put(users=("ivan",))
    await small.until(lambda: all(fake.projects.values()))
    assert {head["X-Unattended"] for head in fake.heads} == {"1"}


async def test_a_stack_that_sleeps_is_not_asked_and_is_brought_in_order_when_it_wakes(
    small: World, fake: FakeCore
) -> None:
    fake.projects = {1: {}}
    asleep = {"phase": Phase.HIBERNATED, "desired_state": Desired.HIBERNATED}
    stack = small.put(users=("ivan",), **asleep)
    await small.until(lambda: small.name in small.projects._states)
    small.projects.arrived(small.name, "ivan")
    with pytest.raises(Conflict, match="hibernated"):
        await small.projects.listed(stack)
    assert fake.asked == []
    assert small.minted == []
    small.put(users=("ivan",), started_at=RUN + timedelta(hours=1))
    await small.until(lambda: fake.projects[1])


async def test_a_core_that_does_not_answer_is_said_so_and_asked_again(small: World, fake: FakeCore) -> None:
    fake.projects, fake.silent = {1: {}}, True
    stack = small.put(users=("ivan",))
    await small.until(lambda: "does not answer" in small.projects.trouble(stack))
    small.projects.arrived(small.name, "ivan")  # and the login goes on
    with pytest.raises(Unavailable):
        await small.projects.listed(stack)
    fake.silent = False
    await small.until(lambda: fake.projects[1])
    await small.until(lambda: small.projects.trouble(stack) == "")


async def test_a_list_that_takes_too_long_is_not_waited_for(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(projects, "LIST_SECONDS", 0.05)
    monkeypatch.setattr(small.projects.calls, "projects", never)
    with pytest.raises(Unavailable, match="does not tell its projects"):
        await small.projects.listed(small.put())


async def test_nothing_is_made_that_cannot_be_written_down_before(small: World, fake: FakeCore) -> None:
    fake.projects = {1: {}}
    apply = small.secrets.apply

    async def refuse(*_: Any) -> None:
        small.secrets.refuses = 403
        try:
            await apply({})
        finally:
            small.secrets.refuses = 0

    small.secrets.apply = refuse  # type: ignore[method-assign,assignment]
    stack = small.put(users=("ivan",))
    await small.until(lambda: "does not keep" in small.projects.trouble(stack))
    assert fake.changes()["POST"] == 0
    small.secrets.apply = apply  # type: ignore[method-assign]
    await small.until(lambda: fake.projects[1])


async def test_what_a_process_began_and_did_not_see_end_is_the_next_ones_to_take_back(
    small: World, fake: FakeCore
) -> None:
    fake.projects = {1: {}}
    made = small.secrets.apply
    written: list[Any] = []

    async def only_once(obj: dict[str, Any]) -> dict[str, Any]:
        written.append(obj)
        return await made(obj) if len(written) == 1 else await asyncio.Event().wait()

    small.secrets.apply = only_once  # type: ignore[method-assign]
    small.put(users=("ivan",))
    await small.until(lambda: len(written) == 2)  # the membership is made and not noted as such
    await small.stop()
    assert fake.projects[1]
    small.secrets.apply = made  # type: ignore[method-assign]
    small.put()
    small.start()
    await small.until(lambda: fake.projects[1] == {})


async def test_a_silent_hub_takes_nobody_out(
    small: World, fake: FakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projects, "ROLE_SECONDS", -1)
    fake.projects, small.roles["ivan"] = {1: {}}, Role.SHARE
    small.put()
    await small.until(lambda: small.name in small.projects._states)
    small.projects.arrived(small.name, "ivan")
    await small.until(lambda: fake.projects[1])
    small.hub_fault = Unavailable("The hub does not answer at the moment.")
    small.roles.clear()
    await small.settled()
    assert fake.projects[1]


async def test_no_token_is_made_for_one_whom_the_hub_does_not_know_or_who_may_not(
    small: World, fake: FakeCore
) -> None:
    fake.projects, small.unknown = {1: {}}, {"ghost"}
    small.put(users=("ghost", "ivan"))
    await small.until(lambda: len(fake.projects[1]) == 1)
    small.projects.arrived(small.name, "stranger")
    await small.settled()
    assert {who for who, _ in small.minted} == {small.owner, "ivan"}


async def test_a_project_that_is_gone_is_forgotten(small: World, fake: FakeCore) -> None:
    fake.projects = {1: {}, 2: {}}
    small.put(users=("ivan",))
    await small.until(lambda: small.record().get("ivan", {}).get("member") == [1, 2])
    del fake.projects[2]
    await small.settled()
    assert small.record()["ivan"]["member"] == [1]


async def test_a_new_stack_of_the_same_name_knows_nothing_of_the_former(small: World, fake: FakeCore) -> None:
    fake.projects = {1: {}}
    small.put(users=("ivan",), uid="one")
    await small.until(lambda: fake.projects[1])
    fake.projects = {1: {}}
    small.put(users=("ivan",), uid="two")
    await small.until(lambda: fake.projects[1])


async def test_no_token_is_logged(small: World, fake: FakeCore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fake.projects, fake.failures = {1: {}}, [("POST", 400, DEADLOCK)]
    small.put(users=("ivan",))
    await small.until(lambda: fake.projects[1])
    assert "ivan.USER" not in caplog.text
    assert f"{small.owner}.ADMIN" not in caplog.text
