"""Exchanges recorded from a real Cytomine, put to a running stand-in and compared with its answers."""

from __future__ import annotations

import io
import json
import re
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from pathlib import Path
from typing import Any

import requests
from PIL import Image

from dev.standin.signing import signature
from tests.support.compare import SPACE_OF, Comparison, Ids, pattern, sized, types

FOLDER = Path(__file__).resolve().parents[1] / "unit" / "standin_recordings"
UNKNOWN = 99999999
PATHS = {
    "ontology": "ontology",
    "ontology_light": "ontology",
    "term": "term",
    "term1": "term",
    "term2": "term",
}
PATHS |= {"user": "user", "storage": "storage", "uploadedfile": "file", "tag": "tag"}
PATHS["tag_domain_association"] = "association"
# Sent again with what was changed: a real Cytomine reads them, and stores nothing for what is no date.
DATES = {"<DATE:epoch-ms-string>": "1795505374816", "<DATE:iso>": "2026-11-24T07:29:17"}


@dataclass(frozen=True)
class Exchange:
    """A recorded exchange; its fields are explained beside the data."""

    group: str
    data: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.data["name"])


@cache
def load() -> list[Exchange]:
    """All exchanges in the order in which they were recorded; nobody changes them."""
    found = [
        Exchange(path.stem, json.loads(line))
        for path in FOLDER.glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    return sorted(found, key=lambda e: e.data["n"])


def _session() -> requests.Session:
    session = requests.Session()
    # Looking for proxies in the environment takes longer than all else that it does.
    session.trust_env = False
    return session


@dataclass
class Player:
    """Puts exchanges to a stack. ``people`` are the recorded roles, ``keys`` is filled by the key calls themselves."""

    url: str
    services: dict[str, str]
    issuer: Any
    files: dict[str, Path]
    ids: Ids = field(default_factory=Ids)
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    session: requests.Session = field(default_factory=_session)
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
        if isinstance(value, str) and value in DATES:
            return DATES[value]
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
            if method == "OPTIONS":
                # Without it a browser's question is none: core takes it for a request by nobody.
                prepared.headers["Access-Control-Request-Method"] = "GET"
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
                fits = re.fullmatch(pattern(" ".join(parts[0])), " ".join(parts[1])) is not None
            elif name == "vary":  # sent several times, of which the recording has the last
                fits = value in (live or "").split(", ")
            else:
                fits = live is not None and re.fullmatch(pattern(value), live) is not None
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
