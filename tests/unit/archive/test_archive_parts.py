"""The parts that need no archive: tokens, segments, edit lists, paths, blocks, the cache."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import pickle
import time

import crypt4gh.header
import crypt4gh.lib
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cytomine_spawner.archive import CallableToken, FileToken, FixedToken, TokenRefused, blocks, crypt
from cytomine_spawner.archive.cache import DiskCache, MemoryCache
from cytomine_spawner.archive.errors import Damaged
from cytomine_spawner.archive.explain import judge
from cytomine_spawner.archive.http import Http, retry_after
from cytomine_spawner.archive.paths import component, split, visible
from cytomine_spawner.archive.tokens import source

SEGMENT = 65536
EXAMPLES = settings(max_examples=50, deadline=None, derandomize=True)


def jwt(**claims):
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{body}.c2ln"


def encrypted(plain, edits=None):
    """A header and a body, by the crypt4gh package."""
    pair = crypt.key_pair()
    out, head = io.BytesIO(), io.BytesIO()
    keys = [(0, bytes(range(32)), pair.public)]
    crypt4gh.lib.encrypt(keys, io.BytesIO(plain), out, headerfile=head)
    header = head.getvalue()
    if edits is not None:
        packets = list(crypt4gh.header.parse(io.BytesIO(header)))
        packet = crypt4gh.header.make_packet_data_edit_list(edits)
        packets += list(crypt4gh.header.encrypt(packet, keys))
        header = crypt4gh.header.serialize(packets)
    return bytes(header), out.getvalue()


@EXAMPLES
@given(
    size=st.integers(0, 300_000),
    edits=st.none() | st.lists(st.integers(0, 100_000), min_size=1, max_size=7),
    ranges=st.lists(st.tuples(st.integers(0, 300_000), st.integers(0, 100_000)), min_size=1, max_size=4),
)
def test_a_layout_finds_the_bytes_that_the_edit_list_keeps(size, edits, ranges):
    plain = bytes(i * 7 % 251 for i in range(size))
    body = size + 28 * -(-size // SEGMENT)
    assert crypt.plain_size(body) == size
    kept, at = b"", 0
    if edits is None:
        kept = plain
    else:
        for number, length in enumerate(edits):
            if number % 2:
                kept += plain[at : at + length]
            at += length
        if len(edits) % 2:
            kept += plain[at:]
    layout = crypt.Layout.of(body, edits)
    assert layout.size == len(kept)
    for start, length in ranges:
        found = b"".join(plain[low:high] for low, high in layout.spans(start, start + length))
        assert found == kept[start : start + length]


def test_what_the_crypt4gh_package_encrypts_is_opened():
    plain = os.urandom(3 * SEGMENT + 5)
    header, body = encrypted(plain, [10, 20, 30])
    keys, edits = crypt.read_header(header, crypt.key_pair())
    assert edits == (10, 20, 30)
    assert b"".join(keys.open_all(body)) == plain
    assert str(keys) == "Keys(1)"


@pytest.mark.parametrize("change", ["", "crypt4gh", "short", "other", "version"])
def test_a_header_that_is_none_is_said_so(change):
    header, _ = encrypted(b"x")
    pair = crypt.key_pair()
    data = {
        "": b"",
        "crypt4gh": b"crypt4gh",
        "short": header[:-1],
        "version": header[:8] + b"\2" + header[9:],
    }
    if change == "other":
        data["other"], pair = header, crypt.KeyPair.new()
    with pytest.raises(Damaged, match="its Crypt4GH header cannot be read"):
        crypt.read_header(data[change], pair)


def test_a_header_that_costs_much_is_refused_before_it_does():
    pair = crypt.key_pair()
    empty = (4).to_bytes(4, "little")
    many = b"crypt4gh" + (1).to_bytes(4, "little") + (200_000).to_bytes(4, "little") + empty * 200_000
    long, _ = encrypted(b"x", [1] * 200_000)
    for header in (many, long):
        with pytest.raises(Damaged, match="far longer than those of other files"):
            crypt.read_header(header, pair)


def test_a_header_with_a_key_that_is_none_is_said_so():
    pair = crypt.key_pair()
    packet = crypt4gh.header.make_packet_data_enc(0, b"short")
    header = crypt4gh.header.serialize(crypt4gh.header.encrypt(packet, [(0, bytes(range(32)), pair.public)]))
    with pytest.raises(Damaged, match="its Crypt4GH header cannot be read"):
        crypt.read_header(header, pair)


@pytest.mark.parametrize("into", [True, False])
def test_segments_are_opened_into_memory_that_is_there(into, monkeypatch):
    monkeypatch.setattr(crypt, "_INTO", into and crypt._INTO)
    plain = os.urandom(2 * SEGMENT + 77)
    header, body = encrypted(plain)
    keys, _ = crypt.read_header(header, crypt.key_pair())
    out = bytearray(3 * SEGMENT)
    assert keys.open_into(memoryview(body), memoryview(out)) == len(plain)
    assert out[: len(plain)] == plain
    hurt = bytearray(body)
    hurt[2 * crypt.CIPHER_SEGMENT + 20] ^= 1
    with pytest.raises(crypt.BadSegment) as error:
        keys.open_into(memoryview(hurt), memoryview(out))
    assert error.value.good == [plain[:SEGMENT], plain[SEGMENT : 2 * SEGMENT]]


def test_any_changed_bit_of_a_segment_is_found():
    header, body = encrypted(os.urandom(100))
    keys, _ = crypt.read_header(header, crypt.key_pair())
    for at in range(len(body)):
        with pytest.raises(crypt.BadSegment):
            keys.open(body[:at] + bytes([body[at] ^ 4]) + body[at + 1 :])


def test_no_key_is_in_a_log_or_a_repr(caplog):
    with caplog.at_level(logging.DEBUG):
        pair = crypt.KeyPair.new()
        header, _ = encrypted(b"x")
        caplog.clear()
        with pytest.raises(Damaged):
            crypt.read_header(header, pair)
        crypt.read_header(header, crypt.key_pair())
    assert not [r for r in caplog.records if r.name.startswith("crypt4gh")]
    assert pair.secret.hex() not in caplog.text
    assert repr(pair.secret) not in repr(pair)


def test_the_name_that_is_shown_has_neither_the_uploader_nor_the_ending():
    shown = visible(
        [
            "28f7_lifescience-ri.eu/DATASET_a/IMAGES/1.dcm.c4gh",
            "anna_example.org/DATASET_a/x.xml.c4gh",
            "ben_example.org/DATASET_a/x.xml.c4gh",
            "IMAGE_1/a.b/2.dcm",
            "DATASET_a/y.c4gh",
            "DATASET_a/y",
            "/../../etc//passwd.c4gh",
        ]
    )
    assert shown == {
        "28f7_lifescience-ri.eu/DATASET_a/IMAGES/1.dcm.c4gh": "DATASET_a/IMAGES/1.dcm",
        # Two that would be alike keep who uploaded them.
        "anna_example.org/DATASET_a/x.xml.c4gh": "anna_example.org/DATASET_a/x.xml",
        "ben_example.org/DATASET_a/x.xml.c4gh": "ben_example.org/DATASET_a/x.xml",
        "IMAGE_1/a.b/2.dcm": "IMAGE_1/a.b/2.dcm",
        "DATASET_a/y.c4gh": "DATASET_a/y.c4gh",
        "DATASET_a/y": "DATASET_a/y",
        "/../../etc//passwd.c4gh": "%2E%2E/%2E%2E/etc/passwd",
    }


@settings(EXAMPLES, max_examples=300)
@given(
    paths=st.lists(
        st.text("ab/._c4gh@%2E\x00\x1b\n\u202e", min_size=1, max_size=12) | st.text(min_size=1, max_size=4),
        unique=True,
        max_size=8,
    )
)
@example(["../../x", "%2E%2E/%2E%2E/x"])
@example(["//etc/x", "etc/x"])
@example([".c4gh", "a/.c4gh", "/", "./."])
def test_whatever_the_archive_lists_each_file_has_one_path_below_its_folder(paths):
    shown = visible(paths)
    assert set(shown) == set(paths)
    assert len(set(shown.values())) == len(paths)
    for path in shown.values():
        assert not {"", ".", ".."} & set(path.split("/"))
        assert path.isprintable()


@EXAMPLES
@given(
    dataset=st.text(min_size=1, max_size=40).filter(lambda t: t.isprintable()),
    rest=st.text("ab/", max_size=5),
)
@example(dataset="..", rest="a")
def test_a_datasets_id_goes_through_fsspecs_paths_unchanged(dataset, rest):
    from cytomine_spawner.archive import SdaFileSystem

    rest = rest.strip("/")
    path = SdaFileSystem._strip_protocol(f"sda://{component(dataset)}/{rest}")
    assert split(path) == (dataset, rest)
    assert "::" not in component(dataset)
    assert not set("*?[/") & set(component(dataset))
    assert component(dataset) not in {".", ".."}


@EXAMPLES
@given(
    missing=st.sets(st.integers(0, 199), min_size=1),
    known=st.sets(st.integers(0, 199)),
    block=st.integers(1, 40),
    most=st.integers(1, 60),
    border=st.integers(0, 199),
)
def test_a_plan_covers_what_is_missing_once_and_within_bounds(missing, known, block, most, border):
    found = blocks.plan(missing, missing, known.__contains__, block, most, 200, border)
    asked = [segment for first, last in found for segment in range(first, last + 1)]
    assert len(asked) == len(set(asked))
    assert missing <= set(asked) <= set(range(200))
    assert all(last - first < most for first, last in found)
    starts = {m - (m - border) % block for m in missing}
    near = {s for start in starts for s in range(start, start + block)}
    assert set(asked) <= near


def test_the_block_follows_what_a_range_costs():
    mib = 1 << 20
    cheap = blocks.Policy(False, 1 << 30)
    assert cheap.block(0, 200 * mib) == 4 * SEGMENT
    for _ in range(5):
        cheap.waited(1, 0.0015)
    assert SEGMENT <= cheap.block(0, 1 << 30) <= 4 * SEGMENT
    dear = blocks.Policy(False, 1 << 30)
    dear.waited(0, 0.001)  # streamed from its start, as everywhere
    dear.came(10 * mib, 0.1)
    dear.waited(10 * mib, 0.5)
    dear.came(SEGMENT, 0.01)
    assert 8 * mib <= dear.block(0, 1 << 40) <= 48 * mib
    # One busy moment does not count for long.
    cheap.waited(1, 3.0)
    assert cheap.block(0, 1 << 30) <= 4 * SEGMENT
    first = blocks.Policy(True, 1 << 30)
    assert first.block(0, 60 * mib) >= 60 * mib
    assert first.block(0, 1 << 40) >= 8 * mib
    assert first.block(1 << 40, 1 << 41) == 48 * mib
    small = blocks.Policy(True, 2 * mib)
    assert small.block(1 << 40, 1 << 41) <= mib


def test_where_a_slides_directories_may_be_the_blocks_follow_the_files_size():
    body = 30_000 * SEGMENT
    policy = blocks.Policy(False, 1 << 30)
    tables = blocks.tables(body)
    assert body // 1000 < tables < body // 500
    # Nothing is known: the start, and whatever is jumped to and what follows it.
    assert policy.block(0, body) == policy.block(body // 2, body) == tables
    assert policy.border(0, tables // SEGMENT, 30_000) == 0
    assert policy.border(15_001, tables // SEGMENT, 30_000) == 15_001
    policy.waited(1, 0.0015)
    assert policy.block(0, body) <= 4 * SEGMENT
    assert policy.border(15_001, 4, 30_000) == 0
    for _ in range(3):
        policy.waited(1, 0.5)
    assert policy.block(0, body) == tables
    block = policy.block(29_900 * SEGMENT, body)
    assert block >= body // 150
    assert policy.border(29_900, block // SEGMENT, 30_000) == 30_000 % (block // SEGMENT)


def test_the_memorys_cache_forgets_what_was_used_longest_ago():
    cache = MemoryCache(300)
    for number in range(3):
        cache.put("c", number, bytes(100))
    cache.get("c", 0)
    cache.put("c", 3, bytes(100))
    assert [cache.has("c", n) for n in range(4)] == [True, False, True, True]


def test_the_cache_on_disk_keeps_to_its_limit_and_forgets_the_oldest(tmp_path):
    limit = 64 * SEGMENT
    cache = DiskCache(tmp_path / "c", limit)
    data = os.urandom(SEGMENT)
    for number in range(200):
        cache.put("content", number, [data])
        os.utime(tmp_path / "c" / "content" / f"{number}-1", (number, number))
        size = sum(p.stat().st_size for p in (tmp_path / "c").rglob("*") if p.is_file())
        assert size <= limit * 17 // 16
    known = cache.known("content")
    assert 199 in known
    assert 0 not in known
    assert dict(cache.get("content", [199])) == {199: data}


def test_the_caches_folder_is_not_read_anew_after_each_write_of_ones_own(tmp_path, monkeypatch):
    cache, other = DiskCache(tmp_path / "c", 1 << 30), DiskCache(tmp_path / "c", 1 << 30)
    listed = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listdir(path))
    for number in range(30):
        cache.put("content", number, [b"x"])
        assert all(n in cache.known("content") for n in range(number + 1))
    assert len(listed) <= 2
    # What another process writes is found, and what is written after that.
    other.put("content", 99, [b"y"])
    cache.put("content", 30, [b"z"])
    assert dict(cache.get("content", [3, 30, 99])) == {3: b"x", 30: b"z", 99: b"y"}


def test_what_is_damaged_on_disk_is_not_used(tmp_path, caplog):
    for change in (lambda d: d[:-1], lambda d: d[:-1] + bytes([d[-1] ^ 1]), lambda _: b"", lambda d: d[:20]):
        cache = DiskCache(tmp_path / "c", 1 << 30)
        cache.put("content", 0, [b"a" * 1000, b"b" * SEGMENT])
        file = tmp_path / "c" / "content" / "0-2"
        file.write_bytes(change(file.read_bytes()))
        assert 1 not in dict(DiskCache(tmp_path / "c", 1 << 30).get("content", [1]))
    assert "damaged" in caplog.text


def test_a_disk_that_does_not_work_costs_nothing_but_speed(tmp_path, caplog):
    cache = DiskCache(tmp_path / "c", 1 << 30)
    (tmp_path / "c" / "content").write_text("a file where a folder is to be")
    cache.put("content", 0, [b"x"])
    cache.put("content", 0, [b"x"])
    assert dict(cache.get("content", [0])) == {}
    assert caplog.text.count("does not work") == 1


def test_the_caches_folder_is_ones_own_and_no_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="is no folder of yours"):
        DiskCache(tmp_path / "link", 1)
    (tmp_path / "open").mkdir(mode=0o755)
    DiskCache(tmp_path / "open", 1)
    assert (tmp_path / "open").stat().st_mode & 0o077 == 0


def at_once(token, monkeypatch):
    monkeypatch.setattr("cytomine_spawner.archive.tokens.LOOK", -1.0)
    return token


def test_a_file_with_a_token_is_read_anew_when_it_changes(tmp_path, monkeypatch):
    place = tmp_path / "token"
    place.write_text("first\n")
    token = at_once(FileToken(place), monkeypatch)
    assert token.current() == "first"
    place.write_text("second-one")
    assert token.current() == "second-one"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "  \n",
        "two words",
        "<html>",
        "[default]\nhost_base = x\n",
        jwt(exp=1),
        "ünsigned",
        None,
        b"\xff\xfe",
    ],
)
def test_the_former_token_stays_while_the_new_one_is_bad(bad, tmp_path, monkeypatch):
    place = tmp_path / "token"
    place.write_text("first")
    token = at_once(FileToken(place), monkeypatch)
    assert token.current() == "first"
    if bad is None:
        place.unlink()
    elif isinstance(bad, bytes):
        place.write_bytes(bad)
    else:
        place.write_text(bad)
    if bad == "<html>":
        # It could be a token. The archive refuses it, and the former one serves on.
        assert token.renew("<html>") == "first"
    assert token.current() == "first"
    place.write_text("third-token")
    assert token.current() == "third-token"


@pytest.mark.parametrize(
    "text",
    [
        "[default]\naccess_key = a@b\naccess_token = the.to-ken\nhost_base = x\n",
        "access_token=the.to-ken\nuse_https = True\n",
        'check_ssl_certificate = 50% of %(x)s\naccess_token : "the.to-ken"\n',
    ],
)
def test_the_token_is_found_in_the_portals_file(text, tmp_path):
    (tmp_path / "s3cmd.conf").write_text(text)
    assert FileToken(tmp_path / "s3cmd.conf").current() == "the.to-ken"


@pytest.mark.parametrize("content", [None, "", "two words"])
def test_a_file_without_a_token_is_said_so(content, tmp_path):
    if content is not None:
        (tmp_path / "t").write_text(content)
    with pytest.raises(TokenRefused, match=r"[Tt]here is no token in|gives no token|is no token") as caught:
        FileToken(tmp_path / "t").current()
    assert "two words" not in str(caught.value)


async def test_a_function_is_asked_before_its_token_ends_and_its_failure_shows_no_token():
    ends = [time.time() + 10, time.time() + 3600]
    token = CallableToken(lambda: jwt(exp=ends.pop(0)))
    await token.current()
    last = await token.current()
    assert await token.current() == last
    assert not ends

    async def failing():
        raise RuntimeError("Bearer secret-token")

    with pytest.raises(TokenRefused, match=r"failed \(RuntimeError\)") as caught:
        await CallableToken(failing).current()
    assert "secret-token" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_token_itself_is_no_option(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="token= takes a function") as caught:
        source("secret-token", None)
    assert "secret-token" not in str(caught.value)
    monkeypatch.delenv("SDA_TOKEN_FILE", raising=False)
    with pytest.raises(ValueError, match="There is no token"):
        source(None, None)
    monkeypatch.setenv("SDA_TOKEN_FILE", str(tmp_path / "t"))
    assert source(None, None) == FileToken(tmp_path / "t")
    assert pickle.loads(pickle.dumps(source(None, None))) == FileToken(tmp_path / "t")
    assert "secret" not in repr(FixedToken("secret-token"))


@pytest.mark.parametrize(
    "address",
    [
        "",
        "archive",
        "ftp://a",
        "https://",
        "http://archive.example.org",
        "https://me:pass@a.org",
        "http://[::x",
    ],
)
def test_an_address_that_is_none_or_tells_the_token_to_everybody_is_refused(address):
    with pytest.raises(ValueError, match=r"is no address of an archive|is not encrypted"):
        Http(address, FixedToken("t"), 1, 1, 1, False)


def test_retry_after_is_seconds_or_a_date():
    assert retry_after("7") == 7
    assert retry_after(None) is retry_after("soon") is retry_after("nan") is None
    assert 0 <= retry_after(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 5))) <= 5


def visa(kind="ControlledAccessGrants", exp=2000.0, value="ds-1", **more):
    return jwt(iss="https://rems.example.org/", exp=exp, ga4gh_visa_v1={"type": kind, "value": value, **more})


@pytest.mark.parametrize(
    ("passport", "reason"),
    [
        (None, "carries no visas: it was issued without the scope ga4gh_passport_v1"),
        ([], "you have no visa"),
        ([visa("ResearcherStatus")], "you have no visa"),
        (["not-a-visa", 5], "you have no visa"),
        ([visa(exp=100.0)], "your visas expired, the last on 1970-01-01"),
        ([visa(conditions=[[{"type": "x"}]])], "hold under conditions alone"),
        (
            [visa(), visa(exp=100.0)],
            r"\(ds-1\): either the archive does not trust their issuer \(rems.example.org\), or",
        ),
    ],
)
def test_an_empty_list_says_which_of_its_causes_it_is(passport, reason):
    import re

    assert re.search(reason, judge(passport, now=1000.0))
