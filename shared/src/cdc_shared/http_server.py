"""`/health`, `/ready` and `/metrics` of a service that is no API."""

import json
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Answer = Callable[[], tuple[bool, Mapping[str, Any]]]
"""Returns whether all is well, and the details shown as JSON."""

_JSON: Final = "application/json"


class HttpServer:
    """Serves in a thread of its own from construction to `close`."""

    def __init__(self, host: str, port: int, health: Answer, ready: Answer, registry: CollectorRegistry) -> None:
        """Bind and serve. Raises `OSError` when the address is taken."""
        answers = {"/health": health, "/ready": ready}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._send(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif path in answers:
                    well, details = answers[path]()
                    status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
                    self._send(status, _JSON, json.dumps(details).encode())
                else:
                    self._send(HTTPStatus.NOT_FOUND, _JSON, b'{"error": "try /health, /ready or /metrics"}')

            def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes come every few seconds: they are not worth a log line."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is served, also when 0 was asked for."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
