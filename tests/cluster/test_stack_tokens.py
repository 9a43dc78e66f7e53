"""Forged, stolen and borrowed tokens and codes at a running stack: each must fail for who shows it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from dev.demo import install
from tests.support.adapter import Adapter, signing_key
from tests.support.identity import Pkce, answer, unverified
from tests.support.lab import Lab
from tests.support.person import wait

GOOD, BAD = [200, 404], [401, 401]


@pytest.fixture(scope="module")
def member(hub: install.Installed, owner: Lab) -> Iterator[Lab]:
    """A member of the owner's stack who has a stack of their own: the network lets them near."""
    with Lab.beside(hub, "ivan") as lab:
        owner.ask("PUT", f"api/stacks/{owner.name}/members/users/{lab.person.name}")
        tokens = Adapter(lab, owner.name).log_in()
        wait(lambda: shown(lab, owner, tokens["access_token"]) == GOOD, "the way to the stack", 90)
        yield lab


def shown(lab: Lab, owner: Lab, *tokens: str) -> list[int]:
    """What the owner's stack says on its notebooks' side to tokens: each in a header, and in an address.

    Pictures are where Cytomine takes a token in the address; this one does not exist.
    """
    code = f"""
import json, requests, urllib.parse
url, found = "http://{owner.name}-gateway/api/", []
picture = "imageinstance/1/thumb.png?authorization=Bearer%20"
for token in {list(tokens)}:
    head = {{"Authorization": "Bearer " + token}}
    for path, headers in (("user/current.json", head), (picture + urllib.parse.quote(token), {{}})):
        try:
            found.append(requests.get(url + path, headers=headers, timeout=10).status_code)
        except requests.ConnectionError:
            found.append(0)
print(json.dumps(found))
"""
    found: list[int] = lab.python(code)
    return found


def part(values: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).rstrip(b"=").decode()


def test_forged_tokens_open_nothing(owner: Lab, member: Lab) -> None:
    good = Adapter(member, owner.name).log_in()["access_token"]
    key, now = signing_key(member), int(time.time())
    claims = {**unverified(good), "resource_access": {"core": {"roles": ["ADMIN"]}}, "exp": now + 120}
    head, public = {"kid": key.kid}, key.private.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    confused = f"{part({'alg': 'HS256', 'typ': 'JWT', **head})}.{part(claims)}"
    mac = base64.urlsafe_b64encode(hmac.new(pem, confused.encode(), hashlib.sha256).digest()).rstrip(b"=")
    foreign = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    first, _, signature = good.split(".")
    forged = {
        "expired": jwt.encode({**claims, "iat": now - 400, "exp": now - 100}, key.private, "RS256", head),
        "of another audience": jwt.encode({**claims, "aud": "gateway"}, key.private, "RS256", head),
        "of another kind": jwt.encode({**claims, "typ": "ID"}, key.private, "RS256", head),
        "unsigned": f"{part({'alg': 'none', 'typ': 'JWT', **head})}.{part(claims)}.",
        "of another algorithm": f"{confused}.{mac.decode()}",
        "of a foreign key": jwt.encode(claims, foreign, "RS256", head),
        "changed": f"{first}.{part(claims)}.{signature}",
    }
    codes = shown(member, owner, *forged.values())
    assert {what: codes[2 * n : 2 * n + 2] for n, what in enumerate(forged)} == dict.fromkeys(forged, BAD)
    # The same claims by the service's own key, so that it is the forgery that is refused.
    assert shown(member, owner, jwt.encode(claims, key.private, "RS256", head)) == GOOD


def test_a_token_of_ones_own_stack_makes_nobody_administrator_of_another(owner: Lab, member: Lab) -> None:
    own = Adapter(member, member.name).log_in()
    assert unverified(own["access_token"])["resource_access"]["core"]["roles"] == ["ADMIN"]
    there = Adapter(member, owner.name)
    assert unverified(there.log_in()["access_token"])["resource_access"]["core"]["roles"] == ["USER"]
    assert shown(member, owner, own["access_token"], own["id_token"]) == BAD * 2
    assert there.refresh(own["refresh_token"]).status_code == 400
    assert Adapter(member, member.name).refresh(own["refresh_token"]).status_code == 200


def test_a_code_is_good_once_with_its_verifier_and_at_its_own_stack(owner: Lab, member: Lab) -> None:
    there, pkce = Adapter(member, owner.name), Pkce()
    code = there.code(pkce)
    tokens = there.exchange(code, pkce).json()
    assert shown(member, owner, tokens["access_token"]) == GOOD
    replayed = there.exchange(code, pkce)
    assert (replayed.status_code, replayed.json()["error"]) == (400, "invalid_grant")
    # Somebody has a copy: what came of the code ends, too.
    assert there.refresh(tokens["refresh_token"]).status_code == 400
    assert shown(member, owner, tokens["access_token"]) == BAD
    assert there.exchange(there.code(pkce), pkce, code_verifier=Pkce().verifier).status_code == 400
    own = Adapter(member, member.name)
    assert there.exchange(own.code(pkce), pkce).status_code == 400


