"""What becomes of candidates: what is right, wrong, explained, on its way, or not to be told."""

from typing import Any

import pytest
from bson import ObjectId
from still_collection import NOW_MS, StillCollection, rules, told

from cdc_shared.errors import Transient
from cdc_shared.models.reconciliation import DifferenceKind
from reconciliation.reconciler.data_comparator import Candidate
from reconciliation.reconciler.discrepancy_detector import (
    FAILURES_IN_A_ROW,
    Difference,
    SettleLimits,
    candidates_of_keys,
)
from reconciliation.reconciler.progress import Cancelled
from reconciliation.reconciler.spill import KEYLESS

pytestmark = pytest.mark.unit

MASK = {"rule": "hash", "path": "/_id", "key": "env:KEY"}


def only(collection: StillCollection, *keys: Any, **options: Any) -> Difference:
    """The one difference that is found."""
    (difference,) = collection.settle(*keys, **options).differences
    return difference


def test_what_is_equal_by_now_was_lag() -> None:
    collection = StillCollection()
    key = collection.both({"_id": 1, "total": 2.5})
    settled = collection.settle(key)
    assert (settled.equal, settled.differences, dict(settled.counts)) == (1, [], {})
    assert collection.decided == 1


def test_a_document_without_a_row_is_missing() -> None:
    collection = StillCollection()
    key = collection.document({"_id": 1, "total": 2.5})
    difference = only(collection, key)
    assert (difference.kind, difference.key, difference.source_key, difference.rows) == ("missing", "1", "1", 0)
    assert told(difference.document) == {"_id": 1, "total": 2.5}
    assert difference.row is None


def test_a_row_without_a_document_is_extra() -> None:
    collection = StillCollection()
    key = collection.row({"_id": "gone", "total": 1})
    difference = only(collection, key)
    assert (difference.kind, difference.key, difference.source_key) == ("extra", '"gone"', '"gone"')
    assert told(difference.row) == {"_id": "gone", "total": 1}
    assert "Repair deletes the row" in difference.explanation


def test_a_row_that_is_gone_by_now_is_no_difference() -> None:
    collection = StillCollection()
    key = collection.row({"_id": 1})
    candidate = collection.candidate(key)
    collection.rows.clear()
    assert collection.settle(candidate).equal == 1


def test_5_and_5_point_0_are_two_keys() -> None:
    """MongoDB finds either by the other; the rows' keys differ."""
    collection = StillCollection()
    collection.document({"_id": 5.0, "a": 1})
    collection.row({"_id": 5.0, "a": 1})
    extra = collection.row({"_id": 5, "a": 1})
    settled = collection.settle("5.0", extra)
    assert settled.equal == 1
    assert [(each.kind, each.key) for each in settled.differences] == [("extra", "5")]


def test_several_rows_of_a_key_are_duplicated_even_if_each_is_right() -> None:
    collection = StillCollection()
    collection.both({"_id": 1, "a": 1})
    key = collection.row({"_id": 1, "a": 1})
    difference = only(collection, key)
    assert (difference.kind, difference.rows, difference.fields) == ("duplicated", 2, ())


def test_of_duplicates_the_one_that_differs_is_shown() -> None:
    collection = StillCollection()
    collection.both({"_id": 1, "a": 1})
    key = collection.row({"_id": 1, "a": 1}, a=9)
    difference = only(collection, key)
    assert difference.kind == "duplicated"
    assert [(each.pointer, each.how) for each in difference.fields] == [("/a", "value")]
    assert told(difference.row) == {"_id": 1, "a": 9}


def test_a_row_that_holds_something_else_is_different_and_its_fields_are_named() -> None:
    collection = StillCollection()
    key = collection.document({"_id": 1, "a": 1, "b": {"c": "x"}})
    collection.row({"_id": 1, "a": 1, "b": {"c": "x"}}, b={"c": "y"})
    difference = only(collection, key)
    assert difference.kind == "different"
    assert [(each.pointer, each.how) for each in difference.fields] == [("/b/c", "value")]
    assert "/b/c" in difference.explanation


def test_without_values_a_row_for_each_document_is_enough() -> None:
    collection = StillCollection()
    key = collection.document({"_id": 1, "a": 1})
    collection.row({"_id": 1, "a": 1}, a=2)
    assert collection.settle(key, values=False).equal == 1


