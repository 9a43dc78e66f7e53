"""A way between a client and a server on loopback that loses requests or answers on demand."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

from dev.standin.local import free_port

HEAD = re.compile(rb"^([A-Z]+) (\S+) HTTP/1\.1\r\n")

TROUBLE = (
    b'{"errors":"jakarta.persistence.OptimisticLockException: org.hibernate.exception.LockAcquisitionException: could not'
    b" execute batch [Batch entry 0 delete from user_annotation where id=1 was aborted: ERROR: deadlock detected"
    b'\\n  Detail: Process 71 waits for ShareLock on transaction 1203"}'
)
DEADLOCK = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(TROUBLE)
) + TROUBLE


class Way:
    """Passes connections on, one request at a time, and counts the requests.

    ``lose`` decides for each request by its method and path: ``"request"`` closes the connection before the server
    sees it, ``"answer"`` lets the server do it and closes the connection in the place of the answer, ``"half"`` sends
    half of the answer, ``""`` passes it on. ``"deadlock"`` gives core's answer where its database ended the transaction in
    the place of the server, ``"half a deadlock"`` gives it although the server did it.
    """

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._to = (place.hostname or "", place.port or 80)
        self._server = socket.create_server(("127.0.0.1", free_port()))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.lose: Callable[[str, str], str] = lambda method, path: ""
        self.count: Counter[str] = Counter()
        self.lost = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_first(self, number: int, method: str, path: str, how: str) -> None:
        """Lose the first ``number`` requests whose path has ``path`` in it."""
        left = [number]

        def decide(asked: str, place: str) -> str:
            with self._lock:
                if asked != method or path not in place or not left[0]:
                    return ""
                left[0] -= 1
                self.lost += 1
                return how

        self.lost, self.lose = 0, decide

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            data = b""
            while True:
                request, data = _message(client, data)
                if not request:
                    return
                match = HEAD.match(request)
                assert match, request[:80]
                method, path = match[1].decode(), match[2].decode()
                with self._lock:
                    self.count[method] += 1
                how = self.lose(method, path)
                if how == "request":
                    return
                if how == "deadlock":
                    client.sendall(DEADLOCK)
                    continue
                with socket.create_connection(self._to) as server:
                    # One request a connection: the server's end is the answer's.
                    server.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                    answer = b"".join(iter(lambda: server.recv(1 << 20), b""))
                if how == "answer":
                    return
                if how == "half a deadlock":
                    client.sendall(DEADLOCK)
                    continue
                if how == "half":
                    head, _, body = answer.partition(b"\r\n\r\n")
                    client.sendall(head + b"\r\n\r\n" + body[: len(body) // 2])
                    return
                client.sendall(re.sub(rb"\r\nConnection: close", b"", answer, count=1, flags=re.IGNORECASE))
                if b"content-length" not in answer.split(b"\r\n\r\n", 1)[0].lower():
                    return


def _message(client: socket.socket, data: bytes) -> tuple[bytes, bytes]:
    """One request with its body, and what came after it."""
    while b"\r\n\r\n" not in data:
        more = client.recv(1 << 20)
        if not more:
            return b"", b""
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    length = re.search(rb"content-length:\s*(\d+)", head, re.IGNORECASE)
    size = int(length[1]) if length else 0
    while len(rest) < size:
        more = client.recv(1 << 20)
        if not more:
            return b"", b""
        rest += more
    return head + b"\r\n\r\n" + rest[:size], rest[size:]
