"""What the library does when a part of Cytomine is slow, is killed, or is not there."""

from __future__ import annotations

from typing import Any

import pytest
import shapely

from cytomine_spawner.notebook.annotations import frame, read_annotations
from cytomine_spawner.notebook.images import get_bytes
from cytomine_spawner.notebook.regions import region
from cytomine_spawner.notebook.transport import RequestFailed, call
from cytomine_spawner.notebook.uploads import UploadIncomplete, upload

from .conftest import Stack


def squares(count: int) -> Any:
    return frame([{"geometry": shapely.box(x, 20, x + 5, 25), "term_name": "tumour"} for x in range(count)])


@pytest.mark.parametrize("kind", ["killed", "lost", "half"])
def test_a_picture_comes_although_the_image_servers_worker_was_killed_in_its_midst(
    stack: Stack, image: Any, kind: str
) -> None:
    with stack.local.failing("pims", kind, path="/ims/image/", times=2):
        assert region(image, 0, 0, 64, 64).shape == (64, 64, 3)
        assert stack.local.faults("pims") == []


def test_a_picture_that_ends_each_worker_is_not_asked_for_without_end(stack: Stack, image: Any) -> None:
    stack.way.count.clear()
    with stack.local.failing("pims", "killed", path="/ims/image/", times=5):
        with pytest.raises(RequestFailed, match=r"with 500; see the log of the stack's core on its page\.$"):
            get_bytes(f"imageinstance/{image.id}/window-0-0-32-32.png", {})
        assert stack.way.count["GET"] == 3


def test_what_is_no_picture_is_asked_for_once_where_core_fails(stack: Stack, image: Any) -> None:
    with stack.local.failing("core", "status", path="/api/imageinstance/", times=2):
        with pytest.raises(RequestFailed, match="with 500"):
            call("GET", f"imageinstance/{image.id}.json")
        assert stack.local.faults("core") == ["status"]


def test_annotations_without_the_similarity_search_are_refused_in_a_sentence_and_come_when_it_is_back(
    stack: Stack, empty: Any
) -> None:
    with (
        stack.local.failing("cbir", "killed", path="/cbir/images", times=0),
        pytest.raises(UploadIncomplete, match=r"with 500; see the log of the stack's core on its page"),
    ):
        upload(squares(3), empty, progress=False)
    assert len(read_annotations(empty)) == 0
    assert len(upload(squares(3), empty, progress=False)) == 3
    assert len(read_annotations(empty)) == 3


def test_annotations_and_pictures_are_read_without_the_similarity_search(stack: Stack, empty: Any) -> None:
    upload(squares(2), empty, progress=False)
    with stack.local.failing("cbir", "killed", times=0):
        assert len(read_annotations(empty)) == 2
        assert region(empty, 0, 0, 32, 32).shape == (32, 32, 3)
