"""The topic of specs as drivers see it: followed in a thread, so that a look costs nothing and drift is noticed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from cdc_shared.errors import CdcError, Transient, shown
from cdc_shared.kafka.publication import publish
from cdc_shared.kafka.spec_topic import SpecReader, delete_spec, publish_spec
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.common import InvalidSpec, PipelineSpec

AGAIN_AFTER_S: Final = 1.0
POLL_S: Final = 0.2
READ_BACK_S: Final = 10.0
"""What was published is read back in milliseconds."""

log = get_logger(__name__)


class PublishedSpecs:
    """See `systems.Specs`. Any thread may ask; it reads from `start` to `close`."""

    def __init__(self, bootstrap_servers: str, topic: str, on_change: Callable[[str], None] = lambda _: None) -> None:
        """`on_change` is called in the reader's thread with the pipeline's name; it returns at once."""
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._on_change = on_change
        self._news = threading.Condition()
        self._specs: dict[str, PipelineSpec] = {}
        self._found: dict[str, PipelineSpec] | None = None
        """What was read so far of the topic as it was found; None once that is all read."""
        self._counts: dict[str, int] = {}
        self._caught_up = False
        self._trouble = "nothing was read yet"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="published-specs", daemon=True)

    def start(self) -> Self:
        """Begin to read; returns at once."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def current(self, name: str) -> PipelineSpec | None:
        """See `systems.Specs`. Raises `Transient` until the topic has been read to its end."""
        with self._news:
            if not self._caught_up:
                raise Transient(f"{self._topic} cannot be read yet: {self._trouble}")
            return self._specs.get(name)

    def publish(self, spec: PipelineSpec, check: Callable[[], None] = lambda: None) -> PipelineSpec:
        """See `systems.Specs`. Returns once it was read back, so that `current` knows it.

        A spec of which only `desired` is another one goes out with the rules that it has: they were counted before.
        """
        before = self._count(spec.name)
        current = self.current(spec.name)
        if current is not None and current.model_copy(update={"desired": spec.desired}) == spec:
            check()
            publish_spec(self._bootstrap_servers, spec, topic=self._topic)
            published = spec
        else:
            published = publish(self._bootstrap_servers, spec, self._topic, check=check).spec
        self._read_back(spec.name, before)
        log.info("spec published", pipeline=spec.name, desired=spec.desired, rules_version=published.quality.version)
        return published

    def withdraw(self, name: str) -> None:
        """Take the spec back; returns once that was read back. Of an unknown one, does nothing."""
        if self.current(name) is None and not self._count(name):
            return
        before = self._count(name)
        delete_spec(self._bootstrap_servers, name, topic=self._topic)
        self._read_back(name, before)

    def _count(self, name: str) -> int:
        with self._news:
            return self._counts.get(name, 0)

    def _read_back(self, name: str, before: int) -> None:
        with self._news:
            if not self._news.wait_for(lambda: self._counts.get(name, 0) > before, READ_BACK_S):
                raise Transient(f"{name} was published to {self._topic}, but could not be read back")

    # -- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with SpecReader.open(self._bootstrap_servers, self._invalid, topic=self._topic) as reader:
                    self._follow(reader)
            except Exception as error:  # the thread's loop: nothing may end it in silence
                self._trouble = shown(error)
                log.warning("specs cannot be read", reason=self._trouble, exc_info=not isinstance(error, CdcError))
                self._stop.wait(AGAIN_AFTER_S)

    def _follow(self, reader: SpecReader) -> None:
        """Read from the start; what was read before stays in force until the end is reached again, and no longer: the
        topic may be another one by then."""
        self._found = {}
        while not self._stop.is_set():
            change = reader.poll(POLL_S)
            if change is not None:
                self._take(change.name, change.spec)
            if reader.caught_up and self._found is not None:
                self._take_over(self._found)

    def _take_over(self, found: dict[str, PipelineSpec]) -> None:
        """The end was reached: what was found is all that there is."""
        with self._news:
            changed = [name for name in self._specs.keys() | found.keys() if self._specs.get(name) != found.get(name)]
            self._specs, self._found = found, None
            was_caught_up, self._caught_up = self._caught_up, True
            for name in changed:
                self._counts[name] = self._counts.get(name, 0) + 1
            self._news.notify_all()
        if was_caught_up:
            for name in changed:
                self._on_change(name)

    def _invalid(self, name: str, error: InvalidSpec) -> None:
        """What cannot be read is no spec: the pipeline's own one is published over it."""
        log.warning("a spec cannot be read", pipeline=name, reason=str(error))
        self._take(name, None)

    def _take(self, name: str, spec: PipelineSpec | None) -> None:
        with self._news:
            specs = self._specs if self._found is None else self._found
            if spec is None:
                specs.pop(name, None)
            else:
                specs[name] = spec
            self._counts[name] = self._counts.get(name, 0) + 1
            self._news.notify_all()
            is_news = self._found is None
        if is_news:
            self._on_change(name)
