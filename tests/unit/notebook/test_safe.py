"""The twins do what the client's own calls should do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cytomine import models

from cytomine_spawner.notebook import images, safe
from cytomine_spawner.notebook.errors import CytomineError
from cytomine_spawner.notebook.transport import RequestFailed, current

from .conftest import Stack


@pytest.fixture(scope="module")
def many(_stack: Stack) -> Any:
    """A project with 45 terms and an image with 41 annotations."""
    _stack.connect()
    project = _stack.project(tuple(f"t{n:02}" for n in range(45)))
    image = _stack.image(project)
    batch = models.AnnotationCollection()
    for n in range(41):
        batch.append(models.Annotation(f"POINT({n + 1} 5)", image.id, [], project.id))
    assert batch.save() is True
    return project, image


@pytest.mark.parametrize("size", [500, 41, 40, 15, 1])
def test_paging_loses_no_page_and_ends(stack: Stack, many: Any, size: int) -> None:
    found = safe.fetch_all(models.AnnotationCollection(project=many[0].id, showWKT=True), size)
    assert sorted(a.location for a in found) == sorted(f"POINT ({n + 1} 5)" for n in range(41))
    assert stack.way.count["GET"] <= 41 // size + 8


def test_lists_that_ignore_the_clients_paging_are_whole(stack: Stack, many: Any) -> None:
    project, _ = many
    names = [f"t{n:02}" for n in range(45)]
    assert sorted(t.name for t in safe.terms(project.id)) == names
    assert sorted(safe.term_ids(project)) == names
    found = safe.fetch_all(models.TermCollection({"ontology": project.ontology}), size=20)
    assert sorted(t.name for t in found) == names
    tags = {f"tag{n}" for n in range(25)}
    for name in tags:
        models.Tag(name).save()
    assert tags <= {t.name for t in safe.fetch_all(models.TagCollection(), size=20)}
    users = safe.fetch_all(models.UserCollection(), size=2)
    assert "alice" in {u.username for u in users}


def test_a_list_without_its_filter_names_the_filters(stack: Stack) -> None:
    with pytest.raises(ValueError, match="needs a filter, one of: project"):
        safe.fetch_all(models.ImageInstanceCollection())


def test_a_project_without_ontology_says_so(stack: Stack) -> None:
    bare = models.Project("bare").save()
    with pytest.raises(CytomineError, match="has no ontology"):
        safe.terms(bare.id)


def _draw(image: Any, terms: Any = (), wkt: str = "POLYGON((5 5,90 5,90 60,5 60,5 5))") -> Any:
    return models.Annotation(wkt, image.id, list(terms), image.project).save()


def test_terms_are_put_on_and_taken_off_as_often_as_one_likes(project: Any, image: Any) -> None:
    known = safe.term_ids(project)
    made = _draw(image)
    for _ in range(2):
        safe.add_term(made, known["stroma"])
    assert models.Annotation().fetch(made.id).term == [known["stroma"]]
    for _ in range(2):
        safe.remove_term(made.id, known["stroma"])
    assert models.Annotation().fetch(made.id).term == []
    with pytest.raises(RequestFailed, match=r"refused POST .* with 4.*99999999"):
        safe.add_term(made, 99999999)


def test_deleting_twice_and_over_a_cut_connection_is_no_failure(stack: Stack, empty: Any) -> None:
    made = _draw(empty)
    stack.way.lose_first(2, "DELETE", "/annotation/", "answer")
    safe.delete_annotation(made)
    assert stack.way.lost == 2
    safe.delete_annotation(made.id)
    assert len(models.AnnotationCollection(image=empty.id).fetch()) == 0


def test_tags_are_put_on_projects_images_and_annotations_once(project: Any, image: Any) -> None:
    made = _draw(image)
    for thing in (project, image, made):
        for _ in range(2):
            safe.tag(thing, "checked")
        assert safe.tags(thing) == ["checked"]
        safe.untag(thing, "checked")
        safe.untag(thing, "checked")
        assert safe.tags(thing) == []
    assert [t.name for t in safe.fetch_all(models.TagCollection())].count("checked") == 1


@pytest.mark.parametrize("how", ["", "request", "answer"])
def test_a_file_is_attached_once(stack: Stack, project: Any, how: str) -> None:
    name = f"result-{how or 'whole'}.txt"
    stack.way.lose_first(2 if how == "request" else int(bool(how)), "POST", "/attachedfile", how)
    made = safe.attach(project, name, "Umeå\n")
    assert made.filename == name
    assert safe.read_attached(made) == "Umeå\n".encode()
    assert [f.id for f in safe.attached(project) if f.filename == name] == [made.id]


def test_an_original_comes_whole_with_a_token_over_a_bad_connection(
    stack: Stack, slide: Any, tmp_path: Path
) -> None:
    stack.way.lose_first(2, "GET", "/download", "half")
    tokens: list[str] = []

    def token() -> str:
        tokens.append(stack.issuer.token("alice", "ADMIN"))
        return tokens[-1]

    got = safe.download(slide, tmp_path / "slide.tif", token)
    assert stack.way.lost == 2
    assert len(tokens) == 3
    original = stack.files["slide.tif"].read_bytes()
    # Cytomine stores the end of the upload's form with the file.
    assert got.read_bytes()[: len(original)] == original
    assert [p.name for p in tmp_path.iterdir()] == ["slide.tif"]


def test_a_refused_original_leaves_nothing_behind(stack: Stack, slide: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestFailed, match="refused GET imageinstance"):
        safe.download(slide, tmp_path / "slide.tif", "no token")
    assert list(tmp_path.iterdir()) == []


def test_what_lies_within_an_annotation_is_found(empty: Any) -> None:
    known = safe.term_ids(int(empty.project))
    outer = _draw(empty)
    inner = _draw(empty, [known["stroma"]], "POINT(10 10)")
    _draw(empty, [known["stroma"]], "POINT(300 300)")
    for place in ({"annotation": outer}, {"geometry": "POLYGON((0 0,20 0,20 20,0 20,0 0))"}):
        found = safe.included(empty, images.user_id(), **place)
        assert [a["id"] for a in found] == [inner.id]
    with pytest.raises(ValueError, match="Either"):
        safe.included(empty, 1)


def test_a_wrong_key_is_told_as_one(stack: Stack, project: Any) -> None:
    current()._private_key = "wrong"
    with pytest.raises(RequestFailed, match=r"401.*does not accept the keys: connect\(\) again"):
        safe.terms(project)
