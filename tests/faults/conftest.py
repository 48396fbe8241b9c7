"""What every fault test has."""

import multiprocessing
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_writer_outlives_its_test() -> Iterator[None]:
    """A failed test's other writers would keep pytest, which waits for its children, from ever ending."""
    yield
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
