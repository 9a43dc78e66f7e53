"""Taking secrets out of what is shown of logs and of containers' last words.

Pure functions. Two things go: the values that the caller knows, in the ways in which programs write them, and whatever
looks like a credential by its form or by the name before it. Each step looks at a character a bounded number of times,
however hostile a line is.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

REMOVED = "[removed: a secret]"
# What is shorter is a word as well as a value.
SHORTEST = 8
# A piece of a value, as long-winded consoles fold them, and one at the torn edge of a text.
PIECE = 12
EDGE = 6
# Keys of Secrets whose values are addresses and names; everybody who reads the log knows them.
PLAIN_KEYS = frozenset(
    ("user", "username", "host", "hostname", "port", "url", "database", "namespace", "ca.crt", "tls.crt")
)

Redact = Callable[[str], str]
_Span = tuple[int, int]

_COLOUR = r"(?:\x1b\[[0-9;]{0,16}m|\[/?[a-z ]{0,16}\]){0,2}"
_NAMED = re.compile(
    r"(?P<name>passw(?:or)?d|passphrase|secret|token|credentials?|authorization"
    r"|(?:api|private|secret|secondary|master|meilisearch|access|signing|encryption)[_-]?key)"
    rf"(?:\\{{0,3}}[\"'])?[ \t]{{0,8}}(?P<sign>=>|=|:|%3[AaDd]){_COLOUR}(?P<gap>[ \t]{{0,8}}){_COLOUR}",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"(?:Secret(?:Str|Bytes)\(|[\[({]{1,2})?(?:[bur]?(?P<quote>\\{0,3}[\"']))?", re.IGNORECASE
)
_SCHEME = re.compile(r"(?:bearer|basic|cytomine|token|digest|negotiate)(?:[ \t]{1,4}|%20|\+)", re.IGNORECASE)
_WORD = re.compile(r"[^\s\"'<>&,;)}\]\\|\x1b]+")
_ENDS = {'"': re.compile(r'\\.|["\n]'), "'": re.compile(r"\\.|['\n]")}
_NOTHING = frozenset(("none", "null", "nil", "true", "false", "undefined", "****", "**********"))
_LINE_START = 64
_LINE_END = re.compile(r"[ \t\r\"',]{0,8}(?:\n|\Z)")
_BEARER = re.compile(r"bearer(?:[ \t]{1,4}|%20|\+)(?P<value>[A-Za-z0-9._~+/=:-]{16,})", re.IGNORECASE)
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_.-]*")
# Neither part may hold a slash, so that each is looked at from one start alone.
_IN_ADDRESS = re.compile(r"://[^\s/:@\"'<>]*:(?P<value>[^\s/\"'<>]+)@")
_PEM = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----")
_PIECES = re.compile(rf"[A-Za-z0-9+/_-]{{{PIECE - 2},}}={{0,2}}")


class Redactor:
    """Takes secrets out of text.

    Args:
        values: values that must not be shown, beside all that looks like a credential. Those of fewer than
            :data:`SHORTEST` characters are left.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self.values = frozenset(v for v in values if len(v) >= SHORTEST)
        forms = {form for value in self.values for form in _forms(value) if len(form) >= SHORTEST}
        self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))
        self._all = "\n".join(self._forms)
        #: How far a value reaches at most.
        self.longest = len(self._forms[0]) if self._forms else 0

    def __call__(
        self, text: str, limit: int | None = None, *, torn_start: bool = False, torn_end: bool = False
    ) -> str:
        """The text without secrets.

        Args:
            text: one line or more.
            limit: how many characters of the text are wanted. What reaches over the limit goes as a whole, so give
                :attr:`longest` characters more than are wanted.
            torn_start: whether the text may begin within a value.
            torn_end: whether the text may end within a value.
        """
        limit = len(text) if limit is None else min(limit, len(text))
        shown: list[str] = []
        at = 0
        for start, end in _joined(
            [*self._values(text), *self._edges(text, torn_start, torn_end), *_looks(text)]
        ):
            if start >= limit:
                break
            shown += (text[at:start], REMOVED)
            at = end
        return "".join((*shown, text[at:limit]))

    def _values(self, text: str) -> Iterator[_Span]:
        for form in self._forms:
            at = text.find(form)
            while at >= 0:
                yield at, at + len(form)
                at = text.find(form, at + len(form))
        if self._forms:
            yield from (m.span() for m in _PIECES.finditer(text) if self._is_piece(m.group()))

    def _is_piece(self, word: str) -> bool:
        return len(word) >= PIECE and (word in self._all or word.rstrip("=") in self._all)

    def _edges(self, text: str, torn_start: bool, torn_end: bool) -> Iterator[_Span]:
        for form in self._forms:
            lengths = range(min(len(form) - 1, len(text)), EDGE - 1, -1)
            if torn_start and (found := next((n for n in lengths if text.startswith(form[-n:])), 0)):
                yield 0, found
            if torn_end and (found := next((n for n in lengths if text.endswith(form[:n])), 0)):
                yield len(text) - found, len(text)


#: Knows no values, only what credentials look like.
by_looks = Redactor()


