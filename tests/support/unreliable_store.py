"""A store that carries a put of a log entry out or not, and whose sender hears of it or not.

It decides that, so it knows at every moment what the table must hold.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import obstore
import pytest

from delta_writer.writer.batch_processor import RecordBatch

PARTITIONS = 2
ENTRY_FAILURES = {"heard": 70, "lost before": 10, "unheard": 20}
OTHER_FAILURE = 0.05

Row = tuple[int, str]
"""Offset and document text of a key's row."""


@dataclass
class Truth:
    """What the table must hold, changed at the moment that the store carries an entry out."""

    rows: dict[int, Row] = field(default_factory=dict)
    offsets: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    rewrites: list[int] = field(default_factory=list)
    version: int = -1


@dataclass
class InHand:
    """A commit that its writer has planned, and perhaps tried: what it does to the truth, once."""

    kind: str
    run: Callable[[], Any]
    effect: Callable[[Truth], None]
    made_at: int
    may_raise: tuple[type[Exception], ...]
    landed: bool = False
    read_version: int = -1
    batch: RecordBatch | None = None


class UnreliableStore:
    """Stands before `obstore`'s functions while `active` is set."""

    def __init__(self, truth: Truth, rng: random.Random) -> None:
        self.active: InHand | None = None
        self.seen: Counter[str] = Counter()
        self._truth = truth
        self._rng = rng

    @contextmanager
    def failing_for(self, commit: InHand | None) -> Iterator[None]:
        """Let requests fail at random; entries that are put are of `commit`."""
        self.active, self._failing = commit, True
        try:
            yield
        finally:
            self.active, self._failing = None, False

    _failing = False

    def wrap(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real_put = obstore.put
        for name in ("get", "get_range", "put"):
            monkeypatch.setattr(obstore, name, self._wrapped(name, getattr(obstore, name), real_put))

    def _wrapped(self, name: str, real: Callable[..., Any], real_put: Callable[..., Any]) -> Callable[..., Any]:
        def request(store: Any, path: str, *args: Any, **kwargs: Any) -> Any:
            if not self._failing:
                return real(store, path, *args, **kwargs)
            if name == "put" and path.startswith("_delta_log/"):
                return self._put_entry(real_put, store, path, *args, **kwargs)
            if self._rng.random() < OTHER_FAILURE:
                self.seen[f"{name} failed"] += 1
                raise obstore.exceptions.GenericError(f"{name} timed out")
            return real(store, path, *args, **kwargs)

        return request

    def _put_entry(self, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        outcome = self._rng.choices(list(ENTRY_FAILURES), list(ENTRY_FAILURES.values()))[0]
        if outcome == "lost before":
            self.seen["entry lost"] += 1
            raise obstore.exceptions.GenericError("timed out")
        result = real(*args, **kwargs)  # raises when the version is taken: then nothing was written
        commit = self.active
        assert commit is not None, "a writer wrote an entry that nobody asked for"
        assert not commit.landed, f"a {commit.kind} is in the log twice"
        commit.landed = True
        commit.effect(self._truth)
        self._truth.version += 1
        self.seen[f"{commit.kind} landed"] += 1
        if outcome == "unheard":
            self.seen["entry unheard"] += 1
            raise obstore.exceptions.GenericError("timed out")
        return result