def test_a_refresh_token_that_was_copied_ends_the_session_for_both(owner: Lab, member: Lab) -> None:
    there = Adapter(member, owner.name)
    tokens = there.log_in()
    first = there.refresh(tokens["refresh_token"]).json()
    second = there.refresh(first["refresh_token"]).json()
    assert there.refresh(tokens["refresh_token"]).status_code == 400
    assert there.refresh(second["refresh_token"]).status_code == 400


def test_the_login_leads_to_no_address_but_the_stacks(owner: Lab, member: Lab) -> None:
    there = Adapter(member, owner.name)
    host = there.url.removeprefix("http://")
    for uri in (
        "https://evil.example/",
        f"{there.url}.evil.example/",
        f"{there.url}@evil.example/",
        f"http://evil.example#@{host}/",
        f"http://evil.example\\@{host}/",
        f"{there.url}//evil.example",
        f"{there.url}/%2f%2fevil.example",
        f"{there.url}/oauth2/sign_out?rd=https://evil.example",
        f"{there.url}/x/../api/attachedfile/1/download",
        f"{Adapter(member, member.name).url}/",
    ):
        page = there.ask(Pkce(), redirect_uri=uri)
        assert page.status_code == 400, (uri, page.status_code, page.headers.get("Location"))
    assert answer(there.ask(Pkce(), redirect_uri=f"{there.url}/"))["code"]
    for weak in ({"code_challenge": "", "code_challenge_method": ""}, {"code_challenge_method": "plain"}):
        assert answer(there.ask(Pkce(), **weak))["error"] == "invalid_request"


def test_a_member_cannot_promote_herself_or_invite_others(owner: Lab, member: Lab) -> None:
    url = f"{owner.hub.url}/services/cytomine"
    client = member.person.client
    client.get(f"{url}/")
    mark = {
        "X-XSRFToken": client.cookies.get("_xsrf", path="/services/cytomine/") or "",
        "Sec-Fetch-Site": "same-origin",
    }
    stack = f"{url}/api/stacks/{owner.name}"
    for method, path, body in (
        ("PUT", "/members/users/olga", None),
        ("PUT", "/members/groups/admins", None),
        ("PATCH", "", {"owner": member.person.name}),
        ("PATCH", "", {"members": {"users": [], "groups": []}}),
        ("POST", "/hibernate", None),
        ("DELETE", "?data=delete", None),
    ):
        refused = client.request(method, stack + path, json=body, headers=mark)
        assert refused.status_code in (400, 403, 404, 405), (method, path, refused.status_code, refused.text)
    # The same way is open to who owns a stack.
    assert (
        client.put(
            f"{url}/api/stacks/{member.name}/members/users/{owner.person.name}", headers=mark
        ).status_code
        == 200
    )
    assert owner.stacks()[0]["spec"]["owner"] == owner.person.name
    assert member.person.name in owner.stacks()[0]["spec"]["members"]["users"]


def test_a_member_cannot_become_administrator_in_cytomine(owner: Lab, member: Lab) -> None:
    private = owner.python("""
import json
from cytomine.models import Project
from cytomine_spawner.notebook import connect
conn = connect(progress=False)
project = Project(name="private").save()
print(json.dumps(project.id))
""")
    code = """
import json
from cytomine.models import Project, ProjectCollection
from cytomine_spawner.notebook import connect
conn = connect("{stack}", progress=False, timeout=60)
conn.open_admin_session()
seen = [p.id for p in ProjectCollection().fetch()]
role = conn._post(f"user/{{conn.current_user.id}}/role.json", {{"user": conn.current_user.id, "authority": "ROLE_ADMIN"}})
deleted = conn._delete("project/{project}.json").status_code if {delete} else None
print(json.dumps([{project} in seen, role.status_code, deleted]))
"""
    hers = member.python(code.format(stack=owner.name, project=private, delete=True))
    assert hers[0] is False
    assert hers[1] in (401, 403, 404, 405)
    assert hers[2] in (401, 403, 404)
    assert owner.python(code.format(stack=owner.name, project=private, delete=False))[0] is True


def test_a_notebook_has_no_account_at_kubernetes(owner: Lab) -> None:
    found = owner.python("""
import json, os, socket
def reach(host):
    try:
        socket.create_connection((host, 443), 3).close()
        return True
    except OSError:
        return False
token = os.path.exists("/var/run/secrets/kubernetes.io/serviceaccount/token")
print(json.dumps([token, reach("kubernetes.default.svc")]))
""")
    assert found == [False, False]
