"""A way to a server on loopback, whatever is spoken on it, whose connections can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit


class Cutter:
    """Passes connections on until they are cut.

    Args:
        url: of the server; ``url`` of the object is the way to it.
    """

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._to = (place.hostname or "", place.port or 443)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{place.scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._passing = True
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and take no new ones."""
        self._passing = False
        self.interrupt()

    def interrupt(self) -> None:
        """End all connections; new ones are taken."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            # Both ends see it: close alone would wait for the other thread's read.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Take connections again."""
        self._passing = True

    def close(self) -> None:
        """End it for good."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if not self._passing:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(self._to, timeout=10)
                    server.settimeout(None)
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._open |= {client, server}
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            known = source in self._open
            self._open.discard(source)
        if known:
            source.close()
