"""The archive's stand-in: what a passport grants, by each version's rules, and what grants nothing."""

from __future__ import annotations

import base64
import hmac
import json
import time

import jwt
import pytest

from dev import archive
from tests.support.archiveclient import client

OPEN, CLOSED = "aa-Dataset-open", "aa-Dataset-closed"


@pytest.fixture(scope="module")
def local():
    with archive.running() as found:
        for name in (OPEN, CLOSED):
            found.add(name, "a.txt", archive.Bytes(b"a"), owner="owner@lifescience-ri.eu")
        yield found


@pytest.fixture(scope="module")
def servers(local):
    with local.archive(version=1) as one, local.archive(version=2) as two:
        yield {1: one, 2: two}


def listed(local, server, *visas):
    person = archive.Someone("petra@lifescience-ri.eu", list(visas))
    with client(local, server, person) as made:
        return made.granted()


def forged(local, person):
    """Signed by a stranger, under the trusted issuer's name and address of keys."""
    return local.issuer.visa(person, OPEN, key=local.issuer.other_key)


def unsigned(local, person):
    header, body, _ = local.issuer.visa(person, OPEN).split(".")
    fields = json.loads(base64.urlsafe_b64decode(header + "=="))
    return f"{text({**fields, 'alg': 'none'})}.{body}."


def text(fields):
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")


def shared_secret(local, person):
    """Signed with the public key as if it were a shared secret."""
    claims = jwt.decode(local.issuer.visa(person, OPEN), options={"verify_signature": False})
    head = {"alg": "HS256", "typ": "JWT", "kid": local.issuer.broker_key.id, "jku": local.issuer.jku}
    said = f"{text(head)}.{text(claims)}"
    public = json.dumps(local.issuer.broker_key.public()).encode()
    signature = base64.urlsafe_b64encode(hmac.digest(public, said.encode(), "sha256")).decode().rstrip("=")
    return f"{said}.{signature}"


def changed(local, person):
    header, body, signature = local.issuer.visa(person, CLOSED).split(".")
    fields = json.loads(base64.urlsafe_b64decode(body + "=="))
    fields["ga4gh_visa_v1"]["value"] = OPEN
    return f"{header}.{text(fields)}.{signature}"


def untrusted(local, person):
    """Good in itself, but with keys from where nobody said that keys may come from."""
    return local.issuer.visa(
        person, OPEN, key=local.issuer.other_key, headers={"jku": local.issuer.other_jku}
    )


def visa(**given):
    return lambda local, person: local.issuer.visa(person, OPEN, **given)


