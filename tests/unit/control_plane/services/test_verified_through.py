"""Through when a pipeline is verified: no sooner than the last of its tables; and what Prometheus is told of each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from cdc_shared.models.reconciliation import DifferenceKind, Outcome
from control_plane.models.monitoring import CollectionMetrics, PipelineMetrics
from control_plane.models.reconciliation import Verification
from control_plane.services.pipeline_status import verified_through
from control_plane.services.prometheus_page import verification_series

pytestmark = pytest.mark.unit

AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


def verified(collection: str, through: datetime | None, **differences: int) -> Verification:
    return Verification(
        pipeline="shop",
        database="shop",
        collection=collection,
        verified_through=through,
        last_outcome=Outcome.DIFFERENCES if differences else Outcome.EQUAL,
        differences={DifferenceKind(kind): keys for kind, keys in differences.items()},
        checked_at=AT,
        last_job_id=None,
    )


def metrics(*collections: str) -> PipelineMetrics:
    """Of a pipeline whose writers report these tables."""
    tables = [CollectionMetrics.model_construct(database="shop", collection=each) for each in collections]
    return PipelineMetrics.model_construct(pipeline="shop", collections=tables)


def test_a_pipeline_is_verified_through_the_earliest_of_its_tables() -> None:
    both = [verified("orders", AT), verified("items", AT + timedelta(hours=1))]
    assert verified_through(metrics("orders", "items"), both) == AT
    assert verified_through(metrics("orders"), both) == AT, "a writer that says nothing of a table changes nothing"
    assert verified_through(metrics(), both) == AT


def test_one_table_that_is_not_verified_leaves_the_pipeline_unverified() -> None:
    assert verified_through(metrics(), []) is None
    assert verified_through(metrics("orders"), []) is None
    assert verified_through(metrics("orders", "items"), [verified("orders", AT)]) is None
    assert verified_through(metrics("orders"), [verified("orders", AT), verified("items", None)]) is None


def test_prometheus_is_told_of_every_table_that_was_compared() -> None:
    found = [verified("orders", AT, missing=2), verified("items", None)]

    class Series(Collector):
        def collect(self):  # type: ignore[no-untyped-def]
            return verification_series(found)

    registry = CollectorRegistry()
    registry.register(Series())

    def value(name: str, collection: str, **labels: str) -> float | None:
        where = {"pipeline": "shop", "database": "shop", "collection": collection, **labels}
        return registry.get_sample_value(name, where)

    assert value("cdc_collection_verified_through_timestamp_seconds", "orders") == AT.timestamp()
    assert value("cdc_collection_verified_through_timestamp_seconds", "items") is None
    assert value("cdc_collection_checked_timestamp_seconds", "items") == AT.timestamp()
    assert value("cdc_collection_differences", "orders", kind="missing") == 2
    assert value("cdc_collection_differences", "items", kind="missing") is None
