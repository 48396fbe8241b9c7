"""A part of the source holds a row for each document, with the hashes that the writer's row of it has."""

from __future__ import annotations

import pickle
from typing import Any

import bson
import numpy as np
import pytest
from bson import Timestamp
from fake_collection import FakeCollection

from cdc_shared.delta.key_hash import hash_keys
from cdc_shared.documents import DocumentSchema, FieldPolicies, document_key, from_delta_schema, to_delta_schema
from cdc_shared.documents import types as t
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.models.reconciliation import Mode
from cdc_shared.settings import SecretsSettings
from reconciliation.reconciler.expected_rows import expect
from reconciliation.reconciler.independent_path import canonical_of_raw
from reconciliation.reconciler.row_digest import row_digests
from reconciliation.reconciler.spill import ScannedPart, SourceStatus
from reconciliation.sources.chunks import ALL, Bracket, Chunk
from reconciliation.sources.source_scan import SourceScanTask, prepared, scan_chunk

pytestmark = pytest.mark.unit

NO_SECRETS = SecretsSettings(file=None, key_file=None, key=None)
ORDERS = Collection("shop", "orders")
SCHEMA = DocumentSchema(
    (
        t.Field("_id", t.Scalar(t.Kind.LONG), "_id"),
        t.Field("name", t.Scalar(t.Kind.STRING), "name"),
        t.Field("paid", t.Scalar(t.Kind.LONG), "paid"),
    )
)
DOCUMENTS = [{"_id": i, "name": f"n{i}", "paid": i % 3} for i in range(12_000)]


def task(mode: Mode = Mode.FULL, quality: QualitySpec | None = None, **options: Any) -> SourceScanTask:
    spec = PipelineSpec(
        name="p", source=SourceSpec(connection="env:URI", database="shop"), quality=quality or QualitySpec()
    )
    values = {"run_id": "r", "chunk": Chunk(3, ALL), "sample_mask": None, **options}
    return SourceScanTask(spec=spec, collection=ORDERS, mode=mode, schema=to_delta_schema(SCHEMA), **values)


def scanned(task: SourceScanTask, source: FakeCollection) -> ScannedPart:
    return scan_chunk(task, source, prepared(task, NO_SECRETS))  # type: ignore[arg-type]


def test_a_part_has_the_hashes_of_every_documents_row() -> None:
    wanted = task(sample_mask=127)
    part = scanned(wanted, FakeCollection(DOCUMENTS))
    raws = [bson.encode(each) for each in DOCUMENTS]
    rules = prepared(wanted, NO_SECRETS).rules
    schema = from_delta_schema(wanted.schema)
    digests = row_digests(expect(raws, schema, rules, FieldPolicies()).table, schema)
    hashes = hash_keys(map(document_key, raws))

    rows = part.rows.to_pydict()
    found = {key: at for at, key in enumerate(rows["source_key"])}
    assert len(found) == len(part.rows) == len(DOCUMENTS)
    assert rows["hash_hi"] == sorted(rows["hash_hi"])
    for i, raw in enumerate(raws):
        at = found[document_key(raw)]
        assert (rows["hash_hi"][at], rows["hash_lo"][at]) == tuple(hashes[i].tolist())
        assert (rows["digest_hi"][at], rows["digest_lo"][at]) == tuple(digests[i].tolist())
        sampled = int(hashes[i, 1]) & 127 == 0
        assert rows["canonical"][at] == (canonical_of_raw(raw, rules) if sampled else None)
    assert set(rows["status"]) == {SourceStatus.EXPECTED}
    assert part.number == 3
    assert part.facts["documents"] == len(DOCUMENTS)
    assert part.facts["bytes"] == sum(map(len, raws))
    assert 0 < part.facts["sampled"] < 300


def test_no_documents_are_an_empty_part() -> None:
    part = scanned(task(), FakeCollection([]))
    assert len(part.rows) == 0
    assert part.facts["documents"] == 0


def test_mode_keys_reads_keys_alone() -> None:
    source = FakeCollection(DOCUMENTS[:100])
    part = scanned(task(Mode.KEYS), source)
    assert source.cursors[0]["projection"] == {"_id": 1}
    rows = part.rows.to_pydict()
    assert sorted(rows["source_key"]) == sorted(str(each["_id"]) for each in DOCUMENTS[:100])
    assert set(rows["digest_hi"]) == set(rows["digest_lo"]) == {0}
    assert set(rows["status"]) == {SourceStatus.EXPECTED}


def test_mode_keys_reads_documents_where_rules_decide_by_them_whether_they_have_a_row() -> None:
    quality = QualitySpec.model_validate(
        {"version": 1, "validation": [{"rule": "filter", "expression": "paid > 0", "on_failure": "skip"}]}
    )
    source = FakeCollection(DOCUMENTS[:90])
    part = scanned(task(Mode.KEYS, quality), source)
    assert source.cursors[0]["projection"] is None
    statuses = part.rows.column("status").to_pylist()
    assert statuses.count(SourceStatus.FILTERED) == 30
    assert statuses.count(SourceStatus.EXPECTED) == 60
    assert set(part.rows.column("digest_hi").to_pylist()) == {0}


def test_masked_ids_are_hashed_as_the_table_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASK", "a key of more than sixteen bytes")
    quality = QualitySpec.model_validate(
        {"version": 1, "transformation": [{"rule": "hash", "path": "/_id", "key": "env:MASK"}]}
    )
    for mode in (Mode.FULL, Mode.KEYS):
        wanted = task(mode, quality)
        part = scanned(wanted, FakeCollection(DOCUMENTS[:50]))
        rules = prepared(wanted, NO_SECRETS).rules
        source_keys: list[Any] = part.rows.column("source_key").to_pylist()
        hashes = hash_keys(rules.key_text(key) for key in source_keys)
        assert np.array_equal(part.rows.column("hash_hi").to_numpy(), hashes[:, 0])
        assert sorted(map(int, source_keys)) == list(range(50))


def test_tasks_of_a_run_share_what_is_dear_and_other_rules_do_not() -> None:
    first = prepared(task(), NO_SECRETS)
    assert prepared(task(chunk=Chunk(4, ALL)), NO_SECRETS) is first
    assert prepared(task(Mode.FULL, QualitySpec(version=2)), NO_SECRETS) is not first
    assert prepared(task(run_id="another"), NO_SECRETS) is not first


def test_the_cap_of_a_task_is_its_workers() -> None:
    assert prepared(task(documents_per_s=10.0), NO_SECRETS).throttle.batch_documents == 5


def test_a_task_can_be_sent_and_shows_no_id() -> None:
    lower, upper = bson.encode({"_id": "ann@example.com"}), bson.encode({"_id": "bob@example.com"})
    wanted = task(chunk=Chunk(7, (Bracket.STRING,), lower, upper), not_before=Timestamp(5, 6))
    assert pickle.loads(pickle.dumps(wanted)) == wanted
    assert repr(wanted) == "SourceScanTask(p/shop/orders, chunk 7, run r)"
