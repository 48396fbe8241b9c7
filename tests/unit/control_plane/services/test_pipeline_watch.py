"""What is asked about pipelines again and again costs little however many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

import pytest

from cdc_shared.settings import KafkaSettings
from control_plane.blocking import BlockingCalls
from control_plane.models.pipeline import Desired, PipelineConfig, PipelineRecord
from control_plane.repositories import pipeline_repo
from control_plane.services import pipeline_watch
from control_plane.services.lifecycle import config_of
from control_plane.services.pipeline_watch import PipelineWatch

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

MADE_AT = datetime(2026, 1, 1, tzinfo=UTC)


class NoDatabase:
    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        yield None


def record(name: str, database: str = "db") -> PipelineRecord:
    spec = PipelineConfig.model_validate({"name": name, "source": {"connection": "env:X", "database": database}})
    return PipelineRecord(
        name, uuid4(), spec.stored(), 1, Desired.STOPPED, 0, MADE_AT, False, False, MADE_AT, "", MADE_AT, ""
    )


async def test_a_spec_is_checked_once_for_each_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with many rules takes 10 ms, in which the event loop answers nobody."""
    records = [record("a"), record("b"), replace(record("c"), spec={"novelty": 1})]
    checked: list[str] = []

    async def every(_: object) -> Sequence[PipelineRecord]:
        return records

    def counted(of: PipelineRecord, real: Any = config_of) -> PipelineConfig:
        checked.append(of.name)
        return cast(PipelineConfig, real(of))

    monkeypatch.setattr(pipeline_repo, "every", every)
    monkeypatch.setattr(pipeline_watch, "config_of", counted)
    settings = cast(Any, type("OnlyKafka", (), {"kafka": KafkaSettings(bootstrap_servers="127.0.0.1:1")}))
    watch = PipelineWatch(settings, cast(Any, NoDatabase()), BlockingCalls())
    try:
        assert [name for name, _, _ in await watch._pipelines()] == ["a", "b"]
        checked.clear()
        records[1] = replace(records[1], spec=record("b", "other").spec, version=2)
        found = {name: spec.source.database for name, spec, _ in await watch._pipelines()}
        assert (found, checked) == ({"a": "db", "b": "other"}, ["b", "c"])
        del records[0]
        await watch._pipelines()
        assert list(watch._specs) == ["b"]
    finally:
        watch.close()
