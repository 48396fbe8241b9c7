"""A proxy before a server that answers late, or not at all, when a test says so; bytes pass as they are."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

CHUNK_BYTES = 256 * 1024


class SlowProxy:
    """Listens on a port of its own from construction to `close`. `delay_s` holds back what the server answers."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.port: int = self._listener.getsockname()[1]
        self.delay_s = 0.0
        threading.Thread(target=self._accept, name="slow-proxy", daemon=True).start()

    def cut(self) -> None:
        """Break every connection; new ones are served."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Break every connection, and serve no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
                with self._lock:
                    self._sockets |= {client, server}
                for source, target, late in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pump, args=(source, target, late), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, late: bool) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                if late and self.delay_s:
                    time.sleep(self.delay_s)
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
