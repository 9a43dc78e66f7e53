"""The hub's log without the credentials that addresses hold."""

from __future__ import annotations

import logging

import pytest

from cytomine_spawner.hub.hublog import Addresses, scrubbed


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            "403 GET /hub/api/user?token=abc (1.2.3.4): Missing",
            "403 GET /hub/api/user?token=[secret] (1.2.3.4): Missing",
        ),
        ("GET /x?a=1&api_key=abc&b=2", "GET /x?a=1&api_key=[secret]&b=2"),
        (
            "-> /hub/login?next=%2Fhub%2F%3Ftoken%3Dabc%26b%3D2",
            "-> /hub/login?next=%2Fhub%2F%3Ftoken%3D[secret]%26b%3D2",
        ),
        (
            "?next=%252Fhub%253Fcode%253Dabc%2526b%253D2&c=3",
            "?next=%252Fhub%253Fcode%253D[secret]%2526b%253D2&c=3",
        ),
        (
            "HTTPServerRequest(uri='/hub/x?Token=abc', body=b'')",
            "HTTPServerRequest(uri='/hub/x?Token=[secret]', body=b'')",
        ),
        ("GET /x?state=&next=/hub/", "GET /x?state=&next=/hub/"),
        ("100%d of ?size=small", "100%d of ?size=small"),
    ],
)
def test_a_line_keeps_all_but_the_values(line: str, shown: str) -> None:
    assert scrubbed(line) == shown


def test_a_filter_changes_what_a_handler_writes_and_passes_every_line_on() -> None:
    record = logging.LogRecord("JupyterHub", 30, "", 0, "%s GET %s 100%%", (403, "/a?token=x%y"), None)
    assert Addresses().filter(record)
    assert record.getMessage() == "403 GET /a?token=[secret] 100%"
    broken = logging.LogRecord("JupyterHub", 30, "", 0, "%d", ("x",), None)
    assert Addresses().filter(broken)


def test_no_line_takes_long() -> None:
    # Would not end if the time grew with the square of the length.
    for piece in ("?", "&a", "%3F", "?token", "%3Ftoken%3D", "a"):
        scrubbed(piece * 300_000)
