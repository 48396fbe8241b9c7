"""Kafka Connect as drivers see it: one look at all connectors serves every pipeline, until something is changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

from cdc_shared.connect.connect_client import TOPIC_PREFIX, ConnectClient, ConnectorView
from cdc_shared.errors import Transient
from control_plane.controller.connector import Move

LOOK_AGE_S: Final = 0.3
"""A look serves for so long."""
TROUBLE_AGE_S: Final = 2.0
"""While Connect is away, only one of the pipelines waits for its answer."""
LOOK_TIMEOUT_S: Final = 10.0


class KafkaConnect:
    """See `systems.Connectors`. Any thread may use it."""

    def __init__(
        self,
        open_client: Callable[[], ConnectClient],
        look: ConnectClient,
        clock: Callable[[], float],
    ) -> None:
        """`open_client` makes a client for one request, `look` is for looking, with a short time-out; it is closed with
        this. `clock` is monotonic, in seconds."""
        self._open_client = open_client
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, ConnectorView] = {}
        self._seen_at = float("-inf")
        self._trouble: Transient | None = None
        self._trouble_at = float("-inf")
        self._changed_at: dict[str, float] = {}

    def view(self, name: str) -> ConnectorView | None:
        """See `systems.Connectors`."""
        with self._lock:
            now = self._clock()
            if self._trouble is not None and now - self._trouble_at < TROUBLE_AGE_S:
                raise self._trouble
            if now - self._seen_at >= LOOK_AGE_S or self._changed_at.get(name, float("-inf")) >= self._seen_at:
                try:
                    self._seen = self._look.connectors()
                except Transient as error:
                    self._trouble, self._trouble_at = error, self._clock()
                    raise
                self._seen_at, self._trouble = now, None
            view = self._seen.get(name)
            # One that is not the pipeline's is none to it, and left alone; making ours says that the name is taken.
            return view if view is not None and view.config.get(TOPIC_PREFIX) == name else None

    def move(self, name: str, move: Move, config: Mapping[str, str] | None) -> None:
        """See `systems.Connectors`."""
        try:
            with self._open_client() as client:
                _ask(client, name, move, config or {})
        finally:
            self.changed(name)

    def changed(self, name: str) -> None:
        """Note that the connector was changed: what was seen of it before counts no more."""
        with self._lock:
            self._changed_at[name] = self._clock()

    def close(self) -> None:
        self._look.close()


def _ask(client: ConnectClient, name: str, move: Move, config: Mapping[str, str]) -> None:
    match move:
        case Move.CREATE | Move.CONFIGURE:
            client.put_config(name, config)
        case Move.CREATE_STOPPED:
            client.create_stopped(name, config)
        case Move.RESUME:
            client.resume(name)
        case Move.PAUSE:
            client.pause(name)
        case Move.STOP:
            client.request_stop(name)
        case Move.RESTART:
            client.restart(name)
        case Move.WAIT | Move.NONE:
            raise ValueError(f"{move} is nothing to ask for")
