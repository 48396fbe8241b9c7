"""What the checks of the source make of a server's answers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import pytest
from bson import Timestamp
from pymongo.errors import OperationFailure

from cdc_shared.models.common import PipelineSpec
from cdc_shared.source.oplog import oplog_window
from control_plane.models.preflight import CheckOutcome
from control_plane.services.checks import source
from control_plane.services.checks.check import Finding
from control_plane.services.checks.source_probe import SourceProbe

pytestmark = pytest.mark.unit

HOUR_S = 3600
NOW_S = 1_800_000_000
UNAUTHORIZED = OperationFailure("not authorized", 13, {"codeName": "Unauthorized", "errmsg": "not authorized"})


class FakeServer:
    """A server as pymongo shows it: its answers to commands, its oplog, and what it refuses."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {
            "hello": {"setName": "rs0"},
            "buildInfo": {"version": "8.0.4", "versionArray": [8, 0, 4, 0]},
            "connectionStatus": {"authInfo": {"authenticatedUsers": []}},
            **answers,
        }
        self.oplog: list[int] = [NOW_S - 48 * HOUR_S, NOW_S]
        self.refused: set[str] = set()

    @property
    def admin(self) -> "FakeServer":
        return self

    def get_database(self, _: str) -> "FakeServer":
        return self

    def __getitem__(self, name: str) -> "FakeServer":
        assert name == "oplog.rs"
        return self

    def command(self, name: str, *_: Any, **__: Any) -> Any:
        answer = self.answers.get(name, OperationFailure(f"no {name}", 59))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def find_one(self, projection: Mapping[str, int], sort: list[tuple[str, int]]) -> Any:
        self._check("oplog")
        assert (projection, sort[0][0]) == ({"ts": 1}, "$natural")
        return {"ts": Timestamp(self.oplog[0 if sort[0][1] == 1 else -1], 1)} if self.oplog else None

    def list_collection_names(self) -> list[str]:
        self._check("list")
        return []

    @contextmanager
    def watch(self, pipeline: list[Any], max_await_time_ms: int) -> Iterator["FakeServer"]:
        assert pipeline == [{"$match": {"ns.db": "shop"}}]
        self._check("watch")
        yield self

    def try_next(self) -> None:
        return None

    def _check(self, what: str) -> None:
        if what in self.refused:
            raise UNAUTHORIZED


class FakeProbe:
    def __init__(self, server: FakeServer) -> None:
        self._server = server

    @contextmanager
    def asking(self, _: str) -> Iterator[FakeServer]:
        yield self._server


def probe(server: FakeServer) -> SourceProbe:
    return cast(SourceProbe, FakeProbe(server))


def spec(watermark: str = "sentinel") -> PipelineSpec:
    return PipelineSpec.model_validate(
        {"name": "p", "source": {"connection": "env:X", "database": "shop"}, "watermark": {"source": watermark}}
    )


def oplog_of(server: FakeServer) -> Finding:
    return source.oplog(probe(server))


def test_a_server_that_answers_and_one_that_is_too_old() -> None:
    assert source.reachable(probe(FakeServer())) == (CheckOutcome.OK, "MongoDB 8.0.4 answers")
    old = FakeServer(buildInfo={"version": "5.0.1", "versionArray": [5, 0, 1, 0]})
    assert source.reachable(probe(old)).outcome is CheckOutcome.WARNING


@pytest.mark.parametrize(
    ("hello", "outcome", "part"),
    [
        ({"setName": "rs0"}, CheckOutcome.OK, "replica set rs0"),
        ({"msg": "isdbgrid"}, CheckOutcome.OK, "sharded"),
        ({"isWritablePrimary": True}, CheckOutcome.FAILED, "rs.initiate()"),
    ],
)
def test_only_what_has_change_streams_will_do(hello: dict[str, Any], outcome: CheckOutcome, part: str) -> None:
    finding = source.replica_set(probe(FakeServer(hello=hello)))
    assert finding.outcome is outcome
    assert part in finding.message


def test_privileges_where_nobody_signs_in() -> None:
    assert source.privileges(probe(FakeServer()), spec()).outcome is CheckOutcome.OK


