"""What rules and dead letters explain, and what they do not."""

from typing import Any

import pytest
from still_collection import NOW_MS, StillCollection, letter, rules, told

from reconciliation.reconciler.discrepancy_detector import Difference
from reconciliation.reconciler.shown_documents import MAX_CHARACTERS

pytestmark = pytest.mark.unit

IS_POSITIVE = {"rule": "range", "path": "/total", "min": 0}
IS_OPEN = {"rule": "filter", "expression": "status = 'open'"}
REDACT = {"rule": "redact", "path": "/email"}
HASH = {"rule": "hash", "path": "/a", "key": "env:GONE"}
DELETES = {"rejected_updates": "delete"}


def only(collection: StillCollection, *keys: Any) -> Difference:
    (difference,) = collection.settle(*keys).differences
    return difference


# -- rules -------------------------------------------------------------------------------------------------------------


def test_a_document_that_a_rule_rejects_needs_no_row() -> None:
    collection = StillCollection(quality=rules(1, validation=[IS_POSITIVE]))
    difference = only(collection, collection.document({"_id": 1, "total": -1}))
    assert difference.kind == "rejected"
    assert "range:/total" in difference.explanation
    assert "-1" not in difference.explanation


def test_a_rejected_update_leaves_its_last_valid_row() -> None:
    collection = StillCollection(quality=rules(1, validation=[IS_POSITIVE]))
    collection.row({"_id": 1, "total": 5}, 1)
    difference = only(collection, collection.document({"_id": 1, "total": -1}))
    assert (difference.kind, difference.rows) == ("rejected", 1)
    assert [each.pointer for each in difference.fields] == ["/total"]


def test_where_a_rejected_update_deletes_the_row_is_one_too_many() -> None:
    quality = rules(1, validation=[IS_POSITIVE], dirty_data=DELETES)
    collection = StillCollection(quality=quality, published={1: quality})
    collection.row({"_id": 1, "total": 5}, 1)
    assert only(collection, collection.document({"_id": 1, "total": -1})).kind == "extra"


def test_a_row_from_when_a_rejected_update_kept_its_row_is_explained() -> None:
    kept, now = rules(1, validation=[IS_POSITIVE]), rules(2, validation=[IS_POSITIVE], dirty_data=DELETES)
    collection = StillCollection(quality=now, published={1: kept, 2: now})
    collection.row({"_id": 1, "total": 5}, 1)
    assert only(collection, collection.document({"_id": 1, "total": -1})).kind == "rejected"


def test_a_document_that_does_not_match_the_filter_has_no_row() -> None:
    collection = StillCollection(quality=rules(1, validation=[IS_OPEN]))
    assert only(collection, collection.document({"_id": 1, "status": "done"})).kind == "filtered"


def test_a_row_of_a_document_that_does_not_match_the_filter_is_extra() -> None:
    collection = StillCollection(quality=rules(1, validation=[IS_OPEN]))
    collection.row({"_id": 1, "status": "open"}, 1)
    difference = only(collection, collection.document({"_id": 1, "status": "done"}))
    assert (difference.kind, difference.rows) == ("extra", 1)
    assert told(difference.row)["status"] == "open"


@pytest.mark.parametrize(
    ("quality", "counts"),
    [
        ({"validation": [{**IS_OPEN, "expression": "total > 0"}]}, {"extra": 1}),
        ({"validation": [IS_POSITIVE], "dirty_data": DELETES}, {"extra": 1}),
        ({"validation": [IS_POSITIVE]}, {}),  # the last valid row stays
    ],
)
def test_a_row_that_should_be_gone_is_extra_though_it_holds_what_the_rules_leave(
    quality: dict[str, Any], counts: dict[str, int]
) -> None:
    """The rules drop the field that they judge by, so a row that was left behind looks like its document."""
    now = rules(1, transformation=[{"rule": "drop", "path": "/total"}], **quality)
    collection = StillCollection(quality=now, published={1: now})
    collection.row({"_id": 1, "a": 7}, 1)
    assert dict(collection.settle(collection.document({"_id": 1, "a": 7, "total": -1})).counts) == counts


def test_a_row_of_before_the_filter_is_right_until_its_document_changes() -> None:
    collection = StillCollection(quality=rules(1, validation=[IS_OPEN]), published={1: rules(1, validation=[IS_OPEN])})
    collection.row({"_id": 1, "status": "done"}, 0)
    assert collection.settle(collection.document({"_id": 1, "status": "done"})).equal == 1