NOTHING = {
    "forged": forged,
    "unsigned": unsigned,
    "signed with a shared secret": shared_secret,
    "changed": changed,
    "untrusted jku": untrusted,
    "wrong issuer": visa(iss="https://elsewhere.example.org/"),
    "expired": visa(exp=int(time.time()) - 3600),
    "not valid yet": visa(nbf=int(time.time()) + 3600),
    "of another type": visa(type="AffiliationAndRole"),
    "of a dataset that is not here": visa(value="aa-Dataset-elsewhere"),
    "no visa": lambda _local, _person: "nonsense",
}
NOTHING_IN_2 = {
    "no jku": visa(headers={"jku": ""}),
    "conditional": visa(conditions=[[{"type": "AffiliationAndRole", "value": "const:faculty@example.org"}]]),
    "conditional in another form": visa(conditions="none"),
    "granted by nobody": visa(by=None),
    "granted by an empty name": visa(by=""),
    "no value": visa(value=None),
    "a value too long": visa(value="x" * 256),
    "no source": visa(source=None),
    "a source too long": visa(source=f"https://example.org/{'x' * 256}"),
    "never asserted": visa(asserted=None),
    "asserted in the future": visa(asserted=int(time.time()) + 3600),
    "too large": visa(jti="x" * 17000),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", NOTHING)
def test_such_a_visa_grants_nothing_and_spoils_no_other(local, servers, version, kind):
    person = archive.Someone("petra@lifescience-ri.eu")
    bad, good = NOTHING[kind](local, person), local.issuer.visa(person, CLOSED)
    assert listed(local, servers[version], bad, good) == [CLOSED]


@pytest.mark.parametrize("kind", NOTHING_IN_2)
def test_such_a_visa_grants_nothing_in_version_2(local, servers, kind):
    person = archive.Someone("petra@lifescience-ri.eu")
    bad, good = NOTHING_IN_2[kind](local, person), local.issuer.visa(person, CLOSED)
    assert listed(local, servers[2], bad, good) == [CLOSED]


@pytest.mark.parametrize("kind", ["conditional", "granted by nobody", "asserted in the future"])
def test_version_1_asks_neither_for_conditions_nor_who_granted(local, servers, kind):
    person = archive.Someone("petra@lifescience-ri.eu")
    assert listed(local, servers[1], NOTHING_IN_2[kind](local, person)) == [OPEN]


@pytest.mark.parametrize("version", [1, 2])
def test_good_visas_grant_their_datasets_once(local, servers, version):
    person = archive.Someone("petra@lifescience-ri.eu")
    visas = [local.issuer.visa(person, name) for name in (OPEN, CLOSED, OPEN)]
    assert listed(local, servers[version], *visas) == sorted([OPEN, CLOSED])


@pytest.mark.parametrize("conditions", [[], {}])
def test_empty_conditions_are_none(local, servers, conditions):
    person = archive.Someone("petra@lifescience-ri.eu")
    assert listed(local, servers[2], local.issuer.visa(person, OPEN, conditions=conditions)) == [OPEN]


def test_a_clock_half_a_minute_off_is_forgiven_only_of_when_it_was_asserted(local, servers):
    now, person = int(time.time()), archive.Someone("petra@lifescience-ri.eu")
    late = local.issuer.visa(person, OPEN, exp=now - 15)
    early = local.issuer.visa(person, OPEN, nbf=now + 15)
    asserted = local.issuer.visa(person, CLOSED, asserted=now + 15)
    assert listed(local, servers[2], late, early, asserted) == [CLOSED]


def test_without_a_list_of_trusted_issuers_version_1_trusts_all_and_version_2_none(local):
    person = archive.Someone("petra@lifescience-ri.eu")
    stranger = untrusted(local, person)
    with local.archive(version=1, trusted=None) as one, local.archive(version=2, trusted=None) as two:
        assert listed(local, one, stranger) == [OPEN]
        assert listed(local, two, stranger) == []


@pytest.mark.parametrize("version", [1, 2])
def test_keys_without_tls_are_refused_unless_allowed(local, version):
    person = archive.Someone("petra@lifescience-ri.eu")
    with local.archive(version=version, allow_insecure_jku=False) as server:
        assert listed(local, server, local.issuer.visa(person, OPEN)) == []


def test_a_slash_at_an_issuers_end_makes_no_difference(local):
    person, trusted = archive.Someone("petra@lifescience-ri.eu"), local.issuer.trusted
    with local.archive(trusted=[(trusted[0][0].rstrip("/"), trusted[0][1])]) as server:
        assert listed(local, server, local.issuer.visa(person, OPEN)) == [OPEN]


@pytest.mark.parametrize(
    ("mode", "granted"),
    [("broker-bound", [CLOSED, OPEN]), ("strict-sub", [OPEN]), ("strict-iss-sub", [])],
)
def test_whose_visas_count_is_a_setting(local, mode, granted):
    mine, other = archive.Someone("petra@lifescience-ri.eu"), archive.Someone("ivan@lifescience-ri.eu")
    visas = [local.issuer.visa(mine, OPEN), local.issuer.visa(other, CLOSED)]
    with local.archive(identity_mode=mode) as server:
        assert listed(local, server, *visas) == granted


@pytest.mark.parametrize(
    "value", [f"https://example.org/datasets/{OPEN}/", f"urn:x:{OPEN}", f"a/{OPEN}", OPEN]
)
def test_a_visa_may_name_a_dataset_by_its_last_segment(local, value):
    person = archive.Someone("petra@lifescience-ri.eu")
    with local.archive(dataset_id_mode="suffix") as server:
        assert listed(local, server, local.issuer.visa(person, value)) == [OPEN]


def test_visas_behind_the_limit_are_not_read(local):
    person = archive.Someone("petra@lifescience-ri.eu")
    visas = ["nonsense", "nonsense", local.issuer.visa(person, OPEN), local.issuer.visa(person, CLOSED)]
    with local.archive(max_visas=3) as server:
        assert listed(local, server, *visas) == [OPEN]


def test_a_passport_makes_the_server_ask_few_addresses_for_keys(local):
    person = archive.Someone("petra@lifescience-ri.eu")
    nowhere = [f"{local.issuer.url}nowhere/{number}" for number in range(3)]
    trusted = [(local.issuer.broker, address) for address in nowhere] + local.issuer.trusted
    visas = [local.issuer.visa(person, OPEN, headers={"jku": address}) for address in nowhere]
    with local.archive(trusted=trusted, max_jwks=3) as server:
        assert listed(local, server, *visas, local.issuer.visa(person, CLOSED)) == []
    with local.archive(trusted=trusted, max_jwks=4) as server:
        assert listed(local, server, *visas, local.issuer.visa(person, CLOSED)) == [CLOSED]


def test_keys_of_rsa_count_as_well():
    with archive.running(issuer=archive.Issuer("RS256")) as local:
        local.add(OPEN, "a.txt", archive.Bytes(b"a"))
        with local.archive(version=1) as one, local.archive(version=2) as two:
            for server in (one, two):
                with client(local, server, local.someone("petra", OPEN), "at+jwt") as made:
                    assert made.granted() == [OPEN]