def secret_values(data: Mapping[str, str] | None) -> Iterator[str]:
    """What must not be shown of a Secret's ``data``, whose values are in base64."""
    for key, encoded in (data or {}).items():
        if key in PLAIN_KEYS:
            continue
        raw = base64.b64decode(encoded)
        try:
            text = raw.decode().strip()
        except UnicodeDecodeError:
            yield from (encoded, raw.hex(), raw.decode(errors="replace"))
            continue
        yield text
        if "\n" in text:
            yield from (line.strip() for line in text.splitlines())


def _forms(value: str) -> Iterator[str]:
    """The ways in which programs write a value."""
    yield value
    yield value.rstrip("=")
    yield value.translate({ord("+"): "-", ord("/"): "_"}).rstrip("=")
    for quoted in (quote(value), quote(value, safe=""), quote_plus(value)):
        yield quoted
        yield re.sub(r"%[0-9A-F]{2}", lambda m: m.group().lower(), quoted)
    yield repr(value)[1:-1]
    yield html.escape(value)
    for escaped in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        yield escaped
        yield escaped.replace("/", "\\/")
        yield json.dumps(escaped)[1:-1]
    raw = value.encode(errors="replace")
    yield raw.hex()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(raw).decode()
        # Within a longer text that was encoded as a whole, as a name with a password is: what is the same whatever is
        # before and behind it.
        for before in range(3):
            whole = encode(bytes(before) + raw).decode()
            yield whole[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]


def _joined(spans: list[_Span]) -> Iterator[_Span]:
    start, end = 0, 0
    for next_start, next_end in sorted(spans):
        if next_start < end or (next_start == end > start):
            end = max(end, next_end)
            continue
        if end > start:
            yield start, end
        start, end = next_start, next_end
    if end > start:
        yield start, end


# -- what credentials look like ---------------------------------------------------------------------------


def _looks(text: str) -> Iterator[_Span]:
    yield from _named(text)
    yield from _tokens(text)
    yield from (m.span("value") for m in _IN_ADDRESS.finditer(text))
    for found in _BEARER.finditer(text):
        if any(c.isdigit() for c in found["value"]):
            yield found.span("value")
    until = 0
    for found in _PEM.finditer(text):
        if found.start() >= until:
            end = text.find("-----END", found.end())
            until = len(text) if end < 0 else end
            yield found.start(), until


def _named(text: str) -> Iterator[_Span]:
    until = 0
    for found in _NAMED.finditer(text):
        # Within a value that goes already, such as a JSON text in a JSON text, nothing is looked at again.
        if found.start() < until:
            continue
        span, sure = _value(text, found)
        if span and (sure or _credible(text, found, span)):
            until = span[1]
            yield span


def _value(text: str, found: re.Match[str]) -> tuple[_Span | None, bool]:
    """Where the value behind a name is, and whether it is one for sure."""
    opening = _OPENING.match(text, found.end())
    start = opening.end() if opening else found.end()
    scheme = _SCHEME.match(text, start)
    start = scheme.end() if scheme else start
    if any(text.startswith(REMOVED, at) for at in (found.end(), start)):
        return None, False
    mark = opening["quote"] if opening else None
    if mark:
        end = _closing(text, start, mark)
    else:
        word = _WORD.match(text, start)
        end = word.end() if word else start
    if end == start or text[start:end].lower() in _NOTHING:
        return None, False
    if found["gap"] and not mark and "=" in text[start:end].rstrip("="):
        return None, False  # the name had no value, and this is the next name
    sure = bool(mark or scheme) or found["sign"] != ":" or not found["gap"]
    return (start, end), sure


def _closing(text: str, start: int, mark: str) -> int:
    if len(mark) > 1:
        end = text.find(mark, start)
        return end if end >= 0 else len(text)
    for step in _ENDS[mark].finditer(text, start):
        if step.group() in (mark, "\n"):
            return step.start()
    return len(text)


def _credible(text: str, found: re.Match[str], span: _Span) -> bool:
    """Whether ``name: value`` is one, and not the end of a sentence such as "invalid token: signature expired"."""
    begins, (start, end) = found.start(), span
    before = text[max(0, begins - 1) : begins]
    if end - start >= SHORTEST and (before.isalnum() or before in ("_", "-")):
        return True
    if end - start >= EDGE and any(c.isdigit() for c in text[start:end]):
        return True
    # The whole line, as in YAML.
    lead = text[max(0, begins - _LINE_START) : begins].rpartition("\n")
    alone = begins <= _LINE_START or bool(lead[1])
    return alone and not lead[2].strip(" \t-*\"'") and _LINE_END.match(text, end) is not None


def _tokens(text: str) -> Iterator[_Span]:
    """JSON web tokens, also the beginnings of such."""
    for found in _TOKEN.finditer(text):
        run, at = found.group(), 0
        while at >= 0:
            dot = run.find(".", at)
            if dot - at >= 10 or (dot < 0 and len(run) - at >= 24):
                yield found.start() + at, found.end()
                break
            at = run.find("eyJ", at + 1) if dot >= 0 else -1
