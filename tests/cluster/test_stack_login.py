"""The login to a stack through the ingress, as browsers come: who gets in, who is out when, and what forged requests get."""

from __future__ import annotations

import base64
import json
import socket

import httpx
import pytest

from dev.demo import install
from tests.support.lab import Lab
from tests.support.person import wait


@pytest.fixture(scope="module")
def member(hub: install.Installed, owner: Lab) -> Lab:
    """Another user of the hub, without a stack."""
    lab = Lab(hub, "nora")
    lab.remove()
    return lab


@pytest.fixture(scope="module")
def url(owner: Lab) -> str:
    return owner.stack_url()


def come(lab: Lab, url: str) -> httpx.Response:
    return lab.person.come(url)


def who(lab: Lab, url: str) -> httpx.Response:
    return lab.person.who(url)


def test_the_owner_gets_in_without_a_form_and_a_stranger_does_not(owner: Lab, member: Lab, url: str) -> None:
    page = come(owner, url)
    assert page.status_code == 200
    assert str(page.url).startswith(url), page.url
    assert who(owner, url).status_code == 200
    stranger = come(member, url)
    assert stranger.status_code == 403
    assert "member" in stranger.text
    assert who(member, url).status_code == 401


def test_a_member_works_until_removed_and_is_then_out(owner: Lab, member: Lab, url: str) -> None:
    path = f"api/stacks/{owner.name}/members/users/{member.person.name}"
    owner.ask("PUT", path)
    wait(lambda: come(member, url).status_code == 200, "the member to be let in", 60)
    mine, theirs = who(member, url), who(owner, url)
    assert (mine.status_code, theirs.status_code) == (200, 200)
    assert mine.json()["username"] != theirs.json()["username"]
    owner.ask("DELETE", path)
    wait(lambda: who(member, url).status_code == 401, "the member to be out", 300)
    assert come(member, url).status_code == 403
    assert who(owner, url).status_code == 200


def test_forged_tokens_hosts_and_paths_reach_nothing(owner: Lab, url: str) -> None:
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in (
            {"alg": "none", "typ": "JWT"},
            {
                "sub": "1",
                "preferred_username": "admin",
                "name": "a",
                "resource_access": {"core": {"roles": ["ADMIN"]}},
            },
        )
    )
    unsigned = f"{head}.{body}."
    stranger = httpx.Client(transport=owner.person.client._transport, timeout=30)
    for path, headers in (
        ("/api/user/current.json", {"Authorization": f"Bearer {unsigned}"}),
        (f"/api/imageinstance/1/thumb.png?authorization=Bearer%20{unsigned}", {}),
        (f"/api/imageinstance/1/thumb.png?AUTH={unsigned}", {}),
        ("/api/user/current.json", {"X-Forwarded-User": owner.person.name, "X-Forwarded-Access-Token": unsigned}),
        ("/ims/image/x/thumb", {}),
        ("//ims/image/x/thumb", {}),
        ("/%69ms/image/x/thumb", {}),
        ("/oauth2/../ims/image/x/thumb", {}),
    ):  # fmt: skip
        answer = stranger.get(url + path, headers=headers, follow_redirects=False)
        assert answer.status_code in (301, 302, 400, 401, 403, 404), (path, answer.status_code)
        assert "image" not in answer.headers.get("content-type", ""), path


def test_no_way_of_writing_a_path_leads_a_member_past_the_list(owner: Lab, url: str) -> None:
    assert come(owner, url).status_code == 200
    client = owner.person.client
    for path in (
        "/ims/image/x/thumb",
        "//ims/image/x/thumb",
        "/%69ms/image/x/thumb",
        "/ims%2fimage/x/thumb",
        "/upload/../ims/image/x/thumb",
        "/IMS/image/x/thumb",
        "/ims/upload/../image/x/thumb",
    ):
        answer = client.get(url + path, headers={"Sec-Fetch-Site": "same-origin"})
        page = answer.status_code == 200 and "text/html" in answer.headers["content-type"]
        assert page or answer.status_code in (400, 403, 404), (path, answer.status_code)
    forged = client.get(f"{url}/api/user/current.json", headers={"Host": "cm-other.example.org"})
    assert "current" not in forged.text or forged.status_code in (400, 401, 404), forged.status_code


def test_another_sites_page_can_neither_change_nor_open_a_socket(owner: Lab, url: str) -> None:
    client = owner.person.client
    evil = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    body = {"name": "stolen", "ontology": None}
    assert client.post(f"{url}/api/project.json", json=body, headers=evil).status_code == 403
    for path in ("resume", "hibernate", "retry", "delete", "members", "leave"):
        hub = f"{owner.hub.cards}/stacks/{owner.name}/{path}"
        answer = client.post(hub, data={"do": "add"}, headers=evil, follow_redirects=False)
        assert answer.status_code == 403, (path, answer.status_code)
        assert client.post(hub, data={"do": "add"}, follow_redirects=False).status_code == 403, (
            "without the form's mark"
        )
    assert socket_status(owner, url, {}) in (401, 403)
    cookies = "; ".join(f"{c.name}={c.value}" for c in client.cookies.jar if c.name.endswith("session"))
    assert socket_status(owner, url, {"Cookie": cookies, "Origin": "https://evil.example"}) == 403


def socket_status(owner: Lab, url: str, headers: dict[str, str]) -> int:
    """The answer to somebody who asks for a WebSocket."""
    host = httpx.URL(url).host
    lines = ["GET /ws/user-position HTTP/1.1", f"Host: {host}:{owner.hub.target.port}", "Upgrade: websocket"]
    lines += [
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", owner.hub.target.port), 10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(connection.recv(200).split()[1])


def test_logging_out_of_the_hub_ends_the_session_at_its_next_refresh(owner: Lab, url: str) -> None:
    assert come(owner, url).status_code == 200
    assert who(owner, url).status_code == 200
    owner.person.client.get(f"{owner.hub.url}/hub/logout")
    wait(lambda: who(owner, url).status_code == 401, "the session to end", 300)
    # for those who come after
    owner.person = owner.person.again()
