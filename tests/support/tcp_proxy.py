"""A proxy between the writer and the object store that breaks connections where a test says.

It passes bytes through as they are. It reads just enough of them to know a request's line, so that one request can be
held back or refused, or its answer lost after the store has carried it out.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

CHUNK_BYTES = 256 * 1024
CONNECT_TIMEOUT_S = 5.0
_REQUEST_LINE = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")

RequestMatcher = Callable[[str, str], bool]
"""(method, path with query) → whether it is the request that is meant."""


def is_log_entry(method: str, path: str) -> bool:
    """The put of a Delta log entry: the commit itself."""
    return method == "PUT" and re.search(r"/_delta_log/\d{20}\.json", path) is not None


class Fault:
    """What shall happen to the next request that matches. It happens once."""

    def __init__(self, matches: RequestMatcher) -> None:
        self.matches = matches
        self.happened = threading.Event()
        """Set when the request was held or refused, or when its answer was lost."""


class HeldRequest(Fault):
    """The request does not reach the store before `release`."""

    def __init__(self, matches: RequestMatcher) -> None:
        super().__init__(matches)
        self._released = threading.Event()

    def release(self) -> None:
        """Let the request go on to the store, also when its sender has died meanwhile."""
        self._released.set()

    def wait_released(self) -> None:
        """Block until `release`."""
        self._released.wait()


class LostAnswer(Fault):
    """The store carries the request out; the connection breaks before a byte of its answer is passed on."""


class RefusedRequest(Fault):
    """The request does not reach the store; it is answered with an error that passes, as a busy store does."""

    answer = (
        b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: 87\r\nConnection: close\r\n\r\n"
        b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    )


class TcpProxy:
    """Listens on a port of its own from construction to `close`; `url` stands for the upstream's URL."""

    def __init__(self, upstream_url: str) -> None:
        parts = urlsplit(upstream_url)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._faults: list[Fault] = []
        self._held: list[HeldRequest] = []
        self._requests: list[tuple[str, str]] = []
        self._is_cut = False
        self._cut_after: Fault | None = None
        self._connections: set[_Connection] = set()
        self._lock = threading.Lock()
        self._listener = _listen(0)
        self._port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._accept_in_background()

    def hold(self, matches: RequestMatcher) -> HeldRequest:
        """Hold the next such request back."""
        held = HeldRequest(matches)
        self._held.append(held)
        self._add(held)
        return held

    def lose_answer(self, matches: RequestMatcher, *, then_cut: bool = False) -> LostAnswer:
        """Lose the answer to the next such request; with `then_cut`, nothing answers after it until `restore`."""
        lost = LostAnswer(matches)
        if then_cut:
            self._cut_after = lost
        self._add(lost)
        return lost

    def refuse(self, matches: RequestMatcher, times: int) -> list[RefusedRequest]:
        """Refuse the next such requests."""
        refused = [RefusedRequest(matches) for _ in range(times)]
        for each in refused:
            self._add(each)
        return refused

    def count(self, matches: RequestMatcher) -> int:
        """How many such requests have come, whatever became of them."""
        with self._lock:
            return sum(matches(method, path) for method, path in self._requests)

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        with self._lock:
            self._is_cut = True
            listener, connections = self._listener, list(self._connections)
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        listener.close()
        for connection in connections:
            connection.close()

    def restore(self) -> None:
        """Listen again after `cut`."""
        with self._lock:
            self._is_cut = False
            self._listener = _listen(self._port)
        self._accept_in_background()

    def close(self) -> None:
        """Cut, for good; what is held is dropped."""
        self.cut()
        for held in self._held:
            held.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def fault_for(self, head: bytes) -> Fault | None:
        """The fault that the request beginning with `head` meets; it is used up."""
        line = _REQUEST_LINE.match(head)
        if line is None:
            return None
        method, path = line[1].decode(), line[2].decode()
        with self._lock:
            self._requests.append((method, path))
            fault = next((each for each in self._faults if each.matches(method, path)), None)
            if fault is not None:
                self._faults.remove(fault)
        return fault

    def answer_lost(self, fault: LostAnswer) -> None:
        """The answer has been dropped."""
        if fault is self._cut_after:
            self.cut()
        fault.happened.set()

    def forget(self, connection: _Connection) -> None:
        """The connection has ended."""
        with self._lock:
            self._connections.discard(connection)

    def _add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def _accept_in_background(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), name="proxy-accept", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                upstream = socket.create_connection(self._upstream, CONNECT_TIMEOUT_S)
            except OSError:
                client.close()
                continue
            upstream.settimeout(None)
            connection = _Connection(self, client, upstream)
            with self._lock:
                cut = self._is_cut
                self._connections.add(connection)
            if cut:
                connection.close()
            else:
                connection.start()


class _Connection:
    """One client's connection and its twin to the upstream; requests are not pipelined (no S3 client does that)."""

    def __init__(self, proxy: TcpProxy, client: socket.socket, upstream: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._upstream = upstream
        self._answer_due = False
        self._losing: LostAnswer | None = None

    def start(self) -> None:
        for pump in (self._requests, self._answers):
            threading.Thread(target=pump, name="proxy-pump", daemon=True).start()

    def close(self) -> None:
        for each in (self._client, self._upstream):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._proxy.forget(self)

    def _requests(self) -> None:
        with suppress(OSError):
            while chunk := self._client.recv(CHUNK_BYTES):
                fault = self._proxy.fault_for(chunk)
                if isinstance(fault, HeldRequest):
                    fault.happened.set()
                    fault.wait_released()
                elif isinstance(fault, LostAnswer):
                    self._losing = fault
                elif isinstance(fault, RefusedRequest):
                    self._client.sendall(fault.answer)
                    fault.happened.set()
                    break
                self._answer_due = True
                self._upstream.sendall(chunk)
            if self._answer_due:  # the client is dead; the store still carries out what it was sent
                return
        self.close()

    def _answers(self) -> None:
        with suppress(OSError):
            while chunk := self._upstream.recv(CHUNK_BYTES):
                self._answer_due = False
                if self._losing is not None:
                    self.close()
                    self._proxy.answer_lost(self._losing)
                    return
                self._client.sendall(chunk)
        self.close()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener
