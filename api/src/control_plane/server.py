"""Serving the application: one process, one event loop, as many connections as the machine's limits allow."""

import asyncio
import gc
import logging
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI

from cdc_shared.errors import Fatal
from cdc_shared.logging.structured_logger import get_logger

BACKLOG: Final = 16_384
"""Connections that wait to be accepted; the kernel takes at most net.core.somaxconn of them."""
WANTED_FILES: Final = 65_536
"""Each connection is an open file. What the process may have is raised to this, as far as its hard limit goes."""
KEEP_ALIVE_S: Final = 75
"""Longer than the 60 s after which load balancers let go of an idle connection: they, not we, end it."""
STOP_WITHIN_S: Final = 15
"""For the requests in hand."""
GARBAGE_THRESHOLD: Final = 20_000
"""Objects made between two looks for garbage in cycles; Python's 700 are a fraction of a request."""

_CHATTY: Final = ("uvicorn.error", "httpx")
"""uvicorn tells of its starts and stops, which is told here once; httpx of every request to Kafka Connect."""

log = get_logger(__name__)


def serve(app: FastAPI, host: str, port: int, trusted_proxies: str | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; then answer the requests in hand and close what the application has opened.

    `trusted_proxies`: addresses or networks, comma-separated, whose `X-Forwarded-For` names the caller. Anybody else's
    is ignored, or whoever calls could choose the address that the audit trail and the rate limits see.
    Raises what the application's start raises, and `Fatal` for an address that cannot be listened on.
    """
    files = _raise_file_limit()
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        # The application is started here: uvicorn would log the traceback of an error that names its remedy.
        lifespan="off",
        http="httptools",
        ws="none",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_WITHIN_S,
        # One line a request is the middleware's, in the format of all logs.
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=trusted_proxies is not None,
        forwarded_allow_ips=trusted_proxies,
    )
    with _listening(host, port) as listener, asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(app, _Server(config), listener, files))


async def _serve(app: FastAPI, server: "_Server", listener: socket.socket, files: int) -> None:
    async with app.router.lifespan_context(app):
        # What the start has made stays for good: the collector of garbage need not look through it time and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD, *gc.get_threshold()[1:])
        host, port = listener.getsockname()[:2]
        log.info("serving", host=host, port=port, max_open_files=files)
        await server.serve(sockets=[listener])
        log.info("stopping")


class _Server(uvicorn.Server):
    """uvicorn's, but a signal that has ended it is not raised once more: the application has yet to be closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT; the second one does not wait for requests."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket bound to the address. Raises `Fatal` naming the remedy."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise Fatal(
                f"the API cannot listen on {host}:{port} ({error.strerror or error}): stop what does, or set API_HOST "
                "and API_PORT to another address"
            ) from None
        yield listener


def _raise_file_limit() -> int:
    """How many files the process may have open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
