"""What the functions of this package take for an image, and small pictures of it."""

from __future__ import annotations

import functools
import io
import os
from typing import Any, TypeAlias, cast, overload

import numpy as np
from cytomine import Cytomine
from cytomine.models import ImageInstance
from PIL import Image as Pillow

from .errors import CytomineError
from .slides import Pixels as Pixels
from .slides import Slide, open_slide
from .transport import RequestFailed, current, get_bytes, get_json

# What functions that read pixels take: an image of Cytomine's or its id; a slide that is a file, its path or its URL.
AnyImage: TypeAlias = "ImageInstance | int | Slide | str | os.PathLike[str]"

# A slide is larger than what Pillow takes for an attack; its pieces come one by one.
Pillow.MAX_IMAGE_PIXELS = None
IMAGE_CLASS = "be.cytomine.domain.image.ImageInstance"
# What is compressed with losses nearly always, and never; of other files Cytomine names the compression.
LOSSY_FORMATS, EXACT_FORMATS = ("JPEG", "WSIDICOM"), ("BMP", "PNG")
LOSSY = ("JPEG", "OJPEG", "APERIO_JP2000_YCBC", "APERIO_JP2000_RGB")


class NotAPicture(CytomineError):
    """Cytomine sent something that is no picture."""


@overload
def image_of(image: ImageInstance | int) -> ImageInstance: ...


@overload
def image_of(image: Slide | str | os.PathLike[str]) -> Slide: ...


@overload
def image_of(image: AnyImage) -> ImageInstance | Slide: ...


def image_of(image: AnyImage) -> ImageInstance | Slide:
    """The image itself, fetched if an id is given, or opened if it is a file.

    Raises:
        CytomineError: there is no such image, or one may not see it.
        NotASlide: the file is none.
    """
    if isinstance(image, Slide):
        return image
    if isinstance(image, (str, os.PathLike)):
        return open_slide(image)
    if isinstance(image, ImageInstance):
        if image.width is None:
            return image_of(int(image.id))
        return image
    return cast(ImageInstance, ImageInstance().populate(get_json(f"imageinstance/{int(image)}.json")))


def image_id(image: ImageInstance | int) -> int:
    """The id of an image."""
    return int(image.id if isinstance(image, ImageInstance) else image)


def micron(image: ImageInstance | Slide) -> float | None:
    """Microns per pixel of the full-size image; None where the scanner did not say."""
    size = getattr(image, "physicalSizeX", None)
    return float(size) if size else None


def slices(image: ImageInstance | int) -> list[dict[str, Any]]:
    """The planes of an image: one for an ordinary slide, one per channel, focus or time for others.

    Returns:
        Dictionaries with ``id`` (to be given as ``plane`` to other functions), ``channel``, ``zStack``, ``time`` and
        ``channelName``, ordered by time, focus and channel.
    """
    planes = get_json(f"imageinstance/{image_id(image)}/sliceinstance.json", {"max": 0, "offset": 0})[
        "collection"
    ]
    return sorted(planes, key=lambda p: (p["time"] or 0, p["zStack"] or 0, p["channel"] or 0, p["id"]))


def reference(image: ImageInstance | int) -> int:
    """The id of the plane that stands for the image: annotations without a plane are put on it."""
    return int(get_json(f"imageinstance/{image_id(image)}/sliceinstance/reference.json")["id"])


def lossy(image: ImageInstance, client: Cytomine | None = None) -> bool:
    """Whether the image's own file keeps its colours with losses, as nearly all slide scanners write them.

    False for anything but three colours of 8 bits in one plane, and where Cytomine does not say how the file is
    compressed. It is asked once for each image.
    """
    kind = [getattr(image, n, None) for n in ("bitPerSample", "samplePerPixel", "channels")]
    stored_as = getattr(image, "contentType", None)
    if kind != [8, 3, 1] or stored_as in EXACT_FORMATS:
        return False
    if stored_as in LOSSY_FORMATS:
        return True
    try:
        return _compression(current(client), image_id(image)) in LOSSY
    except RequestFailed:
        return False


@functools.lru_cache(maxsize=1024)
def _compression(client: Cytomine, image: int) -> str:
    tags = get_json(f"imageinstance/{image}/metadata.json", client=client)["collection"]
    return next((str(t["value"]) for t in tags if t.get("key") == "Compression"), "")


def decode(content: bytes, what: str) -> Pixels:
    """The pixels of a PNG, JPEG or WebP: uint8, shape (height, width, 3)."""
    try:
        with Pillow.open(io.BytesIO(content)) as picture:
            # Converting what is RGB already would copy it.
            return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise NotAPicture(f"{what} came as no picture ({len(content)} bytes): try again.") from error


def thumb(image: AnyImage, max_size: int = 512, *, plane: int | None = None) -> Pixels:
    """The whole image, small.

    Takes the plane's thumb: the image's own (``ImageInstance.dump``) is refused to whoever comes with API keys. It is made
    from the slide's pixels, and not from the thumbnail that a scanner put into the file.

    Args:
        image: the image or its id, or a slide that is a file.
        max_size: length of the longer side in pixels.
        plane: the id of a plane (see `slices`); the reference plane if not given.

    Returns:
        uint8, shape (height, width, 3), origin top left.

    Raises:
        RequestFailed: Cytomine refused.
    """
    if isinstance(image, (Slide, str, os.PathLike)):
        return cast(Slide, image_of(image)).thumb(int(max_size))
    wanted = plane if plane is not None else reference(image)
    content = get_bytes(f"sliceinstance/{wanted}/thumb.png", {"maxSize": int(max_size), "bits": 8})
    return decode(content, f"The thumb of image {image_id(image)}")


def preview(image: AnyImage, max_size: int = 1024) -> Pixels:
    """As `thumb`, from the address of the preview: one request, always the reference plane."""
    if isinstance(image, (Slide, str, os.PathLike)):
        return cast(Slide, image_of(image)).thumb(int(max_size))
    params = {"maxSize": int(max_size), "bits": 8}
    content = get_bytes(f"imageinstance/{image_id(image)}/preview.png", params)
    return decode(content, f"The preview of image {image_id(image)}")


def user_id() -> int:
    """The id of the connected user."""
    user = current().current_user
    if not user or user.id is None:
        raise CytomineError("Cytomine does not know who you are: connect() again.")
    return int(user.id)
