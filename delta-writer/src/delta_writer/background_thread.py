"""A background thread that does not keep the process alive."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class BackgroundThread(Executor):
    """Runs what it is given, one after the other, in a thread that starts with the first.

    `ThreadPoolExecutor` is joined when the interpreter exits: the process would hang for as long as the merge of a
    billion keys takes, or a source that does not answer. What this thread does may be cut off at any moment.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], None]] | None] = SimpleQueue()
        self._name = name
        self._thread: threading.Thread | None = None  # made when needed: one from before a fork cannot be started
        self._is_shut = False
        self._lock = threading.Lock()

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call. Raises `RuntimeError` after `shutdown`."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(call(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        with self._lock:
            if self._is_shut:
                raise RuntimeError(f"thread {self._name} was shut down")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._queue.put((future, run))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Take nothing more; the thread ends after what was given. Does not wait for that unless it is told to."""
        with self._lock:
            self._is_shut = True
            while cancel_futures and not self._queue.empty():
                if (given := self._queue.get()) is not None:
                    given[0].cancel()
            self._queue.put(None)
        if wait and self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (given := self._queue.get()) is not None:
            given[1]()