def test_columns_that_hold_no_document_are_a_difference_and_no_crash() -> None:
    """As another program may write them."""
    collection = StillCollection()
    document = {"_id": 1, "customer": ObjectId()}
    key = collection.document(document)
    collection.row(document, customer="no such thing")
    difference = only(collection, key)
    assert (difference.kind, difference.row) == ("different", None)
    assert difference.fields[0].pointer == ""


def test_rows_without_a_key_are_extra_at_once() -> None:
    collection = StillCollection(watermark_ms=None)
    collection.row({"_id": 1}, _cdc_key=None)
    candidate = Candidate(DifferenceKind.EXTRA, KEYLESS, None, None, (), 1)
    difference = only(collection, candidate)
    assert (difference.kind, difference.key, difference.source_key) == ("extra", "", None)
    assert "no _cdc_key" in difference.explanation


# -- on its way --------------------------------------------------------------------------------------------------------


def test_nothing_is_called_wrong_while_a_change_of_the_key_is_under_way() -> None:
    collection = StillCollection()
    key = collection.document({"_id": 1})
    collection.under_way = {"1"}
    settled = collection.settle(key)
    (difference,) = settled.differences
    assert difference.kind == "lagging"
    assert "changed each of the" in difference.explanation
    assert len(settled.generations) > 5
    assert collection.now >= 30


def test_what_cannot_be_told_counts_as_under_way() -> None:
    collection = StillCollection(gone=True)
    key = collection.document({"_id": 1})
    assert only(collection, key).kind == "lagging"


def test_a_key_that_is_equal_although_it_changed_is_right() -> None:
    collection = StillCollection()
    key = collection.both({"_id": 1})
    collection.under_way = {"1"}
    assert collection.settle(key).equal == 1


@pytest.mark.parametrize("watermark_ms", [None, NOW_MS - 1000, NOW_MS])
def test_a_writer_that_does_not_come_as_far_leaves_everything_undecided(watermark_ms: int | None) -> None:
    collection = StillCollection(watermark_ms=watermark_ms)
    keys = [collection.document({"_id": number}) for number in range(5)]
    settled = collection.settle(*keys, limits=SettleLimits(timeout_s=60, keys_at_once=2))
    assert dict(settled.counts) == {"lagging": 2}
    assert settled.uninspected == 3
    assert collection.now == pytest.approx(60, abs=1)
    assert [each for each in collection.waited if each]
    assert collection.waited[-1] is None
    assert settled.generations[-1].version is None


def test_a_table_that_waits_for_a_snapshot_is_waited_for() -> None:
    collection = StillCollection(whole=False)
    key = collection.document({"_id": 1})
    assert only(collection, key).kind == "lagging"


def test_a_document_that_cannot_be_asked_for_is_undecided() -> None:
    collection = StillCollection()
    key = collection.document({"_id": 1})
    collection.refused[key] = "the source's document is no BSON"
    difference = only(collection, key)
    assert (difference.kind, difference.explanation) == (
        "lagging", "It cannot be compared: the source's document is no BSON."
    )  # fmt: skip


def test_an_error_that_passes_costs_a_pause() -> None:
    collection = StillCollection(errors=[Transient("no primary"), Transient("no primary")])
    key = collection.document({"_id": 1})
    assert only(collection, key).kind == "missing"
    assert "no primary" in collection.waited
    assert collection.now >= 3


def test_what_was_decided_before_an_error_is_decided_once() -> None:
    collection = StillCollection(errors=[Transient("no primary")])
    gone = collection.row({"_id": 1})
    candidates = [collection.candidate(gone), collection.candidate(collection.document({"_id": 2}))]
    collection.rows.clear()
    settled = collection.settle(*candidates)
    assert (settled.equal, dict(settled.counts), collection.decided) == (1, {"missing": 1}, 2)


def test_an_error_that_stays_ends_it() -> None:
    collection = StillCollection(errors=[Transient("no primary")] * FAILURES_IN_A_ROW)
    with pytest.raises(Transient, match="no primary"):
        collection.settle(collection.document({"_id": 1}))


def test_a_cancelled_run_ends_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    collection = StillCollection(watermark_ms=None)

    def check(_: Any) -> None:
        if collection.now > 3:
            raise Cancelled

    monkeypatch.setattr("still_collection.Control.check", check)
    with pytest.raises(Cancelled):
        collection.settle(collection.document({"_id": 1}))
    assert collection.now < 5


