"""Whether the source answers, is a replica set, has a past, and lets the connection's user do what is needed."""

from collections.abc import Callable
from typing import Final

from pymongo import MongoClient
from pymongo.errors import OperationFailure

from cdc_shared.models.common import SENTINEL_COLLECTION, PipelineSpec
from cdc_shared.source.oplog import oplog_window
from control_plane.services.checks.check import Finding, failed, ok, skipped, warning
from control_plane.services.checks.source_probe import Document, SourceProbe

OLDEST_SERVER: Final = (6, 0)
"""The oldest that Debezium 3.6 is tested with."""
LEAST_WINDOW_S: Final = 24 * 3600
WATCH_AWAIT_MS: Final = 1
UNAUTHORIZED: Final = 13
WRITE_ACTIONS: Final = frozenset({"insert", "update"})


def reachable(probe: SourceProbe) -> Finding:
    """The reference leads to a connection string, and a server answers to it."""
    with probe.asking("connect") as client:
        told = client.admin.command("buildInfo")
    version = str(told.get("version", "?"))
    if tuple(told.get("versionArray", OLDEST_SERVER))[:2] < OLDEST_SERVER:
        oldest = ".".join(str(part) for part in OLDEST_SERVER)
        return warning(
            f"MongoDB {version} answers; the connector is tested with {oldest} and newer: upgrade the server"
        )
    return ok(f"MongoDB {version} answers")


def replica_set(probe: SourceProbe) -> Finding:
    """It has change streams: only replica sets and sharded clusters do."""
    with probe.asking("ask for the replica set") as client:
        told = client.admin.command("hello")
    if told.get("msg") == "isdbgrid":
        return ok("a sharded cluster")
    if told.get("setName"):
        return ok(f"replica set {told['setName']}")
    return failed(
        "the server is a standalone one, which has no change streams: start it with --replSet, run rs.initiate() once, "
        "and name the set in the connection string (?replicaSet=…)"
    )


def privileges(probe: SourceProbe, spec: PipelineSpec) -> Finding:
    """The user may read the database, watch the deployment as the connector does, and write the sentinel."""
    missing = []
    with probe.asking("look at the user's privileges") as client:
        told = client.admin.command("connectionStatus", showPrivileges=True)["authInfo"]
        if not _may(lambda: client.get_database(spec.source.database).list_collection_names()):
            missing.append(f"list the collections of {spec.source.database}")
        if not _may(lambda: _watch(client, spec.source.database)):
            missing.append("open a change stream on the deployment (changeStream and find on all databases)")
    users = [str(each.get("user")) for each in told.get("authenticatedUsers", ())]
    if users and spec.watermark.source == "sentinel" and not _may_write_sentinel(told, spec.source.database):
        missing.append(f"write {spec.source.database}.{SENTINEL_COLLECTION} (or set watermark.source: resume_token)")
    if missing:
        return failed(
            f"user {', '.join(users) or '(none)'} may not {'; nor '.join(missing)}: grant readAnyDatabase, and "
            f"readWrite on {spec.source.database}"
        )
    return ok(f"user {', '.join(users)} may do what is needed" if users else "the server asks nobody to sign in")


def oplog(probe: SourceProbe) -> Finding:
    """The oplog reaches back at least a day: for so long a connector may be away without a new snapshot."""
    with probe.asking("read the oplog") as client:
        try:
            window = oplog_window(client)
        except OperationFailure as error:
            if error.code != UNAUTHORIZED:
                raise
            return warning(
                "the user may not read local.oplog.rs, so how far the oplog reaches back is not known: grant the role "
                "clusterMonitor, or see to it that it is at least 24 hours"
            )
    if window is None:
        return skipped("this server does not show its oplog: see to it that changes stay readable for 24 hours")
    expected_s = window.expected_s
    if window.seconds >= LEAST_WINDOW_S:
        return ok(f"the oplog reaches back {_hours(window.seconds)}")
    remedy = "replSetResizeOplog with minRetentionHours: 24 (or a greater size) makes it at least a day"
    if expected_s is None:
        return warning(f"the oplog reaches back {_hours(window.seconds)} so far; {remedy}")
    if expected_s >= LEAST_WINDOW_S:
        return ok(
            f"the oplog reaches back {_hours(window.seconds)} so far and is not full: about {_hours(expected_s)} at "
            "this rate of writes"
        )
    return failed(
        f"the oplog holds about {_hours(expected_s)} of changes; a connector that is away for longer needs a new "
        f"snapshot; {remedy}"
    )


def _watch(client: MongoClient[Document], database: str) -> None:
    """Open a change stream as the connector does, on the whole deployment, and close it."""
    with client.watch([{"$match": {"ns.db": database}}], max_await_time_ms=WATCH_AWAIT_MS) as stream:
        stream.try_next()


def _may(ask: Callable[[], object]) -> bool:
    """Whether the server permits it; every other error goes on."""
    try:
        ask()
    except OperationFailure as error:
        if error.code == UNAUTHORIZED:
            return False
        raise
    return True


def _may_write_sentinel(told: Document, database: str) -> bool:
    """Whether `connectionStatus` lists what the writer's update of the sentinel needs."""
    granted: set[str] = set()
    for each in told.get("authenticatedUserPrivileges", ()):
        resource = each.get("resource", {})
        covers = resource.get("anyResource") or (
            resource.get("db") in ("", database) and resource.get("collection") in ("", SENTINEL_COLLECTION)
        )
        if covers:
            granted.update(each.get("actions", ()))
    return granted >= WRITE_ACTIONS or "anyAction" in granted


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return (
        f"{hours / 24:.0f} days" if hours >= 72 else f"{hours:.1f} hours" if hours >= 1 else f"{seconds / 60:.0f} min"
    )
