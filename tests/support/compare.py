"""Compares a recorded answer with a live one.

Ids differ from run to run: each recorded id is tied to the live one where it is first seen, and must fit from then on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import shapely
import shapely.wkt

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
    "<HOST>": r"https?://[\w.-]+:\d+",
    "<PIMS_ROOT>": r"/.+?",
    "<PIMS_TMP>": r"/.+?",
    "<DATE:iso-fraction>": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+",
    "<SESSION>": r"\w+",
    "<ETAG>": r"(W/)?\"[^\"]+\"",
    "<DATE:http>": r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT",
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
            of = space if key == "id" else SPACE_OF[key]
            if not self.ids.fits(of, recorded, live):
                self.differ(where, f"{recorded} (live before {self.ids.live(of, recorded)})", live)
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
        if recorded and isinstance(recorded[0], dict) and self._unordered(recorded[0]):
            recorded = sorted(recorded, key=lambda item: self.ids.live("core", item["id"]))
            live = sorted(live, key=lambda item: item["id"])
        for number, (old, new) in enumerate(zip(recorded, live, strict=True)):
            self.value(f"{where}[{number}]", old, new, key)

    def _unordered(self, item: dict[str, Any]) -> bool:
        """Whether upstream lists such things in an order that it does not fix: members' images moved in it."""
        return "container" in item or (
            "instanceFilename" in item
            and re.fullmatch(r"/api/project/\d+/imageinstance\.json", self.path) is not None
        )

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
        elif not re.fullmatch(pattern(recorded), live, re.DOTALL):
            self.differ(where, recorded, live)


def _order(item: Any) -> str:
    if isinstance(item, dict):
        data = item.get("data", item)
        return f"{data.get('name')}-{data.get('id'):09d}"
    return f"{item:09d}"


def pattern(recorded: str) -> str:
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
