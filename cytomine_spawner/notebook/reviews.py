"""Reviewing an image: accepting annotations, and taking the acceptance back.

Cytomine keeps an accepted annotation as a copy, with terms of its own and the reviewer's name; the annotation itself
stays as it is, and a copy stays where its annotation is deleted. Only who started the review of the image may accept
and reject there. There is no other judgement: what was rejected and what nobody looked at are the same.
"""

from __future__ import annotations

from typing import Any

from cytomine.models import ImageInstance

from .errors import CytomineError
from .images import image_id, user_id
from .transport import RequestFailed, call, get_json


class NotYourReview(CytomineError):
    """Someone else reviews the image, or its review was closed."""


def start_review(image: ImageInstance | int) -> None:
    """Become the reviewer of an image; nothing happens where you are that already.

    Raises:
        NotYourReview: someone else reviews the image, or its review was closed.
        RequestFailed: Cytomine refused.
    """
    number = image_id(image)
    now = get_json(f"imageinstance/{number}.json")
    name = now.get("instanceFilename") or f"image {number}"
    if now["reviewed"]:
        raise NotYourReview(
            f"The review of {name} was closed: its reviewer opens it again by stop_review(image, cancel=True)."
        )
    if not now["inReview"]:
        call("POST", f"imageinstance/{number}/review.json", whole=True)
    elif int(now["reviewUser"]) != user_id():
        # Upstream would let one take the review over without a word.
        raise NotYourReview(
            f"{name} is reviewed by user {now['reviewUser']}: only they can accept and reject there, or end the review."
        )


def stop_review(image: ImageInstance | int, *, cancel: bool = False) -> None:
    """End your review of an image. Accepted copies stay.

    Args:
        image: the image or its id.
        cancel: False closes the review, the image counts as reviewed. True gives the review up, so that anybody may
            start one; of a closed review it only opens it again.

    Raises:
        RequestFailed: the image is not in review, or in someone else's.
    """
    params = {"cancel": "true" if cancel else "false"}
    call("DELETE", f"imageinstance/{image_id(image)}/review.json", params=params)


def review(annotation: Any, accept: bool = True, terms: list[int] | None = None) -> None:
    """Accept an annotation, or take the acceptance back; twin of ``Annotation.review``.

    The review of the annotation's image is started where it is not. What is accepted, or not accepted, already is no
    failure.

    Args:
        annotation: an annotation or its id.
        accept: False takes the acceptance back, also where the annotation itself was deleted.
        terms: ids of the terms that the accepted copy gets; the annotation's own if not given.

    Raises:
        NotYourReview: someone else reviews the image, or its review was closed.
        RequestFailed: Cytomine refused.
    """
    number = int(getattr(annotation, "id", annotation))
    if not accept:
        try:
            call("DELETE", f"annotation/{number}/review.json")
        except RequestFailed as failure:
            if not (failure.status == 400 and "not accepted" in str(failure)):
                raise
        return
    one = get_json(f"annotation/{number}.json")
    start_review(int(one["image"]))
    keys = ("project", "image", "slice", "user", "location", "geometryCompression")
    # POST annotation/{id}/review.json waits for ever where there are terms: core asks another process to write what
    # its own open transaction has written. This call does the same without asking.
    copy = {key: one[key] for key in keys} | {"parentIdent": number, "reviewUser": user_id(), "status": 1}
    try:
        call(
            "POST",
            "reviewedannotation.json",
            body={**copy, "terms": one["term"] if terms is None else terms},
            whole=True,
        )
    except RequestFailed as failure:
        if "already" not in str(failure):
            raise
