"""The cluster tests' looks at objects mean what the same words mean to kubectl."""

from __future__ import annotations

import httpx
import pytest

from dev.console import Problem
from tests.support.looks import LookingKube, parse

PODS = "/api/v1/namespaces/ns/pods"


@pytest.mark.parametrize(
    ("words", "path", "query"),
    [
        ("-n ns pods", PODS, {}),
        ("-n ns pod one", f"{PODS}/one", {}),
        ("pods -l a=b,c=d -n ns", PODS, {"labelSelector": "a=b,c=d"}),
        ("-n ns events --field-selector reason=Failed", "/api/v1/namespaces/ns/events", {"fieldSelector": "reason=Failed"}),
        ("-n ns cytominestack cm-ada", "/apis/cytomine-spawner.org/v1alpha1/namespaces/ns/cytominestacks/cm-ada", {}),
    ],
)  # fmt: skip
def test_a_look_goes_where_kubectl_would(words: str, path: str, query: dict[str, str]) -> None:
    look = parse(tuple(words.split()))
    assert look
    assert (look.path(*look.plurals), look.query) == (path, query)


@pytest.mark.parametrize(
    "words",
    ["nodes", "-n ns persistentvolumes", "-n ns pods -A", "pods", "-n ns pods,jobs one", "-n ns pods a b"],
)
def test_what_is_not_understood_is_left_to_kubectl(words: str) -> None:
    assert parse(tuple(words.split())) is None


def answering(status: int, body: object = None) -> LookingKube:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, json=body))
    return LookingKube("none", "/none", "/none", httpx.Client(transport=transport, base_url="http://x"))  # type: ignore[arg-type]


def test_objects_of_several_kinds_say_which_they_are() -> None:
    kube = answering(200, {"kind": "PodList", "items": [{"metadata": {"name": "a"}}]})
    found = kube.get("-n", "ns", "pods,secrets")
    assert found
    assert [(o["kind"], o["metadata"]["name"]) for o in found["items"]] == [("Pod", "a"), ("Pod", "a")]


def test_an_object_that_is_not_there_is_none_and_an_unknown_kind_is_a_failure() -> None:
    assert answering(404).get("-n", "ns", "pod", "gone") is None
    with pytest.raises(Problem, match="knows no pods"):
        answering(404).get("-n", "ns", "pods")
    with pytest.raises(Problem, match="looking at"):
        answering(403, {"message": "forbidden"}).get("-n", "ns", "pods")