@pytest.mark.parametrize(
    ("refused", "privileges", "missing"),
    [
        ((), [({"db": "shop", "collection": ""}, ["find", "insert", "update"])], None),
        ((), [({"db": "", "collection": "cdc_heartbeat"}, ["insert", "update"])], None),
        ((), [({"anyResource": True}, ["anyAction"])], None),
        ((), [({"db": "shop", "collection": ""}, ["find"])], "write shop.cdc_heartbeat"),
        ((), [({"db": "other", "collection": ""}, ["insert", "update"])], "write shop.cdc_heartbeat"),
        (("watch",), [({"anyResource": True}, ["anyAction"])], "change stream"),
        (("list",), [({"anyResource": True}, ["anyAction"])], "list the collections of shop"),
    ],
)
def test_privileges_that_are_missing_are_named(
    refused: tuple[str, ...], privileges: list[tuple[dict[str, Any], list[str]]], missing: str | None
) -> None:
    granted = [{"resource": resource, "actions": actions} for resource, actions in privileges]
    who = {"authenticatedUsers": [{"user": "cdc"}], "authenticatedUserPrivileges": granted}
    server = FakeServer(connectionStatus={"authInfo": who})
    server.refused = set(refused)
    finding = source.privileges(probe(server), spec())
    if missing is None:
        assert finding.outcome is CheckOutcome.OK
    else:
        assert finding.outcome is CheckOutcome.FAILED
        assert missing in finding.message
        assert "user cdc may not" in finding.message
        assert "grant readAnyDatabase" in finding.message


def test_a_source_that_is_not_written_needs_no_right_to_write() -> None:
    who = {"authenticatedUsers": [{"user": "cdc"}], "authenticatedUserPrivileges": []}
    server = FakeServer(connectionStatus={"authInfo": who})
    assert source.privileges(probe(server), spec("resume_token")).outcome is CheckOutcome.OK


def test_other_errors_of_the_server_are_not_taken_for_missing_privileges() -> None:
    server = FakeServer(connectionStatus=OperationFailure("shutting down", 11600))
    with pytest.raises(OperationFailure):
        source.privileges(probe(server), spec())


@pytest.mark.parametrize(
    ("hours", "stats", "outcome", "part"),
    [
        (48, {"size": 10, "maxSize": 10}, CheckOutcome.OK, "reaches back 48.0 hours"),
        (96, OperationFailure("no", 59), CheckOutcome.OK, "4 days"),
        (2, {"size": 10, "maxSize": 10}, CheckOutcome.FAILED, "about 2.0 hours of changes"),
        (2, {"size": 1, "maxSize": 100}, CheckOutcome.OK, "about 8 days at this rate"),
        (2, {"size": 50, "maxSize": 100}, CheckOutcome.FAILED, "about 4.0 hours"),
        (2, OperationFailure("no", 59), CheckOutcome.WARNING, "so far"),
        (0.5, {"size": 0, "maxSize": 100}, CheckOutcome.WARNING, "30 min so far"),
    ],
)
def test_the_oplog_must_hold_a_day(hours: float, stats: Any, outcome: CheckOutcome, part: str) -> None:
    server = FakeServer(collStats=stats)
    server.oplog = [NOW_S - int(hours * HOUR_S), NOW_S]
    finding = oplog_of(server)
    assert finding.outcome is outcome
    assert part in finding.message
    assert ("minRetentionHours" in finding.message) == (outcome is not CheckOutcome.OK)


def test_an_oplog_that_may_not_be_read_is_no_failure() -> None:
    server = FakeServer()
    server.refused = {"oplog"}
    finding = oplog_of(server)
    assert finding.outcome is CheckOutcome.WARNING
    assert "clusterMonitor" in finding.message


def test_servers_that_show_no_oplog() -> None:
    for server in (
        FakeServer(hello={"msg": "isdbgrid"}),
        FakeServer(buildInfo={"version": "8", "secantusVersion": "0.7"}),
    ):
        server.refused = {"oplog"}
        assert oplog_of(server).outcome is CheckOutcome.SKIPPED
    empty = FakeServer()
    empty.oplog = []
    assert oplog_window(cast(Any, empty)) is None
