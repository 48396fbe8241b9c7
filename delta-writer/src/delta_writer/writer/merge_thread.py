"""A background thread that does not keep the process alive."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class MergeThread(Executor):
    """Runs what it is given, one after the other, in a thread that starts with the first.

    `ThreadPoolExecutor` is joined when the interpreter exits: a process that died of an error would hang for as long as
    the merge of a billion keys takes. What this thread does may be cut off at any moment.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._name = name
        self._thread: threading.Thread | None = None  # made when needed: one from before a fork cannot be started
        self._starting = threading.Lock()

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(call(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        self._queue.put(run)
        return future

    def _run(self) -> None:
        while True:
            self._queue.get()()
