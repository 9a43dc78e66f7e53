"""What is taken out of logs and last words, and what stays readable."""

import base64
import json
import re
import uuid
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytomine_spawner.blueprint import secretdata
from cytomine_spawner.common.redact import PIECE, REMOVED, Redactor, by_looks, secret_values

PRIVATE = "0b6f1c9e-5a0d-4f8e-9a53-6a0c2d1f7e44"
PUBLIC = "3d1f0a72-97c4-4e0b-8f5e-b1c0a9d8e7f6"
# With every character that an encoding changes.
HARD = "p&ß/+\"x'=<y> z%\\"


def segment(data):
    return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")


JWT = f"{segment({'alg': 'RS256', 'kid': 'k'})}.{segment({'sub': 'ada', 'exp': 1})}.{'s-_9' * 20}"


def base64_of(text):
    return base64.b64encode(text.encode()).decode()


ENCODINGS = {
    "plain": lambda v: v,
    "quoted": lambda v: quote(v, safe=""),
    "quoted in lower case": lambda v: re.sub("%..", lambda m: m.group().lower(), quote(v, safe="")),
    "quoted but slashes": quote,
    "base64": base64_of,
    "base64 for URLs": lambda v: base64.urlsafe_b64encode(v.encode()).decode().rstrip("="),
    "base64 behind one": lambda v: base64_of(f"u:{v}")[3:-3],
    "base64 behind a name": lambda v: base64_of(f"ada:{v}")[6:-3],
    "JSON": lambda v: json.dumps(v)[1:-1],
    "JSON in JSON": lambda v: json.dumps(json.dumps(v))[3:-3],
    "repr": lambda v: repr(v)[1:-1],
    "hexadecimal": lambda v: v.encode().hex(),
}


