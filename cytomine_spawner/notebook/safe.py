"""Twins of the official client's calls that are broken, hang or lose something against a current Cytomine.

Each names the call that it replaces. All of them raise `RequestFailed` with one sentence where the client
gives ``False``.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import requests
from cytomine.models import (
    AttachedFile,
    AttachedFileCollection,
    Collection,
    Project,
    Term,
    TermCollection,
    UserCollection,
)
from tqdm.auto import tqdm

from .errors import CytomineError
from .images import image_id
from .transport import RETRIES, RequestFailed, call, current, get_bytes, get_json

Token = str | Callable[[], str]


def pages(uri: str, params: dict[str, Any] | None = None, size: int = 500) -> Iterator[dict[str, Any]]:
    """The entries of a list, page by page, each once.

    Cytomine has two ways of paging: most lists count ``max`` and ``offset``, those of ontologies, terms, tags,
    storages and uploaded files only ``page`` and ``size``. Both are sent.

    Args:
        uri: the list below ``/api/``.
        params: further parameters.
        size: entries per request.
    """
    known: set[Any] = set()
    page = 0
    while True:
        place = {"max": size, "offset": len(known), "page": page, "size": size}
        answer = get_json(uri, {**(params or {}), **place})
        items = answer["collection"]
        new = [item for item in items if item.get("id") not in known]
        known.update(item.get("id") for item in new)
        yield from new
        page += 1
        # An offset beyond the end, or one that is ignored, brings nothing new: it cannot go round for ever.
        if not new or len(known) >= int(answer.get("size") or 0):
            return


def fetch_all(collection: Collection, size: int = 500) -> Collection:
    """Fill a collection with everything that belongs to it; twin of ``Collection.fetch(max=n)``.

    The client's own paging drops the last page that is not full, and never ends where everything fits on one page.

    Args:
        collection: for instance ``ImageInstanceCollection({"project": project.id})``.
        size: entries per request.

    Returns:
        The same collection, filled.

    Raises:
        RequestFailed: Cytomine refused.
        ValueError: the collection needs a filter.
    """
    if not collection.filters and None not in collection._allowed_filters:
        wanted = ", ".join(str(name) for name in collection._allowed_filters)
        raise ValueError(f"This list needs a filter, one of: {wanted}.")
    params = {k: v for k, v in collection.parameters.items() if k not in ("max", "offset")}
    if isinstance(collection, UserCollection):
        # Pages of users come with fewer entries than they should: all at once.
        items = get_json(collection.uri(), {**params, "max": 0, "offset": 0})["collection"]
    else:
        items = list(pages(collection.uri(), params, size))
    collection.populate({"collection": items, "size": len(items)})
    return collection


def terms(project: Project | int) -> list[Term]:
    """The terms of a project's ontology; twin of ``TermCollection().fetch_with_filter("project", …)``.

    The list of a project is a server error above 20 terms, so the ontology's is asked for.

    Raises:
        CytomineError: the project has no ontology.
    """
    known = project if isinstance(project, Project) and getattr(project, "ontology", None) else None
    if known is None:
        number = int(project.id if isinstance(project, Project) else project)
        known = Project().populate(get_json(f"project/{number}.json"))
    ontology = getattr(known, "ontology", None)
    if not ontology:
        raise CytomineError("The project has no ontology: give it one in Cytomine, under Configuration.")
    return list(fetch_all(TermCollection({"ontology": ontology})))


def term_ids(project: Project | int) -> dict[str, int]:
    """The ids of a project's terms by name; of two terms with one name the older counts."""
    found: dict[str, int] = {}
    for term in sorted(terms(project), key=lambda t: t.id):
        found.setdefault(term.name, int(term.id))
    return found


def add_term(annotation: Any, term: Any) -> None:
    """Put a term on an annotation; one that it has already is no failure."""
    a, t = _id(annotation), _id(term)
    try:
        call("POST", f"annotation/{a}/term/{t}.json", body={"userannotation": a, "term": t}, whole=True)
    except RequestFailed as failure:
        if not (failure.status == 400 and "already exist" in str(failure)):
            raise