def test_a_document_beyond_the_size_limit_needs_no_row() -> None:
    collection = StillCollection(quality=rules(1, dirty_data={"max_document_size": 1024}))
    difference = only(collection, collection.document({"_id": 1, "text": "x" * 1024}))
    assert difference.kind == "rejected"
    assert "1,024 that are allowed" in difference.explanation


def test_a_row_is_compared_under_the_rules_that_made_it() -> None:
    first = rules(1, transformation=[{"rule": "rename", "path": "/a", "to": "b"}])
    collection = StillCollection(quality=rules(2), published={1: first, 2: rules(2)})
    collection.row({"_id": 1, "a": 7}, 1)
    assert collection.settle(collection.document({"_id": 1, "a": 7})).equal == 1
    collection.rows.clear()
    collection.row({"_id": 1, "a": 7}, 2)
    collection.row({"_id": 2, "a": 7}, 2, _cdc_rules_version=1)
    assert only(collection, collection.document({"_id": 2, "a": 7})).kind == "different"


@pytest.mark.parametrize(
    "published", [{}, {1: rules(1, transformation=[{"rule": "hash", "path": "/a", "key": "env:GONE"}])}]
)
def test_a_row_whose_rules_are_not_to_be_had_is_undecided(published: dict[int, Any]) -> None:
    collection = StillCollection(quality=rules(2), published=published)
    collection.row({"_id": 1, "a": 7}, 0, _cdc_rules_version=1)
    difference = only(collection, collection.document({"_id": 1, "a": 7}))
    assert (difference.kind, difference.rules_version) == ("lagging", 1)
    assert "version 1 of the rules" in difference.explanation
    assert "repair" in difference.explanation


def test_what_is_too_many_is_too_many_whatever_rules_it_was_made_by() -> None:
    collection = StillCollection()
    collection.both({"_id": 1})
    twice = collection.row({"_id": 1}, _cdc_rules_version=99)
    gone = collection.row({"_id": 2}, _cdc_rules_version=99)
    settled = collection.settle(twice, gone)
    assert {each.key: each.kind for each in settled.differences} == {"1": "duplicated", "2": "extra"}
    assert settled.differences[1].row is None


def test_what_an_older_version_rejected_is_missing_with_a_hint() -> None:
    """The rules of today want it, so a repair brings it in."""
    published = {1: rules(1, validation=[IS_POSITIVE]), 2: rules(2)}
    collection = StillCollection(quality=published[2], published=published)
    difference = only(collection, collection.document({"_id": 1, "total": -1}))
    assert difference.kind == "missing"
    assert "Version 1 of the rules did not let it pass" in difference.explanation


# -- masks -------------------------------------------------------------------------------------------------------------


def test_masked_fields_are_compared_and_shown_as_the_table_has_them() -> None:
    collection = StillCollection(quality=rules(1, transformation=[REDACT]))
    document = {"_id": 1, "email": "ada@example.org", "a": 1}
    collection.row(document, 1, a=2)
    difference = only(collection, collection.document(document))
    assert [each.pointer for each in difference.fields] == ["/a"]
    assert told(difference.document)["email"] == told(difference.row)["email"] == "***"


def test_a_mask_that_another_program_took_off_is_found() -> None:
    collection = StillCollection(quality=rules(1, transformation=[REDACT]))
    document = {"_id": 1, "email": "ada@example.org"}
    collection.row(document, 1, email="ada@example.org")
    difference = only(collection, collection.document(document))
    assert (difference.kind, [each.pointer for each in difference.fields]) == ("different", ["/email"])
    assert "ada" not in str(difference.document) + difference.explanation


def test_a_row_cannot_escape_a_mask_by_saying_that_no_rules_made_it() -> None:
    quality = rules(1, transformation=[REDACT])
    collection = StillCollection(quality=quality, published={1: quality}, masked_by=1)
    document = {"_id": 1, "email": "ada@example.org"}
    collection.row(document, 0)
    assert only(collection, collection.document(document)).kind == "different"
    collection.masked_by = 0  # before a remask, rows of older rules are as those made them
    assert collection.settle("1").equal == 1


