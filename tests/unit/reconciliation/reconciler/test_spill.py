"""Parts are there whole or not at all, and only as long as the run is the same."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hash_parts import manifest

from cdc_shared.delta.key_hash import hash_keys
from reconciliation.reconciler.spill import ScannedPart, Side, SourceStatus, Spill, source_part
from reconciliation.sources.sink_scan import FileSlice

pytestmark = pytest.mark.unit


def part(number: int, keys: list[str], facts: dict[str, int] | None = None) -> ScannedPart:
    hashes = hash_keys(keys)
    statuses = np.full(len(keys), SourceStatus.EXPECTED, np.uint8)
    return source_part(
        number, hashes, hash_keys(f"digest of {key}" for key in keys), statuses, keys, {0: b"c" * 16}, facts
    )


def test_rows_keep_together_when_they_are_sorted(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill")
    spill.begin(manifest(1, 0))
    keys = [f'"k{n}"' for n in range(100)]
    spill.write(part(0, keys))
    rows = pq.read_table(spill.parts(Side.SOURCE)[0]).to_pylist()
    assert [row["hash_hi"] >> 40 for row in rows] == sorted(row["hash_hi"] >> 40 for row in rows)
    by_key = {row["source_key"]: row for row in rows}
    assert sorted(by_key) == sorted(keys)
    for key, row in by_key.items():
        assert [row["hash_hi"], row["hash_lo"]] == hash_keys([key])[0].tolist()
        assert [row["digest_hi"], row["digest_lo"]] == hash_keys([f"digest of {key}"])[0].tolist()
        assert row["canonical"] == (b"c" * 16 if key == keys[0] else None)


def test_a_run_that_goes_on_keeps_its_parts_and_another_does_not(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill")
    assert spill.manifest() is None
    spill.begin(manifest(3, 2))
    spill.write(part(2, ['"a"']))
    again = Spill(tmp_path / "spill")
    assert again.manifest() == manifest(3, 2)
    again.begin(manifest(3, 2))
    assert again.finished(Side.SOURCE) == {2}
    assert again.finished(Side.SINK) == set()
    again.begin(msgspec.structs.replace(manifest(3, 2), version=8))
    assert again.finished(Side.SOURCE) == set()


def test_the_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill")
    plan = [[FileSlice(0, 0, 7), FileSlice(1)]]
    spill.begin(msgspec.structs.replace(manifest(0, 1), sink_plan=plan))
    found = spill.manifest()
    assert found is not None
    assert msgspec.convert(found.sink_plan, list[list[FileSlice]]) == plan
    spill.begin(found)
    spill.begin(msgspec.structs.replace(found, sink_plan=plan))


def test_what_was_not_finished_is_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spill = Spill(tmp_path / "spill")
    spill.begin(manifest(1, 1))

    def disk_full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reconciliation.reconciler.spill._sync", disk_full)
    with pytest.raises(OSError, match="No space"):
        spill.write(part(0, ['"a"']))
    assert spill.finished(Side.SOURCE) == set()
    assert spill.facts(Side.SOURCE) == {"rows": 0}


def test_a_manifest_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    (tmp_path / "manifest.json").write_text('{"software": 1}')
    assert spill.manifest() is None
    spill.begin(manifest(1, 1))
    assert spill.manifest() == manifest(1, 1)


def test_facts_and_the_digest_map_add_up(tmp_path: Path) -> None:
    """The map is the same however rows are dealt to parts, and another one when a single bit is."""
    keys = [f'"k{n}"' for n in range(2_000)]
    maps = []
    for cut in (500, 1_999):
        spill = Spill(tmp_path / str(cut))
        spill.begin(manifest(2, 0))
        spill.write(part(0, keys[:cut], {"sampled": 2}))
        spill.write(part(1, keys[cut:], {"sampled": 3, "retries": 1}))
        assert spill.facts(Side.SOURCE) == {"rows": 2_000, "sampled": 5, "retries": 1}
        maps.append(spill.range_sums(Side.SOURCE))
    assert (maps[0].rows == maps[1].rows).all()
    assert (maps[0].digest == maps[1].digest).all()
    assert maps[0].rows.sum() == 2_000
    counted = np.bincount((hash_keys(keys)[:, 0] >> np.uint64(56)).astype(int), minlength=256)
    assert (maps[0].rows == counted).all()
    changed = part(0, keys)
    digests = changed.rows["digest_lo"].to_numpy().copy()
    digests[7] ^= np.uint64(1)
    at = changed.rows.column_names.index("digest_lo")
    spill = Spill(tmp_path / "changed")
    spill.begin(manifest(1, 0))
    rows = changed.rows.set_column(at, changed.rows.schema.field(at), pa.array(digests))
    spill.write(ScannedPart(Side.SOURCE, 0, rows, {}))
    differs = np.flatnonzero(spill.range_sums(Side.SOURCE).digest != maps[0].digest)
    assert differs.tolist() == [changed.rows["hash_hi"][7].as_py() >> 56]


def test_an_empty_part_is_a_part(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill")
    spill.begin(manifest(1, 0))
    hashes = hash_keys([])
    spill.write(source_part(0, hashes, hashes, np.empty(0, np.uint8), []))
    assert spill.finished(Side.SOURCE) == {0}
    assert spill.range_sums(Side.SOURCE).rows.sum() == 0
