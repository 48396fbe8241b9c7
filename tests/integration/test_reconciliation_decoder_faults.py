"""A fault that the writer's decoder and reconciliation's own share makes both sides wrong alike; a run still tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bson import DatetimeMS, Int64
from decoder_faults import faulty_from_the_start, plant_in_raw_reader, plant_in_writers_decoder
from mongo_pipeline import MongoPipeline
from reconciling import Reconciling

from cdc_shared.documents import fast_decoder
from cdc_shared.documents import types as t
from cdc_shared.models.reconciliation import DifferenceKind, Outcome

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

COLLECTION = "dated"
DOCUMENTS = 60


@pytest.fixture(autouse=True)
def _decoder_without_faults() -> Iterator[None]:
    yield
    fast_decoder._unwraps.cache_clear()


@pytest.mark.parametrize(("kind", "pointer"), [(t.Kind.DATE, "/at"), (t.Kind.LONG, "/big")])
def test_a_run_tells_of_a_fault_that_both_sides_share(
    new_pipeline: Callable[..., MongoPipeline],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: t.Kind,
    pointer: str,
) -> None:
    faulty = faulty_from_the_start(tmp_path, kind)
    dated = Reconciling(new_pipeline(start=False, writer=faulty), COLLECTION, tmp_path / "runs", monkeypatch)
    dated.start()
    dated.pipeline.db[COLLECTION].insert_many(
        {"_id": f"d{n}", "at": DatetimeMS(1_700_000_000_000 + n), "big": Int64(2**40 + n)} for n in range(DOCUMENTS)
    )
    dated.await_rows(DOCUMENTS)
    with monkeypatch.context() as planted:
        plant_in_writers_decoder(kind, planted.setitem)
        plant_in_raw_reader(kind, planted.setitem)
        found = dated.run()
    assert (found.outcome, found.summary.sampled) == (Outcome.DIFFERENCES, DOCUMENTS)
    assert [each for each in found.digest_map if each.source_digest != each.sink_digest] == [], "both are wrong alike"
    assert {each.kind for each in found.differences} == {DifferenceKind.DECODER}
    assert len(found.differences) == DOCUMENTS
    assert {field.pointer for each in found.differences for field in each.fields} == {pointer}
