"""Reviewing follows Cytomine's rules: one reviewer an image, an accepted copy, and nothing that hangs."""

from __future__ import annotations

from typing import Any

import pytest
from cytomine import models

from cytomine_spawner.notebook import safe
from cytomine_spawner.notebook.annotations import read_annotations
from cytomine_spawner.notebook.reviews import NotYourReview, review, start_review, stop_review
from cytomine_spawner.notebook.transport import RequestFailed, call, get_json

from .conftest import Stack

SQUARE = "POLYGON ((10 10, 60 10, 60 40, 10 40, 10 10))"


def _draw(image: Any, *terms: int) -> int:
    return int(models.Annotation(SQUARE, image.id, list(terms), image.project).save().id)


def _copies(image: Any) -> list[dict[str, Any]]:
    params = {"image": image.id, "reviewed": "true", "showBasic": "true", "showMeta": "true"}
    found: list[dict[str, Any]] = get_json(
        "annotation.json", params | {"showWKT": "true", "showTerm": "true"}
    )["collection"]
    return found


def test_an_annotation_is_accepted_and_the_acceptance_taken_back(stack: Stack, empty: Any) -> None:
    known = safe.term_ids(int(empty.project))
    made = _draw(empty, known["tumour"])
    review(made)
    (copy,) = _copies(empty)
    me = get_json("user/current.json")["id"]
    assert (copy["location"], copy["term"], copy["parentIdent"]) == (SQUARE, [known["tumour"]], made)
    assert (copy["user"], copy["reviewUser"]) == (me, me)
    assert list(read_annotations(empty)["reviewed"]) == [True]
    assert get_json(f"imageinstance/{empty.id}.json")["inReview"] is True
    review(made, accept=False)
    assert _copies(empty) == []
    assert list(read_annotations(empty)["id"]) == [made]
    assert list(read_annotations(empty)["reviewed"]) == [False]


def test_accepting_twice_and_rejecting_twice_is_no_failure(stack: Stack, empty: Any) -> None:
    made = _draw(empty)
    for _ in range(2):
        review(made)
    assert len(_copies(empty)) == 1
    for _ in range(2):
        review(made, accept=False)
    assert _copies(empty) == []


def test_the_accepted_copy_may_get_other_terms(stack: Stack, empty: Any) -> None:
    known = safe.term_ids(int(empty.project))
    made = _draw(empty, known["tumour"])
    review(made, terms=[known["stroma"]])
    assert [c["term"] for c in _copies(empty)] == [[known["stroma"]]]
    assert models.Annotation().fetch(made).term == [known["tumour"]]
    with pytest.raises(RequestFailed, match="not in ontology"):
        review(_draw(empty), terms=[99999999])


def test_a_copy_outlives_its_annotation_and_can_still_be_removed(stack: Stack, empty: Any) -> None:
    made = _draw(empty)
    review(made)
    safe.delete_annotation(made)
    assert [c["parentIdent"] for c in _copies(empty)] == [made]
    review(made, accept=False)
    assert _copies(empty) == []


def test_someone_elses_review_is_neither_used_nor_taken_over(stack: Stack, empty: Any) -> None:
    made = _draw(empty)
    review(made)
    alice = get_json("user/current.json")["id"]
    carla = stack.connect("carla", "ADMIN").current_user.id
    other = _draw(empty)
    with pytest.raises(NotYourReview, match=rf"corners.png is reviewed by user {alice}"):
        review(other)
    with pytest.raises(NotYourReview):
        start_review(empty)
    with pytest.raises(RequestFailed, match="must be the image reviewer to reject"):
        review(made, accept=False)
    with pytest.raises(RequestFailed, match="stop by alice"):
        stop_review(empty)
    stack.connect()
    stop_review(empty, cancel=True)
    stack.connect("carla", "ADMIN")
    review(other)
    assert {c["parentIdent"]: c["reviewUser"] for c in _copies(empty)} == {made: alice, other: carla}


def test_a_closed_review_says_how_it_is_opened_again(stack: Stack, empty: Any) -> None:
    made = _draw(empty)
    start_review(empty)
    start_review(empty)
    stop_review(empty)
    image = get_json(f"imageinstance/{empty.id}.json")
    assert (image["reviewed"], image["inReview"]) == (True, False)
    with pytest.raises(NotYourReview, match=r"was closed: .*cancel=True"):
        review(made)
    stop_review(empty, cancel=True)
    review(made)
    assert len(_copies(empty)) == 1
    with pytest.raises(RequestFailed, match="not in review mode"):
        stop_review(stack.image(stack.project()))


def test_the_stand_in_refuses_what_upstream_refuses_or_never_answers(stack: Stack, empty: Any) -> None:
    known = safe.term_ids(int(empty.project))
    bare, marked = _draw(empty), _draw(empty, known["tumour"])

    def refusal(method: str, uri: str, body: Any = None) -> tuple[int | None, str]:
        with pytest.raises(RequestFailed) as caught:
            call(method, uri, body=body)
        return caught.value.status, str(caught.value)

    status, text = refusal("POST", f"annotation/{bare}/review.json", {})
    assert (status, "enable image review mode" in text) == (400, True)
    start_review(empty)
    call("POST", f"annotation/{bare}/review.json", body={"id": bare, "terms": []})
    status, text = refusal("POST", f"annotation/{bare}/review.json", {})
    assert (status, "already accepted" in text) == (400, True)
    # With a term upstream waits for itself for ever.
    assert refusal("POST", f"annotation/{marked}/review.json", {"terms": []})[0] == 500
    status, text = refusal("DELETE", f"annotation/{marked}/review.json")
    assert (status, "is not accepted, you cannot reject it" in text) == (400, True)
    assert refusal("POST", "reviewedannotation.json", {"project": empty.project})[0] == 400
