"""Forged, stolen and borrowed tokens and codes at a running stack: each must fail for who shows it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.adapter import Pkce, answer, confused, part
from tests.support.identity import unverified
from tests.support.lab import Lab
from tests.support.person import wait
from tests.support.signingkey import signing_key

GOOD, BAD = [200, 404], [401, 401]


@pytest.fixture(scope="module")
def member(neighbours: tuple[Lab, Lab]) -> Iterator[Lab]:
    """A member of the owner's stack who has a stack of their own: the network lets them near."""
    owner, lab = neighbours
    membership = f"api/stacks/{owner.name}/members/users/{lab.person.name}"
    owner.ask("PUT", membership)
    tokens = lab.adapter(owner.name).log_in()
    wait(lambda: shown(lab, owner, tokens["access_token"]) == GOOD, "the way to the stack", 90)
    yield lab
    owner.ask("DELETE", membership)


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


def test_forged_tokens_open_nothing(owner: Lab, member: Lab) -> None:
    good = member.adapter(owner.name).log_in()["access_token"]
    key, now = signing_key(member), int(time.time())
    claims = {**unverified(good), "resource_access": {"core": {"roles": ["ADMIN"]}}, "exp": now + 120}
    head, public = {"kid": key.kid}, key.private.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    foreign = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    first, _, signature = good.split(".")
    forged = {
        "expired": jwt.encode({**claims, "iat": now - 400, "exp": now - 100}, key.private, "RS256", head),
        "of another audience": jwt.encode({**claims, "aud": "gateway"}, key.private, "RS256", head),
        "of another kind": jwt.encode({**claims, "typ": "ID"}, key.private, "RS256", head),
        "unsigned": f"{part({'alg': 'none', 'typ': 'JWT', **head})}.{part(claims)}.",
        "of another algorithm": confused(key.kid, part(claims), pem),
        "of a foreign key": jwt.encode(claims, foreign, "RS256", head),
        "changed": f"{first}.{part(claims)}.{signature}",
    }
    codes = shown(member, owner, *forged.values())
    assert {what: codes[2 * n : 2 * n + 2] for n, what in enumerate(forged)} == dict.fromkeys(forged, BAD)
    # The same claims by the service's own key, so that it is the forgery that is refused.
    assert shown(member, owner, jwt.encode(claims, key.private, "RS256", head)) == GOOD


def test_a_token_of_ones_own_stack_makes_nobody_administrator_of_another(owner: Lab, member: Lab) -> None:
    own = member.adapter(member.name).log_in()
    assert unverified(own["access_token"])["resource_access"]["core"]["roles"] == ["ADMIN"]
    there = member.adapter(owner.name)
    assert unverified(there.log_in()["access_token"])["resource_access"]["core"]["roles"] == ["USER"]
    assert shown(member, owner, own["access_token"], own["id_token"]) == BAD * 2
    assert there.refresh(own["refresh_token"]).status_code == 400
    assert member.adapter(member.name).refresh(own["refresh_token"]).status_code == 200


def test_a_code_is_good_once_with_its_verifier_and_at_its_own_stack(owner: Lab, member: Lab) -> None:
    there, pkce = member.adapter(owner.name), Pkce()
    code = there.code(pkce)
    tokens = there.exchange(code, pkce).json()
    assert shown(member, owner, tokens["access_token"]) == GOOD
    replayed = there.exchange(code, pkce)
    assert (replayed.status_code, replayed.json()["error"]) == (400, "invalid_grant")
    # Somebody has a copy: what came of the code ends, too.
    assert there.refresh(tokens["refresh_token"]).status_code == 400
    assert shown(member, owner, tokens["access_token"]) == BAD
    assert there.exchange(there.code(pkce), pkce, code_verifier=Pkce().verifier).status_code == 400
    own = member.adapter(member.name)
    assert there.exchange(own.code(pkce), pkce).status_code == 400


def test_a_refresh_token_that_was_copied_ends_the_session_for_both(owner: Lab, member: Lab) -> None:
    there = member.adapter(owner.name)
    tokens = there.log_in()
    first = there.refresh(tokens["refresh_token"]).json()
    second = there.refresh(first["refresh_token"]).json()
    assert there.refresh(tokens["refresh_token"]).status_code == 400
    assert there.refresh(second["refresh_token"]).status_code == 400


def test_the_login_leads_to_no_address_but_the_stacks(owner: Lab, member: Lab) -> None:
    there = member.adapter(owner.name)
    host = there.origin.removeprefix("http://")
    for uri in (
        "https://evil.example/",
        f"{there.origin}.evil.example/",
        f"{there.origin}@evil.example/",
        f"http://evil.example#@{host}/",
        f"http://evil.example\\@{host}/",
        f"{there.origin}//evil.example",
        f"{there.origin}/%2f%2fevil.example",
        f"{there.origin}/oauth2/sign_out?rd=https://evil.example",
        f"{there.origin}/x/../api/attachedfile/1/download",
        f"{member.adapter(member.name).origin}/",
    ):
        page = there.ask(**there.query(code_challenge=Pkce().challenge, redirect_uri=uri))
        assert page.status_code == 400, (uri, page.status_code, page.headers.get("Location"))
    assert there.code(Pkce(), redirect_uri=f"{there.origin}/")
    for weak in (
        {"code_challenge_method": ""},
        {"code_challenge": Pkce().challenge, "code_challenge_method": "plain"},
    ):
        assert answer(there.ask(**there.query(**weak)))["error"] == "invalid_request"


def test_a_member_cannot_promote_herself_or_invite_others(owner: Lab, member: Lab) -> None:
    for method, path, body in (
        ("PUT", "/members/users/olga", None),
        ("PUT", "/members/groups/admins", None),
        ("PATCH", "", {"displayName": "mine"}),
        ("PATCH", "", {"desiredState": "Hibernated"}),
        ("DELETE", "?keepData=false", None),
    ):
        refused = member.request(method, f"api/stacks/{owner.name}{path}", body)
        assert refused.status_code == 403, (method, path, refused.status_code, refused.text)
    for body in ({"owner": member.person.name}, {"members": {"users": [member.person.name]}}):
        refused = member.request("PATCH", f"api/stacks/{owner.name}", body)
        assert refused.status_code in (400, 403), (body, refused.status_code, refused.text)
    # The same way is open to who owns a stack.
    own = f"api/stacks/{member.name}/members/users/{owner.person.name}"
    member.ask("PUT", own)
    member.ask("DELETE", own)
    assert owner.stacks()[0]["spec"]["owner"] == owner.person.name
    assert member.person.name in owner.stacks()[0]["spec"]["members"]["users"]


def test_a_member_cannot_become_administrator_in_cytomine(owner: Lab, member: Lab) -> None:
    invited = f"api/stacks/{owner.name}/members/users/{member.person.name}"
    owner.ask("PUT", invited, {"projects": "none"})
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
from cytomine.models import ProjectCollection
from cytomine_spawner.notebook import connect
conn = connect("{stack}", progress=False, timeout=60)
conn.open_admin_session()
seen = [p.id for p in ProjectCollection().fetch()]
print(json.dumps([{project} in seen, conn._delete("project/{project}.json").status_code]))
"""
    code = code.format(stack=owner.name, project=private)
    hers = member.python(code)
    assert hers[0] is False
    assert hers[1] in (401, 403, 404)
    assert owner.python(code) == [True, 200]
