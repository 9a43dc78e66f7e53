"""A plain client of the archive's stand-in: HTTP and Crypt4GH by the book, nothing of the library's."""

from __future__ import annotations

import io
from contextlib import contextmanager
from urllib.parse import quote

import httpx
from crypt4gh import header
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from dev import archive

SEALED = 65564


class Client(httpx.Client):
    """Somebody's requests to a server, with a key pair of their own."""

    def __init__(self, server, token="", **headers):
        pair = X25519PrivateKey.generate()
        self.secret = pair.private_bytes_raw()
        self.key = archive.key_header(pair.public_key().public_bytes_raw())
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if server.settings.version == 1:
            headers.setdefault("SDA-Client-Version", "0.3.0")
        super().__init__(
            base_url=server.url, headers={k: v for k, v in headers.items() if v}, timeout=30, verify=False
        )

    def granted(self):
        """The datasets that are listed."""
        path = "/datasets" if self.get("/service-info").status_code == 200 else "/metadata/datasets"
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        return sorted(found["datasets"] if isinstance(found, dict) else found)

    def range(self, path, text, **headers):
        """A GET with Range."""
        return self.get(path, headers={"Range": text, **headers})

    def opened(self, data):
        """The session keys and the edit list of a header."""
        keys, edits = header.deconstruct(io.BytesIO(data), [(0, self.secret, None)])
        return [bytes(key) for key in keys], list(edits or [])

    def plain(self, data):
        """Header and body, decrypted; no edit list is applied."""
        stream = io.BytesIO(data)
        keys, _ = header.deconstruct(stream, [(0, self.secret, None)])
        return decrypted([bytes(key) for key in keys], stream.read())


def decrypted(keys, body):
    """Whole segments of a body, each by the key that fits."""
    found = []
    for at in range(0, len(body), SEALED):
        segment = body[at : at + SEALED]
        for key in keys:
            try:
                found.append(ChaCha20Poly1305(key).decrypt(segment[:12], segment[12:], None))
            except Exception:
                continue
            break
        else:
            raise ValueError(f"no key opens the segment at {at}")
    return b"".join(found)


def segment_of(dataset):
    """A dataset's id as one part of a path."""
    return quote(dataset, safe="")


@contextmanager
def client(local, server, person=None, kind="opaque", **headers):
    """A client with a good token of a person's, or with none."""
    with Client(server, local.issuer.token(person, kind) if person else "", **headers) as made:
        yield made
