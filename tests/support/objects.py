"""A small S3 on this machine, and a way to it that counts what comes through."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

import requests

from dev.archive import s3

# What such a server wants to see of a signature.
SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
}


class Store:
    """An S3 server, reached through a counter.

    Attributes:
        endpoint: where clients ask.
        bytes: that came with each object, by its path.
        refuse: whether every request is refused.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream, self.endpoint = upstream, ""
        self.bytes: Counter[str] = Counter()
        self.refuse = False

    def put(self, bucket: str, folder: Path) -> None:
        """Store a folder's files, below its own name."""
        requests.put(f"{self.upstream}/{bucket}", headers=SIGNED, timeout=30).raise_for_status()
        for path in folder.rglob("*"):
            if path.is_file():
                key = quote(path.relative_to(folder.parent).as_posix())
                address = f"{self.upstream}/{bucket}/{key}"
                requests.put(address, path.read_bytes(), headers=SIGNED, timeout=30).raise_for_status()

    @property
    def options(self) -> dict[str, str]:
        """What a filesystem is told."""
        return {
            "endpoint": self.endpoint,
            "access_key_id": "test",
            "secret_access_key": "hush-hush",
            "region": "us-east-1",
        }


@contextmanager
def store() -> Iterator[Store]:
    """An empty S3 server."""
    with s3.running() as upstream:
        made = Store(upstream)
        where = urlsplit(upstream).netloc

        class Way(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                if made.refuse:
                    self.send_response(403)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                there = http.client.HTTPConnection(where, timeout=30)
                there.request(self.command, self.path, headers=dict(self.headers))
                answer = there.getresponse()
                body = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in (
                        "transfer-encoding",
                        "connection",
                        "content-length",
                        "server",
                        "date",
                    ):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else len(body)
                self.send_header("Content-Length", str(length or 0))
                self.end_headers()
                self.wfile.write(body)
                made.bytes[urlsplit(self.path).path] += len(body)
                there.close()

            do_GET = do_HEAD = pass_on  # noqa: N815 - names of the base class

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Way) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            made.endpoint = f"http://127.0.0.1:{server.server_port}"
            try:
                yield made
            finally:
                server.shutdown()
                thread.join()
