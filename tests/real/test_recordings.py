"""The recordings that the stand-in is held to, put to Cytomine's own servers: they still answer so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest

from dev.cache import ROOT
from dev.demo.install import Installed
from dev.standin.local import answers, free_port
from tests.real.room import room
from tests.support.forwarding import forwarded
from tests.support.lab import Lab
from tests.support.person import wait
from tests.support.playing import in_order
from tests.support.recordings import Player
from tests.support.signingkey import signing_key
from tests.support.standin import Issuer, slides

# Where the servers' own side of a stack listens.
PORTS = {"core": 8080, "repository": 8081, "pims": 5000, "web-ui": 9090}


class Signer(Issuer):
    """Signs tokens as the stack's own issuer: only who administers the cluster can read its key."""

    def __init__(self, lab: Lab) -> None:
        found = signing_key(lab)
        self.key, self.kid = found.private, found.kid
        self.issuer = lab.adapter(lab.name).issuer

    def token(self, name: str, role: str | None, /, key: Any = None, **claims: Any) -> str:
        """See :class:`Issuer`."""
        token = jwt.decode(super().token(name, role, **claims), options={"verify_signature": False})
        head = {"kid": self.kid}
        now = int(time.time())
        return jwt.encode({**token, "aud": "core", "iat": now}, key or self.key, "RS256", headers=head)


@contextmanager
def gateway(at: dict[str, str], folder: Path) -> Iterator[str]:
    """One origin for all services, without the checks of a stack's own gateway."""
    port = free_port()
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "STANDIN_LISTEN": "127.0.0.1",
        "STANDIN_PORT": str(port),
        "INTERNAL_URL_CORE": at["core"],
        "PIMS_URL": at["pims"],
        "WEBUI_URL": at["web-ui"],
    }
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dev.standin", "gateway"], cwd=ROOT, env=env, stdout=log, stderr=log
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait(lambda: answers(f"{url}/server/ping"), "the gateway's stand-in", 30)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _know_the_storage(player: Player) -> None:
    """Tie the recorded storage to Alice's own: the list that would teach it has the owner's as well."""
    head = {"Authorization": f"Bearer {player.token('alice')}"}
    answer = player.session.get(
        f"{player.url}/api/storage.json", params={"size": "100"}, headers=head, timeout=30
    )
    answer.raise_for_status()
    (own,) = (s["id"] for s in answer.json()["collection"] if s["name"] == "alice storage")
    player.ids.known[("storage", 37)] = own


def _know_the_image_server(player: Player) -> None:
    """Tie the recorded user of the image server to the real one: the lists of users have the owner in its place."""
    head = {"Authorization": f"Bearer {player.token('alice')}"}
    answer = player.session.get(f"{player.url}/api/user.json", params={"max": "0"}, headers=head, timeout=30)
    answer.raise_for_status()
    (own,) = (u["id"] for u in answer.json()["collection"] if u["username"] == "ImageServer1")
    player.ids.known[("user", 1)] = own


# What is asked before a recorded exchange, by its name.
BEFORE = {"users: list": _know_the_image_server, "storages: list": _know_the_storage}


@pytest.fixture(scope="module")
def differences(hub: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    """What differs, by the exchange's name, after all were put to a new stack in their order."""
    folder = tmp_path_factory.mktemp("recordings")
    files = folder / "files"
    files.mkdir()
    with room(hub), Lab.beside(hub, "ivan") as lab, forwarded(lab, PORTS) as at, gateway(at, folder) as url:
        player = Player(url, at, Signer(lab), slides(files))
        found = {}
        for exchange in in_order(player):
            if exchange.name in BEFORE:
                BEFORE[exchange.name](player)
            found[exchange.name] = player.play(exchange)
        (Path(os.environ.get("TMPDIR", "/tmp")) / "real-differences.json").write_text(
            json.dumps(found, indent=1)
        )
        assert BEFORE.keys() <= found.keys()
        yield found


# What differs by the stack and not by the servers, by the exchange's name and what differs: the reason.
OTHERWISE = {
    (r".*", r"body\.(serverID|version): .*"): "each server has a name and a build of its own",
    (r"health: pims: formats", r"body\..*"): "the image server has other plugins",
    (
        r"(users: |paging: user |storages: |paging: storage |admin-session: storage |role-[a-z-]+: read: user list).*",
        r"body\..*",
    ): ("the stack's owner is there, too, and has a storage; the stand-in's tests compare these lists"),
    (r"users: create: full body", r"status: .*"): "core makes users at Keycloak, which a stack does not have",
}


def expected(name: str, text: str) -> bool:
    """Whether a difference is one of the stack's."""
    return any(re.fullmatch(n, name) and re.fullmatch(t, text, re.DOTALL) for n, t in OTHERWISE)


def test_the_servers_answer_as_they_were_recorded(differences: dict[str, list[str]]) -> None:
    bad = [
        f"{name}: {text}" for name, texts in differences.items() for text in texts if not expected(name, text)
    ]
    assert not bad, f"{len(bad)}\n" + "\n".join(bad)
