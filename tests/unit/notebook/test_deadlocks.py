"""Several who change one project at the same time do not lose anything to Cytomine's deadlocks."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cytomine
import pytest
import shapely
from cytomine import models

from cytomine_spawner.notebook import safe
from cytomine_spawner.notebook.annotations import frame, read_annotations
from cytomine_spawner.notebook.provenance import run
from cytomine_spawner.notebook.transport import RequestFailed, call, guard
from cytomine_spawner.notebook.uploads import upload

from .conftest import Stack

SENTENCE = (
    r"took (DELETE|POST) .* back \(400\): others were changing the same project at that moment: try again\.$"
)


def squares(count: int) -> Any:
    return frame([{"geometry": shapely.box(x, 20, x + 5, 25), "term_name": "tumour"} for x in range(count)])


def drawn(image: Any) -> Any:
    term = safe.term_ids(int(image.project))["tumour"]
    return models.Annotation("POLYGON((5 5,9 5,9 9,5 5))", image.id, [term], image.project).save()


def asked(stack: Stack, method: str, path: str, how: str, times: int) -> list[str]:
    """Answer the first requests of that kind in that way; the requests of that kind."""
    seen: list[str] = []

    def lose(one: str, place: str) -> str:
        if one != method or path not in place:
            return ""
        seen.append(place)
        return how if len(seen) <= times else ""

    stack.way.lose = lose
    return seen


def test_annotations_that_ones_own_threads_delete_by_the_client_all_go(empty: Any) -> None:
    upload(squares(60), empty, progress=False)
    found = models.AnnotationCollection(image=empty.id).fetch()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda a: a.delete(), found)) == [True] * 60
    assert len(read_annotations(empty)) == 0


def test_terms_that_ones_own_threads_put_on_and_take_off_all_come_and_go(empty: Any) -> None:
    ids = upload(squares(20), empty, progress=False)
    stroma = safe.term_ids(int(empty.project))["stroma"]
    for change, count in ((safe.add_term, 2), (safe.remove_term, 1)):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(change, ids, [stroma] * 20))
        assert {len(t) for t in read_annotations(empty)["term"]} == {count}


def test_a_run_with_many_annotations_can_be_removed(
    stack: Stack, empty: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with run("many", project=empty.project) as this:
        this.upload(squares(30), empty, progress=False)
    gone = asked(stack, "DELETE", "/annotation/", "deadlock", 1)
    this.remove()
    assert len(gone) == 31
    assert len(read_annotations(empty)) == 0
    assert "30/30" in capsys.readouterr().err


def test_an_annotation_is_deleted_or_changed_although_others_change_the_project(
    stack: Stack, empty: Any
) -> None:
    made = drawn(empty)
    seen = asked(stack, "PUT", "/annotation/", "deadlock", 2)
    made.location = "POINT(3 4)"
    assert made.update().location == "POINT (3 4)"
    assert len(seen) == 3
    seen = asked(stack, "DELETE", "/annotation/", "deadlock", 2)
    safe.delete_annotation(made)
    assert len(seen) == 3
    assert len(read_annotations(empty)) == 0


def test_changes_of_others_that_do_not_end_are_one_sentence(stack: Stack, empty: Any) -> None:
    made = drawn(empty)
    guard(cytomine.Cytomine.get_instance(), retries=1)
    seen = asked(stack, "DELETE", "/annotation/", "deadlock", 1000)
    with pytest.raises(RequestFailed, match=SENTENCE) as told:
        safe.delete_annotation(made)
    assert (len(seen), told.value.status, told.value.uncertain) == (2, 400, False)


def test_what_may_be_stored_in_part_is_not_sent_again_unasked(stack: Stack, empty: Any) -> None:
    seen = asked(stack, "POST", "/annotation.json", "deadlock", 1)
    body = [{"location": "POINT(1 1)", "image": empty.id}]
    with pytest.raises(RequestFailed, match=SENTENCE) as told:
        call("POST", "annotation.json", body=body)
    assert (len(seen), told.value.uncertain, told.value.gave_way) == (1, True, True)
    seen = asked(stack, "POST", "/term/", "deadlock", 2)
    made = drawn(empty)
    safe.add_term(made, safe.term_ids(int(empty.project))["stroma"])
    assert len(seen) == 3
    assert len(models.Annotation().fetch(made.id).term) == 2


def test_a_streamed_answer_and_a_streamed_body_are_left_alone(stack: Stack, empty: Any) -> None:
    session = cytomine.Cytomine.get_instance()._session
    url = f"{stack.way.url}/api/annotation/1.json"
    for method, how in (("GET", {"stream": True}), ("PUT", {"data": io.BytesIO(b"x" * 100)})):
        seen = asked(stack, method, "/annotation/1.json", "deadlock", 1)
        with session.request(method, url, **how) as answer:
            assert answer.status_code == 400
            assert len(seen) == 1
            if how.get("stream"):
                assert answer.raw.tell() == 0
                assert b"deadlock detected" in b"".join(answer.iter_content(10))


@pytest.mark.parametrize("how", ["deadlock", "half a deadlock"])
@pytest.mark.parametrize("chunk", [1, 10])
def test_an_upload_that_others_hold_up_loses_and_doubles_nothing(
    stack: Stack, empty: Any, how: str, chunk: int
) -> None:
    data = squares(40)
    seen = asked(stack, "POST", "/annotation.json", how, 3)
    ids = upload(data, empty, chunk=chunk, workers=4, progress=False)
    assert len(seen) > 3
    found = read_annotations(empty).set_index("id")
    assert len(found) == len(set(ids)) == 40
    assert all(found.loc[i].geometry.equals(s) for i, s in zip(ids, data.geometry, strict=True))
