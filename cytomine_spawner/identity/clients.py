"""The two clients of every stack, and where each may have people sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

# Paths of a stack that are not the user interface's. A code must not be sent there: what answers there may pass it
# on, by a redirect that keeps the fragment or in a log.
NOT_PAGES = (
    "api",
    "iam",
    "ims",
    "import",
    "oauth2",
    "server",
    "session",
    "static",
    "upload",
    "ws",
)
# What a client reads out of an answer: a place that says one of them would be read in the answer's stead.
ANSWERS = frozenset(
    {
        *("code", "state", "session_state", "iss", "error", "error_description", "error_uri"),
        *("access_token", "id_token", "token_type", "expires_in", "kc_action_status", "kc_action"),
    }
)
_ODD = re.compile(r"[\x00-\x20\x7f-\uffff\\<>\"'`{}|^]|%(?![0-9A-Fa-f]{2})")
LONGEST = 2000
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Client:
    """Who asks for tokens.

    Attributes:
        client_id: its name.
        public: whether it runs in a browser and so has no secret.
        stack_url: the stack's address, without a slash at the end.
    """

    client_id: str
    public: bool
    stack_url: str

    def redirect_allowed(self, uri: str) -> bool:
        """Whether people may be sent here with a code."""
        if not self.public:
            return uri == f"{self.stack_url}/oauth2/callback"
        return is_page(uri, self.stack_url)


def clients(stack_url: str) -> Mapping[str, Client]:
    """The clients of a stack: Cytomine's user interface and the proxy before it."""
    return {
        "core": Client("core", public=True, stack_url=stack_url),
        "gateway": Client("gateway", public=False, stack_url=stack_url),
    }


def origin(url: str) -> str:
    """Scheme, host and port as browsers write an origin; empty if there is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in _PORTS or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    suffix = "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{host}{suffix}"


def is_page(uri: str, stack_url: str) -> bool:
    """Whether an address is one of the user interface's pages, below exactly the stack's address, written plainly."""
    rest = uri.removeprefix(stack_url)
    if rest == uri or rest[:1] not in ("", "/", "?") or _ODD.search(uri) or "#" in uri or len(uri) > LONGEST:
        return False
    path = unquote(rest.partition("?")[0])
    if "%" in path or "\\" in path or "//" in path or ";" in path:
        return False  # encoded twice, or read differently by different readers
    segments = path.lower().split("/")[1:]
    return not {".", ".."} & set(segments) and (not segments or segments[0] not in NOT_PAGES)


def split_place(uri: str) -> tuple[str, str]:
    """An address as a server knows it, and the place in the page that its fragment names.

    keycloak-js names the page that it is on, with the fragment in which upstream's user interface keeps its place.
    What could be mistaken for an answer is left out of it, and a place without end is none; the slash with which
    the router's places begin stays in any case, see :func:`at_place`.
    """
    address, _, place = uri.partition("#")
    parts = [part for part in place.split("&") if part and part.partition("=")[0].lstrip("/?") not in ANSWERS]
    place = quote("&".join(parts), safe="%!#$&'()*+,/:;=?@[]~")
    if len(place) > LONGEST or not place:
        place = "/" if uri.partition("#")[2].startswith("/") else ""
    return address, place


def at_place(address: str, place: str) -> str:
    """An address with an answer, back at the place: as Keycloak does it, before the answer's own fragment.

    The router of upstream's user interface puts a slash before a fragment that does not begin with one, and
    keycloak-js does not find ``/code`` in it: without the place the login would begin anew for ever.
    """
    head, _, answer = address.partition("#")
    fragment = "&".join(part for part in (place, answer) if part)
    return f"{head}#{fragment}" if fragment else head