@pytest.mark.parametrize("name", [*secretdata.generate(), "hard"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_value_of_a_secret_goes_in_each_encoding(name, encoding):
    value = HARD if name == "hard" else secretdata.generate()[name]
    written = ENCODINGS[encoding](value)
    said = Redactor([value])(f"before {written} behind")
    assert written not in said
    assert REMOVED in said
    assert len(said.replace(REMOVED, "")) <= len("before  behind") + 8
    assert said.startswith("before ")
    assert said.endswith(" behind")


@given(
    st.text(min_size=8, max_size=60).filter(lambda v: v.strip() == v and v not in REMOVED),
    st.sampled_from(sorted(ENCODINGS)),
    st.text(max_size=20),
    st.text(max_size=20),
)
def test_any_value_goes_from_any_line(value, encoding, before, behind):
    written = ENCODINGS[encoding](value)
    said = Redactor([value])(f"{before}{written}{behind}")
    assert written not in said.replace(REMOVED, "\0\0")
    assert REMOVED in said


def test_a_value_that_holds_another_goes_whole_and_so_do_two_that_overlap():
    redactor = Redactor(["abcdefgh", "xabcdefghy", "efghyzzzz"])
    assert redactor("1 xabcdefghy 2") == f"1 {REMOVED} 2"
    assert redactor("1 abcdefgh 2") == f"1 {REMOVED} 2"
    assert redactor("1 xabcdefghyzzzz 2") == f"1 {REMOVED} 2"


def test_what_is_short_is_a_word():
    assert Redactor(["cytomin"])("cytomine starts") == "cytomine starts"


def test_a_secrets_values_are_read_from_base64_but_not_the_names_in_it():
    lines = "line one of it\nline two of it"
    data = {"user": "ada-lovelace", "host": "http://cm-ada-gateway", "private-key": PRIVATE, "file": lines}
    encoded = {key: base64_of(value) for key, value in data.items()}
    raw = bytes(range(200, 240))
    encoded["raw"] = base64.b64encode(raw).decode()
    values = set(secret_values(encoded))
    assert {PRIVATE, lines, "line two of it", encoded["raw"], raw.hex()} <= values
    assert not {"ada-lovelace", "http://cm-ada-gateway"} & values
    assert not set(secret_values(None))


SETTINGS = {
    "pydantic": f"Settings(root='/data', cytomine_public_key='{PUBLIC}', cytomine_private_key='{PRIVATE}', port=5000)",
    "JSON": json.dumps({"root": "/data", "cytomine_private_key": PRIVATE, "port": 5000}),
    "JSON in a JSON line": json.dumps({"message": json.dumps({"privateKey": PRIVATE, "port": 5000})}),
    "a line for each": f"[2026-11-24 08:00:00][INFO] * cytomine_private_key: {PRIVATE}",
    "in colour": f"\x1b[32m* cytomine_private_key:\x1b[0m \x1b[34m{PRIVATE}\x1b[0m",
    "with marks": f"[green]* cytomine_private_key:[/] [blue]{PRIVATE}[/]",
    "environment": f"CYTOMINE_PRIVATE_KEY={PRIVATE}",
    "YAML": f"  private-key: {PRIVATE}",
    "a dict": f"{{'apiKey': '{PRIVATE}', 'port': 5000}}",
    "bytes": f"secret=b'{PRIVATE}'",
    "a hidden string's opposite": f"password=SecretStr('{PRIVATE}')",
}


@pytest.mark.parametrize("line", SETTINGS.values(), ids=SETTINGS)
def test_printed_settings_lose_what_is_named_like_a_secret(line):
    said = by_looks(line)
    assert PRIVATE not in said
    assert PRIVATE[-12:] not in said
    assert REMOVED in said
    for word in ("root", "/data", "5000", "Settings", "cytomine_private_key", "message"):
        assert (word in said) is (word in line)


CREDENTIALS = {
    "JWT": (f"got {JWT} from ada", f"got {REMOVED} from ada"),
    "beginning of a JWT": (f"got {JWT[:60]}", f"got {REMOVED}"),
    "header": (f"Authorization: Bearer {JWT}", f"Authorization: Bearer {REMOVED}"),
    "signed": (f"Authorization: CYTOMINE {PUBLIC}:c2lnbmVk", f"Authorization: CYTOMINE {REMOVED}"),
    "hub": ("{'Authorization': 'token 0123456789abcdef'}", f"{{'Authorization': 'token {REMOVED}'}}"),
    "basic": ('"authorization":["Basic YWRhOmE="]', f'"authorization":["Basic {REMOVED}"]'),
    "no name": ("sent Bearer abcdef0123456789", f"sent Bearer {REMOVED}"),
    "address": ("GET /a?access_token=abc&b=1 200", f"GET /a?access_token={REMOVED}&b=1 200"),
    "quoted address": (
        "GET /a?authorization=Bearer%20abc.def&b=1",
        f"GET /a?authorization=Bearer%20{REMOVED}&b=1",
    ),
    "hub's address": ("/hub/?token=0123abcd HTTP/1.1", f"/hub/?token={REMOVED} HTTP/1.1"),
    "user info": ("redis://ada:hun@ter/2@cache:6379/0", f"redis://ada:{REMOVED}@ter/2@cache:6379/0"),
    "user info alone": ("postgresql://:hunter2@db:5432/x", f"postgresql://:{REMOVED}@db:5432/x"),
    "escaped quote": (r'"password": "a\"b", "c": 1', f'"password": "{REMOVED}", "c": 1'),
    "PEM": (
        "x -----BEGIN RSA PRIVATE KEY-----\\nMIIE\\n-----END RSA PRIVATE KEY-----",
        f"x {REMOVED}-----END RSA PRIVATE KEY-----",
    ),
    "two": ("password=a password=b", f"password={REMOVED} password={REMOVED}"),
}


@pytest.mark.parametrize(("line", "said"), CREDENTIALS.values(), ids=CREDENTIALS)
def test_what_looks_like_a_credential_goes_though_no_secret_of_ours_has_it(line, said):
    assert by_looks(line) == said
    assert by_looks(said) == said, "what was removed is not removed again"


ORDINARY = [
    "2026-11-24T08:00:00.000Z INFO 1 --- [main] be.cytomine.CytomineCoreApplication : Started in 21.4 seconds",
    "token expired",
    "Invalid token: signature verification failed",
    "io.jsonwebtoken.ExpiredJwtException: JWT expired at 2026-11-24T08:00:00Z. Current time: 2026-11-24T08:00:01Z",
    'password authentication failed for user "docker"',
    "couldn't find key mongo-password in Secret cytomine/cm-ada-secrets",
    'MountVolume.SetUp failed for volume "connection" : secret "cm-ada-connection" not found',
    "Pulled image ghcr.io/a/b@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    f"image {uuid.UUID(int=7)} at /data/images/{uuid.UUID(int=8)}/upload.tiff",
    "GET http://cm-ada-core:8080/api/user.json?max=10 200 ada@example.org",
    "cookie_secret=None token=null password= max_tokens=4096 REDIS_PASSWORD_FILE=/run/x",
    "Bearer authentication-is-required-here",
    "key: value, keyboard: us, tokens: 12",
    "commit 8f2c398a4c18bc765f0723f770d",
    "größer: \u4e2d\u6587 \U0001f52c",
    "",
]


@pytest.mark.parametrize("line", ORDINARY)
def test_ordinary_lines_stay_as_they_are(line):
    redactor = Redactor([*secretdata.generate().values(), PUBLIC, PRIVATE])
    assert redactor(line, torn_start=True, torn_end=True) == line


def test_a_value_that_a_console_folded_goes_piece_by_piece():
    value = secretdata.generate()["jwt-secret"]
    for piece in (value[:41], value[41:82], value[-PIECE:]):
        assert Redactor([value])(f"      {piece}   ") == f"      {REMOVED}   "


def test_what_reaches_over_the_limit_goes_whole():
    redactor = Redactor([PRIVATE])
    line = f"{'x' * 50} {PRIVATE} behind"
    for limit in range(51, 51 + len(PRIVATE)):
        assert PRIVATE[:1] not in redactor(line, limit).replace(REMOVED, "").strip("x ")
    assert redactor(line, 50) == "x" * 50
    # What goes makes room for nothing behind the limit.
    assert redactor(f"{PRIVATE} {PRIVATE[:20]}", len(PRIVATE) + 1) == f"{REMOVED} "


def test_halves_at_torn_edges_go():
    redactor = Redactor([PRIVATE])
    for length in range(6, len(PRIVATE)):
        assert redactor(f"{PRIVATE[-length:]}' x", torn_start=True) == f"{REMOVED}' x"
        assert redactor(f"x='{PRIVATE[:length]}", torn_end=True) == f"x='{REMOVED}"


HOSTILE = [
    "eyJ",
    "eyJ.",
    "eyJaaaaaaaa",
    "token",
    "token:",
    "token: ",
    "token: a ",
    "x token: abcdefgh ",
    "token=",
    "token='",
    'token="\\',
    'token=\\"',
    "token   ",
    "token=[[",
    "authorization: Bearer ",
    "://a:",
    "://a:b@",
    "@:",
    "Bearer ",
    "Bearer a",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN ",
    "-",
    "a",
    "\x1b[",
    "[a ",
    "\\",
    "'",
    "0",
    "password: \n",
    "aaaaaaaab",
]


@pytest.mark.parametrize("pattern", [*HOSTILE, "".join(HOSTILE)])
def test_a_hostile_line_is_read_to_its_end_however_long(pattern):
    redactor = Redactor([*secretdata.generate().values(), "a" * 64, "ab" * 40])
    length = 1024 * 1024 if len(pattern) > 100 else 256 * 1024
    text = pattern * (length // len(pattern))
    assert redactor(f"{text} end", torn_start=True, torn_end=True).endswith((" end", REMOVED))
