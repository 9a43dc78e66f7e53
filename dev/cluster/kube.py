"""As much of a Kubernetes client as starting a cluster needs, on the standard library."""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class ApiError(OSError):
    """The API server refused: ``code`` is HTTP's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"the API server answered {code}: {message[:300]}")
        self.code = code


class Api:
    """Requests to one API server.

    Args:
        server: its address, ``https://host:port``.
        ca: file with the authority's certificate.
        cert: files of the client's certificate and key.
        token: a bearer token, where there is no certificate.
    """

    def __init__(self, server: str, ca: Path, cert: tuple[Path, Path] | None = None, token: str = "") -> None:
        self.address = urlsplit(server).netloc
        self.context = ssl.create_default_context(cafile=str(ca))
        if cert:
            self.context.load_cert_chain(*map(str, cert))
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def raw(
        self, method: str, path: str, body: Any = None, timeout: float = 5, kind: str = "application/json"
    ) -> str:
        """Send a request and return the answer's text.

        Raises:
            ApiError: the answer is not 2xx.
            OSError: there is no answer.
        """
        connection = http.client.HTTPSConnection(self.address, timeout=timeout, context=self.context)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {**self.headers, "Content-Type": kind})
            answer = connection.getresponse()
            text = answer.read().decode()
        except http.client.HTTPException as e:
            raise OSError(f"no proper answer: {e!r}") from None
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise ApiError(answer.status, text)
        return text

    def get(self, path: str) -> Any:
        """An object or a list."""
        return json.loads(self.raw("GET", path))

    def post(self, path: str, body: Any) -> None:
        """Create an object; one that is there already is left as it is."""
        try:
            self.raw("POST", path, body)
        except ApiError as e:
            if e.code != 409:
                raise

    def ready(self) -> bool:
        """Whether the API server is ready."""
        return self.raw("GET", "/readyz", timeout=2) == "ok"


def condition(thing: dict[str, Any], kind: str) -> bool:
    """Whether a condition of an object is True."""
    found = thing.get("status", {}).get("conditions") or []
    return any(c["type"] == kind and c["status"] == "True" for c in found)
