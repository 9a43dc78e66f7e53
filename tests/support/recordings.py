"""Exchanges recorded from a real Cytomine, put to a running stand-in and compared with its answers.

Ids differ from run to run: each recorded id is tied to the live one where it is first seen, and must fit from then on.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import requests
import shapely
import shapely.wkt
from PIL import Image

from dev.standin.signing import signature

FOLDER = Path(__file__).resolve().parents[1] / "unit" / "standin_recordings"
UNKNOWN = 99999999
# What depends on the test's slides.
FREE = {"size_bytes"}
PLACEHOLDERS = {
    "<DATE:epoch-ms-string>": lambda v: isinstance(v, str) and re.fullmatch(r"\d{13}", v),
    "<DATE:epoch-ms-number>": lambda v: isinstance(v, int) and 10**12 < v < 10**13,
    "<DATE:epoch-ms-decimal>": lambda v: isinstance(v, float) and 10**12 < v < 10**13,
    "<DATE:iso>": lambda v: isinstance(v, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", v),
}
PATTERNS = {
    "<UUID>": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "<HOST>": r"http://127\.0\.0\.1:\d+",
    "<PIMS_ROOT>": r"/.+?",
    "<PIMS_TMP>": r"/.+?",
    "<DATE:iso-fraction>": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+",
    "<SESSION>": r"\w+",
    "<CUT>": r".*",
}
# Which sequence an id is from, by the field that holds it; everything else is core's.
SPACES = {
    "user": "user users userId admins reviewUser userImageId",
    "ontology": "ontology ontologyId",
    "term": "term terms term1 term2 term1Id term2Id",
    "storage": "storage idStorage",
    "file": "uploadedFile",
    "tag": "tag tagId",
    "core": "id image images project projects idProject slice annotation annotations userannotation bboxAnnotation "
    "baseImage baseImageId baseSlice domainIdent domainId projectId parentIdent container command",
}
SPACE_OF = {name: space for space, names in SPACES.items() for name in names.split()}
TYPES = {"ONTOLOGY": "ontology", "TERM": "term", "STORAGE": "storage", "TAG": "tag", "UPLOADED_FILE": "file"}
TYPES |= {
    "TAG_DOMAIN_ASSOCIATION": "association",
    "TERM_RELATION": "relation",
    "ROLE": "role",
    "USER": "user",
}
PATHS = {
    "ontology": "ontology",
    "ontology_light": "ontology",
    "term": "term",
    "term1": "term",
    "term2": "term",
}
PATHS |= {"user": "user", "storage": "storage", "uploadedfile": "file", "tag": "tag"}
PATHS["tag_domain_association"] = "association"


@dataclass(frozen=True)
class Exchange:
    """A recorded exchange; its fields are explained beside the data."""

    group: str
    data: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.data["name"])


def load() -> list[Exchange]:
    """All exchanges in the order in which they were recorded."""
    found = [
        Exchange(path.stem, json.loads(line))
        for path in FOLDER.glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    return sorted(found, key=lambda e: e.data["n"])


@dataclass
class Ids:
    """Recorded ids and the live ones."""

    known: dict[tuple[str, int], int] = field(default_factory=dict)

    def live(self, space: str, recorded: int) -> int:
        return self.known.get((space, recorded), recorded)

    def fits(self, space: str, recorded: int, live: int) -> bool:
        return self.known.setdefault((space, recorded), live) == live


class Comparison:
    """Compares answers: types and shapes always, values but for what differs from run to run."""

    def __init__(self, ids: Ids, path: str) -> None:
        self.ids, self.path, self.problems = ids, path, []

    def differ(self, where: str, recorded: Any, live: Any) -> None:
        self.problems.append(f"{where}: recorded {str(recorded)[:120]!r}, live {str(live)[:120]!r}")

    def value(self, where: str, recorded: Any, live: Any, key: str = "", space: str = "core") -> None:
        if isinstance(recorded, dict):
            self.mapping(where, recorded, live)
        elif isinstance(recorded, list):
            self.sequence(where, recorded, live, key)
        elif isinstance(recorded, str) and recorded in PLACEHOLDERS:
            if not PLACEHOLDERS[recorded](live):
                self.differ(where, recorded, live)
        elif key in FREE:
            if type(recorded) is not type(live):
                self.differ(where, recorded, live)
        elif isinstance(recorded, bool) or recorded is None or not isinstance(recorded, int | float | str):
            if recorded is not live:
                self.differ(where, recorded, live)
        elif isinstance(recorded, str):
            self.text(where, recorded, live, key)
        elif type(recorded) is not type(live):
            self.differ(where, recorded, live)
        elif key in SPACE_OF and isinstance(recorded, int):
            if not self.ids.fits(space if key == "id" else SPACE_OF[key], recorded, live):
                self.differ(where, f"{recorded} (live before {self.ids.live(space, recorded)})", live)
        elif abs(recorded - live) > 1e-9 * max(1.0, abs(recorded)):
            self.differ(where, recorded, live)

    def mapping(self, where: str, recorded: dict[str, Any], live: Any) -> None:
        if not isinstance(live, dict) or set(recorded) != set(live):
            both = [sorted(recorded), sorted(live) if isinstance(live, dict) else live]
            missing = sorted(set(both[0]) - set(both[1])) if isinstance(live, dict) else both[0]
            extra = sorted(set(both[1]) - set(both[0])) if isinstance(live, dict) else type(live).__name__
            self.problems.append(f"{where}: fields missing {missing}, in excess {extra}")
            return
        space = self._space(recorded)
        for key in recorded:
            self.value(f"{where}.{key}", recorded[key], live[key], key, space)

    def _space(self, item: dict[str, Any]) -> str:
        if "dataType" in item:
            return TYPES.get(item["dataType"], item["dataType"])
        if "username" in item:
            return "user"
        return "ontology" if "ontology_light" in self.path else "core"

    def sequence(self, where: str, recorded: list[Any], live: Any, key: str) -> None:
        if not isinstance(live, list) or len(recorded) != len(live):
            self.differ(where, f"{len(recorded)} entries", live if not isinstance(live, list) else len(live))
            return
        if key in ("terms", "subCommands") or (key == "term" and recorded):
            # Upstream's order of these is not fixed.
            recorded, live = (sorted(v, key=_order) for v in (recorded, live))
        if recorded and isinstance(recorded[0], dict) and "container" in recorded[0]:
            recorded = sorted(recorded, key=lambda item: self.ids.live("core", item["id"]))
            live = sorted(live, key=lambda item: item["id"])
        for number, (old, new) in enumerate(zip(recorded, live, strict=True)):
            self.value(f"{where}[{number}]", old, new, key)

    def text(self, where: str, recorded: str, live: Any, key: str) -> None:
        if not isinstance(live, str):
            self.differ(where, recorded, live)
        elif key == "location":
            shapes = [shapely.wkt.loads(t) for t in (recorded, live)]
            writing = [re.sub(r"[\d.]+", "0", t.split("(")[0]) for t in (recorded, live)]
            if writing[0] != writing[1] or not shapely.equals(*shapes):
                self.differ(where, recorded, live)
        elif re.match(r"<(PUBLIC|PRIVATE)_KEY|<SIGNATURE>", recorded):
            if not live:
                self.differ(where, recorded, live)
        elif not re.fullmatch(_pattern(recorded), live, re.DOTALL):
            self.differ(where, recorded, live)


def _order(item: Any) -> str:
    if isinstance(item, dict):
        data = item.get("data", item)
        return f"{data.get('name')}-{data.get('id'):09d}"
    return f"{item:09d}"


def _pattern(recorded: str) -> str:
    parts = re.split(r"(<[A-Za-z_:\-]+>|\d+)", recorded.replace("…<CUT>", "<CUT>"))
    out = []
    for part in parts:
        if part in PATTERNS:
            out.append(PATTERNS[part])
        elif part.isdigit():
            # Ids inside texts and addresses: a number must stand there.
            out.append(r"\d+")
        else:
            out.append(re.escape(part))
    return "".join(out)


@dataclass
class Player:
    """Puts exchanges to a stack. ``people`` are the recorded roles, ``keys`` is filled by the key calls themselves."""

    url: str
    services: dict[str, str]
    issuer: Any
    files: dict[str, Path]
    ids: Ids = field(default_factory=Ids)
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    session: requests.Session = field(default_factory=requests.Session)
    people: dict[str, str | None] = field(
        default_factory=lambda: {
            "alice": "ADMIN",
            "frank": "ADMIN",
            "bob": "USER",
            "erin": "USER",
            "carol": "GUEST",
            "dave": None,
        }
    )

    def path(self, recorded: str) -> str:
        """The path with live ids."""
        parts = recorded.split("/")
        for place, part in enumerate(parts):
            found = re.match(r"\d+", part)
            if found and int(found[0]) != UNKNOWN and parts[place - 1] not in ("zoom", "tx", "ty"):
                space = PATHS.get(parts[place - 1], "core")
                parts[place] = str(self.ids.live(space, int(found[0]))) + part[found.end() :]
        return "/".join(parts)

    def body(self, value: Any, key: str = "") -> Any:
        """A body or query with live ids."""
        if isinstance(value, dict):
            return {k: self.body(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [self.body(v, key) for v in value]
        space = SPACE_OF.get(key)
        if space and isinstance(value, int) and not isinstance(value, bool):
            return self.ids.live(space, value)
        if space and isinstance(value, str) and re.fullmatch(r"\d+(,\d+)*", value):
            return ",".join(str(self.ids.live(space, int(v))) for v in value.split(","))
        return value

    def token(self, name: str) -> str:
        return self.issuer.token(name, self.people[name])

    def authorization(self, exchange: Exchange, method: str, content_type: str) -> dict[str, str]:
        """The headers that say who asks, in the recorded way."""
        kind, name = exchange.data["auth"], exchange.data["as"]
        date = formatdate()
        if kind in ("keys", "wrong-private-key", "unsigned-content-type", "no-date"):
            public, private = self.keys[name]
            private = "wrong" if kind == "wrong-private-key" else private
            signed = "" if kind == "unsigned-content-type" else content_type
            head = {
                "Authorization": f"CYTOMINE {public}:{signature(private, method, signed, date)}",
                "Date": date,
            }
            return {"Authorization": head["Authorization"]} if kind == "no-date" else head
        other = {
            "none": {},
            "wrong-keys": {"Authorization": f"CYTOMINE none:{signature('x', method, content_type, date)}"},
            "malformed": {"Authorization": "CYTOMINE nonsense"},
            "garbage-bearer": {"Authorization": "Bearer garbage"},
            "basic": {"Authorization": "Basic YWxpY2U6eA=="},
        }
        if kind in other:
            return {**other[kind], "Date": date}
        return {"Authorization": f"Bearer {self._bearer(kind, name)}"}

    def _bearer(self, kind: str, name: str) -> str:
        if kind == "bearer":
            return self.token(name)
        if kind == "other-signer":
            from cryptography.hazmat.primitives.asymmetric import rsa

            other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            return self.issuer.token(name, "ADMIN", key=other)
        changes = {"sub-no-uuid": {"sub": "no-uuid"}, "no-name": {"name": None}}[kind]
        return self.issuer.token("mallory", "USER", **changes)

    def ask(self, exchange: Exchange) -> requests.Response:
        """Send one request."""
        ask = exchange.data["ask"]
        method, query = ask["method"], self.body(dict(ask.get("query", {})))
        for name in ("authorization", "auth"):
            if name in query:
                who = exchange.data["as"]
                query[name] = query[name].replace("<TOKEN>", self.token(who))
        base = self.services[exchange.data["service"]] if "service" in exchange.data else self.url
        url = base + self.path(ask["path"])
        content, content_type = self._content(ask, method)
        request = requests.Request(method, url, params=query, data=content)
        self.session.cookies.clear()
        prepared = self.session.prepare_request(request)
        prepared.headers["Accept"] = "application/json, */*"
        prepared.headers.pop("Content-Type", None)
        if content_type:
            prepared.headers["Content-Type"] = content_type
        if "origin" in ask:
            prepared.headers["Origin"] = ask["origin"]
        prepared.headers.update(self.authorization(exchange, method, content_type))
        return self.session.send(prepared, timeout=30, allow_redirects=False)

    def _content(self, ask: dict[str, Any], method: str) -> tuple[bytes | None, str]:
        if "file" in ask:
            boundary = "0123456789abcdef0123456789abcdef"
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="files[]"; filename="{ask["file"]}"\r\n\r\n'
            body = head.encode() + self.files[ask["file"]].read_bytes() + f"\r\n--{boundary}--\r\n".encode()
            return body, f"multipart/form-data; boundary={boundary}"
        content = None
        if "json" in ask:
            content = json.dumps(self.body(ask["json"])).encode()
        elif "text" in ask:
            content = ask["text"].encode()
        return content, ask.get("content_type", "")

    def post(self, path: str, data: Any, who: str = "alice") -> dict[str, Any]:
        """A request that was made between the recorded ones, without being recorded."""
        head = {"Authorization": f"Bearer {self.token(who)}"}
        response = self.session.post(self.url + path, json=data, headers=head, timeout=30)
        response.raise_for_status()
        return dict(response.json())

    def before_paging(self) -> None:
        """Make what the last recordings find: many ontologies, terms, tags and storages, and one more project."""
        ontology = self.post("/api/ontology.json", {"name": "many"})["data"]["id"]
        for n in range(23):
            term = {"name": f"t{n:02d}", "ontology": ontology, "color": f"#{n:06x}"}
            self.post("/api/term.json", term)
            self.post("/api/ontology.json", {"name": f"more{n:02d}"})
            self.post("/api/tag.json", {"name": f"tag{n:02d}"})
            self.post("/api/storage.json", {"name": f"st{n:02d}"})
        project = self.post("/api/project.json", {"name": "paging", "ontology": ontology})["project"]["id"]
        storage = self.ids.live("storage", 37)
        content, content_type = self._content({"file": "plain.tif"}, "POST")
        date, (public, private) = formatdate(), self.keys["alice"]
        head = {
            "Authorization": f"CYTOMINE {public}:{signature(private, 'POST', content_type, date)}",
            "Date": date,
        }
        url = f"{self.url}/upload?storage={storage}&projects={project}&sync=true"
        answer = self.session.post(
            url, data=content, headers={**head, "Content-Type": content_type}, timeout=30
        )
        (uploaded,) = answer.json()[0]["images"]
        image = uploaded["imageInstances"][0]["id"]
        points = [{"location": f"POINT({10 + n} 10)", "image": image} for n in range(41)]
        self.post("/api/annotation.json", points)
        shape = {"location": "POLYGON((10 10,100 10,100 100,10 100,10 10))", "image": image}
        self.later = lambda: self.post("/api/annotation.json", shape)["annotation"]["id"]
        recorded = {1044: project, 1056: uploaded["image"]["id"], 1064: image}
        for old, new in recorded.items():
            self.ids.known[("core", old)] = new

    def before_review(self) -> None:
        """One more annotation, which the recorded review accepts."""
        self.ids.known[("core", 1276)] = self.later()

    def play(self, exchange: Exchange) -> list[str]:
        """Send one request and compare; what differs, as sentences."""
        response = self.ask(exchange)
        answer = exchange.data["answer"]
        if exchange.name == "uploadedfiles: fetch after async upload":
            end = time.monotonic() + 20
            while response.json()["status"] != answer["json"]["status"] and time.monotonic() < end:
                time.sleep(0.05)
                response = self.ask(exchange)
        self._learn(exchange, response)
        if response.status_code != answer["status"]:
            return [f"status: recorded {answer['status']}, live {response.status_code} {response.text[:200]}"]
        comparison = Comparison(self.ids, exchange.data["ask"]["path"])
        self._headers(comparison, answer["headers"], response)
        self._payload(comparison, exchange, response)
        return comparison.problems

    def _learn(self, exchange: Exchange, response: requests.Response) -> None:
        """Remember keys, and ids that stand in texts only."""
        if exchange.data["ask"]["path"].endswith("/api/user/current/keys") and response.status_code == 200:
            data = response.json()
            self.keys[exchange.data["as"]] = (data["primaryKey"], data["secondaryKey"])
        recorded = exchange.data["answer"].get("json")
        data = recorded.get("data") if isinstance(recorded, dict) else None
        text = str(data.get("message", "")) if isinstance(data, dict) else ""
        if (
            text.endswith("added")
            and response.status_code == 200
            and "application/json" in response.headers["Content-Type"]
        ):
            live = re.findall(r"\d+", str(response.text))
            for old, new in zip(re.findall(r"\d+", text), live, strict=False):
                self.ids.known[("core", int(old))] = int(new)

    later: Any = None

    def _headers(self, comparison: Comparison, recorded: dict[str, str], response: requests.Response) -> None:
        for name, value in recorded.items():
            live = response.headers.get(name)
            if name == "www-authenticate":
                fits = live is not None and live.startswith('Bearer error="invalid_token"')
            elif name in ("allow", "set-cookie"):
                parts = [sorted(re.split(r"[,;] ", text)) for text in (value, live or "")]
                fits = re.fullmatch(_pattern(" ".join(parts[0])), " ".join(parts[1])) is not None
            else:
                fits = live is not None and re.fullmatch(_pattern(value), live) is not None
            if not fits:
                comparison.differ(f"header {name}", value, live)

    def _payload(self, comparison: Comparison, exchange: Exchange, response: requests.Response) -> None:
        answer = exchange.data["answer"]
        if "json" in answer:
            comparison.value("body", sized(answer["json"]), sized(response.json()))
        elif "text" in answer:
            if response.text != answer["text"]:
                comparison.differ("text", answer["text"], response.text)
        elif "html_error_page" in answer:
            if answer["html_error_page"] not in response.text:
                comparison.differ("page", answer["html_error_page"], response.text)
        elif "empty" in answer:
            if response.content:
                comparison.differ("body", "nothing", response.content)
        elif "binary" in answer:
            self._image(comparison, answer["binary"], response)
        elif "json_types" in answer or "json_keys" in answer:
            live = types(response.json())
            if live != answer.get("json_types", answer.get("json_keys")):
                comparison.differ("types", answer.get("json_types", answer.get("json_keys")), live)
        elif "omitted" in answer:
            if "<html" not in response.text:
                comparison.differ("page", "HTML", response.text)
        else:
            raise AssertionError(f"{exchange.name} has nothing to compare")

    def _image(self, comparison: Comparison, recorded: dict[str, Any], response: requests.Response) -> None:
        with Image.open(io.BytesIO(response.content)) as image:
            live = {"format": image.format, "size": list(image.size), "mode": image.mode}
        for name, value in live.items():
            if recorded[name] != value:
                comparison.differ(name, recorded[name], value)


def sized(value: Any) -> Any:
    """The same with the size of uploaded files, which depends on the test's slides, set apart."""
    if isinstance(value, list):
        return [sized(v) for v in value]
    if not isinstance(value, dict):
        return value
    is_file = value.get("dataType") == "UPLOADED_FILE" or "uploadedFile" in value
    names = {"size": "size_bytes"} if is_file else {}
    return {names.get(k, k): sized(v) for k, v in value.items()}


def types(value: Any) -> Any:
    """Names and types of a JSON object."""
    if isinstance(value, dict):
        return {k: types(v) for k, v in value.items()}
    return type(value).__name__


def groups(exchanges: list[Exchange]) -> Iterator[str]:
    """The groups' names."""
    yield from sorted({e.group for e in exchanges})
