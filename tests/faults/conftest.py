"""Parts of a fault test's own, which it may kill."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from private_connect import PrivateConnect, missing_part
from stack_endpoints import Stack


@pytest.fixture(autouse=True)
def _no_writer_outlives_its_test() -> Iterator[None]:
    """A failed test's other writers would keep pytest, which waits for its children, from ever ending."""
    yield
    for child in multiprocessing.active_children():
        child.kill()
        child.join()


@pytest.fixture
def connect(stack: Stack, tmp_path: Path) -> Iterator[PrivateConnect]:
    """A running worker that the test may kill."""
    if missing := missing_part():
        pytest.skip(missing)
    connect = PrivateConnect(stack, tmp_path / "connect")
    try:
        connect.start()
        yield connect
    finally:
        connect.close()
