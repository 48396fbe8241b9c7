"""What every test may ask for: the running stack, pipelines of its own on it, and a seed that is printed."""

from __future__ import annotations

import os
import random
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from api_database import DatabaseServer, TrialDatabase
from mongo_pipeline import MongoPipeline
from private_connect import PrivateConnect, missing_part
from skip_gate import SkipGate
from stack_endpoints import Stack, StackNotUp
from topic_pipeline import TopicPipeline
from trial_pipeline import trial_name

if TYPE_CHECKING:
    from api_app import Api

ALLOWED_SKIPS = Path(__file__).parent / "allowed_skips.txt"
SEED_VARIABLE = "TEST_SEED"

P = TypeVar("P", TopicPipeline, MongoPipeline)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """One seed for every random test, hypothesis's too, set before hypothesis reads its own."""
    seed = config.getoption("--hypothesis-seed") or os.environ.get(SEED_VARIABLE) or str(random.randrange(2**32))
    config.option.hypothesis_seed = seed
    config.stash[_SEED] = seed
    config.stash[_MEASURED] = []
    config.pluginmanager.register(SkipGate(ALLOWED_SKIPS), "skip-gate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A contract test that needs the running platform is none of those that `make test` runs without it."""
    for item in items:
        needs = {"stack", "database_server"} & set(getattr(item, "fixturenames", ()))
        if needs and item.get_closest_marker("contract"):
            item.add_marker(pytest.mark.integration)


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.stash[_SEED]} (repeat this run with {SEED_VARIABLE}={config.stash[_SEED]})"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    if exitstatus and terminalreporter.verbosity < 0:  # a quiet run shows no header
        terminalreporter.line(pytest_report_header(config))
    if figures := config.stash[_MEASURED]:
        terminalreporter.section("measured")
        for figure in figures:
            terminalreporter.line(figure)


_SEED: pytest.StashKey[str] = pytest.StashKey()
_MEASURED: pytest.StashKey[list[str]] = pytest.StashKey()


@pytest.fixture
def measured(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Callable[[str, float, str], None]:
    """Takes a figure (what, value, unit) that the run's end shows, and a JUnit report keeps."""

    def note(what: str, value: float, unit: str) -> None:
        record_property(what, f"{value:,.4g} {unit}")
        request.config.stash[_MEASURED].append(f"{what}: {value:,.4g} {unit}")

    return note


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers that the printed seed and the test's name decide."""
    return random.Random(f"{request.config.stash[_SEED]}:{request.node.nodeid}")


@pytest.fixture(autouse=True)
def _unit_tests_open_no_socket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unix sockets stay allowed: event loops wake themselves through a pair of them."""
    if request.node.get_closest_marker("unit") is None:
        return

    def refuse_unless_local(name: str) -> Callable[[socket.socket, Any], Any]:
        real = getattr(socket.socket, name)

        def connect(self: socket.socket, address: Any) -> Any:
            if self.family != socket.AF_UNIX:
                raise AssertionError(f"a unit test connects to {address}: pass a fake in, or mark it integration")
            return real(self, address)

        return connect

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse_unless_local(name))


@pytest.fixture(scope="session")
def stack() -> Stack:
    """The running stack: `.local/endpoints.env`, and the environment, which wins. A missing stack fails the test."""
    try:
        return Stack.from_environment()
    except StackNotUp as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def tests_root(stack: Stack) -> str:
    """The root of this run's tables."""
    return f"{stack.tests_root}/{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def database_server() -> Iterator[DatabaseServer]:
    """Makes Postgres databases of a test's own."""
    try:
        server = DatabaseServer.from_environment()
    except StackNotUp as error:
        pytest.fail(str(error), pytrace=False)
    yield server
    server.close()


@pytest.fixture
def database(database_server: DatabaseServer) -> Iterator[TrialDatabase]:
    """A database of the test's own with the control plane's tables."""
    with database_server.migrated_database() as made:
        yield made


@pytest.fixture(scope="module")
def shared_database(database_server: DatabaseServer) -> Iterator[TrialDatabase]:
    """As `database`, one for all tests of a module."""
    with database_server.migrated_database() as made:
        yield made


@pytest.fixture(scope="module")
async def shared_api(
    stack: Stack, shared_database: TrialDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Api]:
    """As `api`, one for all tests of a module: none of them may count on being the first."""
    from api_app import open_api, settings_for  # only its tests pay for the import

    directory = tmp_path_factory.mktemp("api")
    async with open_api(settings_for(stack, shared_database, directory), shared_database) as opened:
        yield opened


@pytest.fixture
def empty_database(database_server: DatabaseServer) -> Iterator[TrialDatabase]:
    """A database of the test's own without a table."""
    with database_server.empty_database() as made:
        yield made


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """What tests marked `anyio` (the coroutines) run on."""
    return "asyncio"


@pytest.fixture
async def api(stack: Stack, database: TrialDatabase, tmp_path: Path) -> AsyncIterator[Api]:
    """The control plane in this process, on a database of the test's own; for tests marked `anyio`."""
    from api_app import open_api, settings_for  # only its tests pay for the import

    async with open_api(settings_for(stack, database, tmp_path), database) as opened:
        yield opened


@pytest.fixture
def connect(stack: Stack, tmp_path: Path) -> Iterator[PrivateConnect]:
    """A Connect worker of the test's own, running: its log and topics are the test's alone, and it may be killed."""
    if missing := missing_part():
        pytest.skip(missing)
    connect = PrivateConnect(stack, tmp_path / "connect")
    try:
        connect.start()
        yield connect
    finally:
        connect.close()


@contextmanager
def _pipelines(
    kind: Callable[..., P], stack: Stack, root: str, directory: Path, test_name: str
) -> Iterator[Callable[..., P]]:
    """Makes started pipelines of the kind; removes them at the end, whether the test passed or not."""
    with ExitStack() as open_pipelines:

        def make(*, start: bool = True, **options: Any) -> P:
            name = trial_name(test_name)
            pipeline = kind(stack, name, root, directory / name, **options)
            open_pipelines.callback(pipeline.close)
            if start:
                pipeline.start()
            return pipeline

        yield make


@pytest.fixture
def new_topic_pipeline(
    stack: Stack, tests_root: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., TopicPipeline]]:
    """Makes started `TopicPipeline`s; options as `trial_pipeline.spec_for` takes them; `start=False`: you start it."""
    with _pipelines(TopicPipeline, stack, tests_root, tmp_path, request.node.name) as make:
        yield make


@pytest.fixture
def topic_pipeline(new_topic_pipeline: Callable[..., TopicPipeline]) -> TopicPipeline:
    """A running pipeline whose change topic the test fills itself."""
    return new_topic_pipeline()


@pytest.fixture
def new_pipeline(
    stack: Stack, tests_root: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., MongoPipeline]]:
    """Makes started `MongoPipeline`s; options as for `new_topic_pipeline`."""
    with _pipelines(MongoPipeline, stack, tests_root, tmp_path, request.node.name) as make:
        yield make


@pytest.fixture
def pipeline(new_pipeline: Callable[..., MongoPipeline]) -> MongoPipeline:
    """A running pipeline from a MongoDB database of the test's own."""
    return new_pipeline()