def remove_term(annotation: Any, term: Any) -> None:
    """Take one's term off an annotation; twin of ``AnnotationTerm.delete``. One that is not there is no failure."""
    try:
        call("DELETE", f"annotation/{_id(annotation)}/term/{_id(term)}.json")
    except RequestFailed as failure:
        if failure.status != 404:
            raise


def delete_annotation(annotation: Any) -> None:
    """Delete an annotation; one that is not there is no failure. Repeated where the answer was cut off."""
    for attempt in range(RETRIES):
        try:
            call("DELETE", f"annotation/{_id(annotation)}.json")
        except RequestFailed as failure:  # noqa: PERF203 - the loop is the retry
            if failure.status == 404:
                return
            if attempt == RETRIES - 1 or not failure.uncertain:
                raise
        else:
            return


def _domain(thing: Any) -> tuple[str, int]:
    kind = getattr(thing, "class_", None)
    if kind is None or thing.id is None:
        raise ValueError("A project, image or annotation that was fetched from Cytomine is needed.")
    return str(kind), int(thing.id)


def tag_id(name: str) -> int:
    """The id of a tag, made if it is not there. Cytomine itself would take the same name twice."""
    found = [t["id"] for t in pages("tag.json") if t["name"] == name]
    return int(min(found) if found else call("POST", "tag.json", body={"name": name}).json()["data"]["id"])


def tag(thing: Any, name: str, known: int | None = None) -> None:
    """Put a tag on a project, image or annotation; twin of ``TagDomainAssociation.save``.

    Args:
        thing: what was fetched from Cytomine.
        name: the tag.
        known: the tag's id (`tag_id`), if the caller has it.
    """
    kind, ident = _domain(thing)
    number = tag_id(name) if known is None else known
    uri = f"domain/{kind}/{ident}/tag_domain_association.json"
    if any(a["tagId"] == number for a in pages(uri)):
        return
    call("POST", uri, body={"tagId": number, "domainClassName": kind, "domainId": ident}, whole=True)


def untag(thing: Any, name: str) -> None:
    """Take a tag off again; one that is not there is no failure."""
    kind, ident = _domain(thing)
    numbers = {t["id"] for t in pages("tag.json") if t["name"] == name}
    for association in list(pages(f"domain/{kind}/{ident}/tag_domain_association.json")):
        if association["tagId"] in numbers:
            call("DELETE", f"tag_domain_association/{association['id']}.json")


def tags(thing: Any) -> list[str]:
    """The names of the tags on a project, image or annotation."""
    kind, ident = _domain(thing)
    names = {t["id"]: t["name"] for t in pages("tag.json")}
    found = pages(f"domain/{kind}/{ident}/tag_domain_association.json")
    return sorted(str(names.get(a["tagId"], a["tagId"])) for a in found)


def attach(thing: Any, name: str, content: bytes | str | Path) -> AttachedFile:
    """Store a file with a project, image or annotation.

    Where the answer is cut off, what is attached is looked up before the file is sent again.

    Args:
        thing: what was fetched from Cytomine.
        name: the file's name there.
        content: bytes, text, or the path of a file.

    Returns:
        The attached file, with its id.
    """
    before = {f.id for f in attached(thing)}
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(content, Path):
            path = content
        else:
            path = Path(folder) / "content"
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        for _ in range(RETRIES):
            try:
                made = current().upload_file(
                    AttachedFile(thing, filename=name),
                    str(path),
                    {"domainClassName": thing.class_, "domainIdent": thing.id, "filename": name},
                    uri="attachedfile.json",
                )
            except requests.RequestException:
                made = next((f for f in attached(thing) if f.filename == name and f.id not in before), None)
                if made is None:
                    continue
            if not made:
                raise RequestFailed(
                    f"Cytomine refused to attach {name}: see whether you may change the project."
                )
            return cast(AttachedFile, made)
    raise RequestFailed(f"{name} could not be attached: see whether the stack is running.", uncertain=True)


def attached(thing: Any) -> list[AttachedFile]:
    """The files attached to a project, image or annotation."""
    return list(fetch_all(AttachedFileCollection(thing)))


class TooLarge(CytomineError):
    """An attached file is larger than what was asked for."""