def test_what_newer_rules_mask_is_not_shown_of_older_rows() -> None:
    now = rules(2, transformation=[REDACT])
    collection = StillCollection(quality=now, published={1: rules(1), 2: now})
    document = {"_id": 1, "email": "ada@example.org", "a": 1}
    key = collection.document(document)
    collection.row(document, 1, a=2)
    gone = collection.row({"_id": 2, "email": "bob@example.org"}, 1)
    settled = collection.settle(key, gone)
    assert {each.kind for each in settled.differences} == {"different", "extra"}
    assert all((each.document, each.row) == (None, None) for each in settled.differences)
    assert all("not shown" in each.explanation for each in settled.differences)


# -- dead letters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [10, 11, 1000])
def test_a_letter_later_than_the_row_explains_it(offset: int) -> None:
    collection = StillCollection(offset=10)
    key = collection.document({"_id": 1, "a": 1})
    collection.row({"_id": 1, "a": 1}, a=2)
    collection.letters[key] = [letter(3), letter(offset)]
    difference = only(collection, key)
    assert difference.kind == "dead_lettered"
    assert f"p.shop.orders:0:{offset}" in difference.explanation
    assert "replay" in difference.explanation


def test_a_letter_of_before_the_row_explains_nothing() -> None:
    collection = StillCollection(offset=10)
    key = collection.document({"_id": 1, "a": 1})
    collection.row({"_id": 1, "a": 1}, a=2)
    collection.letters[key] = [letter(9)]
    assert only(collection, key).kind == "different"


def test_a_row_of_a_topic_that_is_gone_is_older_than_any_letter() -> None:
    collection = StillCollection(offset=10)
    key = collection.document({"_id": 1, "a": 1})
    collection.row({"_id": 1, "a": 1}, a=2)
    collection.partition_base = 1
    collection.letters[key] = [letter(3)]
    assert only(collection, key).kind == "dead_lettered"


@pytest.mark.parametrize("is_there", [True, False])
def test_missing_and_extra_are_explained_by_letters(is_there: bool) -> None:
    collection = StillCollection()
    key = collection.document({"_id": 1}) if is_there else collection.row({"_id": 1})
    collection.letters[key] = [letter(50)]
    settled = collection.settle(key)
    assert dict(settled.counts) == {"dead_lettered": 1}


def test_a_document_that_is_still_rejected_is_not_to_be_replayed() -> None:
    collection = StillCollection(quality=rules(1, validation=[IS_POSITIVE]))
    key = collection.document({"_id": 1, "total": -1})
    collection.letters[key] = [letter(50)]
    difference = only(collection, key)
    assert difference.kind == "rejected"
    assert "dead letter p.shop.orders:0:50" in difference.explanation


def test_letters_do_not_explain_duplicates() -> None:
    collection = StillCollection()
    collection.both({"_id": 1})
    key = collection.row({"_id": 1})
    collection.letters[key] = [letter(50)]
    assert only(collection, key).kind == "duplicated"


def test_letters_are_not_asked_for_what_merely_lags() -> None:
    collection = StillCollection(watermark_ms=NOW_MS)
    key = collection.document({"_id": 1})
    collection.letters[key] = [letter(50)]
    assert only(collection, key).kind == "lagging"


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_of_a_long_document_the_fields_that_differ_are_shown() -> None:
    collection = StillCollection()
    document = {"_id": 1, "long": "x" * MAX_CHARACTERS, "a": 1}
    key = collection.document(document)
    collection.row(document, a=2)
    difference = only(collection, key)
    assert told(difference.document) == {"_id": 1, "a": 1}
    assert told(difference.row) == {"_id": 1, "a": 2}


def test_what_is_too_long_even_so_is_not_shown_and_said_so() -> None:
    collection = StillCollection()
    document = {"_id": 1, "a": "x" * MAX_CHARACTERS}
    key = collection.document(document)
    collection.row(document, a="y")
    difference = only(collection, key)
    assert difference.document is None
    assert told(difference.row) == {"_id": 1, "a": "y"}
    assert "too long to be shown" in difference.explanation


def test_there_is_room_for_so_many_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciliation.reconciler.shown_documents.MAX_CHARACTERS_IN_ALL", 100)
    collection = StillCollection()
    settled = collection.settle(*[collection.document({"_id": number}) for number in range(10)])
    shown = [each.document for each in settled.differences if each.document is not None]
    assert 0 < len("".join(shown)) <= 100
    assert "no room" in settled.differences[-1].explanation
