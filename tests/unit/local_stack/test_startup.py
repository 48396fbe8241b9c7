"""Bringing parts up: in the order of their needs, until healthy; a failure shows the part's own last words."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import pytest

from local_stack.errors import NotReady, StackError
from local_stack.layout import Layout
from local_stack.parts.part import Part
from local_stack.startup import Started, bring_up, last_lines
from local_stack.supervision import ProcessInfo, Supervisor

pytestmark = pytest.mark.unit


@dataclass
class FakeSupervisor(Supervisor):
    """Keeps the order of starts; every process is in `state`."""

    state: str = "RUNNING"
    started: list[str] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def start(self, name: str) -> None:
        with self.lock:
            self.started.append(name)

    def processes(self) -> dict[str, ProcessInfo]:
        return {name: ProcessInfo(name, self.state, 1, 0) for name in self.started}


def healthy() -> str:
    return "fine"


def sick() -> str:
    raise NotReady("refused")


def after(tries: int) -> Callable[[], str]:
    """Ready at the call after `tries` that are not."""
    left = iter(range(tries))

    def check() -> str:
        if next(left, None) is None:
            return "fine"
        raise NotReady("not yet")

    return check


def part(name: str, **changes: object) -> Part:
    return replace(Part(name, "", ready=healthy, command=("run",)), **changes)  # type: ignore[arg-type]


def run(layout: Layout, supervisor: Supervisor, *parts: Part) -> list[Started]:
    seen: list[Started] = []
    bring_up(layout, supervisor, parts, seen.append)
    return seen


def test_a_part_starts_only_when_what_it_needs_is_healthy_and_set_up(layout: Layout) -> None:
    events: list[str] = []
    log = part("log", ready=after(2), after_ready=lambda: events.append("log is set up"))
    reader = part("reader", needs=("log",), prepare=lambda: events.append("reader is prepared"))
    supervisor = FakeSupervisor()

    seen = run(layout, supervisor, reader, log)

    assert supervisor.started == ["log", "reader"]
    assert events == ["log is set up", "reader is prepared"]
    assert [started.part.name for started in seen] == ["log", "reader"]
    assert seen[0].finding == "fine"


def test_files_and_directory_are_there_before_the_process(layout: Layout) -> None:
    config, data = layout.config / "a.conf", layout.data / "a"

    def prepare() -> None:
        assert config.read_text() == "port=1"
        assert config.stat().st_mode & 0o777 == 0o600
        assert data.stat().st_mode & 0o777 == 0o700

    run(layout, FakeSupervisor(), part("a", files={config: "port=1"}, directory=data, prepare=prepare))


def test_a_need_that_is_not_among_the_parts_is_not_waited_for(layout: Layout) -> None:
    assert run(layout, FakeSupervisor(), part("writer", needs=("kafka",)))


def test_a_part_that_is_not_ours_to_run_is_only_asked(layout: Layout) -> None:
    supervisor = FakeSupervisor()

    assert run(layout, supervisor, part("mongodb", command=()))[0].finding == "fine"
    assert supervisor.started == []


def test_a_part_that_dies_is_reported_with_its_last_lines_and_stops_the_waiting(layout: Layout) -> None:
    (layout.logs / "kafka.log").write_text(
        "".join(f"line {n}\n" for n in range(100)) + "java.net.BindException: in use\n"
    )
    dependent = part("connect", needs=("kafka",))

    with pytest.raises(StackError, match="kafka does not stay up") as caught:
        run(layout, FakeSupervisor(state="FATAL"), part("kafka", ready=sick), dependent)

    message = str(caught.value)
    assert "java.net.BindException: in use" in message
    assert "line 99" in message
    assert "line 1\n" not in message
    assert str(layout.logs / "kafka.log") in message


def test_a_part_that_does_not_get_healthy_in_time_is_reported_with_the_reason(layout: Layout) -> None:
    with pytest.raises(StackError, match="kafka is not healthy after 0 s: refused"):
        run(layout, FakeSupervisor(), part("kafka", ready=sick, ready_within_s=0.0))


def test_a_part_that_cannot_be_set_up_is_reported(layout: Layout) -> None:
    with pytest.raises(StackError, match="seaweedfs serves but cannot be set up: refused"):
        run(layout, FakeSupervisor(), part("seaweedfs", after_ready=sick))


def test_ctrl_c_ends_the_waiting(layout: Layout) -> None:
    def interrupt(_: Started) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring_up(layout, FakeSupervisor(), [part("a"), part("b", ready=sick, ready_within_s=3600)], interrupt)


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"one\ntwo\nbroken \xff byte\n")

    assert last_lines(log, 2) == ["two", "broken � byte"]
    assert last_lines(tmp_path / "absent.log", 2) == []