def read_attached(file: AttachedFile | int, limit: int | None = None) -> bytes:
    """The content of an attached file.

    Args:
        file: the file or its id.
        limit: bytes that it may have; others may attach what fills the memory.

    Raises:
        TooLarge: it has more.
        RequestFailed: Cytomine refused, or the file did not come whole after several attempts.
    """
    uri = f"attachedfile/{_id(file)}/download"
    if limit is None:
        return get_bytes(uri)
    for _ in range(RETRIES):
        with contextlib.suppress(requests.RequestException), call("GET", uri, stream=True) as answer:
            content = bytearray()
            for chunk in answer.iter_content(1 << 20):
                content += chunk
                if len(content) > limit:
                    raise TooLarge(f"it has more than {limit:,} bytes")
            return bytes(content)
    raise RequestFailed(f"The attached file {_id(file)} was cut off {RETRIES} times: try again later.")


def download(image: Any, path: str | Path, token: Token | None = None, *, progress: bool = True) -> Path:
    """Get the original file of an image; twin of ``ImageInstance.download``.

    Cytomine gives originals only to whoever shows a login token (a JWT) in the address; API keys do not do.

    Args:
        image: the image or its id.
        path: where to write; an existing file is replaced when the new one is whole.
        token: the token, or a function that gives a fresh one; if not given, the hub's service is asked for one of the
            stack that is connected.
        progress: show a progress bar (bytes).

    Returns:
        The path.

    Raises:
        RequestFailed: Cytomine refused, or the file did not come whole after several attempts.
    """
    if token is None:
        from .connection import token as from_service

        # Of no other stack: a token of one's own would be shown to whose stack this is.
        token = functools.partial(from_service, getattr(current(), "stack", "") or None)
    place = Path(path)
    partial = place.with_name(place.name + ".part")
    uri = f"imageinstance/{image_id(image)}/download"
    for attempt in range(RETRIES):
        bearer = token() if callable(token) else token
        params = {"authorization": bearer if bearer.startswith("Bearer ") else f"Bearer {bearer}"}
        try:
            with call("GET", uri, params=params, stream=True) as answer:
                _store(answer, partial, place.name, progress)
        except requests.RequestException as error:
            if attempt == RETRIES - 1:
                partial.unlink(missing_ok=True)
                raise RequestFailed(
                    f"The download of image {image_id(image)} was cut off {RETRIES} times: try again later."
                ) from error
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        else:
            break
    return partial.replace(place)


def _store(answer: requests.Response, partial: Path, name: str, progress: bool) -> None:
    total = int(answer.headers.get("Content-Length") or 0) or None
    with (
        partial.open("wb") as file,
        tqdm(total=total, unit="B", unit_scale=True, desc=name, disable=not progress) as bar,
    ):
        for chunk in answer.iter_content(1 << 20):
            file.write(chunk)
            bar.update(len(chunk))


def included(
    image: Any, user: Any, *, geometry: str = "", annotation: Any = None, terms: list[int] | None = None
) -> list[dict[str, Any]]:
    """Annotations that touch a geometry or another annotation; twin of ``AnnotationCollection(included=True)``.

    Cytomine wants the user, and finds only annotations that carry a term.

    Args:
        image: the image or its id.
        user: the user, or the id, whose annotations are searched.
        geometry: a WKT in Cytomine's coordinates (px, origin bottom left).
        annotation: an annotation, or its id, in the place of a geometry.
        terms: only annotations with one of these terms' ids.
    """
    if bool(geometry) == (annotation is not None):
        raise ValueError("Either a geometry or an annotation is needed.")
    params: dict[str, Any] = {"user": _id(user), "showWKT": "true", "showTerm": "true", "showMeta": "true"}
    if geometry:
        params["geometry"] = geometry
    else:
        params["annotation"] = _id(annotation)
    if terms:
        params["terms"] = ",".join(map(str, terms))
    found = get_json(f"imageinstance/{image_id(image)}/annotation/included.json", params)
    items: list[dict[str, Any]] = found["collection"]
    return items


def _id(thing: Any) -> int:
    return int(getattr(thing, "id", thing))