# -- how much ----------------------------------------------------------------------------------------------------------


def test_when_enough_is_wrong_the_rest_is_not_looked_into() -> None:
    collection = StillCollection()
    keys = [collection.document({"_id": number}) for number in range(10)]
    settled = collection.settle(*keys, limits=SettleLimits(max_differences=4, keys_at_once=2))
    assert (len(settled.differences), dict(settled.counts), settled.uninspected) == (4, {"missing": 4}, 6)


def test_documents_that_take_too_much_memory_wait_for_the_next_generation() -> None:
    collection = StillCollection()
    keys = [collection.document({"_id": number}) for number in range(2500)]
    settled = collection.settle(*keys, limits=SettleLimits(bytes_at_once=100))
    assert dict(settled.counts) == {"missing": 2500}
    assert [each.confirmed for each in settled.generations] == [1000, 1000, 500]
    assert sum(each.keys - each.pending for each in settled.generations) == 2500


def test_keys_can_be_looked_into_without_a_scan() -> None:
    collection = StillCollection()
    right = collection.both({"_id": 1})
    wrong = collection.document({"_id": 2})
    extra = collection.row({"_id": 3})
    candidates = candidates_of_keys([right, wrong, extra, "4", wrong], collection.rules.newest.rules)
    settled = collection.settle(*candidates, scanned=False)
    assert settled.equal == 2
    assert {each.key: each.kind for each in settled.differences} == {"2": "missing", "3": "extra"}


# -- masked ids --------------------------------------------------------------------------------------------------------


def masked() -> StillCollection:
    return StillCollection(quality=rules(1, transformation=[MASK]))


def test_the_key_of_a_masked_id_is_shown_as_the_table_has_it() -> None:
    collection = masked()
    key = collection.document({"_id": 1, "a": 1})
    difference = only(collection, key)
    assert difference.key == collection.rules.newest.rules.key_text("1") != "1"
    assert difference.source_key == "1"
    assert told(difference.document)["a"] == 1
    assert len(told(difference.document)["_id"]) == 64


def test_an_extra_row_of_a_masked_id_is_told_by_the_scan() -> None:
    collection = masked()
    key = collection.row({"_id": 1, "a": 1}, 1)
    difference = only(collection, collection.candidate(key, DifferenceKind.EXTRA))
    assert (difference.kind, difference.source_key) == ("extra", None)
    assert "resync" in difference.explanation


def test_the_key_of_a_masked_row_is_learned_from_its_event() -> None:
    """It came between the scan of the source and now."""
    collection = masked()
    key = collection.row({"_id": 1, "a": 1}, 1)
    candidate = collection.candidate(key, DifferenceKind.EXTRA)
    collection.document({"_id": 1, "a": 1})
    collection.under_way = {"1"}
    settled = collection.settle(candidate)
    assert (settled.equal, len(settled.generations)) == (1, 2)


def test_without_a_scan_nobody_can_tell_of_an_extra_masked_row() -> None:
    collection = masked()
    key = collection.row({"_id": 1}, 1)
    difference = only(collection, collection.candidate(key, DifferenceKind.EXTRA), scanned=False)
    assert difference.kind == "lagging"
    assert "full comparison" in difference.explanation


# -- the decoder -------------------------------------------------------------------------------------------------------


def test_a_difference_that_only_the_independent_path_saw_is_the_decoders() -> None:
    """A row that is wrong by an hour, made so by the same code on both sides."""
    collection = StillCollection()
    document = {"_id": 1, "a": 1}
    key = collection.document(document)
    collection.row(document, a=2)
    difference = only(collection, collection.candidate(key, DifferenceKind.DECODER))
    assert difference.kind == "decoder"
    assert "fault of the platform" in difference.explanation


def test_a_decoder_that_misreads_the_source_in_both_places_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text from which row and comparison are made says 2, the document 1."""
    collection = StillCollection()
    key = collection.document({"_id": 1, "a": 1})
    collection.row({"_id": 1, "a": 2})
    monkeypatch.setattr("still_collection.document_text", lambda _: '{"_id": 1,"a": 2}')
    difference = only(collection, collection.candidate(key, DifferenceKind.DECODER))
    assert difference.kind == "decoder"
