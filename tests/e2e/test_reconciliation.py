"""Seeded damage is found, each of it explained rightly and nothing else; it is repaired; a second run is clean."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mongo_pipeline import MongoPipeline
from people import document
from reconciling import Reconciling, assert_explained
from table_damage import HARMLESS, Harm

from cdc_shared.models.reconciliation import Outcome

pytestmark = pytest.mark.e2e

DOCUMENTS = int(os.environ.get("RECONCILIATION_DOCUMENTS", "20000"))
"""By hand, 200,000: `RECONCILIATION_DOCUMENTS=200000 pytest tests/e2e/test_reconciliation.py`."""
EACH = 50
INSERTED_AT_ONCE = 5_000
COLLECTION = "people"


@pytest.mark.timeout(300 + DOCUMENTS // 500)
def test_seeded_damage_is_found_explained_and_repaired(
    new_pipeline: Callable[..., MongoPipeline],
    rng: random.Random,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measured: Callable[[str, float, str], None],
) -> None:
    people = Reconciling(new_pipeline(start=False, partitions=2), COLLECTION, tmp_path / "runs", monkeypatch)
    people.start()
    source = people.pipeline.db[COLLECTION]
    for start in range(0, DOCUMENTS, INSERTED_AT_ONCE):
        source.insert_many(map(document, range(start, min(DOCUMENTS, start + INSERTED_AT_ONCE))))
    people.await_rows(DOCUMENTS)

    people.stop_writer()
    done = people.damage(rng, dict.fromkeys(Harm, EACH), range(DOCUMENTS, DOCUMENTS + EACH))
    people.start_writer()

    started = time.monotonic()
    found = people.run()
    measured(f"full run over {DOCUMENTS:,} documents with {len(done)} damaged rows", time.monotonic() - started, "s")
    assert found.outcome is Outcome.DIFFERENCES
    assert (found.summary.documents, found.verified_through) == (DOCUMENTS, None)
    assert_explained(found, done)
    assert not any("@example.org" in f"{each.document} {each.row}" for each in found.differences)

    started = time.monotonic()
    repaired = people.repair(found.differences)
    measured(f"repair of {len(found.differences)} rows", time.monotonic() - started, "s")
    damaged = sum(harm not in HARMLESS for harm in done.values())
    assert (repaired.asked, repaired.applied, repaired.refused) == (damaged, damaged, {})
    keys = [each.source_key for each in found.differences if each.source_key is not None]
    verified = people.run(people.request(keys=keys))
    assert (verified.outcome, verified.summary.compared) == (Outcome.EQUAL, damaged)

    again = people.run()
    assert again.outcome is Outcome.EQUAL, again.summary
    assert (list(again.differences), again.summary.documents, again.summary.rows) == ([], DOCUMENTS, DOCUMENTS)
    assert again.verified_through is not None
