"""A whole stack of Cytomine's stand-ins on loopback, an issuer of tokens for it, and slides to upload."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import numpy as np
import tifffile
from cryptography.hazmat.primitives.asymmetric import rsa
from PIL import Image

from dev.standin.local import Local, free_port
from tests.support.prefork import ForkedStandIns

NAMESPACE = uuid.UUID("6f9d0f64-6d0c-4e39-9d3c-5d5a1f2b7c11")


class Issuer:
    """Signs tokens with RS256, and publishes its key over HTTP."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        body = json.dumps({"keys": [{**public, "kid": "test", "alg": "RS256", "use": "sig"}]}).encode()

        class Keys(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        port = free_port()
        self.jwks = f"http://127.0.0.1:{port}/certs"
        self.issuer = f"http://127.0.0.1:{port}/realms/cytomine"
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Keys)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def token(self, name: str, role: str | None, /, key: Any = None, **claims: Any) -> str:
        """A token of that user; a claim given as None is left out."""
        data = {
            "iss": self.issuer,
            "sub": str(uuid.uuid5(NAMESPACE, name)),
            "preferred_username": name,
            "name": name,
            "email": f"{name}@x",
            "exp": int(time.time()) + 600,
            "resource_access": {"core": {"roles": [role] if role else []}},
            **claims,
        }
        data = {k: v for k, v in data.items() if v is not None}
        return jwt.encode(data, key or self.key, "RS256", headers={"kid": "test"})


@contextlib.contextmanager
def local_stack(folder: Path, issuer: Issuer | None = None, **options: Any) -> Iterator[tuple[Local, Issuer]]:
    """A stack on loopback while the block lasts, and the issuer whose tokens it takes.

    Args:
        folder: for the stack's files.
        issuer: one of another kind; it is closed, too.
        options: as :class:`dev.standin.local.Local` has them.
    """
    issuer = issuer or Issuer()
    with (
        contextlib.closing(issuer),
        ForkedStandIns(folder, issuer.issuer, issuer.jwks, **options).running() as local,
    ):
        yield local, issuer


def _pattern(width: int, height: int) -> Image.Image:
    red = Image.linear_gradient("L").resize((width, height))
    green = red.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return Image.merge("RGB", (red, green, Image.radial_gradient("L").resize((width, height))))


def slides(folder: Path) -> dict[str, Path]:
    """The files that the recordings speak of, with other pixels: a pyramid, a flat TIFF, a PNG, and no image."""
    full = _pattern(1536, 1024)
    # As the recorded one: in tiles, each level named as such, for upstream's image server takes nothing else for a
    # pyramid; 0.25 microns per pixel.
    with tifffile.TiffWriter(folder / "slide.tif") as tiff:
        for level, image in enumerate([full, full.resize((768, 512)), full.resize((384, 256))]):
            tiff.write(
                np.asarray(image), photometric="rgb", tile=(256, 256), compression="jpeg", metadata=None,
                subfiletype=1 if level else 0, resolution=(40000, 40000), resolutionunit="CENTIMETER",
            )  # fmt: skip
    _pattern(512, 512).save(folder / "plain.tif", compression="jpeg")
    _pattern(320, 200).save(folder / "small.png")
    (folder / "notes.tif").write_bytes(b"this is no image at\n\n")
    (folder / "note.txt").write_bytes(b"hello\n")
    (folder / "a.tif").write_bytes(b"x")
    return {p.name: p for p in folder.iterdir()}
